"""``regularize``: rules and a model → a plan that is in force."""

from __future__ import annotations

from typing import Any

import keras

from penalize.callsite import callsite
from penalize.errors import AppliedTwiceError, ArrayError, MissingPackageError
from penalize.keras.choice import mode_named
from penalize.keras.models import models_with, weakly
from penalize.keras.parameters import HeldVariable, read
from penalize.keras.plan import Plan, PlannedVariable, plan_on
from penalize.parameters import Parameter
from penalize.planning import Roles, planned
from penalize.rules import Rules


def regularize(
    model: Any,
    rules: Rules | None = None,
    *,
    roles: Roles | None = None,
    mode: str = "loss",
    average: float | None = None,
) -> Plan:
    """Resolve rules against a Keras model that is built, and put them in force in the next step.

    Weights, the optimizer's state and its iterations stay as they are; ``plan.detach()`` restores
    the model.

    ==============  ================================================================
    mode            in each step
    ==============  ================================================================
    ``"loss"``       the penalty is one of ``model.losses``, as ``kernel_regularizer=`` would
                    have it; it is saved and cloned with the layers that are
    ``"proximal"``   w ← prox of step·Ω at w after the update, with the step that the
                    optimizer really took; exact zeros. It adds zeros to
                    ``model.losses``, which give a gradient of zeros to variables
                    that the data does not reach, and saves nothing with the model
    ``"halfspace"``  exact zeros under any optimizer, and the right ones on mini-batches: what
                    is 0 stays until the running average of the data's gradient
                    overcomes the penalty. The averages are variables of the optimizer
                    until ``plan.detach()``. They are saved with its state, and
                    ``model.load_weights(file)`` takes them from there into a
                    model that has been planned again; else they begin anew
    ==============  ================================================================

    A regularizer that is on a variable already, from ``kernel_regularizer=`` or a loaded model, is
    a declaration: it is stronger than the rules. Set ``variable.regularizer = None`` to be rid of
    it.

    Every live model that holds one of the variables, such as the compiled one around the given
    model, is traced again when it is next trained. Before it trains, and before anything moves, it
    is refused if the plan cannot act, or not once: if it has been compiled anew with a
    ``weight_decay`` beside an L2, say, or with an optimizer whose step is not known. A model that
    is built around the variables later is met when it trains; a ``tf.function`` or ``jax.jit`` of
    your own, which was traced before, is not known here.

    ``copy.deepcopy`` of these models takes the plan along; what is saved, cloned or pickled has
    what the table says. ``plan_on(variable)`` gives the plan of a copy.

    Args:
        model: any ``keras.Model`` or ``keras.Layer``, compiled or not; ``"proximal"`` and
            ``"halfspace"`` need the compiled model that is trained. Optimizers that wrap others, as
            compiling under ``mixed_float16`` does, are looked through.
        rules: a regularizer, for the kernels; or a mapping (or list of pairs) selector →
            regularizer, or → None to exempt. Later rows win. A rule that mentions no role and
            names no variable in full acts on kernels. None to look at what is declared.
        roles: corrects what a variable is taken for, selector → role:
            ``roles={of_type(MyNorm): "norm"}``.
        mode: how the plan acts.
        average: of ``"halfspace"``, how much of the average stays in a step: 0.999 by default.

    Raises:
        RulesError, SelectorError, RoleError: the rules or roles are malformed.
        NoMatchError: a selector matches nothing.
        GroupsError, ShapeError: a regularizer does not fit a variable.
        ArrayError: a trainable variable with a regularizer is not real floating-point.
        ModelError: this is no Keras model, it is not built, or not compiled where it must be.
        ModeError: there is no such mode, or it cannot act on a variable or optimizer.
        NoProximalOperatorError: a regularizer has no exact prox under this optimizer.
        NoKinkError: in ``"halfspace"``, no penalty makes zeros, or it is not known where.
        AppliedTwiceError: a plan is in force on the model, or an L2 meets ``weight_decay``.
        MissingPackageError: this Keras is older than 3.15.

    The model is as it was if it raises.
    """
    _check_release()
    chosen = mode_named(mode, average)
    found = read(model)
    place = callsite()
    _check_free(found, place)
    parameters, weights = zip(*found, strict=True)
    rows = planned(parameters, rules, roles, lambda number: weights[number].variable)
    entries = [
        PlannedVariable(row.parameter, row.decision, weight, row.regularizer)
        for row, (_, weight) in zip(rows, found, strict=True)
    ]
    for entry in entries:
        _check_dtype(entry)
    models = weakly(models_with(model, [weight.variable for _, weight in found]))
    plan = Plan(model, entries, chosen, place, models)
    chosen.check(model, plan.targets())
    plan.apply()
    return plan


def _check_release() -> None:
    major, minor = keras.__version__.split(".")[:2]
    if (int(major), int(minor)) < (3, 15):
        # There the regularizer of a variable is to be of Keras' own class.
        raise MissingPackageError("keras>=3.15", "penalize.keras", "keras")


def _check_free(found: list[tuple[Parameter, HeldVariable]], place: str) -> None:
    held = {p.name: plan for p, w in found if (plan := plan_on(w.variable)) is not None}
    if held:
        first = next(iter(held.values()))
        raise AppliedTwiceError(
            list(held),
            f"the plan of {first.place}",
            f"the plan of {place}",
            "Call detach() on the first one; penalize.keras.plan_on(variable) gives it",
        )


def _check_dtype(entry: PlannedVariable) -> None:
    dtype = entry.weight.variable.dtype
    floating = keras.backend.is_float_dtype(dtype)
    if entry.regularizer is not None and entry.parameter.trainable and not floating:
        raise ArrayError(
            f"{entry.parameter.name!r} of dtype {dtype}",
            "a real floating-point variable; exempt it with a rule that gives None",
        )
