"""The ways in which optimizers decay, each in a few lines, as ``audit`` names them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from penalize.report import Found
from penalize.torch import audit

LR, DECAY = 0.02, 0.1

Update = Callable[[Tensor, Tensor, dict[str, Any], dict[str, Any]], None]
"""(weight, gradient, param group, state) → a step of one weight, in place."""


class Written(Optimizer):
    """An optimizer that is one function. It counts its steps in its group, as some do."""

    def __init__(self, params: Any, update: Update, **defaults: Any) -> None:
        super().__init__(params, {"lr": LR, "weight_decay": DECAY, **defaults})
        self.update = update

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            group["count"] = group.get("count", 0) + 1
            for p in group["params"]:
                self.update(p, p.grad, group, self.state[p])


def momentum(g: Tensor, state: dict[str, Any]) -> Tensor:
    state["buffer"] = 0.9 * state.get("buffer", torch.zeros_like(g)) + g
    kept: Tensor = state["buffer"]
    return kept


def coupled(w: Tensor, g: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
    w -= group["lr"] * momentum(g + group["weight_decay"] * w, state)


def sgdw(w: Tensor, g: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
    w *= 1 - group["lr"] * group["weight_decay"]
    w -= group["lr"] * momentum(g, state)


def plain(w: Tensor, g: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
    w -= group["lr"] * (g + group["weight_decay"] * w)


def after(w: Tensor, g: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
    w -= 20 * group["lr"] * momentum(g, state)
    w *= 1 - group["lr"] * group["weight_decay"]


def divided(w: Tensor, g: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
    w -= 20 * group["lr"] * momentum(g, state)
    w /= 1 + group["lr"] * group["weight_decay"]


def without_lr(w: Tensor, g: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
    w *= 1 - group["weight_decay"]
    w -= group["lr"] * momentum(g, state)


def estimated(w: Tensor, g: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
    w *= 1 - group["d"] * group["lr"] * group["weight_decay"]
    w -= group["d"] * group["lr"] * momentum(g, state)


def halved(w: Tensor, g: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
    w *= 1 - 0.5 * group["lr"] * group["weight_decay"]
    w -= group["lr"] * momentum(g, state)


def by_size(w: Tensor, g: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
    w *= 1 - group["lr"] * group["weight_decay"] / g.norm()
    w -= group["lr"] * momentum(g, state)


def in_momentum(w: Tensor, g: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
    w -= group["lr"] * momentum(g / g.norm() + group["weight_decay"] * w, state)


def lamb(w: Tensor, g: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
    update = momentum(g, state) + group["weight_decay"] * w
    w -= group["lr"] * w.norm() / update.norm() * update


def each_weight(w: Tensor, g: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
    w *= 1 - group["lr"] * group["weight_decay"] / (g.abs() + 0.1)
    w -= group["lr"] * momentum(g, state)


def late(w: Tensor, g: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
    state["step"] = state.get("step", 0) + 1
    if state["step"] >= 4:
        w *= 1 - group["lr"] * group["weight_decay"]
    w -= group["lr"] * momentum(g, state)


def never(w: Tensor, g: Tensor, group: dict[str, Any], state: dict[str, Any]) -> None:
    w -= group["lr"] * momentum(g, state)


def audited(update: Update, steps: int = 0, scale: float = 1.0, **defaults: Any) -> Found:
    """What is said of the decay of a matrix."""
    torch.manual_seed(0)
    model = nn.Linear(6, 8, bias=False)
    x, y = torch.randn(12, 6), torch.randn(12, 8)
    optimizer = Written(model.parameters(), update, **defaults)

    def step() -> None:
        optimizer.zero_grad()
        (scale * nn.functional.mse_loss(model(x), y)).backward()
        optimizer.step()

    for _ in range(steps):
        step()
    (row,) = audit(step, model)
    assert isinstance(row, Found)
    return row


IN_MOMENTUM = ", in the update, and in what the optimizer keeps"
DIVIDED = ", decoupled, by w/(1 + lr·weight_decay) after the update"
WAYS: dict[str, tuple[Update, dict[str, Any], str, float, str]] = {
    "coupled": (coupled, {}, ", in the gradient", 1.0, "kernel"),
    "SGDW": (sgdw, {}, ", decoupled", 1.0, "kernel"),
    "without state": (
        plain,
        {},
        ", in the gradient or decoupled, which is the same here",
        1.0,
        "kernel",
    ),
    "after the update": (after, {}, ", decoupled, after the update", 1.0, "kernel"),
    "divided": (divided, {"weight_decay": 5.0}, DIVIDED, 1.0, "kernel"),
    "without lr": (
        without_lr,
        {},
        ", decoupled, without lr",
        1 / LR,
        "kernel; not multiplied by lr=0.02: 50 times as strong as AdamW's",
    ),
    "an estimated step": (
        estimated,
        {"d": 1e-3},
        ", decoupled",
        1e-3,
        "kernel; multiplied by its d, 0.001, beside lr",
    ),
    "a constant": (halved, {}, ", decoupled", 0.5, "kernel; multiplied by 0.5 beside lr"),
    "into the momentum": (in_momentum, {}, IN_MOMENTUM, 1.0, "kernel"),
}


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("name", WAYS)
def test_a_way_is_named_with_its_factor(name: str, steps: int) -> None:
    update, settings, kind, factor, verdict = WAYS[name]
    row = audited(update, steps, **settings)
    amount = settings.get("weight_decay", DECAY)
    assert row.what == f"weight_decay={amount:.4g} of Written{kind}"
    assert row.factor == pytest.approx(factor, rel=1e-2)
    assert row.verdict == verdict
    assert row.level == ("" if factor == 1 else "look")


def test_a_factor_that_follows_the_gradients() -> None:
    row, smaller = audited(by_size), audited(by_size, scale=0.125)
    times = 1 / _gradient().norm()
    assert row.what.endswith(", decoupled")
    assert row.factor == pytest.approx(float(times), rel=1e-2)
    says = "kernel; multiplied by {:.3g}, and by {:.3g} if the gradients are 8 times as large"
    assert row.verdict == says.format(row.factor, row.factor / 8)
    assert smaller.factor == pytest.approx(8 * row.factor, rel=1e-2)


def test_a_trust_ratio() -> None:
    row = audited(lamb)
    torch.manual_seed(0)
    w = nn.Linear(6, 8, bias=False).weight.detach()
    ratio = float(w.norm() / (_gradient() + DECAY * w).norm())
    assert row.what.endswith(", through a trust ratio")
    assert row.factor == pytest.approx(ratio, rel=1e-2)


def _gradient() -> Tensor:
    torch.manual_seed(0)
    model = nn.Linear(6, 8, bias=False)
    x, y = torch.randn(12, 6), torch.randn(12, 8)
    nn.functional.mse_loss(model(x), y).backward()
    assert model.weight.grad is not None
    return model.weight.grad


def test_another_factor_for_each_weight() -> None:
    row = audited(each_weight)
    assert row.what == "weight_decay=0.1 of Written"
    assert math.isnan(row.factor)
    each = (1 / (_gradient().abs() + 0.1)).double().reshape(-1)
    low, high = torch.quantile(each, torch.tensor([0.1, 0.9]).double()).tolist()
    assert row.verdict == (
        f"kernel; enters in a way of its own: {low:.2g} to {high:.2g} times lr·weight_decay·w, "
        "from weight to weight"
    )


class Late(Written):
    """Decays from its fourth step on."""

    def __init__(self, params: Any, **settings: Any) -> None:
        super().__init__(params, late, **settings)
        del self.update  # a function, which nobody can make another optimizer with

    update = staticmethod(late)  # type: ignore[assignment]


class Needing(Late):
    """Made with a model, so that there is no trial."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model.parameters())
        self.model = model


