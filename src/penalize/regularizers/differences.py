"""Penalties on the differences of neighbours along an axis."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import ClassVar, Self

from penalize.backends import Array, Backend
from penalize.errors import RegularizerError, ShapeError
from penalize.regularizers.base import Regularizer
from penalize.regularizers.kinks import Kinks
from penalize.regularizers.place import Place


class AlongAxis(Regularizer):
    """A penalty with a field ``axis``, along which elements have neighbours."""

    axis: int

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            object.__setattr__(self, "axis", operator.index(self.axis))
        except TypeError:
            raise RegularizerError(
                f"{type(self).__name__} got axis={self.axis!r}", "expected a whole number"
            ) from None

    def resolve(self, place: Place) -> Self:
        if place.shape is not None:
            self._check(place.shape, str(place))
        return self

    def _check(self, shape: tuple[int, ...], where: str = "") -> None:
        ndim = len(shape)
        if not -ndim <= self.axis < ndim:
            expected = f"one with an axis {self.axis}"
            raise ShapeError(self, shape, expected, where)

    def _last(self, w: Array, xp: Backend) -> Array:
        """The axis last: a matrix with a chain of neighbours in each row."""
        self._check(tuple(w.shape))
        moved = xp.transpose(w, _exchange(len(w.shape), self.axis))
        length = w.shape[self.axis]
        count = 1
        for size in moved.shape[:-1]:
            count *= size
        return xp.reshape(moved, (count, length))

    def _back(self, rows: Array, w: Array, xp: Backend) -> Array:
        order = _exchange(len(w.shape), self.axis)
        return xp.transpose(xp.reshape(rows, [w.shape[axis] for axis in order]), order)

    def _solved(self, name: str, w: Array, step: float | Array, xp: Backend) -> Array:
        """What a function of :mod:`chains` makes of the rows, with a weight for each element."""
        from penalize.regularizers import chain_derivatives, chains  # which load NumPy

        f, back = getattr(chains, name), getattr(chain_derivatives, name)
        steps = step + 0.0 * w
        return self._back(xp.host(f, back, self._last(w, xp), self._last(steps, xp)), w, xp)

    def _why_not_prox(self, per_element: bool) -> str:
        return ""


def _exchange(ndim: int, axis: int) -> list[int]:
    """An order of axes that exchanges one with the last; it is its own inverse."""
    order = list(range(ndim))
    order[axis % ndim], order[-1] = order[-1], order[axis % ndim]
    return order


def _differences(rows: Array) -> Array:
    return rows[:, 1:] - rows[:, :-1]


def _nearest(values: Array, distance: Array, direction: int, xp: Backend) -> tuple[Array, Array]:
    """The nearest known value to the left of each place (1) or to the right (−1), and how far.

    What is known has distance 0, as the outermost have; all else begins beyond any distance. The
    reach doubles in each round.
    """
    size = int(values.shape[1])

    def moved(x: Array, by: int) -> Array:
        parts = [x[:, :by], x[:, :-by]] if direction > 0 else [x[:, by:], x[:, -by:]]
        return xp.concat(parts, 1)

    by = 1
    while by < size:
        unknown = distance >= size
        values = xp.where(unknown, moved(values, by), values)
        distance = xp.where(unknown, moved(distance, by) + by, distance)
        by *= 2
    return values, distance


@dataclass(frozen=True, repr=False)
class FusedLasso(AlongAxis):
    """The total variation in one dimension: λ Σ |w_{i+1} − w_i| along an axis.

    Neighbours become exactly equal. ``gradient`` is the subgradient of least norm: within a run of
    equal elements what pulls at its two ends is spread evenly over all of them. ``prox`` is exact,
    in linear time, by dynamic programming over the derivative of the minimum so far; with one step
    or one per element. It is computed in float64 on the host. The value can be differentiated once,
    and the prox once, backwards.

    With an L1 beside it, one step, ``prox`` is soft-thresholding after that of the differences
    (Friedman, Hastie, Höfling and Tibshirani, Pathwise coordinate optimization, 2007).

    Args:
        strength: λ, finite and ≥ 0.
        axis: along which elements have neighbours.

    Raises:
        StrengthError: the strength is not a finite number ≥ 0.
        RegularizerError: the axis is no whole number.
        ShapeError: in ``regularize`` or when it is applied, if the array has no such axis.

    Source: Tibshirani, Saunders, Rosset, Zhu and Knight, Sparsity and smoothness via the fused
    lasso (2005); the prox: Johnson, A dynamic programming algorithm for the fused lasso and
    L0-segmentation (2013).
    """

    l1_follows_prox: ClassVar[bool] = True
    no_kinks = 'its kinks are where neighbours are equal, not where they are 0. Use mode="proximal"'
    weak_convexity: ClassVar[float | None] = 0.0

    strength: float
    axis: int = -1

    def _value(self, w: Array, xp: Backend) -> Array:
        rows = self._last(w, xp)
        if not rows.shape[0] or rows.shape[1] < 2:
            return 0.0 * xp.sum(w)
        fixed = xp.stop(rows)
        value = self.strength * xp.sum(xp.abs(_differences(fixed)))
        # rows − fixed is 0, and has the derivative 1.
        return value + xp.sum(self._slopes(fixed, xp) * (rows - fixed))

    def _gradient(self, w: Array, xp: Backend) -> Array:
        rows = self._last(w, xp)
        if not rows.shape[0] or rows.shape[1] < 2:
            return 0.0 * w
        return self._back(self._slopes(rows, xp), w, xp)

    def _slopes(self, rows: Array, xp: Backend) -> Array:
        """Dᵀz, where z is the sign of each difference, and free in [−1, 1] where that is 0.

        Over a run of equal elements it sums to what z is at the run's ends, whatever it is in
        between. It is shortest if it is spread evenly: z goes in a straight line, which it may.
        """
        d = _differences(rows)
        edge = 0.0 * rows[:, :1]
        signs = xp.concat([edge, xp.sign(d), edge], 1)
        inner = xp.where(xp.abs(d) <= 0, rows.shape[1] + 2.0, 0.0 * d)
        unknown = xp.concat([edge, inner, edge], 1)
        before, left = _nearest(signs, unknown, 1, xp)
        after, right = _nearest(signs, unknown, -1, xp)
        length = left[:, :-1] + right[:, 1:] + 1
        return self.strength * (before[:, :-1] - after[:, 1:]) / length

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        return self._solved("fused", w, step * self.strength, xp)


@dataclass(frozen=True, repr=False)
class Smoothness(AlongAxis):
    """Squared differences of neighbours: λ Σ (w_{i+1} − w_i)² along an axis.

    ``gradient`` is 2λ·DᵀDw, where D takes differences. ``prox`` solves (I + 2·step·λ·DᵀD)u = w, a
    tridiagonal system, in linear time; with one step or one per element. It is computed in float64
    on the host, and can be differentiated once, backwards.

    Args:
        strength: λ, finite and ≥ 0.
        axis: along which elements have neighbours.

    Raises:
        StrengthError: the strength is not a finite number ≥ 0.
        RegularizerError: the axis is no whole number.
        ShapeError: in ``regularize`` or when it is applied, if the array has no such axis.

    Source: Whittaker, On a new method of graduation (1922).
    """

    weak_convexity: ClassVar[float | None] = 0.0

    strength: float
    axis: int = -1

    def _value(self, w: Array, xp: Backend) -> Array:
        d = _differences(self._last(w, xp))
        return self.strength * xp.sum(d * d)

    def _gradient(self, w: Array, xp: Backend) -> Array:
        rows = self._last(w, xp)
        if rows.shape[1] < 2:
            return 0.0 * w
        d = _differences(rows)
        edge = 0.0 * rows[:, :1]
        slopes = xp.concat([edge, d], 1) - xp.concat([d, edge], 1)
        return self._back((2 * self.strength) * slopes, w, xp)

    def kinks(self) -> Kinks:
        return Kinks()

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        return self._solved("smooth", w, step * self.strength, xp)
