"""What acts through another regularizer, and is of its kind."""

from __future__ import annotations

from penalize.regularizers.base import Regularizer


class Wrapped(Regularizer):
    """A regularizer with another one in its field ``regularizer``, whose properties it has."""

    regularizer: Regularizer

    @property
    def elementwise(self) -> bool:  # type: ignore[override]
        return self.regularizer.elementwise

    @property
    def on_shards(self) -> bool:  # type: ignore[override]
        return self.regularizer.on_shards

    @property
    def flattens_out(self) -> bool:  # type: ignore[override]
        return self.regularizer.flattens_out

    @property
    def differentiable(self) -> bool:  # type: ignore[override]
        return self.regularizer.differentiable

    @property
    def weak_convexity(self) -> float | None:  # type: ignore[override]
        """See :attr:`Regularizer.weak_convexity`."""
        return self.regularizer.weak_convexity

    def _why_not_prox(self, per_element: bool) -> str:
        return self.regularizer._why_not_prox(per_element)

    def _why_not_step(self, per_element: bool) -> str:
        return self.regularizer._why_not_step(per_element)
