"""What a tensor of a TensorFlow 1 graph is computed from. The graph is only read.

The body of a loop, a branch of ``tf.cond`` and a ``tf.function`` are functions: graphs of their
own, which capture what they use of the graph around them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf

# What depends on the shape of a tensor only, and not on its value.
_OF_SHAPES = frozenset({"Shape", "ShapeN", "Size", "Rank"})


def ancestors(tensors: Iterable[Any], *, of_values: bool = False) -> set[Any]:
    """The operations that the tensors are computed from, their own included.

    Args:
        tensors: where to begin.
        of_values: leave out what is behind a tensor whose shape alone is used.
    """
    found: set[Any] = set()
    waiting = [tensor.op for tensor in tensors]
    while waiting:
        op = waiting.pop()
        if op not in found:
            found.add(op)
            if not (of_values and op.type in _OF_SHAPES):
                waiting.extend(tensor.op for tensor in op.inputs)
    return found


def origin_of(tensor: Any) -> Any:
    """Where a tensor comes from, to be compared: its operation; itself, if it is eager."""
    return id(tensor) if is_eager(tensor) else tensor.op


def origin_of_variable(variable: Any) -> Any:
    """Where the values of a variable come from, the same in every graph that reads it."""
    return origin_of(getattr(variable, "handle", variable))


def origins(tensors: Iterable[Any]) -> set[Any]:
    """Whatever the tensors are computed from, outside of a function also through its captures."""
    given = list(tensors)
    local = [tensor for tensor in given if not is_eager(tensor)]
    found = {origin_of(tensor) for tensor in given} | ancestors(local)
    captured = [
        outer
        for graph in {tensor.graph for tensor in local}
        for outer, inner in getattr(graph, "captures", ())
        if inner.op in found
    ]
    return found | origins(captured) if captured else found


def why_not_here(variable: Any) -> str:
    """Why a variable cannot be read where we are: in a graph, or eagerly; empty if it can."""
    if isinstance(variable, tf.distribute.DistributedValues):
        return ""
    handle = getattr(variable, "handle", variable)
    if is_eager(handle):
        in_a_graph = not tf.compat.v1.executing_eagerly_outside_functions()
        return "is an eager variable, and is asked for in a graph" if in_a_graph else ""
    if tf.executing_eagerly():
        return "is a variable of a graph, and is asked for outside of any"
    here = encloses(handle.graph, tf.compat.v1.get_default_graph())
    return "" if here else "is a variable of another graph than the one where it is asked for"


def is_eager(tensor: Any) -> bool:
    """Whether a tensor has a value now, and is of no graph."""
    return type(tensor).__name__ == "EagerTensor"


def encloses(outer: Any, graph: Any) -> bool:
    """Whether a graph can use what another one holds: it is the same, or a function within it."""
    while graph is not None and graph is not outer:
        graph = getattr(graph, "outer_graph", None)
    return graph is outer


def results_of(prefix: str, ops: set[Any], end: Any) -> list[Any]:
    """What leaves a name scope: outputs of operations below the prefix that others in ops use.

    Args:
        prefix: a name scope, with its final slash.
        ops: the operations to look at, such as the ancestors of a loss.
        end: a tensor that counts as used.
    """
    inside = [op for op in ops if op.name.startswith(prefix)]
    if not inside:
        return []
    used = {tensor.name for op in ops if not op.name.startswith(prefix) for tensor in op.inputs}
    used.add(end.name)
    return [tensor for op in inside for tensor in op.outputs if tensor.name in used]


def names_in_functions(ops: Iterable[Any]) -> frozenset[str]:
    """The names of the operations from which functions that these call compute their results.

    However deep: what happens in a function is no operation of the graph itself.
    """
    graph = next(iter(ops)).graph
    called = {name for op in ops for name in _functions(op.node_def)}
    if called.isdisjoint(graph._functions):
        return frozenset()
    library = {f.signature.name: f for f in graph.as_graph_def().library.function}
    names: set[str] = set()
    waiting, seen = list(called), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in library:
            continue
        seen.add(name)
        for node in _used_nodes(library[name]):
            names.add(node.name)
            waiting.extend(_functions(node))
    return frozenset(names)


def _used_nodes(function: Any) -> Iterator[Any]:
    """The nodes from which a function's results are computed."""
    nodes = {node.name: node for node in function.node_def}
    waiting = list(function.ret.values())
    while waiting:
        node = nodes.pop(waiting.pop().partition(":")[0], None)  # None: an argument, or seen
        if node is not None:
            yield node
            waiting.extend(node.input)


def _functions(node: Any) -> Iterator[str]:
    """What may be the name of a function that it calls."""
    yield node.op  # of a Defun, whose calls are operations of its own name
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        yield from (function.name for function in value.list.func)
