"""Spaces: the units of a traced model that could be cut, with all weights that lead to them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from penalize.torch.compacting.readers import Wiring

Parts = Mapping[tuple[str, int], Tensor]
"""A parameter and a dimension of it → units × how many of its indices each has."""


@dataclass(frozen=True)
class Space:
    """Units of which each has as much in the same parameters.

    Args:
        writers: the weights that make them: the first of which names them.
        parts: where their incoming weights are, biases and scales among them.
        readers: where their outgoing weights are.
    """

    writers: tuple[str, ...]
    parts: Parts
    readers: Parts

    @property
    def units(self) -> int:
        """How many there are."""
        return len(next(iter(self.parts.values())))

    def plant(self, model: nn.Module, parts: Parts) -> None:
        """Set every other unit to zero."""
        for (name, d), index in parts.items():
            with torch.no_grad():
                p = model.get_parameter(name)
                p.index_fill_(d, index[1::2].reshape(-1).to(p.device), 0.0)

    def are_gone(self, indices: Mapping[tuple[str, int], Tensor]) -> bool:
        """Whether all that were set to zero are cut; those that are left are given."""
        for (name, d), index in self.parts.items():
            left = indices.get((name, d))
            if left is None or torch.isin(index[1::2], left).any():
                return False
        return True


def spaces_of(
    wiring: Wiring, parameters: Collection[str]
) -> tuple[list[Space], dict[str, dict[str, int]]]:
    """The units that something reads and nothing keeps; and why how many of a weight's are not.

    Args:
        wiring: what the model does.
        parameters: the names of what is trained; buffers and aliases are no part of a group.
    """
    incoming, outgoing = _where(wiring, parameters)
    read = {
        root for r in wiring.readers for root in wiring.units.roots(r.units).tolist() if root >= 0
    }
    kept = wiring.units.kept()
    alike: dict[tuple[tuple[str, int, int], ...], list[int]] = defaultdict(list)
    left: dict[str, dict[str, int]] = {}
    done: set[int] = set()
    for name, ids in wiring.written.items():
        for root in wiring.units.roots(ids).tolist():
            why = kept.get(root, "" if root in read else "no layer reads it")
            if not why and name not in parameters:
                why = "it is not trained, or the same as another"
            if why:
                _count(left, name, why)
            elif root not in done:
                done.add(root)
                alike[tuple((*key, len(at)) for key, at in incoming[root].items())].append(root)
    return [_space(wiring, roots, incoming, outgoing) for roots in alike.values()], left


def _count(left: dict[str, dict[str, int]], name: str, why: str, count: int = 1) -> None:
    counts = left.setdefault(name, {})
    counts[why] = counts.get(why, 0) + count


Where = dict[int, dict[tuple[str, int], list[int]]]
"""A unit → a parameter and a dimension of it → its indices there."""


def _where(wiring: Wiring, parameters: Collection[str]) -> tuple[Where, Where]:
    """Where the incoming and the outgoing weights of each unit are."""
    incoming: Where = defaultdict(lambda: defaultdict(list))
    outgoing: Where = defaultdict(lambda: defaultdict(list))
    maps = {*wiring.written, *(reader.weight for reader in wiring.readers)}
    for (name, d), roots in wiring.units.dimensions().items():
        if name not in parameters:
            continue
        written = {*wiring.written.get(name, torch.arange(0)).tolist()}
        for i, (each, root) in enumerate(
            zip(wiring.units.of(name, d).tolist(), roots.tolist(), strict=True)
        ):
            leads_away = name in maps and each not in written
            (outgoing if leads_away else incoming)[root][name, d].append(i)
    return incoming, outgoing


def _space(wiring: Wiring, roots: list[int], incoming: Where, outgoing: Where) -> Space:
    parts = {key: torch.tensor([incoming[r][key] for r in roots]) for key in incoming[roots[0]]}
    names = dict.fromkeys(name for name, _ in parts if name in wiring.written)
    return Space(tuple(names), parts, dict(_alike(roots, outgoing)))


def _alike(roots: list[int], outgoing: Where) -> Iterator[tuple[tuple[str, int], Tensor]]:
    """The outgoing weights; none where units have other numbers of them."""
    keys = [[(*key, len(at)) for key, at in outgoing[root].items()] for root in roots]
    if all(each == keys[0] for each in keys):
        for key in outgoing[roots[0]]:
            yield key, torch.tensor([outgoing[root][key] for root in roots])
