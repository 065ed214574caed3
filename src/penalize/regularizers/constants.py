"""Arrays that belong to a regularizer: anchors, and what weighs the distance from them.

A regularizer is a value: it can be compared, hashed and pickled, and holds nothing of a framework.
So an array in it is bytes with a shape and a type.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from penalize.backends import Array, open_array
from penalize.errors import AnchorError, ArrayError, ConfigError, PenalizeError
from penalize.regularizers.base import Regularizer
from penalize.regularizers.place import Place
from penalize.regularizers.registry import classes_called, config_name

START = "start"
"""The word for the value that a parameter has when it is planned."""


@dataclass(frozen=True, repr=False)
class Constant:
    """One array, as plain data."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes
    at_start: bool = False
    """Whether it is the value that a parameter had when it was planned."""

    held: dict[Any, Array] = field(default_factory=dict, compare=False)
    """The array in the types of frameworks, for those that keep it."""

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "held": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __deepcopy__(self, memo: Any) -> Constant:
        return self

    def numpy(self) -> Array:
        """A view of it that cannot be written to."""
        import numpy as np

        return np.frombuffer(self.data, self.dtype).reshape(self.shape)

    def __repr__(self) -> str:
        size = "×".join(map(str, self.shape)) or "scalar"
        return f"<{self.dtype} {size}{' at the start' if self.at_start else ''}>"


@dataclass(frozen=True, repr=False)
class ByName:
    """Arrays of several parameters, by their names."""

    arrays: tuple[tuple[str, Constant], ...]

    others: tuple[tuple[str, str], ...] = field(default=(), compare=False)
    """Names of what is no array to be near to, such as a counter in a ``state_dict``, each with
    what to say of it if a parameter has that name."""

    def __repr__(self) -> str:
        return f"<{len(self.arrays)} arrays by name>"


Reference = str | Constant | ByName
"""What a regularizer keeps: the word "start", one array, or arrays by name until it is resolved."""


def as_reference(value: Any, owner: str, argument: str, *, word: bool = True) -> Reference:
    """What a user gives as an array: one of any framework, a mapping by name, or ``"start"``.

    Raises:
        AnchorError: it is something else.
    """
    if isinstance(value, Constant | ByName) or (word and isinstance(value, str) and value == START):
        return value
    if isinstance(value, Mapping) and value and all(isinstance(name, str) for name in value):
        return _by_name(value, owner, argument)
    return _constant(value, owner, argument)


def _by_name(values: Mapping[str, Any], owner: str, argument: str) -> ByName:
    arrays: dict[str, Constant] = {}
    others: dict[str, AnchorError] = {}
    for name, value in sorted(values.items()):
        try:
            arrays[_plain(name)] = _constant(value, owner, f"{argument}[{name!r}]")
        except AnchorError as error:
            others[_plain(name)] = error
    if not arrays:
        raise next(iter(others.values()))
    return ByName(tuple(arrays.items()), tuple((name, str(e)) for name, e in others.items()))


def _constant(value: Any, owner: str, argument: str) -> Constant:
    import numpy as np

    plain = isinstance(value, list | tuple | int | float)
    try:
        array, xp = open_array(np.asarray(value, dtype=float) if plain else value, whole=True)
        return _of(xp.numpy(array))
    except (PenalizeError, ValueError, TypeError, RuntimeError) as error:
        said = f" ({error})" if isinstance(error, ArrayError) else ""
        raise AnchorError(
            f"what {owner} got as {argument} is {_short(value)}, a {type(value).__name__}{said}",
            'expected an array, a mapping from parameter names to arrays, or "start"',
        ) from None


def _of(values: Any, *, at_start: bool = False) -> Constant:
    if values.dtype.kind != "f":
        raise TypeError("it has no values")  # an abstract array
    return Constant(str(values.dtype), tuple(values.shape), values.tobytes(), at_start)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _plain(name: str) -> str:
    return name.replace("/", ".")


