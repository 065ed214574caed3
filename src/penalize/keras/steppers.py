"""The optimizer that steps a variable, where one wraps others, and how it decays it."""

from __future__ import annotations

from typing import Any


def stepper_of(optimizer: Any, variable: Any) -> Any:
    """The optimizer that really steps a variable.

    Behind a ``LossScaleOptimizer``, which ``compile`` puts around another under ``mixed_float16``,
    it is that one; in a ``MultiOptimizer`` it is the one for the variable. Where it cannot be known
    yet, it is what wraps it.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not hasattr(optimizer, "_inner_optimizers"):
        return optimizer
    number = getattr(optimizer, "_var_to_optimizer_idx", {}).get(optimizer._var_key(variable))
    if number is not None:
        return optimizer._inner_optimizers[number]
    table = optimizer._optimizer_map
    # A function makes optimizers, which Keras asks for when it builds its own.
    return table(variable) if hasattr(table, "default_optimizer") else optimizer


def decay_of(optimizer: Any, variable: Any) -> tuple[str, Any] | None:
    """The argument by which an optimizer decays a variable, and its value; None: it does not.

    Muon has two: ``adam_weight_decay`` is that of all that it steps as Adam does, such as biases.
    """
    if optimizer is None or not optimizer._use_weight_decay(variable):
        return None
    as_adam = getattr(optimizer, "_should_use_adamw", None)
    argument = "adam_weight_decay" if as_adam and as_adam(variable) else "weight_decay"
    value = getattr(optimizer, argument, None)
    return (argument, value) if value else None