@pytest.mark.parametrize("kind", [Late, Needing])
def test_a_decay_that_begins_later_is_not_one_that_never_comes(kind: Any) -> None:
    model = nn.Linear(6, 8, bias=False)
    optimizer = kind(model.parameters() if kind is Late else model)
    heard: list[Any] = []
    handle = register_optimizer_step_pre_hook(
        lambda o, *_: heard.append(o) if o is not optimizer else None
    )
    drawn = torch.get_rng_state()

    def step() -> None:
        optimizer.zero_grad()
        model(torch.ones(6)).pow(2).sum().backward()
        optimizer.step()

    (row,) = audit(step, model)
    assert row.factor == 0
    assert "count" not in optimizer.param_groups[0], "what a first step adds to it is put back"
    begins = "not in this step: a new Late begins with step 4"
    assert row.verdict.endswith(begins if kind is Late else "not applied in this step")
    for _ in range(3):
        step()
    (row,) = audit(step, model)
    assert (row.factor, row.what) == (1, f"weight_decay=0.1 of {kind.__name__}, decoupled")
    handle.remove()
    assert not heard
    assert torch.equal(torch.get_rng_state(), drawn)


class Never(Late):
    """Says that it decays."""

    update = staticmethod(never)


def test_what_is_not_seen_and_why() -> None:
    model = nn.Linear(6, 8, bias=False)

    def verdict(optimizer: Optimizer) -> str:
        def step() -> None:
            optimizer.zero_grad()
            model(torch.ones(6)).pow(2).sum().backward()
            optimizer.step()

        return audit(step, model)[0].verdict.partition("; ")[2]

    assert verdict(Never(model.parameters())) == "never applied"
    idle = torch.optim.AdamW(model.parameters(), lr=0.0)
    assert verdict(idle) == "not in this step, whose lr is 0; the optimizer's default"
    small = Written(model.parameters(), estimated, d=1e-6)
    assert verdict(small) == "nothing is changed by so small a one in this step"


class Twice(Optimizer):
    """Differentiates the gradients, as AdaHessian does: nothing may be moved in between."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": LR, "weight_decay": DECAY})

    def step(self, closure: Any = None) -> None:
        (group,) = self.param_groups
        grads = [p.grad for p in group["params"]]
        curved = torch.autograd.grad(sum(g.pow(2).sum() for g in grads), group["params"])
        with torch.no_grad():
            for p, h in zip(group["params"], curved, strict=True):
                self.state[p]["kept"] = p.grad * 1  # in its graph still
                p *= 1 - group["lr"] * group["weight_decay"]
                p -= group["lr"] * h


@pytest.mark.filterwarnings("ignore:Using backward.. with create_graph")  # once in a process
def test_an_optimizer_that_differentiates_gradients() -> None:
    """Weights that are shrunk in between are an error of PyTorch's; the audit tells it still."""
    torch.manual_seed(0)
    model = nn.Linear(6, 8, bias=False)
    optimizer = Twice(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        model(torch.ones(6)).pow(4).sum().backward(create_graph=True)
        optimizer.step()

    (row,) = audit(step, model)
    assert (row.factor, row.what) == (1, "weight_decay=0.1 of Twice, decoupled")
