"""Operators that compute along dimensions: over units, these stay; beside them, nothing happens."""

from __future__ import annotations

from typing import Any

import torch

from penalize.torch.compacting.calls import Call, first_along, if_zero, joined_along
from penalize.torch.compacting.values import Facts, same_along

ALONG = {
    **dict.fromkeys(("softmax", "_softmax", "log_softmax", "mean", "sum", "amax", "amin"), 0),
    **dict.fromkeys(("var", "std", "cumsum", "logsumexp", "prod"), 0),
    **dict.fromkeys(("norm", "linalg_vector_norm"), 1),
}
"""Names → where the dimensions stand among the arguments after the first."""


def along(call: Call, x: Facts, *args: Any, **kwargs: Any) -> Any:
    """Sums, means and the like, which keep or drop their dimensions."""
    place = ALONG[call.name]
    given = args[place] if len(args) > place else kwargs.get("dim")
    if given is None or given == []:
        given = list(range(len(x.shape)))
    dims = [d % len(x.shape) for d in ([given] if isinstance(given, int) else given)]
    if not call.is_real or not joined_along(call.units, x.units, dims):
        return call.unknown(f"{call.name} is taken over all of them together", x)
    units, known = first_along(x.units, dims), x.known.all(dim=dims, keepdim=True)
    shape = call.meta.shape
    if len(shape) < len(x.shape):
        units, known = units.squeeze(dims), known.squeeze(dims)
    computed = call.target(x.constant.double(), *args, **kwargs)
    found = Facts(units.expand(shape), known.expand(shape) & computed.isfinite(), computed)
    return found._replace(is_share=is_share(call, dims, len(x.shape)))


def is_share(call: Call, dims: list[int], dimensions: int) -> bool:
    """Whether it is a softmax over the last dimension."""
    return call.name in ("softmax", "_softmax") and dims == [dimensions - 1]


def norm(call: Call, *args: Any, **kwargs: Any) -> Any:
    """Norms over units, whose mean or size is of all of them."""
    return call.unknown(f"{call.name} takes its mean or its size over all of them", args, kwargs)


def _borders(_: Any, __: Any = None, padding: Any = 0, ceil: bool = False, *___: Any) -> bool:
    return ceil or any([padding] if isinstance(padding, int) else padding)


def pool(call: Call, x: Facts, *args: Any, **kwargs: Any) -> Any:
    """Windows within each channel."""
    spatial = list(range(-int(call.name.rstrip("d")[-1]), 0))
    if not call.is_real or not same_along(x.units, spatial):
        return call.unknown(f"{call.name} is taken over all of them together", x)
    # At the border of a mean zeros may count, and how much of a map is border depends on its size.
    known = if_zero(x) if call.name.startswith("avg_pool") and _borders(*args) else x.known
    holes = call.target((~known).double(), *args, **kwargs)
    computed = call.target(torch.where(known, x.constant.double(), 0.0), *args, **kwargs)
    units = first_along(x.units, spatial).expand(call.meta.shape)
    return Facts(units, (holes == 0) & computed.isfinite(), computed)
