"""The structure of what is left: whether each unit is where it was, if the code counts units."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from penalize.errors import ModelError
from penalize.torch.compacting.cutting import Cut
from penalize.torch.compacting.proof import Inputs
from penalize.torch.compacting.readers import Wiring
from penalize.torch.compacting.tracing import traced
from penalize.torch.compacting.units import once


def elsewhere(wiring: Wiring, smaller: nn.Module, what: Cut, inputs: Inputs) -> set[int]:
    """Units that have to stay because the code of a model counts them, as ``x[:, :4]`` does.

    The smaller model is traced too. Each operator that moves units has to move the same ones as
    before, without those that are gone: numbers of the example could be alike by chance.
    """
    if wiring.in_code().isdisjoint(what.gone):
        return set()
    try:
        after = traced(smaller, inputs, units=wiring.units.after(what.indices)).moves
    except ModelError:
        return wiring.in_code()
    gone = torch.tensor(sorted(what.gone))
    found: set[int] = set()
    if len(after) != len(wiring.moves):
        return wiring.in_code()
    for old, new in zip(wiring.moves, after, strict=True):
        before = [wiring.units.roots(ids).reshape(-1) for ids in old.units]
        left = [ids[~torch.isin(ids, gone)] for ids in before]
        if not _are_equal(left, [wiring.units.roots(ids).reshape(-1) for ids in new.units]):
            found |= {root for ids in before for root in ids.tolist() if root in what.gone}
    return found


def ragged(wiring: Wiring, what: Cut) -> set[int]:
    """Units that go and have to stay, because a tensor without them would not be one.

    Of units that stand in rows and columns, as in ``x.view(n, 2, 4)``, whole rows may go, or
    columns, or as many of each: what is left has one number in each.
    """
    gone = torch.tensor(sorted(what.gone), dtype=torch.int64)
    found: set[int] = set()
    for move in wiring.moves:
        for ids in move.units:
            roots = wiring.units.roots(once(ids))
            goes = torch.isin(roots, gone)
            if goes.any() and not _is_full(~goes):
                whole = torch.zeros_like(goes)
                for d in range(goes.ndim):
                    others = [e for e in range(goes.ndim) if e != d]
                    whole |= goes.all(dim=others, keepdim=True) if others else goes
                found |= {*roots[goes & ~whole].tolist()}
    return found


def _is_full(stays: Tensor) -> bool:
    """Whether as many are left as in a tensor of the size that is left of each dimension."""
    sizes = [int(stays.sum(d).max()) for d in range(stays.ndim)]
    return int(stays.sum()) == math.prod(sizes)


def _are_equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
