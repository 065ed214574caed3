"""Counts of units that modules hold as attributes, as ``num_heads``, for a model that is cut.

Code like ``x.view(n, self.num_heads, -1)`` has them from there. Which attributes of a module these
are is asked of the sizes in its code: an int that is a size which the cut changes may be one. If no
size of the same number stays, it is; else it is tried, and what runs and has equal outputs decides.
"""

from __future__ import annotations

import copy
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from penalize.torch.compacting.cutting import Cut, is_told
from penalize.torch.compacting.readers import Wiring
from penalize.torch.compacting.units import once

TRIES = 32
"""How many sets of attributes are tried."""


class Attribute(NamedTuple):
    """An attribute of a module, or of a configuration that is an attribute of it.

    Args:
        path: the module's.
        names: of the attributes that lead there.
    """

    path: str
    names: tuple[str, ...]


_Kind = tuple[type[nn.Module], tuple[str, ...]]
"""A class of modules, and the names of an attribute of it."""

Attributes = Mapping[Attribute, int]
"""Attributes → their new values."""


def told(model: nn.Module, counts: Attributes) -> nn.Module:
    """A copy of a model of which some attributes have new values."""
    found = copy.deepcopy(model, {id(p): p for p in model.parameters()})
    for count, value in counts.items():
        *outer, name = count.names
        holder: Any = found.get_submodule(count.path)
        for each in outer:  # others may have the same configuration, and keep it
            own = copy.copy(getattr(holder, each))
            setattr(holder, each, own)
            holder = own
        setattr(holder, name, value)
    return found


def counted(
    model: nn.Module,
    smaller: nn.Module,
    wiring: Wiring,
    what: Cut,
    answers: Callable[[nn.Module], bool],
) -> Attributes:
    """The attributes that the smaller model needs, with those that are counts for certain.

    Args:
        model: the old one.
        smaller: the new one, whose attributes are the old ones.
        wiring: what the model does.
        what: what is cut.
        answers: whether a model has the old outputs.
    """
    changed, stays = _sizes(wiring, what)
    certain: dict[_Kind, dict[Attribute, int]] = defaultdict(dict)
    perhaps: dict[_Kind, dict[Attribute, int]] = defaultdict(dict)
    strange: set[_Kind] = set()
    for path, module in model.named_modules():
        for names, old, is_own in () if is_told(module) else _ints(module):
            kind, new = (type(module), names), _after(changed, path, old)
            if old < 2 or old not in _below(wiring.sizes[0], path):
                strange.add(kind)  # in a layer of this class it is no size, as a layer's number
            if old < 2 or new is None:
                continue
            is_clear = is_own and old in changed.get(path, {}) and old not in _below(stays, path)
            (certain if is_clear else perhaps)[kind][Attribute(path, names)] = new
    for kind in certain.keys() & strange:
        perhaps[kind] |= certain.pop(kind)
    for kind in certain.keys() & perhaps.keys():  # certain in one layer is so in all of its class
        certain[kind] |= perhaps.pop(kind)
    optional = sorted(perhaps, key=lambda kind: len(kind[1]))
    first = ((*certain, *more) for more in _subsets(optional))
    tried = itertools.chain(first, _subsets([*certain, *optional]))
    every = {**certain, **perhaps}
    for chosen in itertools.islice(tried, TRIES):
        found = {where: new for kind in chosen for where, new in every[kind].items()}
        if answers(told(smaller, found)):
            return found
    return {}


def _subsets(kinds: Sequence[_Kind]) -> Iterator[tuple[_Kind, ...]]:
    for size in range(len(kinds) + 1):
        yield from itertools.combinations(kinds, size)


def _sizes(wiring: Wiring, what: Cut) -> tuple[dict[str, dict[int, set[int]]], dict[str, set[int]]]:
    """By module: sizes in its code that change, and what they become; and those that stay."""
    changed: dict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    stays: dict[str, set[int]] = defaultdict(set)
    gone = torch.tensor(sorted(what.gone), dtype=torch.int64)
    for move in wiring.moves:
        for ids in move.units:
            goes = torch.isin(wiring.units.roots(once(ids)), gone)
            for old, new in zip(ids.shape, left_of(~goes, ids.shape), strict=True):
                if old == new:
                    stays[move.owner].add(old)
                else:
                    changed[move.owner][old].add(new)
    for owner, found in stays.items():  # a length, or a batch, is another in other inputs
        found.intersection_update(*(sizes[owner] for sizes in wiring.sizes if owner in sizes))
    for owner, becomes in changed.items():
        for sizes in wiring.sizes:
            for old in [*becomes]:
                if old not in sizes.get(owner, becomes):
                    del becomes[old]
    return changed, stays


def left_of(stays: Tensor, sizes: Sequence[int]) -> list[int]:
    """How much is left of each dimension.

    Args:
        stays: which elements stay; of size 1 where that is the same for all.
        sizes: of all dimensions.
    """
    found = []
    for d, size in enumerate(sizes):
        count = stays.sum(d)
        most = int(count.max()) if count.numel() else stays.shape[d]
        found.append(size if most == 1 == stays.shape[d] else most)
    return found


def _below(sizes: Mapping[str, set[int]], path: str) -> set[int]:
    """The sizes in a module and all below it."""
    below = [found for owner, found in sizes.items() if _is_below(owner, path)]
    return {size for each in below for size in each}


def _is_below(path: str, other: str) -> bool:
    return path == other or not other or path.startswith(f"{other}.")


def _after(changed: Mapping[str, Mapping[int, set[int]]], path: str, old: int) -> int | None:
    """What a size becomes in a module and all below it, if that is one number."""
    found = {
        new
        for owner, each in changed.items()
        if _is_below(owner, path)
        for new in each.get(old, ())
    }
    return found.pop() if len(found) == 1 else None


def _ints(module: nn.Module) -> Iterator[tuple[tuple[str, ...], int, bool]]:
    """The numbers among a module's attributes, and those of its configuration."""
    for name, value in vars(module).items():
        if _is_count(name, value):
            yield (name,), value, True
        elif name == "config" or name.endswith("_config"):
            for inner, x in vars(value).items() if hasattr(value, "__dict__") else ():
                if _is_count(inner, x):
                    yield (name, inner), x, False


def _is_count(name: str, value: Any) -> bool:
    return type(value) is int and not name.startswith("_")
