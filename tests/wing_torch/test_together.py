"""Groups that span parameters: as if what a unit has in each were one row of one weight."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from penalize import L1, L2, GroupLasso, Regularizer, SparseGroupLasso, blocks, kernels, log, warmup
from penalize.errors import (
    AppliedTwiceError,
    ConflictError,
    GroupsError,
    ModeError,
    ModelError,
    NoMatchError,
    NoProximalOperatorError,
    OptimizerError,
    PenalizeError,
    ReplacedParameterError,
    RulesError,
    StateError,
)
from penalize.torch import (
    Plan,
    Training,
    audit,
    declare,
    path,
    regularize,
    scope,
    strength_max,
)
from penalize.torch.kernels import at_any_size
from penalize.torch.modes.base import check_can_be_set
from penalize.torch.modes.decoupled import Decoupled

LASSO = GroupLasso(0.05)
MEMBERS = {
    "a": "outputs",
    "b.weight": blocks("inputs", 4),
    "g.weight": (0, [[i, i + 4] for i in range(4)]),
}


class Parts(nn.Module):
    """Four units: rows and biases of one layer, neighbouring columns of another, and the rows of
    two gates that lie in one weight.
    """

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Linear(3, 4)
        self.b = nn.Linear(8, 2, bias=False)
        self.g = nn.Linear(2, 8)
        self.double()

    def units(self) -> Tensor:
        """By hand: a row for each unit."""
        a, b, g = self.a.weight, self.b.weight, self.g.weight
        each = [
            torch.cat([a[i], self.a.bias[[i]], b[:, 2 * i], b[:, 2 * i + 1], g[i], g[i + 4]])
            for i in range(4)
        ]
        return torch.stack(each)


class Whole(nn.Module):
    """The same numbers, as one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(Parts().units().detach().clone())
        self.rest = nn.Parameter(Parts().g.bias.detach().clone())

    def units(self) -> Tensor:
        return self.w


def loss(model: Any) -> Tensor:
    """Two of the four units do nothing."""
    generator = torch.Generator().manual_seed(1)
    wanted = torch.randn(4, 12, generator=generator, dtype=torch.float64)
    wanted[[1, 3]] *= 0.01
    units = model.units()
    rest = model.rest if isinstance(model, Whole) else model.g.bias
    return (units - wanted).square().sum() + units.sum() * rest.sum() * 0.01 + rest.square().sum()


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.5),
    "Adam": lambda p: torch.optim.Adam(p, lr=0.05),
}
MODES = ("loss", "gradient", "decoupled", "proximal", "halfspace")
REGULARIZERS: dict[str, Regularizer] = {
    "group lasso": GroupLasso(0.1),
    "sums": SparseGroupLasso(0.1) + L2(0.01),
    "a schedule": GroupLasso(0.1) * warmup(5),
}


def trained(model: nn.Module, plan: Plan, optimizer: Any, mode: str, steps: int = 12) -> Any:
    attachment = None if mode == "loss" else plan.attach(optimizer, mode=mode)
    for _ in range(steps):
        optimizer.zero_grad()
        (loss(model) + (plan.penalty() if attachment is None else 0.0)).backward()
        optimizer.step()
    return attachment


@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("mode", MODES)
def test_as_one_weight(mode: str, optimizer: str, regularizer: str) -> None:
    omega: Any = REGULARIZERS[regularizer]
    parts, whole = Parts(), Whole()
    plans = (
        regularize(parts, {"g.bias": L1(0.01)}, together={"unit": (omega, MEMBERS)}),
        regularize(whole, {"w": omega, "rest": L1(0.01)}),
    )
    for model, plan in zip((parts, whole), plans, strict=True):
        trained(model, plan, OPTIMIZERS[optimizer](model.parameters()), mode)
    torch.testing.assert_close(parts.units(), whole.w, rtol=1e-12, atol=1e-12)
    assert (parts.units() == 0).equal(whole.w == 0)
    torch.testing.assert_close(parts.g.bias, whole.rest, rtol=1e-12, atol=1e-12)
    assert plans[0].penalty().item() == pytest.approx(plans[1].penalty().item(), rel=1e-12)
    if (mode, optimizer, regularizer) == ("proximal", "SGD", "group lasso"):
        assert (whole.w == 0).all(1).tolist() == [False, True, False, True]


