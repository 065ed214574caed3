"""A training run in JAX as data: one compiled program for each number of samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import optax

from penalize.errors import PathError
from penalize.jax.plan import Plan
from penalize.jax.transforms import Scalar
from penalize.selection import inputs
from penalize.selection.describing import digest_of, name_of
from penalize.selection.settings import check_settings, settings_of

MODES = ("proximal", "gradient", "decoupled", "halfspace")


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """Training by an optimizer of optax, on arrays: the ``fit`` of a path.

    Args:
        model: a module of Flax NNX; or, with ``apply``, any pytree of parameters.
        apply: (parameters, x) → output. What is trained of the parameters is what the plan has rows
            for; all else stays as it is.
        x: the inputs, samples along the first axis: an array, for ``model(x)``; a tuple of them,
            for ``model(*x)``; or a dictionary, for ``model(**x)``.
        y: the targets, likewise: an array.
        loss: (output, target) → the mean loss over the batch.
        optimizer: makes a transform of the learning rate: ``optax.adam``, or
            ``partial(optax.sgd, momentum=0.9)``.
        learning_rate: a number, or a schedule of optax, which begins anew in each run.
        epochs: passes over the samples, at most.
        batch_size: None: all samples in each step.
        mode: ``"proximal"``, ``"gradient"``, ``"decoupled"`` or ``"halfspace"``: which transform
            of the plan acts.
        score: (output, target) → a number to be shown beside the loss, such as an accuracy.
        seed: of the batches.
        tolerance: training ends after an epoch in which no weight has moved by more than this.

    Raises:
        PathError: x and y are not arrays with as many samples, the optimizer is no function, or a
            setting is out of its range.
    """

    model: Any
    x: inputs.Inputs
    y: Any
    loss: Callable[[Any, Any], Any]
    optimizer: Callable[[Any], optax.GradientTransformation]
    learning_rate: Scalar
    apply: Callable[..., Any] | None = None
    epochs: int = 100
    batch_size: int | None = None
    mode: str = "proximal"
    score: Callable[[Any, Any], Any] | None = None
    seed: int = 0
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        inputs.check(self.x, self.y, _is_array, "array", "jax.numpy.asarray")
        for name in ("loss", "optimizer"):
            value = getattr(self, name)
            if not callable(value) or isinstance(value, optax.GradientTransformation):
                raise PathError(
                    f"Training got {name}={value!r:.60}",
                    "expected a function: loss=lambda output, y: …, and for the optimizer one of "
                    "the learning rate: optimizer=optax.adam, learning_rate=1e-3",
                )
        if self.mode not in MODES:
            raise PathError(f"Training got mode={self.mode!r}", f"expected one of {MODES}")
        check_settings(self)

    @property
    def samples(self) -> int:
        """The number of samples."""
        return len(self.y)

    def transform(self, plan: Plan, strength: Any) -> optax.GradientTransformation:
        """The optimizer with the plan at a strength, which may be traced."""
        inner = self.optimizer(self.learning_rate)
        if self.mode == "gradient":
            return optax.chain(plan.gradient(strength), inner)
        if self.mode == "halfspace":
            return plan.halfspace(inner, strength=strength)
        act = plan.decoupled if self.mode == "decoupled" else plan.proximal
        return optax.chain(inner, act(self.learning_rate, strength))

    def describe(self) -> dict[str, Any]:
        """The settings that make its results what they are, as plain data."""
        rate = self.learning_rate
        return {
            "model": type(self.model).__name__ if self.apply is None else name_of(self.apply),
            "loss": name_of(self.loss),
            "optimizer": name_of(self.optimizer),
            "learning rate": name_of(rate) if callable(rate) else float(rate),
            "data": digest_of([*inputs.parts_of(self.x).values(), self.y]),
            "mode": self.mode,
            **settings_of(self),
        }


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "ndim")
