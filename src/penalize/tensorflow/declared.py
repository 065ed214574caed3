"""What the audit and ``regularized`` know of a declared penalty, wherever it was declared."""

from __future__ import annotations

from typing import Any, Protocol

import tensorflow as tf

from penalize.regularizers.base import Regularizer


def global_step() -> Any:
    """The step of training, as a graph of TensorFlow 1 counts it; None where it does not."""
    return None if tf.executing_eagerly() else tf.compat.v1.train.get_global_step()


class Declared(Protocol):
    """A penalty of the collection, or of a plan."""

    @property
    def name(self) -> str:
        """What the penalty is declared on."""

    @property
    def prefix(self) -> str:
        """The name scope, with its final slash, of every operation that computes it; or empty."""

    @property
    def regularizer(self) -> Regularizer | None:
        """The penalize regularizer; None where it is some other function."""

    @property
    def variables(self) -> tuple[Any, ...]:
        """The variables that it penalizes, where they are known."""

    @property
    def is_penalty(self) -> bool:
        """Whether it is a scalar, and not weights that somebody entered as they are."""

    def concerns(self, updated: set[Any], graph: Any) -> bool:
        """Whether it is computed from one of these variables of a graph, given by their origins."""

    def is_within(self, graph: Any) -> bool:
        """Whether it stays in a function of this graph, such as a loop's body, and cannot leave."""

    def uses(self, loss: Any, ops: set[Any]) -> list[Any]:
        """The tensors that bring this penalty into the loss, whose ancestors are ops."""

    def takes_in(self, other: Declared) -> bool:
        """Whether it is computed from another declared penalty."""

    def penalty(self) -> Any:
        """The penalty as a tensor of the current graph."""
