"""The model's weights and batch, its penalty written by hand, and what a run is.

tokens → embedding → convolution → sigmoid → layer norm → dense → sigmoid → dense → cross-entropy.
Names and layouts are those of Keras and TensorFlow; another framework converts its own to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

RATE = 0.1
STEPS = 10
EPSILON = 1e-5
"""Of the layer norm, where frameworks have defaults of their own."""

Weights = dict[str, np.ndarray]

SHAPES = {
    "encoder.tokens.embeddings": (11, 4),
    "encoder.conv.kernel": (3, 4, 5),
    "encoder.conv.bias": (5,),
    "norm.gamma": (5,),
    "norm.beta": (5,),
    "hidden.kernel": (20, 7),
    "hidden.bias": (7,),
    "head.kernel": (7, 3),
    "head.bias": (3,),
}

_rng = np.random.default_rng(0)
START: Weights = {
    name: _rng.normal(loc=float(name == "norm.gamma"), scale=0.5, size=shape)
    for name, shape in SHAPES.items()
}
# The last token never occurs, so the data give its row no gradient.
TOKENS = _rng.integers(0, 10, size=(8, 6)).astype(np.int32)
CLASSES = _rng.integers(0, 3, size=8).astype(np.int32)


class Run(NamedTuple):
    """What one framework did, by one way to apply the penalty."""

    penalty: float
    """At the start."""

    plan: dict[str, str]
    """What the plan says of each parameter; empty where there was none."""

    steps: list[Weights]
    """The weights after each step."""

    @property
    def gradients(self) -> Weights:
        """The total gradient at the start: what the first step of plain SGD went by."""
        return {name: (START[name] - w) / RATE for name, w in self.steps[0].items()}


def by_hand(w: Mapping[str, Any]) -> Any:
    """The penalty of the rules with nothing of ours, for arrays of NumPy or tensors of PyTorch."""
    tokens, conv, hidden = (
        w["encoder.tokens.embeddings"],
        w["encoder.conv.kernel"],
        w["hidden.kernel"],
    )
    # A token is a row of 4; an output of the convolution has 3 · 4 weights; an input of the hidden
    # layer has 7.
    return (
        0.005 * (tokens**2).sum()
        + 0.01 * 4**0.5 * ((tokens**2).sum(axis=1) ** 0.5).sum()
        + 0.02 * 12**0.5 * ((conv**2).sum(axis=(0, 1)) ** 0.5).sum()
        + 0.001 * ((w["norm.gamma"] ** 2).sum() + (w["norm.beta"] ** 2).sum())
        + 0.003 * abs(hidden).sum()
        + 0.005 * 7**0.5 * ((hidden**2).sum(axis=1) ** 0.5).sum()
        + 0.02 * (w["hidden.bias"] ** 2).sum()
        + 0.01 * (w["head.kernel"] ** 2).sum()
        + 0.01 * abs(w["head.bias"]).sum()
        + 0.03 * (w["head.bias"] ** 2).sum()
    )
