"""Where a transform stands in an ``optax.chain``: what comes before it, what after, what around.

A transform of updates is told none of it. But while a chain updates, it is on the stack: it holds
the functions of its transforms and the states that are already new, and in the closures of those
are their settings. That is how optax 0.2 is built, not what it promises; a test pins it. What is
not found as expected is not known, and whoever needs to know refuses it: :class:`UnreadableError`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from types import FrameType
from typing import Any, NamedTuple

import optax

from penalize.errors import OptimizerError
from penalize.jax.trees import arrays_of


class UnreadableError(OptimizerError):
    """A transform of optax does not keep what is read of it under the name that is known."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(
            f"the {kind} of optax {optax.__version__} has no {name!r}, which tells where a "
            "transform stands and what step is taken",
            "use plan.gradient(), or plan.penalty(params) in the loss, which do without, or "
            "another release of optax",
        )


class Settings(dict[str, Any]):
    """What a function of optax closes over, or has as its local variables, by name."""

    def __init__(self, kind: str, found: Mapping[str, Any]) -> None:
        super().__init__(found)
        self._kind = kind

    def __missing__(self, name: str) -> Any:
        raise UnreadableError(self._kind, name)


_HARMLESS = {
    "identity",
    "add_decayed_weights",
    "add_noise",
    "adaptive_grad_clip",
    "centralize",
    "clip",
    "clip_by_block_rms",
    "clip_by_global_norm",
    "zero_nans",
}
"""Transforms of gradients that do not change how far a step goes."""

_LIMITS = _HARMLESS - {"identity", "add_decayed_weights", "zero_nans"}
"""The transforms that do where they are applied to steps."""

_PARTIAL = {"masked", "partition"}
"""The transforms that apply others to a part of the tree."""

_WRAPPERS = _PARTIAL | {
    "MultiSteps",
    "apply_if_finite",
    "chain",
    "inject_hyperparams",
    "named_chain",
    "with_extra_args_support",
}
"""The transforms that leave to one within what it does to the parameters."""


class Link(NamedTuple):
    """One transform of a chain."""

    kind: str
    """The name of the function of optax that made it, such as ``scale_by_adam``; another's with its
    module."""

    settings: Mapping[str, Any]
    """The arguments that it was made with, as far as it uses them later."""

    state: Any
    """The state of the transform: the new one, if it stands before."""

    parts: Sequence[Link] = ()
    """What a mask or a partition applies to some of the penalized parameters."""

    arguments: Set[str] = frozenset()
    """What its update takes."""

    def of_state(self, name: str) -> Any:
        """A part of its state. Raises :class:`UnreadableError` if there is none."""
        try:
            return getattr(self.state, name)
        except AttributeError:
            raise UnreadableError(f"state of {self.kind}", name) from None

    @property
    def inner(self) -> list[Link]:
        """The transforms in its settings, whatever it does with them."""
        functions = [tx.update for tx in _transforms(list(self.settings.values()))]
        return links(functions, [None] * len(functions))

    @property
    def all(self) -> Iterator[Link]:
        """The link, and all that it applies, to some of the penalized parameters or to them all."""
        yield self
        for link in self.parts or self.inner:
            yield from link.all

    @property
    def harmless(self) -> bool:
        """Whether it is known not to change how far a step goes."""
        if self.parts:
            return all(link.harmless for link in self.parts)
        return self.kind in _HARMLESS or "source" in self.settings

    @property
    def limits(self) -> bool:
        """Whether it changes how far a step goes if it stands behind what scales the gradient."""
        if self.kind in _PARTIAL:
            return any(link.limits for link in self.inner)
        return self.kind in _LIMITS


class Position(NamedTuple):
    """Where a transform stands."""

    before: list[Link]
    after: list[Link]
    around: list[str]
    """Wrappers of optax around it that may keep parameters of their own."""

    chained: bool
    """Whether there is a chain at all."""


def place(params: Any, names: Set[str]) -> Position:
    """The place of the transform that is updating now, as it is for the parameters of these names.

    What reaches none of them is left out, and what is applied to all of them through a mask stands
    there as if there were no mask.
    """
    found = _place()
    before, after = (
        [seen for link in side for seen in _seen(link, params, names)]
        for side in (found.before, found.after)
    )
    return found._replace(before=before, after=after)


def _place() -> Position:
    found = Position([], [], [], False)
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        chain = _chain(frame)
        kind = frame.f_code.co_qualname.partition(".")[0]
        if chain is not None:
            functions, states, done = chain
            before = links(functions[:done], states)
            after = links(functions[done + 1 :], states[done + 1 :])
            found = Position([*before, *found.before], [*found.after, *after], found.around, True)
        elif _is_update(frame) and kind not in _WRAPPERS:
            found.around.append(kind)
        frame = frame.f_back
    return found


def _is_update(frame: FrameType) -> bool:
    name: str = frame.f_globals.get("__name__", "")
    return name.startswith("optax.") and frame.f_code.co_name in ("update", "update_fn")


