"""Reading variables, a ``tf.Module`` or a Keras model into records, each with its live weight."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import tensorflow as tf

from penalize.errors import ModelError, some
from penalize.names import unique
from penalize.parameters import Parameter, Site
from penalize.roles import role_by_name
from penalize.tensorflow.axes import axes_of
from penalize.tensorflow.weights import Weight, is_partitioned, opened, weights_of

Read = list[tuple[Parameter, Weight]]


def read(model: Any) -> Read:
    """One record per distinct weight, with every name it has.

    Raises:
        ModelError: there is nothing that can be planned.
    """
    if _is_keras_layer(model):
        found = _read_keras(model)
    elif isinstance(model, tf.Module):
        found = _read_module(model)
    else:
        found = _read_variables(model)
    if not found:
        raise ModelError(
            f"this {type(model).__name__} has no variables",
            "pass variables, a tf.Module that has some, or a Keras model that is built",
        )
    return found


def _is_keras_layer(value: Any) -> bool:
    return _is_of_keras(value, "Layer")


def _is_variable(value: Any) -> bool:
    return (
        isinstance(value, tf.Variable) or is_partitioned(value) or _is_of_keras(value, "Variable")
    )


def _is_of_keras(value: Any, name: str) -> bool:
    """Whether it is a Keras object of that class, without loading Keras to ask."""
    mro = type(value).__mro__
    return any(c.__name__ == name and c.__module__.startswith("keras.") for c in mro)


def variables_in(model: Any) -> list[Any]:
    """TensorFlow's variables that a module or Keras model holds now; none of what is a list."""
    if _is_keras_layer(model):
        found = list(model.variables)
    elif isinstance(model, tf.Module):
        # TensorFlow's modules do not know the variables of Keras layers in them.
        layers = [v for _, _, v in _walk(model, (), (), frozenset()) if _is_keras_layer(v)]
        found = [*model.variables, *(v for layer in layers for v in layer.variables)]
    else:
        found = []
    return list({id(v): v for v in map(opened, found)}.values())


# --- a Keras model --------------------------------------------------------------------------


def _read_keras(model: Any) -> Read:
    from penalize.keras.parameters import read as read_keras

    _check_backend("model")
    return [
        (parameter, Weight(parameter.name, (weight.variable,), tuple(weight.variable.shape)))
        for parameter, weight in read_keras(model)
    ]


def _check_backend(kind: str) -> None:
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ModelError(
            f"this Keras {kind} is one of {keras.backend.backend()}",
            "plan the model with penalize.keras.regularize",
        )


# --- variables ------------------------------------------------------------------------------


def _read_variables(variables: Any) -> Read:
    if not isinstance(variables, Iterable) or isinstance(variables, str | tf.Tensor):
        raise _not_a_model(variables)
    listed = list(variables)
    for item in listed:
        if not _is_variable(item):
            raise _not_a_model(item)
        if _is_of_keras(item, "Variable"):
            _check_backend("variable")
    weights = weights_of(listed)
    names = unique(weight.name for weight in weights)
    return [(_from_name(w, name), w) for w, name in zip(weights, names, strict=True)]


def _not_a_model(value: Any) -> ModelError:
    return ModelError(
        f"regularize got a {type(value).__name__}",
        "pass a list of variables, such as tf.compat.v1.trainable_variables() or "
        "module.trainable_variables, a tf.Module or a Keras model",
    )


def _from_name(weight: Weight, name: str) -> Parameter:
    *above, own = weight.name.split("/")
    return _record(weight, own, above[-1] if above else "", (Site(name.replace("/", ".")),))


def _record(weight: Weight, own: str, owner: str, sites: tuple[Site, ...]) -> Parameter:
    role = role_by_name(own, weight.shape, owner)
    outputs, inputs = axes_of(own, owner, role, len(weight.shape))
    count = len(weight.variables)
    return Parameter(
        sites=sites,
        role=role,
        shape=weight.shape,
        trainable=weight.trainable,
        outputs_axis=outputs,
        inputs_axis=inputs,
        note=f"{count} shards" if count > 1 else "",
    )


# --- a module -------------------------------------------------------------------------------


def _read_module(module: tf.Module) -> Read:
    found: dict[int, tuple[Parameter, Weight]] = {}
    for path, enclosing, value in _walk(module, (), (), frozenset()):
        for parameter, weight in _read_at(path, enclosing, value):
            key = id(weight.first)
            known, _ = found.setdefault(key, (parameter, weight))
            names = {site.name for site in known.sites}
            more = tuple(site for site in parameter.sites if site.name not in names)
            found[key] = replace(known, sites=known.sites + more), weight
    hidden = [v.name for v in module.trainable_variables if id(opened(v)) not in found]
    if hidden:
        raise ModelError(
            f"this {type(module).__name__} holds {some(hidden)} where it cannot be named",
            "keep variables in attributes, lists, tuples, dictionaries and modules, or pass them "
            "as a list",
        )
    return list(found.values())


def _read_at(path: tuple[str, ...], enclosing: tuple[type, ...], value: Any) -> Iterator[Any]:
    """What one attribute of a module holds: the variables of a layer, or a variable."""
    if _is_keras_layer(value):
        for parameter, weight in _read_keras(value):
            sites = tuple(
                replace(
                    site,
                    name=".".join((*path, site.name)),
                    enclosing=(*enclosing, *site.enclosing),
                )
                for site in parameter.sites
            )
            yield replace(parameter, sites=sites), weight
    else:
        (weight,) = weights_of([value])
        site = Site(".".join(path), enclosing)
        yield _record(weight, _own_name(path), enclosing[-1].__name__, (site,)), weight


def _walk(
    value: Any, path: tuple[str, ...], enclosing: tuple[type, ...], above: frozenset[int]
) -> Iterator[tuple[tuple[str, ...], tuple[type, ...], Any]]:
    """Every variable and Keras layer at every place, with its path and the modules around it."""
    if _is_variable(value) or _is_keras_layer(value):
        yield path, enclosing, value
        return
    if id(value) in above:
        return  # a module that refers to one above it
    children: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, tf.Module):
        enclosing = (*enclosing, type(value))
        hidden = getattr(value, "_TF_MODULE_IGNORED_PROPERTIES", ())
        children = [(k, v) for k, v in vars(value).items() if k not in hidden]
    elif isinstance(value, Mapping):
        children = value.items()
    elif isinstance(value, list | tuple):
        children = enumerate(value)
    for key, child in children:
        yield from _walk(child, (*path, str(key)), enclosing, above | {id(value)})


def _own_name(path: tuple[str, ...]) -> str:
    """The attribute's name; for an item of a list, the list's name before its number."""
    own = path[-1]
    return f"{path[-2]}_{own}" if own.isdigit() and len(path) > 1 else own
