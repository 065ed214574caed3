"""What is done to one part of a weight that fits the cache, on the CPU.

A part is a flat piece of a weight, or some rows of it as a matrix. Each kernel passes over it a few
times while it is in the cache, so that memory is passed over once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from penalize.regularizers.base import Regularizer
from penalize.regularizers.groups import GroupLasso


class Kernel(Protocol):
    """The arithmetic of one regularizer on one part."""

    length: int
    """How many elements a part should have: what is in flight at once then fits the cache."""

    def gradient(self, w: Tensor, out: Tensor) -> None:
        """out ← ∇Ω(w)."""

    def add_gradient(self, w: Tensor, to: Tensor, scale: float, buffer: Tensor) -> None:
        """to ← to + scale·∇Ω(w); ``to`` may be w itself. The buffer is of w's shape."""

    def shrink(self, w: Tensor, step: float, buffer: Tensor) -> None:
        """w ← prox of step·Ω at w."""


@dataclass(frozen=True)
class Generic:
    """Any regularizer, by its own functions."""

    regularizer: Regularizer
    length = 2**18

    def gradient(self, w: Tensor, out: Tensor) -> None:
        out.copy_(self.regularizer.gradient(w))

    def add_gradient(self, w: Tensor, to: Tensor, scale: float, buffer: Tensor) -> None:
        gradient = self.regularizer.gradient(w)
        to.add_(gradient if scale == 1 else scale * gradient)

    def shrink(self, w: Tensor, step: float, buffer: Tensor) -> None:
        w.copy_(self.regularizer.prox(w, step))


@dataclass(frozen=True)
class Elastic:
    """l1·‖w‖₁ + l2·‖w‖²."""

    l1: float
    l2: float
    length = 2**19

    def gradient(self, w: Tensor, out: Tensor) -> None:
        if self.l1:
            torch.sgn(w, out=out).mul_(self.l1)
            if self.l2:
                out.add_(w, alpha=2 * self.l2)
        else:
            torch.mul(w, 2 * self.l2, out=out)

    def add_gradient(self, w: Tensor, to: Tensor, scale: float, buffer: Tensor) -> None:
        if self.l1:
            torch.sgn(w, out=buffer)
        if self.l2:
            to.add_(w, alpha=2 * self.l2 * scale)
        if self.l1:
            to.add_(buffer, alpha=self.l1 * scale)

    def shrink(self, w: Tensor, step: float, buffer: Tensor) -> None:
        if self.l1:
            w.sub_(torch.clamp(w, -step * self.l1, step * self.l1, out=buffer))
        if self.l2:
            w.div_(1 + 2 * self.l2 * step)


@dataclass(frozen=True)
class Groups:
    """λ Σ √|g| ‖w_g‖, the groups along some axes."""

    strength: float
    size_weighted: bool
    within: tuple[int, ...]
    """The axes that lie within a group."""

    length = 2**18

    def _norms(self, w: Tensor) -> tuple[Tensor, float]:
        """‖w_g‖, and λ√|g|."""
        size = math.prod(w.shape[axis] for axis in self.within)
        weight = self.strength * (math.sqrt(size) if self.size_weighted else 1.0)
        return torch.linalg.vector_norm(w, dim=self.within, keepdim=True), weight

    def gradient(self, w: Tensor, out: Tensor) -> None:
        norms, weight = self._norms(w)
        torch.mul(w, _over(weight, norms), out=out)

    def add_gradient(self, w: Tensor, to: Tensor, scale: float, buffer: Tensor) -> None:
        norms, weight = self._norms(w)
        to.addcmul_(w, _over(weight, norms), value=scale)

    def shrink(self, w: Tensor, step: float, buffer: Tensor) -> None:
        norms, weight = self._norms(w)
        kept = (1 - _over(step * weight, norms)).clamp_(min=0.0)
        w.mul_(kept)


def _over(weight: float, norms: Tensor) -> Tensor:
    """weight/‖w_g‖, and 0 for a group of zeros."""
    return (weight / norms).masked_fill_(norms == 0, 0.0)


def kernels_of(
    regularizer: Regularizer, within: tuple[int, ...], *, wide: bool = True
) -> Sequence[Kernel]:
    """The kernels whose gradients add up to that of a regularizer.

    Args:
        regularizer: on a part.
        within: the axes of a part that lie within its groups.
        wide: whether the parts are of float32 or wider.
    """
    l1, l2, rest = regularizer.split()
    # In half precision a factor is rounded to it, which L1 alone can bear: so is its gradient.
    if not all(isinstance(strength, float) for strength in (l1, l2)) or (not wide and l2):
        return [Generic(regularizer)]
    found: list[Kernel] = [Elastic(l1, l2)] if l1 or l2 or not rest else []
    for each in rest:
        if type(each) is GroupLasso and isinstance(each.strength, float) and wide:
            found.append(Groups(each.strength, each.size_weighted, within))
        else:
            found.append(Generic(each))
    return found


def prox_kernel_of(
    regularizer: Regularizer, within: tuple[int, ...], *, wide: bool = True
) -> Kernel:
    """The kernel for the proximal operator of a regularizer, with one step for all elements."""
    kernels = kernels_of(regularizer, within, wide=wide)
    return kernels[0] if len(kernels) == 1 and wide else Generic(regularizer)
