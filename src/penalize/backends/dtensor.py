"""PyTorch's sharded arrays: each rank computes on its own shard and asks the others for sums.

The functions are PyTorch's on the local tensor. What reduces an array is also reduced over those
dimensions of the device mesh that cut the reduced axes, and over no others: replicas of a shard
(HSDP) hold the same elements, and must not be counted twice. Each of these is one all-reduce, whose
derivative is the identity, because every rank differentiates the same scalar.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate

from penalize.backends import Backend, Fixed
from penalize.backends import torch as local


def open(w: DTensor, whole: bool) -> tuple[Tensor, Backend]:
    """The local tensor of w and its backend; gathered from all ranks where the whole is asked for.

    A pending sum (``Partial``) is carried out first.
    """
    mesh = w.device_mesh
    placements = tuple(Replicate() if p.is_partial() else p for p in w.placements)
    inside = (Replicate(),) * mesh.ndim if whole else placements
    xp = Sharded(mesh, inside, placements, w.shape, w.stride())
    if inside != w.placements:
        w = w.redistribute(placements=inside)
    return w.to_local(), xp


@dataclass(frozen=True)
class Sharded:
    """The backend of one sharded array."""

    mesh: DeviceMesh
    inside: tuple[Placement, ...]
    """How the arrays lie that the mathematics works on."""

    placements: tuple[Placement, ...]
    """How the results lie."""

    full_shape: torch.Size
    stride: tuple[int, ...] = field(compare=False)

    framework = local.framework
    is_cut = True

    def __getattr__(self, name: str) -> Any:
        """What works on the elements that are here is PyTorch's own."""
        return getattr(local, name)

    def shape(self, w: Tensor) -> tuple[int, ...]:
        return tuple(self.full_shape)

    def like(self, x: Tensor, w: Tensor) -> DTensor:
        return self._array(local.like(x, w), self.inside).redistribute(placements=self.placements)

    def sum(self, x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
        return self._over_ranks(local.sum(x, axes), range(x.ndim) if axes is None else axes)

    def segment_sum(self, x: Tensor, ids: Sequence[int], count: int) -> Tensor:
        sums = x.new_zeros(count).index_add(0, self._own(ids, x), x)
        return self._over_ranks(sums, range(len(self.full_shape)))

    def take(self, x: Tensor, ids: Sequence[int]) -> Tensor:
        return x[self._own(ids, x)]

    def fixed(self, values: Fixed, w: Tensor) -> Tensor:
        return self._part(local.fixed(values, w))

    def _array(self, x: Tensor, placements: Sequence[Placement]) -> DTensor:
        """What lies on all ranks together, from the part on this one."""
        return DTensor.from_local(
            x, self.mesh, placements, run_check=False, shape=self.full_shape, stride=self.stride
        )

    def _own(self, ids: Sequence[int], x: Tensor) -> Tensor:
        """The numbers for this shard, of one for each flat index of the whole."""
        index = torch.tensor(ids, dtype=torch.long, device=x.device)
        if all(placement.is_replicate() for placement in self.inside):
            return index  # also where they are others, as they may be of what is whole
        return self._part(index.reshape(self.full_shape)).reshape(-1)

    def _part(self, whole: Tensor) -> Tensor:
        """The part for this rank of what every rank has as a whole."""
        everywhere = self._array(whole, (Replicate(),) * self.mesh.ndim)
        return everywhere.redistribute(placements=self.inside).to_local()

    def _over_ranks(self, x: Tensor, axes: Iterable[int]) -> Tensor:
        """Σ over the ranks that hold other parts along these axes."""
        return self.over(x, self.cut(axes))

    def cut(self, axes: Iterable[int]) -> tuple[bool, ...]:
        """Which dimensions of the mesh cut one of these axes."""
        ndim = len(self.full_shape)
        reduced = {axis % ndim for axis in axes}
        return tuple(_axis_cut_by(placement) in reduced for placement in self.inside)

    def over(self, x: Tensor, cut: tuple[bool, ...]) -> Tensor:
        """Σ over these dimensions of the mesh."""
        if not any(cut):
            return x
        pending: list[Any] = [Partial() if is_cut else Replicate() for is_cut in cut]
        return DTensor.from_local(x, self.mesh, pending, run_check=False).full_tensor()


def _axis_cut_by(placement: Placement) -> int | None:
    """The axis that a dimension of the mesh cuts; strided shards are shards of another class."""
    axis: int | None = getattr(placement, "dim", None)
    return axis
