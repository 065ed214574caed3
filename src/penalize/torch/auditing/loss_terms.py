"""The terms of a loss that penalize weights, found in its graph while it is differentiated.

A loss is a sum. Below its additions, each term is a part of the graph. What comes to a weight by
each path is seen by a hook on the last node of the path. A term is a penalty if whatever comes to
any weight by its paths is an exact multiple of that weight, or of its sign. A gradient of data is
neither; and a norm that weights are divided by is, but its term has other paths, which are not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, cast

from torch import Tensor
from torch.autograd.graph import Node

from penalize.torch.auditing.gradient_kinds import Fit, Kind, fit
from penalize.torch.auditing.graph_nodes import (
    LINEAR,
    SCALES,
    SUMS,
    GraphPath,
    factor,
    is_sum,
    operation,
)

DECLARED, SCALED = "penalize.declared", "penalize.scale"
"""What is noted on a node: whose penalty it is, by plan and name; the factor of a GradScaler."""


def note(node: Node, key: str, value: object) -> None:
    """Note something on a node, for as long as its graph lives."""
    _notes(node)[key] = value


def _notes(node: Node) -> dict[str, Any]:
    # A property, which torch's stubs declare as a method.
    return cast(dict[str, Any], node.metadata)


class LossTerm(NamedTuple):
    """What penalties give to one weight in one backward pass."""

    kind: Kind
    coefficient: float
    """c, of c·w for an L2 or a norm, and of c·sign(w) for an L1."""

    is_norm: bool
    """Whether a norm is not squared, so that c changes with the weights."""

    shares_divisor: bool
    """Whether it is divided, or multiplied, together with the data's part of the loss."""

    scales: tuple[float, ...] = ()
    """The constants that it is multiplied by; NaN for one that is no single number."""


class Pass(NamedTuple):
    """One backward pass."""

    terms: dict[int, list[LossTerm]]
    """By the identity of the weight."""

    declared: dict[Any, float]
    """The factor with which each declared penalty enters, by plan and name."""

    data: float | None
    """What the data's part of the loss is multiplied by; None where there is no such part."""

    is_normalized: bool = False
    """Whether a sum over data is multiplied by something: its number, and what else is unknown."""

    scale: float = 1.0
    """The factor of a GradScaler."""


