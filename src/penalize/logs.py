"""``log``: a plan in numbers, for any logger."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from penalize.backends import Array, Backend, open_array
from penalize.errors import ModelError, OptimizerError
from penalize.names import unique
from penalize.plan import LivePlan, PenalizedNow, Plan, Row
from penalize.regularizers.base import Regularizer
from penalize.regularizers.grouping import grouping_of
from penalize.regularizers.groups import Grouped
from penalize.regularizers.sums import Sum


def log(
    plan: Plan, params: Any = None, *, at: Any = None, balance: bool = False
) -> dict[str, float]:
    """The penalties of a plan, and what they have set to zero, as numbers for a logger.

    ====================  =======================================================================
    key                   number
    ====================  =======================================================================
    ``penalty``           Σ Ω(w), the sum of ``plan.breakdown()``
    ``penalties/<rule>``  the part of it that a rule has declared; of all rules it is the whole
    ``zeros``             the share of the penalized weights that are exactly 0, from 0 to 1
    ``groups/<rule>``     how many groups of a group penalty are left: not all of their weights 0
    ``balance``           ‖∇Ω(w)‖ over the norm of the data's gradient, if it is asked for
    ``balances/<rule>``   the same of the parameters that a rule penalizes
    ====================  =======================================================================

    A rule stands as the plan prints it (``kernels``, ``encoder``, ``scope_kernels``), without its
    place and quotes, with ``.`` for ``/`` and ``_`` for what loggers refuse; what is declared on a
    parameter has the name of that. Rules that print alike are one. Of a sum of two kinds of groups
    the second is ``groups_1/<rule>``. Penalties on outputs are not in it. The numbers are computed
    now, and wait for the device; where weights are sharded, every rank has to ask.

    Args:
        plan: a plan of any wing.
        params: the parameters, for a plan of JAX, which holds none.
        at: the step of training, where a strength follows a schedule and the plan counts no steps.
        balance: whether to compare with the data, by ``plan.balance()``: to be called between
            ``loss.backward()`` and ``optimizer.step()``. For PyTorch.

    Raises:
        ModelError: this is no plan, or parameters are missing, given to a plan that has its own, or
            not those that were planned.
        NoStepError: a strength follows a schedule, and no step is known.
        OptimizerError: a balance was asked for, and there is none, or none now.
    """
    if not isinstance(plan, Plan):
        raise ModelError(
            f"penalize.log got a {type(plan).__name__}", "pass the plan that regularize gives"
        )
    if isinstance(plan, LivePlan) != (params is None):
        raise ModelError(*_WITH_PARAMS if params is None else _WITHOUT_PARAMS)
    now = plan.penalized_now(params, at=at)
    rows = {row.name: row for row in (*plan.rows, *plan.together)}
    rules = _labels(rows[each.name] for each in now)
    found = {"penalty": 0.0}
    for each in now:
        found["penalty"] += each.penalty
        _add(found, f"penalties/{rules[each.name]}", each.penalty)
    counts = [_zeros(each.value) for each in now]
    size = sum(size for _, size in counts)
    found |= {"zeros": sum(zeros for zeros, _ in counts) / size} if size else {}
    for each in now:
        for number, left in enumerate(_groups_left(each)):
            again = f"_{number}" if number else ""
            _add(found, f"groups{again}/{rules[each.name]}", left)
    return found | (_balance(plan, rules) if balance else {})


_WITH_PARAMS = (
    "penalize.log got a plan that holds no arrays, and no parameters",
    "write penalize.log(plan, params), with what the plan was made of",
)
_WITHOUT_PARAMS = (
    "penalize.log got parameters beside a plan that reads its own",
    "write penalize.log(plan)",
)


def _add(found: dict[str, float], key: str, number: float) -> None:
    found[key] = found.get(key, 0.0) + number


def _labels(rows: Iterable[Row]) -> dict[str, str]:
    """The name of each row → its rule, in the letters that every logger takes in a name."""
    rules = {row.name: row.name if row.rule == "declare" else row.rule for row in rows}
    said = list(dict.fromkeys(rules.values()))
    labels = dict(zip(said, unique(map(_label, said)), strict=True))
    return {name: labels[rule] for name, rule in rules.items()}


def _label(rule: str) -> str:
    words = "everything" if rule == "rule" else rule.removeprefix("rule ")
    # No slash: MLflow keeps files, and the key of one would be the folder of another.
    words = re.sub(r"[^\w.-]+", "_", words.replace("/", "."), flags=re.ASCII)
    return words.strip("_.") or "rule"


# --- what is zero -------------------------------------------------------------------------------


def _zeros(value: Array) -> tuple[float, int]:
    """How many elements are 0, and how many there are."""
    w, xp = open_array(value)
    return float(_count(xp.abs(w) <= 0, w, xp)), math.prod(xp.shape(w))


def _groups_left(each: PenalizedNow) -> Iterator[float]:
    """Of each group penalty in it, how many groups are not all 0."""
    for term in _terms(each.regularizer):
        if isinstance(term, Grouped) and term.groups_vanish:
            w, xp = open_array(each.value, whole=not term.on_shards)
            groups = grouping_of(term.groups, xp.shape(w))
            one = xp.full((), 1.0, xp.wide(w))
            left = groups.sum(xp.where(xp.abs(w) <= 0, 0.0, one), xp)
            yield float(groups.total(xp.where(left > 0, one, 0.0), xp))


def _terms(regularizer: Regularizer) -> tuple[Regularizer, ...]:
    return regularizer.terms if isinstance(regularizer, Sum) else (regularizer,)


def _count(condition: Array, w: Array, xp: Backend) -> Array:
    """How often it holds: axis by axis, since float32 counts to 2²⁴ one by one."""
    one = xp.full((), 1.0, xp.wide(w))
    count = xp.where(condition, one, 0.0)
    for axis in reversed(range(len(xp.shape(w)))):
        count = xp.sum(count, [axis])
    return xp.reshape(count, ())


# --- beside the data ----------------------------------------------------------------------------


def _balance(plan: Any, rules: Mapping[str, str]) -> dict[str, float]:
    if not hasattr(plan, "balance"):
        raise OptimizerError(
            f"penalize.log was asked for the balance of a {type(plan).__module__}.Plan, which sees "
            "no gradients of the data",
            "leave balance=True away",
        )
    squares: dict[str, tuple[float, float]] = {}
    for row in plan.balance():
        if not math.isnan(row.penalty_gradient):  # a constraint has none
            for key in ("balance", f"balances/{rules[row.name]}"):
                data, penalty = squares.get(key, (0.0, 0.0))
                new = data + row.data_gradient**2, penalty + row.penalty_gradient**2
                squares[key] = new
    return {key: _ratio(*both) for key, both in squares.items()}


def _ratio(data: float, penalty: float) -> float:
    return math.sqrt(penalty / data) if data else (math.inf if penalty else 0.0)
