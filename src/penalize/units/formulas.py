"""Formulas over the settings of a library: computed, printed, and asked for their settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from penalize.regularizers.base import check_strength, check_unit

Values = Mapping[str, float]


class SettingKind(Enum):
    """What a setting is, which says what it may be and whether it can be solved for."""

    STRENGTH = "a strength"
    INVERSE = "the inverse of a strength"
    RATIO = "from 0 to 1"
    GIVEN = "a number > 0 that the data or the training has"


@dataclass(frozen=True)
class Formula:
    """A product, quotient or difference of settings and numbers."""

    text: str
    settings: tuple[Setting, ...]
    compute: Callable[[Values], float]
    binds: int = 2
    """How tightly: 3 a name or number, 2 a product, 1 a quotient, 0 a difference."""

    def __call__(self, values: Values) -> float:
        return self.compute(values)

    def __str__(self) -> str:
        return self.text

    def __mul__(self, other: Formula | float) -> Formula:
        right = _formula(other)
        return _joined(self, right, " · ", lambda a, b: a * b, (2, 2))

    def __rmul__(self, other: float) -> Formula:
        return _formula(other) * self

    def __truediv__(self, other: Formula | float) -> Formula:
        return _joined(self, _formula(other), " / ", lambda a, b: a / b, (1, 3))

    def __rtruediv__(self, other: float) -> Formula:
        return _formula(other) / self

    def __rsub__(self, other: float) -> Formula:
        return _joined(_formula(other), self, " − ", lambda a, b: a - b, (0, 1))


@dataclass(frozen=True)
class Setting(Formula):
    """One setting by the name that the library has for it."""

    kind: SettingKind = SettingKind.STRENGTH
    means: str = ""
    default: float | None = None
    """What holds where it is not told; None where it has to be."""

    def __str__(self) -> str:
        return self.text

    def checked(self, owner: str, value: object) -> float:
        """A value as a float.

        Raises:
            StrengthError: this is a strength, and the value is not a finite number ≥ 0.
            UnitsError: it is something else, and the value is not in its range.
        """
        if self.kind is SettingKind.STRENGTH:
            return check_strength(owner, self.text, value)
        high = 1.0 if self.kind is SettingKind.RATIO else math.inf
        return check_unit(owner, self.text, value, 0.0, high)


def setting(
    name: str,
    kind: SettingKind = SettingKind.STRENGTH,
    means: str = "",
    default: float | None = None,
) -> Setting:
    """A setting, to be computed with like a number."""
    return Setting(name, (), lambda values: values[name], 3, kind, means, default)


def settings_of(*formulas: Formula | None) -> tuple[Setting, ...]:
    """The settings of formulas, each once, in the order in which they stand there."""
    found: dict[str, Setting] = {}
    for formula in formulas:
        for each in _within(formula) if formula is not None else ():
            found.setdefault(each.text, each)
    return tuple(found.values())


def _within(formula: Formula) -> tuple[Setting, ...]:
    return (formula,) if isinstance(formula, Setting) else formula.settings


def _formula(value: Formula | float) -> Formula:
    if isinstance(value, Formula):
        return value
    number = float(value)
    return Formula(f"{number:g}", (), lambda _: number, 3)


def _joined(
    left: Formula,
    right: Formula,
    sign: str,
    compute: Callable[[float, float], float],
    binds: tuple[int, int],
) -> Formula:
    """Two formulas and a sign; how tightly it binds, and how tightly what is on its right must."""

    def inner(side: Formula, at_least: int) -> str:
        return side.text if side.binds >= at_least else f"({side.text})"

    text = f"{inner(left, binds[0])}{sign}{inner(right, binds[1])}"
    settings = settings_of(left, right)
    return Formula(text, settings, lambda v: compute(left(v), right(v)), binds[0])
