"""Reading a pytree into parameter records.

The type of the module that holds an array decides first, where the tree has modules (Equinox, Flax
NNX); otherwise the name of what holds it, as Linen and Haiku give it. Then its own name and shape.
"""

from __future__ import annotations

from typing import Any

from penalize.errors import ModelError, RulesError
from penalize.jax.trees import Leaf, check_leaf, component, is_of, leaves_of, tie, why_not_trained
from penalize.parameters import Parameter, Role, Site
from penalize.regularizers.base import Regularizer
from penalize.roles import is_norm, role_by_name, role_of_ties
from penalize.rules import Rule, Table
from penalize.selectors import everything

_METADATA = ("reg", "regularizer")
"""Where a Flax variable may declare its own: ``nnx.Param(value, reg=L1(1e-3))``."""


def read(params: Any) -> list[Parameter]:
    """One record per array, in the tree's order. A variable that stands twice is one, with aliases.

    Raises:
        ModelError: the tree has no arrays, or leaves that are neither arrays nor functions.
        RulesError: a variable declares something that is no regularizer.
    """
    found: dict[Any, list[Leaf]] = {}
    for leaf in leaves_of(params):
        if not leaf.path and leaf.value is not None:
            raise ModelError(
                f"regularize got a {type(params).__name__}, which is no tree of parameters",
                'put an array into a dictionary, {"w": array}',
            )
        if check_leaf(leaf):
            found.setdefault(tie(leaf), []).append(leaf)
    if not found:
        raise ModelError(
            f"this {type(params).__name__} has no arrays",
            "pass the parameters, as init() returns them, or a module that has some",
        )
    names = [leaf.name for leaves in found.values() for leaf in leaves]
    for name in {name for name in names if names.count(name) > 1}:
        raise ModelError(
            f"two arrays of this tree are called {name!r}",
            "give its keys names that differ when they are joined by dots",
        )
    return [_record(params, leaves) for leaves in found.values()]


def _record(params: Any, leaves: list[Leaf]) -> Parameter:
    leaf = leaves[0]
    owners = [_owners(params, leaf) for leaf in leaves]
    shape = tuple(leaf.value.shape)
    calls = [_called(*pair) for pair in zip(leaves, owners, strict=True)]
    role = role_of_ties([role_of(own, shape, owner) for own, owner in calls])
    outputs, inputs = axes_of(*calls[0], role, shape, owners[0][-1] if owners[0] else None)
    why_not = why_not_trained(leaf)
    return Parameter(
        sites=tuple(
            Site(leaf.name, tuple(map(type, above)), (), _declared(leaf))
            for leaf, above in zip(leaves, owners, strict=True)
        ),
        role=role,
        shape=shape,
        trainable=not why_not,
        outputs_axis=outputs,
        inputs_axis=inputs,
        note=why_not,
    )


def _owners(params: Any, leaf: Leaf) -> list[Any]:
    """The modules around an array, from the outside in; containers are none."""
    found = []
    value = params
    for key in leaf.path:
        if not isinstance(value, dict | list | tuple) and not _is_state(value):
            found.append(value)
        try:
            value = _child(value, component(key))
        except (AttributeError, LookupError, TypeError):
            return found  # a node of somebody's own, whose keys are not how it is accessed
    return found


def _child(value: Any, name: Any) -> Any:
    if isinstance(name, str) and hasattr(value, name) and not isinstance(value, dict):
        return getattr(value, name)
    return value[name]


def _is_state(value: Any) -> bool:
    return type(value).__name__ in ("State", "FrozenDict", "FlatMapping")


def _called(leaf: Leaf, owners: list[Any]) -> tuple[str, str]:
    """What the array and what holds it are called; an item of a list goes by the list's name."""
    words = [str(component(key)) for key in leaf.path]
    own = words.pop()
    if own.isdigit() and words:
        own = f"{words.pop()}_{own}"
    if owners and hasattr(owners[-1], str(component(leaf.path[-1]))):
        return own, type(owners[-1]).__name__
    above = [word for word in words if not word.isdigit()]
    return own, above[-1].rpartition("/")[2] if above else ""


def role_of(own: str, shape: tuple[int, ...], owner: str) -> Role:
    """The role of an array by its name, that of what holds it, and its shape."""
    if is_norm(owner) or role_by_name(owner, ()) is Role.NORM:  # LayerNorm_0; ln_1
        # Its bias is the norm's, too; a matrix that is called a kernel is one all the same.
        return Role.KERNEL if role_by_name(own, shape, "norm") is Role.KERNEL else Role.NORM
    return role_by_name(own, shape, owner)


def axes_of(
    own: str, owner: str, role: Role, shape: tuple[int, ...], module: Any
) -> tuple[int | None, int | None]:
    """The axes that index outputs and inputs; None where no single axis is known to do.

    JAX' kernels are output-last, those of Equinox output-first; in an embedding the rows are the
    inputs. A bare ``weight`` may be either. Attention has heads among its outputs, transposed
    convolutions come in both orders, a group of a convolution sees a part of the inputs, and a
    stack of layers has one axis more than each of them.
    """
    ndim = len(shape)
    if ndim < 2:
        return 0 if ndim else None, None
    last, before = ndim - 1, ndim - 2
    called = f"{owner}/{own}".lower()
    if role is Role.BIAS:
        return None, None
    if role is Role.EMBEDDING:
        return (1, 0) if ndim == 2 else (None, None)
    grouped = max(getattr(module, name, 1) for name in ("groups", "feature_group_count")) != 1
    if is_of(module, "equinox.nn"):
        stacked = ndim != getattr(module, "num_spatial_dims", 0) + 2
        return (None, None) if stacked else (0, None if grouped else 1)
    if own == "weight" or any(word in called for word in ("transpose", "deconv", "einsum")):
        return None, None
    if "conv" in called:
        spatial = getattr(module, "kernel_size", None)
        # By its name alone a stack of convolutions cannot be told from one with more dimensions.
        if ndim > 4 if not isinstance(spatial, tuple | list) else ndim != len(spatial) + 2:
            return None, None
        return last, None if grouped or shape[before] == 1 else before  # one: depthwise
    return (last, before) if ndim == 2 else (None, None)


def _declared(leaf: Leaf) -> Table | None:
    """A regularizer in the metadata of a Flax variable; None there exempts it."""
    metadata = {} if leaf.variable is None else leaf.variable.get_metadata()
    for key in _METADATA:
        if key not in metadata:
            continue
        value = metadata[key]
        if value is not None and not isinstance(value, Regularizer):
            raise RulesError(
                f"{leaf.name!r} declares {key}={value!r}, a {type(value).__name__}",
                f"Write {type(leaf.variable).__name__}(value, {key}=L2(1e-4)).",
            )
        place = f"{type(leaf.variable).__name__}({key}=)"
        return Table((Rule(everything, value),), "metadata", place)
    return None
