"""The proximal step that a Keras optimizer really took; see :mod:`penalize.steps`.

Each function reads the state after the update and before Keras counts it, as a constraint finds it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops, optimizers

from penalize.steps import SLACK, Step


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


StepSize = Callable[[_State], Step]


def _sgd(state: _State) -> Step:
    return Step(state.rate / (1 - state.optimizer.momentum))


def _adam(state: _State) -> Step:
    optimizer = state.optimizer
    second = state.slot("_velocity_hats" if optimizer.amsgrad else "_velocities")
    return _corrected(state, state.rate, ops.sqrt(second) + optimizer.epsilon, optimizer.beta_2)


def _nadam(state: _State) -> Step:
    optimizer, count = state.optimizer, state.count
    mu = optimizer.beta_1 * (1 - 0.5 * 0.96**count)
    mu_next = optimizer.beta_1 * (1 - 0.5 * 0.96 ** (count + 1))
    product = ops.cast(optimizer._u_product, state.variable.dtype)
    # A constant gradient g has the first moment (1 − β₁ᵗ)·g.
    from_momentum = mu_next / (1 - product * mu_next) * (1 - optimizer.beta_1**count)
    second = state.slot("_velocities") / (1 - optimizer.beta_2**count)
    factor = state.rate * ((1 - mu) / (1 - product) + from_momentum)
    return Step(factor, ops.sqrt(second) + optimizer.epsilon)


def _adamax(state: _State) -> Step:
    return Step(state.rate, state.slot("_u") + state.optimizer.epsilon)


def _adagrad(state: _State) -> Step:
    return Step(state.rate, ops.sqrt(state.slot("_accumulators") + state.optimizer.epsilon))


def _rmsprop(state: _State) -> Step:
    optimizer = state.optimizer
    denominator = ops.sqrt(state.slot("_velocities") + optimizer.epsilon)
    # It does not correct its average for the zero that it began with: here the factor undoes it.
    factor = state.rate / (1 - optimizer.momentum) / ops.sqrt(1 - optimizer.rho**state.count)
    return _corrected(state, factor, denominator, optimizer.rho)


def _corrected(state: _State, factor: Any, denominator: Any, decay: Any) -> Step:
    """With a denominator that compares with a gradient from the first step on."""
    return Step(factor, denominator / ops.sqrt(1 - decay**state.count))


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


def step_taken(optimizer: Any, variable: Any, pull: Any) -> Any:
    """The step just taken, an array, with a floor of Ω's pull / SLACK under the denominator."""
    step_size = step_size_of(optimizer)
    assert step_size is not None  # by whoever asked is_per_element first
    factor, denominator = step_size(_State(optimizer, variable))
    if denominator is None:
        return factor
    return factor / ops.maximum(denominator, pull / SLACK)
