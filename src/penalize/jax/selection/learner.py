"""A pytree or module with a plan and its training, as a path asks for it."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from penalize.jax.plan import Plan
from penalize.jax.selection.functions import Trained, function_of
from penalize.jax.selection.training import Training
from penalize.regularizers.base import described
from penalize.selection import beginning
from penalize.selection.arrays import State
from penalize.selection.describing import digest_of
from penalize.selection.inputs import mapped, taken
from penalize.selection.learner import Done, HeldOut, Learner, Task

Carry = tuple[Trained, Any, Any]
"""What is trained, what goes along, and the state of the optimizer."""


class TreeLearner(Learner):
    """Parameters as values: a training is a pure function, compiled once per number of samples."""

    def __init__(self, training: Training, plan: Plan) -> None:
        self.training = training
        self.plan = plan
        self._function = function_of(training.model, training.apply, plan.trained)
        plan.weights(self._function.trained)  # it is a plan of this model, or says what it is of
        self._x, self._y = mapped(jnp.asarray, training.x), jnp.asarray(training.y)
        self._trained = jax.jit(self._train)
        self._output = jax.jit(partial(self._function, training=False))

    @property
    def samples(self) -> int:
        return self.training.samples

    def penalized(self) -> list[str]:
        return list(self.plan.penalized)

    def about(self) -> dict[str, Any]:
        return {
            "penalties": {name: described(r) for name, r in self.plan.penalized.items()},
            "model at the start": digest_of(self.state().values()),
            "fit": self.training.describe(),
        }

    def state(self) -> State:
        return self._function.state(self._function.trained, self._function.along)

    def strength_max(self) -> float:
        trained, along = self._function.begun(self.state())

        @jax.jit
        @jax.value_and_grad
        def loss(trained: Trained) -> Any:
            output, _ = self._function(trained, along, self._x, training=True)
            return self.training.loss(output, self._y)

        def measured(weights: beginning.Weights) -> tuple[float, beginning.Weights]:
            value, gradients = loss({name: jnp.asarray(w) for name, w in weights.items()})
            return float(value), {name: np.asarray(g) for name, g in gradients.items()}

        start = {name: np.asarray(w) for name, w in trained.items()}
        return beginning.strength_max(measured, start, self.plan.penalized)

    def untouched(self) -> AbstractContextManager[None]:
        return nullcontext()  # nothing is changed in place

    def plan_at(self, strength: float) -> Plan:
        return self.plan.scaled(strength)

    def load(self, state: State) -> Any:
        return self._function.load(state)

    # --- a run ------------------------------------------------------------------------------

    def run(self, task: Task) -> Done:
        began = time.perf_counter()
        rows = jnp.asarray(task.fold.train)
        begun = self._function.begun(task.start)
        trained, along = self._trained(*begun, jnp.asarray(task.strength), rows)
        held_out = self._held_out(trained, along, jnp.asarray(task.fold.valid))
        return Done(
            task, held_out, self._function.state(trained, along), time.perf_counter() - began
        )

    def _held_out(self, trained: Trained, along: Any, rows: Array) -> HeldOut:
        output, _ = self._output(trained, along, taken(self._x, rows))
        target, score = self._y[rows], self.training.score
        loss = float(self.training.loss(output, target))
        return HeldOut(loss) if score is None else HeldOut(loss, float(score(output, target)))

    def _train(self, trained: Trained, along: Any, strength: Array, rows: Array) -> Any:
        training = self.training
        transform = training.transform(self.plan, strength)
        size = training.batch_size or len(rows)
        whole = len(rows) // size * size

        def step(carry: Carry, batch: Array) -> tuple[Carry, None]:
            trained, along, state = carry
            gradients, along = jax.grad(self._loss, has_aux=True)(trained, along, batch)
            updates, state = transform.update(gradients, state, trained)
            new: Trained = optax.apply_updates(trained, updates)
            return (new, along, state), None

        def epoch(place: tuple[Array, Array, Carry]) -> tuple[Array, Array, Carry]:
            number, _, carry = place
            order = rows
            if training.batch_size is not None:  # an order of its own for each epoch
                key = jax.random.fold_in(jax.random.key(training.seed), number)
                order = jax.random.permutation(key, rows)
            before = carry[0]
            carry, _ = jax.lax.scan(step, carry, order[:whole].reshape(-1, size))
            if whole < len(rows):
                carry, _ = step(carry, order[whole:])
            moved = [jnp.abs(carry[0][n] - w).max() for n, w in before.items()]
            return number + 1, jnp.stack([m.astype(float) for m in moved]).max(), carry

        def goes_on(place: tuple[Array, Array, Carry]) -> Any:
            number, moved, _ = place
            is_still = (moved <= training.tolerance) & (training.tolerance > 0)
            return (number < training.epochs) & ~is_still

        begun = jnp.asarray(0), jnp.asarray(jnp.inf), (trained, along, transform.init(trained))
        return jax.lax.while_loop(goes_on, epoch, begun)[2][:2]

    def _loss(self, trained: Trained, along: Any, batch: Array) -> Any:
        output, along = self._function(trained, along, taken(self._x, batch), training=True)
        return self.training.loss(output, self._y[batch]), along
