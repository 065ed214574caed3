"""Penalties on the distance from a reference: pretrained weights, those of an earlier task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from penalize.backends import Array, Backend
from penalize.errors import AnchorError, ConfigError, NoKinkError, RegularizerError
from penalize.regularizers import constants
from penalize.regularizers.base import Elementwise, Regularizer, described, read_from
from penalize.regularizers.kinks import Kinks
from penalize.regularizers.place import Place
from penalize.regularizers.wrapped import Wrapped


def toward(reference: Any, regularizer: Regularizer) -> Anchored:
    """The penalty Ω(w − w₀), which pulls toward a reference w₀ instead of toward 0.

    ``toward("start", L2(0.01))`` is L2-SP: it keeps a network near its pretrained weights.

    Args:
        reference: an array of the parameter's shape, of any framework; a mapping from parameter
            names to arrays, such as a ``state_dict``; or ``"start"``, the value that each parameter
            has when ``regularize`` plans it. It is copied, so that it stays when weights move. Of a
            mapping only what the planned parameters ask for is looked at: counters may be in it.
        regularizer: Ω.

    Raises:
        AnchorError: the reference is none of these; in ``regularize``, if it has another shape than
            the parameter, or there is none for it.
        RegularizerError: the second argument is no regularizer.
    """
    return Anchored(reference, regularizer)


_ELSEWHERE = (
    "its kink is at the reference, and half-space steps find what is 0. Use "
    'mode="proximal", which arrives at the reference exactly'
)


@dataclass(frozen=True, repr=False)
class Anchored(Wrapped):
    """The penalty Ω(w − w₀), for any Ω: what :func:`toward` makes.

    ``gradient`` is ∇Ω(w − w₀); ``prox`` is w₀ + prox(w − w₀), and exists where that of Ω does: what
    Ω sets to zero arrives at w₀ exactly.

    Args:
        reference: w₀; see :func:`toward`.
        regularizer: Ω.

    Raises:
        AnchorError, RegularizerError: see :func:`toward`.

    Source: Li, Grandvalet and Davoine, Explicit inductive bias for transfer learning with
    convolutional networks (2018).
    """

    on_shards = Wrapped.on_shards
    strengths: ClassVar[tuple[str, ...]] = ()

    reference: Any
    regularizer: Regularizer

    def __post_init__(self) -> None:
        if not isinstance(self.regularizer, Regularizer):
            raise RegularizerError(
                f"what toward got as its regularizer is {self.regularizer!r}",
                'write toward("start", L2(0.01))',
            )
        reference = constants.as_reference(self.reference, "toward", "reference")
        object.__setattr__(self, "reference", reference)

    @property
    def scheduled(self) -> bool:
        return self.regularizer.scheduled

    def at(self, step: Any) -> Regularizer:
        return self._of(self.regularizer.at(step)) if self.scheduled else self

    def _beside(self, w: Array, xp: Backend) -> Regularizer:
        inner = self.regularizer._beside(w, xp)
        return self if inner is self.regularizer else self._of(inner)

    def scaled(self, factor: Any) -> Self:
        return self._of(self.regularizer.scaled(factor))

    def __mul__(self, factor: object) -> Any:
        inner = self.regularizer.__mul__(factor)
        return inner if inner is NotImplemented else self._of(inner)

    __rmul__ = __mul__

    def unit(self) -> Self:
        return self._of(self.regularizer.unit())

    def _of(self, regularizer: Regularizer) -> Self:
        return replace(self, regularizer=regularizer)

    def merged(self, other: Regularizer) -> Self | None:
        if not (isinstance(other, Anchored) and other.reference == self.reference):
            return None
        inner = self.regularizer.merged(other.regularizer)
        return None if inner is None else self._of(inner)

    def resolve(self, place: Place) -> Self:
        reference = constants.resolve(self.reference, place, self)
        return replace(self, reference=reference, regularizer=self.regularizer.resolve(place))

    def _anchor(self, w: Array, xp: Backend) -> Array:
        return xp.fixed(constants.check_known(self.reference, xp.shape(w), self), w)

    def _value(self, w: Array, xp: Backend) -> Array:
        return self.regularizer._value(w - self._anchor(w, xp), xp)

    def _gradient(self, w: Array, xp: Backend) -> Array:
        return self.regularizer._gradient(w - self._anchor(w, xp), xp)

    def _pull(self, w: Array, xp: Backend) -> Array:
        return self.regularizer._pull(w - self._anchor(w, xp), xp)

    def _tangent(self, w: Array, xp: Backend) -> Regularizer:
        return self._of(self.regularizer._tangent(w - self._anchor(w, xp), xp))

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        anchor = self._anchor(w, xp)
        moved = w - anchor
        new = self.regularizer._prox(moved, step, xp)
        # What stays is w itself, to the last bit, and not w₀ + (w − w₀).
        return xp.where(new == moved, w, anchor + new)

    def kinks(self) -> Kinks:
        if not self.regularizer.kinks().none:
            raise NoKinkError(self, _ELSEWHERE)
        return Kinks()

    def get_config(self) -> dict[str, Any]:
        return {
            "reference": constants.as_data(self.reference),
            "regularizer": described(self.regularizer),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        if not (isinstance(config, Mapping) and config.keys() == {"reference", "regularizer"}):
            raise ConfigError(cls.__name__, config, "it needs a reference and a regularizer")
        reference = constants.from_data(config["reference"])
        return cls(reference, read_from(cls.__name__, config, config["regularizer"]))

    def __repr__(self) -> str:
        return f"toward({self.reference!r}, {self.regularizer!r})"


@dataclass(frozen=True, repr=False)
class EWC(Elementwise):
    """Elastic weight consolidation: λ Σ F·(w − w₀)², which keeps what an earlier task needs.

    F is the diagonal of the Fisher information of that task, w₀ its solution. Kirkpatrick's ½λ is
    ``strength=0.5 * λ``. ``gradient`` is 2λF·(w − w₀); ``prox`` is w₀ + (w − w₀)/(1 + 2·step·λF).

    Args:
        fisher: F ≥ 0: an array of the parameter's shape, or a mapping from parameter names to
            arrays, in which there may be more.
        reference: w₀: the same, or ``"start"``, the value that a parameter has when it is planned.
        strength: λ, finite and ≥ 0.

    Raises:
        AnchorError: an array is none, F has an element that is negative or not finite; in
            ``regularize``, if a shape is another than the parameter's, or there is no array for it.
        StrengthError: the strength is not a finite number ≥ 0.

    Source: Kirkpatrick et al., Overcoming catastrophic forgetting in neural networks (2017).
    """

    on_shards: ClassVar[bool] = True
    weak_convexity: ClassVar[float | None] = 0.0

    fisher: Any
    reference: Any
    strength: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        fisher = constants.as_reference(self.fisher, "EWC", "fisher", word=False)
        reference = constants.as_reference(self.reference, "EWC", "reference")
        object.__setattr__(self, "fisher", fisher)
        object.__setattr__(self, "reference", reference)
        arrays = dict(fisher.arrays) if isinstance(fisher, constants.ByName) else {"fisher": fisher}
        for name, array in arrays.items():
            values = array.numpy()  # type: ignore[union-attr]
            if not ((values >= 0) & (values < float("inf"))).all():
                raise AnchorError(
                    f"EWC got a Fisher information ({name}) with an element that is negative or "
                    "not finite",
                    "expected the mean of squared gradients, which has none",
                )

    def resolve(self, place: Place) -> Self:
        fisher = constants.resolve(self.fisher, place, self)
        return replace(
            self, fisher=fisher, reference=constants.resolve(self.reference, place, self)
        )

    def by_rows(self, ndim: int) -> None:
        return None  # where an element stands decides what it is drawn to

    def _weighted(self, w: Array, xp: Backend) -> tuple[Array, Array]:
        """w − w₀, and λF."""
        shape = xp.shape(w)
        fisher = xp.fixed(constants.check_known(self.fisher, shape, self), w)
        reference = xp.fixed(constants.check_known(self.reference, shape, self), w)
        return w - reference, self.strength * fisher

    def _value(self, w: Array, xp: Backend) -> Array:
        moved, weights = self._weighted(w, xp)
        return xp.sum(weights * moved * moved)

    def _gradient(self, w: Array, xp: Backend) -> Array:
        moved, weights = self._weighted(w, xp)
        return 2 * weights * moved

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        moved, weights = self._weighted(w, xp)
        pull = 2 * step * weights
        return w - moved * (pull / (1 + pull))

    def kinks(self) -> Kinks:
        return Kinks()

    def get_config(self) -> dict[str, Any]:
        arrays = {name: constants.as_data(getattr(self, name)) for name in ("fisher", "reference")}
        return {**super().get_config(), **arrays}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        if not isinstance(config, Mapping):
            return super().from_config(config)
        return super().from_config({k: constants.from_data(v) for k, v in config.items()})
