"""Trap 48: copies, checkpoints and replaced parameters drop hooks, or leave them bound to what is
gone.
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer

from penalize import L2, LostAttachmentError, NeverAppliedWarning, ReplacedParameterError
from penalize.torch import regularize


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))


def step(model: nn.Module, optimizer: Optimizer) -> None:
    optimizer.zero_grad()
    model(torch.ones(2, 4)).square().mean().backward()
    optimizer.step()


def pickled(held: Any) -> Any:
    return pickle.loads(pickle.dumps(held))


def saved(held: Any) -> Any:
    file = io.BytesIO()
    torch.save(held, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


each_copy = pytest.mark.parametrize("copied", [copy.deepcopy, pickled, saved])


@each_copy
def test_naive_a_hook_is_dropped(copied: Callable[[Any], Any]) -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    calls: list[Optimizer] = []
    optimizer.register_step_pre_hook(lambda o, *_: calls.append(o))
    step(*copied((model, optimizer)))
    assert not calls


@each_copy
def test_a_copy_of_model_and_optimizer_says_so_and_changes_nothing(
    copied: Callable[[Any], Any],
) -> None:
    model = network()
    optimizer = Adam(model.parameters(), lr=0.1)
    attachment = regularize(model, L2(0.1)).attach(optimizer)
    step(model, optimizer)
    other, its_optimizer = copied((model, optimizer))
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(LostAttachmentError, match=r"This Adam is a copy.*attach to it"):
        step(other, its_optimizer)
    assert all(torch.equal(other.state_dict()[name], before[name]) for name in before)
    step(model, optimizer)  # the original goes on
    regularize(other, L2(0.1)).attach(its_optimizer)  # the copy follows, once attached
    step(other, its_optimizer)
    torch.testing.assert_close(other.state_dict(), model.state_dict())
    attachment.detach()
    assert "penalize" not in optimizer.param_groups[0]


@each_copy
def test_a_copied_plan_is_the_plan_of_the_copied_model(copied: Callable[[Any], Any]) -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    plan = regularize(model, L2(0.1))
    plan.attach(optimizer)
    other, its_plan = copied((model, plan))
    assert str(its_plan) == str(plan)
    assert its_plan.attachments() == []
    its_optimizer = SGD(other.parameters(), lr=0.1)
    with pytest.warns(NeverAppliedWarning):
        step(other, its_optimizer)
    step(model, optimizer)
    assert not torch.equal(other[0].weight, model[0].weight)
    other.load_state_dict(model.state_dict())
    its_plan.attach(its_optimizer)
    step(other, its_optimizer)
    step(model, optimizer)
    assert torch.equal(other[0].weight, model[0].weight)


def test_resumed_without_the_plan() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    plan = regularize(model, L2(0.1))
    attachment = plan.attach(optimizer)
    state = optimizer.state_dict()
    attachment.detach()
    fresh = SGD(model.parameters(), lr=0.1)
    fresh.load_state_dict(state)
    with pytest.raises(LostAttachmentError, match=r"take the key 'penalize' out"):
        step(model, fresh)
    plan.attach(fresh)
    step(model, fresh)


def test_load_state_dict_of_model_and_optimizer_changes_nothing() -> None:
    """Both in place; older checkpoints, without the mark, too."""
    model, other = network(), network()
    first, second = (Adam(m.parameters(), lr=0.1) for m in (model, other))
    old = first.state_dict(), copy.deepcopy(model.state_dict())
    regularize(model, L2(0.1)).attach(first)
    regularize(other, L2(0.1)).attach(second)
    step(model, first)
    first.load_state_dict(old[0])
    model.load_state_dict(old[1])
    step(model, first)
    step(other, second)
    torch.testing.assert_close(model.state_dict(), other.state_dict())
    with pytest.raises(LostAttachmentError):  # the mark is back
        step(*copy.deepcopy((model, first)))


def assigned(model: nn.Module) -> None:
    model.load_state_dict({k: v.clone() for k, v in model.state_dict().items()}, assign=True)


REPLACED: dict[str, Callable[[nn.Module], object]] = {
    "load_state_dict(assign=True)": assigned,
    "to_empty": lambda m: m.to("meta").to_empty(device="cpu"),
    "to meta": lambda m: m.to("meta"),
}


@pytest.mark.parametrize("replace", REPLACED.values(), ids=REPLACED)
def test_replaced_parameters_are_an_error_at_the_next_step(replace: Any) -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    plan = regularize(model, L2(0.1))
    plan.attach(optimizer)
    step(model, optimizer)
    replace(model)
    with pytest.raises(ReplacedParameterError, match="make the optimizer from the model"):
        optimizer.step()
    plan.attachments()[0].detach()
    if replace is not REPLACED["to meta"]:
        model.load_state_dict(network().state_dict())
        again = SGD(model.parameters(), lr=0.1)
        plan.attach(again)
        step(model, again)


class Wrapper(Optimizer):
    """As sharpness-aware and look-ahead optimizers wrap another one: the groups are shared."""

    def __init__(self, inner: Optimizer) -> None:
        super().__init__(inner.param_groups, {})
        self.inner = inner
        self.param_groups = inner.param_groups

    def step(self, closure: Any = None) -> Any:
        return self.inner.step(closure)


def test_a_wrapper_that_shares_the_groups_is_no_copy() -> None:
    model, other = network(), network()
    inner = SGD(model.parameters(), lr=0.1)
    regularize(model, L2(0.1)).attach(inner)
    plain = SGD(other.parameters(), lr=0.1)
    regularize(other, L2(0.1)).attach(plain)
    step(model, Wrapper(inner))
    step(other, plain)
    torch.testing.assert_close(model.state_dict(), other.state_dict(), rtol=0, atol=0)
