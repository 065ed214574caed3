"""``get_variable``: what was asked for, with the scope's defaults, through the custom getters."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from penalize.errors import ScopeError, VariableError
from penalize.torch.tf1.arguments import Wanted, check_name, constant_of, dtype_of, shape_of
from penalize.torch.tf1.keys import GraphKeys, Reuse
from penalize.torch.tf1.scopes import refuse_constraint
from penalize.torch.tf1.sharing import obtain
from penalize.torch.tf1.state import Getter, get_variable_scope, joined
from penalize.torch.tf1.store import get_collection, get_default_store


def get_variable(  # noqa: PLR0917 - TensorFlow's order
    name: str,
    shape: Any = None,
    dtype: Any = None,
    initializer: Any = None,
    regularizer: Any = None,
    trainable: bool | None = None,
    collections: Any = None,
    caching_device: Any = None,
    partitioner: Any = None,
    validate_shape: bool = True,
    use_resource: bool | None = None,
    custom_getter: Getter | None = None,
    constraint: Any = None,
    synchronization: Any = None,
    aggregation: Any = None,
) -> Any:
    """The variable of this name in the current scope: a new one, or the one that exists.

    Which of the two is allowed is the scope's ``reuse``: False, the default, makes new variables
    only, True shares only, ``AUTO_REUSE`` does what is needed. On PyTorch the model's code runs in
    every step, so a training loop puts it under ``variable_scope(…, reuse=AUTO_REUSE)``.

    What is left out is the scope's. A regularizer acts when the variable is made: its penalty is
    entered in ``GraphKeys.REGULARIZATION_LOSSES``, for biases and untrained variables too, and
    computed anew whenever the collection is read. Nothing adds it to your loss but you, with
    ``losses.get_regularization_loss()``. On a shared variable another regularizer is ignored, as in
    TensorFlow, with a warning.

    Args:
        name: below the scope's name.
        shape: a size or a sequence of sizes, in TensorFlow's layout.
        dtype: of PyTorch, NumPy or TensorFlow, or its name.
        initializer: ``f(shape, dtype=…)``, such as ``torch.zeros`` or
            ``lambda shape, dtype: 0.1 * torch.randn(shape, dtype=dtype)``; a function without
            arguments; or the value itself, which then gives shape and dtype. None is the scope's,
            or Glorot's uniform one.
        regularizer: a function from the variable to a scalar or None, one of penalize, or
            :func:`no_regularizer`. The words ``"outputs"`` and ``"inputs"`` mean the last axis and
            the last but one, as TensorFlow's kernels have it; name an axis for the kernels of
            transposed and depthwise convolutions.
        trainable: whether the variable is in ``GraphKeys.TRAINABLE_VARIABLES`` and requires a
            gradient.
        collections: where it is entered; ``[GraphKeys.GLOBAL_VARIABLES]`` if None.
        partitioner: called and checked; the variable stays whole.
        custom_getter: called in place of making the variable, with the true getter first.
        constraint: refused: no optimizer of PyTorch would apply it.
        caching_device, validate_shape, use_resource, synchronization, aggregation: about graphs and
            placement; no effect here.

    Returns:
        The parameter of the store, or what the custom getter made of it.

    Raises:
        VariableError: a ValueError, wherever TensorFlow 1 raises one.
        ScopeError: a TypeError, wherever TensorFlow 1 raises one: the dtype is unknown, or an
            argument is of a type that means nothing.
        PenaltyError, GroupsError, ShapeError, ArrayError: the regularizer gives no scalar, or does
            not fit the variable.
        NoGradientError: it is a constraint, or counts, and no loss can apply it: plan the store
            with ``mode="proximal"``.
    """
    if not isinstance(name, str) or not name:
        kind = VariableError if isinstance(name, str) else ScopeError
        raise kind(f"a variable was asked for with name={name!r}", "a name such as 'weights'")
    scope = get_variable_scope()
    full = joined(scope.name, name)
    acting = scope.regularizer if regularizer is None else regularizer
    if acting is not None and not callable(acting):
        raise ScopeError(f"variable {full!r} got regularizer={acting!r}", "a callable")
    _check_constant(full, initializer, dtype)
    kwargs = {
        "shape": shape,
        "dtype": scope.dtype if dtype is None else dtype,
        "initializer": scope.initializer if initializer is None else initializer,
        "regularizer": acting,
        "reuse": scope.reuse,
        "trainable": trainable,
        "collections": collections,
        "caching_device": caching_device,
        "partitioner": scope.partitioner if partitioner is None else partitioner,
        "validate_shape": validate_shape,
        "use_resource": use_resource,
        "constraint": constraint,
        "synchronization": synchronization,
        "aggregation": aggregation,
    }
    getter = scope.custom_getter if custom_getter is None else custom_getter
    if getter is None:
        return _true_getter(full, **kwargs)
    if not callable(getter):
        raise VariableError(f"variable {full!r} got custom_getter={getter!r}", "a callable")
    return getter(getter=_true_getter, name=full, **kwargs)


def _check_constant(name: str, initializer: Any, dtype: Any) -> None:
    if dtype is None or initializer is None or callable(initializer):
        return
    found, expected = constant_of(name, initializer).dtype, dtype_of(name, dtype)
    if found != expected:
        raise VariableError(
            f"the initializer of variable {name!r} is of {found}", f"{expected}, as dtype= says"
        )


def _true_getter(  # noqa: PLR0917 - as get_variable
    name: str,
    shape: Any = None,
    dtype: Any = "float32",
    initializer: Any = None,
    regularizer: Any = None,
    reuse: bool | Reuse | None = None,
    trainable: bool | None = None,
    collections: Any = None,
    caching_device: Any = None,
    partitioner: Any = None,
    validate_shape: bool = True,
    use_resource: bool | None = None,
    constraint: Any = None,
    synchronization: Any = None,
    aggregation: Any = None,
) -> Tensor:
    """What a custom getter is given to call: under this very name, or whichever it likes better."""
    refuse_constraint(constraint)
    check_name("a variable", name)
    return obtain(
        get_default_store(),
        Wanted(
            name=name,
            shape=shape_of(name, shape),
            dtype=dtype_of(name, dtype),
            initializer=initializer,
            regularizer=regularizer,
            reuse=reuse,
            trainable=trainable is None or bool(trainable),
            collections=_collections(name, collections, trainable is None or bool(trainable)),
            partitioner=partitioner,
        ),
    )


def _collections(name: str, given: Any, trainable: bool) -> tuple[Any, ...]:
    if not isinstance(given, list | tuple | set | None):
        raise VariableError(f"variable {name!r} got collections={given!r}", "a list, tuple or set")
    keys = dict.fromkeys([GraphKeys.GLOBAL_VARIABLES] if given is None else given)
    return tuple(dict.fromkeys([*keys, GraphKeys.TRAINABLE_VARIABLES]) if trainable else keys)


def trainable_variables(scope: str | None = None) -> list[Any]:
    """The trainable variables of the current store; of a scope, as ``get_collection`` has it."""
    return get_collection(GraphKeys.TRAINABLE_VARIABLES, scope)


def global_variables(scope: str | None = None) -> list[Any]:
    """The variables of the current store; of a scope, as ``get_collection`` has it."""
    return get_collection(GraphKeys.GLOBAL_VARIABLES, scope)
