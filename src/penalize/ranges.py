"""A strength that is still to be chosen: ``L1(search(1e-6, 1e-2))``."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

from penalize.errors import RegularizerError


@dataclass(frozen=True, repr=False)
class Search:
    """A range of numbers, one of which is to be chosen. Made by :func:`search`."""

    low: float
    high: float
    log: bool = True

    # NumPy arrays must leave ``array * search`` to what is below.
    __array_ufunc__: ClassVar[None] = None

    def _refuse(self, *_: object) -> NoReturn:
        raise RegularizerError(
            f"the strength {self!r} is not chosen yet",
            "pass the rules to penalize.torch.tune, which chooses it, or write a number",
        )

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __truediv__ = __rtruediv__ = __neg__ = __abs__ = __float__ = _refuse
    __lt__ = __le__ = __gt__ = __ge__ = _refuse

    def __repr__(self) -> str:
        return f"search({self.low!r}, {self.high!r}{'' if self.log else ', log=False'})"


def search(low: float, high: float, *, log: bool = True) -> Search:
    """A range in place of a strength, for :func:`penalize.torch.tune` to choose from.

    Args:
        low, high: its ends, finite, 0 ≤ low < high; above 0 where it is logarithmic.
        log: whether the logarithm of the strength is looked through evenly.

    Raises:
        RegularizerError: the ends are no such numbers.
    """
    real = all(isinstance(x, numbers.Real) and not isinstance(x, bool) for x in (low, high))
    least = math.nextafter(0.0, 1.0) if log else 0.0
    if not (real and least <= low < high < math.inf):
        raise RegularizerError(
            f"the range search({low!r}, {high!r})",
            f"expected finite numbers, {'0 < low' if log else '0 <= low'} < high",
        )
    return Search(float(low), float(high), bool(log))


def ranges_in(value: Any, name: str = "") -> Iterator[tuple[str, Search]]:
    """The ranges within a regularizer, each with the way to it: ``L1.strength``."""
    if isinstance(value, Search):
        yield name, value
    elif _has_parts(value):
        for i, each in enumerate(value):
            yield from ranges_in(each, f"{name}[{i}]")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        way = name or type(value).__name__
        for field in dataclasses.fields(value):
            yield from ranges_in(getattr(value, field.name), f"{way}.{field.name}")


def chosen(value: Any, choose: Callable[[str, Search], float], name: str = "") -> Any:
    """The same with a number for each range, by its name as :func:`ranges_in` has it."""
    if isinstance(value, Search):
        return choose(name, value)
    if _has_parts(value):
        return tuple(chosen(each, choose, f"{name}[{i}]") for i, each in enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and any(ranges_in(value)):
        way = name or type(value).__name__
        fields = {
            field.name: chosen(getattr(value, field.name), choose, f"{way}.{field.name}")
            for field in dataclasses.fields(value)
        }
        return dataclasses.replace(value, **fields)
    return value


def _has_parts(value: Any) -> bool:
    """Whether it is the terms of a sum. Other tuples, such as long partitions, hold numbers."""
    return isinstance(value, tuple) and bool(value) and dataclasses.is_dataclass(value[0])
