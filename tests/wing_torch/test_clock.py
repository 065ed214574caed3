"""What a step is: compiled, interrupted, within another one, and changed while it runs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from penalize import (
    L1,
    L2,
    AppliedTwiceError,
    NeverAppliedWarning,
    Regularizer,
    warmup,
)
from penalize.torch import audit, regularize


@pytest.fixture(autouse=True)
def _reset() -> Iterator[None]:
    yield
    torch._dynamo.reset()


def model_and(kind: type[Optimizer] = SGD, **options: Any) -> tuple[nn.Linear, Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2, bias=False).double()
    return model, kind(model.parameters(), lr=0.1, **options)


def backward(model: nn.Module, penalty: Any = 0) -> None:
    model.zero_grad()
    (model(torch.ones(4, 3).double()).square().mean() + penalty).backward()


def moved(act: Callable[[], Any], w: Tensor) -> Tensor:
    """What is taken from a weight."""
    before = w.detach().clone()
    act()
    return before - w.detach()


def compiled(optimizer: Optimizer) -> Callable[[], Any]:
    return torch.compile(optimizer.step, backend="eager")  # type: ignore[return-value]


# --- compiled ------------------------------------------------------------------------------------


def test_compiled_steps_count_for_a_penalty_in_the_loss() -> None:
    model, optimizer = model_and()
    plan = regularize(model, warmup(10) * L2(1.0))
    step = compiled(optimizer)
    for _ in range(3):
        backward(model, plan.penalty())
        step()
    assert plan.steps == 3


def test_a_compiled_step_is_looked_at_as_others_are() -> None:
    model, optimizer = model_and(weight_decay=0.1)
    plan = regularize(model, L2(1.0))
    step = compiled(optimizer)
    backward(model, plan.penalty())
    with pytest.raises(AppliedTwiceError, match="weight_decay"):
        step()
    model, optimizer = model_and()
    plan = regularize(model, L2(1.0))
    backward(model)
    with pytest.warns(NeverAppliedWarning, match="not applied to it"):
        compiled(optimizer)()


def test_an_audit_of_a_compiled_step() -> None:
    model, optimizer = model_and()
    plan = regularize(model, L2(1.0))
    plan.attach(optimizer)
    step = compiled(optimizer)

    def train() -> None:
        backward(model)
        step()

    assert [row.factor for row in audit(train, plan)] == pytest.approx([1.0])


def test_an_eager_step_after_a_compiled_one_that_raised() -> None:
    model, optimizer = model_and()
    plan = regularize(model, L2(1.0))
    attachment = plan.attach(optimizer)
    raises = [True]

    @torch.compiler.disable  # type: ignore[no-untyped-call,untyped-decorator]
    def interrupt(*_: Any) -> None:
        if raises.pop() if raises else False:
            raise RuntimeError("mine")

    optimizer.register_step_pre_hook(interrupt)
    backward(model)
    with pytest.raises(RuntimeError, match="mine"):
        compiled(optimizer)()
    backward(model)
    gradient, w = model.weight.grad.clone(), model.weight.detach().clone()  # type: ignore[union-attr]
    torch.testing.assert_close(moved(optimizer.step, model.weight), 0.1 * (gradient + 2 * w))
    assert (plan.steps, attachment.steps) == (1, [1])


# --- changed while it runs -----------------------------------------------------------------------


def test_the_rate_is_that_of_the_step_though_a_hook_has_loaded_a_state() -> None:
    model, optimizer = model_and()
    state = copy.deepcopy(optimizer.state_dict())
    state["param_groups"][0]["lr"] = 0.01
    optimizer.register_step_pre_hook(lambda *_: optimizer.load_state_dict(state))
    regularize(model, L2(1.0)).attach(optimizer, "decoupled")
    backward(model)
    gradient, w = model.weight.grad.clone(), model.weight.detach().clone()  # type: ignore[union-attr]
    torch.testing.assert_close(moved(optimizer.step, model.weight), 0.01 * (gradient + 2 * w))


def test_the_rate_is_that_of_the_step_though_a_closure_has_loaded_a_state() -> None:
    model, optimizer = model_and()
    state = copy.deepcopy(optimizer.state_dict())
    state["param_groups"][0]["lr"] = 0.01
    regularize(model, L1(1.0)).attach(optimizer, "proximal")

    def closure() -> Tensor:
        optimizer.load_state_dict(state)
        backward(model)
        return torch.zeros(())

    w = model.weight.detach().clone()
    optimizer.step(closure)  # type: ignore[arg-type]
    expected = w - 0.01 * model.weight.grad  # type: ignore[operator]
    shrunk = expected.sign() * (expected.abs() - 0.01).clamp(min=0)
    torch.testing.assert_close(model.weight.detach(), shrunk)


# --- within another one --------------------------------------------------------------------------


class Wrapper(Optimizer):
    """Steps another optimizer, whose param groups are its own."""

    def __init__(self, *inner: Optimizer) -> None:
        super().__init__([p for o in inner for g in o.param_groups for p in g["params"]], {})
        self.inner = inner
        self.param_groups = [group for o in inner for group in o.param_groups]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for optimizer in self.inner:
            optimizer.step()


def test_an_optimizer_of_exempt_parameters_within_one_that_is_attached() -> None:
    model = nn.Linear(3, 2).double()
    wrapper = Wrapper(SGD([model.weight], lr=0.1), Adam([model.bias], lr=0.1))
    regularize(model, L2(0.1)).attach(wrapper)
    backward(model)
    gradient, w = model.weight.grad.clone(), model.weight.detach().clone()  # type: ignore[union-attr]
    torch.testing.assert_close(moved(wrapper.step, model.weight), 0.1 * (gradient + 0.2 * w))


class Same(Optimizer):
    """Wraps another one by taking over all that it has, its hooks too."""

    def __init__(self, base: Optimizer) -> None:
        self.__dict__.update(base.__dict__)
        self.base = base
        self._patch_step_function()  # type: ignore[no-untyped-call]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.base.step()


def test_a_wrapper_that_shares_the_hooks_of_its_base() -> None:
    model, base = model_and()
    wrapper = Same(base)
    regularize(model, L2(1.0)).attach(wrapper)
    for _ in range(2):
        backward(model)
        gradient, w = model.weight.grad.clone(), model.weight.detach().clone()  # type: ignore[union-attr]
        torch.testing.assert_close(moved(wrapper.step, model.weight), 0.1 * (gradient + 2 * w))


class Forgiving(Wrapper):
    """Goes on where an optimizer within it raises."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for optimizer in self.inner:
            try:
                optimizer.step()
            except RuntimeError:
                continue


