"""``tf.contrib.layers``' regularizer functions, written once for every graph with collections.

A framework's wing supplies the graph; names, units, checks and collection effects are TensorFlow
1's.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from penalize.backends import Array, open_array
from penalize.errors import NoGradientError, PenaltyError, RegularizerError, ScaleError
from penalize.regularizers.base import Regularizer
from penalize.regularizers.elementwise import L1, L2
from penalize.regularizers.sums import Sum

Penalty = Any
"""A scalar of the graph's framework."""

Function = Callable[[Any], Penalty | None]
"""What TensorFlow 1 calls a regularizer: weights → a scalar, or None for no penalty."""


class Graph(Protocol):
    """What these functions ask of a graph and its collections."""

    def name_scope(
        self, name: str | None, default: str, values: Sequence[Any]
    ) -> AbstractContextManager[str]:
        """A block whose operations are named below it; gives the name for the last of them."""

    def multiply(self, scale: Any, value: Array, weights: Array, name: str) -> Penalty:
        """scale · value, of the dtype of the weights, in an operation of that name."""

    def add_n(self, penalties: Sequence[Penalty], name: str) -> Penalty:
        """The sum of at least one penalty, in an operation of that name."""

    def zero(self) -> Penalty:
        """A penalty of 0."""

    def rank(self, penalty: Penalty) -> int | None:
        """How many axes it has; None where that is unknown."""

    def weights(self) -> Sequence[Any]:
        """The collection ``GraphKeys.WEIGHTS``."""

    def collect(self, penalty: Penalty) -> None:
        """Enter a penalty in ``GraphKeys.REGULARIZATION_LOSSES``."""


class Layers:
    """The functions of ``tf.contrib.layers`` on one graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def l1_regularizer(self, scale: float | Any, scope: str | None = None) -> Function:
        """weights → scale · Σ|w|.

        Args:
            scale: a float ≥ 0, or a scalar tensor. 0.0 disables: the function returns None.
            scope: the name of the operation; ``"l1_regularizer"`` if None.

        Raises:
            ScaleError: a ValueError, where TensorFlow 1 raised one: the scale is an integer, or
                < 0. Also for NaN and infinity.
        """
        return self._scaled(L1(1.0), scale, scope, "l1_regularizer")

    def l2_regularizer(self, scale: float | Any, scope: str | None = None) -> Function:
        """weights → scale · ½Σw². The half is TensorFlow 1's: this is ``L2(scale / 2)``.

        Args:
            scale: a float ≥ 0, or a scalar tensor. 0.0 disables: the function returns None.
            scope: the name of the operation; ``"l2_regularizer"`` if None.

        Raises:
            ScaleError: a ValueError, where TensorFlow 1 raised one: the scale is an integer, or
                < 0. Also for NaN and infinity.
        """
        return self._scaled(L2(0.5), scale, scope, "l2_regularizer")

    def l1_l2_regularizer(
        self, scale_l1: float | Any = 1.0, scale_l2: float | Any = 1.0, scope: str | None = None
    ) -> Function:
        """weights → scale_l1 · Σ|w| + scale_l2 · ½Σw².

        Args:
            scale_l1: a float ≥ 0, or a scalar tensor. 0.0 leaves the second term alone.
            scale_l2: a float ≥ 0, or a scalar tensor. 0.0 leaves the first term alone.
            scope: the name of the operation; ``"l1_l2_regularizer"`` if None.

        Raises:
            ScaleError: a ValueError, where TensorFlow 1 raised one: a scale is an integer, or < 0.
                Also for NaN and infinity.
        """
        l1_is_on = _check_scale("scale_l1", scale_l1)
        l2_is_on = _check_scale("scale_l2", scale_l2)
        scope = scope or "l1_l2_regularizer"
        if not l1_is_on:
            return self.l2_regularizer(scale_l2, scope)
        if not l2_is_on:
            return self.l1_regularizer(scale_l1, scope)
        both = [self.l1_regularizer(scale_l1), self.l2_regularizer(scale_l2)]
        return self._sum(both, scope)

    def sum_regularizer(
        self, regularizer_list: Iterable[Function | None], scope: str | None = None
    ) -> Function | None:
        """weights → the sum of what the regularizers give.

        Args:
            regularizer_list: functions or penalize regularizers; None among them is dropped. None
                is returned if none is left.
            scope: the name of the operation; ``"sum_regularizer"`` if None.

        Raises:
            RegularizerError: a TypeError: it is no list of functions.
        """
        if not isinstance(regularizer_list, Iterable):
            raise RegularizerError(
                f"sum_regularizer got {regularizer_list!r}", "expected a list of regularizers"
            )
        functions = [function for function in regularizer_list if function is not None]
        for function in functions:
            check_callable("sum_regularizer", function)
        return self._sum(functions, scope) if functions else None

    def apply_regularization(
        self, regularizer: Function, weights_list: Sequence[Any] | None = None
    ) -> Penalty:
        """The sum of the penalties of these weights, entered in ``REGULARIZATION_LOSSES``.

        Args:
            regularizer: a function of one array of weights, or a penalize regularizer. None, from
                it, counts as 0.
            weights_list: the weights; those of ``GraphKeys.WEIGHTS`` if None or empty.

        Raises:
            PenaltyError: a ValueError, as in TensorFlow 1: there are no weights, or the regularizer
                returns something that is no scalar.
            RegularizerError: a TypeError: the regularizer is no function.
        """
        check_callable("apply_regularization", regularizer)
        weights = list(weights_list or self._graph.weights())
        if not weights:
            raise PenaltyError(
                "No weights to regularize: the list is empty, and so is GraphKeys.WEIGHTS",
                "weights, such as apply_regularization(regularizer, [kernel])",
            )

        with self._graph.name_scope(None, "get_regularization_penalty", weights) as name:
            penalties = _given(map(regularizer, weights))
            for penalty in penalties:
                rank = self._graph.rank(penalty)
                if rank != 0:
                    raise PenaltyError(
                        f"{regularizer!r} returned a tensor of rank {rank}", "a scalar"
                    )
            total = self._graph.add_n(penalties or [self._graph.zero()], name)
        self._graph.collect(total)
        return total

    def _scaled(self, unit: Regularizer, scale: Any, scope: str | None, default: str) -> Function:
        if not _check_scale("scale", scale):
            return _disabled
        return Scaled(self._graph, unit, scale, scope, default)

    def _sum(self, functions: Sequence[Function], scope: str | None) -> Function:
        return Summed(self._graph, tuple(functions), scope)


@dataclass(frozen=True, eq=False, repr=False)
class Scaled:
    """weights → scale · Ω(weights), of the weights' dtype."""

    graph: Graph
    unit: Regularizer
    scale: Any
    scope: str | None
    default: str

    def __call__(self, weights: Any) -> Penalty:
        with self.graph.name_scope(self.scope, self.default, [weights]) as name:
            array, _ = open_array(weights)
            return self.graph.multiply(self.scale, self.unit(array), array, name)

    @property
    def regularizer(self) -> Regularizer | None:
        """The regularizer that this is; None if the scale is a tensor."""
        return float(self.scale) * self.unit if isinstance(self.scale, numbers.Real) else None

    def __repr__(self) -> str:
        return f"{self.default}(scale={self.scale!r})"


