"""With what factor penalties enter a loss of a TensorFlow 1 graph, by symbolic differentiation.

The user's graph is only read. Whatever has to be added to answer is added to a copy.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from penalize.errors import some
from penalize.tensorflow.declared import Declared
from penalize.tensorflow.graphs import ancestors, names_in_functions

v1 = tf.compat.v1


class Factor(NamedTuple):
    """∂loss/∂penalty."""

    value: float
    """NaN where it is no known number."""

    reason: str = ""
    """Why it is not."""


NONLINEAR = "a penalty of a penalty, or another nonlinear function of one"
_HIDDEN = "inside of a function, such as a branch of tf.cond, where it cannot be measured"
_WITHIN = "made inside of a function, such as the body of a loop, where it stays"


def factors(
    loss: Any,
    declared: Sequence[Declared],
    session: Any = None,
    feed_dict: Mapping[Any, Any] | None = None,
) -> list[Factor]:
    """The factor with which each penalty enters the loss.

    A factor of 0 is what was looked for everywhere and not found; what cannot be measured has none.

    Args:
        loss: a tensor of a TensorFlow 1 graph; one that is no scalar counts as the sum of its
            elements, as it does for ``tf.gradients``.
        declared: the penalties.
        session: where to look up what a factor depends on, if anything.
        feed_dict: for placeholders that a factor depends on.
    """
    ops = ancestors([loss])
    hidden = names_in_functions(ops)
    uses = [penalty.uses(loss, ops) for penalty in declared]
    unknown = [_why_not_measured(penalty, loss.graph, hidden) for penalty in declared]
    copy = _copied(loss, ops) if any(uses) else None
    return [
        Factor(math.nan, why_not) if why_not else _measure(copy, loss, tensors, session, feed_dict)
        for why_not, tensors in zip(unknown, uses, strict=True)
    ]


def _why_not_measured(penalty: Declared, graph: Any, hidden: Iterable[str]) -> str:
    if penalty.is_within(graph):
        return _WITHIN
    is_hidden = penalty.prefix and any(name.startswith(penalty.prefix) for name in hidden)
    return _HIDDEN if is_hidden else ""


def _measure(copy: Any, loss: Any, tensors: Sequence[Any], session: Any, feed_dict: Any) -> Factor:
    if not tensors:
        return Factor(0.0)
    with copy.as_default():
        end = copy.get_tensor_by_name(loss.name)
        own = [copy.get_tensor_by_name(tensor.name) for tensor in tensors]
        try:
            gradients = [g for g in tf.gradients(end, own) if g is not None]
        except Exception as error:  # noqa: BLE001 - a gradient function may raise anything
            return Factor(math.nan, f"cannot be differentiated ({type(error).__name__}: {error})")
        if not gradients:
            return Factor(0.0)
        gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
        if ancestors(gradients, of_values=True) & {tensor.op for tensor in own}:
            return Factor(math.nan, NONLINEAR)
        return _evaluate(gradients, session, feed_dict)


def _copied(loss: Any, ops: set[Any]) -> Any:
    """A graph of these operations, which compute the loss, and nothing else, by the same names."""
    wanted = {op.name for op in ops}
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
        for op in ops:
            for tensor in op.outputs:  # what set_shape told the original
                copy.get_tensor_by_name(tensor.name).set_shape(tensor.shape)
    return copy


def _evaluate(gradients: Sequence[Any], session: Any, feed_dict: Any) -> Factor:
    """The sum of gradients, with what it depends on taken from the session."""
    unknown = list(_states(ancestors(gradients)))
    if unknown and session is None:
        names = some(sorted(tensor.name for tensor in unknown))
        return Factor(math.nan, f"depends on {names}: pass session= (and feed_dict=) to look it up")
    values = session.run([tensor.name for tensor in unknown], feed_dict) if unknown else []
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
