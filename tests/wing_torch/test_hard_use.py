"""Situations from reports of people who regularize networks: right, or refused with a sentence."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, stack_module_state, vmap
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils.rnn import pack_sequence
from torch.optim import SGD, Adam, AdamW, Optimizer

from penalize import (
    L1,
    L2,
    ActivityError,
    AppliedTwiceError,
    ConflictError,
    InterruptedStepWarning,
    ModeError,
    ModelError,
    NeverAppliedWarning,
    NotScriptedError,
    OptimizerError,
    everything,
    kernels,
    linear,
    of_type,
)
from penalize.torch import audit, regularize


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double()


def loss_of(model: nn.Module) -> Tensor:
    return model(torch.ones(5, 4).double()).square().mean()


# --- a model that is not what was planned ------------------------------------------------------


def _prune(layer: nn.Linear) -> Callable[[], Any]:
    prune.l1_unstructured(layer, "weight", 0.5)
    return lambda: prune.remove(layer, "weight")


def _weight_norm(layer: nn.Linear) -> Callable[[], Any]:
    parametrizations.weight_norm(layer)
    return lambda: parametrize.remove_parametrizations(layer, "weight")


def _old_weight_norm(layer: nn.Linear) -> Callable[[], Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(layer)
    return lambda: nn.utils.remove_weight_norm(layer)


def _deleted(layer: nn.Linear) -> Callable[[], Any]:
    return lambda: delattr(layer, "weight")


def _none(layer: nn.Linear) -> Callable[[], Any]:
    return lambda: setattr(layer, "weight", None)


@pytest.mark.parametrize("how", ["loss", "attached", "detached"])
@pytest.mark.parametrize("change", [_prune, _weight_norm, _old_weight_norm, _deleted, _none])
def test_a_plan_that_is_broken_stops_no_other_step(change: Any, how: str) -> None:
    layer = nn.Linear(4, 4)
    undo = change(layer)
    plan = regularize(layer, L2(0.1))
    optimizer = SGD(layer.parameters(), lr=0.1)
    attachment = None if how == "loss" else plan.attach(optimizer)
    loss = layer(torch.ones(2, 4)).sum()
    (loss if attachment is not None else loss + plan.penalty()).backward()
    optimizer.step()
    if attachment is not None and how == "detached":
        attachment.detach()
    undo()

    other = nn.Linear(4, 1)
    other_optimizer = SGD(other.parameters(), lr=0.1)
    other(torch.ones(2, 4)).sum().backward()
    before = other.weight.detach().clone()
    other_optimizer.step()
    assert not torch.equal(other.weight, before)
    assert audit(lambda: other(torch.ones(2, 4)).sum(), other).ok
    if change not in (_deleted, _none):
        with pytest.raises(ModelError, match="no longer"):
            plan.penalty()


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.out = nn.Linear(4, 5, bias=False)


def tie(model: Tied) -> Tensor:
    model.out.weight = model.table.weight
    return model.table.weight.detach().clone()


def test_weights_that_are_tied_after_planning_are_penalized_once() -> None:
    model = Tied()
    plan = regularize(model, {everything: L2(0.1)})
    w = tie(model)
    assert float(plan.penalty().detach()) == pytest.approx(0.1 * float(w.square().sum()))
    assert list(plan.breakdown()) == ["table.weight"]
    optimizer = SGD(model.parameters(), lr=1.0)
    plan.attach(optimizer)
    optimizer.step()
    torch.testing.assert_close(model.out.weight.detach(), w - 0.2 * w)


def test_weights_that_are_tied_between_two_steps() -> None:
    model = Tied()
    optimizer = SGD(model.parameters(), lr=1.0)
    regularize(model, {everything: L2(0.1)}).attach(optimizer)
    optimizer.step()
    w = tie(model)
    optimizer.step()
    torch.testing.assert_close(model.table.weight.detach(), w - 0.2 * w)


def compiled(plan: Any) -> Callable[[], Tensor]:
    torch.compiler.reset()
    found: Callable[[], Tensor] = torch.compile(plan.penalty, fullgraph=True, backend="eager")
    return found


def test_weights_that_are_tied_before_a_penalty_is_compiled() -> None:
    model = Tied()
    penalty = compiled(regularize(model, {everything: L2(0.1)}))
    w = tie(model)
    torch.testing.assert_close(penalty(), 0.1 * w.square().sum())


def test_weights_that_are_tied_after_a_penalty_was_compiled() -> None:
    model = Tied()
    penalty = compiled(regularize(model, {everything: L2(0.1)}))
    optimizer = SGD(model.parameters(), lr=0.1)
    penalty()
    w = tie(model)
    penalty().backward()
    with pytest.raises(AppliedTwiceError, match="compiled before it was tied"):
        optimizer.step()
    optimizer.zero_grad()
    torch.testing.assert_close(penalty(), 0.1 * w.square().sum())
    penalty().backward()
    optimizer.step()
    torch.testing.assert_close(model.out.weight.detach(), 0.98 * w)
    model.out.weight = nn.Parameter(2 * w)
    torch.testing.assert_close(penalty(), 0.1 * (0.98**2 + 2**2) * w.square().sum())


def test_ties_that_disagree_are_a_conflict() -> None:
    model = Tied()
    plan = regularize(model, {"table.weight": L2(0.1), "out.weight": L2(0.2)})
    optimizer = SGD(model.parameters(), lr=1.0)
    plan.attach(optimizer)
    w = tie(model)
    for act in (plan.penalty, optimizer.step):
        with pytest.raises(ConflictError, match=r"'table\.weight' and 'out\.weight' are one"):
            act()
    torch.testing.assert_close(model.out.weight.detach(), w)


@pytest.mark.parametrize("attached", [False, True])
def test_a_layer_that_is_replaced_after_planning_is_warned_of(attached: bool) -> None:
    model = network()
    plan = regularize(model, L2(0.1))
    if not attached:
        model[2] = nn.Linear(3, 3).double()  # a new head, before there is an optimizer
    optimizer = SGD(model.parameters(), lr=0.1)
    if attached:
        plan.attach(optimizer)
        model[2] = nn.Linear(3, 3).double()
        optimizer.add_param_group({"params": model[2].parameters()})

    def train() -> None:
        for _ in range(3):
            optimizer.zero_grad()
            (loss_of(model) + (0 if attached else plan.penalty())).backward()
            optimizer.step()

    with pytest.warns(NeverAppliedWarning, match=r"'2\.weight'.* came to the Sequential"):
        train()


def test_a_head_that_is_replaced_between_two_steps_of_a_loss() -> None:
    model = network()
    plan = regularize(model, L2(0.1))
    optimizer = SGD(model.parameters(), lr=0.1)

    def train() -> None:
        (loss_of(model) + plan.penalty()).backward()
        optimizer.step()

    train()
    model[2] = nn.Linear(3, 3).double()
    optimizer.add_param_group({"params": model[2].parameters()})
    with pytest.warns(NeverAppliedWarning, match="came to the Sequential"):
        train()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train()  # once is enough


def test_a_module_that_the_optimizer_held_already_comes_into_the_model() -> None:
    model, head = network(), nn.Linear(3, 3).double()
    plan = regularize(model, L2(0.1))
    optimizer = SGD([*model.parameters(), *head.parameters()], lr=0.1)

    def train() -> None:
        (loss_of(model) + plan.penalty()).backward()
        optimizer.step()

    train()
    model[2] = head
    with pytest.warns(NeverAppliedWarning, match="came to the Sequential"):
        train()


@pytest.mark.parametrize("as_a", ["module", "parameter"])
def test_what_the_optimizer_held_already_is_written_into_the_model_past_its_doors(
    as_a: str,
) -> None:
    """Nothing tells of that; it is seen some steps later, as the model is looked through."""
    model, head = network(), nn.Linear(3, 3).double()
    plan = regularize(model, L2(0.1))
    optimizer = SGD([*model.parameters(), *head.parameters()], lr=0.01)

    def train(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            (loss_of(model) + plan.penalty()).backward()
            optimizer.step()

    train(1)
    if as_a == "module":
        model._modules["2"] = head
    else:
        model[2]._parameters["extra"] = head.weight
    with pytest.warns(NeverAppliedWarning, match="came to the Sequential") as warned:
        train(100)
    assert len(warned) == 1


# --- tensors in the place of parameters --------------------------------------------------------


class Objective(nn.Module):
    """A loss with a penalty, as a module."""

    def __init__(self, net: nn.Module, plan: Any) -> None:
        super().__init__()
        self.net, self.plan = net, plan

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).square().mean() + self.plan.penalty()


def stateless() -> tuple[nn.Linear, Objective, Tensor]:
    net = nn.Linear(3, 2).double()
    return net, Objective(net, regularize(net, L2(0.1))), torch.randn(5, 3).double()


def by_hand(net: nn.Module, params: dict[str, Tensor], x: Tensor) -> Tensor:
    loss: Tensor = functional_call(net, params, (x,)).square().mean()
    return loss + 0.1 * params["weight"].square().sum()


def under(params: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"net.{name}": value for name, value in params.items()}


def test_an_ensemble_under_vmap_has_its_penalties() -> None:
    net, objective, x = stateless()
    params, _ = stack_module_state([nn.Linear(3, 2).double() for _ in range(3)])
    losses = vmap(lambda p: functional_call(objective, p, (x,)))(under(params))
    expected = vmap(lambda p: by_hand(net, p, x))(params)
    torch.testing.assert_close(losses, expected)
    (found,) = torch.autograd.grad(losses.sum(), params["weight"])
    (right,) = torch.autograd.grad(expected.sum(), params["weight"])
    torch.testing.assert_close(found, right)


@pytest.mark.filterwarnings("ignore:`torch.jit")  # what jvp uses itself
def test_derivatives_of_what_stands_in_the_module() -> None:
    net, objective, x = stateless()
    params = {name: value.detach() * 3 for name, value in net.named_parameters()}
    call = lambda p: functional_call(objective, under(p), (x,))  # noqa: E731
    right = lambda p: by_hand(net, p, x)  # noqa: E731
    torch.testing.assert_close(call(params), right(params))  # an average, without gradients
    for name, found in grad(call)(params).items():
        torch.testing.assert_close(found, grad(right)(params)[name])
    tangents = {name: torch.ones_like(value) for name, value in params.items()}
    found = jvp(call, (params,), (tangents,))
    torch.testing.assert_close(found, jvp(right, (params,), (tangents,)))

    def inner(loss: Any) -> Any:  # a step of MAML
        def outer(p: dict[str, Tensor]) -> Tensor:
            gradients = grad(loss)(p)
            value: Tensor = loss({name: p[name] - 0.1 * gradients[name] for name in p})
            return value

        return outer

    for name, found in grad(inner(call))(params).items():
        torch.testing.assert_close(found, grad(inner(right))(params)[name])


def test_a_frozen_parameter_is_left_alone_all_the_same() -> None:
    net, objective, x = stateless()
    net.weight.requires_grad_(False)
    torch.testing.assert_close(objective(x), net(x).square().mean())


# --- gradients that others write ---------------------------------------------------------------


class Private(SGD):
    """Writes ``.grad`` itself within its step, as DP-SGD and gradient surgery do."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = p.own.clone()
        return super().step(closure)


