"""Cutting: which units may go, and the model without them."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from penalize.torch.compacting.readers import LIVES, Wiring


class Cut(NamedTuple):
    """What goes, and what stays though it is dead."""

    gone: Collection[int]
    """The units that go."""
    indices: Mapping[tuple[str, int], Tensor]
    """Of each parameter's dimension that loses some, the indices that stay."""
    offsets: Mapping[str, Tensor]
    """What is added to biases, in float64."""
    kept: Mapping[str, Mapping[str, int]]
    """Of each written weight, why how many of its dead units stay."""


def decided(wiring: Wiring, stay: Mapping[int, str]) -> Cut:
    """The cut that changes no output.

    Args:
        wiring: what the model does.
        stay: units that are to stay, and why.
    """
    units = wiring.units
    why, read = _reasons(wiring)
    reasons = why | {**stay} | units.kept()
    gone = read - reasons.keys()
    dimensions = units.dimensions()
    for ids in dimensions.values():  # a layer keeps one unit, to be a layer
        if len(ids) and gone.issuperset(ids.tolist()):
            gone.discard(int(ids[0]))
    reasons = dict.fromkeys(_unbalanced(wiring, gone), BALANCED) | reasons
    indices = {}
    for key, ids in dimensions.items():
        stays = torch.tensor([root not in gone for root in ids.tolist()], dtype=torch.bool)
        if not stays.all():
            indices[key] = stays.nonzero().reshape(-1)
    return Cut(gone, indices, _offsets(wiring, gone), _kept(wiring, gone, reasons))


def _unbalanced(wiring: Wiring, gone: set[int]) -> set[int]:
    """The units that are taken back, so that layers with one number of units lose as many each."""
    found: set[int] = set()
    is_done = False
    while not is_done:
        is_done = True
        for together in wiring.balanced:
            lost = [
                [root for root in wiring.units.roots(ids).tolist() if root in gone]
                for ids in together
            ]
            fewest = min(map(len, lost))
            back = {root for roots in lost for root in roots[fewest:]}
            is_done &= not back
            found |= back
            gone -= back
    return found


def _reasons(wiring: Wiring) -> tuple[dict[int, str], set[int]]:
    """Why units cannot go, as far as their readers are concerned; and all that are read."""
    why: dict[int, str] = {}
    read: set[int] = set()
    constants: dict[tuple[str, int], float] = {}
    shared: dict[str, set[str]] = defaultdict(set)
    for reader in wiring.readers:
        if reader.bias is not None:
            shared[reader.bias.name].add(reader.weight)
    for reader in wiring.readers:
        for i, root in enumerate(wiring.units.roots(reader.units).tolist()):
            if root < 0:
                continue
            read.add(root)
            reason, c = reader.why_not_gone(i), float(reader.constant[i])
            # A layer that is used twice has one bias for both, as inputs of all sizes have.
            if not reason and not reader.silent[i]:
                if not math.isclose(constants.setdefault((reader.weight, i), c), c, rel_tol=1e-12):
                    reason = f"{reader.weight!r} reads it as different constants"
                elif c != 0 and reader.bias and len(shared[reader.bias.name]) > 1:
                    reason = f"it is a constant, and {reader.bias.name!r} is a bias of several"
                elif c != 0 and reader.bias and reader.bias.name in wiring.units.numeric:
                    reason = f"it is a constant, and {reader.bias.name!r} is more than a bias"
            if reason and why.get(root, LIVES) == LIVES:
                why[root] = reason
    for each, reason in wiring.because.items():
        root = int(wiring.units.roots(torch.tensor(each)))
        if why.get(root) == LIVES:
            why[root] = reason
    return why, read


def _offsets(wiring: Wiring, gone: set[int]) -> dict[str, Tensor]:
    """What the constants that go have added to their readers, for the biases of these."""
    found: dict[str, Tensor] = {}
    done = set()
    for reader in wiring.readers:
        bias = reader.bias
        if bias is None or (reader.weight, bias.name, int(bias.elements[0])) in done:
            continue
        done.add((reader.weight, bias.name, int(bias.elements[0])))
        goes = torch.tensor([root in gone for root in wiring.units.roots(reader.units).tolist()])
        moved = goes & ~reader.silent & (reader.constant != 0)
        if moved.any():
            size = wiring.units.weights[bias.name].numel()
            whole = found.setdefault(bias.name, torch.zeros(size, dtype=torch.float64))
            whole[bias.elements] += reader.added(moved)
    return found


