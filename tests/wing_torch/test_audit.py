"""``audit``: the factor with which each declared penalty enters a loss or a step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from penalize import (
    L1,
    L2,
    AuditError,
    GroupLasso,
    LossError,
    ModelError,
    biases,
    everything,
    kernels,
)
from penalize.torch import audit, regularize

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
Y = torch.randn(12, 2, generator=torch.Generator().manual_seed(1))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 2)
    )


RULES = {kernels: L2(0.3), "4": L1(0.2), "0" & biases: L2(0.5)}
NAMES = ["0.weight", "0.bias", "4.weight"]


def data_loss(model: nn.Module) -> torch.Tensor:
    return nn.functional.mse_loss(model(X), Y)


Loss = Callable[[torch.Tensor, Any], torch.Tensor]
LOSSES: dict[str, tuple[Loss, float]] = {
    "left out": (lambda data, plan: data, 0.0),
    "once": (lambda data, plan: data + plan.penalty(), 1.0),
    "times 0.01": (lambda data, plan: data + 0.01 * plan.penalty(), 0.01),
    "twice": (lambda data, plan: data + plan.penalty() + plan.penalty(), 2.0),
    "subtracted": (lambda data, plan: data - plan.penalty(), -1.0),
    "as a number": (lambda data, plan: data + plan.penalty().item(), 0.0),
    "detached": (lambda data, plan: data + plan.penalty().detach(), 0.0),
    "squared": (lambda data, plan: data + plan.penalty() ** 2, math.nan),
}


@pytest.mark.parametrize("whole_step", [False, True])
@pytest.mark.parametrize(("loss", "factor"), LOSSES.values(), ids=LOSSES)
def test_a_loss_term(loss: Loss, factor: float, whole_step: bool) -> None:
    model = network()
    plan = regularize(model, RULES)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def step() -> Any:
        total = loss(data_loss(model), plan)
        if whole_step:
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
        return total

    report = audit(step, plan)
    assert [row.name for row in report] == NAMES
    assert [row.factor for row in report] == pytest.approx([factor] * 3, rel=1e-3, nan_ok=True)
    assert report.ok == (factor == 1.0)
    if math.isnan(factor):
        assert report[0].note.startswith("no fixed factor: clipping, a penalty of a penalty")


@pytest.mark.parametrize("mode", ["gradient", "decoupled", "proximal", "halfspace"])
@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.Adam(p, lr=0.01),
        lambda p: torch.optim.SGD(p, lr=0.1, maximize=True),
    ],
    ids=["SGD", "Adam", "maximize"],
)
def test_an_attachment(make: Callable[[Any], torch.optim.Optimizer], mode: str) -> None:
    model = network()
    plan = regularize(model, RULES)
    optimizer = make(model.parameters())
    attachment = plan.attach(optimizer, mode=mode)

    def step() -> None:
        optimizer.zero_grad()
        data_loss(model).backward()
        optimizer.step()

    for _ in range(2):  # before the first step, and after some
        assert [row.factor for row in audit(step, plan)] == pytest.approx([1.0] * 3, rel=1e-2)
        step()
    attachment.detach()
    assert [row.factor for row in audit(step, plan)] == [0.0] * 3


@pytest.mark.parametrize(("share", "factor"), [(1.0, 3.0), (1 / 3, 1.0)])
def test_accumulated_micro_batches(share: float, factor: float) -> None:
    model = network()
    plan = regularize(model, RULES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        for _ in range(3):
            (data_loss(model) / 3 + share * plan.penalty()).backward()
        optimizer.step()

    assert [row.factor for row in audit(step, plan)] == pytest.approx([factor] * 3, rel=1e-3)


def test_a_loss_term_that_is_clipped_with_the_rest() -> None:
    """An attached penalty is not clipped; a loss term is, by a factor that depends on the data."""
    model = network()
    plan = regularize(model, RULES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(penalty: Callable[[], Any]) -> None:
        optimizer.zero_grad()
        (data_loss(model) + penalty()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()

    assert all(math.isnan(row.factor) for row in audit(lambda: step(plan.penalty), plan))
    plan.attach(optimizer)
    found = [row.factor for row in audit(lambda: step(lambda: 0.0), plan)]
    assert found == pytest.approx([1.0] * 3, rel=1e-3)


@pytest.mark.parametrize("clip", ["with", "without"])
def test_an_audit_while_gradients_wait_for_a_step(clip: str) -> None:
    """They wait afterwards as they did before, with a penalty in them or not."""

    def trained(audited: bool) -> dict[str, torch.Tensor]:
        model = network()
        plan = regularize(model, RULES)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        plan.attach(optimizer, clip=clip)

        def step() -> None:
            optimizer.zero_grad()
            data_loss(model).backward()
            optimizer.step()

        step()
        optimizer.zero_grad()
        data_loss(model).backward()
        held = [p.grad for p in model.parameters()]
        if audited:
            found = [row.factor for row in audit(step, plan)]
            assert found == pytest.approx([1.0] * 3, rel=1e-3)
        assert all(p.grad is g for p, g in zip(model.parameters(), held, strict=True))
        optimizer.step()
        return model.state_dict()

    torch.testing.assert_close(trained(True), trained(False))


def test_ties_effective_weights_and_compiled_losses() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(10, 6)
            self.head = nn.Linear(6, 10, bias=False)
            self.head.weight = self.table.weight
            self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(6, 6))
            self.unused = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.normed(self.table(x)))

    torch._dynamo.reset()
    net, x = Net(), torch.arange(5)
    plan = regularize(net, {everything: L2(0.1), "normed.weight": GroupLasso(0.1)})

    def loss() -> torch.Tensor:
        return nn.functional.cross_entropy(net(x), x) + plan.penalty()

    compiled = torch.compile(loss, backend="aot_eager")
    for measured in (loss, compiled):
        measured()
        report = audit(measured, plan)
        assert len(report) == 5
        assert [row.factor for row in report] == pytest.approx([1.0] * 5, rel=1e-3)


def test_only_what_is_stepped() -> None:
    model = network()
    plan = regularize(model, RULES)
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        (data_loss(model) + plan.penalty()).backward()
        optimizer.step()

    report = audit(step, plan)
    assert [row.factor for row in report.declared] == pytest.approx([1.0, 1.0, 0.0])
    others = [row for row in report if row not in report.declared]
    assert [row.name for row in others] == ["1.weight", "1.bias", "4.weight", "4.bias"]
    assert all("no optimizer holds it" in row.verdict for row in others)


def test_everything_is_put_back() -> None:
    """Training with an audit in the middle of it goes on as without."""

    def train(with_audit: bool) -> list[torch.Tensor]:
        model = network()
        plan = regularize(model, RULES)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        plan.attach(optimizer, mode="proximal")

        def step() -> None:
            optimizer.zero_grad()
            data_loss(model).backward()
            optimizer.step()

        for i in range(4):
            if with_audit and i in (0, 2):
                assert audit(step, plan).ok
            step()
        return list(model.state_dict().values())

    for plain, audited in zip(train(False), train(True), strict=True):
        assert torch.equal(plain, audited)


def test_what_is_stepped_beside_the_model_is_put_back_too() -> None:
    """A plan of a part, or a step that trains two models."""
    body, head = network(), nn.Linear(2, 2)
    plan = regularize(body, RULES)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        (nn.functional.mse_loss(head(body(X)), Y) + plan.penalty()).backward()
        optimizer.step()

    before = [p.detach().clone() for p in head.parameters()]
    assert audit(step, plan).ok
    assert all(torch.equal(p, b) for p, b in zip(head.parameters(), before, strict=True))
    assert not optimizer.state


class MyAdam(torch.optim.Adam):
    """Fires its hooks twice in one step."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


