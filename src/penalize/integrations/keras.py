"""A plan in Keras' ``fit``: put in force, logged apart from the loss, looked at, and drawn."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from penalize.callsite import called_at, callsite
from penalize.errors import (
    AppliedTwiceError,
    BalanceWarning,
    MissingPackageError,
    NeverAppliedWarning,
    NoMatchError,
    PenalizeError,
    TrainerError,
)
from penalize.logs import log
from penalize.plan import LivePlan, PenalizedNow, Row
from penalize.planning import Roles
from penalize.rules import Rules, parse

try:
    import keras

    from penalize.keras.choice import mode_named
    from penalize.keras.plan import Plan, plan_on
    from penalize.keras.regularize import regularize
except ModuleNotFoundError as error:
    raise MissingPackageError("keras", "penalize.integrations.keras") from error

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WORDS: dict[type[PenalizeError], str] = {
    AppliedTwiceError: "In Keras: PenalizeCallback() without rules goes on with the plan that is "
    "in force; callback.plan.detach() ends that of a callback, which outlives its fit.",
    NoMatchError: "In Keras the names are the paths of layers and variables below the model that "
    'is trained, as "dense.kernel".',
}

FAR = 10.0
"""A penalty that is a greater multiple of the data's loss is warned of."""

_made: WeakKeyDictionary[Plan, tuple[Any, ...]] = WeakKeyDictionary()
"""The plans of callbacks, each with what it was made of."""


class PenalizeCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """A callback that puts rules in force when ``fit`` begins, and logs penalties beside the loss.

    ``model.fit(x, y, callbacks=[PenalizeCallback({kernels: L2(1e-4)})])``. In ``model.history``,
    and for callbacks that stand behind it, ``penalty``, ``penalties/<rule>``, ``zeros`` and the
    groups that are left (:func:`penalize.log`) are among the logs of each epoch, as they are at its
    end. ``loss`` has the penalty in it with ``mode="loss"`` and not otherwise, as it is the mean
    over the epoch.

    The plan stays in force after ``fit``, as after ``regularize``, until ``plan.detach()``:
    ``evaluate`` counts it, another ``fit`` with this callback or the same rules goes on with it,
    and ``BackupAndRestore`` resumes.

    Args:
        rules: see :func:`penalize.keras.regularize`. None for the plan that is in force on the
            model, or if there is none, for what its layers declare.
        mode: how they act, as in ``regularize``, and so are ``roles`` and ``average``.

    Raises:
        RulesError, SelectorError, ModeError: rules or mode are malformed. What does not fit the
            model is raised by ``fit``, before the first step.

    Warns, in ``fit``:
        NeverAppliedWarning: no variable is penalized.
        BalanceWarning: after the first epoch of a new training the penalty is over 10 times what is
            left of the loss.
    """

    def __init__(
        self,
        rules: Rules | None = None,
        mode: str = "loss",
        *,
        roles: Roles | None = None,
        average: float | None = None,
    ) -> None:
        super().__init__()
        self.plan: Plan | None = None
        """The plan of the model that is trained, or was last; None before."""

        self._place = callsite()
        self._arguments = rules, mode, roles, average
        self._seen: LivePlan | None = None
        self._epochs: list[dict[str, float]] = []
        self._is_new = False
        with self._explained():
            parse({} if rules is None else rules, "rule", self._place)
            mode_named(mode, average)

    @property
    def history(self) -> dict[str, list[float]]:
        """The loss and the numbers by their keys, one for each epoch; NaN where there was none."""
        keys = dict.fromkeys(key for epoch in self._epochs for key in epoch)
        return {key: [epoch.get(key, math.nan) for epoch in self._epochs] for key in keys}

    def on_train_begin(self, logs: Any = None) -> None:
        """Put the rules in force, unless they are."""
        model = self.model
        with self._explained():
            plans = self._in_force(model)
        self.plan = plans[0]
        self._seen = plans[0] if len(plans) == 1 else PlansInForce(plans)
        steps = getattr(model.optimizer, "iterations", 0)
        self._is_new = int(keras.ops.convert_to_tensor(steps)) == 0
        if not any(plan.penalized() for plan in plans):
            warnings.warn(
                f"PenalizeCallback ({self._place}) penalizes no variable of {model.name!r}, which "
                "is trained now: none has a regularizer and is trainable. Give it rules, such as "
                "{kernels: L2(1e-4)}.",
                NeverAppliedWarning,
                stacklevel=2,
            )

    def _in_force(self, model: Any) -> list[Plan]:
        """The plans on the model, of which one is of these rules, or is to be looked at."""
        plans = _plans_on(model)
        rules, mode, roles, average = self._arguments
        if any(_made.get(plan) == self._arguments for plan in plans) or (plans and rules is None):
            return plans
        made = regularize(model, rules, roles=roles, mode=mode, average=average)
        _made[made] = self._arguments
        return [made]

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Add the numbers of the plan to the logs, and look at them once."""
        if self._seen is None:
            return
        loss = float((logs or {}).get("loss", math.nan))
        numbers = log(self._seen)
        self._epochs.append({"loss": loss, **numbers})
        if logs is not None:
            logs.update(numbers)
        if self._is_new and epoch == 0:
            self._weigh(loss, numbers["penalty"])

    def _weigh(self, loss: float, penalty: float) -> None:
        assert self.plan is not None
        data = loss - penalty if self.plan.mode == "loss" else loss
        if data > 0 and FAR * data < penalty < math.inf:  # which that of a constraint may be
            warnings.warn(
                f"After the first epoch the penalty is {penalty:.4g}, over {FAR:g} times what the "
                f"loss is without it, {data:.4g}, and drowns the data. Take smaller strengths; "
                "callback.plan.breakdown() tells which parts of it are large.",
                BalanceWarning,
                stacklevel=2,
            )

    def plot(self) -> Figure:
        """A figure: loss and penalties over the epochs, and beside them what has become zero.

        Raises:
            TrainerError: no epoch was trained with it yet.
            MissingPackageError: matplotlib is not installed.
        """
        if not self._epochs:
            raise TrainerError(
                "plot was called, and no epoch was trained with this callback",
                "give it to model.fit(..., callbacks=[callback]) first",
            )
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise MissingPackageError("matplotlib", "PenalizeCallback.plot", "select") from None
        figure = Figure(figsize=(9, 3.5), layout="constrained")
        left, right = figure.subplots(1, 2)
        for key, numbers in self.history.items():
            ax = left if key == "loss" or key.startswith("penal") else right
            style = {"loss": "k--", "penalty": "k-"}.get(key, "-")
            epochs = range(1, len(numbers) + 1)
            ax.plot(epochs, numbers, style, label=key.removeprefix("penalties/"))
        left.set(xlabel="epoch", yscale="log", title="loss and penalties")
        right.set(xlabel="epoch", title="share of zeros, groups left")
        for ax in (left, right):
            ax.legend()
        return figure

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Errors say where the callback was made, and what to write here."""
        try:
            with called_at(self._place):
                yield
        except PenalizeError as error:
            for kind, words in _WORDS.items():
                if isinstance(error, kind):
                    error.add_note(words)
            raise


class PlansInForce(LivePlan):
    """Several plans that are in force on parts of one model, as one to be looked at."""

    def __init__(self, plans: Sequence[Plan]) -> None:
        self._plans = plans

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows of all, their names told apart."""
        return tuple(
            replace(row, name=f"{number}.{row.name}")
            for number, plan in enumerate(self._plans)
            for row in plan.rows
        )

    def penalized_now(self, params: Any = None, *, at: Any = None) -> list[PenalizedNow]:
        """What they penalize."""
        return [
            each._replace(name=f"{number}.{each.name}")
            for number, plan in enumerate(self._plans)
            for each in plan.penalized_now(at=at)
        ]


def _plans_on(model: Any) -> list[Plan]:
    """The plans in force on variables of a model."""
    found = (plan_on(variable) for variable in model.variables)
    return list(dict.fromkeys(plan for plan in found if plan is not None))
