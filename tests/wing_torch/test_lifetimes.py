"""What lives how long, what a step costs beside others, and steps in threads."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any
from weakref import ref

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

import penalize
from penalize import L1, L2, of_type
from penalize.torch import audit, regularize
from penalize.torch.clock import OptimizerStep
from penalize.torch.model.targets import Live, Target
from penalize.torch.modes import choice
from penalize.torch.modes.base import Effect, Mode, Replayed, check_can_be_set
from penalize.torch.modes.step_sizes import rate_of


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def train(model: nn.Module, optimizer: Optimizer, penalty: Callable[[], Any] = lambda: 0) -> None:
    optimizer.zero_grad()
    (model(torch.ones(5, 4)).square().mean() + penalty()).backward()
    optimizer.step()


# --- how long ------------------------------------------------------------------------------------


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Counting alone frees what is not held."""
    train(
        model := network(), SGD(model.parameters())
    )  # PyTorch's first step makes cycles of its own
    gc.disable()
    yield
    gc.enable()


HOW: dict[str, dict[str, Any] | None] = {
    "loss": None,
    "gradient": {},
    "values": {"values": True},
    "with clipping": {"clip": "with"},
    "decoupled": {"mode": "decoupled"},
    "proximal": {"mode": "proximal"},
}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("outputs", [False, True])
@pytest.mark.usefixtures("uncollected")
def test_nothing_of_ours_needs_the_collector(how: str, detached: bool, outputs: bool) -> None:
    def use() -> list[ref[Any]]:
        model = network()
        activities = {of_type(nn.ReLU): L1(0.1)} if outputs else None
        plan = regularize(model, L1(0.1), activities=activities)
        optimizer = SGD(model.parameters(), lr=0.1)
        options = HOW[how]
        attachment = None if options is None else plan.attach(optimizer, **options)
        for _ in range(2):
            train(model, optimizer, plan.penalty if attachment is None else plan.activity_penalty)
        if attachment is not None and detached:
            attachment.detach()
            train(model, optimizer, plan.activity_penalty)
        return [ref(thing) for thing in (model, plan, optimizer, attachment) if thing is not None]

    assert [held() for held in use()] == [None] * (3 if how == "loss" else 4)


@pytest.mark.usefixtures("uncollected")
def test_a_plan_whose_optimizer_is_gone_is_free_for_another() -> None:
    model = network()
    plan = regularize(model, L2(0.1))
    for _ in range(3):
        optimizer = SGD(model.parameters(), lr=0.1)
        attachment = plan.attach(optimizer)
        assert plan.attachments() == [attachment]
        del optimizer, attachment
        assert plan.attachments() == []


class Whole(SGD):
    """Is saved with all that it has, as optimizers elsewhere are."""

    def __getstate__(self) -> dict[str, Any]:
        hooks = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
        return {name: value for name, value in vars(self).items() if name not in hooks}


@pytest.mark.parametrize("attached", [False, True])
def test_what_is_noted_on_an_optimizer_is_not_saved_with_it(attached: bool) -> None:
    model = network()
    optimizer = Whole(model.parameters(), lr=0.1)
    plan = regularize(model, L2(0.1))
    if attached:
        plan.attach(optimizer)
    train(model, optimizer, (lambda: 0) if attached else plan.penalty)
    for again in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        noted = {name: value for name, value in vars(again).items() if "penalize" in name}
        assert not any(noted.values())


# --- at what cost --------------------------------------------------------------------------------

SOURCE = str(Path(penalize.__file__).parent)


def calls(act: Callable[[], Any]) -> int:
    """How many functions of ours it calls."""
    found = 0

    def count(frame: FrameType, event: str, _: Any) -> None:
        nonlocal found
        found += event == "call" and frame.f_code.co_filename.startswith(SOURCE)

    sys.setprofile(count)
    try:
        act()
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.parametrize("attached", [False, True])
def test_a_step_costs_the_same_beside_a_thousand_other_plans(attached: bool) -> None:
    model = network()
    plan = regularize(model, L2(0.1))
    optimizer = SGD(model.parameters(), lr=0.1)
    if attached:
        plan.attach(optimizer)
    penalty = (lambda: 0) if attached else plan.penalty
    for _ in range(2):
        train(model, optimizer, penalty)
    alone = calls(lambda: train(model, optimizer, penalty))
    others = [regularize(nn.Linear(1, 1), L2(0.1)) for _ in range(1000)]
    train(model, optimizer, penalty)  # looks through the new ones, once
    assert calls(lambda: train(model, optimizer, penalty)) == alone
    assert len(others) == 1000


