"""The averages of ``mode="halfspace"``: variables of an optimizer, and what they are in a file.

Keras loads an optimizer whole or not at all, so the averages are not among its own in a file: that
must not depend on whether a plan is on. They stand beside them, under ``penalize_averages``, where
a model without a plan does not look.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import keras
from keras import ops

from penalize.errors import StateError
from penalize.halfspace import SCALARS

ATTRIBUTE = "penalize_averages"
"""Of an optimizer, and so the name in a file."""


class AverageVariables(NamedTuple):
    """What is remembered of one weight."""

    mean: Any
    numbers: Any
    """All of :class:`~penalize.halfspace.Memory` but the mean."""

    place: int
    """The number of the weight among the variables of its model: names are not the same again."""

    average: float

    @property
    def variables(self) -> dict[str, Any]:
        """By their names in a file."""
        return {f"{self.place}_mean": self.mean, f"{self.place}_numbers": self.numbers}

    @property
    def average_name(self) -> str:
        """The name of the average in a file."""
        return f"{self.place}_average"

    def take(self, other: AverageVariables) -> None:
        """Go on from what another one is."""
        for variable, value in ((self.mean, other.mean), (self.numbers, other.numbers)):
            variable.assign(ops.convert_to_numpy(value))  # JAX lends the buffer to a step

    def forget(self) -> None:
        """Begin anew."""
        for variable in (self.mean, self.numbers):
            variable.assign(ops.zeros(variable.shape, variable.dtype))


def remembered(
    optimizer: Any, model: Any, name: str, variable: Any, average: float
) -> AverageVariables:
    """New variables of an optimizer for what is remembered of a variable."""
    dtype = "float64" if str(variable.dtype) == "float64" else "float32"
    stem = name.replace("/", "_").replace(".", "_")
    return AverageVariables(
        optimizer.add_variable(tuple(variable.shape), dtype=dtype, name=f"{stem}_mean"),
        optimizer.add_variable((len(SCALARS),), dtype=dtype, name=f"{stem}_numbers"),
        next(i for i, each in enumerate(model.variables) if each is variable),
        average,
    )


Averages = Callable[[], Iterable[AverageVariables]]


class SavedAverages(keras.Operation):  # type: ignore[misc]
    """What Keras saves and loads beside an optimizer, as it does with whatever that consists of.

    Of a model that is saved with its optimizer, and of its weights (``model.save``,
    ``save_weights``, ``ModelCheckpoint``, ``BackupAndRestore``). They are loaded into a model that
    has a plan by ``load_weights``.
    """

    def __init__(self, averages: Averages) -> None:
        super().__init__(name=ATTRIBUTE)
        self._averages = averages  # a function: Keras would save what it finds in a list

    def save_own_variables(self, store: Any) -> None:
        """Write them."""
        for each in self._averages():
            for name, variable in each.variables.items():
                store[name] = ops.convert_to_numpy(variable)
            store[each.average_name] = ops.convert_to_numpy(each.average)

    def load_own_variables(self, store: Any) -> None:
        """Go on from what is in a file; where there is nothing, begin anew.

        Raises:
            StateError: other weights, or other averages, were kept there.
        """
        averages, saved = list(self._averages()), set(store.keys())
        if not saved:
            for each in averages:
                each.forget()
            return
        _check(averages, store, saved)
        for each in averages:
            for name, variable in each.variables.items():
                variable.assign(store[name])


def _check(averages: Iterable[AverageVariables], store: Any, saved: set[str]) -> None:
    expected: set[str] = set()
    for each in averages:
        expected |= {*each.variables, each.average_name}
        was = float(store[each.average_name]) if each.average_name in saved else each.average
        if not math.isclose(was, each.average, rel_tol=1e-6):  # it may be in float32
            raise StateError(f"it has average={was:.7g}, and here it is {each.average}")
        for name, variable in each.variables.items():
            if name in saved and tuple(store[name].shape) != tuple(variable.shape):
                raise StateError(
                    f"one of its averages has the shape {tuple(store[name].shape)}, and "
                    f"{tuple(variable.shape)} is what is stepped here"
                )
    if expected != saved:
        raise StateError("its averages are of other weights than those that are penalized here")


class Unaware:
    """A method of an optimizer that saves or loads, which sees its own variables alone."""

    def __init__(self, optimizer: Any, method: Callable[[Any], Any], averages: Averages) -> None:
        self._optimizer, self._method, self._averages = optimizer, method, averages

    def __call__(self, store: Any) -> Any:
        held = vars(self._optimizer)  # not by its attribute, which TensorFlow follows
        everything = held["_variables"]
        ours = {id(v) for each in self._averages() for v in each.variables.values()}
        held["_variables"] = [variable for variable in everything if id(variable) not in ours]
        try:
            return self._method(store)
        finally:
            held["_variables"] = everything
