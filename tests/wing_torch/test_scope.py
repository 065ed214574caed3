"""``scope`` and ``declare``: what is heard, what wins, what survives, what is refused."""

from __future__ import annotations

import copy
import io
import pickle
import re
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from penalize import (
    L1,
    L2,
    ConflictError,
    GroupLasso,
    ModelError,
    NoMatchError,
    Regularizer,
    RulesError,
    SelectorError,
    biases,
    everything,
    kernels,
    named,
    norms,
    of_type,
    where,
)
from penalize.plan import Row
from penalize.torch import declare, regularize, scope


def rows_of(model: nn.Module, rules: Any = None) -> dict[str, Row]:
    return {row.name: row for row in regularize(model, rules).rows}


def penalized(model: nn.Module, rules: Any = None) -> dict[str, Regularizer]:
    rows = regularize(model, rules).rows
    return {row.name: row.regularizer for row in rows if row.regularizer is not None}


def pair() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))


# --- what a scope says --------------------------------------------------------------------------


def test_a_scope_declares_for_what_is_built_inside() -> None:
    before = nn.Linear(2, 2)
    with scope(L2(0.1)):
        inside = nn.Linear(2, 2)
    after = nn.Linear(2, 2)
    model = nn.Sequential(before, inside, after)
    assert penalized(model) == {"1.weight": L2(0.1)}
    assert penalized(model, L1(0.2)) == {
        "0.weight": L1(0.2),
        "1.weight": L2(0.1),
        "2.weight": L1(0.2),
    }


def test_a_scope_takes_rules() -> None:
    with scope({kernels: L2(0.1), biases: L1(0.2), "1.bias": None, of_type(nn.LayerNorm): None}):
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert penalized(model) == {"0.weight": L2(0.1), "1.weight": L2(0.1), "0.bias": L1(0.2)}


def test_a_scope_takes_pairs_and_later_ones_win() -> None:
    with scope([(kernels, L2(0.1)), ("0", L1(0.2))]):
        model = pair()
    assert penalized(model) == {"0.weight": L1(0.2), "1.weight": L2(0.1)}


def test_names_in_a_scope_are_those_of_the_whole_model() -> None:
    with scope({"net.0": L1(0.1), "**.1": L2(0.1)}):
        net = pair()
    model = nn.ModuleDict({"net": net, "other": pair()})
    assert penalized(model) == {"net.0.weight": L1(0.1), "net.1.weight": L2(0.1)}


def test_an_inner_scope_overrides_an_outer_one() -> None:
    with scope(L2(0.1)):
        a = nn.Linear(2, 2)
        with scope(L1(0.2)):
            b = nn.Linear(2, 2)
            with scope(L2(0.3)):
                c = nn.Linear(2, 2)
        d = nn.Linear(2, 2)
    found = penalized(nn.Sequential(a, b, c, d))
    assert list(found.values()) == [L2(0.1), L1(0.2), L2(0.3), L2(0.1)]


def test_an_inner_scope_leaves_what_it_does_not_speak_of() -> None:
    with scope({kernels: L2(0.1), biases: L2(0.2)}), scope({biases: L1(0.3)}):
        model = nn.Linear(2, 2)
    assert penalized(model) == {"weight": L2(0.1), "bias": L1(0.3)}


def test_none_exempts() -> None:
    with scope(L2(0.1)):
        a = nn.Linear(2, 2)
        with scope(None):
            b = nn.Linear(2, 2)
            with scope(L1(0.3)):
                c = nn.Linear(2, 2)
    model = nn.Sequential(a, b, c)
    assert penalized(model) == {"0.weight": L2(0.1), "2.weight": L1(0.3)}
    # Exempt from rules of every role, too.
    assert set(penalized(model, {everything: L1(0.2)})) == {
        "0.weight",
        "0.bias",
        "2.weight",
    }


def test_a_scope_that_exempts_some_by_a_row() -> None:
    with scope({"1": None}):
        model = pair()
    assert penalized(model, {everything: L2(0.1)}) == {"0.weight": L2(0.1), "0.bias": L2(0.1)}


