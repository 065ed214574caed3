"""A penalty that is a function of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from penalize.backends import Array, Backend
from penalize.errors import ConfigError, PenaltyError, RegularizerError
from penalize.regularizers.base import Regularizer


@dataclass(frozen=True, repr=False)
class Custom(Regularizer):
    """A penalty of your own: λ·f(w), for a function f of an array of the framework in use.

    ``gradient`` is the framework's own derivative of f where none is given; ``prox`` is refused
    where none is given. The arrays come in float32 or wider.

    A subclass of :class:`Regularizer` does the same for every framework at once; it can be saved.

    Args:
        function: f, which returns a scalar.
        strength: λ, finite and ≥ 0.
        gradient: w → ∇f(w), of w's shape.
        prox: (w, step) → argmin_u ½‖u − w‖² + step·f(u), for a number ``step``; exactly.

    Raises:
        RegularizerError: what should be a function is none.
        PenaltyError: when it is applied, if f returns no scalar.
        StrengthError: the strength is not a finite number ≥ 0.
    """

    function: Callable[[Any], Any]
    strength: float = 1.0
    gradient_of: Callable[[Any], Any] | None = None
    prox_of: Callable[[Any, Any], Any] | None = None

    def __init__(
        self,
        function: Callable[[Any], Any],
        strength: float = 1.0,
        gradient: Callable[[Any], Any] | None = None,
        prox: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        optional = {"gradient": gradient, "prox": prox}
        given = {k: v for k, v in optional.items() if v is not None}
        for name, value in {"function": function, **given}.items():
            if not callable(value) or isinstance(value, Regularizer | type):
                raise RegularizerError(
                    f"Custom got {name}={value!r}", "expected a function, such as lambda w: ..."
                )
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "strength", strength)
        object.__setattr__(self, "gradient_of", gradient)
        object.__setattr__(self, "prox_of", prox)
        self.__post_init__()

    def _value(self, w: Array, xp: Backend) -> Array:
        value = self.function(w)
        if getattr(value, "shape", None) is None or len(value.shape):
            shape = getattr(value, "shape", None)
            found = f"returned a {type(value).__name__}" if shape is None else f"has shape {shape}"
            raise PenaltyError(f"what {self!r} {found}", "a scalar of the array's framework")
        return self.strength * value

    def _gradient(self, w: Array, xp: Backend) -> Array:
        if self.gradient_of is None:
            return super()._gradient(w, xp)
        return self.strength * self.gradient_of(w)

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        assert self.prox_of is not None  # by _why_not_prox
        return self.prox_of(w, step * self.strength)

    def _why_not_prox(self, per_element: bool) -> str:
        return "none was given" if self.prox_of is None else super()._why_not_prox(per_element)

    def get_config(self) -> dict[str, Any]:
        """The function's name and the strength, to be looked at: a function cannot be read back."""
        return {"function": _name(self.function), "strength": self.strength}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> NoReturn:
        raise ConfigError(
            cls.__name__,
            config,
            "a function is not saved; a subclass of Regularizer is, or make it anew",
        )

    def __repr__(self) -> str:
        own = getattr(self.function, "__name__", type(self.function).__name__)
        return f"Custom({own}{'' if self.strength == 1.0 else f', {self.strength!r}'})"


def _name(function: Any) -> str:
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"
