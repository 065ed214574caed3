"""What of a module's output is penalized, and how many samples it is of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from penalize.errors import ActivityError

_SEQUENTIAL = (
    nn.RNNBase,
    nn.MultiheadAttention,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
    nn.TransformerEncoder,
    nn.TransformerDecoder,
    nn.Transformer,
)
"""Modules of sequences, whose batch need not be the first axis."""


class OutputPart(NamedTuple):
    """One tensor of an output."""

    tensor: Tensor
    samples: int


def parts_of(module: nn.Module, output: Any, name: str) -> list[OutputPart]:
    """What is penalized: every floating-point tensor, its batch being the first axis.

    Of PyTorch's recurrent modules, attention and transformer layers it is the output alone, without
    states and attention weights, and its batch is where ``batch_first`` says.

    Raises:
        ActivityError: there is no such tensor, or it has no axes.
    """
    if isinstance(module, _SEQUENTIAL):
        first = output[0] if isinstance(output, tuple) else output
        if isinstance(first, PackedSequence):
            return [OutputPart(first.data, int(first.batch_sizes[0]))]
        return [OutputPart(first, _batch_of(module, first))]
    return [OutputPart(tensor, _first_axis(tensor, name)) for tensor in _found(output, name)]


def _batch_of(module: nn.Module, output: Tensor) -> int:
    """How many sequences an output is of; without a batch it is of one."""
    if output.ndim < 3:
        return 1
    layer: Any = module
    while not isinstance(getattr(layer, "batch_first", None), bool):
        layer = layer.layers[0] if hasattr(layer, "layers") else layer.self_attn
    return max(output.shape[0 if layer.batch_first else 1], 1)


def _first_axis(tensor: Tensor, name: str) -> int:
    if tensor.ndim == 0:
        raise ActivityError(
            f"{name!r} returned a tensor without axes, and the penalty on an output is divided "
            "by its batch, the first axis",
            "name the module before it",
        )
    return max(tensor.shape[0], 1)


def _found(output: Any, name: str) -> list[Tensor]:
    tensors = _floating(output)
    if not tensors:
        raise ActivityError(
            f"{name!r} returned no floating-point tensor that could be penalized: it is a "
            f"{type(output).__name__}",
            "name another module; tensors are looked for in tuples, lists and dicts",
        )
    return tensors


def _floating(output: Any) -> list[Tensor]:
    """Every tensor in an output that a regularizer takes, or refuses with a sentence."""
    if isinstance(output, torch.Tensor):
        return [output] if output.is_floating_point() or output.is_complex() else []
    parts = output.values() if isinstance(output, Mapping) else output
    if not isinstance(output, Mapping | tuple | list):
        return []
    return [tensor for part in parts for tensor in _floating(part)]
