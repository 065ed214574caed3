"""One row of the table: what a setting of a library is, in penalize."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from penalize.regularizers import L1, L1L2, L2, GroupLasso, Regularizer
from penalize.selectors import Selector, biases, everything, norms
from penalize.units.formulas import Formula, Setting, Values, settings_of

PerSelector = dict[Selector, Regularizer | None]
"""Rules, for what the library penalizes beyond kernels."""


@dataclass(frozen=True)
class Reach:
    """Which parameters a library penalizes."""

    says: str
    exempt: tuple[Selector, ...] | None
    """None: kernels alone, which is what a bare regularizer means in rules."""

    def rules(self, regularizer: Regularizer) -> Regularizer | PerSelector:
        """What to declare for the same reach."""
        if self.exempt is None:
            return regularizer
        return {everything: regularizer, **dict.fromkeys(self.exempt)}


KERNELS = Reach("kernels", None)
WHERE_GIVEN = Reach("what it is given to", None)
INTERCEPT_TOO = Reach("kernels and the intercept", ())
EVERYTHING = Reach("everything, biases and norms too", ())
NOT_NORMS = Reach("everything but norms", (norms,))
NOT_BIASES_OR_NORMS = Reach("everything but biases and norms", (biases, norms))


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What a setting of another library is: formulas, and what has to be true beside them.

    Printed, it says all of that in a few lines.
    """

    name: str
    package: str
    """The package and the version that it was measured at."""

    l1: Formula | None = None
    """The strength of Σ|w|."""

    l2: Formula | None = None
    """The strength of Σw²."""

    group: Formula | None = None
    """The strength of Σ ‖w_g‖, or of Σ √|g|‖w_g‖ where that is ``size_weighted``."""

    size_weighted: bool = False
    loss: str = ""
    """The loss beside which it is so."""

    reach: Reach = KERNELS
    mode: str = ""
    """How it acts, where that is an optimizer: the ``mode`` of a plan."""

    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Options of the library, and the values of them at which the row holds."""

    assumed: bool = False
    """Whether these values are the library's own where nothing is said of them."""

    note: str = ""
    taken_for: str = ""
    """What one would guess, and is not so."""

    why_not: str = ""
    """The reason why there is no counterpart, and what to do; then there are no formulas."""

    make: Callable[..., Regularizer] | None = None
    """What makes the regularizer of the settings, where it is none of L1, L2 and groups."""

    made_of: tuple[Setting, ...] = ()
    """The settings that ``make`` takes, in its order."""

    says: str = ""
    """The regularizer that ``make`` makes, in words."""

    @property
    def settings(self) -> tuple[Setting, ...]:
        """The settings that the formulas are of."""
        return self.made_of or settings_of(self.l1, self.l2, self.group)

    @property
    def penalty(self) -> str:
        """The regularizer, as a formula."""
        if self.says:
            return self.says
        if self.l1 is not None and self.l2 is not None:
            parts = [f"L1L2({self.l1}, {self.l2})"]
        else:
            parts = [f"L1({self.l1})"] * (self.l1 is not None)
            parts += [f"L2({self.l2})"] * (self.l2 is not None)
        if self.group is not None:
            weighted = "" if self.size_weighted else ", size_weighted=False"
            parts.append(f"GroupLasso({self.group}, groups{weighted})")
        return " + ".join(parts)

    @property
    def title(self) -> str:
        """The name, with the options at which the row holds."""
        options = [f"{name}={'|'.join(values)}" for name, values in self.when.items()]
        return f"{self.name}({', '.join(options)})" if options else self.name

    def regularizer(self, values: Values, groups: Any = None) -> Regularizer:
        """The regularizer of settings that were checked. Parts whose strength is 0 are left out."""
        if self.make is not None:
            return self.make(*(values[each.text] for each in self.made_of))
        lasso, ridge, group = (
            None if formula is None else formula(values)
            for formula in (self.l1, self.l2, self.group)
        )
        parts: list[Regularizer] = []
        if lasso and ridge:
            parts.append(L1L2(lasso, ridge))
        elif ridge or (ridge is not None and not lasso):
            parts.append(L2(ridge))
        elif lasso is not None:
            parts.append(L1(lasso))
        if group is not None:
            shrunk = GroupLasso(group, groups, self.size_weighted)
            parts = [part for part in parts if lasso or ridge] + [shrunk]
        first, *others = parts
        return sum(others, first)

    def __str__(self) -> str:
        if self.why_not:
            return f"{self.title} ({self.package}): no counterpart: {self.why_not}"
        lines = [f"{self.title} ({self.package}) is {self.penalty} on {self.reach.says}"]
        lines += [f"  beside {self.loss}"] * bool(self.loss)
        lines += [f'  mode="{self.mode}"'] * bool(self.mode)
        lines += [f"  {text}" for text in (self.note,) if text]
        lines += [f"  often taken for {self.taken_for}"] * bool(self.taken_for)
        return "\n".join(lines)


def units(package: str, names: str, **fields: Any) -> list[Unit]:
    """A row for each of some names, which are the same in all else."""
    return [Unit(name=name, package=package, **fields) for name in names.split()]
