"""The table as a whole, and what is asked of it: strengths from other libraries, and back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from penalize.errors import UnitsError
from penalize.regularizers import Regularizer
from penalize.units.linear import LINEAR
from penalize.units.scikit import SCIKIT
from penalize.units.solving import solved
from penalize.units.training import OPTIMIZERS, TERMS
from penalize.units.unit import PerSelector, Unit

TABLE: tuple[Unit, ...] = (*SCIKIT, *LINEAR, *OPTIMIZERS, *TERMS)
"""Every row. Rows of one name differ in the options at which they hold."""

_BY_NAME: dict[str, list[Unit]] = defaultdict(list)
for _unit in TABLE:
    _BY_NAME[_unit.name].append(_unit)


def convert(name: str, /, **settings: Any) -> Regularizer | PerSelector:
    """What a strength of another library is in penalize.

    A regularizer where the library penalizes kernels, as rules do that are a bare regularizer; and
    rules where it penalizes more: the intercept, as ``sklearn.LinearSVC`` does, or biases and
    norms, as the weight decays of optimizers do. ``print(find(name))`` tells beside which loss, or
    in which mode, that is the same.

    Args:
        name: library and setting, such as ``"sklearn.Ridge"`` or ``"torch.optim.AdamW"``;
            :func:`names` lists them.
        settings: the settings of its formula, by the names that the library has for them
            (``lambda_`` for lambda), the options that choose between formulas (``solver=``), and
            ``groups=`` where it penalizes groups. What the formula needs of the data has the name
            that it has there: ``n``, ``sd_y``.

    Raises:
        UnitsError: there is no such name, or no counterpart; a setting is missing, is none of the
            formula's, or out of its range.
        StrengthError: a strength is not a finite number ≥ 0.
    """
    unit, rest = _chosen(name, settings)
    groups = rest.pop("groups", None) if unit.group is not None else None
    values = _values(unit, rest)
    if unit.group is not None and groups is None:
        raise UnitsError(
            f"{name} penalizes groups, and got none",
            f'write convert("{name}", groups=…, …), as GroupLasso takes them',
        )
    return unit.reach.rules(unit.regularizer(values, groups))


def invert(name: str, regularizer: Regularizer, /, **settings: Any) -> dict[str, float]:
    """The settings of another library that are this regularizer.

    The reverse of :func:`convert`: ``invert("sklearn.Ridge", L2(0.1), n=442)`` is
    ``{"alpha": 44.2}``.

    Args:
        name: library and setting, as for :func:`convert`.
        regularizer: that of kernels.
        settings: what is known: of the data (``n``), options (``solver=``), and strengths that are
            to stay as they are.

    Raises:
        UnitsError: there is no such name or no counterpart; no settings, or none that the table
            tells, are this regularizer; what is needed of the data is missing.
    """
    if not isinstance(regularizer, Regularizer):
        raise UnitsError(
            f"invert got {regularizer!r} ({type(regularizer).__name__})",
            "give it the regularizer of kernels, such as L2(1e-4)",
        )
    unit, rest = _chosen(name, settings)
    known = {each.text: each for each in unit.settings}
    _check_known(unit, rest)
    values = {key: known[key].checked(name, value) for key, value in rest.items()}
    return solved(unit, regularizer, values)


def find(name: str, /, **options: Any) -> Unit:
    """One row of the table, which prints what has to be true beside its formula.

    Args:
        name: library and setting, as for :func:`convert`.
        options: those that choose between formulas, such as ``solver="liblinear"``.

    Raises:
        UnitsError: there is no such name, or its options are others.
    """
    unit, rest = _chosen(name, options)
    if rest:
        raise UnitsError(f"{name} has no option {_listed(rest)}", _options(_BY_NAME[name]))
    return unit


def names(library: str = "") -> list[str]:
    """The names in the table, of a library (``"sklearn"``) or of all."""
    return [name for name in _BY_NAME if name.startswith(f"{library}." if library else "")]


def _chosen(name: str, settings: dict[str, Any]) -> tuple[Unit, dict[str, Any]]:
    """The row that a name and options mean, and the settings that are no options."""
    rows = _BY_NAME.get(name) if isinstance(name, str) else None
    if rows is None:
        raise UnitsError(f"there is no {name!r} in the table of units", _nearest(name))
    options = {option for row in rows for option in row.when}
    told = {key: str(value) for key, value in settings.items() if key in options}
    rest = {key: value for key, value in settings.items() if key not in options}
    fitting = [row for row in rows if _fits(row, told)]
    if not fitting:
        said = ", ".join(f"{key}={settings[key]!r}" for key in told)
        raise UnitsError(f"{name} was not measured with {said}", _options(rows))
    assumed = [row for row in fitting if row.assumed or not row.when.keys() - told.keys()]
    if len(assumed) != 1:
        raise UnitsError(f"{name} is something else by its options", _options(rows))
    return assumed[0], rest


def _fits(row: Unit, told: dict[str, str]) -> bool:
    return all(
        told[option].lower() in (value.lower() for value in values)
        for option, values in row.when.items()
        if option in told
    )


def _check_known(unit: Unit, settings: dict[str, Any]) -> None:
    """Raises UnitsError if there is no formula, or a setting is none of it."""
    if unit.why_not:
        raise UnitsError(f"{unit.title} has no counterpart", unit.why_not)
    known = [each.text for each in unit.settings]
    strange = settings.keys() - set(known)
    if strange:
        raise UnitsError(
            f"{unit.title} got {_listed(strange)}, which its formula {unit.penalty} has not",
            f"give it {_listed(known)}{_beside(unit)}",
        )


def _values(unit: Unit, settings: dict[str, Any]) -> dict[str, float]:
    """The settings of a formula as numbers."""
    _check_known(unit, settings)
    values = {}
    for each in unit.settings:
        value = settings.get(each.text, each.default)
        if value is None:
            means = f" ({each.means})" if each.means else ""
            every = _listed(each.text for each in unit.settings)
            raise UnitsError(
                f"{unit.title} needs {each.text}{means}",
                f"its formula is {unit.penalty}; give it {every}",
            )
        values[each.text] = each.checked(unit.name, value)
    return values


def _beside(unit: Unit) -> str:
    options = [] if not unit.when else [f"options: {', '.join(unit.when)}"]
    notes = [unit.note] if unit.note else []
    return "".join(f" ({text})" for text in [*options, *notes])


def _listed(words: Any) -> str:
    found = sorted(words) if isinstance(words, set | dict) else list(words)
    return " and ".join(", ".join(found).rsplit(", ", 1))


def _options(rows: Sequence[Unit]) -> str:
    return f"the table has {', '.join(row.title for row in rows)}"


def _nearest(name: object) -> str:
    """The names that look like one, by the whole of it or by what stands after the library."""
    wanted = str(name).lower()
    whole = {known.lower(): known for known in _BY_NAME}
    close = [whole[found] for found in get_close_matches(wanted, whole, 4, 0.6)]
    last = wanted.rpartition(".")[2]
    close += [known for known in _BY_NAME if known.lower().rpartition(".")[2] == last]
    found = list(dict.fromkeys(close))[:6]
    if not found:
        return "penalize.units.names() lists what there is"
    return f"the nearest are {', '.join(map(repr, found))}"
