"""The plan of a pytree: a pure function of parameters, and transforms of updates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from jax import Array
from jax.core import Tracer

from penalize.errors import ModelError, some
from penalize.jax.ledger import watched
from penalize.jax.trees import (
    Leaf,
    PenalizedArray,
    arrays_of,
    check_leaf,
    leaves_of,
    why_not_trained,
    with_leaves,
)
from penalize.plan import PenalizedNow, Row, row_of
from penalize.plan import Plan as AnyPlan
from penalize.planning import Planned

if TYPE_CHECKING:
    from optax import GradientTransformation

    from penalize.jax.transforms import Scalar


class Plan(AnyPlan):
    """Rules resolved against a pytree. Made by :func:`penalize.jax.regularize`.

    It holds no arrays: parameters are passed to it, in any container that gives them the same
    names, such as a module, its state, or a dictionary of either.
    """

    def __init__(self, entries: Sequence[Planned]) -> None:
        self._entries = entries
        self.penalized = {
            entry.parameter.name: entry.regularizer
            for entry in entries
            if entry.regularizer is not None and entry.parameter.trainable
        }
        """The regularizers by the name of their parameter."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """One row per array, in the tree's order."""
        return tuple(
            row_of(e.parameter, e.decision, e.parameter.shape, e.parameter.trainable)
            for e in self._entries
        )

    @property
    def trained(self) -> list[str]:
        """The names of the arrays that are trained, penalized or not."""
        return [e.parameter.name for e in self._entries if e.parameter.trainable]

    # --- the functions ----------------------------------------------------------------------

    def penalty(self, params: Any, *, at: Any = None) -> Array:
        """Σ Ω(w): a scalar to be added to the loss, in float32 or wider.

        Pure: it may be jitted, differentiated and vmapped. Arrays that are sharded under
        ``jax.jit`` need nothing. In ``shard_map`` a function sees a shard, of another shape, which
        is refused: call it outside.

        Args:
            params: the tree that was planned, or a container with the same names. What a mask left
                out of it (None, ``optax.MaskedNode``) is not penalized.
            at: the step of training, a number or traced, where a strength follows a schedule.

        Raises:
            ModelError: the tree is not one of the parameters that were planned.
            NoStepError: a strength follows a schedule, and no step was given.
            NoGradientError: when it is differentiated, if it has a constraint in it.
        """
        penalties = [w.at(at).penalty() for w in watched(self.weights(params))]
        return sum(penalties, jnp.zeros(()))

    def breakdown(self, params: Any, *, at: Any = None) -> dict[str, float]:
        """The penalty of each penalized parameter by name, for logging; outside of ``jax.jit``.

        Raises:
            ModelError, NoStepError: see :meth:`penalty`.
        """
        return {each.name: each.penalty for each in self.penalized_now(params, at=at)}

    def penalized_now(self, params: Any = None, *, at: Any = None) -> list[PenalizedNow]:
        """The penalized arrays of a tree, with their regularizers at a step.

        Raises:
            ModelError, NoStepError: see :meth:`penalty`; or a function is being traced, where there
                are no numbers.
        """
        weights = [w.at(at) for w in self.weights(params)]
        penalties = [w.regularizer(w.value) for w in weights]
        for w, penalty in zip(weights, penalties, strict=True):
            if isinstance(penalty, Tracer):
                raise ModelError(
                    f"the penalty of {w.name!r} was asked for as a number where JAX traces a "
                    "function, as jax.jit does",
                    "ask outside of it, with the parameters that it gives back, or have it return "
                    "plan.penalty(params)",
                )
        return [PenalizedNow(*w, float(p)) for w, p in zip(weights, penalties, strict=True)]

    def prox(self, params: Any, step: float | Array, *, at: Any = None) -> Any:
        """The parameters, each penalized one replaced by its prox of step·Ω.

        For solvers of one's own, such as FISTA; in training use :meth:`proximal`.

        Raises:
            ModelError, NoStepError: see :meth:`penalty`.
            NoProximalOperatorError: a penalty has no exact prox.
        """
        self.check_prox(per_element=False)
        weights = [w.at(at) for w in self.weights(params)]
        new = {w.name: w.regularizer.prox(w.value, step) for w in weights}
        return with_leaves(params, new)

    def scaled(self, factor: float) -> Plan:
        """A plan of the same parameters with every strength multiplied by a number.

        Raises:
            StrengthError: the factor, or a strength times it, is not a finite number ≥ 0.
        """
        return Plan([entry.scaled(factor) for entry in self._entries])

    # --- the transforms ---------------------------------------------------------------------

    def gradient(self, strength: Scalar = 1.0) -> GradientTransformation:
        """Adds ∇Ω(w) to the gradients: what the loss term gives, without differentiating it.

        Its place is the first of a chain: ``optax.chain(plan.gradient(), optax.adam(1e-3))``. After
        a clipping transform the penalty is not clipped, before it it is, as in the loss. Gradients
        of a loss that was scaled, as for half precision, must be unscaled before the chain.

        Args:
            strength: multiplies every strength of the plan: a number, an array, or a schedule,
                which is followed without compiling again.

        Raises, when the step is traced:
            OptimizerError: no parameters are passed, it stands after what scales the gradients, or
                before what goes by the value of the loss: a line search, as in ``lbfgs``, compares
                values that lack the penalty. Add :meth:`penalty` to the loss there.
            AppliedTwiceError: the plan has another transform in the chain, an L2 stands beside
                ``add_decayed_weights``, or the gradients are those of a loss with :meth:`penalty`
                in it, as far as the step that is traced shows it.
            ModelError: the parameters are not those that were planned.
        """
        from penalize.jax.transforms import gradient

        return gradient(self, strength)

    def decoupled(self, learning_rate: Scalar, strength: Scalar = 1.0) -> GradientTransformation:
        """w ← w − lr·∇Ω(w) beside the update: AdamW's idea for any penalty.

        Its place is the last of a chain, behind the learning rate of the optimizer:
        ``optax.chain(optax.adam(lr), plan.decoupled(lr))``. On bfloat16 parameters small steps are
        rounded away: keep a float32 copy that is stepped.

        Args:
            learning_rate: that of the optimizer: a number, an array, or a schedule.
            strength: as for :meth:`gradient`.

        Raises, when the step is traced:
            OptimizerError: no parameters are passed, or it stands before what would scale it.
            AppliedTwiceError, ModelError: as for :meth:`gradient`.
        """
        from penalize.jax.transforms import decoupled

        return decoupled(self, learning_rate, strength)

    def proximal(self, learning_rate: Scalar, strength: Scalar = 1.0) -> GradientTransformation:
        """w ← prox of step·Ω after the update, with the step that was really taken: exact zeros.

        Its place is the last of a chain: ``optax.chain(optax.adam(lr), plan.proximal(lr))``. What
        stands before it in the chain tells the step: the learning rate for sgd, more with
        momentum, one per element for adam, adamw, nadam, amsgrad, adamax, rmsprop and adagrad.

        Args:
            learning_rate: that of the optimizer: a number, an array, or a schedule.
            strength: as for :meth:`gradient`.

        Raises, when the step is traced:
            OptimizerError: no parameters are passed, it does not stand last in a chain, or the
                chain has another learning rate.
            ModeError: what stands before it takes a step that is not known.
            NoProximalOperatorError: a penalty has no exact prox with such a step.
            AppliedTwiceError, ModelError: as for :meth:`gradient`.
        """
        from penalize.jax.transforms import proximal

        return proximal(self, learning_rate, strength)

    def halfspace(
        self,
        optimizer: GradientTransformation,
        *,
        average: float | None = None,
        strength: Scalar = 1.0,
    ) -> GradientTransformation:
        """An optimizer with the plan around it: exact zeros under any, on mini-batches.

        ``plan.halfspace(optax.adam(1e-2))`` takes the place of the optimizer; what clips stands
        before it in a chain. The penalty acts as in :meth:`gradient`; but what is 0 stays until the
        running average of the data's gradient overcomes the penalty, and what leaves its side of 0
        is set to it (:mod:`penalize.halfspace`). It needs no step size. Its state has an average
        beside each penalized array, of its size and in float32 or wider.

        Args:
            optimizer: any transform, such as ``optax.lion(1e-3)`` or a chain that ends with a
                learning rate. With ``optax.MultiSteps`` inside, the average counts micro-steps.
            average: how much of the average stays in a step, from 0 to below 1. By default 0.999,
                the average of about a thousand steps. Give the last 3/(1 − average) steps a small
                learning rate.
            strength: as for :meth:`gradient`.

        Raises:
            ModeError: the average is no such number.
            NoKinkError: no penalty has a kink at 0, or one has none of known size.
            OptimizerError: the optimizer is none, keeps weights of its own, or goes by the value of
                the loss; when the step is traced: no parameters are passed, or it does not stand
                last.
            AppliedTwiceError, ModelError: as for :meth:`gradient`.
        """
        from penalize.jax.halfspace import halfspace

        return halfspace(self, optimizer, average, strength)

    # --- what transforms ask ----------------------------------------------------------------

    def weights(self, params: Any) -> list[PenalizedArray]:
        """The penalized arrays of a tree, less those that a mask left out.

        Raises:
            ModelError: the tree is not one of the parameters that were planned.
        """
        found = arrays_of(params)
        self._check_same(leaves_of(params), found)
        return [
            PenalizedArray(name, found[name], regularizer)
            for name, regularizer in self.penalized.items()
            if name in found
        ]

    def check_prox(self, *, per_element: bool) -> None:
        """Raise :class:`NoProximalOperatorError` unless every penalty has an exact prox."""
        for name, regularizer in self.penalized.items():
            regularizer.check_step(per_element=per_element, where=repr(name))

    def check_gradients(self) -> None:
        """Raise :class:`NoGradientError` unless every penalty has a gradient that acts."""
        for name, regularizer in self.penalized.items():
            regularizer.check_gradient(repr(name))

    def check_kinks(self) -> None:
        """Raise :class:`NoKinkError` unless each penalty has known kinks at 0, and one has some."""
        from penalize.halfspace import check_some_kinks

        check_some_kinks(self.penalized)

    def _check_same(self, leaves: Sequence[Leaf], found: dict[str, Any]) -> None:
        shapes = {site.name: e.parameter.shape for e in self._entries for site in e.parameter.sites}
        # A module may hold what is not trained beside the parameters that were planned, and a mask
        # may leave out a whole branch at once.
        trained = [leaf for leaf in leaves if check_leaf(leaf) and not why_not_trained(leaf)]
        strange = [leaf.name for leaf in trained if leaf.name in found.keys() - shapes.keys()]
        left_out = [leaf.name for leaf in leaves if leaf.value is None]
        missing = [
            name
            for name in self.penalized
            if name not in found and not any(_is_below(name, branch) for branch in left_out)
        ]
        if strange or missing:
            has = [f"has {some(strange)}"] if strange else []
            lacks = [f"lacks {some(missing)}"] if missing else []
            raise ModelError(
                f"this tree {' and '.join(has + lacks)}, unlike the one that was planned",
                "pass the parameters that were planned, or regularize these",
            )
        untied = [
            site.name
            for e in self._entries
            if e.parameter.name in self.penalized
            for site in e.parameter.sites[1:]
            if site.name in found
        ]
        if untied:
            raise ModelError(
                f"{some(untied)} is an array of its own here, and was tied where it was planned",
                "regularize these parameters",
            )
        for name in self.penalized:
            planned = shapes[name]
            here = tuple(found[name].shape) if name in found else planned
            if here != planned:
                raise ModelError(
                    f"{name!r} has the shape {here} here, and {planned} where it was planned",
                    "plan the tree of one model; vmap over several, and leave shard_map",
                )


def _is_below(name: str, branch: str) -> bool:
    return not branch or f"{name}.".startswith(f"{branch}.")
