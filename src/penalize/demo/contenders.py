"""The five ways to penalize that the demo compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from penalize.regularizers import L1, L2, GroupLasso, Regularizer


@dataclass(frozen=True)
class Contender:
    """A rules table, and how it acts on a step."""

    name: str
    rules: Regularizer | Mapping[str, Regularizer]
    mode: str

    @property
    def strengths(self) -> str:
        """Each λ of the rules, in their order; empty where there are none."""
        rules = [self.rules] if isinstance(self.rules, Regularizer) else self.rules.values()
        return ", ".join(f"{getattr(rule, name):g}" for rule in rules for name in rule.strengths)


# One strength for both rows with L1: they differ in nothing but the mode.
_LASSO = L1(3e-4)

CONTENDERS = (
    Contender("no penalty", {}, "gradient"),
    Contender("L2", L2(3e-4), "gradient"),
    Contender("L1 as a gradient", _LASSO, "gradient"),
    Contender("L1 proximal", _LASSO, "proximal"),
    # The inputs of the first layer are the pixels, those of the second the hidden units.
    Contender(
        "group lasso",
        {
            "hidden": GroupLasso(3e-4, groups="inputs"),
            "out": GroupLasso(1e-3, groups="inputs"),
        },
        "proximal",
    ),
)
