"""The proximal step that a Keras optimizer really took; see :mod:`penalize.steps`.

Each function reads the state after the update and before Keras counts it, as a constraint finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops, optimizers

from penalize import steps
from penalize.backends import open_array
from penalize.steps import Step, Taken


class _State(NamedTuple):
    """An optimizer in one of its updates, and the variable that it updated."""

    optimizer: Any
    variable: Any

    def slot(self, name: str) -> Any:
        """The optimizer's own array for this variable."""
        slots = getattr(self.optimizer, name)
        return ops.convert_to_tensor(slots[self.optimizer._get_variable_index(self.variable)])

    @property
    def rate(self) -> Any:
        return ops.cast(self.optimizer.learning_rate, self.variable.dtype)

    @property
    def count(self) -> Any:
        return ops.cast(self.optimizer.iterations + 1, self.variable.dtype)


StepSize = Callable[[_State], Taken]


def _sgd(state: _State) -> Taken:
    return steps.sgd(state.rate, state.optimizer.momentum)


def _adam(state: _State) -> Taken:
    optimizer = state.optimizer
    return steps.adam(
        state.rate,
        state.slot("_velocity_hats" if optimizer.amsgrad else "_velocities"),
        correction=1 - optimizer.beta_2**state.count,
        eps=optimizer.epsilon,
        eps_is_scaled=True,
    )


def _nadam(state: _State) -> Taken:
    optimizer, count = state.optimizer, state.count
    return steps.nadam(
        state.rate,
        state.slot("_velocities"),
        betas=(optimizer.beta_1, optimizer.beta_2),
        count=count,
        momenta=steps.nadam_momentum(optimizer.beta_1, count),
        product=ops.cast(optimizer._u_product, state.variable.dtype),
        eps=optimizer.epsilon,
    )


def _adamax(state: _State) -> Taken:
    return steps.adamax(state.rate, state.slot("_u"), eps=state.optimizer.epsilon)


def _adagrad(state: _State) -> Taken:
    optimizer = state.optimizer
    return steps.adagrad(state.rate, state.slot("_accumulators"), inside=optimizer.epsilon)


def _rmsprop(state: _State) -> Taken:
    optimizer = state.optimizer
    return steps.rmsprop(
        state.rate,
        state.slot("_velocities"),
        correction=1 - optimizer.rho**state.count,
        momentum=optimizer.momentum,
        inside=optimizer.epsilon,
    )


_BY_CLASS: dict[Any, StepSize] = {
    optimizers.SGD: _sgd,
    optimizers.Adam: _adam,
    optimizers.AdamW: _adam,
    optimizers.Nadam: _nadam,
    optimizers.Adamax: _adamax,
    optimizers.Adagrad: _adagrad,
    optimizers.RMSprop: _rmsprop,
}
# On PyTorch Keras makes objects of subclasses, which keep the method that tells the algorithm.
_BY_ALGORITHM = {kind.update_step: step_size for kind, step_size in _BY_CLASS.items()}

_HARMLESS = {"build", "get_config", "from_config"}
"""What an optimizer of one's own may redefine, its dunder methods aside, and step as Keras does."""

KNOWN = f"{', '.join(kind.__name__ for kind in _BY_CLASS)} (not centered)"
"""The optimizers in the table, for messages."""


def step_size_of(optimizer: Any) -> StepSize | None:
    """How to read the step that this optimizer takes; None where it is not known."""
    if _steps_in_a_way_of_its_own(type(optimizer)):
        return None
    if getattr(optimizer, "centered", False) or getattr(optimizer, "momentum", 0.0) >= 1:
        # Centered RMSprop divides by the spread of the gradient, which is 0 where the gradient
        # stands still, as it does at a penalized minimum: the step grows without bound.
        return None
    return _BY_ALGORITHM.get(type(optimizer).update_step)


def _steps_in_a_way_of_its_own(kind: type) -> bool:
    """Whether a class outside of Keras stands in front of a method of Keras' optimizers."""
    before: set[str] = set()
    for cls in kind.__mro__:
        if cls.__module__.partition(".")[0] != "keras":
            before |= {name for name in vars(cls) if not name.startswith("__")} - _HARMLESS
        elif not before.isdisjoint(vars(cls)):
            return True
    return False


def is_per_element(optimizer: Any) -> bool:
    """Whether the step differs from element to element."""
    return step_size_of(optimizer) is not _sgd


def step_taken(optimizer: Any, variable: Any) -> Step:
    """The step that the optimizer just took."""
    step_size = step_size_of(optimizer)
    assert step_size is not None  # by whoever asked is_per_element first
    _, xp = open_array(variable)
    return step_size(_State(optimizer, variable)).step(xp)
