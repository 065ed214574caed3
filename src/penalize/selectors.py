"""Selectors, which say which parameters. They combine with ``&``, ``|`` and ``~``."""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from penalize import names
from penalize.errors import SelectorError, some
from penalize.parameters import Parameter, Role, Site


class Selector(ABC):
    """A set of parameters, described. Immutable, comparable, hashable."""

    @abstractmethod
    def matches(self, parameter: Parameter, site: Site) -> bool:
        """Whether it selects the parameter, seen at one of its sites."""

    def names_in_full(self, site: Site) -> bool:
        """Whether it spells out this parameter's own name, not just a module's above it."""
        return False

    @property
    def mentions_role(self) -> bool:
        """Whether it says which roles it is about."""
        return False

    def leaves(self) -> Iterator[Selector]:
        """The selectors that it is combined from, or itself."""
        yield self

    @property
    def by_role_alone(self) -> bool:
        """Whether it asks for nothing but roles: that a model has none of them is no misprint."""
        return all(isinstance(leaf, HasRole | Everything) for leaf in self.leaves())

    def hint(self, parameters: Sequence[Parameter]) -> str:
        """What to say when it matches none of these."""
        known = (site.name for p in parameters for site in p.sites)
        return f"The parameters are {some(known)}."

    def __and__(self, other: Selector | str) -> Selector:
        return And(self, as_selector(other))

    def __or__(self, other: Selector | str) -> Selector:
        return Or(self, as_selector(other))

    def __rand__(self, other: str) -> Selector:
        return And(as_selector(other), self)

    def __ror__(self, other: str) -> Selector:
        return Or(as_selector(other), self)

    def __invert__(self) -> Selector:
        return Not(self)


@dataclass(frozen=True, repr=False)
class Named(Selector):
    """See :func:`named`."""

    pattern: str

    def __post_init__(self) -> None:
        if not isinstance(self.pattern, str) or not all(names.components(self.pattern)):
            raise SelectorError(
                f"named({self.pattern!r}) is not a name",
                'components separated by "." or "/", such as named("encoder.layers.0.weight"); '
                '"*" is one component, "**" any number',
            )

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        return names.compile_pattern(self.pattern)

    def matches(self, parameter: Parameter, site: Site) -> bool:
        return self._regex.match(names.ended(site.name)) is not None

    def names_in_full(self, site: Site) -> bool:
        return "*" not in self.pattern and self._regex.fullmatch(names.ended(site.name)) is not None

    def hint(self, parameters: Sequence[Parameter]) -> str:
        near = names.nearest(self.pattern, (site.name for p in parameters for site in p.sites))
        if near:
            return f"The nearest names are {', '.join(map(repr, near))}."
        tops = dict.fromkeys(site.name.partition(".")[0] for p in parameters for site in p.sites)
        return f"The names begin with {some(tops)}."

    def __repr__(self) -> str:
        return f"named({self.pattern!r})"


@dataclass(frozen=True, repr=False)
class HasRole(Selector):
    """``kernels``, ``biases``, ``norms``, ``embeddings``."""

    role: Role

    def matches(self, parameter: Parameter, site: Site) -> bool:
        return parameter.role is self.role

    @property
    def mentions_role(self) -> bool:
        return True

    def hint(self, parameters: Sequence[Parameter]) -> str:
        roles = sorted({p.role.value for p in parameters})
        return f"The roles in this model are {', '.join(roles)}."

    def __repr__(self) -> str:
        return "biases" if self.role is Role.BIAS else f"{self.role.value}s"


@dataclass(frozen=True, repr=False)
class Everything(Selector):
    """``everything``: every parameter of every role."""

    def matches(self, parameter: Parameter, site: Site) -> bool:
        return True

    @property
    def mentions_role(self) -> bool:
        return True

    def __repr__(self) -> str:
        return "everything"


@dataclass(frozen=True, repr=False)
class OfType(Selector):
    """See :func:`of_type`."""

    types: tuple[type, ...]

    def matches(self, parameter: Parameter, site: Site) -> bool:
        return any(issubclass(module, self.types) for module in site.enclosing)

    def hint(self, parameters: Sequence[Parameter]) -> str:
        owners = {s.enclosing[-1].__name__ for p in parameters for s in p.sites if s.enclosing}
        return f"The modules that hold parameters are {', '.join(sorted(owners))}."

    def __repr__(self) -> str:
        return f"of_type({', '.join(t.__name__ for t in self.types)})"


