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

from penalize.torch.compacting.cutting import Cut
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
    clear: dict[Attribute, int] = {}
    unclear: dict[tuple[type, tuple[str, ...]], dict[Attribute, int]] = defaultdict(dict)
    for path, module in model.named_modules():
        for names, old, is_own in _ints(module):
            new = _after(changed, path, old)
            if new is None or _value(smaller.get_submodule(path), names) != old:
                continue
            is_clear = is_own and old in changed.get(path, {}) and old not in _below(stays, path)
            (clear if is_clear else unclear[type(module), names])[Attribute(path, names)] = new
    by_class = {(type(model.get_submodule(each.path)), each.names) for each in clear}
    for key in by_class & unclear.keys():  # certain in one layer, and not in another of its class
        clear |= unclear.pop(key)
    kinds = sorted(unclear, key=lambda key: len(key[1]))
    for chosen in itertools.islice(_subsets(kinds), TRIES):
        found = {**clear, **{k: n for key in chosen for k, n in unclear[key].items()}}
        if answers(told(smaller, found)):
            return found
    return {}


def _subsets(kinds: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
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
    return type(value) is int and value > 1 and not name.startswith("_")


def _value(module: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        module = getattr(module, name, None)
    return module
