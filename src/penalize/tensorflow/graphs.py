"""What a tensor of a TensorFlow 1 graph is computed from. The graph is only read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

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
    """The names of the operations inside of the functions that these call, however deep.

    The branches of ``tf.cond``, the bodies of loops and ``tf.function`` are functions: what happens
    in them is no operation of the graph itself.
    """
    called = {name for op in ops for name in _functions(op.node_def.attr)}
    if not called:
        return frozenset()
    graph = next(iter(ops)).graph
    library = {f.signature.name: f for f in graph.as_graph_def().library.function}
    names: set[str] = set()
    waiting, seen = list(called), set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in library:
            continue
        seen.add(name)
        for node in library[name].node_def:
            names.add(node.name)
            waiting.extend(_functions(node.attr))
    return frozenset(names)


def _functions(attributes: Any) -> Iterator[str]:
    for value in attributes.values():
        if value.HasField("func"):
            yield value.func.name
        yield from (function.name for function in value.list.func)
