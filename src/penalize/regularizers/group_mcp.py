"""A penalty on groups that flattens out, so that large groups are not shrunk."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from penalize.backends import Array, Backend
from penalize.regularizers.base import Regularizer, check_number
from penalize.regularizers.groups import ByNorm, GroupLasso, Norms, sums_only
from penalize.regularizers.kinks import Kinks


@dataclass(frozen=True, repr=False)
class GroupMCP(ByNorm):
    """The group minimax concave penalty: c Σ_g MCP(‖w_g‖₂), which leaves large groups alone.

    MCP(t) = λ_g·t − t²/(2γ) up to t = γλ_g, and γλ_g²/2 beyond, where λ_g = λ√|g|. ``gradient`` is
    c·(λ_g − ‖w_g‖/γ)_+·w_g/‖w_g‖, and 0 for a group of zeros. ``prox`` sets ‖w_g‖ = n to

    - for s = step·c < γ: 0 if n ≤ sλ_g, (n − sλ_g)/(1 − s/γ) if n ≤ γλ_g, and n beyond;
    - for s ≥ γ, where it jumps: 0 if n ≤ λ_g√(γs), and n beyond.

    Args:
        strength: λ, finite and ≥ 0.
        gamma: γ > 1: the larger, the closer to a group lasso.
        groups: as those of :class:`GroupLasso`.
        size_weighted: False drops the √|g|.
        factor: c, finite and ≥ 0: what ``2 * r`` doubles, as Ω is not linear in λ.

    Raises:
        StrengthError: the strength or the factor is not a finite number ≥ 0.
        RegularizerError: gamma is no finite number > 1.
        GroupsError: the groups are none, overlap, leave indices out, or do not fit the shape.

    Source: Zhang, Nearly unbiased variable selection under minimax concave penalty (2010); for
    groups: Huang, Breheny and Ma, A selective review of group selection in high-dimensional models
    (2012).
    """

    on_shards = sums_only
    flattens_out: ClassVar[bool] = True
    strengths: ClassVar[tuple[str, ...]] = ("strength", "factor")
    factors: ClassVar[tuple[str, ...] | None] = ("factor",)

    strength: float
    gamma: float = 3.0
    groups: Any = "outputs"
    size_weighted: bool = True
    factor: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        gamma = check_number(
            "GroupMCP", "gamma", self.gamma, lambda g: 1 < g < math.inf, "a finite number > 1"
        )
        object.__setattr__(self, "gamma", gamma)

    @property
    def weak_convexity(self) -> float:  # type: ignore[override]
        """c/γ."""
        return self.factor / self.gamma

    def _heights(self, w: Array, xp: Backend) -> tuple[Norms, Array]:
        """The norms, and MCP(‖w_g‖)."""
        norms, weights = self._norms(w, xp)
        top = (0.5 * self.gamma) * weights * weights
        flat = norms.each > self.gamma * weights
        inner = xp.where(flat, 0.0, norms.each)
        rising = weights * inner - inner * inner / (2 * self.gamma)
        return norms, xp.where(flat, top, rising)

    def _value(self, w: Array, xp: Backend) -> Array:
        norms, heights = self._heights(w, xp)
        return self.factor * norms.groups.total(heights, xp)

    def _slopes(self, norms: Array, weights: Any, xp: Backend) -> Array:
        """MCP'(‖w_g‖), without the factor."""
        return xp.where(norms > self.gamma * weights, 0.0, weights - norms / self.gamma)

    def kinks(self) -> Kinks:
        return self._kinks_of(self.factor * self.strength)

    def _gradient(self, w: Array, xp: Backend) -> Array:
        norms, weights = self._norms(w, xp)
        slopes = self.factor * self._slopes(norms.each, weights, xp)
        return norms.parts * norms.groups.spread(slopes / norms.lengths, w, xp)

    def _tangent(self, w: Array, xp: Backend) -> Regularizer:
        norms, weights = self._norms(w, xp)
        slopes = self.factor * self._slopes(norms.each, weights, xp)
        return GroupLasso(0.0, self.groups, size_weighted=False)._with(strength=slopes)

    def _pull(self, w: Array, xp: Backend) -> Array:
        norms, heights = self._heights(w, xp)
        slopes = heights / (norms.scales * norms.lengths)
        return self.factor * norms.parts * norms.groups.spread(slopes / norms.lengths, w, xp)

    def _why_not_step(self, per_element: bool) -> str:
        return ""  # its tangent is a group lasso

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        norms, weights = self._norms(w, xp)
        s = step * self.factor * xp.full((), 1.0, w)
        firm = s < self.gamma
        kept = weights * xp.sqrt(self.gamma * xp.where(firm, self.gamma, s))  # γλ_g, or λ_g√(γs)
        # Where the threshold is hard it is below sλ_g, so that nothing is in between.
        shrunk = norms.left(s * weights, xp) / xp.where(firm, 1 - s / self.gamma, 1.0)
        return w * norms.groups.spread(xp.where(norms.each > kept, 1.0, shrunk), w, xp)