# --- in threads ----------------------------------------------------------------------------------


@pytest.fixture
def restless() -> Iterator[None]:
    """Threads that take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def run(seed: int, rounds: int = 12) -> Tensor:
    """Train with plans that come and go, by turns in all modes, from the same start."""
    generator = torch.Generator().manual_seed(seed)
    model = network()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    optimizer = Adam(model.parameters(), lr=0.1)
    for i in range(rounds):
        others = [regularize(nn.Linear(2, 1), L2(0.1)) for _ in range(5)]
        plan = regularize(model, L1(0.1))
        if i % 4 == 3:
            train(model, optimizer, plan.penalty)
        else:
            attachment = plan.attach(optimizer, ("gradient", "decoupled", "proximal")[i % 4])
            train(model, optimizer)
            attachment.detach()
        del others
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


@pytest.mark.usefixtures("restless")
def test_plans_steps_and_attachments_in_threads() -> None:
    seeds = range(4)
    alone = [run(seed) for seed in seeds]
    found: dict[int, Tensor | BaseException] = {}

    def work(seed: int) -> None:
        try:
            found[seed] = run(seed)
        except BaseException as error:  # noqa: BLE001
            found[seed] = error

    threads = [threading.Thread(target=work, args=(seed,)) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed in seeds:
        torch.testing.assert_close(found[seed], alone[seed], rtol=0, atol=0)


# --- modes ---------------------------------------------------------------------------------------


class Late(Mode):
    """w ← w − lr·∇Ω(w) after the update."""

    name = "late"

    def check(self, target: Target, optimizer: Optimizer) -> None:
        target.regularizer.check_gradient(repr(target.name))
        check_can_be_set(self, target)

    def before(self, targets: Sequence[Live], step: OptimizerStep) -> None:
        """Nothing."""

    def after(self, targets: Sequence[Live], step: OptimizerStep) -> None:
        for target in targets:
            (w,) = target.parameters
            rate = rate_of(step.groups[id(w)])
            step.assign(w, w - rate * target.regularizer.gradient(w))

    def effect(self, target: Target, run: Replayed) -> Effect:
        (w,) = target.parameters
        rate, without = run.groups[id(w)]["lr"], run.weights[id(w)]
        return Effect("weights", {w: -rate * target.regularizer.gradient(without)})


class Twice(Late):
    """Acts twice as much as it says."""

    name = "twice"

    def after(self, targets: Sequence[Live], step: OptimizerStep) -> None:
        doubled = [t._replace(regularizer=2 * t.regularizer) for t in targets]
        super().after(doubled, step)


class Unmeasured(Mode):
    """Does not say what it changes."""

    name = "unmeasured"

    def check(self, target: Target, optimizer: Optimizer) -> None:
        """Nothing."""

    def before(self, targets: Sequence[Live], step: OptimizerStep) -> None:
        """Nothing."""


@pytest.mark.parametrize(("kind", "factor"), [(Late, 1.0), (Twice, 2.0)])
def test_a_mode_of_ones_own_is_measured_by_what_it_says(
    monkeypatch: pytest.MonkeyPatch, kind: type[Mode], factor: float
) -> None:
    monkeypatch.setitem(choice.MODES, kind.name, kind)
    model = network().double()
    optimizer = SGD(model.parameters(), lr=0.1)
    plan = regularize(model, L2(0.1))
    plan.attach(optimizer, kind.name)

    def step() -> None:
        optimizer.zero_grad()
        model(torch.ones(5, 4).double()).square().mean().backward()
        optimizer.step()

    assert [row.factor for row in audit(step, plan)] == pytest.approx([factor] * 2)


def test_a_mode_without_a_measure_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no number: measured as if it were another mode, it would be "never applied"."""
    monkeypatch.setitem(choice.MODES, "unmeasured", Unmeasured)
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    plan = regularize(model, L2(0.1))
    with pytest.raises(TypeError, match=r"abstract method '?effect"):
        plan.attach(optimizer, "unmeasured")
    assert plan.attachments() == []
