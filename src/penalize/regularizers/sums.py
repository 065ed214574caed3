"""Sums of penalties, and the proximal operators of sums that are known exactly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from penalize.backends import Array, Backend
from penalize.errors import ConfigError, NoKinkError, NoStrengthMaxError, RegularizerError
from penalize.regularizers.base import Regularizer, described, read_from
from penalize.regularizers.elementwise import L1, soft_threshold
from penalize.regularizers.kinks import Kinks
from penalize.regularizers.place import Place


@dataclass(frozen=True, repr=False)
class Sum(Regularizer):
    """A sum of penalties: Ω₁ + Ω₂ + …, written ``r + s``.

    ``prox`` is exact for a·‖w‖₁ + b·‖w‖² + Ω with at most one further Ω:

    - the quadratic joins any Ω: prox of step·(Ω + b‖·‖²) at w is prox of
      step/(1 + 2·step·b)·Ω at w/(1 + 2·step·b), by completing the square, element by element where
      the step is an array;
    - the ℓ₁ norm joins an Ω that says so, by soft-thresholding before its prox
      (``prox_follows_l1``; Friedman, Hastie and Tibshirani, A note on the group lasso and a sparse
      group lasso, 2010; Yu, On decomposing the proximal map, 2013), or after it
      (``l1_follows_prox``).

    Terms of one kind are merged first. Every other sum is refused, never approximated.

    Args:
        terms: the regularizers, at least one; sums among them are flattened.

    Raises:
        RegularizerError: there are no terms, or one is no regularizer.
    """

    strengths: ClassVar[tuple[str, ...]] = ()

    terms: tuple[Regularizer, ...]

    def __post_init__(self) -> None:
        if not self.terms or not all(isinstance(term, Regularizer) for term in self.terms):
            raise RegularizerError(
                f"Sum got {self.terms!r}", "expected a tuple of regularizers, at least one"
            )
        flat = [t for r in self.terms for t in (r.terms if isinstance(r, Sum) else (r,))]
        object.__setattr__(self, "terms", tuple(flat))

    @property
    def elementwise(self) -> bool:  # type: ignore[override]
        return all(term.elementwise for term in self.terms)

    @property
    def on_shards(self) -> bool:  # type: ignore[override]
        return all(term.on_shards for term in self.terms)

    @property
    def flattens_out(self) -> bool:  # type: ignore[override]
        return any(term.flattens_out for term in self.terms)

    @property
    def differentiable(self) -> bool:  # type: ignore[override]
        return all(term.differentiable for term in self.terms)

    @property
    def weak_convexity(self) -> float | None:  # type: ignore[override]
        """See :attr:`Regularizer.weak_convexity`."""
        known = [term.weak_convexity for term in self.terms]
        return None if None in known else float(sum(filter(None, known)))

    @property
    def scheduled(self) -> bool:
        return any(term.scheduled for term in self.terms)

    def at(self, step: Any) -> Regularizer:
        return Sum(tuple(term.at(step) for term in self.terms)) if self.scheduled else self

    def _beside(self, w: Array, xp: Backend) -> Regularizer:
        terms = tuple(term._beside(w, xp) for term in self.terms)
        same = all(new is old for new, old in zip(terms, self.terms, strict=True))
        return self if same else Sum(terms)

    def scaled(self, factor: Any) -> Self:
        return type(self)(tuple(term.scaled(factor) for term in self.terms))

    def _value(self, w: Array, xp: Backend) -> Array:
        first, *others = self.terms
        return sum((r._value(w, xp) for r in others), first._value(w, xp))

    def _value_of(self, w: Array, xp: Backend) -> Array:
        first, *others = self.terms
        return sum((r._value_of(w, xp) for r in others), first._value_of(w, xp))

    def _gradient(self, w: Array, xp: Backend) -> Array:
        first, *others = self.terms
        return sum((r._gradient(w, xp) for r in others), first._gradient(w, xp))

    def _pull(self, w: Array, xp: Backend) -> Array:
        first, *others = self.terms
        return sum((xp.abs(r._pull(w, xp)) for r in others), xp.abs(first._pull(w, xp)))

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        l1, l2, rest = self.split()
        shrink = 1 + (2 * l2) * step
        w, step = w / shrink, step / shrink
        if any(r.l1_follows_prox for r in rest):
            return soft_threshold(rest[0]._prox(w, step, xp), step * l1, xp)
        w = soft_threshold(w, step * l1, xp)
        for r in rest:  # at most one, by _why_not_prox
            w = r._prox(w, step, xp)
        return w

    def _tangent(self, w: Array, xp: Backend) -> Regularizer:
        return Sum(tuple(term._tangent(w, xp) for term in self.terms))

    def kinks(self) -> Kinks:
        found = Kinks()
        for term in self.terms:
            both = found.joined(term.kinks())
            if both is None:
                raise NoKinkError(self, _TWO_FAMILIES)
            found = both
        return found

    def _strength_max(self, gradient: Array, xp: Backend) -> Array:
        # A quadratic is flat at 0, and so changes nothing there.
        l1, _, rest = self.split()
        has_l1 = not isinstance(l1, float) or l1 > 0
        if has_l1 and not rest:
            return L1(1.0).scaled(l1)._strength_max(gradient, xp)
        if len(rest) == 1 and not has_l1:
            return rest[0]._strength_max(gradient, xp)
        raise NoStrengthMaxError(self)

    def _why_not_prox(self, per_element: bool) -> str:
        return self._refusal(per_element, lambda r: r._why_not_prox(per_element))

    def _why_not_step(self, per_element: bool) -> str:
        return self._refusal(per_element, lambda r: r._why_not_step(per_element))

    def _refusal(self, per_element: bool, of: Callable[[Regularizer], str]) -> str:
        l1, _, rest = self.split()
        if len(rest) > 1:
            return f"no closed form is known for {' + '.join(map(repr, rest))} together"
        for r in rest:
            # A strength at a step may be an array, which is there whatever it holds.
            has_l1 = not isinstance(l1, float) or l1 > 0
            if has_l1 and not r.prox_follows_l1 and (per_element or not r.l1_follows_prox):
                each = " where the step differs from element to element" if per_element else ""
                return f"no closed form is known for an L1 together with {r!r}{each}"
            return of(r)
        return ""

    def split(self) -> tuple[float, float, tuple[Regularizer, ...]]:
        l1, l2 = 0.0, 0.0
        rest: list[Regularizer] = []
        for term in self.terms:
            a, b, others = term.split()
            l1, l2 = l1 + a, l2 + b
            for other in others:
                _merge(rest, other)
        return l1, l2, tuple(rest)

    def by_rows(self, ndim: int) -> tuple[Regularizer, int] | None:
        return self._one_by_one([term.by_rows(ndim) for term in self.terms], ndim)

    def by_columns(self, ndim: int) -> tuple[Regularizer, int] | None:
        return self._one_by_one([term.by_columns(ndim) for term in self.terms], ndim)

    def _one_by_one(
        self, found: list[tuple[Regularizer, int] | None], ndim: int
    ) -> tuple[Regularizer, int] | None:
        terms = [each for each in found if each is not None]
        # A sum over elements is one over rows, too. Groups have one kind of row only.
        kinds = {n for term, n in terms if not term.elementwise} or {ndim}
        if len(terms) < len(found) or len(kinds) > 1:
            return None
        return Sum(tuple(term for term, _ in terms)), kinds.pop()

    def resolve(self, place: Place) -> Self:
        return type(self)(tuple(term.resolve(place) for term in self.terms))

    def __mul__(self, factor: object) -> Any:
        scaled = [term.__mul__(factor) for term in self.terms]
        return NotImplemented if NotImplemented in scaled else type(self)(tuple(scaled))

    __rmul__ = __mul__

    def unit(self) -> Self:
        return type(self)(tuple(term.unit() for term in self.terms))

    def get_config(self) -> dict[str, Any]:
        return {"terms": [described(term) for term in self.terms]}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        terms = config.get("terms") if isinstance(config, Mapping) else None
        if not isinstance(terms, list | tuple):
            raise ConfigError(cls.__name__, config, "it needs terms, a list of regularizers")
        return cls(tuple(read_from(cls.__name__, config, term) for term in terms))

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.terms))


_TWO_FAMILIES = (
    "its groups are of two kinds, which overlap, and no subgradient of least norm is known in "
    'closed form. Take one kind, or use mode="gradient"'
)


def _merge(terms: list[Regularizer], new: Regularizer) -> None:
    """Add a term, joining it to one that it makes a multiple of."""
    for i, term in enumerate(terms):
        both = term.merged(new)
        if both is not None:
            terms[i] = both
            return
    terms.append(new)
