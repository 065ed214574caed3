"""On TensorFlow 2: modules, a tape, and a loop of one's own in a ``tf.function``."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from agreement.problem import RATE, START, STEPS, Run
from agreement.tensorflow1 import data_loss
from penalize.tensorflow import regularize


class Holder(tf.Module):
    """A module of variables and modules, by name."""

    def __init__(self, **members: Any) -> None:
        super().__init__()
        for name, member in members.items():
            setattr(self, name, member)


class Embedding(Holder):
    pass


class Conv(Holder):
    pass


class LayerNorm(Holder):
    pass


class Dense(Holder):
    pass


def make() -> tuple[tf.Module, dict[str, tf.Variable]]:
    w = {name: tf.Variable(start) for name, start in START.items()}
    model = Holder(
        encoder=Holder(
            tokens=Embedding(embeddings=w["encoder.tokens.embeddings"]),
            conv=Conv(kernel=w["encoder.conv.kernel"], bias=w["encoder.conv.bias"]),
        ),
        norm=LayerNorm(gamma=w["norm.gamma"], beta=w["norm.beta"]),
        hidden=Dense(kernel=w["hidden.kernel"], bias=w["hidden.bias"]),
        head=Dense(kernel=w["head.kernel"], bias=w["head.bias"]),
    )
    return model, w


def run(rules: Any) -> Run:
    model, w = make()
    plan = regularize(model, rules)
    variables = list(w.values())

    @tf.function
    def step() -> None:
        with tf.GradientTape() as tape:
            loss = data_loss(w) + plan.penalty()
        for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
            variable.assign_sub(RATE * gradient)

    start = float(plan.penalty())
    steps = []
    for _ in range(STEPS):
        step()
        steps.append({name: variable.numpy().copy() for name, variable in w.items()})
    return Run(start, {row.name: repr(row.regularizer) for row in plan.rows}, steps)