class Sometimes(SGD):
    """Its step raises, every other time."""

    calls = 0

    def step(self, closure: Any = None) -> Any:
        self.calls += 1
        if self.calls % 2:
            raise RuntimeError("mine")
        return super().step(closure)


class Stubborn(Sometimes):
    """Steps as its parent, and again where that raised; ``times`` is how often."""

    times = 2

    def step(self, closure: Any = None) -> Any:
        for _ in range(self.times):
            try:
                return super().step(closure)
            except RuntimeError:
                continue
        return None


@pytest.mark.parametrize("times", [2, 1])
@pytest.mark.parametrize("mode", ["gradient", "decoupled"])
def test_an_optimizer_that_catches_what_its_parent_raises(mode: str, times: int) -> None:
    """That is one step, though the hooks of the parent's began it and never ended it."""
    Sometimes([nn.Parameter(torch.ones(1))], lr=0.1)  # from now on its class runs hooks
    model, optimizer = model_and(Stubborn)
    optimizer.times = times  # type: ignore[attr-defined]
    attachment = regularize(model, L2(1.0)).attach(optimizer, mode)
    for number in range(4):
        backward(model)
        w, data = model.weight.detach().clone(), model.weight.grad.clone()  # type: ignore[union-attr]
        steps = times == 2 or number % 2 == 1
        pulled = steps or mode == "decoupled"  # which moves the weights beside the optimizer
        wanted = 0.1 * (steps * data + pulled * 2 * w)
        torch.testing.assert_close(moved(optimizer.step, model.weight), wanted)
        assert attachment.steps == [number + 1]


def test_what_follows_a_step_within_that_raised_is_within_all_the_same() -> None:
    model, optimizer = model_and()
    bad = SGD([nn.Parameter(torch.ones(1))], lr=0.1)

    def refuse(*_: Any) -> None:
        raise RuntimeError("mine")

    bad.register_step_pre_hook(refuse)
    wrapper = Forgiving(bad, optimizer)
    regularize(model, L2(1.0)).attach(wrapper)
    backward(model)
    gradient, w = model.weight.grad.clone(), model.weight.detach().clone()  # type: ignore[union-attr]
    torch.testing.assert_close(moved(wrapper.step, model.weight), 0.1 * (gradient + 2 * w))


# --- plans side by side --------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [(L2(1.0), L1(0.5)), (L1(0.5), L2(1.0))])
def test_two_plans_on_one_weight_in_mode_gradient(rules: tuple[Regularizer, ...]) -> None:
    model, optimizer = model_and()
    plans = [regularize(model, each) for each in rules]
    for plan in plans:
        plan.attach(optimizer)
    for _ in range(2):
        backward(model)
        gradient, w = model.weight.grad.clone(), model.weight.detach().clone()  # type: ignore[union-attr]
        expected = 0.1 * (gradient + 2 * w + 0.5 * w.sign())
        torch.testing.assert_close(moved(optimizer.step, model.weight), expected)


def test_a_step_that_was_refused_before_the_penalty_acted_leaves_no_warning() -> None:
    model, optimizer = model_and()
    regularize(model, L2(1.0)).attach(optimizer, "decoupled")
    backward(model)
    optimizer.param_groups[0]["weight_decay"] = 0.1
    with pytest.raises(AppliedTwiceError):
        optimizer.step()
    optimizer.param_groups[0]["weight_decay"] = 0.0
    optimizer.step()


def test_an_audit_that_raised_in_a_step_leaves_no_warning() -> None:
    model, optimizer = model_and()
    plan = regularize(model, L2(1.0))
    plan.attach(optimizer, "decoupled")
    raises = [True]

    def interrupt(*_: Any) -> None:
        if raises:
            raise RuntimeError("mine")

    optimizer.register_step_pre_hook(interrupt)

    def step() -> None:
        backward(model)
        optimizer.step()

    with pytest.raises(RuntimeError, match="mine"):
        audit(step, plan)
    raises.clear()
    step()


def test_a_closure_that_is_never_called_is_one_warning() -> None:
    class Idle(SGD):
        def step(self, closure: Any = None) -> Any:
            return None

    model, _ = model_and()
    optimizer = Idle(model.parameters(), lr=0.1)
    regularize(model, L2(1.0)).attach(optimizer)
    with pytest.warns(NeverAppliedWarning) as warned:  # nor are there gradients of before the step
        optimizer.step(lambda: torch.zeros(()))
    assert ["never called its closure" in str(each.message) for each in warned] == [True]
