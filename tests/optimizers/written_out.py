"""Optimizers of other houses, written out in float64: short, and slow."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lion(Optimizer):
    """Signs of a momentum (Chen et al., 2023): steps of one size."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                p.sub_(torch.sign(0.9 * m + 0.1 * p.grad), alpha=group["lr"])
                m.mul_(0.99).add_(p.grad, alpha=0.01)


class SOAP(Optimizer):
    """Adam in the basis of Shampoo's eigenvectors (Vyas et al., 2024), for matrices.

    As theirs, it begins with a step that only sets it up, and turns its basis every few steps by
    one power iteration, with what Adam's second moment is of in the new order.
    """

    def __init__(self, params: Any, lr: float, every: int = 10) -> None:
        super().__init__(params, {"lr": lr, "every": every, "betas": (0.95, 0.95), "eps": 1e-12})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                self._update(p, group, self.state[p])

    def _update(self, p: Tensor, group: dict[str, Any], held: dict[str, Any]) -> None:
        (first, second), g = group["betas"], p.grad
        assert g is not None
        sides = (g @ g.T, g.T @ g)
        if not held:
            held.update(step=0, mean=torch.zeros_like(p), square=torch.zeros_like(p))
            held["sides"] = [(1 - second) * side for side in sides]
            held["bases"] = [torch.linalg.eigh(side)[1].flip(1) for side in held["sides"]]
            return
        held["step"] += 1
        left, right = held["bases"]
        held["mean"].lerp_(g, 1 - first)
        turned = left.T @ g @ right
        held["square"].lerp_(turned * turned, 1 - second)
        n = held["step"]
        mean = left.T @ held["mean"] @ right / (1 - first**n)
        root = (held["square"] / (1 - second**n)).sqrt()
        p.sub_(left @ (mean / (root + group["eps"])) @ right.T, alpha=group["lr"])
        for kept, side in zip(held["sides"], sides, strict=True):
            kept.lerp_(side, 1 - second)
        if n % group["every"] == 0:
            for axis, (side, basis) in enumerate(zip(held["sides"], held["bases"], strict=True)):
                order = (basis.T @ side @ basis).diagonal().argsort(descending=True)
                held["square"] = held["square"].index_select(axis, order)
                held["bases"][axis] = torch.linalg.qr(side @ basis[:, order])[0]


class Shampoo(Optimizer):
    """A preconditioner that is a full matrix, of the columns (Gupta, Koren and Singer, 2018)."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                held = self.state[p].setdefault("c", 1e-6 * torch.eye(p.shape[1], dtype=p.dtype))
                held.mul_(0.99).add_(p.grad.T @ p.grad, alpha=0.01)
                values, vectors = torch.linalg.eigh(held)
                root = vectors @ torch.diag(values.clamp_min(1e-12) ** -0.5) @ vectors.T
                p.sub_(p.grad @ root, alpha=group["lr"])
