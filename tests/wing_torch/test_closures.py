"""Optimizers that take gradients elsewhere than where they step, or differentiate them again."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from halfspace_reference import HalfSpace
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from penalize import L1, LossError, ModeError, NeverAppliedWarning, Regularizer, everything
from penalize.halfspace import AVERAGE
from penalize.torch import audit, regularize

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.randn(12, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
STRENGTH, RATE = 0.03, 0.1
PENALTY = L1(STRENGTH)


class Loop:
    """A model, and an optimizer of it."""

    def __init__(
        self, make: Callable[[Any], Optimizer], penalty: Regularizer | None = None
    ) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
        self.optimizer: Any = make(self.model.parameters())
        self.penalty = penalty
        self.plan: Any = None

    def backward(self, *, graph: bool = False) -> Tensor:
        self.optimizer.zero_grad()
        loss = nn.functional.mse_loss(self.model(X), Y)
        if self.penalty is not None:
            loss = loss + STRENGTH * sum(p.abs().sum() for p in self.model.parameters())
        loss.backward(create_graph=graph)
        return loss

    def weights(self) -> Tensor:
        return nn.utils.parameters_to_vector(self.model.parameters()).detach().clone()


class Sharpness(Optimizer):
    """SAM, around SGD: as two steps, or as one with a closure, which the user has called before."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": RATE})
        self.base_optimizer = SGD(self.param_groups, lr=RATE)
        self.param_groups = self.base_optimizer.param_groups

    @property
    def held(self) -> list[nn.Parameter]:
        return [p for group in self.param_groups for p in group["params"]]

    @torch.no_grad()
    def first_step(self) -> None:
        for p in self.held:
            self.state[p]["old"] = p.clone()
            if p.grad is not None:
                p.add_(p.grad, alpha=0.1)

    @torch.no_grad()
    def back(self) -> None:
        for p in self.held:
            p.copy_(self.state[p]["old"])

    def second_step(self) -> None:
        self.back()
        self.base_optimizer.step()

    def step(self, closure: Any = None) -> None:
        if closure is not None:
            self.first_step()
            closure()
            self.back()
        self.base_optimizer.step()


class Twice(Sharpness):
    """It calls its closure for both gradients. What is done to the weights meanwhile is lost."""

    def step(self, closure: Any = None) -> None:
        if closure is not None:
            begin = [p.detach().clone() for p in self.held]
            closure()
            self.first_step()
            closure()
            with torch.no_grad():
                for p, w in zip(self.held, begin, strict=True):
                    p.copy_(w)
        self.base_optimizer.step()


MODES = ("gradient", "decoupled", "proximal", "halfspace")


class ByHand:
    """Steps of SGD in a mode."""

    def __init__(self, mode: str, base: Optimizer) -> None:
        self.mode, self.base = mode, base
        self.held = [p for group in base.param_groups for p in group["params"]]
        self.rules = [HalfSpace(_flat(p), AVERAGE, element=STRENGTH) for p in self.held]

    @torch.no_grad()
    def step(self) -> None:
        before = [_flat(p) for p in self.held]
        for p, w, rule in zip(self.held, before, self.rules, strict=True):
            if self.mode == "gradient":
                p.grad += STRENGTH * p.sign()
            elif self.mode == "decoupled":
                p -= RATE * STRENGTH * p.sign()
            elif self.mode == "halfspace":
                p.grad.copy_(torch.tensor(rule.before(w, _flat(p.grad))).reshape(p.shape))
        self.base.step()
        for p, w, rule in zip(self.held, before, self.rules, strict=True):
            if self.mode == "proximal":
                p.copy_(p.sign() * (p.abs() - RATE * STRENGTH).clamp(min=0))
            elif self.mode == "halfspace":
                p.copy_(torch.tensor(rule.after(w, _flat(p))).reshape(p.shape))


def _flat(x: Tensor) -> np.ndarray:
    return x.detach().numpy().reshape(-1).copy()


@pytest.mark.parametrize("mode", MODES)
def test_two_steps_around_another_optimizer(mode: str) -> None:
    """The plan is attached to that one, and acts at the weights that are put back."""
    ours, theirs = Loop(Sharpness), Loop(Sharpness)
    hand = ByHand(mode, theirs.optimizer.base_optimizer)
    plan = regularize(ours.model, {everything: PENALTY})
    plan.attach(ours.optimizer.base_optimizer, mode=mode)

    def step() -> None:
        ours.backward()
        ours.optimizer.first_step()
        ours.backward()
        ours.optimizer.second_step()

    assert [row.factor for row in audit(step, plan).declared] == [pytest.approx(1.0, abs=1e-3)] * 4
    for _ in range(5):
        step()
        theirs.backward()
        theirs.optimizer.first_step()
        theirs.backward()
        theirs.optimizer.back()
        hand.step()
    torch.testing.assert_close(ours.weights(), theirs.weights(), rtol=1e-12, atol=1e-14)


