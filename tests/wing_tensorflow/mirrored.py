"""A MirroredStrategy over two logical CPUs against one device. Run by test_mirrored.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from penalize import L1, L2, GroupLasso, LossError, Orthogonal, kernels
from penalize.tensorflow import audit, regularize, regularized

cpus = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(
    cpus[0], [tf.config.LogicalDeviceConfiguration() for _ in range(2)]
)

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(8, 4)), rng.normal(size=(8, 2))
W, B = rng.normal(size=(4, 2)), rng.normal(size=2)
RULES = {kernels: L2(0.3) + GroupLasso(0.2, groups="outputs") + Orthogonal(0.1), "bias": L1(0.1)}


class Model(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.bias = tf.Variable(W), tf.Variable(B)


def train(strategy: Any, share: bool) -> tuple[np.ndarray, float]:
    """Three steps of gradient descent, gradients summed over replicas; and the loss it reports."""
    with strategy.scope():
        model = Model()
        plan = regularize(model, RULES)
    sources = [model.kernel, model.bias]
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    distributed = strategy.experimental_distribute_dataset(data)

    def replica_step(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            per_example = tf.reduce_sum((x @ model.kernel + model.bias - y) ** 2, axis=1)
            penalty = plan.penalty()
            if not share:  # the naive way: every replica adds the whole penalty
                penalty *= tf.cast(strategy.num_replicas_in_sync, penalty.dtype)
            loss = tf.nn.compute_average_loss(per_example, global_batch_size=8) + penalty
        gradients = tape.gradient(loss, sources)
        summed = tf.distribute.get_replica_context().all_reduce("SUM", gradients)
        for variable, gradient in zip(sources, summed, strict=True):
            variable.assign_sub(0.05 * gradient)
        return loss

    @tf.function
    def step(batch: Any) -> tf.Tensor:
        return strategy.reduce("SUM", strategy.run(replica_step, batch), axis=None)

    for _ in range(3):
        for batch in distributed:
            loss = step(batch)
    return np.concatenate([v.numpy().ravel() for v in sources]), float(loss)


one = train(tf.distribute.get_strategy(), share=True)
two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert two.num_replicas_in_sync == 2
found, naive = train(two, share=True), train(two, share=False)
np.testing.assert_allclose(found[0], one[0], rtol=1e-12)
np.testing.assert_allclose(found[1], one[1], rtol=1e-12)
assert abs(naive[0] - one[0]).max() > 1e-3

# The tapes of replicas are their own, and the gradients of a TF 1 optimizer are summed there.
with two.scope():
    model = Model()
    plan = regularize(model, RULES)
with pytest.raises(LossError, match="runs in replicas"):
    audit(lambda: two.reduce("SUM", two.run(plan.penalty), axis=None), plan)
with tf.Graph().as_default(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    strategy = tf.distribute.get_strategy()
    v1 = tf.compat.v1
    optimizer = regularized(v1.train.GradientDescentOptimizer(0.1))
    with pytest.raises(LossError, match="one of several replicas"):
        strategy.run(lambda: optimizer.total_loss(tf.constant(1.0)))
print("ok")