_CHAIN = getattr(optax.chain(optax.identity()).update, "__code__", None)
_NAMED_CHAIN = getattr(optax.named_chain(("", optax.identity())).update, "__code__", None)


def _chain(frame: FrameType) -> tuple[Sequence[Any], list[Any], int] | None:
    """The functions of a chain that is updating, their states, and how many of these are new."""
    if frame.f_code is not _CHAIN and frame.f_code is not _NAMED_CHAIN:
        return None
    seen = Settings("chain", frame.f_locals)
    if frame.f_code is _CHAIN:
        new, old = seen["new_state"], seen["state"]
        return seen["update_fns"], [*new, *old[len(new) :]], len(new)
    new, old = seen["new_state"], seen["state"]
    return [tx.update for _, tx in seen["transforms"]], [*{**old, **new}.values()], len(new)


def links(functions: Sequence[Callable[..., Any]], states: Sequence[Any]) -> list[Link]:
    """The transforms behind update functions; chains in chains are opened."""
    found: list[Link] = []
    for function, state in zip(functions, states, strict=False):
        found.extend(_opened(function, state))
    return found


def _opened(function: Callable[..., Any], state: Any) -> list[Link]:
    kind = getattr(function, "__qualname__", "").partition(".")[0]
    module = getattr(function, "__module__", None) or ""
    if not module.startswith("optax."):
        kind = f"{module}.{kind}"
    settings = Settings(kind, _settings(function))
    arguments = inspect.signature(function).parameters.keys()
    if kind == "with_extra_args_support":
        return _opened(settings["tx"].update, state)
    if kind == "chain":
        functions = settings["update_fns"]
        return links(functions, [None] * len(functions) if state is None else state)
    if kind == "named_chain":
        named = settings["transforms"]
        return links([tx.update for _, tx in named], [state and state[name] for name, _ in named])
    if kind == "inject_hyperparams" and state is not None:
        link = Link(kind, settings, state)
        given = link.of_state("hyperparams")
        made = settings["inner_factory"](**settings["other_hps"], **given)
        return _opened(made.update, link.of_state("inner_state"))
    return [Link(kind, settings, state, arguments=arguments)]


def _settings(function: Callable[..., Any], seen: tuple[Any, ...] = ()) -> Mapping[str, Any]:
    """What a function and its helpers close over; for a method, the attributes of its object."""
    if inspect.ismethod(function):
        return vars(function.__self__)
    if not inspect.isfunction(function) or function in seen:
        return {}
    own = inspect.getclosurevars(function).nonlocals
    found: dict[str, Any] = {}
    for value in own.values():
        if getattr(value, "__module__", None) == function.__module__:
            found.update(_settings(value, (*seen, function)))
    return {**found, **own}


def _transforms(value: Any) -> Iterator[optax.GradientTransformation]:
    if isinstance(value, optax.GradientTransformation):
        yield value
    elif isinstance(value, Mapping):
        yield from _transforms(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _transforms(item)


class Part(NamedTuple):
    """A transform that another applies to a part of the tree."""

    transform: optax.GradientTransformation
    params: Any
    state: Any


def _parts(link: Link, params: Any) -> list[Part]:
    """What ``masked`` or ``partition`` applies."""
    s = link.settings
    if link.kind == "masked":
        mask = s["mask"](params) if callable(s["mask"]) else s["mask"]
        state = getattr(link.state, "inner_state", None)
        return [Part(s["inner"], s["mask_pytree"](params, mask), state)]
    labels = s["param_labels"](params) if callable(s["param_labels"]) else s["param_labels"]
    found: list[Part] = []
    for group, transform in s["transforms"].items():
        mask = s["make_mask"](labels, group)
        masked = Settings("masked", _settings(optax.masked(transform, mask).update))
        state = link.state and link.of_state("inner_states")[group]
        found.extend(_parts(Link("masked", masked, state), params))
    return found


def _seen(link: Link, params: Any, names: Set[str]) -> list[Link]:
    """What a transform is to the parameters of these names."""
    if link.kind not in _PARTIAL:
        return [link]
    found: list[Link] = []
    for_all = True
    for transform, part, state in _parts(link, params):
        reached_names = names & arrays_of(part).keys()
        for_all &= reached_names in (set(), names)
        for inner in links([transform.update], [state]) if reached_names else ():
            found.extend(_seen(inner, part, reached_names))
    return found if for_all else [link._replace(parts=found)]


def reached(link: Link, params: Any) -> Iterator[tuple[Link, Any]]:
    """A transform and all within it, each with the part of the parameters that it sees."""
    yield link, params
    if link.kind in _PARTIAL:
        for transform, part, state in _parts(link, params):
            for inner in links([transform.update], [state]):
                yield from reached(inner, part)
    else:
        for inner in link.inner:
            yield from reached(inner, params)