def test_an_empty_scope_says_nothing() -> None:
    with scope({}):
        model = pair()
    assert penalized(model) == {}
    assert set(penalized(model, L2(0.1))) == {"0.weight", "1.weight"}


def test_a_scope_on_a_shared_module_counts_once() -> None:
    with scope(L2(0.1)):
        layer = nn.Linear(2, 2)
    model = nn.Sequential(layer, layer)
    assert penalized(model) == {"0.weight": L2(0.1)}


def test_words_of_groups_are_resolved_by_the_plan() -> None:
    with scope(GroupLasso(1.0, groups="inputs")):
        model = nn.ConvTranspose1d(3, 2, 4)
    expected = (2 * 4) ** 0.5 * model.weight.detach().flatten(1).norm(dim=1).sum()
    assert regularize(model).penalty().item() == pytest.approx(expected.item(), rel=1e-5)


def test_lazy_parameters_hear_the_scope_they_are_built_in() -> None:
    with scope(L2(0.5)):
        model = nn.Sequential(nn.LazyLinear(2))
    with scope(None):
        model(torch.ones(1, 3))
    assert penalized(model) == {"0.weight": L2(0.5)}


# --- who wins -----------------------------------------------------------------------------------


def test_the_order_of_precedence() -> None:
    """declare > inner scope > outer scope > rules, however specific the weaker ones are."""
    with scope({kernels: L2(0.2), "0.weight": L2(0.25)}):
        model = nn.Sequential(nn.Linear(2, 2))
        outer = copy.deepcopy(model)
        with scope({kernels: L2(0.3)}):
            model[0] = nn.Linear(2, 2)
            inner = copy.deepcopy(model)
    declare(model[0].weight, L2(0.4))
    rules = {kernels: L2(0.1), "0.weight": L2(0.15)}
    assert penalized(outer, rules) == {"0.weight": L2(0.25)}
    assert penalized(inner, rules) == {"0.weight": L2(0.3)}
    assert penalized(model, rules) == {"0.weight": L2(0.4)}


def test_the_table_shows_who_won_and_whom_that_overrode() -> None:
    with scope(L2(0.2)), scope(L1(0.3)):
        model = nn.Linear(2, 2)
    declare(model.weight, L2(0.4))
    row = rows_of(model, {kernels: L2(0.1)})["weight"]
    here = r"test_scope\.py:\d+"
    assert row.regularizer == L2(0.4)
    assert_matches(row.declared_at, rf"declare \({here}\)")
    assert_matches(
        row.note,
        rf"overrides L2\(0\.1\) by rule kernels \({here}\), "
        rf"L2\(0\.2\) by scope kernels \({here}\), L1\(0\.3\) by scope kernels \({here}\)",
    )
    assert row.declared_at in str(regularize(model))
    assert "overrides" in str(regularize(model))


def assert_matches(text: str, pattern: str) -> None:
    assert re.fullmatch(pattern, text), text


def test_each_declaration_is_shown_with_its_own_line() -> None:
    with scope(L2(0.2)):
        model = pair()
    with scope({biases: L1(0.1)}):
        model.append(nn.Linear(2, 2))
    declare(model[1].weight, None)
    rows = rows_of(model)
    places = [rows[name].declared_at for name in ("0.weight", "1.weight", "2.bias")]
    lines = [int(place.rpartition(":")[2].strip(")")) for place in places]
    first = test_each_declaration_is_shown_with_its_own_line.__code__.co_firstlineno
    assert [line - first for line in lines] == [1, 5, 3]


def test_an_exemption_is_shown() -> None:
    with scope(None):
        model = nn.Linear(2, 2)
    row = rows_of(model, L2(0.1))["weight"]
    assert row.regularizer is None
    assert_matches(row.declared_at, r"scope \(test_scope\.py:\d+\)")
    assert_matches(row.note, r"overrides L2\(0\.1\) by rule kernels \(test_scope\.py:\d+\)")


