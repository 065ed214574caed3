"""``plan.balance()``: penalties beside the data, between backward and step."""

import math

import pytest
import torch
from torch import nn

from penalize import L0, L1, L2, OptimizerError, biases, kernels
from penalize.torch import regularize

X = torch.randn(32, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)).double()


def backward(net, plan=None):
    net.zero_grad()
    loss = net(X).square().mean()
    (loss if plan is None else loss + plan.penalty()).backward()


def test_ratio_and_shrinkage_are_what_they_say():
    net = model()
    plan = regularize(net, {kernels: L2(0.1), "2": L1(0.3)})
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    plan.attach(optimizer, mode="decoupled")
    backward(net)
    first, second = plan.balance(steps=10)
    w, g = net[0].weight.detach(), net[0].weight.grad
    assert first.name == "0.weight"
    assert first.data_gradient == pytest.approx(float(g.norm()))
    assert first.penalty_gradient == pytest.approx(float((0.2 * w).norm()))
    assert first.ratio == pytest.approx(float((0.2 * w).norm() / g.norm()))
    assert first.shrinkage == pytest.approx(1 - (1 - 0.5 * 0.2) ** 10)
    v = net[2].weight.detach()
    along = float(0.3 * v.abs().sum() / v.square().sum())
    assert second.shrinkage == pytest.approx(1 - (1 - 0.5 * along) ** 10)
    # The shrinkage is what the penalty alone takes away: ten steps without data.
    before = float(w.norm())
    for _ in range(10):
        for p in net.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
    assert 1 - float(net[0].weight.detach().norm()) / before == pytest.approx(first.shrinkage)


def test_the_penalty_is_taken_out_of_the_gradient_where_it_is_in_it():
    net = model()
    plan = regularize(net, L2(0.1))
    backward(net)
    bare = plan.balance(learning_rate=0.1)
    backward(net, plan)
    in_loss = plan.balance(learning_rate=0.1)
    naive = float(plan.targets()[0].parameters[0].grad.norm())
    assert in_loss.rows[0].data_gradient == pytest.approx(bare.rows[0].data_gradient)
    assert naive != pytest.approx(bare.rows[0].data_gradient, rel=1e-3)
    net.zero_grad()
    plan = regularize(net, L2(0.1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    plan.attach(optimizer, clip="with")
    backward(net)
    clipped = plan.balance()
    assert [r.data_gradient for r in clipped] == pytest.approx([r.data_gradient for r in bare])
    assert [r.shrinkage for r in clipped] == pytest.approx([r.shrinkage for r in bare])


def test_what_cannot_matter_and_what_drowns_the_data_stand_in_a_table_of_their_own():
    net = model()
    plan = regularize(net, {"0": L2(1e-12), "2": L2(1e3), biases: L1(1e-3)})
    backward(net)
    found = plan.balance()
    assert [(row.name, row.note.partition(":")[0]) for row in found.warnings] == [
        ("0.weight", "cannot matter"),
        ("2.weight", "drowns the data"),
    ]
    text = str(found)
    assert "shrinks per epoch" not in text  # nobody said the learning rate
    assert text.count("0.weight") == 2
    assert "cannot matter: under 1e-06 of the data's gradient" in text
    assert "drowns the data: over 10 times its gradient" in text
    sound = regularize(net, L2(1e-2)).balance(learning_rate=0.1)
    assert "no strength is out of proportion" in str(sound)
    assert "shrinks per epoch" in str(sound)
    assert len(sound) == 2


def test_extremes():
    net = model()
    net[2].weight.data.zero_()  # nothing comes to the first layer
    plan = regularize(net, {"0": L2(0.1), "2": L2(0.1)})
    backward(net)
    first, second = plan.balance(learning_rate=0.1)
    assert first.ratio == math.inf
    assert second.ratio == 0
    assert math.isnan(second.shrinkage)
    jumps = regularize(net, L0(0.1)).balance()
    assert all(math.isnan(row.ratio) and not row.note for row in jumps)
    strong = regularize(net, L2(100.0)).balance(learning_rate=1.0, steps=3)
    assert strong.rows[0].shrinkage == 1.0


def test_a_parametrized_weight_and_a_frozen_one():
    net = nn.utils.parametrizations.weight_norm(nn.Linear(4, 1).double())
    plan = regularize(net, L2(0.1))
    backward(net)
    (row,) = plan.balance()
    assert row.ratio > 0
    frozen = model()
    frozen[0].weight.requires_grad_(False)
    plan = regularize(frozen, L2(0.1))
    backward(frozen)
    assert [row.name for row in plan.balance()] == ["2.weight"]


def test_it_belongs_between_backward_and_step():
    net = model()
    plan = regularize(net, L2(0.1))
    with pytest.raises(OptimizerError, match=r"no penalized parameter has a gradient; call"):
        plan.balance()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    plan.attach(optimizer)
    backward(net)
    optimizer.step()
    with pytest.raises(OptimizerError, match=r"when the step was over, and .grad has the penalty"):
        plan.balance()
    backward(net)
    for steps in (0, 1.5, True):
        with pytest.raises(OptimizerError, match="Balance got steps="):
            plan.balance(steps=steps)


def test_nothing_is_changed_by_it():
    net = model()
    plan = regularize(net, L2(0.1))
    backward(net)
    before = [(p.detach().clone(), p.grad.clone()) for p in net.parameters()]
    plan.balance()
    for p, (w, g) in zip(net.parameters(), before, strict=True):
        assert torch.equal(p, w)
        assert torch.equal(p.grad, g)
