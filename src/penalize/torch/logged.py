"""What a training with a plan writes into its log: the penalties, and what they have left."""

from __future__ import annotations

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

    ==========================  =========================================================
    key                         number
    ==========================  =========================================================
    ``penalty``                 Σ Ω(w) over the plan
    ``penalty/<rule>``          the part of it that one rule of the plan has, by the rule's
                                selector; that of a parameter which was declared on, by its name
    ``zeros``                   the share of exact zeros among the penalized weights, 0 to 1
    ``groups left``             how many groups are not all zero; only where rules have groups
    ==========================  =========================================================

    It waits for the device. Of a sharded model every rank has to call it, and gets the same.
    """
    penalties = plan.breakdown()
    found = {"penalty": float(sum(penalties.values()))}
    for row in plan.rows:
        if row.name in penalties:
            key = f"penalty/{_rule_of(row)}"
            found[key] = found.get(key, 0.0) + penalties[row.name]
    counts = [_counted(target) for target in plan.targets() if target.name in penalties]
    weights = sum(size for size, _, _ in counts)
    found["zeros"] = sum(zeros for _, zeros, _ in counts) / weights if weights else 0.0
    groups = [left for _, _, left in counts if left is not None]
    return {**found, "groups left": float(sum(groups))} if groups else found


def _rule_of(row: Row) -> str:
    """The selector of the rule that holds for a parameter; its own name where no rule does."""
    said, _, _ = row.declared_at.rpartition(" (")  # without file and line
    kind, _, key = said.partition(" ")
    if kind == "declare":
        return row.name
    key = key.strip("'\"") or "everything"
    return key if kind == "rule" else f"{kind} {key}"


def _counted(target: Target) -> tuple[int, int, int | None]:
    """The size of a weight, how many elements are 0, and how many groups are not."""
    w, xp = open_array(target.binding.read(), whole=True)
    regularizer = target.at(0).regularizer
    terms = regularizer.terms if isinstance(regularizer, Sum) else (regularizer,)
    groups = [grouping_of(r.groups, xp.shape(w)) for r in terms if isinstance(r, Grouped)]
    # Not `> 0`: a group with a NaN is not gone.
    left = [int((each.sum(xp.abs(xp.wide(w)), xp) != 0).sum()) for each in groups]
    return w.numel(), int((w == 0).sum()), sum(left) if left else None
