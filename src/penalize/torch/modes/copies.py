"""Whether an optimizer keeps copies of its weights, in its state or anywhere else.

That alone says nothing against it: some only measure how far they have come. But it may put them in
place whenever it likes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_NEAR = 1e-2
"""How far a copy may be from the weights, relative to these: it may be of some steps ago."""


def keeps_copies(optimizer: Optimizer, parameters: Sequence[nn.Parameter]) -> bool:
    """Whether a tensor that it keeps is next to one of its weights, or to all in one vector."""
    weights = [_flat(p) for p in parameters]
    wanted = [*weights, torch.cat(weights)]
    found = [_flat(each) for each in _kept(vars(optimizer), {id(p) for p in parameters})]
    return any(
        copy.shape == w.shape and bool((copy - w).norm() <= _NEAR * w.norm())
        for copy in found
        for w in wanted
    )


def _flat(tensor: Tensor) -> Tensor:
    return tensor.detach().reshape(-1).to("cpu", torch.float64)


def _kept(held: Any, seen: set[int]) -> Iterator[Tensor]:
    """The tensors among what is held, but for those that are seen."""
    if id(held) in seen:
        return
    seen.add(id(held))
    if isinstance(held, Tensor):
        if held.is_floating_point() and held.layout is torch.strided:
            yield held
    elif isinstance(held, Mapping):
        for each in held.values():
            yield from _kept(each, seen)
    elif isinstance(held, list | tuple | set | frozenset):
        for each in held:
            yield from _kept(each, seen)
    elif hasattr(held, "__dict__") and not callable(held):
        yield from _kept(vars(held), seen)