class Trace:
    """Looks at one backward pass from these roots."""

    def __init__(self, roots: Sequence[Tensor]) -> None:
        self.weights: dict[int, Tensor] = {}
        self._scale = 1.0
        self._children: dict[Node, list[Node]] = {}
        self._leaves: dict[Node, dict[int, list[int]]] = {}
        self._order: list[Node] = []
        self._fits: dict[Node, dict[int, Fit]] = {}
        self._incoming: dict[Node, float] = {}
        # With the products with a constant above each.
        self._terms: dict[Node, frozenset[Node]] = {}
        self._factors: dict[Node, float] = {}
        self._parts: dict[Node, frozenset[Node]] = {}
        self._declared: dict[Node, Any] = {}
        for root in roots:
            if root.grad_fn is not None:
                self._walk(root.grad_fn)
                self._descend(root.grad_fn)

    # --- before: what is where --------------------------------------------------------------

    def _walk(self, root: Node) -> None:
        """Every node, those below before those above."""
        stack: list[tuple[Node, bool]] = [(root, False)]
        while stack:
            node, is_done = stack.pop()
            if is_done:
                self._order.append(node)
            elif node not in self._children:
                self._children[node] = []
                if (whose := _notes(node).get(DECLARED)) is not None:
                    self._declared[node] = whose
                stack.append((node, True))
                for i, (child, _) in enumerate(node.next_functions):
                    if child is None:
                        continue
                    if child.name() == "torch::autograd::AccumulateGrad":
                        weight: Tensor = child.variable  # type: ignore[attr-defined]
                        self.weights[id(weight)] = weight
                        places = self._leaves.setdefault(node, {})
                        places.setdefault(id(weight), []).append(i)
                    else:
                        self._children[node].append(child)
                        stack.append((child, False))

    def _descend(self, root: Node) -> None:
        """From the root through what is linear, to the terms."""
        stack: list[tuple[Node, frozenset[Node], bool]] = [(root, frozenset(), True)]
        seen = set()
        while stack:
            node, scales, is_sum = stack.pop()
            if node in seen:
                continue
            seen.add(node)
            if node in self._declared:
                continue
            name = operation(node)
            is_scale = name in SCALES and sum(f is not None for f, _ in node.next_functions) == 1
            if is_sum and not is_scale and name not in SUMS:
                is_sum = False
                self._parts[node] = scales
            if not (is_scale or name in LINEAR) or node in self._leaves:
                self._terms[node] = scales
            if is_scale or name in LINEAR:
                if SCALED in _notes(node):
                    self._scale = _notes(node)[SCALED]
                elif is_scale:
                    scales |= {node}
                    self._factors[node] = factor(node)
                stack.extend((child, scales, is_sum) for child in self._children[node])

    # --- meanwhile --------------------------------------------------------------------------

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Within the block, the gradients are looked at."""
        hooks = [node.register_hook(partial(self._see, node)) for node in self._leaves]
        hooks += [
            node.register_prehook(partial(self._see_incoming, node))
            for node in {**self._parts, **self._declared}
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _see(self, node: Node, gradients: Sequence[Tensor | None], _: Any) -> None:
        fits = self._fits.setdefault(node, {})
        for key, places in self._leaves[node].items():
            arrived = [g for i in places if (g := gradients[i]) is not None]
            if arrived:
                fits[key] = fit(sum(arrived[1:], arrived[0]), self.weights[key])

    def _see_incoming(self, node: Node, gradients: Sequence[Tensor | None]) -> None:
        (gradient, *_) = gradients
        if gradient is not None:
            self._incoming[node] = float(gradient.sum())

    # --- after ------------------------------------------------------------------------------

    def reached(self) -> set[int]:
        """The weights that got a gradient, be it 0."""
        return {key for fits in self._fits.values() for key in fits}

    def result(self) -> Pass:
        """What was seen, without the factor of a GradScaler."""
        of_data: dict[Node, bool] = {}
        for node in self._order:
            own = any(f.kind is Kind.DATA for f in self._fits.get(node, {}).values())
            of_data[node] = own or any(of_data[child] for child in self._children[node])
        data = [node for node in self._parts if of_data[node] and node in self._incoming]
        divided = frozenset[Node]().union(*(self._parts[node] for node in data))
        declared: dict[Any, float] = {}
        for node, whose in self._declared.items():
            incoming = self._incoming.get(node, 0.0) / self._scale
            declared[whose] = declared.get(whose, 0.0) + incoming
        weight = max((abs(self._incoming[node]) for node in data), default=None)
        return Pass(
            self._penalties(divided, lambda node: of_data[node]),
            declared,
            None if weight is None else weight / self._scale,
            any(is_sum(node) and self._parts[node] for node in data),
            self._scale,
        )

    def _penalties(
        self, divided: frozenset[Node], is_data: Callable[[Node], bool]
    ) -> dict[int, list[LossTerm]]:
        found: list[tuple[int, Fit, bool, frozenset[Node]]] = []
        seen = set(self._declared)
        for top, scales in self._terms.items():
            stack = [(top, GraphPath())] if not is_data(top) else []
            while stack:
                node, path = stack.pop()
                if node in seen:
                    continue
                seen.add(node)
                path = path.through(node)
                for key, each in self._fits.get(node, {}).items():
                    found.append((key, each, not path.is_square, scales))
                stack.extend((child, path) for child in self._children[node])
        certain = [each for _, each, _, _ in found if each.kind in (Kind.L2, Kind.L1)]
        terms: dict[int, list[LossTerm]] = {}
        for key, each, is_norm, scales in found:
            kind = _confirmed(each, certain)
            if kind is not None:
                coefficient = each.coefficient / self._scale
                factors = tuple(self._factors[node] for node in scales)
                shares = bool(scales & divided)
                term = LossTerm(kind, coefficient, is_norm and kind is Kind.L2, shares, factors)
                terms.setdefault(key, []).append(term)
        return terms


def _confirmed(each: Fit, certain: Sequence[Fit]) -> Kind | None:
    """The kind of a fit; where it could be either, that of a sure one of the same strength."""
    if each.kind in (Kind.L2, Kind.L1):
        return each.kind
    if each.kind is Kind.EITHER:
        for other in certain:
            if abs(other.coefficient - each.coefficient) <= 1e-3 * abs(other.coefficient):
                return other.kind
    return None
