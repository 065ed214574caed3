"""Lightning's Trainer with PenalizeCallback: going on, ending, what is refused, and the doctor."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from by_hand import STRENGTHS, apart
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning_runs import QUIET, RULES, Regression, fitted, loader, trainer
from torch.optim import SGD

from penalize import (
    L1,
    L2,
    AppliedTwiceError,
    ModeError,
    NoMatchError,
    OptimizerError,
    RulesError,
    StateError,
    TrainerError,
    cli,
    kernels,
    warmup,
)
from penalize.integrations.lightning import PenalizeCallback

pytestmark = QUIET


# --- resuming -------------------------------------------------------------------------------------

RESUMED: Any = {kernels: L2(STRENGTHS[1]) * warmup(20), "model.0": L1(0.3) * warmup(25)}


class Killed(Callback):
    """Ends the training in the middle of its second epoch, after saving at the end of the first."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.path)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 13:
            raise KeyError("killed")


def test_a_training_that_was_ended_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    def callback() -> PenalizeCallback:
        return PenalizeCallback(RESUMED, "proximal", average=0.9)

    whole = fitted(callback(), max_epochs=3)
    path = tmp_path / "one.ckpt"
    with pytest.raises(KeyError, match="killed"):
        trainer(callback(), Killed(path), max_epochs=3).fit(Regression(), loader())
    again = Regression()
    trainer(callback(), max_epochs=3).fit(again, loader(), ckpt_path=path, weights_only=True)
    assert apart(again.model, whole.model) == 0.0

    module, schedules = Regression(), callback()
    twice = trainer(schedules, max_epochs=1)
    twice.fit(module, loader())
    assert twice.fit_loop.max_epochs is not None
    twice.fit_loop.max_epochs = 3
    twice.fit(module, loader())
    assert schedules.attachment is not None
    assert schedules.attachment.steps == [30]
    assert apart(module.model, whole.model) == 0.0

    trainer(schedules).fit(Regression(), loader())
    assert schedules.attachment.steps == [10]  # another trainer begins anew


def test_checkpoints_of_other_penalties_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "with.ckpt"
    callback = PenalizeCallback(RULES)
    saver = trainer(callback)
    saver.fit(Regression(), loader())
    saver.save_checkpoint(path)  # after the training
    for other, problem in (
        (PenalizeCallback(RULES, "decoupled"), "mode='gradient', and here it is 'decoupled'"),
        (PenalizeCallback({kernels: L2(0.5)}), "'model.2.weight' has"),
    ):
        with pytest.raises(StateError, match=problem) as caught:
            trainer(other, max_epochs=2).fit(Regression(), loader(), ckpt_path=path)
        assert "Trainer.fit without ckpt_path" in caught.value.__notes__[0]
        assert not (other.attachment and other.attachment.alive)
    bare = tmp_path / "without.ckpt"
    without = trainer()
    without.fit(Regression(), loader())
    without.save_checkpoint(bare)
    with pytest.raises(StateError, match="saved without a PenalizeCallback"):
        trainer(PenalizeCallback(RULES), max_epochs=2).fit(Regression(), loader(), ckpt_path=bare)


# --- beginning and ending -------------------------------------------------------------------------


def test_after_the_training_nothing_acts_and_the_same_model_can_be_trained_again() -> None:
    callback = PenalizeCallback(RULES)
    module = fitted(callback)
    assert callback.attachment is not None
    assert not callback.attachment.alive
    fitted(PenalizeCallback(RULES, "decoupled"), module)
    for made in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert made.plan is None
        fitted(made, module)
        assert made.attachment.steps == [10]
    assert "test_lightning_trainings.py:" in str(made.plan)


class Interrupting(Callback):
    def on_train_batch_start(self, *_: Any) -> None:
        raise KeyError("stop")


