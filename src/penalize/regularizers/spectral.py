"""Penalties on the singular values of a matrix.

A kernel with more than two axes is read as the matrix whose rows are its outputs: the axes that
``rows`` names come first, all others lie flat behind them. The values of a matrix do not depend on
which of its two axes is called rows.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from penalize.backends import Array, Backend, repeated
from penalize.errors import GroupsError, RegularizerError, ShapeError
from penalize.regularizers import grouping
from penalize.regularizers.base import Regularizer, check_above
from penalize.regularizers.decomposed import Decomposed, carried
from penalize.regularizers.elementwise import above_zero, largest, soft_threshold
from penalize.regularizers.groups import norms_of
from penalize.regularizers.levels import level
from penalize.regularizers.place import Place


class OfMatrix(Regularizer):
    """A penalty that reads an array as a matrix; it has a field ``rows``."""

    rows: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        rows = grouping.normalise(self.rows)
        if not isinstance(rows, str | int) and not _are_axes(rows):
            raise GroupsError(
                rows, "the rows of a matrix are along axes", "name an axis, axes or a word"
            )
        object.__setattr__(self, "rows", rows)

    def resolve(self, place: Place) -> Self:
        shape = place.shape
        if shape is not None and len(shape) < 2:
            raise ShapeError(self, shape, "a matrix, or an array with more axes", str(place))
        if shape is not None and len(shape) == 2 and isinstance(self.rows, str):
            axis = place.axes.get(self.rows)
            return self._with(rows=0 if axis is None else axis)
        return self._with(rows=grouping.resolve(self.rows, place))

    def _axes(self, w: Array) -> tuple[list[int], list[int]]:
        """The axes of the rows, and the others."""
        ndim = len(w.shape)
        if ndim < 2:
            raise ShapeError(self, tuple(w.shape), "a matrix, or an array with more axes")
        word = isinstance(self.rows, str) and ndim == 2
        found = grouping.grouping_of(0 if word else self.rows, tuple(w.shape))
        assert isinstance(found, grouping.Axes)
        rows = sorted({axis % ndim for axis in found.axes})
        return rows, [axis for axis in range(ndim) if axis not in rows]

    def _matrix(self, w: Array, xp: Backend) -> Array:
        rows, others = self._axes(w)
        height, width = (math.prod([w.shape[axis] for axis in axes]) for axes in (rows, others))
        return xp.reshape(xp.transpose(w, [*rows, *others]), (height, width))

    def _array(self, matrix: Array, w: Array, xp: Backend) -> Array:
        """A matrix as the array that it was read from."""
        order = [axis for axes in self._axes(w) for axis in axes]
        back = [order.index(axis) for axis in range(len(order))]
        return xp.transpose(xp.reshape(matrix, [w.shape[axis] for axis in order]), back)


def _are_axes(rows: Any) -> bool:
    return isinstance(rows, tuple) and all(isinstance(axis, int) for axis in rows)


class Spectral(OfMatrix):
    """A symmetric function of the singular values: Ω(W) = φ(σ), where W = U diag(σ) Vᵀ.

    ``gradient`` is U diag(φ′(σ)) Vᵀ, with 0 for a σ that is 0 to rounding, and ``prox`` is
    U diag(prox_φ(σ)) Vᵀ (Lewis, The convex analysis of unitarily invariant matrix functions, 1995).

    The derivative of a singular value decomposition does not exist where two values are equal, that
    of Ω does. So none is differentiated: value, gradient and prox carry the derivatives that are
    known of them. The value can be differentiated twice, gradient and prox once; a third derivative
    is not there.
    """

    no_kinks = 'what becomes 0 is singular values, not elements. Use mode="proximal"'

    def _of(self, s: Array, xp: Backend) -> Array:
        """φ."""
        raise NotImplementedError

    def _slopes(self, s: Array, xp: Backend) -> Array:
        """φ′ by each singular value."""
        raise NotImplementedError

    def _bends(self, s: Array, xp: Backend) -> Array:
        """The derivative of each of the slopes by its own singular value."""
        raise NotImplementedError

    def _shrunk(self, s: Array, step: float | Array, xp: Backend) -> Array:
        """prox_φ, for singular values in order."""
        raise NotImplementedError

    def _is_taken(self, s: Array, shrunk: Array, xp: Backend) -> Array:
        """1 where a change of a singular value is all taken away by ``_shrunk``, 0 where none."""
        raise NotImplementedError

    def _why_not_prox(self, per_element: bool) -> str:
        if type(self)._shrunk is Spectral._shrunk:
            return "no closed form is known"
        return super()._why_not_prox(per_element)

    def _value(self, w: Array, xp: Backend) -> Array:
        if not math.prod(w.shape):
            return xp.sum(w)
        at = Decomposed.of(self._matrix(w, xp), xp)
        return carried(xp.stop(self._of(at.s, xp)), self._slope(at, w, xp), w, xp)

    def _gradient(self, w: Array, xp: Backend) -> Array:
        if not math.prod(w.shape):
            return w
        return self._slope(Decomposed.of(self._matrix(w, xp), xp), w, xp)

    def _slope(self, at: Decomposed, w: Array, xp: Backend) -> Array:
        """U diag(φ′(σ)) Vᵀ, with 0 for a σ that is 0 to rounding."""
        zero = at.s <= at.rounding(xp)
        slopes, bends = (xp.where(zero, 0.0, f(at.s, xp)) for f in (self._slopes, self._bends))
        live = xp.where(zero, 0.0, self._slopes(at.live(xp), xp))
        return self._array(at.matrix(live, slopes, bends, xp), w, xp)

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        if not math.prod(w.shape):
            return w
        at = Decomposed.of(self._matrix(w, xp), xp)
        # What is taken away, so that a step of 0 leaves w as it is.
        live = at.live(xp)
        shrunk = xp.stop(self._shrunk(at.s, step, xp))
        taken = at.s - shrunk
        rates = self._is_taken(at.s, shrunk, xp)
        matrix = at.matrix(live - self._shrunk(live, step, xp), taken, rates, xp)
        # Where everything goes, exact zeros.
        gone = (taken[:1] >= at.s[:1]) & (at.s[:1] > 0)
        return xp.where(gone, 0.0 * w, w - self._array(matrix, w, xp))


@dataclass(frozen=True, repr=False)
class NuclearNorm(Spectral):
    """The nuclear (trace) norm: λ Σ σ, the convex penalty for a low rank.

    ``gradient`` is λ·U Vᵀ over the singular values that are not 0; ``prox`` soft-thresholds them by
    step·λ, so that the rank falls (to rounding: the array itself is dense).

    Args:
        strength: λ, finite and ≥ 0.
        rows: ``"outputs"``, ``"inputs"``, an axis or axes: what the rows of the matrix are, where
            the array has more than two axes.

    Raises:
        StrengthError: the strength is not a finite number ≥ 0.
        GroupsError: the rows are along no such axes.
        ShapeError: when it is applied to a vector or a scalar.

    Source: Fazel, Hindi and Boyd, A rank minimization heuristic (2001); the prox: Cai, Candès and
    Shen, A singular value thresholding algorithm for matrix completion (2010).
    """

    weak_convexity: ClassVar[float | None] = 0.0

    strength: float
    rows: Any = "outputs"

    def _of(self, s: Array, xp: Backend) -> Array:
        return self.strength * xp.sum(s)

    def _slopes(self, s: Array, xp: Backend) -> Array:
        return self.strength + 0.0 * s

    def _bends(self, s: Array, xp: Backend) -> Array:
        return 0.0 * s

    def _shrunk(self, s: Array, step: float | Array, xp: Backend) -> Array:
        return soft_threshold(s, step * self.strength, xp)

    def _is_taken(self, s: Array, shrunk: Array, xp: Backend) -> Array:
        return xp.where(shrunk > 0, 0.0 * s, 1.0)

    def _strength_max(self, gradient: Array, xp: Backend) -> Array:
        _, s, _ = xp.svd(self._matrix(gradient, xp))
        return largest(s, xp) / above_zero(self, self.strength)


@dataclass(frozen=True, repr=False)
class SpectralNorm(Spectral):
    """The squared spectral norm: λ σ₁², of the largest singular value.

    ``gradient`` is 2λσ₁·u₁v₁ᵀ, shared evenly where several values are the largest to rounding;
    ``prox`` cuts the singular values at the t with Σ(σ_i − t)₊ = 2·step·λ·t.

    With ``iterations`` σ₁ is found by that many power iterations from a fixed start instead of a
    decomposition: cheaper, from below, and the same in each call. Then there is no prox.

    Args:
        strength: λ, finite and ≥ 0.
        iterations: None: exactly. A whole number ≥ 1: by so many power iterations.
        rows: as for :class:`NuclearNorm`.

    Raises:
        StrengthError: the strength is not a finite number ≥ 0.
        RegularizerError: the iterations are no whole number ≥ 1.
        GroupsError, ShapeError: as for :class:`NuclearNorm`.

    Source: Yoshida and Miyato, Spectral norm regularization for improving the generalizability of
    deep learning (2017), with ½λ.
    """

    weak_convexity: ClassVar[float | None] = 0.0

    strength: float
    iterations: int | None = None
    rows: Any = "outputs"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.iterations is not None:
            try:
                count = operator.index(self.iterations)
            except TypeError:
                count = 0
            if count < 1 or isinstance(self.iterations, bool):
                raise RegularizerError(
                    f"SpectralNorm got iterations={self.iterations!r}",
                    "expected a whole number >= 1, or None for the exact norm",
                )
            object.__setattr__(self, "iterations", count)

    def _of(self, s: Array, xp: Backend) -> Array:
        return self.strength * xp.sum(s[:1] * s[:1])

    def _slopes(self, s: Array, xp: Backend) -> Array:
        largest = xp.where(s >= s[:1] * (1 - 8 * xp.eps(s)), 1.0 + 0.0 * s, 0.0 * s)
        return (2 * self.strength) * s[:1] * largest / xp.sum(largest)

    def _bends(self, s: Array, xp: Backend) -> Array:
        return self._slopes(s, xp) / xp.where(s <= 0, 1.0, s)

    def _is_taken(self, s: Array, shrunk: Array, xp: Backend) -> Array:
        return xp.where(shrunk < s, 1.0 + 0.0 * s, 0.0)

    def _shrunk(self, s: Array, step: float | Array, xp: Backend) -> Array:
        row = xp.reshape(s, (1, -1))
        t = level(row, 1.0 + 0.0 * row, 0.0, 2 * step * self.strength, xp)
        top = t[0] + 0.0 * s
        return xp.where(s > top, top, s)  # at 0, too, the derivative is 1

    def _value(self, w: Array, xp: Backend) -> Array:
        if self.iterations is None or not math.prod(w.shape):
            return super()._value(w, xp)
        norm, gradient = self._iterated(w, xp)
        return carried(xp.stop(self.strength * norm * norm), gradient, w, xp)

    def _gradient(self, w: Array, xp: Backend) -> Array:
        if self.iterations is None or not math.prod(w.shape):
            return super()._gradient(w, xp)
        return self._iterated(w, xp)[1]

    def _iterated(self, w: Array, xp: Backend) -> tuple[Array, Array]:
        """σ₁ and the gradient, as far as the iterations lead."""
        matrix = self._matrix(w, xp)
        u, v = self._vectors(matrix, xp)
        norm = xp.sum(u * (matrix @ v))
        return norm, self._array((2 * self.strength) * norm * (u @ xp.transpose(v)), w, xp)

    def _vectors(self, matrix: Array, xp: Backend) -> tuple[Array, Array]:
        """Left and right singular vectors to σ₁, as columns, as far as the iterations lead."""
        # A start that is orthogonal to few matrices' vectors: not of equal elements.
        start = xp.constant([math.cos(i * i + 1.0) for i in range(matrix.shape[1])], matrix)
        turned, count = xp.transpose(matrix), self.iterations or 0
        v = _unit(xp.reshape(start, (-1, 1)), xp)
        v = repeated(lambda v: _unit(turned @ _unit(matrix @ v, xp), xp), v, count, xp)
        return _unit(matrix @ v, xp), v

    def _why_not_prox(self, per_element: bool) -> str:
        if self.iterations is not None:
            return "it is known for the exact norm, iterations=None"
        return super()._why_not_prox(per_element)


def _unit(x: Array, xp: Backend) -> Array:
    norms = norms_of(x, grouping.Axes(()), xp)
    return norms.parts / norms.lengths


@dataclass(frozen=True, repr=False)
class LogDet(Spectral):
    """The log-determinant penalty: λ log det(I + WᵀW/ε) = λ Σ log(1 + σ²/ε), for a low rank.

    It shrinks small singular values and hardly the large ones. ``gradient`` is
    U diag(2λσ/(ε + σ²)) Vᵀ. There is no ``prox``: no closed form is used here.

    Args:
        strength: λ, finite and ≥ 0.
        epsilon: ε > 0, in the units of σ².
        rows: as for :class:`NuclearNorm`.

    Raises:
        StrengthError: the strength is not a finite number ≥ 0.
        RegularizerError: ε is not a finite number > 0.
        GroupsError, ShapeError: as for :class:`NuclearNorm`.

    Source: Fazel, Hindi and Boyd, Log-det heuristic for matrix rank minimization (2003).
    """

    strength: float
    epsilon: float = 1.0
    rows: Any = "outputs"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "epsilon", check_above(self, "epsilon", self.epsilon, 0.0))

    @property
    def weak_convexity(self) -> float:  # type: ignore[override]
        """See :attr:`Regularizer.weak_convexity`."""
        return self.strength / (4 * self.epsilon)  # where σ² = 3ε

    def _of(self, s: Array, xp: Backend) -> Array:
        # With t = σ/√ε: log(1 + t²), or 2 log t + log(1 + 1/t²), where nothing overflows.
        t = s / math.sqrt(self.epsilon)
        large = xp.log1p(xp.where(t > 1, t, 1.0) - 1)
        return self.strength * xp.sum(2 * large + xp.log1p(_below_one(t, xp) ** 2))

    def _slopes(self, s: Array, xp: Backend) -> Array:
        root = math.sqrt(self.epsilon)
        t = _below_one(s / root, xp)  # t/(1 + t²) is the same of 1/t
        return (2 * self.strength / root) * (t / (1 + t * t))

    def _bends(self, s: Array, xp: Backend) -> Array:
        t = s / math.sqrt(self.epsilon)
        m = _below_one(t, xp) ** 2
        over = xp.where(t > 1, m * (m - 1), 1 - m)  # of (1 − t²)/(1 + t²)²
        return (2 * self.strength / self.epsilon) * over / (1 + m) ** 2


def _below_one(t: Array, xp: Backend) -> Array:
    """t or 1/t, whichever is not above 1."""
    return xp.where(t > 1, 1 / xp.where(t > 1, t, 1.0), t)
