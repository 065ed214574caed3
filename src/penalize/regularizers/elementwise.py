"""Penalties that are sums over elements."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Self

from penalize.backends import Array, Backend
from penalize.errors import NoStrengthMaxError
from penalize.regularizers.base import (
    Elementwise,
    Regularizer,
    check_above,
    check_strength,
    check_unit,
)
from penalize.regularizers.kinks import Kinks


def soft_threshold(w: Array, threshold: float | Array, xp: Backend) -> Array:
    """The prox of threshold·‖·‖₁: sign(w)·max(|w| − threshold, 0), with exact zeros."""
    # Limited to ±0, a 0 would count as one that moves freely: its derivative would be taken away.
    if isinstance(threshold, numbers.Real):
        return w - xp.clip(w, -threshold, threshold) if threshold else w
    return w - xp.where(threshold == 0, 0.0, xp.clip(w, -threshold, threshold))


def largest(x: Array, xp: Backend) -> Array:
    """The largest element, a scalar."""
    return xp.sum(xp.max(xp.reshape(x, (-1,))))


def above_zero(owner: Regularizer, strength: Any) -> Any:
    """A strength to divide by. Raises :class:`NoStrengthMaxError` for 0, which leaves all."""
    if isinstance(strength, float) and strength == 0:
        raise NoStrengthMaxError(owner)
    return strength


def _per_sample(kind: type[Regularizer], C: object, n: object) -> float:  # noqa: N803
    """1/(C·n), both checked."""
    owner = f"{kind.__name__}.from_C"
    return 1 / check_unit(owner, "C", C, 0.0, math.inf) / check_unit(owner, "n", n, 0.0, math.inf)


@dataclass(frozen=True, repr=False)
class L1(Elementwise):
    """The lasso penalty: λ Σ|w|.

    Units are Keras'. ``gradient`` is λ·sign(w), 0 at 0. ``prox`` is soft-thresholding,
    sign(w)·max(|w| − step·λ, 0).

    Args:
        strength: λ, finite and ≥ 0.

    Raises:
        StrengthError: the strength is not a finite number ≥ 0.

    Source: Tibshirani, Regression shrinkage and selection via the lasso (1996).
    """

    on_shards: ClassVar[bool] = True
    weak_convexity: ClassVar[float | None] = 0.0
    config_names: ClassVar[Mapping[str, str]] = MappingProxyType({"strength": "l1"})

    strength: float

    @classmethod
    def from_lasso(cls, alpha: float) -> Self:
        """The L1 of scikit-learn's ``Lasso(alpha)``: ``L1(2 * alpha)``.

        ``Lasso`` minimises ‖y − Xw‖²/(2n) + α‖w‖₁, in which the squared error has a half. That of
        ``nn.MSELoss`` has none: beside it, of one output, the solution is the same.

        Args:
            alpha: α, finite and ≥ 0. The number of samples does not matter.

        Raises:
            StrengthError: alpha is not a finite number ≥ 0.
        """
        return cls(2 * check_strength(cls.__name__, "alpha", alpha))

    @classmethod
    def from_C(cls, C: float, n: float) -> Self:  # noqa: N802, N803 - their name for it
        """The L1 of scikit-learn's ``LogisticRegression(C, l1_ratio=1)``: ``L1(1 / (C * n))``.

        It minimises C·Σ loss + ‖w‖₁. Beside the mean log loss, that of ``nn.BCEWithLogitsLoss`` or
        ``nn.CrossEntropyLoss``, the solution is the same.

        Args:
            C: the inverse of a strength, finite and > 0.
            n: how many samples it was fitted on.

        Raises:
            UnitsError: C or n is not a finite number > 0.
        """
        return cls(_per_sample(cls, C, n))

    def _value(self, w: Array, xp: Backend) -> Array:
        return self.strength * xp.sum(xp.abs(w))

    def _gradient(self, w: Array, xp: Backend) -> Array:
        return self.strength * xp.sign(w)

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        return soft_threshold(w, step * self.strength, xp)

    def _strength_max(self, gradient: Array, xp: Backend) -> Array:
        return largest(xp.abs(gradient), xp) / above_zero(self, self.strength)

    def kinks(self) -> Kinks:
        return Kinks(self.strength)

    def split(self) -> tuple[float, float, tuple[Regularizer, ...]]:
        return self.strength, 0.0, ()


@dataclass(frozen=True, repr=False)
class L2(Elementwise):
    """The ridge penalty: λ Σw², without a half.

    Units are Keras'. ``gradient`` is 2λw; ``prox`` is w / (1 + 2·step·λ). TensorFlow 1's
    ``l2_regularizer(s)`` is :meth:`from_half`, an optimizer's coupled ``weight_decay=wd`` is
    :meth:`from_weight_decay`: both are ``L2(s / 2)``.

    Args:
        strength: λ, finite and ≥ 0.

    Raises:
        StrengthError: the strength is not a finite number ≥ 0.

    Source: Hoerl and Kennard, Ridge regression (1970).
    """

    on_shards: ClassVar[bool] = True
    weak_convexity: ClassVar[float | None] = 0.0
    config_names: ClassVar[Mapping[str, str]] = MappingProxyType({"strength": "l2"})

    strength: float

    @classmethod
    def from_weight_decay(cls, weight_decay: float) -> Self:
        """The L2 whose gradient is weight_decay·w: ``L2(weight_decay / 2)``."""
        return cls(weight_decay).scaled(0.5)

    @classmethod
    def from_half(cls, scale: float) -> Self:
        """scale · ½Σw², TensorFlow 1's ``l2_regularizer(scale)``: ``L2(scale / 2)``."""
        return cls(scale).scaled(0.5)

    @classmethod
    def from_ridge(cls, alpha: float, n: float) -> Self:
        """The L2 of scikit-learn's ``Ridge(alpha)``: ``L2(alpha / n)``.

        ``Ridge`` minimises ‖y − Xw‖² + α‖w‖², in which the squared error is a sum. Beside that of
        ``nn.MSELoss``, which is a mean, the solution is the same.

        Args:
            alpha: α, finite and ≥ 0.
            n: how many samples it was fitted on; times the outputs where there are several, as
                ``nn.MSELoss`` is the mean over these, too.

        Raises:
            StrengthError: alpha is not a finite number ≥ 0.
            UnitsError: n is not a finite number > 0.
        """
        alpha = check_strength(cls.__name__, "alpha", alpha)
        return cls(alpha / check_unit(f"{cls.__name__}.from_ridge", "n", n, 0.0, math.inf))

    @classmethod
    def from_C(cls, C: float, n: float) -> Self:  # noqa: N802, N803 - their name for it
        """The L2 of scikit-learn's ``LogisticRegression(C)``: ``L2(1 / (2 * C * n))``.

        It minimises C·Σ loss + ½‖w‖². Beside the mean log loss, that of ``nn.BCEWithLogitsLoss`` or
        ``nn.CrossEntropyLoss``, the solution is the same. That of ``LinearSVC(C)`` and
        ``LinearSVR(C)`` is, too, beside the mean of their squared losses, but these penalize the
        intercept as well: ``{everything: L2.from_C(C, n)}``.

        Args:
            C: the inverse of a strength, finite and > 0.
            n: how many samples it was fitted on.

        Raises:
            UnitsError: C or n is not a finite number > 0.
        """
        return cls(_per_sample(cls, C, n) / 2)

    @property
    def weight_decay(self) -> float:
        """The weight decay, and the scale of a halved L2, that this is: 2λ."""
        return 2 * self.strength

    def _value(self, w: Array, xp: Backend) -> Array:
        return self.strength * xp.sum(w * w)

    def _gradient(self, w: Array, xp: Backend) -> Array:
        return (2 * self.strength) * w

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        return w / (1 + (2 * self.strength) * step)

    def kinks(self) -> Kinks:
        return Kinks()

    def split(self) -> tuple[float, float, tuple[Regularizer, ...]]:
        return 0.0, self.strength, ()


