"""``tf.contrib.layers``' regularizer functions, on PyTorch and the current store."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from penalize.contrib import Function, Layers, check_callable
from penalize.errors import PenaltyOfPenaltyWarning, VariableError, some
from penalize.torch.tf1.entries import Entry, Penalty, Value, evaluate, penalty_behind, total
from penalize.torch.tf1.keys import GraphKeys
from penalize.torch.tf1.sameness import alike, described, same
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

    def collect(self, penalty: Any) -> None:
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
    same call, made again in the next step, adds no second entry; for a strength that changes, make
    the regularizer once, outside of the step, with a tensor for its scale.

    Args:
        regularizer: a function of one array of weights, or a penalize regularizer. None, from it,
            counts as 0.
        weights_list: the weights; those of ``GraphKeys.WEIGHTS`` if None or empty.

    Raises:
        PenaltyError: a ValueError, as in TensorFlow 1: there are no weights, or the regularizer
            returns something that is no scalar.
        RegularizerError: a TypeError: the regularizer is no function.
        GroupsError, ShapeError: the regularizer does not fit.
        VariableError: the same weights have a regularizer of this kind with other values already,
            or one of them is computed from others in this step, so that it cannot be penalized
            when the collection is read in the next.

    Warns:
        PenaltyOfPenaltyWarning: the list has penalties in it that were read from a collection.
            TensorFlow 1 penalizes them in silence.
    """
    check_callable("apply_regularization", regularizer)
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
    new = Penalty(joined(get_variable_scope().name, _NAME), regularizer, entries)
    _check_lasts(new, store._entries.get(GraphKeys.REGULARIZATION_LOSSES, ()))

    def penalty_of(entry: Entry) -> Tensor | None:
        return evaluate(regularizer, entry.read(store), store, entry.name)

    penalty = _layers.apply_regularization(penalty_of, entries)
    store._enter_in(GraphKeys.REGULARIZATION_LOSSES, new)
    return penalty


_NAME = "get_regularization_penalty"


def _check_lasts(new: Penalty, known: Iterable[Entry]) -> None:
    """The model's code runs in every step: what it enters must be the same each time."""
    for weight in new.weights:
        if isinstance(weight, Value) and getattr(weight.value, "grad_fn", None) is not None:
            raise VariableError(
                f"a tensor of shape {tuple(weight.value.shape)} was given to apply_regularization "
                "that is computed from others, and is another one in the next step",
                "a variable; add the penalty of a computed tensor to the loss yourself, as "
                "regularizer(tensor)",
            )
    for entry in known:
        if (
            isinstance(entry, Penalty)
            and (entry.name, entry.weights) == (new.name, new.weights)
            and alike(entry.regularizer, new.regularizer)
            and not same(entry.regularizer, new.regularizer)
        ):
            raise VariableError(
                f"these weights have {described(entry.regularizer)} by apply_regularization "
                f"already, and {described(new.regularizer)} would act beside it",
                "the same regularizer in each step: make it once, outside of the step, with a "
                "tensor for a scale that changes",
            )
