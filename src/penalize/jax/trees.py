"""A pytree as names and leaves: the one thing that plans of parameters and of updates share.

Names are the paths of the tree, so that a Flax module, its state and a plain dictionary of the same
arrays have the same names. What a mask leaves out (None, ``optax.MaskedNode``) is no leaf.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax.tree_util import (
    DictKey,
    FlattenedIndexKey,
    GetAttrKey,
    SequenceKey,
    tree_flatten_with_path,
    tree_unflatten,
)

from penalize.errors import ModelError
from penalize.regularizers.base import Regularizer

Path = tuple[Any, ...]


class Leaf(NamedTuple):
    """One array of a tree, and where it stands."""

    path: Path
    """The path in the tree, without what Flax' variables add to it."""

    value: Any
    """The array; None where a mask left it out."""

    variable: Any = None
    """The variable of Flax NNX that holds it, if one does."""

    @property
    def name(self) -> str:
        return ".".join(str(component(key)) for key in self.path)


class PenalizedArray(NamedTuple):
    """A penalized array."""

    name: str
    value: Any
    regularizer: Regularizer

    def at(self, step: Any) -> PenalizedArray:
        """The same with its strength at a step of training."""
        regularizer = self.regularizer
        if step is None or not regularizer.scheduled:
            return self
        return self._replace(regularizer=regularizer.at(step))

    def penalty(self) -> Any:
        """Ω(w), through which a gradient comes by also where Ω has none."""
        value = self.regularizer(self.value)
        if self.regularizer.differentiable:
            return value
        return value + 0.0 * jax.numpy.ravel(self.value)[:1].sum()


def component(key: Any) -> Any:
    """What a key of a path is called."""
    match key:
        case DictKey() | FlattenedIndexKey():
            return key.key
        case SequenceKey():
            return key.idx
        case GetAttrKey():
            return key.name
    return key


def leaves_of(tree: Any) -> list[Leaf]:
    """Every leaf, in the tree's order."""
    boxes = {
        path: held
        for path, held in tree_flatten_with_path(tree, is_leaf=_is_box)[0]
        if _is_box(held)
    }
    found = []
    for path, value in tree_flatten_with_path(tree, is_leaf=_is_left_out)[0]:
        held = boxes.get(path[:-1])
        own = path if held is None else path[:-1]
        variable = held if is_of(held, "flax.nnx", "Variable") else None
        found.append(Leaf(own, None if _is_left_out(value) else value, variable))
    return found


def arrays_of(tree: Any) -> dict[str, Any]:
    """The arrays of a tree by name, a tied one by its first, less what a mask left out."""
    found = {tie(leaf): leaf for leaf in reversed(leaves_of(tree)) if check_leaf(leaf)}
    return {leaf.name: leaf.value for leaf in reversed(found.values())}


def with_leaves(tree: Any, values: Mapping[str, Any]) -> Any:
    """The tree, with other values for the leaves of these names, and for those tied to them."""
    held, structure = tree_flatten_with_path(tree, is_leaf=_is_left_out)
    leaves = leaves_of(tree)
    first = {tie(leaf): leaf.name for leaf in reversed(leaves)}
    new = [values.get(first[tie(leaf)], old) for leaf, (_, old) in zip(leaves, held, strict=True)]
    return tree_unflatten(structure, new)


def tie(leaf: Leaf) -> Any:
    """A key that leaves share if they are one variable of Flax NNX, and no others do."""
    return leaf.path if leaf.variable is None else id(leaf.variable)


def _is_box(value: Any) -> bool:
    """A variable of Flax NNX, or an array of Linen with the names of its axes, ``Partitioned``."""
    return is_of(value, "flax.nnx", "Variable") or is_of(value, "flax.core.meta", "AxisMetadata")


def _is_left_out(value: Any) -> bool:
    return value is None or is_of(value, "optax", "MaskedNode")


def is_of(value: Any, package: str, name: str = "") -> bool:
    """Whether a value's class is, or derives from, one of a package (of this name)."""
    mro = type(value).__mro__
    return any(c.__module__.startswith(package) and name in ("", c.__name__) for c in mro)


def check_leaf(leaf: Leaf) -> bool:
    """Whether a leaf is an array, concrete or abstract.

    What a module holds beside its arrays is passed over: functions, and attributes such as the rate
    of a dropout layer.

    Raises:
        ModelError: it is anything else.
    """
    if hasattr(leaf.value, "shape") and hasattr(leaf.value, "dtype"):
        return True
    is_attribute = any(isinstance(key, GetAttrKey) for key in leaf.path)
    if leaf.value is None or callable(leaf.value) or is_attribute:
        return False
    raise ModelError(
        f"{leaf.name!r} is {leaf.value!r}, a {type(leaf.value).__name__}",
        "pass a tree of arrays; a number that is trained is jax.numpy.asarray(number)",
    )


def why_not_trained(leaf: Leaf) -> str:
    """Why an array is not trained, for the plan's note; empty if it is."""
    if not jax.numpy.issubdtype(leaf.value.dtype, jax.numpy.floating):
        return f"of dtype {leaf.value.dtype}"
    if leaf.variable is None or is_of(leaf.variable, "flax.nnx", "Param"):
        return ""
    return f"a {type(leaf.variable).__name__}"
