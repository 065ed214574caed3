"""The half-space step written again: NumPy in float64, a loop over groups and elements."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

Slope = Callable[[np.ndarray], np.ndarray]
"""w → the gradient of what is smooth in the penalty."""


class HalfSpace:
    """One weight: element sizes λ, groups of flat indices with sizes λ_g, and a smooth part."""

    def __init__(
        self,
        w: np.ndarray,
        average: float,
        *,
        element: float = 0.0,
        groups: Sequence[Sequence[int]] = (),
        sizes: Sequence[float] = (),
        smooth: Slope = lambda w: 0 * w,
    ) -> None:
        self.a, self.element, self.smooth = average, element, smooth
        self.groups = [list(g) for g in groups]
        self.sizes = list(sizes)
        self.total = np.zeros(w.size)
        self.n = 0
        self.moved, self.pulled = [0.0, 0.0], [0.0, 0.0]  # in the window, and recently
        share = np.mean(w == 0)
        self.sparse = 0.01 < share < 1

    @property
    def mean(self) -> np.ndarray:
        return self.total / (1 - self.a**self.n) if self.n else 0 * self.total

    def slope(self, w: np.ndarray) -> np.ndarray:
        """∇Ω(w), least norm at kinks."""
        found = self.smooth(w) + self.element * np.sign(w)
        for g, size in zip(self.groups, self.sizes, strict=True):
            if w[g].any():
                found[g] += size * w[g] / np.linalg.norm(w[g])
        return found

    def at_zero(self, w: np.ndarray, given: np.ndarray) -> np.ndarray:
        """``given``, and g̃ at the zeros."""
        h, found = self.mean + self.smooth(w), given.copy()
        stays = self.sparse and self.n < 1 / (1 - self.a) - 1e-9
        soft = np.sign(h) * np.maximum(np.abs(h) - self.element, 0)
        if self.element > 0:
            found[w == 0] = 0.0 if stays else soft[w == 0]
        for g, size in zip(self.groups, self.sizes, strict=True):
            if size > 0 and not w[g].any():
                norm = np.linalg.norm(soft[g])
                out = stays or norm <= size
                found[g] = 0.0 if out else soft[g] * (1 - size / norm)
        return found

    def before(self, w: np.ndarray, g: np.ndarray) -> np.ndarray:
        fine = np.isfinite(g)
        seen = np.where(fine, g, self.mean)
        self.total = self.a * self.total + (1 - self.a) * seen
        self.n += 1
        given = self.at_zero(w, g + self.slope(w))
        along = np.where(w == 0, 0, self.mean + self.slope(w))
        if self.groups:
            self._add(self.pulled, (given[w != 0] * along[w != 0]).sum())
        return given

    def after(self, w: np.ndarray, new: np.ndarray) -> np.ndarray:
        side, u = self.at_zero(w, -w), new.copy()
        side = -side
        if self.element > 0:
            for i in range(w.size):
                if u[i] >= 0 >= side[i] or u[i] <= 0 <= side[i]:
                    u[i] = 0.0
        along = np.where(w == 0, 0, self.mean + self.slope(w))
        if self.groups:
            self._add(self.moved, ((w - new) * along)[w != 0].sum())
        pairs = zip(self.moved, self.pulled, strict=True)
        rate = min(moved / pulled if pulled > 0 and moved > 0 else 0.0 for moved, pulled in pairs)
        way = rate * (1 - self.a**self.n) / (1 - self.a)
        h = self.mean + self.smooth(w)
        for g, size in zip(self.groups, self.sizes, strict=True):
            if size <= 0:
                continue
            t = u[g] - way * h[g]
            t = np.sign(t) * np.maximum(np.abs(t) - way * self.element, 0)
            lives = bool(w[g].any())
            if u[g] @ side[g] <= 0 or (lives and way > 0 and np.linalg.norm(t) <= way * size):
                u[g] = 0.0
        return u

    def _add(self, totals: list[float], new: float) -> None:
        if np.isfinite(new):
            for i, share in enumerate([1 - self.a, (1 - self.a) ** 0.5]):
                totals[i] += share * (new - totals[i])