@dataclass(frozen=True, repr=False)
class L1L2(Elementwise):
    """The elastic net penalty: l1·Σ|w| + l2·Σw².

    Units are Keras'. ``gradient`` is l1·sign(w) + 2·l2·w, 0 at 0; ``prox`` is soft-thresholding by
    step·l1, divided by 1 + 2·step·l2.

    Args:
        l1: strength of Σ|w|, finite and ≥ 0.
        l2: strength of Σw², finite and ≥ 0.

    Raises:
        StrengthError: a strength is not a finite number ≥ 0.

    Source: Zou and Hastie, Regularization and variable selection via the elastic net (2005).
    """

    on_shards: ClassVar[bool] = True
    weak_convexity: ClassVar[float | None] = 0.0
    strengths: ClassVar[tuple[str, ...]] = ("l1", "l2")

    l1: float = 0.0
    l2: float = 0.0

    @classmethod
    def from_elastic_net(cls, alpha: float, l1_ratio: float) -> Self:
        """The penalty of scikit-learn's ``ElasticNet(alpha, l1_ratio)``.

        ``L1L2(2 * alpha * l1_ratio, alpha * (1 - l1_ratio))``: it minimises
        ‖y − Xw‖²/(2n) + α·ρ‖w‖₁ + ½α(1 − ρ)‖w‖², in which the squared error has a half. That of
        ``nn.MSELoss`` has none: beside it, of one output, the solution is the same.

        Args:
            alpha: α, finite and ≥ 0.
            l1_ratio: ρ, from 0 (a ridge) to 1 (a lasso).

        Raises:
            StrengthError: alpha is not a finite number ≥ 0.
            UnitsError: l1_ratio is no number from 0 to 1.
        """
        alpha = check_strength(cls.__name__, "alpha", alpha)
        ratio = check_unit(f"{cls.__name__}.from_elastic_net", "l1_ratio", l1_ratio, 0.0, 1.0)
        return cls(2 * alpha * ratio, alpha * (1 - ratio))

    def _value(self, w: Array, xp: Backend) -> Array:
        return self.l1 * xp.sum(xp.abs(w)) + self.l2 * xp.sum(w * w)

    def _gradient(self, w: Array, xp: Backend) -> Array:
        return self.l1 * xp.sign(w) + (2 * self.l2) * w

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        return soft_threshold(w, step * self.l1, xp) / (1 + (2 * self.l2) * step)

    def _strength_max(self, gradient: Array, xp: Backend) -> Array:
        return largest(xp.abs(gradient), xp) / above_zero(self, self.l1)

    def kinks(self) -> Kinks:
        return Kinks(None if isinstance(self.l1, float) and not self.l1 else self.l1)

    def split(self) -> tuple[float, float, tuple[Regularizer, ...]]:
        return self.l1, self.l2, ()