@dataclass(frozen=True, repr=False)
class Where(Selector):
    """See :func:`where`."""

    predicate: Callable[[Parameter], bool]

    def matches(self, parameter: Parameter, site: Site) -> bool:
        return bool(self.predicate(parameter))

    def __repr__(self) -> str:
        name = getattr(self.predicate, "__qualname__", type(self.predicate).__name__)
        if name.endswith("<lambda>"):
            try:
                line = self.predicate.__code__.co_firstlineno
                path = inspect.getfile(self.predicate)
            except (AttributeError, TypeError):
                return f"where({name})"
            return f"where(lambda at {path.rpartition('/')[2]}:{line})"
        return f"where({name})"


@dataclass(frozen=True, repr=False)
class Pair(Selector):
    """Two selectors combined."""

    left: Selector
    right: Selector

    def names_in_full(self, site: Site) -> bool:
        return self.left.names_in_full(site) or self.right.names_in_full(site)

    @property
    def mentions_role(self) -> bool:
        return self.left.mentions_role or self.right.mentions_role

    def leaves(self) -> Iterator[Selector]:
        yield from self.left.leaves()
        yield from self.right.leaves()


class And(Pair):
    """``left & right``."""

    def matches(self, parameter: Parameter, site: Site) -> bool:
        return self.left.matches(parameter, site) and self.right.matches(parameter, site)

    def hint(self, parameters: Sequence[Parameter]) -> str:
        return "Each part matches something, but no parameter matches them all."

    def __repr__(self) -> str:
        return f"{_operand(self.left, Or)} & {_operand(self.right, Or)}"


class Or(Pair):
    """``left | right``."""

    def matches(self, parameter: Parameter, site: Site) -> bool:
        return self.left.matches(parameter, site) or self.right.matches(parameter, site)

    def __repr__(self) -> str:
        return f"{self.left!r} | {self.right!r}"


@dataclass(frozen=True, repr=False)
class Not(Selector):
    """``~inner``."""

    inner: Selector

    def matches(self, parameter: Parameter, site: Site) -> bool:
        return not self.inner.matches(parameter, site)

    @property
    def mentions_role(self) -> bool:
        return self.inner.mentions_role

    def leaves(self) -> Iterator[Selector]:
        yield from self.inner.leaves()

    def __repr__(self) -> str:
        return f"~{_operand(self.inner, And, Or)}"


def _operand(selector: Selector, *looser: type) -> str:
    return f"({selector!r})" if isinstance(selector, looser) else repr(selector)


kernels = HasRole(Role.KERNEL)
"""The weights of layers, whatever they are called."""

biases = HasRole(Role.BIAS)
"""What layers add."""

norms = HasRole(Role.NORM)
"""The scales and shifts of normalizations."""

embeddings = HasRole(Role.EMBEDDING)
"""The tables of embeddings."""

everything = Everything()
"""All parameters."""


def named(pattern: str) -> Selector:
    """A parameter or module of that name, and everything below it.

    ``named("encoder")`` matches ``encoder.0.weight`` and never ``encoder2``. ``*`` stands for one
    component or a part of it, ``**`` for any number of components; ``.`` and ``/`` both separate.

    Raises:
        SelectorError: the pattern is no string, or has an empty component.
    """
    return Named(pattern)


def of_type(*types: type) -> Selector:
    """Parameters of modules of these types, subclasses included, and everything below them.

    Raises:
        SelectorError: something given is not a type.
    """
    if not types or not all(isinstance(t, type) for t in types):
        raise SelectorError(
            f"of_type({', '.join(map(repr, types))}) was not given types",
            "module classes, such as of_type(torch.nn.Conv2d)",
        )
    return OfType(types)


def where(predicate: Callable[[Parameter], bool]) -> Selector:
    """Parameters for which the predicate holds: ``where(lambda p: p.size > 10_000)``.

    It receives the :class:`~penalize.parameters.Parameter`: name, role, shape, ndim, size and more.

    Raises:
        SelectorError: the predicate cannot be called.
    """
    if not callable(predicate):
        raise SelectorError(
            f"where({predicate!r}) was given nothing to call",
            "a function of one parameter's record, such as where(lambda p: p.size > 10_000)",
        )
    return Where(predicate)


def as_selector(key: object) -> Selector:
    """A selector as it is; a bare string as :func:`named`. Raises :class:`SelectorError`."""
    if isinstance(key, Selector):
        return key
    if isinstance(key, str):
        return Named(key)
    instead = f"write of_type({key.__name__})" if isinstance(key, type) else "or a string"
    raise SelectorError(
        f"{key!r} ({type(key).__name__}) selects no parameters", f"a selector, {instead}"
    )