def test_groups_of_each_parameter_are_others() -> None:
    """A group lasso on each parameter alone leaves units alive in one, and not in another."""
    parts = Parts()
    rules = {
        "a.weight": LASSO,
        "a.bias": LASSO,
        "b.weight": GroupLasso(0.05, groups=blocks("inputs", 4)),
        "g.weight": LASSO,
    }
    plan = regularize(parts, rules)
    assert plan.penalty().item() != pytest.approx(plan_of(parts).penalty().item())
    plan = plan.scaled(20.0)
    trained(parts, plan, OPTIMIZERS["SGD"](parts.parameters()), "proximal")
    zeros = parts.units() == 0
    assert (zeros.any(1) & ~zeros.all(1)).any()


@pytest.mark.parametrize("mode", ["proximal", "halfspace"])
def test_kernels_as_the_reference(mode: str) -> None:
    """From a million weights on; here at any size."""
    found = []
    for fast in (False, True):
        model = Parts()
        plan = regularize(model, together={"unit": (LASSO, MEMBERS)})
        optimizer = OPTIMIZERS["Adam"](model.parameters())
        if fast:
            with at_any_size():
                attachment = trained(model, plan, optimizer, mode)
            (route,) = attachment.explain()
            assert route.path == "compiled"
        else:
            trained(model, plan, optimizer, mode)
        found.append(model.units().detach())
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)
    assert (found[0] == 0).equal(found[1] == 0)


def test_each_member_by_its_own_step() -> None:
    """Members in two param groups: one step for each element, as the reference takes them."""
    model = Parts()
    plan = regularize(model, together={"unit": (GroupLasso(0.5), MEMBERS)})
    rest = [p for name, p in model.named_parameters() if name != "a.weight"]
    optimizer = torch.optim.SGD([{"params": [model.a.weight], "lr": 0.3}, {"params": rest}], lr=0.1)
    plan.attach(optimizer, mode="proximal")
    before = model.units().detach()
    optimizer.zero_grad()
    (0.0 * loss(model)).backward()
    optimizer.step()
    steps = torch.full_like(before, 0.1)
    steps[:, :3] = 0.3
    torch.testing.assert_close(model.units(), GroupLasso(0.5, groups=0).prox(before, steps))
    one = GroupLasso(0.5, groups=0).prox(before, 0.1)
    assert not torch.allclose(model.units(), one)


@pytest.mark.parametrize("way", ["clip", "line search", "closure", "average"])
def test_other_ways_to_step(way: str) -> None:
    """As one weight: clipped with it, in a line search, in a closure, and with an average."""
    found = []
    for model in (Parts(), Whole()):
        plan = plan_of(model) if isinstance(model, Parts) else regularize(model, {"w": LASSO})

        def closure(model: Any = model) -> Tensor:
            model.zero_grad()
            value = loss(model)
            value.backward()
            return value

        if way == "line search":
            optimizer: Any = torch.optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe")
            plan.attach(optimizer)
        else:
            optimizer = OPTIMIZERS["SGD"](model.parameters())
            mode = {"clip": "gradient", "closure": "halfspace"}.get(way, "proximal")
            options = {"clip": {"clip": "with"}, "average": {"average": 0.9}}.get(way, {})
            plan.attach(optimizer, mode=mode, **options)  # type: ignore[arg-type]
        for _ in range(3):
            if way in ("line search", "closure"):
                optimizer.step(closure)
                continue
            closure()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        found.append(model.units().detach())
    # The curvature of L-BFGS is of sums in another order.
    within = 1e-9 if way == "line search" else 1e-12
    torch.testing.assert_close(*found, rtol=within, atol=within)


