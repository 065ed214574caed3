"""The settings that a formula has to have for the strengths of a regularizer."""

from __future__ import annotations

import math

from penalize.errors import UnitsError
from penalize.regularizers import GroupLasso, Regularizer
from penalize.units.formulas import Formula, Setting, SettingKind
from penalize.units.unit import Unit

Targets = list[tuple[Formula | None, float]]


def solved(unit: Unit, regularizer: Regularizer, known: dict[str, float]) -> dict[str, float]:
    """The settings that are not known, for the strengths of a regularizer.

    Every formula is linear in a strength, or in the inverse of one, and a ratio r is in it as r or
    1 − r. So they are found from the formulas at 1, and tried.

    Raises:
        UnitsError: there are none.
    """
    targets = _targets(unit, regularizer)
    missing = [each for each in unit.settings if each.text not in known]
    for each in missing:
        if each.kind is SettingKind.GIVEN and each.default is None:
            raise UnitsError(f"{unit.title} needs {each.text} ({each.means})", f"{unit.penalty}")
        if each.kind is SettingKind.GIVEN and each.default is not None:
            known = {**known, each.text: each.default}
    wanted = [each for each in missing if each.kind is not SettingKind.GIVEN]
    found = _found(targets, wanted, known)
    values = {**known, **found}
    if found.keys() != {each.text for each in wanted} or not _are(targets, values):
        raise UnitsError(
            f"no settings of {unit.title} are {regularizer!r}", f"its formula is {unit.penalty}"
        )
    return found


def _targets(unit: Unit, regularizer: Regularizer) -> Targets:
    """Each formula with the strength that it is to have."""
    lasso, ridge, others = regularizer.split()
    group = 0.0
    for other in others:
        same = isinstance(other, GroupLasso) and other.size_weighted == unit.size_weighted
        if not same or unit.group is None or len(others) > 1 or unit.make is not None:
            raise UnitsError(
                f"no settings of {unit.title} are {regularizer!r}",
                f"its formula is {unit.penalty}",
            )
        assert isinstance(other, GroupLasso)
        group = other.strength
    return [(unit.l1, lasso), (unit.l2, ridge), (unit.group, group)]


def _found(targets: Targets, wanted: list[Setting], known: dict[str, float]) -> dict[str, float]:
    ratios = [each for each in wanted if each.kind is SettingKind.RATIO]
    strengths = [each for each in wanted if each.kind is not SettingKind.RATIO]
    ones = {**known, **{each.text: 1.0 for each in strengths}}
    if ratios and len(strengths) == 1:
        # s·r·a and s·(1 − r)·b: at r = 1 and at r = 0 one of them is 0.
        (ratio,), (strength,) = ratios, strengths
        at_one, at_zero = {**ones, ratio.text: 1.0}, {**ones, ratio.text: 0.0}
        first = sum(_over(t, f(at_one)) for f, t in targets if f is not None)
        second = sum(_over(t, f(at_zero)) for f, t in targets if f is not None)
        total = first + second
        size = _of_kind(strength, total)
        share = first / total if total else 0.0
        return {ratio.text: share} | ({} if size is None else {strength.text: size})
    found: dict[str, float] = {}
    for each in strengths:
        for formula, target in targets:
            if formula is None or (each not in formula.settings and each != formula):
                continue
            size = _of_kind(each, _over(target, formula(ones)))
            if formula(ones) and size is not None:
                found.setdefault(each.text, size)
    return found


def _over(target: float, at_one: float) -> float:
    return target / at_one if at_one else 0.0


def _of_kind(strength: Setting, size: float) -> float | None:
    """A strength, or its inverse; None where that is infinite."""
    if strength.kind is not SettingKind.INVERSE:
        return size
    return 1 / size if size else None


def _are(targets: Targets, values: dict[str, float]) -> bool:
    """Whether settings give the strengths."""
    return all(
        math.isclose(0.0 if formula is None else formula(values), target, rel_tol=1e-9, abs_tol=0.0)
        for formula, target in targets
    )