@pytest.mark.parametrize("attached", [False, True])
def test_an_optimizer_that_calls_super(attached: bool) -> None:
    model = network()
    plan = regularize(model, RULES)
    optimizer = MyAdam(model.parameters())
    if attached:
        plan.attach(optimizer)

    def step() -> None:
        optimizer.zero_grad()
        (data_loss(model) + (0.0 if attached else plan.penalty())).backward()
        optimizer.step()

    assert [row.factor for row in audit(step, plan)] == pytest.approx([1.0] * 3, rel=1e-3)


def test_sparse_gradients() -> None:
    table = nn.Embedding(6, 3, sparse=True)
    plan = regularize(table, {"weight": L2(0.1)})
    x = torch.tensor([0, 2])
    assert [row.factor for row in audit(lambda: table(x).sum(), plan)] == [0.0]
    (row,) = audit(lambda: table(x).sum() + plan.penalty(), plan)
    assert row.factor == pytest.approx(1.0)


def test_a_step_that_fails_leaves_no_trace() -> None:
    model = network()
    plan = regularize(model, RULES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    attachment = plan.attach(optimizer)
    hooks = len(optimizer._optimizer_step_pre_hooks)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def step() -> None:
        data_loss(model).backward()
        optimizer.step()
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        audit(step, plan)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert not optimizer.state
    assert len(optimizer._optimizer_step_pre_hooks) == hooks
    assert attachment.alive
    assert not plan.applied.muted


@pytest.mark.parametrize("model", [nn.LazyLinear(2), nn.Linear(4, 2, device="meta")], ids=repr)
def test_parameters_without_values_are_refused(model: nn.Module) -> None:
    plan = regularize(model, {"weight": L2(0.1)})
    with pytest.raises(ModelError, match=r"without values \(lazy, or on the meta.*run one batch"):
        audit(plan.penalty, plan)


def test_a_weight_of_zeros_cannot_be_seen() -> None:
    model = nn.Linear(4, 2)
    nn.init.zeros_(model.weight)
    plan = regularize(model, L2(0.3))
    (row,) = audit(lambda: data_loss(model) + plan.penalty(), plan)
    assert row.note == "its gradient is 0 here, so it cannot be seen"


def test_strict() -> None:
    model = network()
    plan = regularize(model, RULES)
    assert len(audit(lambda: data_loss(model) + plan.penalty(), plan, strict=True)) == 3
    with pytest.raises(AuditError, match=r"0\.weight +0 +never applied"):
        audit(lambda: data_loss(model), plan, strict=True)


def lbfgs() -> Callable[[], Any]:
    model = network()
    optimizer = torch.optim.LBFGS(model.parameters())

    def step() -> Any:
        return optimizer.step(lambda: data_loss(model))

    return lambda: audit(step, regularize(model, RULES))


def twice() -> Callable[[], Any]:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        data_loss(model).backward()
        optimizer.step()
        optimizer.step()

    return lambda: audit(step, regularize(model, RULES))


def attached() -> Callable[[], Any]:
    model = network()
    plan = regularize(model, RULES)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attachment = plan.attach(optimizer)
    return lambda: (audit(lambda: data_loss(model), plan), attachment, optimizer)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a tensor": (
        lambda: audit(torch.tensor(1.0), regularize(network(), RULES)),
        "audit got a Tensor and a Plan; pass a function that returns the loss or does a step",
    ),
    "no plan": (lambda: audit(lambda: 1.0, L2(0.1)), "audit got a function and a L2; pass"),
    "no loss": (
        lambda: audit(lambda: None, regularize(network(), RULES)),
        "returned a NoneType, and stepped no optimizer; return the loss, a scalar tensor",
    ),
    "a closure": (lbfgs(), "LBFGS is stepped with a closure, which may run often; pass a function"),
    "two steps": (twice(), "steps an optimizer more than once; pass a function that does one"),
    "a loss of an attached plan": (attached(), "the plan is attached, and acts in the optimizer's"),
}


@pytest.mark.parametrize(("call", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(LossError, match=f"(?i){message}"):
        call()
