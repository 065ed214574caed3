"""What a plan sets on the models that it knows: what is to happen before training, and in copies.

Before it trains, Keras asks a model to ``make_train_function``. Nothing has moved by then: neither
has the data passed through the layers, nor has JAX taken the values out of the variables.

For a deep copy, Keras saves and loads a model. What a plan sets on variables is not saved, or not
all of it, and so a copy gets its plans anew.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from penalize.errors import NeverAppliedWarning, PenalizeError

PlanOn = Callable[[Any], Any]
"""The plan in force on a variable, or None."""


def hook(models: Iterable[Any], plan_on: PlanOn) -> None:
    """Have models ask the plans in force on them before they train, and take them into copies."""
    for model in models:
        for name, act in _HOOKS.items():
            # A layer is not trained by itself, and what somebody else has set stays.
            if name not in vars(model) and hasattr(type(model), "make_train_function"):
                vars(model)[name] = partial(act, model, plan_on)


def unhook(models: Iterable[Any], plan_on: PlanOn) -> None:
    """Undo :func:`hook` for models on which no plan is in force any more."""
    for model in models:
        for name, act in _HOOKS.items():
            if getattr(vars(model).get(name), "func", None) is act and not _plans(model, plan_on):
                del vars(model)[name]


def _plans(model: Any, plan_on: PlanOn) -> list[Any]:
    found = {id(plan): plan for v in model.variables if (plan := plan_on(v)) is not None}
    return list(found.values())


def _asked(model: Any, plan_on: PlanOn, force: bool = False) -> Any:
    for plan in _plans(model, plan_on):
        plan.look(model)
    return type(model).make_train_function(model, force=force)


def _copied(model: Any, plan_on: PlanOn, memo: dict[int, Any]) -> Any:
    plans = _plans(model, plan_on)
    ours = vars(model).pop("__deepcopy__")
    try:
        new = copy.deepcopy(model, memo)
    finally:
        vars(model)["__deepcopy__"] = ours
    for plan in plans:
        try:
            plan.put_on(new, model)
        except PenalizeError as error:
            warnings.warn(
                f"The copy of {model.name!r} has not the plan of {plan.place}: {error} Call "
                "regularize for it.",
                NeverAppliedWarning,
                stacklevel=3,
            )
    return new


_HOOKS: dict[str, Callable[..., Any]] = {"make_train_function": _asked, "__deepcopy__": _copied}
