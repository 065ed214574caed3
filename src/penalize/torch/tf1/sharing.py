"""To create or to share: what ``reuse=`` decides, with the checks of TensorFlow 1."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from typing import Any

from torch import Tensor

from penalize.errors import IgnoredRegularizerWarning, VariableError
from penalize.torch.tf1.arguments import Wanted, fits
from penalize.torch.tf1.entries import Penalty, Variable, evaluate
from penalize.torch.tf1.initial import initial_value
from penalize.torch.tf1.keys import GraphKeys
from penalize.torch.tf1.partitioners import partitions_of
from penalize.torch.tf1.sameness import described, same
from penalize.torch.tf1.store import VariableStore

_PACKAGE = __name__.rpartition(".")[0] + "."


def no_regularizer(_: Any) -> None:
    """As ``regularizer=``: no penalty, whatever the scopes around say."""


def obtain(store: VariableStore, wanted: Wanted) -> Tensor:
    """The variable that was asked for, new or shared, as ``reuse`` allows.

    Raises:
        VariableError: it may not be made, or not be shared, or is not as it was asked for.
        PenaltyError, GroupsError: the regularizer gives no scalar, or does not fit.
    """
    if wanted.partitioner is not None and isinstance(wanted.initializer, Tensor):
        wanted = replace(wanted, shape=wanted.shape or tuple(wanted.initializer.shape))
    partitions = partitions_of(wanted)
    if wanted.constant and wanted.shape is not None and partitions is None:
        raise VariableError(
            f"variable {wanted.name!r} got a shape, and a value as its initializer, which has one",
            "one of them",
        )
    if wanted.name in store._made:
        return _shared(store, wanted, partitions)
    if wanted.reuse is True:
        raise VariableError(
            f"variable {wanted.name!r} does not exist, and reuse=True makes none",
            "reuse=AUTO_REUSE, which makes those that do not exist, or a name that does",
        )
    return _created(store, wanted, partitions)


def _shared(store: VariableStore, wanted: Wanted, partitions: list[int] | None) -> Tensor:
    found: Tensor = getattr(store, wanted.name)
    if wanted.reuse is False:
        raise VariableError(
            f"variable {wanted.name!r} already exists",
            "reuse=AUTO_REUSE or reuse=True on the variable_scope around it; on PyTorch the "
            "model's code runs in every step",
        )
    known = store._partitions.get(wanted.name)
    if partitions != known and not (wanted.reuse is True and wanted.partitioner is None):
        raise VariableError(
            f"variable {wanted.name!r} is asked for with partitions {partitions}",
            f"partitions {known}, with which it was made",
        )
    if not fits(wanted.shape, found.shape):
        raise VariableError(
            f"variable {wanted.name!r} is asked for with shape {wanted.shape}",
            f"shape {tuple(found.shape)}, which it has",
        )
    made = store._made[wanted.name]
    if wanted.dtype != made.dtype:  # not that of the tensor: store.to(dtype) may have changed it
        raise VariableError(
            f"variable {wanted.name!r} is asked for with dtype {wanted.dtype}",
            f"dtype {made.dtype}, with which it was made",
        )
    _warn_if_ignored(wanted, made.regularizer)
    return found


def _warn_if_ignored(wanted: Wanted, known: Any) -> None:
    new = None if wanted.regularizer is no_regularizer else wanted.regularizer
    old = None if known is no_regularizer else known
    # Asking for none inherits whatever there is; disabling it does not.
    if (new is None and wanted.regularizer is None) or same(new, old):
        return
    warning = IgnoredRegularizerWarning(
        wanted.name, described(known), described(wanted.regularizer)
    )
    warnings.warn(warning, stacklevel=_outside())


def _outside() -> int:
    """The stack level of whoever called the vocabulary, seen from the caller of this."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_PACKAGE):
        frame, level = frame.f_back, level + 1
    return level


def _created(store: VariableStore, wanted: Wanted, partitions: list[int] | None) -> Tensor:
    value = initial_value(wanted)
    if not fits(wanted.shape, value.shape):
        raise VariableError(
            f"the initializer of variable {wanted.name!r} has shape {tuple(value.shape)}",
            f"shape {wanted.shape}",
        )
    regularizer = wanted.regularizer
    # First, so that nothing is kept of a variable whose regularizer fails.
    gives = regularizer is not None and evaluate(regularizer, value, store, wanted.name) is not None
    variable = store._keep(wanted.name, value, regularizer, wanted.trainable)
    if partitions is not None:
        store._partitions[wanted.name] = partitions
    for key in wanted.collections:
        store._enter_in(key, Variable(wanted.name))
    if gives:
        penalty = Penalty(f"{wanted.name}/Regularizer", regularizer, (Variable(wanted.name),))
        store._enter_in(GraphKeys.REGULARIZATION_LOSSES, penalty)
    return variable
