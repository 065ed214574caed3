"""What a training with a plan writes into its log: the penalties, and what they have left."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

from penalize.backends import open_array
from penalize.plan import Row
from penalize.regularizers.grouping import grouping_of
from penalize.regularizers.groups import Grouped
from penalize.regularizers.sums import Sum
from penalize.torch.model.targets import Target

if TYPE_CHECKING:
    from penalize.torch.plan import Plan


@torch.no_grad()
def logged(plan: Plan) -> dict[str, float]:
    """The numbers of a plan for a logger, as they are now.

    ====================  ===============================================================
    key                   number
    ====================  ===============================================================
    ``penalty``           Σ Ω(w) over the plan
    ``penalties/<rule>``  the part of it that one rule of the plan has, by the rule's
                          selector; that of a parameter that was declared on, by its name
    ``zeros``             the share of exact zeros among the penalized weights, 0 to 1
    ``groups/<rule>``     how many groups of a rule are not all zero, if it has groups
    ====================  ===============================================================

    It waits for the device. Of a sharded model every rank has to call it, and gets the same.
    """
    penalties = plan.breakdown()
    rules = {row.name: _rule_of(row) for row in plan.rows}
    found = {"penalty": float(sum(penalties.values()))}
    for name, penalty in penalties.items():
        _add(found, f"penalties/{rules[name]}", penalty)
    size = zeros = 0
    for target in (each for each in plan.targets() if each.name in penalties):
        count, gone, left = _counted(target)
        size, zeros = size + count, zeros + gone
        if left is not None:
            _add(found, f"groups/{rules[target.name]}", left)
    return found | ({"zeros": zeros / size} if size else {})


def _add(found: dict[str, float], key: str, number: float) -> None:
    found[key] = found.get(key, 0.0) + number


def _rule_of(row: Row) -> str:
    """The selector of the rule that holds for a parameter; its own name where no rule does."""
    said, _, _ = row.declared_at.rpartition(" (")  # without file and line
    kind, _, key = said.partition(" ")
    if kind == "declare":
        return row.name
    words = key or "everything"
    # No slash: where a logger keeps files, the key of one would be the folder of another.
    words = re.sub(r"[^\w.-]+", "_", words if kind == "rule" else f"{kind} {words}")
    return words.strip("_")


def _counted(target: Target) -> tuple[int, int, int | None]:
    """The size of a weight, how many elements are 0, and how many groups are not."""
    w, xp = open_array(target.binding.read(), whole=True)
    regularizer = target.at(0).regularizer
    terms = regularizer.terms if isinstance(regularizer, Sum) else (regularizer,)
    groups = [grouping_of(r.groups, xp.shape(w)) for r in terms if isinstance(r, Grouped)]
    # Not `> 0`: a group with a NaN is not gone.
    left = [int((each.sum(xp.abs(xp.wide(w)), xp) != 0).sum()) for each in groups]
    return w.numel(), int((w == 0).sum()), sum(left) if left else None