def test_a_training_that_raised_does_not_stand_in_the_way() -> None:
    module, callback = Regression(), PenalizeCallback(RULES)
    broken = trainer(callback, Interrupting())
    with pytest.raises(KeyError, match="stop"):
        broken.fit(module, loader())
    assert callback.attachment is not None
    assert not callback.attachment.alive
    fitted(PenalizeCallback(RULES), module)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: PenalizeCallback(0.1), RulesError, r"Write L2\(0\.1\)"),  # type: ignore[arg-type]
        (lambda: PenalizeCallback(L2(0.1), "prox"), ModeError, "no mode 'prox'"),
        (lambda: PenalizeCallback(L2(0.1), values=2), ModeError, "values=2"),
        (lambda: PenalizeCallback(L2(0.1), clap="with"), TypeError, "clap"),
    ],
)
def test_malformed(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


class Decaying(Regression):
    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters())


class HalfStepped(Regression):
    def configure_optimizers(self) -> Any:
        return SGD(self.model[0].parameters(), 0.1)


@pytest.mark.parametrize(
    ("rules", "kind", "error", "message", "words"),
    [
        ({"0": L1(0.1)}, Regression, NoMatchError, "nearest names are 'model.0'", "in front"),
        ({"module.model.0": L1(0.1)}, Regression, NoMatchError, "'model.0", "of wrappers"),
        (L2(0.1), Decaying, AppliedTwiceError, "weight_decay=0.01", "configure_optimizers"),
        (L2(0.1), HalfStepped, OptimizerError, "does not hold 'model.2.weight'", ""),
    ],
)
def test_what_does_not_fit(
    rules: Any, kind: type[Regression], error: type[Exception], message: str, words: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        fitted(PenalizeCallback(rules), kind())
    assert words in "".join(getattr(caught.value, "__notes__", []))


def test_two_callbacks_are_refused() -> None:
    with pytest.raises(RuntimeError, match="more than one stateful callback"):
        trainer(PenalizeCallback(RULES), PenalizeCallback(RULES))
    late = trainer(PenalizeCallback(RULES))
    late.callbacks.append(PenalizeCallback(RULES))  # type: ignore[attr-defined]
    with pytest.raises(TrainerError, match="give one, with the rules of both"):
        late.fit(Regression(), loader())


def test_deepspeed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class DeepSpeedStrategy(SingleDeviceStrategy):
        """A stand-in: DeepSpeed does not run here."""

    strategy = DeepSpeedStrategy("cpu")
    with pytest.raises(TrainerError, match="DeepSpeed steps the weights itself"):
        fitted(PenalizeCallback(RULES), strategy=strategy)


# --- the doctor -----------------------------------------------------------------------------------

EXAMPLE = Path(__file__).parents[2] / "examples" / "lightning_digits.py"
PLANTED = {
    "nn.Linear(32, 10))": "nn.Linear(32, 10), nn.Linear(10, 10))",
    "batch[1])": "batch[1]) + 1e-4 * self.net[3].weight.square().sum()",
    "Adam(self.parameters(), lr=0.01)": "Adam([{'params': self.net[::3].parameters()}, "
    "{'params': self.net[1].parameters(), 'weight_decay': 0.1}], lr=0.01)",
    '"net.0": L1(1e-3)': '"net.0": L1(1e-3), "net.4": None',
}
"""A layer that is left out of the optimizer, an L2 that is in the loss as well, decayed norms."""


@pytest.mark.filterwarnings("ignore")
def test_the_doctor_finds_what_is_planted_in_the_example_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = EXAMPLE.read_text("utf-8")
    for good, bad in PLANTED.items():
        assert good in text
        text = text.replace(good, bad)
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(text, "utf-8")
    assert cli.main(["doctor", "train.py"]) == 1
    _, _, report = capsys.readouterr().out.partition("penalize doctor: train.py")
    wrong = [" ".join(line.split()) for line in report.splitlines() if line.startswith("wrong")]
    assert [line.partition(" of a ")[0] for line in wrong] == [
        "wrong net.1.weight, net.1.bias weight_decay=0.1 of Adam, in the gradient norm: decayed, "
        "while the kernels are exempt",
        "wrong net.3.weight L2(0.0001) in the loss 1 penalized twice: also by L2(0.0001)",
        "wrong net.4.weight, net.4.bias no optimizer holds it, though it gets a gradient: give it "
        "to one, or freeze it",
    ]
    assert "2 of 2 applied exactly once" in report
