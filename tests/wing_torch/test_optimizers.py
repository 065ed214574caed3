"""Every optimizer × mode, against what a user would write by hand; see tests/optimizers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import schedulefree
import torch
import torch.optim as opt
from optimizers.problem import model_for, train
from optimizers.references import REGULARIZERS, STRENGTH, attached
from optimizers.refusals import REFUSALS, expected
from optimizers.report import DOCUMENT, document, measured, told
from optimizers.rows import CROSSING, IMPLEMENTATIONS, ROWS, Row, builder
from optimizers.verdicts import MODES, implementations_run, verdict
from torch import Tensor, distributed, nn

from penalize import L1, L2, ModeError, everything
from penalize.torch import regularize


@pytest.fixture(autouse=True, scope="module")
def no_process_group_is_left() -> Iterator[None]:
    """ZeroRedundancyOptimizer wants one."""
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="a capturable step needs a GPU")


def rows(chosen: Sequence[Row]) -> Any:
    marks = {r: [cuda] * r.needs_cuda + [pytest.mark.breadth] * (r not in CROSSING) for r in chosen}
    params = [pytest.param(r, id=r.name, marks=its) for r, its in marks.items()]
    return pytest.mark.parametrize("row", params)


@pytest.mark.parametrize("mode", MODES)
@rows(ROWS)
def test_acts_as_its_reference_or_is_refused(row: Row, mode: str) -> None:
    for regularizer in REGULARIZERS:
        found, reason = verdict(row, regularizer, mode), expected(row, regularizer, mode)
        if reason is None:
            assert found in {"exact", f"< {row.bound:.0e}"}, regularizer
        else:
            assert found == f"refused: {reason}", regularizer


def test_every_reason_for_a_refusal_occurs() -> None:
    found = {expected(row, r, mode) for row in ROWS for r in REGULARIZERS for mode in MODES}
    assert found == {None, *(refusal.reason for refusal in REFUSALS)}


@rows([r for r in ROWS if r.implementation in ("single-tensor", "foreach", "fused")])
def test_the_implementation_that_was_asked_for_ran(row: Row) -> None:
    with implementations_run(row.origin) as ran:
        attached(row, L1(STRENGTH), "gradient")
    assert ran == {row.implementation}


def test_all_of_torch_optim_is_in_the_table() -> None:
    there = {
        kind
        for kind in vars(opt).values()
        if isinstance(kind, type) and issubclass(kind, opt.Optimizer) and kind is not opt.Optimizer
    }
    assert there <= {row.origin for row in ROWS}
    assert {row.implementation for row in ROWS} == {"", *IMPLEMENTATIONS}


def test_the_document_says_what_was_measured() -> None:
    """`make optimizers` writes it."""
    page = DOCUMENT.read_text(encoding="utf-8")
    for row in CROSSING:
        assert told(row, page) == measured(row), row.name


@pytest.mark.breadth
def test_the_document_is_what_was_measured() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == document()


# --- PyTorch's own weight decay is an L2, in the mode that it names --------------------------

COUPLED = [
    *(opt.Adadelta, opt.Adagrad, opt.Adam, opt.Adamax, opt.ASGD),
    *(opt.NAdam, opt.RAdam, opt.RMSprop, opt.SGD),
]
DECOUPLED: list[tuple[type[opt.Optimizer], dict[str, Any]]] = [
    *((opt.AdamW, {**flags, "lr": 0.05}) for flags in ({"foreach": False}, {"foreach": True})),
    (opt.AdamW, {"fused": True, "lr": 0.05}),
    (opt.Muon, {}),
    *((kind, {"decoupled_weight_decay": True}) for kind in (opt.Adam, opt.NAdam, opt.RAdam)),
]


def _natively_and_attached(
    kind: type[opt.Optimizer], kwargs: dict[str, Any], mode: str
) -> tuple[Tensor, Tensor]:
    def row(decay: float) -> Row:
        settings = {**kwargs, "weight_decay": decay}
        return Row(kind.__name__, settings, builder(kind, settings))

    native = row(0.1)
    model = model_for(native)
    passed = train(native, model, native.build(list(model.parameters())))
    return torch.stack(passed), torch.stack(attached(row(0.0), L2.from_weight_decay(0.1), mode))


@pytest.mark.parametrize("kind", COUPLED, ids=lambda kind: kind.__name__)
def test_coupled_weight_decay_is_the_gradient_of_an_l2(kind: type[opt.Optimizer]) -> None:
    native, ours = _natively_and_attached(kind, {}, "gradient")
    torch.testing.assert_close(ours, native, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("kind", "kwargs"), DECOUPLED)
def test_decoupled_weight_decay_is_a_decoupled_l2(
    kind: type[opt.Optimizer], kwargs: dict[str, Any]
) -> None:
    native, ours = _natively_and_attached(kind, kwargs, "decoupled")
    torch.testing.assert_close(ours, native, rtol=0, atol=0)


def test_adafactor_sizes_its_update_before_its_own_decay() -> None:
    """So a decoupled L2, which stands before the whole step, shrinks the update as well."""
    kept = 1 - 0.01 * 0.1
    native, ours = _natively_and_attached(opt.Adafactor, {"lr": 0.01}, "decoupled")
    row = Row("Adafactor", {}, builder(opt.Adafactor, {}))
    decayed = kept * nn.utils.parameters_to_vector(model_for(row).parameters()).detach()
    torch.testing.assert_close(ours[0] - decayed, kept * (native[0] - decayed), rtol=1e-9, atol=0)


# --- corners --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", [opt.SGD, opt.Adam, opt.AdamW, opt.RMSprop, opt.Adagrad])
def test_a_learning_rate_of_zero_moves_nothing(kind: Any, mode: str) -> None:
    settings = {"lr": 0.0, "weight_decay": 0.0}
    row = Row(kind.__name__, settings, builder(kind, settings), origin=kind)
    start = nn.utils.parameters_to_vector(model_for(row).parameters()).detach()
    for regularizer in REGULARIZERS:
        if expected(row, regularizer, mode) is None:
            for passed in attached(row, regularizer, mode):
                assert torch.equal(passed, start)


def test_why_schedule_free_optimizers_are_refused_beside_gradients() -> None:
    """They average weights that they keep themselves: what is done to a parameter is undone."""
    parameter = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = schedulefree.SGDScheduleFree([parameter], lr=0.1)
    optimizer.train()
    for _ in range(10):
        with torch.no_grad():
            parameter *= 1 - 0.1 * 2.0  # a decoupled L2(1.0), by hand
        parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    optimizer.eval()
    assert abs(parameter.item() - 0.8**10) > 0.1

    model = nn.Linear(2, 2)
    optimizer = schedulefree.SGDScheduleFree(model.parameters(), lr=0.1)
    for mode in ("decoupled", "proximal"):
        with pytest.raises(ModeError, match="SGDScheduleFree"):
            regularize(model, {everything: L2(1.0)}).attach(optimizer, mode=mode)
