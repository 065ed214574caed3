"""``audit`` of a model: what regularizes it that nobody declared."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from penalize import L1, L2, AuditError, kernels
from penalize.torch import audit, regularize

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 2


def network() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2))
    nn.init.normal_(model[1].bias)  # of 0 nothing can be seen
    return model


def stepping(
    model: nn.Module, optimizer: torch.optim.Optimizer, penalty: Callable[[], Any] = lambda: 0.0
) -> Callable[[], None]:
    def step() -> None:
        optimizer.zero_grad()
        (F.cross_entropy(model(X), Y) + penalty()).backward()
        optimizer.step()

    return step


def l2_of(model: nn.Module, strength: float) -> Any:
    return strength * sum(p.pow(2).sum() for p in model.parameters())


def test_a_model_that_nothing_regularizes() -> None:
    model = network()
    step = stepping(model, torch.optim.Adam(model.parameters()))
    for measured in (step, lambda: F.cross_entropy(model(X), Y)):
        report = audit(measured, model, strict=True)
        assert not report.rows
        assert str(report) == "nothing regularizes this model here"


COUPLED = ["SGD", "Adam", "NAdam", "RAdam", "Adamax", "Adagrad", "Adadelta", "RMSprop", "ASGD"]


@pytest.mark.parametrize("momentum", [{}, {"maximize": True}], ids=["", "maximize"])
@pytest.mark.parametrize("name", COUPLED)
def test_weight_decay_in_the_gradient_is_measured(name: str, momentum: dict[str, Any]) -> None:
    model = network()
    make = getattr(torch.optim, name)
    optimizer = make(model.parameters(), lr=0.01, weight_decay=0.05, **momentum)
    step = stepping(model, optimizer)
    for _ in range(2):  # in the first step of Adam it does not show in the weights
        report = audit(step, model)
        assert [row.name for row in report] == [n for n, _ in model.named_parameters()]
        assert [row.factor for row in report] == [1.0] * 6
        assert {row.what for row in report} == {f"weight_decay=0.05 of {name}, in the gradient"}
        assert [row.level for row in report] == ["", "look", "look", "look", "", "look"]
        assert report.ok
        step()


@pytest.mark.parametrize("decoupled", [torch.optim.AdamW, torch.optim.NAdam])
def test_decoupled_weight_decay_is_measured(decoupled: type[torch.optim.Optimizer]) -> None:
    model = network()
    named: dict[str, Any] = {} if decoupled is torch.optim.AdamW else {"weight_decay": 0.01}
    if named:
        named["decoupled_weight_decay"] = True
    report = audit(stepping(model, decoupled(model.parameters(), **named)), model)
    assert [row.factor for row in report] == [1.0] * 6
    assert {row.what for row in report} == {f"weight_decay=0.01 of {decoupled.__name__}, decoupled"}
    assert report[0].verdict == ("kernel; the optimizer's default" if not named else "kernel")


class Odd(torch.optim.SGD):
    """Decays by the square, or says so and does not."""

    def __init__(self, parameters: Any, decay: float, acts: bool) -> None:
        super().__init__(parameters, lr=0.1)
        self.decay, self.acts = decay, acts
        for group in self.param_groups:
            group["own_decay"], group["weight_decay"] = 0.0, decay

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            decay, group["weight_decay"] = group["weight_decay"], 0.0
            if self.acts:
                for p in group["params"]:
                    p.sub_(decay * p**3)
        returned = super().step(closure)
        group["weight_decay"] = decay
        return returned


def test_an_optimizer_of_ones_own_is_not_taken_at_its_word() -> None:
    model = network()
    report = audit(stepping(model, Odd(model.parameters(), 0.1, acts=False)), model)
    assert [row.factor for row in report] == [0.0] * 6
    assert report[0].verdict == "kernel; never applied"
    report = audit(stepping(model, Odd(model.parameters(), 0.1, acts=True)), model)
    assert all(math.isnan(row.factor) for row in report)
    each = model[0].weight.detach().double().square().reshape(-1) / 0.1  # 0.1·w³ over 0.1·0.1·w
    low, high = torch.quantile(each, torch.tensor([0.1, 0.9]).double()).tolist()
    assert report[0].verdict == (
        f"kernel; enters in a way of its own: {low:.2g} to {high:.2g} times lr·weight_decay·w, "
        "from weight to weight"
    )


def test_where_weight_decay_cannot_be_seen() -> None:
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(3, 3))
    nn.init.zeros_(model[0].bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model[0](X), Y).backward()
        optimizer.step()

    report = audit(step, model)
    assert {row.name: row.verdict for row in report} == {
        "0.weight": "kernel",
        "0.bias": "bias: usually exempt; its weights are 0 here, so it cannot be seen",
        "1.weight": "kernel; never applied: no gradient came",
        "1.bias": "bias; never applied: no gradient came",
    }

    batches: Iterator[torch.Tensor] = iter(torch.randn(20, 12, 4))

    def another_batch() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model[0](next(batches)), Y).backward()
        optimizer.step()

    verdict = audit(another_batch, model)[0].verdict
    assert verdict == "kernel; not measured: the step differs each time it runs"


def test_a_penalty_by_hand_beside_weight_decay() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=0.02)
    step = stepping(model, optimizer, lambda: l2_of(model, 0.01))
    report = audit(step, model)
    assert not report.ok
    decay, term = [row for row in report if row.name == "0.weight"]
    assert (decay.factor, term.factor) == (1.0, 1.0)
    assert decay.verdict == "penalized twice: also by L2(0.01) in the loss"
    assert term.verdict == "penalized twice: also by weight_decay=0.02 of Adam, in the gradient"
    with pytest.raises(AuditError, match=r"beside the declared penalties has a fault:\n +param"):
        audit(step, model, strict=True)


def test_a_penalty_by_hand_in_a_loss() -> None:
    model = network()
    report = audit(lambda: F.cross_entropy(model(X), Y) + l2_of(model, 0.01), model)
    assert {row.name: row.what for row in report} == {
        name: "L2(0.01) in the loss" for name, _ in model.named_parameters()
    }
    assert report.ok


@pytest.mark.parametrize("attached", [False, True])
def test_a_declared_penalty_is_not_taken_for_one_by_hand(attached: bool) -> None:
    model = network()
    plan = regularize(model, L2(0.3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if attached:
        plan.attach(optimizer)
    step = stepping(model, optimizer, (lambda: 0.0) if attached else plan.penalty)
    for audited in (plan, model):
        report = audit(step, audited, strict=True)
        assert [(row.name, row.factor) for row in report] == [
            ("0.weight", pytest.approx(1.0)),
            ("3.weight", pytest.approx(1.0)),
        ]
        assert report.declared == report.rows


def test_the_model_of_a_plan_that_acts_nowhere() -> None:
    model = network()
    plan = regularize(model, L2(0.3))
    report = audit(stepping(model, torch.optim.SGD(model.parameters(), lr=0.1)), model)
    assert [row.verdict for row in report] == ["never applied"] * 2
    assert not plan.applied.warned, "an audit is no training"


def test_declared_and_written_by_hand() -> None:
    model = network()
    plan = regularize(model, {kernels: L2(0.3), "3.weight": L1(0.1)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    report = audit(stepping(model, optimizer, lambda: plan.penalty() + l2_of(model, 0.01)), plan)
    assert [row.factor for row in report.declared] == pytest.approx([1.0, 1.0])
    assert {row.name: row.verdict for row in report.wrong} == {
        "0.weight": "penalized twice: also by L2(0.3) of a plan"
    }


@pytest.mark.parametrize("share", [1.0, 0.25])
@pytest.mark.parametrize("scaled", [False, True])
def test_micro_batches(share: float, scaled: bool) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", enabled=scaled)

    def step() -> None:
        optimizer.zero_grad()
        for _ in range(4):
            data, penalty = F.cross_entropy(model(X), Y), l2_of(model, 0.01)
            loss = data / 4 + penalty if share == 1.0 else (data + penalty) / 4
            scaler.scale(loss).backward()
        scaler.step(optimizer)

    report = audit(step, model)
    row = report[0]
    assert row.what == ("L2(0.04) in the loss" if share == 1.0 else "L2(0.01) in the loss")
    assert row.factor == (4.0 if share == 1.0 else 1.0)
    assert row.ok == (share != 1.0)


def test_what_no_optimizer_holds() -> None:
    model = network()
    first = torch.optim.SGD(model[:2].parameters(), lr=0.1)
    report = audit(stepping(model, first), model)
    assert [row.name for row in report.wrong] == ["3.weight", "3.bias"]
    other = torch.optim.SGD(model[3].parameters(), lr=0.1)
    assert audit(stepping(model, first), model).ok, "another one holds it, and steps elsewhere"
    assert other.state == {}


def test_a_parameter_of_two_optimizers() -> None:
    model = network()
    first = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    second = torch.optim.SGD(model[3].parameters(), lr=0.1)
    step = stepping(model, first)

    def both() -> None:
        step()
        second.step()

    report = audit(both, model)
    shared = [row for row in report if "stepped by several optimizers, SGD 1 and" in row.verdict]
    assert [row.name for row in shared] == ["3.weight", "3.bias"]
    assert report.ok
    second.param_groups[0]["weight_decay"] = 0.1
    assert [row.name for row in audit(both, model).wrong] == ["3.weight", "3.bias"]


def test_a_decay_of_the_second_optimizer_is_measured() -> None:
    model = network()
    head = torch.optim.SGD([model[3].weight], lr=0.1)
    rest = torch.optim.SGD([model[3].weight, model[0].weight], lr=0.1, weight_decay=0.1)
    plan = regularize(model, {"0.weight": L1(0.01)})
    plan.attach(rest)
    step = stepping(model, head)

    def both() -> None:
        step()
        rest.step()

    assert [row.factor for row in audit(both, plan).declared] == pytest.approx([1.0])
    rows = {row.name: row for row in audit(both, model) if "weight_decay" in row.what}
    assert rows["0.weight"].factor == 1.0
    assert rows["0.weight"].what == "weight_decay=0.1 of SGD 2, in the gradient"
    assert math.isnan(rows["3.weight"].factor)
    assert rows["3.weight"].verdict == "kernel; not measured: several optimizers step it"


class Wrapper(torch.optim.Optimizer):
    """Steps an optimizer within its own step, after it moved the weights, as SAM does."""

    def __init__(self, inner: torch.optim.Optimizer, shares: bool) -> None:
        groups = inner.param_groups
        super().__init__(groups if shares else [dict(group) for group in groups], {})
        self.inner = inner

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        return self.inner.step(closure)


@pytest.mark.parametrize("shares", [True, False])
@pytest.mark.parametrize("inner", [torch.optim.SGD, torch.optim.AdamW])
def test_an_optimizer_that_wraps_another_one(
    inner: type[torch.optim.Optimizer], shares: bool
) -> None:
    model = network()
    optimizer = Wrapper(inner(model.parameters(), lr=0.1, weight_decay=0.1), shares)
    report = audit(stepping(model, optimizer), model)
    assert report.ok
    kind = "decoupled" if inner is torch.optim.AdamW else "in the gradient"
    whats = {row.what.replace(f"{inner.__name__} 1", inner.__name__) for row in report}
    assert whats == {f"weight_decay=0.1 of {inner.__name__}, {kind}"}
    assert [row.factor for row in report] == [1.0] * 6


class Hookless(torch.optim.Optimizer):
    """Never calls ``Optimizer.__init__``, as some that wrap another one."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.inner, self.param_groups = inner, inner.param_groups
        self.state, self.defaults = inner.state, inner.defaults

    def step(self, closure: Any = None) -> Any:
        return self.inner.step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.inner.zero_grad(set_to_none)


