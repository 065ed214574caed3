"""What the kernels of a half-space step compute: :mod:`penalize.halfspace`, written by a tracer.

Between the two hooks of a step something has to be kept of the weight as it was. Where elements are
treated one by one it is three bits for each: on which side it is, and whether it is a zero that a
kink holds. Where there are groups it is a copy, and the sums over groups that are needed again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from penalize.halfspace import HalfSpace, Memory, crossed, noted
from penalize.torch.kernels.forms import Form, Outline
from penalize.torch.kernels.loops import needed
from penalize.torch.kernels.symbols import Extent, Symbol, Tracer

FLAT, GROUPED = ("before", "after"), ("before", "moved", "after")
"""The kernels of a step, in order: before the update, how far it moved the weights, after it."""

TASKS = frozenset(GROUPED)

REMEMBERED = ("mass", "moved", "pulled", "recently_moved", "recently_pulled", "held")
"""What they read of the memory of a weight; the mass of before the step."""

NUMBERS = ("sign", *REMEMBERED)


def outlines_of(
    form: Form, xp: Tracer, *, is_flat: bool, average: float, weight: str, mean: str
) -> dict[str, Outline]:
    """What each kernel of a step reads, computes and stores.

    Args:
        form: Ω without its strengths.
        xp: writes down what all of them compute.
        is_flat: whether elements are treated one by one.
        average: how much of an average stays in a step.
        weight: LLVM's name of the type of weights.
        mean: the same of their averages.
    """
    step = _Step(form, average, xp)
    given = {"g": step.given, "next": step.memory.mean}
    reads = {"w": "w", "g": "g", "mean": "mean"}
    if is_flat:
        arrays = {"w": weight, "g": weight, "mean": mean, "next": mean, "past": "i8"}
        before = Outline(arrays, NUMBERS, reads, {**given, "past": step.bits}, [])
        bits = {name: f"past.{i}" for i, name in enumerate(_BITS)}
        after = Outline(
            {"w": weight, "past": "i8"}, NUMBERS, {"new": "w", **bits}, *step.after_flat
        )
        return {"before": before, "after": after}
    found, counts = step.after
    again = _again(xp, [found["w"], *counts, step.moved])
    arrays = {"w": weight, "g": weight, "mean": mean, "next": mean, "past": weight, "sums": mean}
    outs, last = {**given, "past": step.w}, {"new": "w", "w": "past", step.memory.mean.name: "next"}
    kept = {name: arrays[name] for name in ("w", "next", "past", "sums")}
    return {
        "before": Outline(arrays, NUMBERS, reads, outs, [step.pulled], again, keeps=True),
        "moved": Outline(kept, NUMBERS, last, {}, [step.moved], again),
        "after": Outline(kept, NUMBERS, last, found, counts, again),
    }


_BITS = ("below", "above", "zero")
"""Of an element with a kink: whether its side is ≤ 0, or ≥ 0; whether it is a zero that is held."""


class _Step:
    """All that is computed in a step."""

    def __init__(self, form: Form, average: float, xp: Tracer) -> None:
        self._xp: Any = xp
        arrays = ("w", "g", "mean", "new", *_BITS)
        self.w, g, mean, self._new, *self._bits = (xp.symbol(x, Extent.TILE) for x in arrays)
        sign, nothing = xp.symbol("sign"), xp.symbol("zeros")
        known = {name: xp.symbol(name) for name in REMEMBERED}
        penalty = form.build([xp.symbol(f"s{i}") for i in range(form.count)])
        self._space = HalfSpace(penalty, self.w, average, self._xp)
        memory = Memory(mean=mean, zeros=nothing, left=nothing, **known)
        self.memory = noted(g * sign, memory, average, self._xp)
        self._slope = self._space.slope()
        given = self._space.given(g * sign, self._slope, self.memory)
        self.given = given * sign
        self.pulled = self._space.along(given, self._slope, self.memory)

    @property
    def bits(self) -> tuple[Any, ...]:
        """Of each element."""
        space = self._space
        if space.zeros.elements is None:  # there is no kink
            return (self.w > self.w,) * len(_BITS)
        side, on = space.side(self._slope, self.memory), space.kinks.element > 0
        return (side <= 0) & on, (side >= 0) & on, space.held()

    @property
    def after_flat(self) -> tuple[dict[str, Symbol], list[Symbol]]:
        """The weight with its zeros, from the bits; how many there were, and how many left."""
        below, above, held = self._bits
        found = self._xp.where(crossed(self._new, below, above), 0.0, self._new)
        return {"w": found}, self._counts(held, found)

    @property
    def moved(self) -> Any:
        """How far it moved."""
        return self._space.along(self.w - self._new, self._slope, self.memory)

    @property
    def after(self) -> tuple[dict[str, Any], list[Symbol]]:
        """As of what is flat, from the weight as it was."""
        found = self._space.found(self._new, self._slope, self.memory)
        return {"w": found}, self._counts(self._space.held(), found)

    def _counts(self, held: Any, found: Any) -> list[Symbol]:
        left = held & (self._xp.abs(found) > 0)
        return [self._xp.sum(self._xp.where(each, 1.0, 0.0)) for each in (held, left)]


def _again(xp: Tracer, ends: Iterable[Symbol]) -> list[Symbol]:
    """The sums over groups that are needed after the update, and known before it."""
    wanted = needed(xp.operations, [end.name for end in ends])
    return [
        xp.symbol(name, Extent.ROW)
        for name, operation in xp.operations.items()
        if name in wanted and operation.name == "sum" and "new" not in needed(xp.operations, [name])
    ]