def private_step(model: nn.Module, optimizer: Optimizer) -> Callable[[], None]:
    def step() -> None:
        optimizer.zero_grad()
        loss_of(model).backward()
        for p in model.parameters():
            assert p.grad is not None
            p.own = p.grad.clone()  # type: ignore[attr-defined]
        optimizer.step()

    return step


def test_a_penalty_that_the_optimizer_throws_away_has_the_factor_0() -> None:
    model = network()
    optimizer = Private(model.parameters(), lr=0.1)
    plan = regularize(model, L2(0.5))
    plan.attach(optimizer)
    step = private_step(model, optimizer)
    with pytest.warns(NeverAppliedWarning, match=r"Private replaced the gradient of '0\.weight'"):
        report = audit(step, plan)
    assert [row.factor for row in report] == [0.0, 0.0]
    assert "steps without it" in str(report)


def test_a_penalty_in_the_loss_that_the_optimizer_throws_away() -> None:
    model = network()
    optimizer = Private(model.parameters(), lr=0.1)
    plan = regularize(model, L2(0.5))

    def step() -> None:
        optimizer.zero_grad()
        gradients = torch.autograd.grad(loss_of(model), [*model.parameters()])
        for p, gradient in zip(model.parameters(), gradients, strict=True):
            p.own = gradient  # type: ignore[attr-defined]
        (loss_of(model) + plan.penalty()).backward()
        optimizer.step()

    assert [row.factor for row in audit(step, plan)] == [0.0, 0.0]