def test_a_recursive_builder_does_not_override_itself() -> None:
    @scope(L2(0.1))
    def build(depth: int) -> nn.Module:
        layer = nn.Linear(2, 2)
        return nn.Sequential(layer, build(depth - 1)) if depth else layer

    rows = rows_of(build(2)).values()
    assert [row.regularizer for row in rows] == [L2(0.1), None] * 3
    assert [row.note for row in rows] == [""] * 6


# --- where a scope begins and ends --------------------------------------------------------------


def test_a_scope_as_a_decorator() -> None:
    @scope(L2(0.1))
    def build() -> nn.Module:
        return nn.Linear(2, 2)

    for _ in range(2):
        assert penalized(build()) == {"weight": L2(0.1)}
    assert penalized(nn.Linear(2, 2)) == {}


def test_a_scope_as_a_decorator_of_a_constructor() -> None:
    class Head(nn.Module):
        @scope({kernels: L1(0.1)})
        def __init__(self) -> None:
            super().__init__()
            self.dense = nn.Linear(2, 2)

    assert penalized(nn.Sequential(Head(), nn.Linear(2, 2))) == {"0.dense.weight": L1(0.1)}


def test_an_exception_ends_the_scope() -> None:
    with scope(L2(0.1)):
        with pytest.raises(ZeroDivisionError), scope(L1(0.2)):
            raise ZeroDivisionError
        inside = nn.Linear(2, 2)
    with pytest.raises(ZeroDivisionError), scope(L1(0.2)):
        raise ZeroDivisionError
    assert penalized(inside) == {"weight": L2(0.1)}
    assert penalized(nn.Linear(2, 2)) == {}


def test_a_scope_does_not_reach_other_models_or_other_rules() -> None:
    other = nn.Linear(2, 2)
    with scope(L2(0.1)):
        model = nn.Linear(2, 2)
        assert penalized(other) == {}
        assert penalized(other, L1(0.3)) == {"weight": L1(0.3)}
        assert penalized(model, {"bias": L1(0.3)}) == {"weight": L2(0.1), "bias": L1(0.3)}


def test_a_parameter_that_is_set_inside_a_scope_hears_it() -> None:
    model = pair()
    with scope(L2(0.1)):
        model[0].weight = nn.Parameter(torch.ones(2, 2))
        model[1].register_parameter("extra", nn.Parameter(torch.ones(2, 2)))
        model[1].register_parameter("nothing", None)
    assert penalized(model) == {"0.weight": L2(0.1), "1.extra": L2(0.1)}


def test_moving_a_module_is_no_building() -> None:
    layer = nn.Linear(2, 2)
    with scope(L2(0.1)):
        model = nn.Sequential(layer)
        model.double().train().requires_grad_(True)
    assert penalized(model) == {}


def test_a_scope_is_not_heard_in_another_thread() -> None:
    built: list[nn.Module] = []
    with scope(L2(0.1)):
        thread = threading.Thread(target=lambda: built.append(nn.Linear(2, 2)))
        thread.start()
        thread.join()
        built.append(nn.Linear(2, 2))
    assert penalized(nn.Sequential(*built)) == {"1.weight": L2(0.1)}


