"""Operators: what each of PyTorch's does with units and with constants.

An operator that only moves elements is run on the units, and one that computes elements from
elements on the constants: what it does is not written down a second time. One that is not known
here keeps all units that it gets.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from penalize.torch.compacting import along, attending, elementwise, moving, reading, recurrent
from penalize.torch.compacting.calls import Call
from penalize.torch.compacting.values import Facts, constant, mapped, plain, values_in

Rule = Callable[..., Any]
"""A call, and the operator's arguments → its output."""


def applied(call: Call, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """What an operator makes of values."""
    made = _made(call, args, kwargs)
    if not isinstance(made, Facts) or made.fixed is not None or made.origin is not None:
        return made
    return made._replace(fixed=_fixed(call, args, kwargs))


def _fixed(call: Call, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor | None:
    """What it makes at this size, if no input of the model is in that."""
    inputs, tags = values_in([args, kwargs]), getattr(call.target, "tags", ())
    is_other = (
        torch.Tag.nondeterministic_seeded in tags or call.target.__name__.split(".")[0][-1] == "_"
    )
    large = isinstance(call.meta, Tensor) and call.meta.numel() > LARGE
    if is_other or large or any(value.fixed is None for value in inputs):
        return None
    try:
        found = call.target(*mapped(_itself, args), **mapped(_itself, kwargs))
    except (RuntimeError, ValueError, TypeError, IndexError):
        return None
    return found if isinstance(found, Tensor) else None


def _itself(value: Facts) -> Any:
    return value.fixed


def _made(call: Call, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    if call.target is operator.getitem:
        return args[0][args[1]]
    inputs = values_in([args, kwargs])
    if not inputs and call.name in FILLS:
        return _constants(call.target(*args, **kwargs))
    if all(value.is_plain for value in inputs) and call.name not in {*READS, *MAKES}:
        return plain(call.meta)
    rule = RULES.get(call.name)
    if rule is None:
        return call.unknown(f"{call.name} reads it, of which nothing is known here", *inputs)
    if call.name not in TRACKS:
        call.wiring.keep_parameters(inputs, f"{call.name} takes it")
    try:
        return rule(call, *args, **kwargs)
    except (RuntimeError, ValueError, TypeError, IndexError):  # arguments of no usual form
        return call.unknown(
            f"{call.name} takes it in a way of which nothing is known here", *inputs
        )


def _constants(made: Any) -> Any:
    if isinstance(made, Tensor):
        return constant(made)
    return [_constants(each) for each in made] if isinstance(made, list | tuple) else made


def _each(names: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


READS: dict[str, Rule] = {
    "linear": reading.linear,
    "addmm": reading.addmm,
    "embedding": reading.embedding,
    **_each("mm matmul", reading.matmul),
    **_each("lstm gru rnn_tanh rnn_relu", recurrent.recurrent),
    **_each("conv1d conv2d conv3d", reading.convolution),
    **_each("conv_transpose1d conv_transpose2d conv_transpose3d", reading.transposed),
}
"""Operators that make units of what has none."""

MOVED = _each(
    """view _unsafe_view reshape flatten unflatten permute transpose t numpy_T movedim unsqueeze
    squeeze expand expand_as slice select split split_with_sizes chunk unbind narrow swapaxes
    view_as reshape_as mT adjoint getitem""",
    moving.moves,
)
SAME = _each(
    "to _to_copy contiguous clone alias detach lift_fresh_copy type_as", moving.same
) | _each("dropout feature_dropout alpha_dropout", moving.dropout)

VIEWS = {*MOVED, *SAME}
"""Operators whose output may have the memory of what they are given, and be written into."""

RULES: dict[str, Rule] = {
    **READS,
    **MOVED,
    **SAME,
    **_each(
        "cat stack concat flip roll repeat pixel_shuffle pixel_unshuffle channel_shuffle tile",
        moving.moves,
    ),
    **_each(
        """constant_pad_nd pad reflection_pad1d reflection_pad2d replication_pad1d
        replication_pad2d""",
        moving.pads,
    ),
    **_each("_assert_tensor_metadata sym_constrain_range_for_size", moving.nothing),
    **_each(
        """relu relu6 gelu silu sigmoid tanh hardtanh hardswish hardsigmoid elu selu celu leaky_relu
        mish softplus softsign log_sigmoid threshold exp expm1 log log1p log2 sqrt rsqrt abs neg sin
        cos erf pow clamp clamp_min clamp_max square sign floor round reciprocal add sub mul div
        rsub where maximum minimum addcmul addcdiv lerp prelu gt lt ge le eq ne logical_not
        logical_and logical_or masked_fill""",
        elementwise.elementwise,
    ),
    "batch_norm": elementwise.batch_norm,
    "glu": elementwise.glu,
    **_each("zeros_like ones_like full_like", elementwise.like),
    **_each("new_zeros new_ones new_full", moving.new),
    "instance_norm": elementwise.instance_norm,
    **dict.fromkeys(along.ALONG, along.along),
    **_each("layer_norm group_norm rms_norm native_layer_norm", along.norm),
    "scaled_dot_product_attention": attending.attention,
    **_each("bmm baddbmm einsum", attending.product),
    **_each(
        """max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d
        adaptive_avg_pool2d adaptive_avg_pool3d upsample_nearest1d upsample_nearest2d
        upsample_nearest3d upsample_linear1d upsample_bilinear2d upsample_trilinear3d""",
        along.pool,
    ),
}

_TRACKING = {
    *(moving.moves, moving.same, moving.dropout),
    *(elementwise.elementwise, elementwise.batch_norm, elementwise.instance_norm),
}
TRACKS = {*READS} | {name for name, rule in RULES.items() if rule in _TRACKING}
"""Operators whose rules say which dimensions of a parameter they need as they are."""

MAKES = {"new_zeros", "new_ones", "new_full", "zeros_like", "ones_like", "full_like"}
"""Operators that make constants of a tensor's size."""

LARGE = 2**24
"""Of how many elements a mask is too large to be looked at."""

FILLS = {"zeros", "ones", "full", "scalar_tensor"}
"""Operators that make constants of numbers: not of their place, as arange, nor by chance."""
