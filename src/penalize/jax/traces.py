"""What an array of a step that is traced was computed from: the penalties that were differentiated.

A gradient that came through a penalty bears its mark. Traces keep the equations by which each of
their arrays was made, with the functions that these call (``jit``, ``checkpoint``, ``cond``,
``scan``). That is how JAX is built, not what it promises; a test pins it. Where it is built
otherwise, no mark is found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from penalize.errors import MissingPackageError
from penalize.regularizers.base import Regularizer

if jax.__version_info__ < (0, 7, 1):
    # Traces do not tell there what made an array: a penalty would act twice without a word.
    raise MissingPackageError("jax>=0.7.1", "penalize.jax", "jax")


class Mark(NamedTuple):
    """A penalty through which a gradient came."""

    name: str
    regularizer: Regularizer
    weight: TracedPlace
    """The array that was penalized."""


def marked(slope: Any, weight: Any, name: str, regularizer: Regularizer) -> Any:
    """The slope itself, whose transpose, and what is computed from it, bears the mark."""
    _Search.worthwhile = True
    return _passes.bind(slope, weight, name=name, regularizer=regularizer)  # type: ignore[no-untyped-call]


# Only a primitive is told when a gradient comes back through it.
_passes = Primitive("penalize_passes")


def _same(slope: Any, _: Any, **mark: Any) -> Any:
    return slope


_passes.def_impl(_same)  # type: ignore[no-untyped-call]
_passes.def_abstract_eval(_same)  # type: ignore[no-untyped-call]
mlir.register_lowering(_passes, mlir.lower_fun(_same, multiple_results=False))


def _batched(arguments: Any, axes: Any, **mark: Any) -> tuple[Any, Any]:
    return _passes.bind(*arguments, **mark), axes[0]  # type: ignore[no-untyped-call]


def _sloped(primals: Any, slopes: Any, **mark: Any) -> tuple[Any, Any]:
    (slope, weight), (further, _) = primals, slopes
    out = _passes.bind(slope, weight, **mark)  # type: ignore[no-untyped-call]
    if isinstance(further, ad.Zero):
        return out, further
    return out, _passes.bind(further, weight, **mark)  # type: ignore[no-untyped-call]


def _came_back(gradient: Any, slope: Any, weight: Any, **mark: Any) -> list[Any]:
    mark["regularizer"].check_gradient()
    if isinstance(gradient, ad.Zero):
        return [gradient, None]
    return [_passes.bind(gradient, weight, **mark), None]  # type: ignore[no-untyped-call]


batching.primitive_batchers[_passes] = _batched
ad.primitive_jvps[_passes] = _sloped
ad.primitive_transposes[_passes] = _came_back


class _Called:
    """A function that an equation calls: what makes its arrays, and what it was given."""

    def __init__(self, jaxpr: Any, given: list[TracedPlace]) -> None:
        self.jaxpr = jaxpr
        self.makers = {id(made): eqn for eqn in jaxpr.eqns for made in eqn.outvars}
        first = len(jaxpr.invars) - len(given)
        self.given = {id(v): place for v, place in zip(jaxpr.invars[first:], given, strict=True)}


class TracedPlace(NamedTuple):
    """An array: a tracer, or a variable of a function that is called."""

    within: _Called | None
    array: Any

    @property
    def key(self) -> tuple[int, int]:
        # Several tracers may stand for one variable of the trace.
        array = getattr(self.array, "val", self.array) if self.within is None else self.array
        return id(self.within), id(array)

    @property
    def maker(self) -> Any:
        """The equation that made it; None where it was given."""
        if self.within is None:
            return getattr(self.array, "parent", None)
        return self.within.makers.get(id(self.array))

    def number(self, maker: Any) -> int | None:
        """Which of the results of its equation it is."""
        array = getattr(self.array, "val", self.array) if self.within is None else self.array
        return next((i for i, made in enumerate(maker.outvars) if made is array), None)


_LOOPS = {"scan", "while"}
"""Each result may depend on each of a round before."""


class _Search:
    """One walk back through a trace, in which each function that is called has one place."""

    worthwhile: ClassVar[bool] = False
    """Whether there is any mark in the process."""

    def __init__(self) -> None:
        self._called: dict[tuple[int, int, int], tuple[_Called, Any]] = {}

    def sources(self, place: TracedPlace, maker: Any) -> list[TracedPlace]:
        """What an array was computed from, one step back."""
        if maker is None:
            found = None if place.within is None else place.within.given.get(id(place.array))
            return [] if found is None else [found]
        given = [TracedPlace(place.within, array) for array in maker.invars]
        bodies = [body for body in _bodies(maker.params) if len(body.outvars) == len(maker.outvars)]
        inside: list[TracedPlace] = []
        for body in bodies:
            called = self._open(place.within, maker, body, given)
            number = None if maker.primitive.name in _LOOPS else place.number(maker)
            results = body.outvars if number is None else [body.outvars[number]]
            inside += [TracedPlace(called, result) for result in results]
        return inside or given

    def _open(
        self, within: _Called | None, maker: Any, body: Any, given: list[TracedPlace]
    ) -> _Called:
        key = id(within), id(maker), id(body)
        if key not in self._called:
            # Before the arguments may stand others, as the index of ``cond``.
            count = min(len(body.invars), len(given))
            found = _Called(body, given[len(given) - count :])
            self._called[key] = found, maker  # held, so that its id is not another's
        return self._called[key][0]


def _bodies(params: Mapping[str, Any]) -> Iterator[Any]:
    for value in params.values():
        for item in value if isinstance(value, list | tuple) else [value]:
            body = getattr(item, "jaxpr", item)  # of a closed one
            if hasattr(body, "eqns") and hasattr(body, "invars"):
                yield body


def marks(arrays: Iterable[Any]) -> list[Mark]:
    """The marks of what these arrays were computed from."""
    if not _Search.worthwhile:
        return []
    search, found = _Search(), list[Mark]()
    waiting = [TracedPlace(None, tracer) for array in arrays for tracer in _tracers(array)]
    seen: dict[tuple[int, int], TracedPlace] = {}
    while waiting:
        place = waiting.pop()
        if place.key in seen:
            continue
        seen[place.key] = place
        maker = place.maker
        sources = search.sources(place, maker)
        if maker is not None and maker.primitive is _passes:
            *sources, weight = sources
            found.append(Mark(maker.params["name"], maker.params["regularizer"], weight))
        waiting += sources
    return found


_CUT = {"concatenate", "dynamic_slice", "gather", "slice", "split"}
_SAME = _CUT | {
    "broadcast_in_dim",
    "convert_element_type",
    "copy",
    "copy_p",
    "device_put",
    "name",
    "optimization_barrier",
    "reduce_precision",
    "reshape",
    "sharding_constraint",
    "squeeze",
    "transpose",
}
"""What gives the same numbers, in another form or dtype, or with others, or some of them."""


class Origin(NamedTuple):
    """Where the numbers of an array come from."""

    key: tuple[int, int]
    place: TracedPlace
    whole: bool
    """Whether they are all that stood there."""


def origins(place: TracedPlace) -> list[Origin]:
    """Where the numbers of an array come from, before they were cast, reshaped or raveled."""
    search, found = _Search(), list[Origin]()
    waiting = [(place, True)]
    seen: dict[tuple[int, int], TracedPlace] = {}
    while waiting:
        place, whole = waiting.pop()
        if place.key in seen:
            continue
        seen[place.key] = place
        maker = place.maker
        sources = search.sources(place, maker)
        calls = any(source.within is not place.within for source in sources)
        if not sources or not (calls or maker.primitive.name in _SAME):
            found.append(Origin(place.key, place, whole))
            continue
        if not calls:
            whole = whole and maker.primitive.name not in _CUT
            sources = _carried(place, maker, sources)
        waiting += [(source, whole) for source in sources]
    return found


def _carried(place: TracedPlace, maker: Any, sources: list[TracedPlace]) -> list[TracedPlace]:
    """The arguments of an equation whose numbers are in this one of its results."""
    if maker.primitive.name == "concatenate":
        return sources
    if maker.primitive.name == "optimization_barrier":
        return [source for i, source in enumerate(sources) if i == place.number(maker)]
    return sources[:1]  # the others say where to


def _tracers(array: Any) -> list[Any]:
    """The tracers of the outermost trace within what ``vmap`` and ``grad`` make of an array."""
    if not isinstance(array, jax.core.Tracer):
        return []
    if hasattr(array, "parent"):
        return [array]
    inner = [getattr(array, name, None) for name in ("val", "primal", "tangent")]
    return [tracer for value in inner for tracer in _tracers(value)]


def place_of(array: Any) -> TracedPlace | None:
    """The place of an array; None where it is no tracer."""
    found = _tracers(array)
    return TracedPlace(None, found[0]) if found else None