@dataclass(frozen=True, repr=False)
class Huber(Elementwise):
    """The Huber penalty: λ Σ H(w), where H is ½w² for |w| ≤ δ and δ(|w| − ½δ) beyond.

    It is an L1 that is smooth at 0.

    ``gradient`` is λ·w, limited to ±λδ. ``prox`` is w/(1 + step·λ) where |w| ≤ δ(1 + step·λ), and
    w − sign(w)·step·λδ beyond.

    Args:
        strength: λ, finite and ≥ 0.
        delta: δ > 0: where the parabola becomes a line.

    Raises:
        StrengthError: the strength is not a finite number ≥ 0.
        RegularizerError: δ is not a finite number > 0.

    Source: Huber, Robust estimation of a location parameter (1964).
    """

    on_shards: ClassVar[bool] = True
    weak_convexity: ClassVar[float | None] = 0.0

    strength: float
    delta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "delta", check_above(self, "delta", self.delta, 0.0))

    def _value(self, w: Array, xp: Backend) -> Array:
        inside = xp.clip(w, -self.delta, self.delta)
        return self.strength * xp.sum(inside * (w - inside / 2))

    def _gradient(self, w: Array, xp: Backend) -> Array:
        return self.strength * xp.clip(w, -self.delta, self.delta)

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        shrink = step * self.strength
        inside = xp.clip(w / (1 + shrink), -self.delta, self.delta)
        return w - shrink * inside

    def kinks(self) -> Kinks:
        return Kinks()