@pytest.mark.parametrize("strength", [1e-12, 0.1])
@pytest.mark.parametrize("kind", [SGD, Adam])
def test_a_penalty_that_is_lost_in_rounding_alone_is_applied(
    kind: type[Optimizer], strength: float
) -> None:
    """The weights are the same with it and without; at a larger strength they are not."""
    model = network().float()
    optimizer = kind(model.parameters(), lr=0.1)
    plan = regularize(model, L2(strength))
    plan.attach(optimizer)

    def step() -> None:
        optimizer.zero_grad()
        model(torch.zeros(5, 4)).square().sum().backward()
        optimizer.step()

    assert [row.factor for row in audit(step, plan)] == pytest.approx([1.0, 1.0], rel=1e-2)


def _copied(p: nn.Parameter, g: Tensor) -> None:
    p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    p.grad.data.copy_(g)


def _put(p: nn.Parameter, g: Tensor) -> None:
    p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    p.grad.data = g


@pytest.mark.parametrize("write", [_copied, _put])
def test_gradients_that_are_written_through_data(write: Any) -> None:
    model, twin = network(), network()
    twin.load_state_dict(model.state_dict())
    optimizer, other = (SGD(each.parameters(), lr=0.1) for each in (model, twin))
    plan = regularize(twin, L2(0.1))
    regularize(model, L2(0.1)).attach(optimizer)
    for _ in range(3):
        for p, g in zip(
            model.parameters(),
            torch.autograd.grad(loss_of(model), [*model.parameters()]),
            strict=True,
        ):
            write(p, g)
        optimizer.step()
        other.zero_grad()
        (loss_of(twin) + plan.penalty()).backward()
        other.step()
    for found, right in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(found, right)