def test_two_steps_of_which_an_attachment_to_the_outer_one_hears_nothing() -> None:
    loop = Loop(Sharpness)
    plan = regularize(loop.model, {everything: PENALTY})
    plan.attach(loop.optimizer)

    def step() -> None:
        loop.backward()
        loop.optimizer.first_step()
        loop.optimizer.second_step()

    assert [row.factor for row in audit(step, plan).declared] == [0.0] * 4
    with pytest.warns(NeverAppliedWarning, match="SGD is stepping '0.weight'"):
        step()


def attached(make: Callable[[Any], Optimizer], mode: str) -> Loop:
    loop = Loop(make)
    loop.plan = regularize(loop.model, {everything: PENALTY})
    loop.plan.attach(loop.optimizer, mode=mode)
    return loop


class Own(Optimizer):
    """The same without another one in it, so that a new one can be tried."""

    calls_first = False

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": RATE})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        held = [p for group in self.param_groups for p in group["params"]]
        if closure is not None:
            begin = [p.clone() for p in held]
            if self.calls_first:
                torch.enable_grad()(closure)()
            for p in held:
                if p.grad is not None:
                    p.add_(p.grad, alpha=0.1)
            torch.enable_grad()(closure)()
            for p, w in zip(held, begin, strict=True):
                p.copy_(w)
        for p in held:
            p.sub_(p.grad, alpha=self.param_groups[0]["lr"])


class OwnTwice(Own):
    """It calls its closure for both gradients."""

    calls_first = True


def test_weights_that_are_put_back_after_the_closure() -> None:
    """A decoupled step was undone without a word: in a step without a closure it stays."""
    for make in (Own, OwnTwice):
        loop = attached(make, "decoupled")
        before = loop.weights()
        says = f"mode='decoupled' acts when {make.__name__} has called its closure, and it may keep"
        with pytest.raises(ModeError, match=re.escape(says)):
            loop.optimizer.step(loop.backward)
        assert torch.equal(loop.weights(), before)
        loop.backward()
        loop.optimizer.step()
        assert not torch.equal(loop.weights(), before)


@pytest.mark.parametrize("calls", [True, False])
@pytest.mark.parametrize("make", [Sharpness, Own, OwnTwice, Twice])
def test_both_gradients_are_as_with_a_loss_term(make: Any, calls: bool) -> None:
    """Also the one of before the step, by which weights are moved: it was without the penalty."""
    ours, theirs = attached(make, "gradient"), Loop(make, PENALTY)
    for _ in range(5):
        for loop in (ours, theirs):
            if calls:
                loop.backward()
            loop.optimizer.step(loop.backward)
    torch.testing.assert_close(ours.weights(), theirs.weights(), rtol=1e-12, atol=1e-14)


def test_a_half_space_step_around_weights_that_are_moved() -> None:
    """What is 0 is so where the step begins, and not where the closure is called."""
    loop, theirs = Loop(Own), Loop(Own)
    regularize(loop.model, {everything: PENALTY}).attach(
        loop.optimizer, mode="halfspace", average=0.9
    )
    held = [*theirs.model.parameters()]
    rules = [HalfSpace(_flat(p), 0.9, element=STRENGTH) for p in held]
    for _ in range(60):
        loop.backward()
        loop.optimizer.step(loop.backward)
        begin = [_flat(p) for p in held]
        for counts in (False, True):  # the first gradient counts for nothing afterwards
            theirs.backward()
            for p, w, rule in zip(held, begin, rules, strict=True):
                acting = rule if counts else copy.deepcopy(rule)
                given = torch.tensor(acting.before(w, _flat(p.grad))).reshape(p.shape)
                p.data = torch.tensor(w).reshape(p.shape) + (0 if counts else 0.1) * given
                if counts:
                    p.data -= RATE * given
        for p, w, rule in zip(held, begin, rules, strict=True):
            p.data = torch.tensor(rule.after(w, _flat(p))).reshape(p.shape)
    torch.testing.assert_close(loop.weights(), theirs.weights(), rtol=1e-9, atol=1e-12)
    assert 0 < int((loop.weights() == 0).sum()) < len(loop.weights())