def test_two_threads_build_in_their_own_scopes_at_once() -> None:
    barrier = threading.Barrier(2, timeout=60)
    built: dict[int, list[nn.Module]] = {1: [], 2: []}

    def build(number: int) -> None:
        for _ in range(20):
            barrier.wait()
            with scope(L2(float(number))):
                barrier.wait()  # both are inside now
                built[number].append(nn.Linear(2, 2))
                barrier.wait()
            built[number].append(nn.Linear(2, 2))

    threads = [threading.Thread(target=build, args=(number,)) for number in built]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, modules in built.items():
        found = [row.regularizer for row in regularize(nn.Sequential(*modules)).rows]
        assert found == [L2(float(number)), None, None, None] * 20


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "error", "message"),
    [
        (0.1, RulesError, r"Write L2\(0\.1\)"),
        (L2, RulesError, r"Write L2\(1e-4\)"),
        ("encoder", RulesError, "The rules are 'encoder', a str"),
        ({"encoder": 0.1}, RulesError, "The rule for 'encoder' is 0.1, a float"),
        ({nn.Linear: L2(0.1)}, SelectorError, r"write of_type\(Linear\)"),
        ({"": L2(0.1)}, SelectorError, "is not a name"),
    ],
)
def test_malformed_rules_are_refused_where_they_are_written(
    rules: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        scope(rules)


def test_a_typo_in_a_scope_is_found_when_the_model_is_known() -> None:
    with scope({"encoder": L2(0.1), "heda": L1(0.1)}):
        model = nn.ModuleDict({"encoder": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    with pytest.raises(NoMatchError) as raised:
        regularize(model)
    assert_matches(
        str(raised.value),
        r"named\('heda'\) \(in scope 'heda' \(test_scope\.py:\d+\)\) matches no parameter\. "
        r"The nearest names are 'head'.*\.",
    )


def test_a_name_that_is_outside_of_the_scope_is_no_match() -> None:
    with scope({"1": L2(0.1)}):
        layer = nn.Linear(2, 2)
    with pytest.raises(NoMatchError, match=r"named\('1'\) \(in scope '1'"):
        regularize(nn.Sequential(layer, nn.Linear(2, 2)))


def test_roles_and_types_that_are_absent_from_a_scope_are_no_typo() -> None:
    with scope({norms: L2(0.1), of_type(nn.Conv2d): L2(0.1), where(lambda p: p.size > 99): L1(1)}):
        model = nn.Linear(2, 2)
    assert penalized(model) == {}


def test_a_scope_whose_only_name_has_no_kernel() -> None:
    with scope({"norm": L2(0.1)}):
        model = nn.ModuleDict({"norm": nn.LayerNorm(2), "dense": nn.Linear(2, 2)})
    with pytest.raises(NoMatchError, match="acts on kernels only, and it covers none"):
        regularize(model)


# --- ties ---------------------------------------------------------------------------------------


def tied(first: Any, second: Any) -> nn.Module:
    """Two layers, each built in its own scope, with one weight."""
    with scope(first):
        a = nn.Linear(2, 2)
    with scope(second):
        b = nn.Linear(2, 2)
        b.weight = a.weight
    return nn.ModuleDict({"a": a, "b": b})


def test_a_tied_parameter_in_two_scopes_that_disagree() -> None:
    with pytest.raises(ConflictError) as raised:
        regularize(tied(L2(0.1), L1(0.2)))
    text = str(raised.value)
    assert text.startswith("'a.weight' and 'b.weight' are one tied parameter")
    assert "L2(0.1) by scope kernels (test_scope.py:" in text
    assert "L1(0.2) by scope kernels (test_scope.py:" in text


def test_a_tied_parameter_in_a_scope_that_exempts_it() -> None:
    with pytest.raises(ConflictError, match=r"None by scope \(test_scope\.py"):
        regularize(tied(L2(0.1), None))


def test_a_tied_parameter_in_two_scopes_that_agree() -> None:
    model = tied(L2(0.1), {kernels: L2(0.1)})
    assert penalized(model) == {"a.weight": L2(0.1)}
    expected = 0.1 * model["a"].weight.pow(2).sum().item()
    assert regularize(model).penalty().item() == pytest.approx(expected)


def test_a_tied_parameter_in_a_scope_and_outside_of_any() -> None:
    with scope(L2(0.1)):
        a = nn.Linear(2, 2)
    b = nn.Linear(2, 2)
    b.weight = a.weight
    assert penalized(nn.ModuleDict({"b": b, "a": a})) == {"b.weight": L2(0.1)}


def test_declaring_a_tied_parameter_settles_what_its_scopes_disagree_on() -> None:
    model = tied(L2(0.1), L1(0.2))
    declare(model["b"].weight, L2(0.3))
    assert penalized(model) == {"a.weight": L2(0.3)}


def test_declarations_that_were_tied_later_and_disagree() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    declare(model["a"].weight, L2(0.1))
    declare(model["b"].weight, L1(0.2))
    model["b"].weight = model["a"].weight
    with pytest.raises(ConflictError, match=r"L2\(0\.1\) by declare .*, L1\(0\.2\) by declare"):
        regularize(model)
    declare(model["a"].weight, L1(0.2))  # reaches both holders
    assert penalized(model) == {"a.weight": L1(0.2)}


# --- declare ------------------------------------------------------------------------------------


def test_declare_one_parameter() -> None:
    model = pair()
    declare(model[0].weight, L1(0.1))
    declare(model[1].bias, L2(0.2))
    assert penalized(model) == {"0.weight": L1(0.1), "1.bias": L2(0.2)}


def test_declare_none_exempts() -> None:
    model = pair()
    declare(model[0].weight, None)
    assert penalized(model, {everything: L2(0.1), "0.weight": L1(1.0)}).keys() == {
        "0.bias",
        "1.weight",
        "1.bias",
    }


def test_a_later_declaration_replaces_an_earlier_one() -> None:
    model = pair()
    declare(model[0].weight, L1(0.1))
    declare(model[0].weight, L2(0.2))
    row = rows_of(model)["0.weight"]
    assert (row.regularizer, row.note) == (L2(0.2), "")


def test_declare_inside_a_constructor_and_inside_a_scope() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))
            declare(self.scale, L1(0.1))

    with scope({everything: L2(0.2)}):
        model = nn.Sequential(Net())
    assert penalized(model) == {"0.scale": L1(0.1)}


def test_declare_reaches_every_place_of_a_parameter() -> None:
    model = pair()
    model[1].weight = model[0].weight
    declare(model[1].weight, L1(0.1))
    assert penalized(model) == {"0.weight": L1(0.1)}
    assert penalized(model[0]) == {"weight": L1(0.1)}
    assert penalized(model[1]) == {"weight": L1(0.1)}


def test_declare_on_a_lazy_parameter() -> None:
    model = nn.LazyLinear(2)
    declare(model.weight, L1(0.1))
    assert penalized(model) == {"weight": L1(0.1)}
    model(torch.ones(1, 3))
    assert penalized(model) == {"weight": L1(0.1)}


def test_declare_on_a_meta_parameter() -> None:
    with torch.device("meta"):
        model = nn.Linear(2, 2)
    declare(model.weight, L1(0.1))
    assert penalized(model) == {"weight": L1(0.1)}


@pytest.mark.parametrize(
    ("build", "kind"),
    [
        (lambda: nn.Parameter(torch.ones(2)), "Parameter"),
        (lambda: torch.ones(2), "Tensor"),
        (lambda: nn.BatchNorm1d(2).running_mean, "Tensor"),
        (lambda: nn.Linear(2, 2).weight.data, "Tensor"),
        (lambda: nn.Linear(2, 2), "Linear"),
        (lambda: "head.weight", "str"),
        (lambda: None, "NoneType"),
        (lambda: [1.0], "list"),
    ],
)
def test_declare_needs_a_registered_parameter(build: Callable[[], Any], kind: str) -> None:
    thing = build()
    with pytest.raises(ModelError) as raised:
        declare(thing, L1(0.1))
    assert str(raised.value) == (
        f"Declare got a {kind} that no module holds as a parameter; pass a registered one, such "
        "as declare(model.head.weight, L1(1e-3))."
    )


@pytest.mark.parametrize("regularizer", [0.1, L1, "L1", {kernels: L1(0.1)}])
def test_declare_needs_a_regularizer(regularizer: Any) -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(RulesError, match=r"declare got .*Write declare\(model\.head\.weight, L1"):
        declare(model.weight, regularizer)
    assert penalized(model) == {}


def test_declare_on_what_an_effective_weight_is_computed_from() -> None:
    model = weight_norm(nn.Linear(2, 2))
    for original in model.parametrizations.weight.parameters():
        with pytest.raises(ModelError, match="from which an effective weight is computed"):
            declare(original, L1(0.1))
    with pytest.raises(ModelError, match="declare the weight before it is reparametrized"):
        declare(nn.utils.spectral_norm(model_of := nn.Linear(2, 2)).weight_orig, L1(0.1))
    assert penalized(model) == penalized(model_of) == {}


def test_declare_on_the_effective_weight_itself_is_no_silence() -> None:
    model = weight_norm(nn.Linear(2, 2))
    with pytest.raises(ModelError, match="no module holds"):
        declare(model.weight, L1(0.1))


# --- what declarations survive ------------------------------------------------------------------


def declared_network() -> nn.Sequential:
    """Both kinds of declarations."""
    with scope({kernels: L2(0.1), "0.bias": L2(0.2), "2": None}):
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    declare(model[1].weight, L1(0.3))
    return model


DECLARED = {"0.weight": L2(0.1), "0.bias": L2(0.2), "1.weight": L1(0.3)}


def saved_and_loaded(model: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    loaded: nn.Module = torch.load(buffer, weights_only=False)
    return loaded


def emptied(model: nn.Module) -> nn.Module:
    return model.to("meta").to_empty(device="cpu")


def assigned(model: nn.Module) -> nn.Module:
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(state, assign=True)
    return model


def replaced(model: nn.Module) -> nn.Module:
    for module in list(model.modules()):
        for name, parameter in list(module._parameters.items()):
            setattr(module, name, nn.Parameter(torch.ones(parameter.shape)))
    return model


SURVIVES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": saved_and_loaded,
    "to_empty from meta": emptied,
    "assign=True": assigned,
    "setattr": replaced,
    "half": nn.Module.half,
    "train, eval, freeze": lambda m: m.train().eval().requires_grad_(False).requires_grad_(True),
    "compile": lambda model: torch.compile(model, backend="eager"),
    "DataParallel": nn.DataParallel,
    "a deepcopy of a deepcopy": lambda model: copy.deepcopy(copy.deepcopy(model)),
}


@pytest.mark.parametrize("name", SURVIVES)
def test_declarations_survive(name: str) -> None:
    model = SURVIVES[name](declared_network())
    assert penalized(model) == DECLARED
    assert rows_of(model)["1.weight"].note.startswith("overrides L2(0.1) by scope kernels")


def test_declarations_survive_a_parametrization() -> None:
    model = declared_network()
    weight_norm(model[0])
    spectral_norm(model[1])
    nn.utils.spectral_norm(model[2])
    assert penalized(model) == DECLARED
    assert penalized(copy.deepcopy(model)) == DECLARED
    parametrize.remove_parametrizations(model[0], "weight")
    assert penalized(model) == DECLARED


def test_declarations_survive_old_weight_norm_and_its_removal() -> None:
    model = declared_network()
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".*weight_norm.*deprecated", category=FutureWarning
        )
        nn.utils.weight_norm(model[1])
    assert penalized(model) == DECLARED
    nn.utils.remove_weight_norm(model[1])
    assert penalized(model) == DECLARED


