"""A penalty whose strength follows the steps of training."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from penalize import schedules
from penalize.backends import Array, Backend
from penalize.errors import ConfigError
from penalize.regularizers.base import Regularizer, check_strength, described, read_from
from penalize.regularizers.kinks import Kinks
from penalize.regularizers.place import Place
from penalize.regularizers.wrapped import Wrapped


@dataclass(frozen=True, repr=False)
class Scheduled(Wrapped):
    """A penalty over time: schedule(t)·Ω at step t, written ``r * schedule``.

    Value, gradient and prox are known :meth:`at` a step only; whoever applies a plan counts the
    steps, from 0, and asks for it. A prox of schedule(t)·Ω is the one of Ω with schedule(t) times
    the step. It is never traced anew: where a step is compiled, the count is one of its inputs.

    Args:
        regularizer: Ω.
        schedule: a function of the step that gives a factor ≥ 0: one of :mod:`penalize.schedules`,
            or any other callable, which must take a traced integer where the framework traces.

    Raises:
        StrengthError: at a step, if the schedule gives a number that is not finite and ≥ 0.
        NoStepError: when it is computed without a step.
    """

    on_shards = Wrapped.on_shards
    strengths: ClassVar[tuple[str, ...]] = ()

    regularizer: Regularizer
    schedule: Callable[[Any], Any]

    @property
    def prox_follows_l1(self) -> bool:  # type: ignore[override]
        return self.regularizer.prox_follows_l1

    @property
    def scheduled(self) -> bool:
        return True

    def at(self, step: Any) -> Regularizer:
        factor = self.schedule(step)
        if isinstance(factor, numbers.Real):
            factor = check_strength(repr(self.schedule), f"factor at step {step}", factor)
        return self.regularizer.at(step).scaled(factor)

    def _value(self, w: Array, xp: Backend) -> Array:
        raise NotImplementedError  # at() first, which a sentence says

    def split(self) -> tuple[float, float, tuple[Regularizer, ...]]:
        return self.regularizer.split()

    def kinks(self) -> Kinks:
        return self.regularizer.kinks()

    def resolve(self, place: Place) -> Self:
        return replace(self, regularizer=self.regularizer.resolve(place))

    def scaled(self, factor: Any) -> Self:
        return replace(self, regularizer=self.regularizer.scaled(factor))

    def __mul__(self, factor: object) -> Any:
        if not isinstance(factor, numbers.Real):
            return super().__mul__(factor)
        return replace(self, regularizer=self.regularizer * factor)

    __rmul__ = __mul__

    def unit(self) -> Any:
        return self.regularizer.unit()

    def merged(self, other: Regularizer) -> Self | None:
        return None

    def get_config(self) -> dict[str, Any]:
        return {
            "regularizer": described(self.regularizer),
            "schedule": schedules.described(self.schedule),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        if not (isinstance(config, Mapping) and config.keys() == {"regularizer", "schedule"}):
            raise ConfigError(cls.__name__, config, "it needs a regularizer and a schedule")
        return cls(
            read_from(cls.__name__, config, config["regularizer"]),
            schedules.read_from(cls.__name__, config, config["schedule"]),
        )

    def __repr__(self) -> str:
        inner = repr(self.regularizer)
        name = getattr(self.schedule, "__name__", None)
        return f"{f'({inner})' if ' ' in inner else inner} * {name or repr(self.schedule)}"
