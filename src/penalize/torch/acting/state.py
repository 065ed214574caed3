"""The state of a plan or an attachment as plain data, and whether two states agree."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from penalize.errors import StateError
from penalize.regularizers.base import Regularizer, described, read_from
from penalize.regularizers.constants import without_start
from penalize.schedules import why_not_a_count
from penalize.torch.model.joined import Joined
from penalize.torch.model.sharding import is_sharded
from penalize.torch.model.targets import Target

VERSION = 2


def state_of(targets: Iterable[Target], **how: Any) -> dict[str, Any]:
    """What is applied, and how: names, numbers and strings only."""
    targets = list(targets)
    penalties = {target.name: described(target.regularizer) for target in targets}
    together = {
        t.name: [member.data() for member in t.binding.members]
        for t in targets
        if isinstance(t.binding, Joined)
    }
    if together:
        how["together"] = together
    return {"version": VERSION, **how, "penalties": penalties}


def whole(state: Any) -> Any:
    """A state without shards, for a checkpoint that one rank writes; every rank has to ask."""
    if isinstance(state, Mapping):
        return {key: whole(value) for key, value in state.items()}
    if isinstance(state, list):
        return [whole(value) for value in state]
    return state.full_tensor() if is_sharded(state) else state


def check_same(saved: object, here: Mapping[str, Any]) -> dict[str, Regularizer]:
    """What has to be taken from a saved state: regularizers with values at the start, by name.

    Raises:
        StateError: the two states do not agree; with every difference.
    """
    beside = {"activities", "average", "averages", "together"}  # where there are any
    if not (isinstance(saved, Mapping) and saved.keys() - beside == here.keys() - beside):
        raise StateError("it was not saved by one of these")
    if type(saved["version"]) is not int or saved["version"] != VERSION:
        raise StateError(f"its version is {saved['version']!r}, and {VERSION} is read here")
    _check_steps(saved["steps"], here["steps"])
    if not isinstance(saved["penalties"], Mapping):
        raise StateError("its penalties are no mapping from name to regularizer")
    problems = [
        f"it has {key}={saved.get(key)!r}, and here it is {here.get(key)!r}"
        for key in ("mode", "clip", "average")
        if saved.get(key) != here.get(key)
    ]
    if saved.get("together") != here.get("together"):
        problems.append("it has groups that span parameters, and here their members are others")
    outputs = [state.get("activities", {}) for state in (saved, here)]
    if not isinstance(outputs[0], Mapping):
        raise StateError("its activities are no mapping from name to regularizer")
    problems += [f"the output of {text}" for text in _differences(*map(without_start, outputs))]
    problems += _differences(without_start(saved["penalties"]), without_start(here["penalties"]))
    if problems:
        raise StateError("; ".join(problems))
    return {
        name: read_from("load_state_dict", found, found)
        for name, found in saved["penalties"].items()
        if found != here["penalties"][name]
    }


def check_averages(saved: object, wanted: int) -> Sequence[Any]:
    """The averages of each optimizer. Raises :class:`StateError` if they are none."""
    if not isinstance(saved, list) or len(saved) != wanted:
        raise StateError(f"it has no averages for {wanted} optimizers")
    return saved


def _differences(saved: Mapping[Any, Any], here: Mapping[str, Any]) -> list[str]:
    problems = [f"{name!r} is penalized there only" for name in saved.keys() - here.keys()]
    problems += [f"{name!r} is penalized here only" for name in here.keys() - saved.keys()]
    problems += [
        f"{name!r} has {saved[name]!r} there and {here[name]!r} here"
        for name in saved.keys() & here.keys()
        if saved[name] != here[name]
    ]
    return sorted(problems)


def _check_steps(saved: object, here: object) -> None:
    """A number of steps; one for each optimizer, where there may be several."""
    numbers = saved if isinstance(here, list) else [saved]
    if not isinstance(numbers, list):
        raise StateError(f"it has the steps {saved!r}, and is to have a list of them")
    why = next(filter(None, map(why_not_a_count, numbers)), "")
    if why:
        raise StateError(f"it has the steps {saved!r}, and {why}")
