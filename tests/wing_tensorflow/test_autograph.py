"""AutoGraph reads whatever a user's ``tf.function`` calls, and must be able to.

Of a function that it cannot convert it tells the user to report a bug to TensorFlow.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from autograph import no_complaints

import penalize
from penalize import GroupLasso
from penalize.tensorflow import audit, contrib, regularize, regularized

v1 = tf.compat.v1
SOURCE = Path(penalize.__file__).parent
OTHERS = {"torch", "jax", "keras", "selection", "compacting", "demo", "cli.py"}
"""What no function of TensorFlow calls: the other wings, what only they use, and commands."""


def cannot_convert(source: str) -> list[str]:
    """The lines with syntax that AutoGraph does not know."""
    found = []
    for node in ast.walk(ast.parse(source)):
        loop_else = isinstance(node, ast.For | ast.While) and node.orelse
        mangled = isinstance(node, ast.Attribute) and (
            node.attr.startswith("__") and not node.attr.endswith("__")
        )
        if (
            isinstance(node, ast.NamedExpr | ast.Match | ast.AsyncFunctionDef)
            or loop_else
            or mangled
        ):
            found.append(f"line {node.lineno}: {ast.unparse(node)[:60]}")
    return found


@pytest.mark.parametrize(
    "source",
    ["x = [y for z in w if (y := z)]", "match x:\n case _: pass", "for x in w: 0\nelse: 1"],
)
def test_what_autograph_does_not_know_is_found(source: str) -> None:
    assert cannot_convert(source)


def test_nothing_that_a_function_calls_is_unknown_to_autograph() -> None:
    paths = [p for p in SOURCE.rglob("*.py") if not OTHERS & set(p.relative_to(SOURCE).parts)]
    assert SOURCE / "contrib.py" in paths
    found = {p.name: lines for p in paths if (lines := cannot_convert(p.read_text("utf-8")))}
    assert not found


def test_groups_of_a_variable() -> None:
    with no_complaints():
        tf.function(lambda w: GroupLasso(0.1, groups=0)(w))(tf.Variable(np.ones((3, 2))))


class Module(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = tf.Variable(tf.ones((3, 2)))


module = Module()
plan = regularize(module, GroupLasso(0.1))
layers = contrib.layers
CALLS: dict[str, Callable[[], Any]] = {
    "a plan": plan.penalty,
    "a function of contrib": lambda: layers.l1_l2_regularizer(0.1, 0.2)(module.kernel),
    "weights of contrib": lambda: layers.apply_regularization(
        layers.sum_regularizer([layers.l1_regularizer(0.1), None]), [module.kernel]
    ),
    "an optimizer": lambda: regularized(
        v1.train.GradientDescentOptimizer(0.1), plan=plan
    ).total_loss(tf.reduce_sum(module.kernel), [module.kernel]),
    "an audit": lambda: audit(tf.reduce_sum(module.kernel), plan) and None,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call(call: Callable[[], Any]) -> None:
    with no_complaints():
        tf.function(lambda: call())()
