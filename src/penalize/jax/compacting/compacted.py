"""A module of Flax NNX without its dead units, that gives the same answers."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from penalize.compacting.report import Compacted, why_not_smaller
from penalize.errors import CompactError, ModelError, NothingToCutWarning
from penalize.jax.trees import is_of


def compact(model: Any, inputs: Any, *, biases: bool = False) -> Compacted:
    """A smaller module with the same outputs: without units that are constant, or not read.

    As :func:`penalize.torch.compact`, for modules of Flax NNX whose layers, ``nnx.Linear``,
    ``nnx.Conv`` and ``nnx.BatchNorm``, are called one after the other: ``nnx.Sequential``, and
    modules of your own that call them. A unit may go if its incoming weights are all zero, or the
    scale of its batch norm is, so that it is the same number c on every finite input, or if all of
    its outgoing weights are. What c added to the next layer is put into the bias of that.

    What stands between two layers is read from the program that JAX traces: functions of one
    element, pooling, means over places and flattening are followed. What is more stays as it is,
    and so do the units that it reads: a normalization over units, a sum of two branches, a layer
    that is called twice. The table says why. Outputs are equal to rounding: that is measured on the
    example and on random inputs, in float64 where the module computes in it, and in its own types,
    before anything is returned.

    Args:
        model: a module of Flax NNX in evaluation mode; it is left as it is.
        inputs: what to call it with: an array, or a tuple of arrays. A small batch will do.
        biases: whether layers without a bias may be given one, to hold what constants add.

    Returns:
        The smaller module as ``.model``, of the same classes, and what each layer lost.

    Raises:
        ModelError: this is no module of Flax NNX, is in training mode, or JAX cannot trace it.
        CompactError: the outputs would differ: nothing is returned.

    Warns:
        NothingToCutWarning: no unit may go.
    """
    if not is_of(model, "flax.nnx", "Module"):
        raise ModelError(
            f"compact got a {type(model).__name__}",
            "pass a module of Flax NNX, and then its inputs; sizes of Linen and Haiku modules "
            "stand in their code, and arrays alone do not say what is done with them",
        )
    from penalize.jax.compacting import modules  # here Flax is installed

    modules.check(model)
    given = [np.asarray(x) for x in (inputs if isinstance(inputs, tuple | list) else (inputs,))]
    wide = modules.in_float64(model, given)
    cut = modules.largest_cut(model, wide, given, biases)
    smaller = modules.without(model, cut)
    why = modules.why_not_equal(model, smaller, wide, cut, given) if cut.indices else ""
    if why:
        raise CompactError(type(model).__name__, why)
    if not cut.indices:
        counts = modules.zeros_in(model)
        warnings.warn(
            why_not_smaller(type(model).__name__, cut.rows, *counts),
            NothingToCutWarning,
            stacklevel=2,
        )
    sizes = modules.size_of(model), modules.size_of(smaller)
    return Compacted(cut.rows, smaller, sizes, cut.operations, cut.indices)