@dataclass(frozen=True, eq=False, repr=False)
class Summed:
    """weights → the sum of what some functions give; None if all of them give none."""

    graph: Graph
    functions: tuple[Function, ...]
    scope: str | None

    def __call__(self, weights: Any) -> Penalty | None:
        with self.graph.name_scope(self.scope, "sum_regularizer", [weights]) as name:
            penalties = _given(f(weights) for f in self.functions)
            return self.graph.add_n(penalties, name) if penalties else None

    @property
    def regularizer(self) -> Regularizer | None:
        """The regularizer that this is; None if one of the functions is none."""
        acting = [f for f in self.functions if f is not _disabled]
        known = _given(map(regularizer_of, acting))
        return Sum(tuple(known)) if known and len(known) == len(acting) else None

    def __repr__(self) -> str:
        return f"sum_regularizer({list(self.functions)!r})"


def _given(values: Iterable[Any]) -> list[Any]:
    """The values that are not None. No ``:=`` anywhere here: AutoGraph cannot convert it."""
    return [value for value in values if value is not None]


def regularizer_of(function: Any) -> Regularizer | None:
    """The penalize regularizer that equals a function of this module; None for other functions."""
    if isinstance(function, Regularizer):
        return function
    return function.regularizer if isinstance(function, Scaled | Summed) else None


def check_gradient(function: Any, where: str) -> None:
    """Raise :class:`~penalize.errors.NoGradientError` for what acts by its prox alone.

    Args:
        function: a regularizer, or a function of this module; of others nothing is known.
        where: what it is declared on, for the message.
    """
    if isinstance(function, Regularizer) and not function.differentiable:
        instead = 'Leave it out here, and give it to a plan of the variables, in mode="proximal"'
        raise NoGradientError(function, where, instead)
    for part in function.functions if isinstance(function, Summed) else ():
        check_gradient(part, where)


def _disabled(weights: Any) -> None:
    """What a scale of 0.0 gives: a regularizer that adds nothing to any collection."""


def check_callable(owner: str, function: object) -> None:
    """Raise :class:`RegularizerError` for what is no regularizer at all."""
    if not callable(function):
        raise RegularizerError(
            f"{owner} got {function!r}", "expected a function such as l2_regularizer(0.1)"
        )


def _check_scale(argument: str, scale: Any) -> bool:
    """Whether it is other than 0. Raises :class:`ScaleError` for what TensorFlow 1 refused."""
    if isinstance(scale, numbers.Real):
        if isinstance(scale, numbers.Integral) or not (math.isfinite(scale) and float(scale) >= 0):
            raise ScaleError(argument, scale)
        return bool(scale)
    if not hasattr(scale, "dtype"):
        raise ScaleError(argument, scale)
    return True
