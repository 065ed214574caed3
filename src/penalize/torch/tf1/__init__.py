"""TensorFlow 1's variables, collections and regularization on PyTorch, to port a model by the line.

    from penalize.torch import tf1 as tf

    store = tf.VariableStore()

    def model(x):  # runs in every step, hence AUTO_REUSE
        with tf.variable_scope(
            "net", regularizer=tf.contrib.layers.l2_regularizer(1e-4), reuse=tf.AUTO_REUSE
        ):
            w = tf.get_variable("w", [64, 10])
            b = tf.get_variable("b", [10], initializer=torch.zeros, regularizer=tf.no_regularizer)
        return x @ w + b

    with store:
        model(example)  # makes the variables
        optimizer = torch.optim.SGD(store.parameters(), lr=0.1)
        for x, y in batches:
            optimizer.zero_grad()
            loss = cross_entropy(model(x), y) + tf.losses.get_regularization_loss()
            loss.backward()
            optimizer.step()

What differs, because there is no graph: penalties are computed when a collection is read; a shared
variable and a repeated declaration add nothing; ``scope="s"`` means exactly that scope; a variable
with a partitioner stays whole.
"""

from penalize.torch.tf1 import contrib, losses
from penalize.torch.tf1.checkpoint import load_tf1_checkpoint
from penalize.torch.tf1.keys import AUTO_REUSE, GraphKeys
from penalize.torch.tf1.partitioners import fixed_size_partitioner
from penalize.torch.tf1.scopes import variable_scope
from penalize.torch.tf1.sharing import no_regularizer
from penalize.torch.tf1.state import VariableScope, get_variable_scope
from penalize.torch.tf1.store import (
    VariableStore,
    add_to_collection,
    get_collection,
    get_default_store,
    reset_default_store,
)
from penalize.torch.tf1.variables import get_variable, global_variables, trainable_variables

__all__ = [
    "AUTO_REUSE",
    "GraphKeys",
    "VariableScope",
    "VariableStore",
    "add_to_collection",
    "contrib",
    "fixed_size_partitioner",
    "get_collection",
    "get_default_store",
    "get_variable",
    "get_variable_scope",
    "global_variables",
    "load_tf1_checkpoint",
    "losses",
    "no_regularizer",
    "reset_default_store",
    "trainable_variables",
    "variable_scope",
]