def test_a_path() -> None:
    """One strength after the other, since groups that span parameters are not stacked."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    members = {"0": "outputs", "2.weight": "inputs"}
    plan = regularize(model, together={"hidden": (GroupLasso(1.0), members)})
    fit = Training(
        x=torch.randn(12, 3),
        y=torch.randn(12, 1),
        loss=nn.MSELoss(),
        optimizer=partial(torch.optim.SGD, lr=0.1),
        epochs=2,
    )
    found = path(fit, plan, strengths=[100.0, 1e-3], folds=2)
    assert "groups span some" in str(found)
    assert [row.nonzero for row in found.rows] == [0] * 3 + [20] * 3  # two folds, and all data


@pytest.mark.parametrize("mode", ["decoupled", "proximal", "halfspace"])
def test_a_step_that_a_scaler_skips(mode: str) -> None:
    model = Parts()
    plan = regularize(model, together={"unit": (LASSO, MEMBERS)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    plan.attach(optimizer, mode=mode)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(2.0), torch.tensor(1.0)  # type: ignore[attr-defined]
    before = model.units().detach()
    loss(model).backward()
    optimizer.step()
    assert model.units().equal(before)
    optimizer.found_inf = torch.tensor(0.0)  # type: ignore[attr-defined]
    optimizer.zero_grad()
    loss(model).backward()
    optimizer.step()
    assert not model.units().equal(before)


@pytest.mark.parametrize("mode", MODES)
def test_parts_of_one_parameter(mode: str) -> None:
    """In several groups, some of it in none: each is moved by its own, and audited alone."""
    model = nn.Linear(4, 6).double()
    together = {
        "first": (GroupLasso(0.2), {"weight": (0, range(2)), "bias": (0, [0, 1])}),
        "last": (GroupLasso(0.3), {"weight": (0, [5, 4])}),
    }
    plan = regularize(model, together=together)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if mode != "loss":
        plan.attach(optimizer, mode=mode)
    x = torch.eye(4, dtype=torch.float64)

    def data() -> Tensor:
        return model(x).square().sum() + (plan.penalty() if mode == "loss" else 0.0)

    def step() -> None:
        optimizer.zero_grad()
        data().backward()
        optimizer.step()

    alone = copy.deepcopy(model)
    step()
    with torch.no_grad():
        middle = alone.weight - 0.2 * (alone.weight + alone.bias[:, None])
    torch.testing.assert_close(model.weight[2:4], middle[2:4])
    assert not torch.allclose(model.weight[:2], middle[:2])
    report = audit(data if mode == "loss" else step, plan)
    assert [(row.name, row.factor) for row in report.rows] == [
        ("first", pytest.approx(1.0)),
        ("last", pytest.approx(1.0)),
    ]


# --- the plan -----------------------------------------------------------------------------------


def plan_of(model: nn.Module | None = None, rules: Any = None) -> Plan:
    return regularize(model or Parts(), rules, together={"unit": (LASSO, MEMBERS)})


def test_one_row_for_each_parameter() -> None:
    plan = plan_of(rules={kernels: L2(1e-4)})
    assert [(row.name, row.regularizer, row.together) for row in plan.rows] == [
        ("a.weight", None, ("unit",)),
        ("a.bias", None, ("unit",)),
        ("b.weight", None, ("unit",)),
        ("g.weight", None, ("unit",)),
        ("g.bias", None, ()),
    ]
    assert "overrides L2(0.0001) by rule kernels" in plan.rows[0].note
    (group,) = plan.together
    assert (group.name, group.shape, group.regularizer) == ("unit", (4, 12), LASSO)
    assert group.note.endswith(
        "a.weight[i, :], a.bias[i], b.weight[:, 2i:2i+2], g.weight[[i, i+4], :]"
    )
    assert plan.breakdown().keys() == {"unit"}  # counted once
    assert plan.breakdown()["unit"] == pytest.approx(plan.penalty().item())
    text = str(plan)
    assert "in 'unit'; overrides L2(0.0001)" in text
    assert "4 of 5 parameters penalized" in text
    assert re.search(r"'unit' +4×12 +GroupLasso\(0.05\)", text)
    assert log(plan)["groups/together_unit"] == 4
    assert repr(plan) == "<Plan: 4 of 5 parameters penalized>"


def test_what_a_plan_can() -> None:
    """Copies, multiples, the strength that leaves nothing, compiled penalties."""
    model = Parts()
    plan = plan_of(model)
    for other in (copy.deepcopy(plan), pickle.loads(pickle.dumps(plan))):
        assert other.penalty().item() == plan.penalty().item()
        assert other.together == plan.together
    assert torch.compile(plan.penalty, backend="eager", fullgraph=True)().item() == pytest.approx(
        plan.penalty().item()
    )
    plan.applied.detached = True
    assert plan.scaled(2.0).penalty().item() == pytest.approx(2 * plan.penalty().item())
    whole = Whole()
    wanted = strength_max(lambda: loss(whole), regularize(whole, {"w": LASSO}))
    assert strength_max(lambda: loss(model), plan) == pytest.approx(wanted)


def test_balance_is_that_of_all_members() -> None:
    model, whole = Parts(), Whole()
    found = []
    for each, plan in ((model, plan_of(model)), (whole, regularize(whole, {"w": LASSO}))):
        loss(each).backward()
        (row,) = plan.balance(learning_rate=0.1).rows
        found.append((row.data_gradient, row.penalty_gradient, row.shrinkage))
    assert found[0] == pytest.approx(found[1])


def test_explain() -> None:
    model = Parts()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attachment = plan_of(model).attach(optimizer)
    (route,) = attachment.explain()
    assert (route.path, route.why) == (
        "plain",
        "its groups span parameters, which are copied into one matrix",
    )


def test_members_that_are_computed() -> None:
    """Through the gradient, and in the loss; they cannot be set."""
    model = Parts()
    parametrizations.weight_norm(model.a, "weight")
    plan = plan_of(model)
    assert plan.penalty().item() == pytest.approx(plan_of().penalty().item())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(PenalizeError, match="is computed from other parameters"):
        plan.attach(optimizer, mode="proximal")
    plan.attach(optimizer)
    loss(model).backward()
    wanted = torch.autograd.grad(loss(model) + plan.penalty().detach(), model.a.bias)
    optimizer.step()
    assert not model.a.bias.grad.equal(wanted[0])


def test_resumed() -> None:
    """With the averages of half-space steps; another set of members is another penalty."""
    model = Parts()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    attachment = trained(model, plan_of(model), optimizer, "halfspace", steps=3)
    state = copy.deepcopy(attachment.state_dict())
    assert state["averages"][0]["unit"]["mean"].shape == (4, 12)
    again = copy.deepcopy(model)
    later = torch.optim.SGD(again.parameters(), lr=0.1)
    resumed = plan_of(again).attach(later, mode="halfspace")
    resumed.load_state_dict(state)
    for each, its in ((model, optimizer), (again, later)):
        its.zero_grad()
        loss(each).backward()
        its.step()
    assert again.units().equal(model.units())
    other = Parts()
    less = {name: axis for name, axis in MEMBERS.items() if name != "b.weight"}
    plan = regularize(other, together={"unit": (LASSO, less)})
    taken = plan.attach(torch.optim.SGD(other.parameters(), lr=0.1), mode="halfspace")
    with pytest.raises(StateError, match="here their members are others"):
        taken.load_state_dict(state)


def test_an_l2_in_a_group_beside_weight_decay() -> None:
    model = Parts()
    plan = regularize(model, together={"unit": (LASSO + L2(0.1), MEMBERS)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    with pytest.raises(AppliedTwiceError, match="'unit'"):
        plan.attach(optimizer)


# --- what is refused ----------------------------------------------------------------------------


def refused(
    error: type[PenalizeError], match: str, members: Any, regularizer: Any = LASSO, **kwargs: Any
) -> None:
    with pytest.raises(error, match=match):
        regularize(Parts(), together={"unit": (regularizer, members)}, **kwargs)


def test_what_is_no_mapping() -> None:
    for wrong in ([LASSO], {"unit": LASSO}, {"unit": (LASSO, {})}, {"unit": (LASSO, "a")}):
        with pytest.raises(RulesError, match=r"together.*expected a mapping from the name"):
            regularize(Parts(), together=wrong)  # type: ignore[arg-type]
    refused(RulesError, "together", MEMBERS, regularizer=None)
    for name in ("a.weight", "", 3):
        with pytest.raises(RulesError, match="a group called"):
            regularize(Parts(), together={name: (LASSO, MEMBERS)})  # type: ignore[dict-item]


def test_members_that_do_not_fit() -> None:
    refused(NoMatchError, "together 'unit'.*nearest", {"a.weigth": 0})
    refused(GroupsError, "no single axis holds the inputs", {"a.bias": "inputs"})
    refused(GroupsError, "no such axis", {"a.weight": 2})
    refused(GroupsError, "units lie along one axis", {"a.weight": (0, 1, 2)})
    refused(GroupsError, "does not fall into 3 equal blocks", {"a.weight": blocks(0, 3)})
    refused(GroupsError, "'a.weight' has 4 units there, and 'b.weight' 8", {"a": 0, "b.weight": 1})
    refused(GroupsError, "has selected it already", {"a": 0, "a.weight": 0})
    refused(GroupsError, "no positions along an axis", {"a.weight": (0, [0.5])})
    refused(GroupsError, "different numbers of positions", {"a.weight": (0, [[0, 1], [2]])})
    refused(GroupsError, "stands there twice", {"a.weight": (0, [0, 0])})
    refused(GroupsError, "go from 0 to 4, and the axis has 4", {"a.weight": (0, range(5))})
    refused(GroupsError, "no single axis holds the inputs", MEMBERS, GroupLasso(1.0, "inputs"))
    lazy = nn.Sequential(nn.LazyLinear(3))
    with pytest.raises(ModelError, match="is lazy and has no values yet"):
        regularize(lazy, together={"unit": (LASSO, {"0.weight": 0})})


def test_elements_in_two_groups() -> None:
    for second in ({"a.weight": (0, [3])}, {"a.weight": 1}):
        together = {"unit": (LASSO, MEMBERS), "other": (LASSO, second)}
        with pytest.raises(GroupsError, match=r"'a\.weight' has elements in it .*'unit'"):
            regularize(Parts(), together=together)


def test_beside_other_declarations() -> None:
    model = Parts()
    declare(model.a.weight, L1(0.1))
    with pytest.raises(ConflictError, match=r"'a.weight' are one parameter.*declare.*together"):
        plan_of(model)
    with scope(None):
        exempt = Parts()
    with pytest.raises(ConflictError, match="scope"):
        plan_of(exempt)
    some = {"a.weight": (0, [0, 1])}
    refused(GroupsError, "a part of 'a.weight' is in it, and a rule says", some, rules=L2(0.1))
    assert len(regularize(Parts(), {"a.weight": None}, together={"u": (LASSO, some)}).together) == 1


def test_frozen_members() -> None:
    model = Parts()
    plan = plan_of(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plan.attach(optimizer, mode="proximal")
    model.a.bias.requires_grad_(False)
    for found in (lambda: plan_of(model), plan.penalty):
        with pytest.raises(ModelError, match=r"'a\.bias' is frozen, and 'a\.weight' is not"):
            found()
    loss(model).backward()
    with pytest.raises(ModelError, match=r"'a\.bias' is frozen"):
        optimizer.step()
    frozen = Parts()
    for p in frozen.parameters():
        p.requires_grad_(False)
    skipped = plan_of(frozen)  # all of them: followed when they are unfrozen
    assert "skipped: frozen (GroupLasso(0.05) when trainable)" in skipped.together[0].note
    assert skipped.penalty().item() == 0
    for p in frozen.parameters():
        p.requires_grad_(True)
    assert skipped.penalty().item() > 0


def test_members_that_are_tied_later() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    plan = regularize(model, together={"unit": (LASSO, {"0.weight": 0, "1.weight": 1})})
    model[1].weight = model[0].weight
    with pytest.raises(ModelError, match=r"'1\.weight' and '0\.weight'.*were tied after"):
        plan.penalty()
    with pytest.raises(GroupsError, match="has selected it already"):
        regularize(model, together={"unit": (LASSO, {"0.weight": 0, "1.weight": 1})})


def test_a_member_of_another_shape() -> None:
    model = Parts()
    plan = plan_of(model)
    model.a.weight = nn.Parameter(model.a.weight.detach().T.clone())
    with pytest.raises(ModelError, match=r"'a\.weight'.*\(3, 4\), and had \(4, 3\)"):
        plan.penalty()


def test_optimizers_that_hold_some_members() -> None:
    model = Parts()
    plan = plan_of(model)
    first = torch.optim.SGD(model.a.parameters(), lr=0.1)
    others = torch.optim.SGD([*model.b.parameters(), *model.g.parameters()], lr=0.1)
    for given in (first, [first, others]):
        with pytest.raises(OptimizerError, match="'unit' spans parameters that no one of"):
            plan.attach(given)
    every = torch.optim.SGD(model.parameters(), lr=0.1)
    plan.attach(every)
    model.a.weight = nn.Parameter(model.a.weight.detach().clone())
    loss(model).backward()
    with pytest.raises(ReplacedParameterError, match="'unit'"):
        every.step()


def test_a_prox_that_is_not_known_for_steps_of_their_own() -> None:
    """Two param groups may have two learning rates at any time."""

    class Rows(GroupLasso):
        def _why_not_prox(self, per_element: bool) -> str:
            return "it is not" if per_element else ""

    for groups in (1, 2):
        model = Parts()
        plan = regularize(model, together={"unit": (Rows(0.1), MEMBERS)})
        parameters = [*model.parameters()]
        held = [{"params": parameters[:groups]}, {"params": parameters[groups:]}]
        optimizer = torch.optim.SGD(held if groups == 2 else parameters, lr=0.1)
        if groups == 1:
            plan.attach(optimizer, mode="proximal")
        else:
            with pytest.raises(NoProximalOperatorError, match="'unit' under SGD"):
                plan.attach(optimizer, mode="proximal")


def test_a_mode_that_knows_one_parameter() -> None:
    class Mine(Decoupled):
        name = "mine"
        spans = False

    (target,) = plan_of().all_targets
    with pytest.raises(ModeError, match=r"'mine' acts on one parameter.*'unit' spans several"):
        check_can_be_set(Mine(), target)


def test_half_precision_is_warned_of() -> None:
    model = Parts().bfloat16()
    plan = regularize(model, together={"unit": (GroupLasso(1e-3), MEMBERS)})
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    with pytest.warns(match="'unit': in half precision"):
        plan.attach(optimizer, mode="proximal")