class First(Own):
    """It calls its closure before anything else, and once."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        if closure is not None:
            torch.enable_grad()(closure)()
        super().step()


def test_gradients_that_accumulate_in_the_closure_have_the_penalty_once() -> None:
    ours, theirs = attached(First, "gradient"), Loop(First)

    def more(loop: Loop) -> Tensor:
        loss = nn.functional.mse_loss(loop.model(X), Y)
        loss.backward()
        return loss

    for _ in range(3):
        ours.backward()
        ours.optimizer.step(lambda: more(ours))
        theirs.backward()
        more(theirs)
        with torch.no_grad():
            for p in theirs.model.parameters():
                p.grad += STRENGTH * p.sign()
        theirs.optimizer.step()
    torch.testing.assert_close(ours.weights(), theirs.weights(), rtol=1e-12, atol=1e-14)


class Ignoring(Own):
    """It takes a closure, and never calls it."""

    def step(self, closure: Any = None) -> None:
        super().step()


@pytest.mark.parametrize("mode", ["gradient", "halfspace"])
def test_a_closure_that_is_not_called_beside_gradients_that_are_there(mode: str) -> None:
    """They were stepped without the penalty, and that was said."""
    ours, theirs = attached(Ignoring, mode), attached(Ignoring, mode)
    for _ in range(3):
        ours.backward()
        ours.optimizer.step(ours.backward)
        theirs.backward()
        theirs.optimizer.step()
    assert torch.equal(ours.weights(), theirs.weights())
    assert [*ours.plan.attachments()[0].steps] == [3]


def test_a_step_that_raises_before_its_closure_leaves_the_gradient() -> None:
    class Raising(Own):
        raises = True

        def step(self, closure: Any = None) -> None:
            if self.raises:
                raise RuntimeError("no")
            super().step(closure)

    loop = attached(Raising, "gradient")
    loop.backward()
    before = [_flat(p.grad) for p in loop.model.parameters()]
    with pytest.raises(RuntimeError, match="no"):
        loop.optimizer.step(loop.backward)
    Raising.raises = False
    loop.optimizer.step()
    for p, gradient in zip(loop.model.parameters(), before, strict=True):
        assert p.grad is not None
        penalty = STRENGTH * np.sign(_flat(p) + RATE * _flat(p.grad))
        np.testing.assert_allclose(_flat(p.grad), gradient + penalty, rtol=1e-12)


@pytest.mark.parametrize("mode", ["decoupled", "proximal", "halfspace"])
def test_what_cannot_be_made_anew_is_refused(mode: str) -> None:
    with pytest.raises(ModeError, match=f'mode="{mode}"'):
        attached(Differentiating, mode)


def test_a_closure_is_no_step_to_audit() -> None:
    loop = attached(OwnTwice, "gradient")
    plan = loop.plan
    says = "OwnTwice is stepped with a closure, which may run often; pass a function that returns"
    with pytest.raises(LossError, match=says):
        audit(lambda: loop.optimizer.step(loop.backward), plan)

    def step() -> None:
        loop.backward()
        loop.optimizer.step()

    assert [row.factor for row in audit(step, plan).declared] == [pytest.approx(1.0)] * 4


class Differentiating(Optimizer):
    """Divides by the diagonal of the Hessian, from gradients that have a graph, as AdaHessian."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": RATE})

    def step(self, closure: Any = None) -> None:
        held = [p for group in self.param_groups for p in group["params"]]
        ones = [torch.ones_like(p) for p in held]
        curvature = torch.autograd.grad([p.grad for p in held], held, ones)
        with torch.no_grad():
            for p, h in zip(held, curvature, strict=True):
                p.sub_(p.grad / (h.abs() + 1), alpha=RATE)


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph=True:UserWarning")
def test_gradients_that_have_a_graph() -> None:
    loop = attached(Differentiating, "gradient")
    plan = loop.plan

    def step() -> None:
        loop.backward(graph=True)
        loop.optimizer.step()

    before = loop.weights()
    for act in (step, lambda: audit(step, plan)):
        with pytest.raises(ModeError, match=r"The gradient of '0.weight' has a graph.* loss"):
            act()
    assert torch.equal(loop.weights(), before)
    plan.attachments()[0].detach()
    loop.optimizer.zero_grad()

    def with_term() -> None:
        loop.optimizer.zero_grad()
        loss = nn.functional.mse_loss(loop.model(X), Y) + plan.penalty()
        loss.backward(create_graph=True)
        loop.optimizer.step()

    assert [row.factor for row in audit(with_term, plan).declared] == [pytest.approx(1.0)] * 4
