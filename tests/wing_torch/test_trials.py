"""Which optimizers may be acted on beside their gradients: decided by a trial, not by a name."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from penalize import L1, L2, ModeError, everything
from penalize.torch import audit, regularize
from penalize.torch.auditing.models_alive import alive
from penalize.torch.clock import listen_to_all
from penalize.torch.listener import Listener
from penalize.torch.modes.edits import why_not_edited, why_not_sized
from penalize.torch.modes.recipes import Recipe
from penalize.torch.modes.trials import STEPS, run


class Ours(Optimizer):
    """Steps by the sign of the gradient; what is derived from it does something beside."""

    made: ClassVar[int] = 0

    def __init__(self, params: Any, lr: float = 0.1, kept: bool = True) -> None:
        super().__init__(params, {"lr": lr, "kept": kept})
        type(self).made += 1

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                state["step"] = state.get("step", 0) + 1
                self.update(p, group, state)

    def update(self, w: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        w -= group["lr"] * w.grad.sign()


class Preparing(Ours):
    """Sets itself up in its first step, as SOAP does."""

    def update(self, w: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        if state["step"] > 1:
            super().update(w, group, state)


class Slow(Ours):
    """Goes back half of the way to weights of its own in every fifth step, as Lookahead does."""

    def update(self, w: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        slow = state.setdefault("slow", w.clone())
        super().update(w, group, state)
        if group["kept"] and state["step"] % 5 == 0:
            w.copy_(slow.lerp_(w, 0.5))


class Seldom(Ours):
    """As Slow, every so many steps. Its own weights are those of when it first puts them in place,
    as timm's Lookahead has them, or of its start."""

    def __init__(self, params: Any, every: int = 50, late: bool = False) -> None:
        Optimizer.__init__(self, params, {"lr": 0.1, "every": every, "late": late})

    def update(self, w: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        is_now = state["step"] % group["every"] == 0
        if is_now or not group["late"]:
            state.setdefault("slow", w.clone())
        super().update(w, group, state)
        if is_now:
            w.copy_(state["slow"].lerp_(w, 0.5))


class Hidden(Ours):
    """The same without a setting that tells of it, its weights in a list of one vector."""

    def __init__(self, params: Any) -> None:
        super().__init__(params)
        held = [p.detach().reshape(-1) for group in self.param_groups for p in group["params"]]
        self.own = [torch.cat(held).clone()]
        self.steps = 0

    def step(self, closure: Any = None) -> None:
        super().step()
        self.steps += 1
        if self.steps % 300 == 0:
            held = [p for group in self.param_groups for p in group["params"]]
            nn.utils.vector_to_parameters(self.own[0].clone(), held)


class Measuring(Ours):
    """Keeps where it began, to measure how far it has come, as DoG does."""

    def update(self, w: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        start = state.setdefault("start", w.clone())
        state["far"] = (w - start).norm()
        super().update(w, group, state)


class Fading(Ours):
    """Keeps copies, and shrinks the weights a little whatever the learning rate, by a setting of
    its own."""

    def update(self, w: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        state["before"] = w.clone()
        super().update(w, group, state)
        w *= 1 - 1e-4


class Averaging(Ours):
    """Steps weights of its own, and shows an average, as schedule-free optimizers do."""

    def update(self, w: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        own = state.setdefault("own", w.clone())
        own -= group["lr"] * w.grad.sign()
        w.lerp_(own, 1 / (state["step"] + 1))


class Master(Ours):
    """Steps a copy, and writes it back: what is done to the weights is lost at once."""

    def update(self, w: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        master = state.setdefault("master", w.clone())
        master -= group["lr"] * w.grad.sign()
        w.copy_(master)


class Normed(Ours):
    """Keeps the norm that a weight had."""

    def update(self, w: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        norm = state.setdefault("norm", w.norm())
        super().update(w, group, state)
        w *= norm / w.norm()


class Trusting(Ours):
    """Sizes its step by the weights, as LAMB does, and keeps none of them."""

    def update(self, w: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        w -= group["lr"] * w.norm() / w.grad.norm() * w.grad


class Estimating(Ours):
    """Finds out how large its steps have to be, from next to nothing, as Prodigy does."""

    def update(self, w: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        w -= 1e-6 * group["lr"] * w.grad.sign()


class OfMatrices(Ours):
    """Takes matrices only, as Muon does."""

    def update(self, w: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        if w.ndim != 2:
            raise ValueError("a matrix, please")
        super().update(w, group, state)


class Around(Ours):
    """Steps another optimizer, and goes back half of the way to where that was."""

    def __init__(self, inner: Optimizer, every: int = 4) -> None:
        Optimizer.__init__(self, inner.param_groups, inner.defaults)
        self.inner, self.every, self.steps = inner, every, 0

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        self.steps += 1
        self.inner.step()
        for group in self.param_groups:
            for p in group["params"]:
                before = self.state[p].setdefault("before", p.clone())
                if self.every and self.steps % self.every == 0:
                    p.copy_(before.lerp_(p, 0.5))


class OfModel(Ours):
    """Made from a model, which nothing but the user has."""

    def __init__(self, params: Any, model: nn.Module) -> None:
        super().__init__(params)
        self.model = model


class Options:
    """Settings in an object."""

    def __init__(self, every: int) -> None:
        self.every = every


class WithOptions(Ours):
    """Set by an object, and slow if that says so."""

    def __init__(self, params: Any, options: Options | None = None) -> None:
        super().__init__(params)
        self.options = options or Options(0)

    def update(self, w: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        super().update(w, group, state)
        slow = state.setdefault("slow", w.clone())
        if self.options.every and state["step"] % self.options.every == 0:
            w.copy_(slow)


class OfData(Ours):
    """Made from something that it does not keep."""

    def __init__(self, params: Any, data: Tensor) -> None:
        super().__init__(params)


class WithClosure(Ours):
    """Needs the loss."""

    def step(self, closure: Any) -> None:  # type: ignore[override]
        closure()


class Above(Adam):
    """A subclass of PyTorch's whose step calls its parent's, and puts weights of its own back."""

    def step(self, closure: Any = None) -> Any:
        returned = super().step(closure)
        with torch.no_grad():
            for p in self.param_groups[0]["params"]:
                p.copy_(self.state[p].setdefault("own", p.clone()))
        return returned


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))


KEPT = [Ours, Preparing, Trusting, Measuring]


@pytest.mark.parametrize("kind", KEPT)
def test_what_keeps_no_weights_is_decoupled_as_by_hand(kind: Callable[..., Optimizer]) -> None:
    x = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))

    def trained(attached: bool) -> tuple[Tensor, Any]:
        model = network()
        optimizer = kind(model.parameters())
        plan = regularize(model, {everything: L1(0.01)}) if attached else None
        if plan is not None:
            plan.attach(optimizer, mode="decoupled")

        def step() -> None:
            optimizer.zero_grad()
            model(x).pow(2).sum().backward()
            with torch.no_grad():
                for p in () if attached else model.parameters():
                    p -= 0.1 * (0.01 * p.sign())
            optimizer.step()

        for _ in range(6):
            step()
        return nn.utils.parameters_to_vector(model.parameters()), plan and audit(step, plan)

    (by_hand, _), (ours, report) = trained(False), trained(True)
    assert torch.equal(ours, by_hand)
    assert [row.factor for row in report.declared] == [pytest.approx(1.0, abs=1e-3)] * 4


LONG = "it may keep weights of its own: in a trial of {} steps with a new one, "
UNDONE = LONG.format(20)
NOT_SIZED = "in a trial with gradients of size 1 its steps were less than 0.0001 of its lr"
NEEDED = "missing 1 required positional argument: 'closure'"
REFUSED: dict[str, tuple[Callable[[nn.Module], Optimizer], str]] = {
    "Slow": (lambda m: Slow(m.parameters()), UNDONE + "50% of"),
    "Averaging": (lambda m: Averaging(m.parameters()), UNDONE),
    "Master": (lambda m: Master(m.parameters()), UNDONE + "100% of"),
    "Seldom": (lambda m: Seldom(m.parameters()), LONG.format(1020) + "50% of"),
    "Hidden": (lambda m: Hidden(m.parameters()), LONG.format(1020) + "100% of"),
    "Normed": (lambda m: Normed(m.parameters()), UNDONE),
    "Estimating": (lambda m: Estimating(m.parameters()), NOT_SIZED),
    "Around": (lambda m: Around(SGD(m.parameters(), lr=0.1)), UNDONE),
    "Above": (lambda m: Above(m.parameters()), UNDONE + "100% of"),
    "OfMatrices": (
        lambda m: OfMatrices(m.parameters()),
        "a new one could not be tried (ValueError: a matrix, please)",
    ),
    "OfModel": (
        lambda m: OfModel(m.parameters(), m),
        "its model, a Sequential, cannot be had again",
    ),
    "OfData": (
        lambda m: OfData(m.parameters(), torch.ones(3)),
        "what it was given as data is not known",
    ),
    "WithClosure": (lambda m: WithClosure(m.parameters()), NEEDED),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_undone_is_refused(name: str) -> None:
    make, reason = REFUSED[name]
    model = network()
    says = f"beside the optimizer by its lr, which cannot be done with this {name}: "
    with pytest.raises(ModeError, match=re.escape(says)) as raised:
        regularize(model, {everything: L2(0.1)}).attach(make(model), mode="decoupled")
    assert reason in str(raised.value)
    assert str(raised.value).endswith('use mode="gradient".')


def test_one_step_would_not_tell() -> None:
    """Of these, two lose nothing in one step, and one does nothing in it."""
    for kind in (Slow, Normed, Preparing):
        recipe = Recipe(kind([nn.Parameter(torch.ones(3, 2))]))

        def halve(step: int, w: Tensor) -> None:
            if step == 1:
                w *= 0.5

        plain, edited = run(recipe, {"lr": 1e-4}), run(recipe, {"lr": 1e-4}, halve)
        assert len(plain) == STEPS + 1
        torch.testing.assert_close(edited[1] - plain[1], -0.5 * plain[0], rtol=1e-3, atol=1e-3)


def test_a_short_trial_would_not_tell_of_what_comes_seldom() -> None:
    """Nothing is lost in 20 steps, nor in many if weights are changed at the beginning alone."""
    matrices = [nn.Parameter(torch.ones(3, 2))]

    def halve(step: int, w: Tensor) -> None:
        if step in (1, 8):
            w *= 0.5

    def is_lost(late: bool, steps: int) -> bool:
        recipe = Recipe(Seldom(matrices, late=late))
        plain, edited = (run(recipe, {"lr": 1e-6}, edit, steps=steps) for edit in (None, halve))
        return not torch.allclose(edited[-1], 0.25 * plain[-1], rtol=0.01)

    assert not is_lost(late=False, steps=20)
    assert is_lost(late=False, steps=120)
    assert not is_lost(late=True, steps=120)
    for late, steps in ((False, 1020), (True, 120)):
        assert LONG.format(steps) in str(why_not_edited(Seldom(matrices, late=late)))
    assert why_not_edited(Seldom(matrices, every=9, late=True)) is not None


class Bounded(Seldom):
    """Takes no small number."""

    def __init__(self, params: Any, every: int = 5000) -> None:
        if every < 1000:
            raise ValueError("at least a thousand")
        super().__init__(params, every, late=True)


class Spoiled(Ours):
    """Has a setting that is no period, and without which there are no finite weights."""

    def __init__(self, params: Any, whole: int = 1000) -> None:
        Optimizer.__init__(self, params, {"lr": 0.1, "whole": whole})

    def update(self, w: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        super().update(w, group, state)
        w /= max(group["whole"] - 10, 0) / (group["whole"] - 10)


def test_what_a_period_of_thousands_does_is_seen_at_a_short_one() -> None:
    """Nobody waits for it: the setting is another in the trial."""
    matrices = [nn.Parameter(torch.ones(3, 2))]

    def halve(step: int, w: Tensor) -> None:
        w *= 0.5 if step == 8 else 1.0

    plain, edited = (run(Recipe(Seldom(matrices, 5000)), {"lr": 1e-6}, e) for e in (None, halve))
    assert torch.allclose(edited[-1], 0.5 * plain[-1], rtol=1e-3), "as it is, nothing is undone"
    sooner = UNDONE + "with every=5 in place of 5000, 50% of"
    for late in (False, True):
        assert sooner in str(why_not_edited(Seldom(matrices, every=5000, late=late)))
    assert sooner in str(why_not_edited(Around(SGD(matrices, lr=0.1), every=5000)))
    assert why_not_edited(Bounded(matrices)) is None, "it cannot be had at a short one"
    assert why_not_edited(Spoiled(matrices)) is None, "it fails at a short one"


def test_what_it_holds_and_how_it_was_set_decide() -> None:
    matrices = [nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(5, 4))]
    assert why_not_edited(OfMatrices(matrices)) is None
    assert why_not_edited(Slow(matrices, kept=False)) is None
    assert why_not_edited(Fading(matrices)) is None, "what it takes from an edit is its decay"
    assert why_not_edited(Slow(matrices)) is not None
    assert why_not_edited(Slow([{"params": matrices, "kept": False}])) is None
    assert why_not_edited(Around(SGD(matrices, lr=0.1), every=0)) is None
    assert why_not_edited(Around(Slow(matrices), every=0)) is not None
    assert why_not_edited(Estimating(matrices)) is None, "of the size of a step it says nothing"
    assert why_not_sized(Estimating(matrices)) is not None
    assert why_not_edited(WithOptions(matrices)) is None
    assert why_not_edited(WithOptions(matrices, Options(6))) is not None
    rate = torch.tensor(0.0)  # as in a warm-up, and on the device
    assert why_not_sized(Ours(matrices, lr=rate)) is None  # type: ignore[arg-type]
    assert rate == 0
    named = [("weight", nn.Parameter(torch.ones(3, 2)))]
    assert why_not_edited(Ours(named)) is None


class Pair(NamedTuple):
    """A setting with names."""

    a: float
    b: float


@pytest.mark.parametrize(
    "value",
    [np.float32(0.1), torch.tensor([0.1]), {1, 2}, frozenset({"a"}), Pair(0.1, 0.2)],
    ids=str,
)
def test_settings_that_can_be_had_again(value: Any) -> None:
    assert why_not_edited(Ours([nn.Parameter(torch.ones(3, 2))], kept=value)) is None
    if isinstance(value, np.float32 | Tensor):
        assert why_not_sized(Ours([nn.Parameter(torch.ones(3, 2))], lr=value)) is None


def test_the_users_defaults_are_not_those_of_a_trial() -> None:
    weights = [nn.Parameter(torch.ones(3, 2))]

    class Another(Ours):
        pass

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            assert why_not_edited(Another(weights)) is None
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(before)


def test_a_trial_is_made_once_for_a_class_and_its_settings() -> None:
    class Counted(Ours):
        made = 0

    def attached(**settings: Any) -> int:
        model = nn.Linear(3, 2)
        regularize(model, L2(0.1)).attach(Counted(model.parameters(), **settings), mode="decoupled")
        return Counted.made

    assert attached() == 3  # with two for the trial
    assert attached(lr=0.5) == 4
    assert attached(kept=False) == 7


class Drawing(Ours):
    """Draws random numbers of all kinds, and warns and prints beside."""

    def update(self, w: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
        torch.rand(3), random.random(), np.random.rand()
        print("a step")
        super().update(w, group, state)


class OfPyTorchAbove(SGD):
    """A step that calls its parent's, which hooks on all optimizers hear of."""

    def step(self, closure: Any = None) -> Any:
        torch.rand(3)
        return super().step(closure)


@pytest.mark.parametrize("kind", [Drawing, OfPyTorchAbove])
def test_nobody_notices(kind: Any, capsys: pytest.CaptureFixture[str]) -> None:
    model = network().double()
    optimizer = kind(model.parameters(), lr=0.1)
    heard: list[Any] = []

    class Listening(Listener):
        def begins(self, step: Any) -> None:
            raise AssertionError(step.optimizer)

    end = listen_to_all(Listening())
    handle = register_optimizer_step_pre_hook(lambda o, *_: heard.append(type(o)))
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict(), [*vars(optimizer)]))
    drawn = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].sum()
    assert why_not_edited(optimizer) is None
    now = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].sum()
    end()
    handle.remove()
    assert [each for each in alive(Optimizer) if type(each) is kind] == [optimizer]
    assert torch.equal(drawn[0], now[0])
    assert drawn[1:] == now[1:]
    assert str((model.state_dict(), optimizer.state_dict(), [*vars(optimizer)])) == str(before)
    assert torch.get_default_dtype() == torch.float32
    assert capsys.readouterr().out == ""
    if kind is Drawing:
        assert not heard
    else:  # that of the parent is PyTorch's own, and calls whoever listens; our clock does not hear
        assert set(heard) == {OfPyTorchAbove}