def test_gradients_that_are_zeroed_through_data_where_a_branch_is_not_used() -> None:
    first, second = nn.Linear(4, 2), nn.Linear(4, 2)
    model = nn.ModuleList([first, second])
    optimizer = SGD(model.parameters(), lr=0.1)
    regularize(model, L2(0.1)).attach(optimizer)
    for i in range(3):
        for p in model.parameters():
            if p.grad is not None:
                p.grad.data.zero_()
        (
            first(torch.ones(3, 4)).sum() + (second(torch.ones(3, 4)).sum() if i == 0 else 0)
        ).backward()
        w = second.weight.detach().clone()
        optimizer.step()
    torch.testing.assert_close(second.weight.detach(), w - 0.1 * 0.2 * w)


def test_a_gradient_of_the_last_step_is_refused_beside_new_ones() -> None:
    """One that is new tells nothing of another."""
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    regularize(model, L2(0.1)).attach(optimizer)
    loss_of(model).backward()
    optimizer.step()
    model[0].zero_grad()
    model[0](torch.ones(1, 4).double()).sum().backward()
    with pytest.raises(OptimizerError, match=r"'2\.weight' is stepped again"):
        optimizer.step()


class Newton(Optimizer):
    """Divides by the diagonal of the Hessian, which it gets by differentiating ``.grad``."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 1.0})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                (hv,) = torch.autograd.grad(p.grad.sum(), p, retain_graph=True)
                with torch.no_grad():
                    p -= p.grad / hv


def newton_step(model: nn.Linear, optimizer: Optimizer, penalty: Any = 0) -> None:
    optimizer.zero_grad()
    loss = 0.5 * (model.weight - 1).square().sum() + penalty
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of create_graph
        loss.backward(create_graph=True)
    optimizer.step()


def test_second_order_optimizers_take_a_loss_term_only() -> None:
    model = nn.Linear(1, 1, bias=False).double()
    optimizer = Newton(model.parameters())
    plan = regularize(model, L2(1.0))
    newton_step(model, optimizer, plan.penalty())
    assert float(model.weight.detach()) == pytest.approx(1 / 3)
    plan.attach(optimizer)
    with pytest.raises(ModeError, match=r"gradient of 'weight' has a graph.*plan\.penalty\(\)"):
        newton_step(model, optimizer)
    assert float(model.weight.detach()) == pytest.approx(1 / 3)


# --- steps that raise --------------------------------------------------------------------------


def interrupted(optimizer: Optimizer) -> Callable[[], None]:
    """Have a hook that comes after ours raise, until the returned function is called."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    return optimizer.register_step_pre_hook(interrupt).remove


def test_a_gradient_step_that_was_interrupted() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    regularize(model, L2(0.1)).attach(optimizer)
    resume = interrupted(optimizer)
    loss_of(model).backward()
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    resume()
    loss_of(model).backward()  # accumulates on a gradient that has the penalty
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(OptimizerError, match=r"raised after the penalty.*zero_grad\(\)"):
        optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    optimizer.zero_grad()
    loss_of(model).backward()
    g, w = (t.detach().clone() for t in (model[0].weight.grad, model[0].weight))
    optimizer.step()
    torch.testing.assert_close(model[0].weight.detach(), w - 0.1 * (g + 0.2 * w))


def test_a_decoupled_step_that_was_interrupted() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    regularize(model, L2(0.1)).attach(optimizer, "decoupled")
    resume = interrupted(optimizer)
    loss_of(model).backward()
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    resume()
    with pytest.warns(InterruptedStepWarning, match=r"raised after the penalty had moved '0\.w"):
        optimizer.step()


