"""``tf.losses``, as far as it is about regularization."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from penalize.torch.tf1.entries import total
from penalize.torch.tf1.keys import GraphKeys
from penalize.torch.tf1.store import get_collection

__all__ = ["get_regularization_loss", "get_regularization_losses"]


def get_regularization_losses(scope: str | None = None) -> list[Any]:
    """The penalties of the current store, computed now and differentiable. Ask anew in each step.

    Args:
        scope: only those of variables in that scope, as for ``get_collection``.

    Raises:
        ScopeError, VariableError: as for ``get_collection``.
    """
    return get_collection(GraphKeys.REGULARIZATION_LOSSES, scope)


def get_regularization_loss(
    scope: str | None = None, name: str = "total_regularization_loss"
) -> Tensor:
    """The sum of :func:`get_regularization_losses`, or 0. Add it to the loss once, in each step.

    Args:
        scope: only those of variables in that scope, as for ``get_collection``.
        name: of an operation, in TensorFlow; no effect here.

    Raises:
        ScopeError, VariableError: as for ``get_collection``.
    """
    return total(get_regularization_losses(scope))
