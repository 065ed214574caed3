"""ignite's engines with PenalizeCallback, against loops by hand that know nothing of either."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import by_hand
import pytest
import torch
from by_hand import STRENGTHS, apart
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint, DiskSaver
from torch import nn

import penalize
from penalize import (
    L1,
    L2,
    AppliedTwiceError,
    LostAttachmentError,
    ModeError,
    NoMatchError,
    OptimizerError,
    Regularizer,
    StateError,
    TrainerError,
    kernels,
    warmup,
)
from penalize.integrations.ignite import PenalizeCallback

RULES: dict[Any, Regularizer] = {kernels: L2(STRENGTHS[1]), "0": L1(STRENGTHS[0])}
SGD, ADAM = torch.optim.SGD, torch.optim.Adam


class Setup:
    """Model, optimizer and trainer, which accumulates, clips, and goes over its batches."""

    def __init__(self, make: Any = ADAM, accumulate: int = 1) -> None:
        self.model = by_hand.network()
        self.optimizer = make(self.model.parameters(), lr=by_hand.RATE)
        self.accumulate = accumulate
        self.trainer = Engine(self._update)
        self.batches = by_hand.batches(10)

    def _update(self, trainer: Engine, _: by_hand.Batch) -> float:
        # An engine that goes on in the middle of an epoch takes its data from the first on.
        batch = self.batches[(trainer.state.iteration - 1) % 10]
        loss = by_hand.loss_of(self.model, *batch)
        (loss / self.accumulate).backward()
        if trainer.state.iteration % self.accumulate == 0:
            nn.utils.clip_grad_norm_(self.model.parameters(), 0.1)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return float(loss.detach())

    def attach(self, callback: PenalizeCallback, **arguments: Any) -> PenalizeCallback:
        callback.attach(self.trainer, self.model, self.optimizer, **arguments)
        return callback

    def run(self, epochs: int) -> Setup:
        self.trainer.run(self.batches, max_epochs=epochs)
        return self


MODES = [("gradient", ADAM), ("decoupled", ADAM), ("proximal", SGD)]


@pytest.mark.parametrize(("mode", "make"), MODES, ids=[mode for mode, _ in MODES])
def test_ten_steps_of_accumulated_and_clipped_gradients(mode: str, make: Any) -> None:
    setup = Setup(make, accumulate=2)
    setup.attach(PenalizeCallback(RULES, mode))
    setup.run(2)
    seen = [*by_hand.batches(10), *by_hand.batches(10)]
    expected = by_hand.trained(by_hand.network(), seen, mode, make, accumulate=2, clip=0.1)
    assert apart(setup.model, expected) < 1e-12
    assert apart(setup.model, by_hand.network()) > 0.01


def test_what_is_in_the_metrics() -> None:
    setup, logged = Setup(), []
    callback = setup.attach(PenalizeCallback(RULES), event=Events.ITERATION_COMPLETED(every=5))
    each = Events.ITERATION_COMPLETED(every=5)
    setup.trainer.add_event_handler(each, lambda trainer: logged.append({**trainer.state.metrics}))
    setup.run(1)
    assert callback.plan is not None
    assert len(logged) == 2
    assert logged[-1] == penalize.log(callback.plan)
    assert logged[-1].keys() == {"penalty", "penalties/0", "penalties/kernels", "zeros"}
    assert logged[-1]["penalty"] == sum(callback.plan.breakdown().values()) != logged[0]["penalty"]
    assert "rule '0' (test_ignite.py:" in str(callback.plan)


def test_detached() -> None:
    setup = Setup(SGD)
    setup.attach(PenalizeCallback(RULES)).detach()
    setup.run(1)
    assert "penalty" not in setup.trainer.state.metrics
    expected = by_hand.trained(by_hand.network(), by_hand.batches(10), "", SGD, clip=0.1)
    assert apart(setup.model, expected) < 1e-12


# --- going on -----------------------------------------------------------------------------------

# At step 0 nothing, at step 16 all: who begins anew in the middle ends elsewhere.
GROWING = {kernels: (L2(0.3) + L1(0.05)) * warmup(16)}
PENALIZED: dict[str, Any] = {"mode": "halfspace", "average": 0.9}
ORDERS = [
    ("trainer", "model", "optimizer", "penalties"),
    ("penalties", "optimizer", "model", "trainer"),
]


def whole() -> Setup:
    setup = Setup()
    setup.attach(PenalizeCallback(GROWING, **PENALIZED))
    return setup.run(2)


def parts(setup: Setup, callback: Any, order: Any) -> dict[str, Any]:
    return {key: callback if key == "penalties" else getattr(setup, key) for key in order}


def saved(folder: Path, order: Any = ORDERS[0]) -> str:
    """The checkpoint at iteration 13, in the middle of the second epoch, of a run that ends."""
    setup = Setup()
    callback = setup.attach(PenalizeCallback(GROWING, **PENALIZED))
    checkpoint = Checkpoint(parts(setup, callback, order), DiskSaver(folder))
    setup.trainer.add_event_handler(Events.ITERATION_COMPLETED(once=13), checkpoint)
    setup.trainer.add_event_handler(
        Events.ITERATION_COMPLETED(once=13), lambda trainer: trainer.terminate()
    )
    setup.run(2)
    assert checkpoint.last_checkpoint is not None
    return str(folder / checkpoint.last_checkpoint)


def load(setup: Setup, callback: PenalizeCallback, file: str, order: Any) -> None:
    Checkpoint.load_objects(parts(setup, callback, order), file)


@pytest.mark.parametrize("attach_first", [True, False])
@pytest.mark.parametrize("order", ORDERS, ids=["last", "first"])
def test_a_checkpoint_goes_on(tmp_path: Path, attach_first: bool, order: Any) -> None:
    file = saved(tmp_path, order)
    again, callback = Setup(), PenalizeCallback(GROWING, **PENALIZED)
    if attach_first:
        again.attach(callback)
        load(again, callback, file, order)
    else:
        load(again, callback, file, order)
        again.attach(callback)
    again.run(2)
    assert apart(again.model, whole().model) == 0
    assert callback.attachment is not None
    assert callback.attachment.steps == [20]


def test_a_second_run_goes_on() -> None:
    setup = Setup()
    callback = setup.attach(PenalizeCallback(GROWING, **PENALIZED))
    setup.run(1).run(2)
    assert apart(setup.model, whole().model) == 0
    copied = copy.deepcopy(callback)  # waits with its state
    other = Setup()
    copied.attach(other.trainer, other.model, other.optimizer)
    assert copied.attachment is not None
    assert copied.attachment.steps == [20]


# --- what is refused ----------------------------------------------------------------------------


def told(error: Any) -> str:
    return " ".join([str(error.value), *error.value.__notes__])


def test_attached_twice() -> None:
    setup = Setup()
    callback = setup.attach(PenalizeCallback(RULES))
    with pytest.raises(TrainerError, match=r"attach\(trainer, model, optimizer\) was called twice"):
        setup.attach(callback)
    with pytest.raises(TrainerError, match=r"second PenalizeCallback \(test_ignite\.py:\d+\) came"):
        setup.attach(PenalizeCallback(RULES))
    other = Engine(lambda trainer, batch: 0.0)
    callback.detach()
    callback.attach(other, setup.model, [setup.optimizer])


def test_what_does_not_fit() -> None:
    with pytest.raises(ModeError, match="There is no mode 'prox'"):
        PenalizeCallback(RULES, "prox")
    with pytest.raises(NoMatchError, match=r"rule '9' \(test_ignite\.py:\d+\)") as no_match:
        Setup().attach(PenalizeCallback({"9": L1(0.1)}))
    assert "those of the model that attach(trainer, model, optimizer) was given" in told(no_match)
    decayed = Setup(lambda parameters, lr: SGD(parameters, lr=lr, weight_decay=0.1))
    with pytest.raises(AppliedTwiceError, match=r"weight_decay=0\.1 of SGD") as twice:
        decayed.attach(PenalizeCallback(RULES))
    assert "leave plan.penalty() out of the loss in the update function" in told(twice)
    with pytest.raises(
        TrainerError, match="got a Sequential for the trainer; pass ignite's Engine"
    ):
        PenalizeCallback(RULES).attach(decayed.model, decayed.optimizer, decayed.trainer)
    other = Setup()
    with pytest.raises(ValueError, match="epoch_ended"):
        other.attach(PenalizeCallback(RULES), event="epoch_ended")
    other.attach(PenalizeCallback(RULES))  # nothing was left behind
    other = Setup()
    with pytest.raises(OptimizerError, match="holds none of the plan's 2 penalized") as error:
        PenalizeCallback(RULES).attach(other.trainer, Setup().model, other.optimizer)
    assert "the optimizer, or a list of them, that the update function" in told(error)
    other.run(1)
    assert other.trainer.state.metrics == {}


def test_a_checkpoint_without_the_state(tmp_path: Path) -> None:
    file = saved(tmp_path)
    for attach_first in (True, False):
        again, callback = Setup(), PenalizeCallback(GROWING, **PENALIZED)
        if attach_first:
            again.attach(callback)
        load(again, callback, file, ("trainer", "model", "optimizer"))
        if not attach_first:
            again.attach(callback)
        with pytest.raises(StateError, match="goes on at iteration 13 was saved with pen") as error:
            again.run(2)
        assert "in to_save of Checkpoint and in to_load of Checkpoint.load_objects" in told(error)


def test_a_checkpoint_of_other_rules(tmp_path: Path) -> None:
    file = saved(tmp_path)
    again = Setup()
    callback = again.attach(PenalizeCallback(RULES, "proximal"))
    with pytest.raises(StateError, match="it has mode='halfspace', and here it is 'proximal'"):
        load(again, callback, file, ORDERS[0])
    other, later = Setup(), PenalizeCallback(RULES)
    load(other, later, file, ORDERS[0])
    with pytest.raises(StateError, match="it has mode='halfspace', and here it is 'gradient'"):
        other.attach(later)
    assert later.attachment is None
    with pytest.raises(LostAttachmentError):  # nor is it stepped without penalties now
        other.run(2)