def test_declarations_survive_pruning() -> None:
    model = declared_network()
    prune.l1_unstructured(model[0], "weight", 0.5)
    prune.l1_unstructured(model[1], "weight", 0.5)
    assert penalized(model) == DECLARED
    prune.remove(model[0], "weight")
    assert penalized(model) == DECLARED


def test_a_reparametrization_inside_another_scope_is_no_building() -> None:
    model = declared_network()
    with scope(L1(9.0)):
        weight_norm(model[0])
    assert penalized(model) == DECLARED


def test_loading_in_an_outer_scope_keeps_the_inner_one() -> None:
    """``from_pretrained`` builds, and then assigns every parameter anew."""
    with scope(L2(0.1)):
        model = nn.Sequential(nn.Linear(2, 2))
        with scope(L1(0.2)):
            model.append(nn.Linear(2, 2))
        assigned(model)
    assert penalized(model) == {"0.weight": L2(0.1), "1.weight": L1(0.2)}


def test_building_anew_in_another_scope_replaces_the_old_one() -> None:
    with scope(L2(0.1)), scope(L1(0.2)):
        model = nn.Linear(2, 2)
    with scope(L2(0.3)):
        model.weight = nn.Parameter(torch.ones(2, 2))
    row = rows_of(model)["weight"]
    assert (row.regularizer, row.note) == (L2(0.3), "")


