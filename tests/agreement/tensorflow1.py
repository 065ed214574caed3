"""On a graph of TensorFlow 1, in a session."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from agreement.problem import CLASSES, EPSILON, RATE, START, STEPS, TOKENS, Run
from penalize.tensorflow import regularize, regularized

v1 = tf.compat.v1


def data_loss(w: Mapping[str, Any]) -> Any:
    """The model and its cross-entropy, of variables by name."""
    x = tf.gather(w["encoder.tokens.embeddings"], TOKENS)
    x = tf.nn.conv1d(x, w["encoder.conv.kernel"], stride=1, padding="VALID")
    x = tf.sigmoid(x + w["encoder.conv.bias"])
    mean, variance = tf.nn.moments(x, axes=[2], keepdims=True)
    x = (x - mean) / tf.sqrt(variance + EPSILON) * w["norm.gamma"] + w["norm.beta"]
    x = tf.reshape(x, [-1, 20])
    x = tf.sigmoid(x @ w["hidden.kernel"] + w["hidden.bias"])
    logits = x @ w["head.kernel"] + w["head.bias"]
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(CLASSES, logits))


def run(rules: Any) -> Run:
    with tf.Graph().as_default(), v1.Session() as session:
        variables = {}
        for name, start in START.items():
            *scopes, own = name.split(".")
            with v1.variable_scope("/".join(scopes)):
                variables[name] = v1.get_variable(own, initializer=start)
        plan = regularize(v1.trainable_variables(), rules)
        # A Python number would become a float32.
        descent = v1.train.GradientDescentOptimizer(tf.constant(RATE, tf.float64))
        step = regularized(descent, plan=plan).minimize(data_loss(variables))
        penalty = plan.penalty()
        session.run(v1.global_variables_initializer())
        start = float(session.run(penalty))
        steps = []
        for _ in range(STEPS):
            session.run(step)
            steps.append(session.run(variables))
        return Run(start, {row.name: repr(row.regularizer) for row in plan.rows}, steps)