def _kept(wiring: Wiring, gone: set[int], reasons: Mapping[int, str]) -> dict[str, dict[str, int]]:
    """Why how many of the units stay that have no incoming weights, or no outgoing ones."""
    dead = {each for ids in wiring.dead for each in ids.tolist()}
    unheard = wiring.unheard()
    found: dict[str, dict[str, int]] = {}
    for name, ids in wiring.written.items():
        for each, root in zip(ids.tolist(), wiring.units.roots(ids).tolist(), strict=True):
            if (each in dead or root in unheard) and root not in gone:
                why = reasons.get(root, "a layer keeps one unit")
                counts = found.setdefault(name, {})
                counts[why] = counts.get(why, 0) + 1
    return found


# --- the model without them ---------------------------------------------------------------------


def cut(model: nn.Module, what: Cut) -> nn.Module:
    """A copy of the model without what goes."""
    found = copy.deepcopy(model)
    named = {key for key, _ in what.indices} | {*what.offsets}
    every = [
        *found.named_parameters(remove_duplicate=False),
        *found.named_buffers(remove_duplicate=False),
    ]
    by_identity = {id(w): name for name, w in every if name in named}
    made: dict[int, Tensor] = {}  # tied ones stay tied
    for module in [*found.modules()]:
        for own in (module._parameters, module._buffers):
            for key, w in own.items():
                name = None if w is None else by_identity.get(id(w))
                if w is not None and name is not None:
                    if id(w) not in made:
                        made[id(w)] = _smaller(name, w, what)
                    own[key] = made[id(w)]  # type: ignore[assignment]
    for module in found.modules():
        _tell(module)
    return found


def shrunk(name: str, x: Tensor, what: Cut) -> Tensor:
    """What stays of a tensor that is laid out as a parameter is."""
    for d in range(x.ndim):
        indices = what.indices.get((name, d))
        if indices is not None:
            x = x.index_select(d, indices.to(x.device))
    return x


def _smaller(name: str, w: Tensor, what: Cut) -> Tensor:
    x, offset = w.detach(), what.offsets.get(name)
    if offset is not None:
        x = (x.double() + offset.reshape(x.shape).to(x.device)).to(x.dtype)
    x = shrunk(name, x, what).clone()
    return nn.Parameter(x, w.requires_grad) if isinstance(w, nn.Parameter) else x


BALANCED = "all layers and directions have one number of units"

_SIZES: dict[str, tuple[tuple[str, int], ...]] = {
    "Linear": (("out_features", 0), ("in_features", 1)),
    "Embedding": (("num_embeddings", 0), ("embedding_dim", 1)),
    "_NormBase": (("num_features", 0),),
    "PReLU": (("num_parameters", 0),),
    "Conv1D": (("nx", 0), ("nf", 1)),
}


def untold(model: nn.Module) -> set[str]:
    """Parameters of modules that may look at sizes of theirs, and are not told new ones."""
    return {
        f"{path}.{name}".lstrip(".")
        for path, module in model.named_modules(remove_duplicate=False)
        if not is_told(module)
        for name, _ in module.named_parameters(recurse=False)
    }


def is_told(module: nn.Module) -> bool:
    """Whether a module gets to know its new sizes."""
    return any(kind.__name__ in {*_SIZES, "_ConvNd", "RNNBase"} for kind in type(module).__mro__)


def _tell(module: nn.Module) -> None:
    """Let a module of PyTorch's say the sizes that it has now."""
    if isinstance(module, nn.RNNBase):
        gates = {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
        rows, module.input_size = module.get_parameter("weight_ih_l0").shape
        module.hidden_size = rows // gates
        module._init_flat_weights()
        return
    own: dict[str, Tensor | None] = {**module._parameters, **module._buffers}
    w = own.get("weight")
    if w is None:
        w = own.get("running_mean")
    if w is None:
        return
    for kind in type(module).__mro__:
        for attribute, d in _SIZES.get(kind.__name__, ()):
            if hasattr(module, attribute) and d < w.ndim:
                setattr(module, attribute, w.shape[d])
    if isinstance(module, nn.modules.conv._ConvNd):
        if module.transposed:
            module.in_channels, module.out_channels = w.shape[0], w.shape[1] * module.groups
        elif module.groups > 1 and module.groups == module.in_channels:  # one kernel for each
            each = module.out_channels // module.groups
            module.groups = module.in_channels = w.shape[0] // each
            module.out_channels = w.shape[0]
        else:
            module.out_channels, module.in_channels = w.shape[0], w.shape[1] * module.groups
