"""Penalties on a matrix as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Self

from penalize.backends import Array, Backend
from penalize.errors import RegularizerError, ShapeError
from penalize.regularizers import grouping
from penalize.regularizers.base import Regularizer
from penalize.regularizers.groups import norms_of
from penalize.regularizers.place import Place
from penalize.regularizers.spectral import OfMatrix

MODES = ("rows", "columns")


@dataclass(frozen=True, repr=False)
class Orthogonal(Regularizer):
    """The mean |cosine| between different rows (or columns) of a matrix, times λ.

    λ / (n(n−1)) · Σ_{i≠j} |⟨x_i, x_j⟩| / (‖x_i‖ ‖x_j‖) over the n rows x_i: Keras'
    ``OrthogonalRegularizer``, with its numbers. A row of zeros counts as orthogonal to every other,
    and a single row has no other: 0. ``gradient`` is 0 for a row of zeros, and at a pair that is
    already orthogonal. There is no ``prox``: no closed form is known.

    Args:
        strength: λ, finite and ≥ 0.
        mode: ``"rows"`` or ``"columns"`` of the matrix as it lies. The rows of a PyTorch kernel are
            its outputs, those of a Keras kernel its inputs.

    Raises:
        StrengthError: the strength is not a finite number ≥ 0.
        RegularizerError: the mode is no such word.
        ShapeError: when it is applied to an array that is no matrix.

    Source: Keras, ``keras.regularizers.OrthogonalRegularizer`` (2021).
    """

    config_names: ClassVar[Mapping[str, str]] = MappingProxyType({"strength": "factor"})

    strength: float
    mode: str = "rows"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in MODES:
            raise RegularizerError(f"Orthogonal got mode={self.mode!r}", f"expected one of {MODES}")

    def resolve(self, place: Place) -> Self:
        if place.shape is not None and len(place.shape) != 2:
            raise ShapeError(self, place.shape, "a matrix", str(place))
        return self

    def _cosines(self, w: Array, xp: Backend) -> tuple[Array, Array, Array, float]:
        """The rows at unit length, their lengths, their cosines, and the factor of |cosine|.

        The diagonal is left in: it is the constant 1, or 0 for a row of zeros.
        """
        if len(w.shape) != 2:
            raise ShapeError(self, tuple(w.shape), "a matrix")
        x = w if self.mode == "rows" else xp.transpose(w)
        rows = norms_of(x, grouping.Axes((0,)), xp)
        unit = rows.parts / rows.lengths
        count = x.shape[0]
        factor = self.strength / (count * (count - 1)) if count > 1 else 0.0
        return unit, rows.scales * rows.lengths, unit @ xp.transpose(unit), factor

    def _value(self, w: Array, xp: Backend) -> Array:
        unit, _, cosines, factor = self._cosines(w, xp)
        return factor * (xp.sum(xp.abs(cosines)) - xp.sum(unit * unit))

    def _gradient(self, w: Array, xp: Backend) -> Array:
        unit, norms, cosines, factor = self._cosines(w, xp)
        pull = (2 * factor) * (xp.sign(cosines) @ unit)
        # The derivative of x / ‖x‖ takes what lies along x away, the diagonal's share with it.
        gradient = (pull - xp.sum(pull * unit, [1]) * unit) / norms
        return gradient if self.mode == "rows" else xp.transpose(gradient)


@dataclass(frozen=True, repr=False)
class SoftOrthogonal(OfMatrix):
    """The distance of the rows (or columns) of a matrix from orthonormal: λ ‖XXᵀ − I‖²_F.

    X is the matrix, or its transpose with ``mode="columns"``; a kernel with more than two axes is
    read as the matrix whose rows are its outputs. Rows can only be orthonormal where there are no
    more of them than columns. ``gradient`` is 4λ(XXᵀ − I)X. There is no ``prox``: no closed form is
    known.

    Args:
        strength: λ, finite and ≥ 0.
        mode: ``"rows"`` or ``"columns"``.
        rows: what the rows are: ``"outputs"``, ``"inputs"``, an axis or axes. A bare matrix is
            taken as it lies.

    Raises:
        StrengthError: the strength is not a finite number ≥ 0.
        RegularizerError: the mode is no such word.
        GroupsError: the rows are along no such axes.
        ShapeError: when it is applied to a vector or a scalar.

    Source: Bansal, Chen and Wang, Can we gain more from orthogonality regularizations in training
    deep networks? (2018).
    """

    strength: float
    mode: str = "rows"
    rows: Any = "outputs"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in MODES:
            raise RegularizerError(
                f"SoftOrthogonal got mode={self.mode!r}", f"expected one of {MODES}"
            )

    def _excess(self, w: Array, xp: Backend) -> tuple[Array, Array]:
        """X, and XXᵀ − I."""
        matrix = self._matrix(w, xp)
        x = matrix if self.mode == "rows" else xp.transpose(matrix)
        return x, x @ xp.transpose(x) - xp.eye(x.shape[0], x)

    def _value(self, w: Array, xp: Backend) -> Array:
        _, excess = self._excess(w, xp)
        return self.strength * xp.sum(excess * excess)

    def _gradient(self, w: Array, xp: Backend) -> Array:
        x, excess = self._excess(w, xp)
        slope = (4 * self.strength) * (excess @ x)
        return self._array(slope if self.mode == "rows" else xp.transpose(slope), w, xp)
