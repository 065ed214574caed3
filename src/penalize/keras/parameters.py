"""Reading a Keras model into parameter records, each with its live variable."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import keras

from penalize.errors import ModelError, some
from penalize.keras.conversion import shown
from penalize.keras.roles import LORA, axes_of, role_of
from penalize.names import unique
from penalize.parameters import Parameter, Site
from penalize.roles import role_of_ties
from penalize.rules import Rule, Table
from penalize.selectors import everything

# What Keras calls a variable that was given no name. The number counts all of them in the process.
_UNNAMED = re.compile(r"variable(_\d+)?")


_SAVE_THEIR_LAYERS = (
    keras.Sequential,
    keras.layers.Wrapper,
    keras.layers.Bidirectional,
    keras.layers.RNN,
    keras.layers.StackedRNNCells,
)


class HoldingLayer(NamedTuple):
    """A layer that holds a variable, under this name."""

    layer: Any
    name: str

    saved: bool
    """Whether the layer's configuration is saved as part of the model's."""


@dataclass(frozen=True, eq=False)
class HeldVariable:
    """How to reach one variable: itself, and the layers that hold it."""

    variable: Any
    owners: tuple[HoldingLayer, ...]


@dataclass
class _FoundVariable:
    variable: Any
    owners: list[HoldingLayer] = field(default_factory=list)
    sites: dict[str, tuple[type, ...]] = field(default_factory=dict)


def read(model: Any) -> list[tuple[Parameter, HeldVariable]]:
    """One record per distinct variable that can be trained, in the model's order.

    A name is the path of layer names below the model, as its summary shows them, and the variable's
    name. A layer or variable that stands in several places is one record with all its names.
    Frozen variables are recorded; those that were never meant to be trained are not.

    Raises:
        ModelError: this is no Keras model or layer, it is not built, or has nothing to train.
    """
    if not isinstance(model, keras.Layer):
        raise ModelError(
            f"regularize got a {type(model).__name__} as the model",
            "pass the keras.Model or keras.Layer itself",
        )
    _check_is_built(model)
    found = records(model)
    if not found:
        raise ModelError(
            f"this {type(model).__name__} has no trainable variables", "pass a model that has some"
        )
    return found


def records(model: Any) -> list[tuple[Parameter, HeldVariable]]:
    """What :func:`read` gives, for a model as it is now: there may be nothing to train any more."""
    found: dict[int, _FoundVariable] = {}
    for path, enclosing, layer, saved in _walk(model, (), (), True):
        for name, variable in _variables_of(layer):
            entry = found.setdefault(id(variable), _FoundVariable(variable))
            entry.sites.setdefault(".".join((*path, name)), enclosing)
            if not any(owner.layer is layer for owner in entry.owners):
                entry.owners.append(HoldingLayer(layer, name, saved))
    return [(_record(f), HeldVariable(f.variable, tuple(f.owners))) for f in found.values()]


def _layers_of(layer: Any) -> list[Any]:
    """The layers right below. Keras tells the public only of those of a model."""
    return list({id(child): child for child in layer._layers}.values())


def _check_is_built(model: Any) -> None:
    unbuilt = [
        ".".join(path) for path, _, layer, _ in _walk(model, (), (), True) if not layer.built
    ]
    if unbuilt:
        which = "" if "" in unbuilt else f": {some(unbuilt)} has no variables yet"
        raise ModelError(
            f"this {type(model).__name__} is not built{which}",
            "build or call it first: model.build(input_shape), or model(batch)",
        )


def _walk(
    layer: Any, path: tuple[str, ...], enclosing: tuple[type, ...], saved: bool
) -> Iterator[tuple[tuple[str, ...], tuple[type, ...], Any, bool]]:
    """Every layer at every place: path, types down to it, itself, whether it is saved."""
    enclosing = (*enclosing, type(layer))
    yield path, enclosing, layer, saved
    children = _layers_of(layer)
    saved = saved and _saves_its_layers(layer)
    for name, child in zip(unique(child.name for child in children), children, strict=True):
        yield from _walk(child, (*path, name), enclosing, saved)


def _saves_its_layers(layer: Any) -> bool:
    """Whether ``get_config`` of the layer holds those of its layers.

    Other layers, subclassed models among them, make theirs anew from their own arguments.
    """
    return isinstance(layer, _SAVE_THEIR_LAYERS) or type(layer).__name__ == "Functional"


def _variables_of(layer: Any) -> Iterator[tuple[str, Any]]:
    """The layer's own variables that can be trained, with names that are unique in it.

    This is the store in which Keras keeps them: a frozen variable stays in it. Variables that are
    set from their gradients (float8 scales) are no weights, and a wrapper may hold a reference to a
    variable of the layer that it wraps.
    """
    inner = {id(v) for v in layer.layer.variables} if _is_wrapper(layer) else set()
    own = [
        v
        for v in layer._trainable_variables
        if id(v) not in inner and not v.overwrite_with_gradient
    ]
    yield from zip(unique(_name_in(layer, v) for v in own), own, strict=True)


def _is_wrapper(layer: Any) -> bool:
    return isinstance(layer, keras.layers.Wrapper)


def _name_in(layer: Any, variable: Any) -> str:
    if _UNNAMED.fullmatch(variable.name):
        for attribute, value in dict[str, Any](vars(layer)).items():
            if value is variable:
                return str(attribute)
    return str(variable.name)


def _record(found: _FoundVariable) -> Parameter:
    variable = found.variable
    shape = tuple(variable.shape)
    roles = {role_of(type(o.layer), o.name, shape) for o in found.owners}
    axes = {axes_of(o.layer, o.name, len(shape)) for o in found.owners}
    outputs, inputs = next(iter(axes)) if len(axes) == 1 else (None, None)
    declared = None
    regularizer = shown(variable.regularizer)
    if regularizer is not None:
        declared = Table((Rule(everything, regularizer),), "declare", "on the variable")
    return Parameter(
        sites=tuple(Site(name, types, (), declared) for name, types in found.sites.items()),
        role=role_of_ties(roles),
        shape=shape,
        trainable=bool(variable.trainable),
        outputs_axis=outputs,
        inputs_axis=inputs,
        note=_note(found),
    )


def _note(found: _FoundVariable) -> str:
    """What LoRA makes of a layer's kernel: a frozen weight, and two factors that are trained."""
    for layer, name, _ in found.owners:
        if not getattr(layer, "lora_enabled", False):
            continue
        if name.startswith(LORA):
            return "LoRA factor: a penalty acts on the factor, not on the kernel that it changes"
        if any(other.name == f"{LORA}{name}_a" for other in layer._trainable_variables):
            return f"LoRA trains {LORA}{name}_a and {LORA}{name}_b instead"
    return ""