def test_a_shallow_copy_does_not_speak_for_the_original() -> None:
    model = declared_network()
    twin = copy.copy(model[0])
    twin._parameters = dict(twin._parameters)
    twin.weight = nn.Parameter(torch.ones(2, 2))
    declare(twin.weight, L1(7.0))
    assert penalized(model) == DECLARED


def test_a_copy_has_its_own_declarations() -> None:
    model = declared_network()
    twin = copy.deepcopy(model)
    declare(twin[0].weight, L1(7.0))
    assert penalized(model) == DECLARED
    assert penalized(twin) == {**DECLARED, "0.weight": L1(7.0)}


def test_copies_of_one_layer_are_in_one_scope() -> None:
    """A stack of deep copies, as ``nn.TransformerEncoder`` makes it; a name means one of them."""
    with scope({"layers.0": L1(0.1)}):
        layer = nn.TransformerEncoderLayer(4, 1, 8)
        model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    found = penalized(model)
    assert found.keys() == {name for name in rows_of(model) if is_first_kernel(name)}
    assert set(found.values()) == {L1(0.1)}


def is_first_kernel(name: str) -> bool:
    return name.startswith("layers.0.") and name.endswith("weight") and "norm" not in name


def test_parts_that_were_saved_apart_are_in_one_scope() -> None:
    with scope({"0": L1(0.1)}):
        parts = [nn.Linear(2, 2), nn.Linear(2, 2)]
    model = nn.Sequential(*[pickle.loads(pickle.dumps(part)) for part in parts])
    assert penalized(model) == {"0.weight": L1(0.1)}


