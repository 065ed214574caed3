"""The units of a chain of layers: who makes them, who reads them, and which may go.

Units stand on the last axis of arrays, as channels of Keras and Flax do. A wing walks over its
layers and says here what each does with them; the mathematics is NumPy's, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from penalize.compacting.report import Layer

Array = np.ndarray[Any, np.dtype[Any]]

LIVES = "it changes with the input"
ONE = "a layer keeps one unit"
SAME = 1e-6
"""How far apart, relative, two constants may be that rounding alone makes different."""
NONE = -1
"""The unit of what is part of none, as an input of the model."""


class AxisUnits(NamedTuple):
    """What is known of the last axis of an array.

    Args:
        ids: the unit of which each index is a part.
        constant: the number that each index is, whatever the finite inputs of the model are, and
            wherever else in the array; NaN where it is none.
    """

    ids: Array
    constant: Array

    @classmethod
    def plain(cls, count: int) -> AxisUnits:
        """An axis of which nothing is known."""
        return cls(np.full(count, NONE), np.full(count, np.nan))

    def with_constant(self, constant: Array) -> AxisUnits:
        """The same units, as other numbers; what is not finite is none."""
        return AxisUnits(self.ids, np.where(np.isfinite(constant), constant, np.nan))

    def mapped(self, f: Callable[[Array], Array]) -> AxisUnits:
        """After a function of one element, which takes an array."""
        known = ~np.isnan(self.constant)
        made = np.full(len(self.ids), np.nan)
        if known.any():
            made[known] = f(self.constant[known])
        return self.with_constant(made)

    def tiled(self, times: int) -> AxisUnits:
        """After axes before it are flattened into it."""
        return AxisUnits(np.tile(self.ids, times), np.tile(self.constant, times))


_QUIET = np.errstate(all="ignore")
"""What is not finite is no constant, and needs no warning."""


@dataclass(frozen=True)
class LinearMap:
    """A layer x ↦ x W + b on the last axis, or a convolution.

    Args:
        weight: the name of W.
        kernel: W in float64: window × inputs × outputs, with any number of axes in the window.
        bias: the name of b, into which constants may be put; empty where there is none.
        offset: b; zeros where there is none.
        spread: why a constant that is not 0 does not become one number; empty if it does.
        positions: at how many places of the example's output it is computed.
    """

    weight: str
    kernel: Array
    bias: str
    offset: Array
    spread: str = ""
    positions: int = 1

    @property
    def flat(self) -> Array:
        """The kernel with one axis for its window."""
        return self.kernel.reshape(-1, *self.kernel.shape[-2:])


class _Reader(NamedTuple):
    map: LinearMap
    read: AxisUnits
    made: Array


class ChainCut(NamedTuple):
    """What goes, and what stays though it is dead."""

    indices: Mapping[tuple[str, int], Array]
    """Of each axis of a weight that loses some, the indices that stay."""
    offsets: Mapping[str, Array]
    """What is added to biases, before they are cut."""
    rows: list[Layer]
    """What each layer lost."""
    operations: tuple[int, int]
    """Of the maps on the example, before and after."""

    def left_of(self, name: str, w: Array) -> Array:
        """What stays of a weight, with what is added to it, in its own type."""
        x = w.astype(np.float64) + self.offsets[name] if name in self.offsets else w
        for axis in range(w.ndim):
            if (name, axis) in self.indices:
                x = x.take(self.indices[name, axis], axis)
        return x.astype(w.dtype)


class ChainWiring:
    """What the layers of a model do with units, noted in the order in which they are called."""

    def __init__(self) -> None:
        self._count = 0
        self._readers: dict[str, _Reader] = {}
        self._axes: dict[tuple[str, int], Array] = {}
        self._kept: dict[int, str] = {}
        self._lost: dict[int, str] = {}
        self._dead: set[int] = set()
        self._each: set[str] = set()
        self._operations: list[tuple[Array, Array, int]] = []

    # --- what a layer does --------------------------------------------------------------------

    @_QUIET
    def maps(self, x: AxisUnits, layer: LinearMap) -> AxisUnits:
        """A layer that reads units with weights, and makes others.

        What is noted again, of inputs of other sizes, has to be read as the same constants.
        """
        flat, ndim = layer.flat, layer.kernel.ndim
        before = self._readers.get(layer.weight)
        if before is None:
            made = np.arange(self._count, self._count + flat.shape[2])
            self._count += len(made)
            self._readers[layer.weight] = _Reader(layer, x, made)
            self._operations.append((x.ids, made, 2 * layer.positions * len(flat)))
        else:
            made = before.made
            self._readers[layer.weight] = before._replace(read=self._same(before, x))
        self.axis(layer.weight, ndim - 2, x.ids)
        self.axis(layer.weight, ndim - 1, made)
        if layer.bias:
            self.axis(layer.bias, 0, made)
        known = ~np.isnan(x.constant) & ((x.constant == 0) | (layer.spread == ""))
        changes = (flat[:, ~known] != 0).any(axis=(0, 1))
        constant = layer.offset + x.constant[known] @ flat[:, known].sum(0)
        return self._noted(
            AxisUnits(made, np.full(len(made), np.nan)), np.where(changes, np.nan, constant)
        )

    def _same(self, before: _Reader, x: AxisUnits) -> AxisUnits:
        """What a layer reads at one size, where it is the same at another."""
        one, other = before.read.constant, x.constant
        same = np.isclose(one, other, rtol=SAME, atol=0.0)
        why = f"{before.map.weight!r} reads it as another constant at another size"
        self.loses(x.ids[~(np.isnan(one) | np.isnan(other) | same)], why)
        return AxisUnits(x.ids, np.where(same, one, np.nan))

    @_QUIET
    def scales(self, x: AxisUnits, names: Iterable[str], scale: Array, shift: Array) -> AxisUnits:
        """x·scale + shift for each index, as batch norm in evaluation does."""
        for name in names:
            self.axis(name, 0, x.ids)
        return self._noted(x, np.where(scale == 0, shift, x.constant * scale + shift))

    @_QUIET
    def each(self, x: AxisUnits, layer: LinearMap) -> AxisUnits:
        """A convolution of each channel by itself: its kernel is window × inputs × multiplier.

        Which axes of its own kernel have the units is for the wing to say.
        """
        times, flat = layer.kernel.shape[-1], layer.flat
        made = AxisUnits(np.repeat(x.ids, times), np.repeat(x.constant, times))
        if layer.bias:
            self.axis(layer.bias, 0, made.ids)
        if layer.weight not in self._each:
            self._each.add(layer.weight)
            self._operations.append((made.ids, np.full(1, NONE), 2 * layer.positions * len(flat)))
        is_zero, total = (flat == 0).all(0).ravel(), flat.sum(0).ravel()
        spread = (made.constant != 0) & (layer.spread != "") & ~is_zero
        self.loses(made.ids[spread & ~np.isnan(made.constant)], f"{layer.weight!r} {layer.spread}")
        found = np.where(spread, np.nan, made.constant * total + layer.offset)
        return self._noted(made, np.where(is_zero, layer.offset, found))

    def pads(self, x: AxisUnits, why: str) -> AxisUnits:
        """Zeros, which come beside constants."""
        self.loses(x.ids[~np.isnan(x.constant) & (x.constant != 0)], why)
        return x.with_constant(np.where(x.constant == 0, 0.0, np.nan))

    def axis(self, name: str, axis: int, ids: Array) -> None:
        """Note that an axis of a weight has these units; where they have been others, all stay."""
        before = self._axes.setdefault((name, axis), ids)
        if not np.array_equal(before, ids):
            why = f"{name!r} is used with other units at another size"
            self.keep(before, why)
            self.keep(ids, why)

    def knows(self, weight: str) -> bool:
        """Whether it was noted what a weight reads."""
        return weight in self._readers or weight in self._each

    def keep(self, ids: Array, why: str) -> None:
        """Let none of these go."""
        for each in _distinct(ids):
            self._kept.setdefault(each, why)

    def loses(self, ids: Array, why: str) -> None:
        """Note why units that were constants are none any more."""
        self._lost.update(dict.fromkeys(_distinct(ids), why))

    def _noted(self, x: AxisUnits, constant: Array) -> AxisUnits:
        found = x.with_constant(constant)
        self._dead.update(_distinct(x.ids[~np.isnan(found.constant) & np.isnan(x.constant)]))
        return found

    # --- what may go --------------------------------------------------------------------------

    def decided(self) -> ChainCut:
        """The cut that changes no output: from the last layer to the first.

        So what only units read that go themselves is read by nobody.
        """
        reasons, read, heard = dict(self._kept), set[int](), set[int]()
        gone: set[int] = set()
        for reader in reversed(self._readers.values()):
            goes = [u for u in reader.made.tolist() if u in read and u not in reasons]
            if len(goes) == len(reader.made):
                reasons[goes.pop(0)] = ONE
            gone.update(goes)
            left = ~_among(reader.made, gone)
            silent = (reader.map.flat[:, :, left] == 0).all(axis=(0, 2))
            for u, why in _objections(reader, left, silent):
                if reasons.get(u, LIVES) == LIVES:
                    reasons[u] = self._lost.get(u, why) if why == LIVES else why
            read.update(_distinct(reader.read.ids))
            heard.update(_distinct(reader.read.ids[~silent]))
        return self._cut(gone, reasons, self._dead | (read - heard))

    def _cut(self, gone: set[int], reasons: Mapping[int, str], dead: set[int]) -> ChainCut:
        left = {key: np.flatnonzero(~_among(ids, gone)) for key, ids in self._axes.items()}
        counts = [
            tuple(
                each * len(a) * len(b)
                for a, b in ((ids, made), (_left(ids, gone), _left(made, gone)))
            )
            for ids, made, each in self._operations
        ]
        return ChainCut(
            {key: kept for key, kept in left.items() if len(kept) < len(self._axes[key])},
            {
                r.map.bias: added
                for r in self._readers.values()
                if (added := _added(r, gone)) is not None
            },
            [_row(reader, gone, reasons, dead) for reader in self._readers.values()],
            (sum(a for a, _ in counts), sum(b for _, b in counts)),
        )


def _objections(reader: _Reader, left: Array, silent: Array) -> Iterator[tuple[int, str]]:
    """Units that have to stay as far as a reader is concerned, and why."""
    layer, flat = reader.map, reader.map.flat[:, :, left]
    finite = np.atleast_1d(np.isfinite(flat).all(axis=(0, 2)))
    for i in np.flatnonzero(~silent & (reader.read.ids != NONE)).tolist():
        unit, c = int(reader.read.ids[i]), float(reader.read.constant[i])
        if math.isnan(c):
            yield unit, LIVES
        elif not finite[i]:
            yield unit, f"{layer.weight!r} has a weight for it that is not finite"
        elif c != 0 and layer.spread:
            yield unit, f"it is a constant, not 0, and {layer.weight!r} {layer.spread}"
        elif c != 0 and not layer.bias:
            why = f"{layer.weight!r} has no bias beside it to hold that"
            yield unit, f"it is a constant, not 0, and {why}"


@_QUIET
def _added(reader: _Reader, gone: set[int]) -> Array | None:
    """What the constants that go have added to each output."""
    c, flat = reader.read.constant, reader.map.flat
    moved = _among(reader.read.ids, gone) & ~np.isnan(c) & (c != 0)
    moved &= (flat != 0).any(axis=(0, 2))
    if not (reader.map.bias and moved.any()):
        return None
    added: Array = c[moved] @ flat[:, moved].sum(0)
    return added


def _row(reader: _Reader, gone: set[int], reasons: Mapping[int, str], dead: set[int]) -> Layer:
    kept: dict[str, int] = {}
    for unit in reader.made.tolist():
        if unit in dead and unit not in gone:
            why = reasons.get(unit, LIVES)
            if why != LIVES:  # else it is one only in part, as with two kernels for a channel
                kept[why] = kept.get(why, 0) + 1
    return Layer(reader.map.weight, len(reader.made), len(_left(reader.made, gone)), kept)


def _distinct(ids: Array) -> list[int]:
    found: list[int] = np.unique(ids[ids != NONE]).tolist()
    return found


def _among(ids: Array, gone: set[int]) -> Array:
    return np.isin(ids, np.fromiter(gone, int, len(gone)))


def _left(ids: Array, gone: set[int]) -> Array:
    return ids[~_among(ids, gone)]