def resolve(reference: Reference, place: Place, owner: object) -> Constant:
    """The array for one parameter.

    Raises:
        AnchorError: there is none for it, its shape is another, or the parameter has no value yet.
    """
    if isinstance(reference, ByName):
        arrays = dict(reference.arrays)
        names = [_plain(n) for n in place.names]
        found = next((arrays[n] for n in names if n in arrays), None)
        if found is None:
            said = next((text for name, text in reference.others if name in names), "")
            raise AnchorError(
                f"the mapping in {owner!r} has no array for {place}"
                f"{f' ({said})' if said else _like(names, arrays)}",
                "give it one, or exempt the parameter with a rule that gives None",
            )
    elif isinstance(reference, str):
        found = _start(place, owner)
    else:
        found = reference
    if place.shape is not None and found.shape != place.shape:
        raise AnchorError(
            f"{owner!r} has an array of shape {found.shape} for {place}, whose shape is "
            f"{place.shape}",
            "give it one of the parameter's shape",
        )
    return found


def _like(names: list[str], known: Iterable[str]) -> str:
    """Of which names that are known these are the end, as of a wrapper's ``state_dict``."""
    longer = next((n for n in known if any(n.endswith(f".{name}") for name in names)), None)
    return "" if longer is None else f", but one for {longer!r}"


def _start(place: Place, owner: object) -> Constant:
    reason = "it is not planned yet"
    if place.start is not None:
        try:
            array, xp = open_array(place.start(), whole=True)
            return _of(xp.numpy(array), at_start=True)
        except (PenalizeError, NotImplementedError, RuntimeError, TypeError) as error:
            reason = str(error).rstrip(".")
    raise AnchorError(
        f"{owner!r} needs the value of {place or 'a parameter'} at the start, which there is none "
        f"of: {reason}",
        "regularize the model once it has its values",
    )


def check_known(reference: Reference, shape: tuple[int, ...], owner: object) -> Constant:
    """The array beside a weight of this shape. Raises :class:`AnchorError` if there is none."""
    if not isinstance(reference, Constant):
        raise AnchorError(
            f"{owner!r} is applied to a bare array, and only a plan knows the value at the start "
            "and names",
            "give it an array, or let regularize resolve it",
        )
    if reference.shape != tuple(shape):
        raise AnchorError(
            f"{owner!r} has an array of shape {reference.shape} for a weight of {tuple(shape)}",
            "give it one of the weight's shape",
        )
    return reference


def as_data(reference: Reference) -> Any:
    """A reference as plain data."""
    if isinstance(reference, Constant):
        data = base64.b64encode(reference.data).decode("ascii")
        config = {"dtype": reference.dtype, "shape": list(reference.shape), "data": data}
        return {START: config} if reference.at_start else {"array": config}
    if isinstance(reference, ByName):
        return {"by_name": {name: as_data(constant) for name, constant in reference.arrays}}
    return reference


def from_data(data: Any) -> Any:
    """What :func:`as_data` wrote; anything else comes back as it is."""
    if isinstance(data, Mapping) and data.keys() == {"by_name"}:
        return ByName(tuple((name, from_data(found)) for name, found in data["by_name"].items()))
    if isinstance(data, Mapping) and (data.keys() == {START} or data.keys() == {"array"}):
        ((kind, config),) = data.items()
        return _read(config, kind == START)
    return data


def _read(config: Any, at_start: bool) -> Constant:
    import numpy as np

    try:
        raw = base64.b64decode(config["data"], validate=True)
        found = Constant(config["dtype"], tuple(config["shape"]), raw, at_start)
        whole = np.dtype(found.dtype).kind == "f" and found.numpy().shape == found.shape
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise ConfigError("toward", _short(config), "its array is damaged")
    return found


def without_start(config: Any) -> Any:
    """A configuration, for comparison: without what differs by run though the same is meant.

    Of the values at the start it has the shapes alone, and the names of classes as they are written
    today.
    """
    if isinstance(config, Mapping) and config.keys() == {START}:
        found = config[START]
        return {START: found.get("shape") if isinstance(found, Mapping) else None}
    if isinstance(config, Mapping):
        plain = {k: without_start(v) for k, v in config.items()}
        if "class_name" in plain:
            classes = classes_called(Regularizer, plain["class_name"])
            if len(classes) == 1:
                plain["class_name"] = config_name(classes[0])
        return plain
    if isinstance(config, list | tuple):
        return [without_start(item) for item in config]
    return config
