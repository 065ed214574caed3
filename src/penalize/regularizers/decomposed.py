"""A matrix by its singular values, with the derivatives that functions of them have.

They are exact where singular values are equal or 0, where those of a decomposition do not exist.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Self

from penalize.backends import Array, Backend


def carried(value: Array, gradient: Array, w: Array, xp: Backend) -> Array:
    """A number as a function of w that has this gradient, and the second derivatives of it."""
    # w − stop(w) is 0, and has the derivative 1.
    return value + 0.5 * xp.sum((gradient + xp.stop(gradient)) * (w - xp.stop(w)))


class Decomposed(NamedTuple):
    """A matrix W = U diag(σ) Vᵀ, where U, σ and V are constants to differentiation."""

    u: Array
    s: Array
    vt: Array
    moved: Array
    """W less itself as a constant: 0, with a derivative."""

    inner: Array
    """The same in the basis of U and V."""

    @classmethod
    def of(cls, matrix: Array, xp: Backend) -> Self:
        fixed = xp.stop(matrix)
        u, s, vt = xp.svd(fixed)
        moved = matrix - fixed
        return cls(u, s, vt, moved, xp.transpose(u) @ moved @ xp.transpose(vt))

    def rounding(self, xp: Backend) -> Array:
        """Below it a singular value is 0."""
        return max(self.u.shape[0], self.vt.shape[1]) * xp.eps(self.s) * self.s[:1]

    def live(self, xp: Backend) -> Array:
        """The singular values as functions of W: the derivative of σ_i is u_iv_iᵀ."""
        diagonal = xp.sum(self.inner * xp.eye(self.s.shape[0], self.s), [0])
        return self.s + xp.reshape(diagonal, (-1,))

    def matrix(self, live: Array, f: Array, rates: Array, xp: Backend) -> Array:
        """U diag(f(σ)) Vᵀ for an f with f(−σ) = −f(σ), as a function of W.

        Its derivative is Löwner's, by the quotients (f(σ_i) ∓ f(σ_j))/(σ_i ∓ σ_j) for the even and
        the odd part of the change in the basis of U and V, and f(σ_i)/σ_i for what lies outside of
        it. Where two are equal, or 0, a derivative of f takes the place of the quotient (Lewis and
        Sendov, Twice differentiable spectral functions, 2001).

        Args:
            live: f(σ), with its derivatives by the σ.
            f: f(σ), a constant.
            rates: f′(σ).
            xp: the array functions.
        """
        u, s, vt, moved, inner = self
        a, fa, ra = (xp.reshape(x, (-1, 1)) for x in (s, f, rates))
        b, fb, rb = (xp.reshape(x, (1, -1)) for x in (s, f, rates))
        top, mean = xp.reshape(s[:1], (1, 1)), 0.5 * (ra + rb)
        near = xp.abs(a - b) <= math.sqrt(xp.eps(s)) * top
        even = xp.where(near, mean, (fa - fb) / xp.where(near, 1.0, a - b))
        even = even * (1 - xp.eye(s.shape[0], s))  # the rest is in live
        both = a + b
        odd = xp.where(both <= 0, mean, (fa + fb) / xp.where(both <= 0, 1.0, both))
        turned = xp.transpose(inner)
        core = even * (0.5 * (inner + turned)) + odd * (0.5 * (inner - turned))
        found = (u * live + u @ core) @ vt
        out = xp.where(s <= 0, rates, f / xp.where(s <= 0, 1.0, s))
        height, width = u.shape[0], vt.shape[1]
        if height < width:
            found = found + (u * out) @ (xp.transpose(u) @ moved - inner @ vt)
        if height > width:
            found = found + ((moved @ xp.transpose(vt) - u @ inner) * out) @ vt
        return found