def test_a_proximal_step_that_was_interrupted_has_moved_nothing() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    regularize(model, L1(0.1)).attach(optimizer, "proximal")
    resume = interrupted(optimizer)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(KeyboardInterrupt):
        optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())
    resume()
    optimizer.step()


@pytest.mark.parametrize("mode", ["gradient", "decoupled", "proximal"])
def test_a_schedule_does_not_count_what_a_fused_optimizer_skips(mode: str) -> None:
    """It is always stepped; the scaler tells the kernel alone that this one is skipped."""
    model = nn.Linear(4, 2)
    optimizer = Adam(model.parameters(), lr=0.1, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    plan = regularize(model, linear(0.0, 1.0, 8) * L2(8.0))
    attachment = plan.attach(optimizer, mode)
    for x in (1.0, math.inf, math.inf, 1.0):
        optimizer.zero_grad()
        scaler.scale(model(torch.full((1, 4), x)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert {float(state["step"]) for state in optimizer.state.values()} == {2.0}
    assert plan.steps == 2
    assert attachment.steps == [2]


def test_a_table_that_its_forward_writes_to_is_noted() -> None:
    model = nn.Embedding(5, 4, max_norm=1.0)
    plan = regularize(model, {everything: L2(0.1)})
    assert "max_norm writes to it in each forward" in str(plan)
    penalty, index = plan.penalty(), torch.tensor([1, 2])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (model(index).sum() + penalty).backward()
    (model(index).sum() + plan.penalty()).backward()
    assert "max_norm" not in str(regularize(nn.Embedding(5, 4), {everything: L2(0.1)}))


# --- outputs -----------------------------------------------------------------------------------


def sequences(batch: int, batch_first: bool) -> Tensor:
    """The same sample in each row."""
    rows = torch.randn(7, 1, 4, generator=torch.Generator().manual_seed(1)).expand(7, batch, 4)
    return rows.transpose(0, 1) if batch_first else rows


def recurrent(
    batch_first: bool,
) -> Iterator[tuple[nn.Module, Callable[[nn.Module, Tensor], Tensor]]]:
    yield nn.LSTM(4, 3, 2, batch_first=batch_first), lambda m, x: m(x)[0]
    yield nn.GRU(4, 3, batch_first=batch_first, bidirectional=True), lambda m, x: m(x)[0]
    attention = nn.MultiheadAttention(4, 2, batch_first=batch_first)
    yield attention, lambda m, x: m(x, x, x)[0]
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=batch_first)
    yield layer, lambda m, x: m(x)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    yield encoder, lambda m, x: m(x)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("i", range(5))
def test_the_penalty_of_sequences_does_not_grow_with_the_batch(i: int, batch_first: bool) -> None:
    model, call = list(recurrent(batch_first))[i]
    plan = regularize(model, activities={of_type(type(model)): L2(1.0)})
    for batch in (1, 5, 10):
        output = call(model, sequences(batch, batch_first))
        expected = float(output.detach().square().sum()) / batch
        assert float(plan.activity_penalty().detach()) == pytest.approx(expected, rel=1e-5)
        plan.activity_penalty().backward()


def test_packed_sequences_and_single_ones() -> None:
    model = nn.GRU(4, 3)
    plan = regularize(model, activities={of_type(nn.GRU): L2(1.0)})
    packed = pack_sequence([torch.ones(5, 4), torch.ones(3, 4)])
    expected = float(model(packed)[0].data.detach().square().sum()) / 2
    assert plan.activity_breakdown()["GRU"] == pytest.approx(expected)
    expected = float(model(torch.ones(5, 4))[0].detach().square().sum())
    assert plan.activity_breakdown()["GRU"] == pytest.approx(expected)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_planned_output_is_not_scripted() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    plan = regularize(model, activities={of_type(nn.ReLU): L1(1.0)})
    x = torch.ones(2, 4)
    traced = torch.jit.trace(model, x)
    torch.testing.assert_close(traced(x), model(x))
    with pytest.raises(NotScriptedError, match=r"'1'.*remove_activities\(\)") as raised:
        torch.jit.script(model)
    assert isinstance(raised.value, ActivityError)
    plan.remove_activities()
    torch.testing.assert_close(torch.jit.script(model)(x), model(x))


def test_adamw_beside_an_l1_is_no_conflict_after_a_tie() -> None:
    """What is looked at in each step are the weights as they are tied now."""
    model = Tied()
    optimizer = AdamW(model.parameters(), lr=0.1)
    regularize(model, {kernels: L1(0.1)}).attach(optimizer)
    tie(model)
    optimizer.step()
