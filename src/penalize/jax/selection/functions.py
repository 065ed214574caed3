"""A model as a function of its parameters: what is trained, what goes along, and how it is called.

What is trained is a dictionary of arrays by the names that plans have for them. What goes along is
what a module of Flax NNX has beside its parameters, such as running statistics and keys.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from penalize.errors import ModelError, PathError, some
from penalize.jax.trees import arrays_of, is_of, leaves_of, with_leaves
from penalize.selection.arrays import State
from penalize.selection.inputs import arguments

Trained = Mapping[str, Any]


class Function(ABC):
    """A model as a function.

    Args:
        tree: the parameters.
        names: what of them is trained.

    Raises:
        ModelError: it has no parameters of these names.
    """

    def __init__(self, tree: Any, names: Collection[str]) -> None:
        self._tree = tree
        found = arrays_of(tree)
        missing = [name for name in names if name not in found]
        if missing:
            raise ModelError(
                f"the model of the training lacks {some(missing)}, unlike the one that was planned",
                "plan the parameters of this one",
            )
        self.trained: Trained = {name: found[name] for name in names}

    along: Any = None
    """What goes along at the start, a pytree."""

    @abstractmethod
    def __call__(self, trained: Trained, along: Any, x: Any, *, training: bool) -> Any:
        """(output, what goes along afterwards)."""

    def state(self, trained: Trained, along: Any) -> State:
        """All that the model is, as arrays of NumPy."""
        return {name: np.asarray(value) for name, value in {**trained, **_kept(along)}.items()}

    def begun(self, state: State) -> tuple[Trained, Any]:
        """What is trained and what goes along, from a state; keys are those of the start."""
        trained = {name: jnp.asarray(state[name]) for name in self.trained}
        old = _kept(self.along)
        return trained, with_leaves(self.along, {name: jnp.asarray(state[name]) for name in old})

    @abstractmethod
    def load(self, state: State) -> Any:
        """The parameters of a state, as the user has them."""


class AppliedTree(Function):
    """A pytree of parameters, and a function that applies it."""

    def __init__(self, apply: Callable[..., Any], params: Any, names: Collection[str]) -> None:
        super().__init__(params, names)
        self._apply = apply

    def __call__(self, trained: Trained, along: Any, x: Any, *, training: bool) -> Any:
        args, named = arguments(x)
        return self._apply(with_leaves(self._tree, trained), *args, **named), along

    def load(self, state: State) -> Any:
        """See :class:`Function`."""
        return with_leaves(self._tree, self.begun(state)[0])


class NnxModule(Function):
    """A module of Flax NNX. It is left as it is; each call has one of its own."""

    def __init__(self, module: Any, names: Collection[str]) -> None:
        # Untyped: what its stubs say of the number of parts of a module is not so.
        self._nnx: Any = import_module("flax.nnx")
        nnx = self._nnx
        self._module = module
        self._graph, tree, self.along = nnx.split(module, nnx.Param, ...)
        super().__init__(tree, names)

    def __call__(self, trained: Trained, along: Any, x: Any, *, training: bool) -> Any:
        # A copy: variables of another trace cannot be written.
        parts = with_leaves(self._tree, trained), along
        module = self._nnx.merge(self._graph, *parts, copy=True)
        module.train() if training else module.eval()
        args, named = arguments(x)
        output = module(*args, **named)
        return output, self._nnx.split(module, self._nnx.Param, ...)[2]

    def load(self, state: State) -> Any:
        """See :class:`Function`. The module has them, too."""
        trained, along = self.begun(state)
        self._nnx.update(self._module, with_leaves(self._tree, trained), along)
        return self._module


def _kept(along: Any) -> dict[str, Any]:
    """What of it a state has: not what draws at random, which begins anew in each run."""
    return {
        leaf.name: leaf.value
        for leaf in leaves_of(along)
        if leaf.value is not None
        and not is_of(leaf.variable, "flax.nnx", "RngState")
        and not jnp.issubdtype(leaf.value.dtype, jax.dtypes.prng_key)
    }


def function_of(model: Any, apply: Callable[..., Any] | None, names: Collection[str]) -> Function:
    """A model as a function.

    Raises:
        PathError: it is no module of Flax NNX, and nothing is there to apply it.
    """
    if apply is not None:
        return AppliedTree(apply, model, names)
    if is_of(model, "flax.nnx", "Module"):
        return NnxModule(model, names)
    raise PathError(
        f"Training got a model that is a {type(model).__name__}, and no function that applies it",
        "pass apply=lambda params, x: …; a module of Flax NNX needs none",
    )
