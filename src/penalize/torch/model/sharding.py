"""Sharded parameters: the one that lasts, and whole ones for what is computed from them.

While a module of ``fully_shard`` computes, and the outermost one until its backward pass is over,
it shows gathered parameters in the place of its own. What the optimizer steps, and what a plan has
to read, are the sharded ones. PyTorch keeps both in the state of the module that was sharded, and
has no public way from one to the other.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast
from weakref import WeakKeyDictionary, WeakSet, ref

import torch
from torch import Tensor, nn

from penalize.regularizers.base import Regularizer

_managed: WeakKeyDictionary[nn.Module, dict[str, ref[Any]]] = WeakKeyDictionary()
"""Module → its parameters' names → what ``fully_shard`` keeps of each."""

_known: WeakSet[Any] = WeakSet()
"""The states of sharded modules that have been looked through."""


def lasting(module: nn.Module, name: str, shown: Tensor) -> Tensor:
    """The parameter that is sharded, where ``fully_shard`` shows a gathered one in its place."""
    if torch.compiler.is_compiling() or not _states():
        return shown
    kept = _managed.get(module, {}).get(name)
    if kept is None:
        _look_through_new_states()
        kept = _managed.get(module, {}).get(name)
    param: Any = kept() if kept is not None else None
    # Where it is not gathered, the module has the truth: to_empty and load_state_dict replace it.
    if param is None or param.sharded_state.name == "SHARDED":
        return shown
    sharded: Tensor = param.sharded_param
    return sharded


def _states() -> Mapping[nn.Module, ref[Any]]:
    """What ``fully_shard`` and its like keep of modules; empty where nothing is sharded."""
    kept = sys.modules.get("torch.distributed._composable_state")
    return {} if kept is None else cast(Mapping[nn.Module, ref[Any]], kept._module_state_mapping)


def _look_through_new_states() -> None:
    for held in list(_states().values()):
        state = held()
        if state is None or state in _known:
            continue
        _known.add(state)
        for param in _params_of(state):
            info = param._module_info
            owners = [info.module, *info.shared_modules]
            names = [info.param_name, *info.shared_param_names]
            for owner, name in zip(owners, names, strict=True):
                _managed.setdefault(owner, {})[name] = ref(param)


def _params_of(state: Any) -> Iterator[Any]:
    groups: Sequence[Any] = getattr(state, "_fsdp_param_groups", None) or [
        getattr(state, "_fsdp_param_group", None)  # in older releases
    ]
    for group in groups:
        if group is not None:
            yield from group.fsdp_params


def is_sharded(parameter: object) -> bool:
    """Whether it is a DTensor, told without loading them, in a way that torch.compile traces."""
    return type(parameter).__name__ == "DTensor"


def laid_out_as(whole: Tensor, beside: Tensor) -> Tensor:
    """What every rank has as a whole, sharded as another tensor is; one that is sharded stays."""
    if is_sharded(whole) or not is_sharded(beside):
        return whole
    from torch.distributed.tensor import distribute_tensor

    like = cast(Any, beside)
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements)


def gathered_whole(x: Tensor) -> Tensor:
    """All of a tensor that is sharded, differentiable in its shards; any other as it is."""
    if not is_sharded(x):
        return x
    whole: Tensor = cast(Any, x).full_tensor()
    return whole


def shard_of(whole: Tensor, beside: Tensor) -> Tensor:
    """What every rank has as a whole, laid out as another tensor is; nothing is communicated."""
    if not is_sharded(beside):
        return whole
    from torch.distributed.tensor import DTensor, Replicate

    like = cast(Any, beside)
    mesh = like.device_mesh
    everywhere = DTensor.from_local(whole.contiguous(), mesh, [Replicate()] * mesh.ndim)
    found: Tensor = everywhere.redistribute(placements=like.placements)
    return found


def local_parts(w: Any, beside: Any, regularizer: Regularizer) -> tuple[Tensor, Tensor]:
    """The shards of a weight and of what is beside it, where Ω treats them as it does the whole."""
    if not (is_sharded(w) and is_sharded(beside) and w.placements == beside.placements):
        return w, beside
    found = regularizer.by_rows(w.ndim)
    if found is None:
        return w, beside
    rows, leading = found
    whole = all(
        p.is_replicate() or (p.is_shard() and (rows.elementwise or p.dim < leading))
        for p in w.placements
    )
    if not whole:
        return w, beside
    local = w.to_local()
    return local, local if beside is w else beside.to_local()


@contextmanager
def gathered(sources: Iterable[tuple[nn.Module, str]], *, values: bool = True) -> Iterator[None]:
    """Within the block, sharded parameters are whole and plain, differentiable in the sharded ones.

    Args:
        sources: modules, and the names of parameters that they hold.
        values: False where only shapes matter; then nothing is communicated.
    """
    shown = [(module, name, module._parameters[name]) for module, name in sources]
    try:
        for module, name, held in shown:
            parameter = None if held is None else lasting(module, name, held)
            if parameter is not None and is_sharded(parameter):
                module._parameters[name] = _whole(parameter, values)
        yield
    finally:
        for module, name, held in shown:
            module._parameters[name] = held


def _whole(parameter: Any, values: bool) -> Any:
    if values:
        return parameter.full_tensor()
    return torch.ones(parameter.shape, dtype=parameter.dtype, device=parameter.device)