def test_declarations_are_not_in_the_state_dict() -> None:
    plain = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    model = declared_network()
    assert list(model.state_dict()) == list(plain.state_dict())
    assert model.state_dict()._metadata == plain.state_dict()._metadata
    plain.load_state_dict(model.state_dict(), strict=True)
    assert penalized(plain) == {}
    assert repr(model) == repr(plain)
    assert [n for n, _ in model.named_buffers()] == []


def test_a_state_dict_saved_with_declarations_needs_no_penalize() -> None:
    buffer = io.BytesIO()
    torch.save(declared_network().state_dict(), buffer)
    buffer.seek(0)
    assert list(torch.load(buffer, weights_only=True))[:2] == ["0.weight", "0.bias"]


@pytest.mark.filterwarnings("ignore:`torch.jit.:DeprecationWarning")
def test_a_declared_module_can_still_be_scripted() -> None:
    model = declared_network()
    scripted = torch.jit.script(model)
    x = torch.randn(3, 2)
    assert torch.equal(scripted(x), model(x))
    buffer = io.BytesIO()
    torch.jit.save(scripted, buffer)


def test_a_declared_module_can_still_be_exported_and_compiled() -> None:
    model = declared_network()
    x = torch.randn(3, 2)
    exported = torch.export.export(model, (x,)).module()
    assert torch.allclose(exported(x), model(x))
    fast = torch.compile(model, backend="eager", fullgraph=True)
    assert torch.allclose(fast(x), model(x))


def test_scopes_and_declarations_meet_the_penalty() -> None:
    model = declared_network()
    expected = (
        0.1 * model[0].weight.pow(2).sum()
        + 0.2 * model[0].bias.pow(2).sum()
        + 0.3 * model[1].weight.abs().sum()
    )
    assert regularize(model).penalty().item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_scope_that_names_a_wrapped_model() -> None:
    with scope({"0": L2(0.1), named("1") & biases: L1(0.2)}):
        model = pair()
    expected = {"0.weight": L2(0.1), "1.bias": L1(0.2)}
    assert penalized(model) == penalized(nn.DataParallel(model)) == expected
