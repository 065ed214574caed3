"""``tf.contrib.layers``' regularizer functions, on PyTorch and the current store."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from penalize.contrib import Function, Layers
from penalize.errors import PenaltyOfPenaltyWarning, some
from penalize.torch.tf1.entries import Entry, Penalty, evaluate, penalty_behind, total
from penalize.torch.tf1.keys import GraphKeys
from penalize.torch.tf1.state import get_variable_scope, joined
from penalize.torch.tf1.store import get_collection, get_default_store

__all__ = [
    "apply_regularization",
    "l1_l2_regularizer",
    "l1_regularizer",
    "l2_regularizer",
    "sum_regularizer",
]


class _Eager:
    """A graph that is none: operations have no names, and run at once."""

    def name_scope(
        self, name: str | None, default: str, values: Sequence[Any]
    ) -> AbstractContextManager[str]:
        return nullcontext(name or default)

    def multiply(self, scale: Any, value: Any, weights: Any, name: str) -> Tensor:
        value = torch.as_tensor(value)
        penalty: Tensor = torch.as_tensor(scale, dtype=value.dtype, device=value.device) * value
        return penalty.to(weights.dtype) if isinstance(weights, Tensor) else penalty

    def add_n(self, penalties: Sequence[Any], name: str) -> Tensor:
        return total(torch.as_tensor(penalty) for penalty in penalties)

    def zero(self) -> Tensor:
        return total([])

    def rank(self, penalty: Any) -> int:
        return torch.as_tensor(penalty).ndim

    def weights(self) -> list[Any]:
        return get_collection(GraphKeys.WEIGHTS)

    def collect(self, penalty: Any, again: Callable[[], Any]) -> None:
        """Nothing: :func:`apply_regularization` enters the weights, by name where they have one."""


_layers = Layers(_Eager())

l1_regularizer = _layers.l1_regularizer
l2_regularizer = _layers.l2_regularizer
l1_l2_regularizer = _layers.l1_l2_regularizer
sum_regularizer = _layers.sum_regularizer


def apply_regularization(regularizer: Function, weights_list: Sequence[Any] | None = None) -> Any:
    """The sum of the penalties of these weights, now; entered in ``REGULARIZATION_LOSSES``.

    The entry is computed anew whenever the collection is read. So do not add both to a loss, what
    this returns and ``losses.get_regularization_loss()``: that is the same penalty twice. And the
    same call, made again in the next step, adds no second entry.

    Args:
        regularizer: a function of one array of weights, or a penalize regularizer. None, from it,
            counts as 0.
        weights_list: the weights; those of ``GraphKeys.WEIGHTS`` if None or empty.

    Raises:
        PenaltyError: a ValueError, as in TensorFlow 1: there are no weights, or the regularizer
            returns something that is no scalar.
        GroupsError: the groups of the regularizer do not fit.

    Warns:
        PenaltyOfPenaltyWarning: the list has penalties in it that were read from a collection.
            TensorFlow 1 penalizes them in silence.
    """
    store = get_default_store()
    weights = weights_list or get_collection(GraphKeys.WEIGHTS)
    taken = [known.name for w in weights if (known := penalty_behind(w)) is not None]
    if taken:
        warnings.warn(
            f"apply_regularization was given {some(taken)}, which are penalties, not weights: "
            "the result is a penalty of a penalty. To add up what the collection holds, use "
            "losses.get_regularization_loss().",
            PenaltyOfPenaltyWarning,
            stacklevel=2,
        )
    entries = tuple(store._entry_of(weight) for weight in weights)

    def penalty_of(entry: Entry) -> Tensor | None:
        return evaluate(regularizer, entry.read(store), store, entry.name)

    penalty = _layers.apply_regularization(penalty_of, entries)
    name = joined(get_variable_scope().name, "get_regularization_penalty")
    store._enter_in(GraphKeys.REGULARIZATION_LOSSES, Penalty(name, regularizer, entries))
    return penalty
