"""What is done to a weight between it and a term of the loss, read off the nodes of the graph."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor
from torch.autograd.graph import Node

# What gives each of its inputs a gradient that does not depend on the others. A product is, if only
# one factor has a gradient.
SCALES = {"Mul", "Div"}
SUMS = {"Add", "Sub", "Rsub", "Neg", "ToCopy", "Clone", "Alias", "View", "Squeeze", "Unsqueeze"}
LINEAR = SUMS | {
    *("Sum", "Mean", "Stack", "Cat", "UnsafeView", "ReshapeAlias", "Expand", "Select", "Slice"),
    *("Unbind", "T", "Transpose", "Permute", "Trace"),
}
_NORMS = {"LinalgVectorNorm", "Norm", "Sqrt", "Dist", "ForeachNorm"}
"""Norms without a square: their gradient is a multiple of the weight too."""


class GraphPath(NamedTuple):
    """What is done to a weight on the way to a term, from the term down."""

    powers: tuple[float | None, ...] = ()
    """The degree of each operation that is not linear; None where it is not known."""

    is_shifted: bool = False
    """Whether a constant is added below one of them."""

    def through(self, node: Node) -> GraphPath:
        """The path with one more operation."""
        name = operation(node)
        inputs = [child for child, _ in node.next_functions]
        if name in LINEAR or (name in SCALES and inputs.count(None) == len(inputs) - 1):
            adds = name in {"Add", "Sub", "Rsub"} and (None in inputs or len(inputs) == 1)
            return self._replace(is_shifted=self.is_shifted or (adds and bool(self.powers)))
        return self._replace(powers=(*self.powers, _degree(node, name)))

    @property
    def is_square(self) -> bool:
        """Whether a multiple of the weight that comes by it is the same for all weights.

        So it is of w·w, and of a norm's square. Not of a norm, of (|w| - 1)², or of |w|⁴.
        """
        if len(self.powers) < 2:
            return self.powers != (1.0,)
        return not self.is_shifted and None not in self.powers and math.prod(self.powers) == 2  # type: ignore[arg-type]


def operation(node: Node) -> str:
    """What PyTorch's own operation is called; empty for one that a user defined."""
    name, _, number = node.name().partition("Backward")
    return name if number.isdigit() else ""


def factor(node: Node) -> float:
    """The constant of a product or quotient."""
    saved = [getattr(node, f"_saved_{name}", None) for name in ("self", "other")]
    numbers = [float(t) for t in saved if isinstance(t, Tensor) and t.numel() == 1]
    if len(numbers) != 1 or not numbers[0]:
        return math.nan
    return 1 / numbers[0] if operation(node) == "Div" else numbers[0]


def is_sum(node: Node) -> bool:
    """Whether it sums over data: ``sum()``, or a loss with ``reduction="sum"``."""
    return operation(node) == "Sum" or getattr(node, "_saved_reduction", None) == 2


def _degree(node: Node, name: str) -> float | None:
    if name in _NORMS:
        return 0.5 if name == "Sqrt" else 1.0
    if name == "Pow":
        exponent = getattr(node, "_saved_exponent", None)
        return float(exponent) if isinstance(exponent, int | float) else None
    is_product = name == "Mul" and len({child for child, _ in node.next_functions}) == 1
    return 2.0 if is_product else None