def test_an_optimizer_without_hooks_around_another_one() -> None:
    """It raised, and left something behind that every later audit heard of."""
    model = network()
    optimizer = Hookless(torch.optim.AdamW(model.parameters(), lr=0.1))
    for _ in range(2):
        report = audit(stepping(model, optimizer), model)
        assert {row.what for row in report} == {"weight_decay=0.01 of AdamW, decoupled"}
        assert [row.factor for row in report] == [1.0] * 6


def test_a_gradient_that_is_divided_after_the_passes() -> None:
    model = network()
    plan = regularize(model, L2(0.3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        for _ in range(4):
            (F.cross_entropy(model(X), Y) + plan.penalty()).backward()
        for p in model.parameters():
            p.grad /= 4
        optimizer.step()

    for audited in (plan, model):
        assert [row.factor for row in audit(step, audited, strict=True)] == pytest.approx([1, 1])


def test_what_a_step_sets_and_reassigns_is_put_back() -> None:
    class Averaging(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)
            self.register_buffer("average", torch.zeros(2))
            self.register_buffer("late", None)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = self.layer(x)
            self.average = 0.9 * self.average + out.detach().mean(0)
            self.late = self.average + 1
            return out

    model = Averaging()
    average = model.average
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    step = stepping(model, optimizer)

    def warmed_up() -> None:
        optimizer.param_groups[0]["lr"] = 0.5
        step()

    audit(warmed_up, model)
    assert optimizer.param_groups[0]["lr"] == 0.1
    assert model.average is average
    assert not average.any()
    assert model.late is None


def test_everything_is_put_back() -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=0.02)
    step = stepping(model, optimizer, lambda: l2_of(model, 0.01))
    step()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    kept = {id(p): s["exp_avg"].clone() for p, s in optimizer.state.items()}
    functions = torch.autograd.backward, torch.autograd.grad, torch.amp.GradScaler.scale
    audit(step, model)
    with pytest.raises(RuntimeError, match="mine"):
        audit(lambda: (step(), failing()), model)
    after = torch.autograd.backward, torch.autograd.grad, torch.amp.GradScaler.scale
    assert functions == after
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(s["exp_avg"], kept[id(p)]) for p, s in optimizer.state.items())
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.02]


def failing() -> None:
    raise RuntimeError("mine")
