"""A Keras model with a plan and its training, as a path asks for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from penalize.errors import PathError
from penalize.keras.plan import Plan
from penalize.keras.selection.gradients import loss_of, numpy_of, unpenalized
from penalize.keras.selection.training import Batches, Training
from penalize.regularizers.base import Regularizer, described
from penalize.selection import beginning
from penalize.selection.arrays import State
from penalize.selection.describing import digest_of
from penalize.selection.inputs import taken
from penalize.selection.learner import Done, HeldOut, Learner, Task

HELD_OUT_AT_ONCE = 1024
"""The samples that are predicted in one batch."""


class KerasLearner(Learner):
    """A compiled model, trained by its own ``fit``."""

    def __init__(self, training: Training, plan: Plan) -> None:
        self.training = training
        self.plan = plan
        self.model = plan.model
        if getattr(self.model, "optimizer", None) is None:
            raise PathError(
                f"the {type(self.model).__name__} of the plan has no optimizer", "compile it first"
            )
        self._loss = training.loss_of(self.model)
        self._given: Plan | None = None
        self._planned = plan.variables()
        known = {id(v) for v in self._planned.values()}
        others = [v for v in self.model.weights if id(v) not in known]
        self._weights = {**{self._named(v): v for v in others}, **self._planned}
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        # What draws at random and what the optimizer remembers: each run begins with it.
        self._begun = _values([*self.model.variables, *self.model.optimizer.variables])

    def _named(self, variable: Any) -> str:
        """The name of one that has no row: Keras counts models, and has the number in its path."""
        path: str = variable.path
        return path.removeprefix(f"{self.model.name}/").replace("/", ".")

    @property
    def samples(self) -> int:
        return self.training.samples

    def penalized(self) -> list[str]:
        return [name for name, _ in self.plan.penalized()]

    def about(self) -> dict[str, Any]:
        optimizer = self.model.optimizer
        return {
            "penalties": {t.name: described(t.regularizer) for t in self.plan.targets()},
            "model at the start": digest_of(self.state().values()),
            "fit": {
                **self.training.describe(),
                "mode": self.plan.mode,
                "optimizer": f"{type(optimizer).__name__} {optimizer.get_config()!r}",
            },
        }

    def state(self) -> State:
        return {n: numpy_of(v).copy() for n, v in self._weights.items()}

    def _set(self, state: State) -> None:
        for name, variable in self._weights.items():
            variable.assign(state[name])

    def strength_max(self) -> float:
        trainable = {id(v) for v in self.model.trainable_variables}
        variables = {n: v for n, v in self._weights.items() if id(v) in trainable}
        state = self.state()
        start = {name: w for name, w in state.items() if name in variables}
        penalized = {t.name: t.regularizer for t in self.plan.targets() if t.name in variables}
        with unpenalized(variables):
            loss = loss_of(self.model, self._loss, self.training.x, self.training.y, variables)
            try:
                return beginning.strength_max(loss, start, penalized)
            finally:
                self._set(state)

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """The weights, the optimizer and the plan are put back."""
        was_in_force, stopped = self.plan.in_force, self.model.stop_training
        self.plan.detach()
        try:
            self._check_declared()
            yield
        finally:
            _assign(self._begun)
            self.model.stop_training = stopped
            if was_in_force:
                self.plan.apply()

    def _check_declared(self) -> None:
        """Keras' own regularizers act as they are, in the loss, whatever the strength."""
        for target in self.plan.targets() if self.plan.mode == "loss" else []:
            own = target.weight.variable.regularizer
            if own is not None and not isinstance(own, Regularizer):
                raise PathError(
                    f"{target.name!r} declares {type(own).__name__} of Keras, whose strength is "
                    "not the plan's to change",
                    "take kernel_regularizer= away, or give it one of penalize's",
                )

    def plan_at(self, strength: float) -> Plan:
        """The plan at a strength. It is in force, in place of the path's and of the last one."""
        for old in (self.plan, self._given):
            if old is not None:
                old.detach()
        self._given = self.plan.scaled(strength)
        self._given.apply()
        return self._given

    def load(self, state: State) -> None:
        self._set(state)

    # --- a run ------------------------------------------------------------------------------

    def run(self, task: Task) -> Done:
        began = time.perf_counter()
        training, model = self.training, self.model
        _assign(self._begun)
        self._set(task.start)
        at = self.plan.scaled(task.strength)
        at.apply()
        try:
            batches = Batches(training, task.fold.train)
            steps = training.steps(len(task.fold.train))
            still = [Still(self._weights, steps, training.tolerance)] if training.tolerance else []
            model.fit(batches, epochs=1, verbose=0, shuffle=False, callbacks=still)
        finally:
            at.leave()
        return Done(
            task, self._held_out(task.fold.valid), self.state(), time.perf_counter() - began
        )

    def _held_out(self, rows: np.ndarray) -> HeldOut:
        training, y = self.training, self.training.y[rows]
        x = taken(training.x, rows)
        output = self.model.predict(x, batch_size=HELD_OUT_AT_ONCE, verbose=0)
        loss = _number(self._loss(y, output))
        return (
            HeldOut(loss)
            if training.score is None
            else HeldOut(loss, _number(training.score(y, output)))
        )


class Still(keras.callbacks.Callback):  # type: ignore[misc]
    """Ends a training after an epoch in which no weight has moved by more than a tolerance."""

    def __init__(self, variables: dict[str, Any], steps: int, tolerance: float) -> None:
        super().__init__()
        self._variables = variables
        self._steps = steps
        self._tolerance = tolerance

    def on_train_begin(self, logs: Any = None) -> None:
        self._before = self._now()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (batch + 1) % self._steps:
            return
        before, self._before = self._before, self._now()
        pairs = zip(before, self._before, strict=True)
        if max(float(np.abs(new - old).max()) for old, new in pairs) <= self._tolerance:
            self.model.stop_training = True

    def _now(self) -> list[np.ndarray]:
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()
        return [numpy_of(v).copy() for v in self._variables.values()]


Values = list[tuple[Any, np.ndarray]]


def _values(variables: list[Any]) -> Values:
    return [(v, numpy_of(v).copy()) for v in variables]


def _assign(values: Values) -> None:
    for variable, value in values:
        variable.assign(value)


def _number(value: Any) -> float:
    return float(np.mean(keras.ops.convert_to_numpy(value)))
