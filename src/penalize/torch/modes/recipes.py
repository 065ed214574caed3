"""How to make a new optimizer as one that is in use was made: its class, arguments and settings."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Number
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_SHAPE = (6, 4, 3, 2)
"""The first axes of the weights of a trial; any others have one entry."""


class NotTriedError(Exception):
    """There can be no trial; the message says why."""


class Recipe:
    """How to make a new optimizer as another one was made: its class, arguments and settings.

    Args:
        optimizer: the one in use. Nothing of it is kept.
        parameter: the only one of its parameters that the new one is to have a likeness of.

    Raises:
        NotTriedError: it was made with something that cannot be had again.
    """

    def __init__(self, optimizer: Optimizer, parameter: Tensor | None = None) -> None:
        with refusing():
            self._read(optimizer, parameter)

    def _read(self, optimizer: Optimizer, parameter: Tensor | None) -> None:
        self.kind: Any = type(optimizer)
        first, *others = list(inspect.signature(self.kind.__init__).parameters.values())[1:]
        wrapped = vars(optimizer).get(first.name)
        self.inner = Recipe(wrapped, parameter) if isinstance(wrapped, Optimizer) else None
        names = {each.name: each.default for each in others}
        groups = _groups(optimizer, parameter)
        self.groups = _distinct(_settings(optimizer, *group, names) for group in groups)
        self.arguments = {
            each.name: value
            for each in others
            if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
            for value in _argument(optimizer, each)
        }

    def key(self, change: Mapping[str, Any]) -> tuple[object, ...]:
        """What two optimizers have in common for which one trial with these changes is enough."""
        groups = [({**s, **_changed(s, change)}, axes, device) for s, axes, device in self.groups]
        arguments = {**self.arguments, **_changed(self.arguments, change)}
        inner = None if self.inner is None else self.inner.key(change)
        return self.kind, repr(groups), repr(arguments), inner

    def whole_numbers(self) -> Iterator[int]:
        """The settings that are whole numbers: it may do something every so many steps."""
        yield from _whole_numbers([settings for settings, _, _ in self.groups])
        yield from _whole_numbers(self.arguments)
        if self.inner is not None:
            yield from self.inner.whole_numbers()

    def whole_settings(self) -> dict[str, int]:
        """The whole numbers that :meth:`make` can change, by name; the largest of each name."""
        inner = {} if self.inner is None else self.inner.whole_settings()
        found = {name: [n] for name, n in inner.items()}
        for held in (self.arguments, *(settings for settings, _, _ in self.groups)):
            for name, value in held.items():
                if isinstance(value, int) and not isinstance(value, bool):
                    found.setdefault(name, []).append(value)
        return {name: max(numbers) for name, numbers in found.items()}

    def make(self, change: Mapping[str, Any]) -> tuple[Optimizer, list[nn.Parameter]]:
        """A new optimizer, on weights that are the same each time.

        Args:
            change: settings that are to be others than those of the one in use.
        """
        arguments = {**self.arguments, **_changed(self.arguments, change)}
        if self.inner is not None:
            inner, parameters = self.inner.make(change)
            made = self.kind(inner, **arguments)
        else:
            groups = [
                {**settings, **_changed(settings, change), "params": [*_weights(axes, device)]}
                for settings, axes, device in self.groups
            ]
            parameters = [p for group in groups for p in group["params"]]
            made = self.kind(groups, **arguments)
        mine = {id(p) for p in parameters}
        if any(id(p) not in mine for group in made.param_groups for p in group["params"]):
            raise NotTriedError("a new one steps other weights than those that it is given")
        # Its own step, without the hooks on all optimizers.
        step = self.kind.step
        own = getattr(step, "__wrapped__", step) if getattr(step, "hooked", False) else step
        vars(made)["step"] = MethodType(own, made)
        if callable(getattr(made, "train", None)):  # some evaluate other weights than they train
            made.train()
        return made, parameters


@contextmanager
def refusing() -> Iterator[None]:
    """Whatever an optimizer raises within the block is a reason why it is not tried."""
    try:
        yield
    except NotTriedError:
        raise
    except Exception as error:
        says = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        raise NotTriedError(f"a new one could not be tried ({says})") from error


# --- what the one in use was made with ----------------------------------------------------------

_Group = tuple[dict[str, Any], tuple[int, ...], str]
"""The settings of a param group, the numbers of axes of its parameters, and their device."""

_OF_OTHERS = {"params", "param_names", "initial_lr", "penalize", "step"}
"""What is in a param group and no setting: schedulers and attachments write there, and counts."""


def _groups(
    optimizer: Optimizer, only: Tensor | None
) -> Iterator[tuple[Mapping[str, Any], list[Tensor]]]:
    """The param groups, each with its parameters; or the group of a parameter, with that alone."""
    for group in optimizer.param_groups:
        held = [p for p in group["params"] if only is None or p is only]
        if held:
            yield group, held


def _settings(
    optimizer: Optimizer,
    group: Mapping[str, Any],
    held: Sequence[Tensor],
    arguments: Mapping[str, Any],
) -> _Group:
    settings = {}
    for name, value in group.items():
        # What a step counts on is as it was at first; what the user sets is as it is now.
        is_progress = name in optimizer.defaults and name not in arguments
        default = arguments.get(name, inspect.Parameter.empty)
        if name not in _OF_OTHERS:
            settings[name] = _had(name, optimizer.defaults[name] if is_progress else value, default)
    axes = sorted({p.ndim for p in held})
    device = held[0].device
    return settings, tuple(axes), "cpu" if device.type == "meta" else str(device)


def _distinct(groups: Iterator[_Group]) -> list[_Group]:
    return list({repr(group): group for group in groups}.values())


def _argument(optimizer: Optimizer, wanted: inspect.Parameter) -> Iterator[Any]:
    """The value of an argument; nothing where its default will do."""
    for place in (optimizer.param_groups[0], optimizer.defaults, vars(optimizer)):
        if wanted.name in place:
            yield _had(wanted.name, place[wanted.name], wanted.default)
            return
    if wanted.default is wanted.empty:
        raise NotTriedError(f"what it was given as {wanted.name} is not known")


def _had(name: str, value: Any, default: Any) -> Any:
    """What can be had again: a copy of a setting, or whatever it is by default."""
    return value if value is default else _plain(name, value)


def _plain(name: str, value: Any) -> Any:
    """A copy of a setting; never of a weight, or of anything through which one could be reached."""
    if isinstance(value, Tensor) and value.numel() == 1 and not isinstance(value, nn.Parameter):
        return value.detach().clone()
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_plain(name, each) for each in value))
    if isinstance(value, tuple | list | set | frozenset):
        return type(value)(_plain(name, each) for each in value)
    if isinstance(value, dict):
        return {key: _plain(name, each) for key, each in value.items()}
    if value is None or isinstance(value, Number | str | bytes | type | torch.dtype | torch.device):
        return value
    if not callable(value) and getattr(value, "__dict__", None):
        copied = copy.copy(value)  # settings in an object, as some keep them
        vars(copied).update(_plain(name, vars(value)))
        return copied
    raise NotTriedError(f"its {name}, a {type(value).__name__}, cannot be had again")


def _whole_numbers(held: Any) -> Iterator[int]:
    if isinstance(held, int) and not isinstance(held, bool):
        yield held
    elif isinstance(held, Mapping):
        yield from _whole_numbers([*held.values()])
    elif isinstance(held, list | tuple | set | frozenset):
        for each in held:
            yield from _whole_numbers(each)
    elif hasattr(held, "__dict__") and not isinstance(held, Tensor | type):  # settings in an object
        yield from _whole_numbers([*vars(held).values()])


def _changed(settings: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """The changes to settings that there are, as numbers or as tensors."""
    return {
        name: torch.full_like(old, change[name]) if isinstance(old, Tensor) else change[name]
        for name, old in settings.items()
        if name in change and isinstance(old, Number | Tensor)
    }


def _weights(axes: Sequence[int], device: str) -> Iterator[nn.Parameter]:
    """One weight for each number of axes: away from 0, of both signs."""
    generator = torch.Generator().manual_seed(0)
    for count in axes:
        shape = (_SHAPE + (1,) * count)[:count]
        drawn = torch.randn(shape, generator=generator, dtype=torch.float32)
        yield nn.Parameter((drawn + drawn.sign()).to(device))
