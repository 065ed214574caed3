"""What is done to one part of a weight that fits the cache, on the CPU.

A part is a flat piece of a weight, or some rows of it as a matrix. Each kernel passes over it a few
times while it is in the cache, so that memory is passed over once.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from penalize.regularizers.base import Regularizer
from penalize.regularizers.grouping import Axes, grouping_of
from penalize.regularizers.groups import GroupLasso


class Buffers:
    """Memory that is used again in each step: a few pieces per dtype and device."""

    def __init__(self) -> None:
        self._held: dict[tuple[Any, ...], Tensor] = {}

    def flat(self, count: int, like: Tensor, name: Hashable = 0) -> Tensor:
        """A piece of so many elements; another name is another piece."""
        key = (name, like.dtype, like.device)
        held = self._held.get(key)
        if held is None or held.numel() < count:
            held = like.new_empty(count)
            self._held[key] = held
        return held[:count]

    def like(self, part: Tensor) -> Tensor:
        """A piece of a part's shape, that nothing else has for longer than a kernel runs."""
        return self.flat(part.numel(), part, _SCRATCH).view(part.shape)


_SCRATCH = -1


class Kernel(Protocol):
    """The arithmetic of one regularizer on one part."""

    length: int
    """How many elements a part should have: what is in flight at once then fits the cache."""

    def gradient(self, w: Tensor, out: Tensor) -> None:
        """out ← ∇Ω(w)."""

    def add_gradient(self, w: Tensor, to: Tensor, scale: float, buffers: Buffers) -> None:
        """to ← to + scale·∇Ω(w); ``to`` may be w itself."""

    def value(self, w: Tensor, buffers: Buffers) -> Tensor:
        """Ω(w), in float64."""

    def value_and_add(self, w: Tensor, to: Tensor, scale: float, buffers: Buffers) -> Tensor:
        """Ω(w), and then :meth:`add_gradient`."""
        value = self.value(w, buffers)
        self.add_gradient(w, to, scale, buffers)
        return value

    def shrink(self, w: Tensor, step: float, buffers: Buffers) -> None:
        """w ← prox of step·Ω at w."""


@dataclass(frozen=True)
class Generic(Kernel):
    """Any regularizer, by its own functions."""

    regularizer: Regularizer
    length = 2**18

    def gradient(self, w: Tensor, out: Tensor) -> None:
        out.copy_(self.regularizer.gradient(w))

    def add_gradient(self, w: Tensor, to: Tensor, scale: float, buffers: Buffers) -> None:
        gradient = self.regularizer.gradient(w)
        to.add_(gradient if scale == 1 else scale * gradient)

    def value(self, w: Tensor, buffers: Buffers) -> Tensor:
        found: Tensor = self.regularizer(w)
        return found.double()

    def shrink(self, w: Tensor, step: float, buffers: Buffers) -> None:
        w.copy_(self.regularizer.prox(w, step))


@dataclass(frozen=True)
class Elastic(Kernel):
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

    def add_gradient(self, w: Tensor, to: Tensor, scale: float, buffers: Buffers) -> None:
        self._add(w, to, scale, torch.sgn(w, out=buffers.like(w)) if self.l1 else None)

    def _add(self, w: Tensor, to: Tensor, scale: float, sign: Tensor | None) -> None:
        if self.l2:
            to.add_(w, alpha=2 * self.l2 * scale)
        if sign is not None:
            to.add_(sign, alpha=self.l1 * scale)

    def value_and_add(self, w: Tensor, to: Tensor, scale: float, buffers: Buffers) -> Tensor:
        sign = torch.sgn(w, out=buffers.like(w)) if self.l1 else None
        value = self._value(w, sign)
        self._add(w, to, scale, sign)
        return value

    def value(self, w: Tensor, buffers: Buffers) -> Tensor:
        return self._value(w, torch.sgn(w, out=buffers.like(w)) if self.l1 else None)

    def _value(self, w: Tensor, sign: Tensor | None) -> Tensor:
        if w.dtype.itemsize < 4:
            norm: Tensor = torch.linalg.vector_norm(w, 1, dtype=torch.float32)
            return self.l1 * norm.double()
        # By products of vectors, which are much faster than norms.
        total = torch.zeros((), dtype=torch.float64)
        if self.l2:
            total += self.l2 * torch.dot(w.view(-1), w.view(-1))
        if sign is not None:
            total += self.l1 * torch.dot(sign.view(-1), w.view(-1))
        return total

    def shrink(self, w: Tensor, step: float, buffers: Buffers) -> None:
        if self.l1:
            threshold = step * self.l1
            w.sub_(torch.clamp(w, -threshold, threshold, out=buffers.like(w)))
        if self.l2:
            w.div_(1 + 2 * self.l2 * step)


@dataclass(frozen=True)
class Groups(Kernel):
    """λ Σ √|g| ‖w_g‖, the groups along some axes."""

    strength: float
    size_weighted: bool
    within: tuple[int, ...]
    """The axes that lie within a group."""

    length = 2**62
    """Endless: two passes over a weight for nothing but norms cost less than parts do."""

    def _norms(self, w: Tensor, *, zeros: bool = True) -> tuple[Tensor, float]:
        """‖w_g‖, and λ√|g|.

        Args:
            w: a part of a weight.
            zeros: whether a norm that is 0 matters where the group is not.
        """
        size = math.prod(w.shape[axis] for axis in self.within)
        weight = self.strength * (math.sqrt(size) if self.size_weighted else 1.0)
        norms = torch.linalg.vector_norm(w, dim=self.within, keepdim=True)
        lost = norms.isinf() | (norms == 0) if zeros else norms.isinf()
        if bool(lost.any()):  # squares of what is very large or small overflow, or vanish
            largest = torch.linalg.vector_norm(w, math.inf, dim=self.within, keepdim=True)
            lost &= (largest > 0) & largest.isfinite()
            if bool(lost.any()):
                scale = torch.where(lost, largest, 1.0)
                parts = torch.linalg.vector_norm(w / scale, dim=self.within, keepdim=True)
                norms = torch.where(lost, parts * scale, norms)
        return norms, weight

    def gradient(self, w: Tensor, out: Tensor) -> None:
        norms, weight = self._norms(w)
        out.zero_().addcmul_(w, _over(weight, norms))

    def add_gradient(self, w: Tensor, to: Tensor, scale: float, buffers: Buffers) -> None:
        norms, weight = self._norms(w)
        # (Of all operators that multiply rows, this one is the fast one.)
        to.addcmul_(w, _over(weight, norms), value=scale)

    def value(self, w: Tensor, buffers: Buffers) -> Tensor:
        norms, weight = self._norms(w)
        return weight * norms.sum(dtype=torch.float64)

    def shrink(self, w: Tensor, step: float, buffers: Buffers) -> None:
        norms, weight = self._norms(w, zeros=False)
        if step * weight:
            lost = (step * weight / norms).clamp_(max=1.0)  # all of it, where it is 1
            w.addcmul_(w, lost, value=-1)


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


def kernel_of_whole(regularizer: Regularizer, w: Tensor) -> Groups | None:
    """The kernel of a group lasso along any axes; None where it is no such thing."""
    if not isinstance(regularizer, GroupLasso) or not isinstance(regularizer.strength, float):
        return None
    groups = grouping_of(regularizer.groups, w.shape)
    if not isinstance(groups, Axes) or not w.numel():
        return None
    return Groups(regularizer.strength, regularizer.size_weighted, tuple(groups.within(w.ndim)))
