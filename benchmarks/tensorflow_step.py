"""What a penalty costs in a compiled train step of TensorFlow, and of Keras: ours beside the one
written by hand, or Keras' own.

Each set of steps is traced in this process and run in turns; what is compared is the ratio within
each turn. Prints a page and writes it beside this file.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import tensorflow as tf
from timing import Work, interleaved, machine, ratios, shown, table, write

from penalize import L1, L2, GroupLasso, Regularizer
from penalize.tensorflow import regularize

WIDTH, LAYERS, BATCH, TURNS = 512, 6, 128, 40

Penalty = Callable[[], Any]
BY_HAND: dict[str, tuple[Regularizer, Callable[[Any], Any]]] = {
    "L2": (L2(1e-4), lambda w: 1e-4 * tf.reduce_sum(tf.square(w))),
    "L1": (L1(1e-4), lambda w: 1e-4 * tf.reduce_sum(tf.abs(w))),
    "group lasso": (
        GroupLasso(1e-4, groups="outputs"),
        lambda w: 1e-4 * WIDTH**0.5 * tf.reduce_sum(tf.norm(w, axis=0)),
    ),
}


class Network(tf.Module):
    """Dense layers, by TensorFlow alone."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels = [
            tf.Variable(tf.random.normal((WIDTH, WIDTH)) * WIDTH**-0.5, name=f"kernel{i}")
            for i in range(LAYERS)
        ]

    def __call__(self, x: Any) -> Any:
        for kernel in self.kernels:
            x = tf.tanh(x @ kernel)
        return tf.reduce_mean(tf.square(x))


def step_of(model: Network, x: Any, penalty: Penalty) -> Work:
    """A step of gradient descent in one tf.function."""

    @tf.function
    def step() -> Any:
        with tf.GradientTape() as tape:
            loss = model(x) + penalty()
        for w, g in zip(model.kernels, tape.gradient(loss, model.kernels), strict=True):
            w.assign_sub(1e-4 * g)
        return loss

    return Work(lambda: step().numpy())


def eager() -> list[list[str]]:
    rows = []
    x = tf.random.normal((BATCH, WIDTH))
    for name, (regularizer, term) in BY_HAND.items():
        model = Network()
        plan = regularize(model, {"**": regularizer})
        works = {
            "hand": step_of(model, x, lambda m=model, t=term: tf.add_n([t(w) for w in m.kernels])),
            "ours": step_of(model, x, plan.penalty),
        }
        taken = interleaved(works, TURNS)
        rows.append(
            [f"`tf.function`, {name}", "by hand", shown(ratios(taken["ours"], taken["hand"]))]
        )
    return rows


def graphs() -> list[list[str]]:
    """TensorFlow 1: the collection, summed by TensorFlow or applied by ours."""
    from penalize.tensorflow import regularized
    from penalize.tensorflow.contrib.layers import l2_regularizer

    v1: Any = tf.compat.v1

    def session_step(ours: bool) -> Work:
        graph = tf.Graph()
        with graph.as_default():
            x = tf.zeros((BATCH, WIDTH)) + 0.1
            for i in range(LAYERS):
                w = v1.get_variable(f"w{i}", (WIDTH, WIDTH), regularizer=l2_regularizer(2e-4))
                x = tf.tanh(x @ w)
            loss = tf.reduce_mean(tf.square(x))
            optimizer = v1.train.GradientDescentOptimizer(1e-4)
            if ours:
                train = regularized(optimizer).minimize(loss)
            else:
                train = optimizer.minimize(loss + v1.losses.get_regularization_loss())
            session = v1.Session(graph=graph)
            session.run(v1.global_variables_initializer())
        return Work(lambda: session.run(train))

    taken = interleaved({"hand": session_step(False), "ours": session_step(True)}, TURNS)
    ratio = shown(ratios(taken["ours"], taken["hand"]))
    return [["TensorFlow 1 session, L2", "the collection's sum in the loss", ratio]]


def keras_steps() -> list[list[str]]:
    """Keras: its own ``kernel_regularizer``, and ours on a model that is built."""
    import keras

    import penalize.keras

    def model(regularizer: Any) -> Any:
        made = keras.Sequential(
            [
                keras.Input((WIDTH,)),
                *[
                    keras.layers.Dense(WIDTH, activation="tanh", kernel_regularizer=regularizer)
                    for _ in range(LAYERS)
                ],
            ]
        )
        made.compile("sgd", "mse")
        return made

    x = tf.random.normal((BATCH, WIDTH))
    y = tf.zeros((BATCH, WIDTH))
    theirs, ours = model(keras.regularizers.L2(1e-4)), model(None)
    penalize.keras.regularize(ours, L2(1e-4))
    works = {
        "hand": Work(lambda: theirs.train_on_batch(x, y)),
        "ours": Work(lambda: ours.train_on_batch(x, y)),
    }
    taken = interleaved(works, TURNS)
    ratio = shown(ratios(taken["ours"], taken["hand"]))
    return [["Keras on TensorFlow, L2", "`kernel_regularizer=keras.regularizers.L2`", ratio]]


def main() -> None:
    rows = [*eager(), *graphs(), *keras_steps()]
    write(
        "tensorflow_step.md",
        [
            "# A train step of TensorFlow and Keras",
            "",
            f"{LAYERS} dense layers of {WIDTH} × {WIDTH}, a batch of {BATCH}. Each step with",
            "penalize, divided by the same step with what it is compared with: the median and the",
            f"quartiles of the ratios of {TURNS} turns. Target: 1.02. Written by `make bench`.",
            "",
            *table(["step", "compared with", "time"], rows),
            "",
            f"{machine()}, TensorFlow {tf.__version__}.",
        ],
    )


if __name__ == "__main__":
    main()
