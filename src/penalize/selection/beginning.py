"""The strength at which a grid begins: the least one that leaves nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from penalize.errors import MissingPackageError, NoStrengthMaxError, PathError
from penalize.regularizers.base import Regularizer

NOTHING = 1e-4
"""A gradient at zero that is so much smaller than others is what rounding has left of none."""

Weights = Mapping[str, np.ndarray]
Loss = Callable[[Weights], tuple[float, Weights]]
"""Weights by name → the data's loss, and its gradients by name."""


def beginning(found: float, alone: float) -> float:
    """The strength at which a grid begins.

    Args:
        found: what leaves nothing where all penalized weights are zero.
        alone: what each parameter needs to stay at zero while the others are as they are. It is
            taken where a network with hidden layers passes no gradient at zero.

    Raises:
        PathError: neither is finite and above 0.
    """
    if found <= NOTHING * alone:
        found = alone
    if not (math.isfinite(found) and found > 0):
        raise PathError(
            f"the gradient of the loss at zero weights has the dual norm {found!r}",
            "check that the loss is finite and depends on the penalized weights, or give the "
            "strengths",
        )
    return found


def strength_max(loss: Loss, start: Weights, penalized: Mapping[str, Regularizer]) -> float:
    """The least f at which the penalties, times f, leave nothing.

    See :func:`penalize.torch.strength_max`, which does the same with PyTorch's own optimizer.

    Args:
        loss: the loss of all data, and its gradients.
        start: the weights as they are: all that is trained.
        penalized: the regularizer of each penalized weight.

    Raises:
        NoStrengthMaxError: a penalty is not known to leave nothing.
        PathError: the loss is not finite there, or depends on no penalized weight.
        MissingPackageError: there are weights without a penalty, and SciPy is not installed.
    """
    for name, regularizer in penalized.items():
        try:
            regularizer.strength_max(np.zeros_like(start[name]))
        except NoStrengthMaxError:
            raise NoStrengthMaxError(regularizer, repr(name)) from None

    def needed(weights: Weights, names: Mapping[str, Regularizer]) -> float:
        _, gradients = loss(weights)
        found = [float(r.strength_max(gradients[name])) for name, r in names.items()]
        return math.nan if any(map(math.isnan, found)) else max(found)

    nothing = {**start, **{name: np.zeros_like(start[name]) for name in penalized}}
    found = needed(_settled(loss, nothing, [n for n in start if n not in penalized]), penalized)
    alone = (
        needed({**start, name: np.zeros_like(start[name])}, {name: r})
        for name, r in penalized.items()
    )
    return beginning(found, max(alone))


def _settled(loss: Loss, weights: Weights, rest: list[str]) -> Weights:
    """The weights, those of these names where the loss is least."""
    if not rest:
        return weights
    try:
        from scipy.optimize import minimize
    except ImportError:
        raise MissingPackageError("scipy", 'path(strengths="auto")', "select") from None
    ends = np.cumsum([weights[name].size for name in rest])[:-1]

    def at(flat: np.ndarray) -> Weights:
        parts = zip(rest, np.split(flat, ends), strict=True)
        new = {n: p.reshape(weights[n].shape).astype(weights[n].dtype) for n, p in parts}
        return {**weights, **new}

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        found, gradients = loss(at(flat))
        return found, np.concatenate([gradients[name].ravel() for name in rest]).astype(np.float64)

    flat = np.concatenate([weights[name].ravel() for name in rest]).astype(np.float64)
    eps = max(float(np.finfo(weights[name].dtype).eps) for name in rest)
    options = {"maxiter": 500, "gtol": max(1e-10, 10 * eps), "ftol": 0.0}
    return at(minimize(value, flat, jac=True, method="L-BFGS-B", options=options).x)
