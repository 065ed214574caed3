"""Strength over time: functions of the step of training, which multiply a regularizer.

``L1(1e-4) * warmup(1000)``. Any callable of the step will do; those here are plain values that
compare, print and are saved, and take the step as a number or as a traced integer.
"""

from __future__ import annotations

import math
import numbers
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from penalize.backends import Array, Backend, open_array
from penalize.errors import ConfigError, ScheduleError


@dataclass(frozen=True, repr=False)
class Schedule(ABC):
    """A factor ≥ 0 that depends on the step of training, which counts from 0."""

    word: ClassVar[str]
    """The function that makes it."""

    def __call__(self, step: Any) -> Any:
        """The factor at a step: a number, or an integer array of any framework without axes."""
        if isinstance(step, numbers.Real):
            from penalize.backends import numpy

            return float(self._at(numpy.real(step), numpy))
        array, xp = open_array(step)
        return self._at(xp.real(array), xp)

    @abstractmethod
    def _at(self, t: Array, xp: Backend) -> Array: ...

    def __repr__(self) -> str:
        arguments = [getattr(self, f.name) for f in fields(self)]
        return f"{self.word}({', '.join(map(repr, arguments))})"

    def get_config(self) -> dict[str, Any]:
        """The arguments as plain data."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True, repr=False)
class Ramp(Schedule):
    """A factor that goes to another one over some steps, and stays there."""

    word = "linear"

    start: float
    stop: float
    steps: int
    begin: int = 0

    def __repr__(self) -> str:
        if self == Ramp(0.0, 1.0, self.steps):
            return f"warmup({self.steps})"
        begin = f", {self.begin}" if self.begin else ""
        return f"{self.word}({self.start!r}, {self.stop!r}, {self.steps}{begin})"

    def _done(self, t: Array, xp: Backend) -> Array:
        """How much of the way is done: from 0 to 1."""
        return xp.clip((t - self.begin) / self.steps, 0.0, 1.0)

    def _at(self, t: Array, xp: Backend) -> Array:
        return self.start + (self.stop - self.start) * self._done(t, xp)


class Cosine(Ramp):
    """The same along half a wave of the cosine."""

    word = "cosine"

    def _at(self, t: Array, xp: Backend) -> Array:
        left = (1 + xp.cos(math.pi * self._done(t, xp))) / 2
        return self.stop + (self.start - self.stop) * left


@dataclass(frozen=True, repr=False)
class Piecewise(Schedule):
    """A factor that is constant between steps."""

    word = "piecewise"

    factors: tuple[tuple[int, float], ...]

    def _at(self, t: Array, xp: Backend) -> Array:
        (_, first), *later = self.factors
        factor = 0 * t + first
        for begin, value in later:
            factor = xp.where(t >= begin, 0 * t + value, factor)
        return factor

    def __repr__(self) -> str:
        return f"piecewise({dict(self.factors)!r})"


@dataclass(frozen=True, repr=False)
class Staircase(Schedule):
    """A factor that is multiplied by another again and again."""

    word = "step"

    every: int
    factor: float

    def _at(self, t: Array, xp: Backend) -> Array:
        return self.factor ** (t // self.every)


def warmup(steps: int) -> Schedule:
    """A factor that goes from 0 at the first step to 1 after ``steps`` steps: min(t/steps, 1).

    Raises:
        ScheduleError: the number of steps is no whole number ≥ 1.
    """
    return linear(0.0, 1.0, steps)


def linear(start: float, stop: float, steps: int, begin: int = 0) -> Schedule:
    """A factor that moves in a straight line.

    It is start + (stop − start)·min(max(t − begin, 0)/steps, 1).

    Args:
        start, stop: the factors before and after, finite and ≥ 0.
        steps: how long it takes, ≥ 1.
        begin: the step at which it begins.

    Raises:
        ScheduleError: a factor is not a finite number ≥ 0, or a number of steps is no whole number.
    """
    return Ramp(*_checked("linear", start, stop, steps, begin))


def cosine(start: float, stop: float, steps: int, begin: int = 0) -> Schedule:
    """A factor that moves along a cosine: stop + (start − stop)·½(1 + cos πx).

    x is the way done, from 0 to 1.

    Args and errors are those of :func:`linear`.
    """
    return Cosine(*_checked("cosine", start, stop, steps, begin))


def step(every: int, factor: float) -> Schedule:
    """A factor that is multiplied by ``factor`` after each ``every`` steps: factor^⌊t/every⌋.

    Raises:
        ScheduleError: the factor is not a finite number ≥ 0, or ``every`` no whole number ≥ 1.
    """
    return Staircase(_steps("step", every, 1), _factor("step", factor))


def piecewise(factors: Mapping[int, float]) -> Schedule:
    """A factor that is constant from each step on: ``piecewise({0: 1.0, 1000: 0.1})``.

    Raises:
        ScheduleError: it is no mapping from steps, 0 among them, to finite numbers ≥ 0.
    """
    # A saved configuration has the pairs.
    pairs = list(factors.items()) if isinstance(factors, Mapping) else factors
    listed = isinstance(pairs, list | tuple) and all(_is_pair(pair) for pair in pairs)
    known = pairs if listed else []
    rows = sorted((_steps("piecewise", t, 0), _factor("piecewise", x)) for t, x in known)
    if not rows or rows[0][0] != 0:
        raise ScheduleError(
            f"piecewise got {factors!r}",
            "expected a mapping from step to factor that begins at 0, such as {0: 1.0, 1000: 0.1}",
        )
    return Piecewise(tuple(rows))


_MAKERS: dict[Any, Callable[..., Schedule]] = {
    "linear": linear,
    "cosine": cosine,
    "step": step,
    "piecewise": piecewise,
}


def described(schedule: Any) -> dict[str, Any]:
    """A schedule within a configuration; a function that is not of this module by its name."""
    if isinstance(schedule, Schedule):
        return {"schedule": schedule.word, **schedule.get_config()}
    named = schedule if hasattr(schedule, "__qualname__") else type(schedule)
    return {"schedule": "function", "name": f"{named.__module__}.{named.__qualname__}"}


def read_from(owner: str, config: Any, found: Any) -> Schedule:
    """What :func:`described` wrote. Raises :class:`ConfigError` where that is not known here."""
    arguments = dict(found) if isinstance(found, Mapping) else {}
    make = _MAKERS.get(str(arguments.pop("schedule", None)))
    if make is None:
        raise ConfigError(
            owner, config, f"its schedule is none of {sorted(_MAKERS)}, and a function is not saved"
        )
    try:
        return make(**arguments)
    except TypeError as error:
        raise ConfigError(owner, config, str(error)) from None


MOST_STEPS = 2**53
"""Up to there every number of steps is a float64, too."""


def why_not_a_count(steps: object) -> str:
    """Why something is no number of steps, as a saved state has one; empty where it is."""
    if not isinstance(steps, int) or isinstance(steps, bool):
        return f"{steps!r} is a {type(steps).__name__}, and no whole number of steps"
    if not 0 <= steps <= MOST_STEPS:
        return f"{steps!r} steps were never taken: expected a number from 0 to {MOST_STEPS}"
    return ""


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list | tuple) and len(pair) == 2


def _checked(
    word: str, start: Any, stop: Any, steps: Any, begin: Any
) -> tuple[float, float, int, int]:
    return (
        _factor(word, start),
        _factor(word, stop),
        _steps(word, steps, 1),
        _steps(word, begin, 0),
    )


def _factor(word: str, value: Any) -> float:
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (real and math.isfinite(value) and value >= 0):
        raise ScheduleError(f"{word} got the factor {value!r}", "expected a finite number >= 0")
    return float(value)


def _steps(word: str, value: Any, least: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise ScheduleError(f"{word} got {value!r} steps", f"expected a whole number >= {least}")
    return number
