"""Questions to a TensorFlow 1 graph: what a tensor depends on, by what factor one enters another.

The user's graph is only read. Whatever has to be added to answer is added to a copy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from penalize.errors import some

v1 = tf.compat.v1


def ancestors(tensors: Iterable[Any]) -> set[Any]:
    """The operations that the tensors are computed from, their own included."""
    found: set[Any] = set()
    waiting = [tensor.op for tensor in tensors]
    while waiting:
        op = waiting.pop()
        if op not in found:
            found.add(op)
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
    used = {tensor.ref() for op in ops if not op.name.startswith(prefix) for tensor in op.inputs}
    used.add(end.ref())
    return [tensor for op in inside for tensor in op.outputs if tensor.ref() in used]


class Factor(NamedTuple):
    """∂loss/∂penalty."""

    value: float
    """NaN where it is no known number."""

    reason: str = ""
    """Why it is not: ``"nonlinear"``, or what it depends on."""


def factors(
    loss: Any,
    uses: Sequence[Sequence[Any]],
    session: Any = None,
    feed_dict: Mapping[Any, Any] | None = None,
) -> list[Factor]:
    """For each penalty the factor with which it enters the loss, by symbolic differentiation.

    Args:
        loss: a tensor of a TensorFlow 1 graph; one that is no scalar counts as the sum of its
            elements, as it does for ``tf.gradients``.
        uses: for each penalty the tensors that compute it, each an ancestor of the loss.
        session: where to look up what a factor depends on, if anything.
        feed_dict: for placeholders that a factor depends on.
    """
    if not any(uses):
        return [Factor(0.0) for _ in uses]
    found = []
    with _copied(loss).as_default() as copy:
        end = copy.get_tensor_by_name(loss.name)
        for tensors in uses:
            own = [copy.get_tensor_by_name(tensor.name) for tensor in tensors]
            gradients = [g for g in (tf.gradients(end, own) if own else []) if g is not None]
            if not gradients:
                found.append(Factor(0.0))
                continue
            behind = ancestors(gradients)
            if behind & {tensor.op for tensor in own}:
                found.append(Factor(math.nan, "nonlinear"))
            else:
                found.append(_evaluate(gradients, behind, session, feed_dict))
    return found


def _copied(loss: Any) -> Any:
    """A graph that computes the loss, and nothing else, under the same names."""
    wanted = {op.name for op in ancestors([loss])}
    whole = loss.graph.as_graph_def()
    part = v1.GraphDef(versions=whole.versions, library=whole.library)
    for node in whole.node:
        if node.name in wanted:
            kept = part.node.add()
            kept.CopyFrom(node)
            kept.device = ""
            kept.attr.pop("_class", None)  # may ask to stand beside an operation that is left out
            kept.input[:] = [name for name in node.input if not name.startswith("^")]
    copy = tf.Graph()
    with copy.as_default():
        tf.import_graph_def(part, name="")
    return copy


def _evaluate(
    gradients: Sequence[Any], behind: set[Any], session: Any, feed_dict: Mapping[Any, Any] | None
) -> Factor:
    """The sum of gradients, with what it depends on taken from the session."""
    unknown = list(_states(behind))
    if unknown and session is None:
        return Factor(math.nan, some(sorted(tensor.name for tensor in unknown)))
    names = [tensor.name for tensor in unknown]
    values = session.run(names, feed_dict) if names else []
    with v1.Session(graph=gradients[0].graph) as own:
        found = own.run(gradients, dict(zip(unknown, values, strict=True)))
    return Factor(float(sum(found)))


def _states(ops: set[Any]) -> Iterator[Any]:
    """The tensors through which placeholders and variables come into these operations."""
    waiting = [op for op in ops if not op.inputs and _has_state(op)]
    while waiting:
        op = waiting.pop()
        for tensor in op.outputs:
            if tensor.dtype == tf.resource or tensor.dtype._is_ref_dtype:
                waiting.extend(user for user in tensor.consumers() if user in ops)
            else:
                yield tensor


def _has_state(op: Any) -> bool:
    return op.type == "Placeholder" or bool(op.op_def.is_stateful)
