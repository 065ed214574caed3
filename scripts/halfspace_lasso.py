"""Two problems with known zeros on mini-batches, under every optimizer."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from documents import ROOT, table
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import Lasso
from torch import Tensor, nn
from torch.optim import (
    ASGD,
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Muon,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
    Rprop,
)

from penalize import L1, L2, PenalizeError, Regularizer
from penalize.torch import regularize

sys.path.append(str(ROOT / "tests" / "optimizers"))
from written_out import SOAP, Lion, Shampoo

Make = Callable[[Any], Optimizer]

ELEMENTWISE: dict[str, Make] = {
    "SGD": lambda p: SGD(p, 0.05),
    "SGD, momentum": lambda p: SGD(p, 0.01, momentum=0.9),
    "SGD, Nesterov": lambda p: SGD(p, 0.01, momentum=0.9, nesterov=True),
    "Adam": lambda p: Adam(p, 0.01),
    "Adam, amsgrad": lambda p: Adam(p, 0.01, amsgrad=True),
    "AdamW": lambda p: AdamW(p, 0.01, weight_decay=0.0),
    "NAdam": lambda p: NAdam(p, 0.01),
    "RAdam": lambda p: RAdam(p, 0.01),
    "Adamax": lambda p: Adamax(p, 0.01),
    "Adagrad": lambda p: Adagrad(p, 0.1),
    "Adadelta": lambda p: Adadelta(p, 1.0),
    "RMSprop": lambda p: RMSprop(p, 0.003),
    "ASGD": lambda p: ASGD(p, 0.05, lambd=0.0),
    "Rprop": lambda p: Rprop(p, 0.001, step_sizes=(1e-9, 0.01)),
    "Lion": lambda p: Lion(p, 0.003),
}
WHOLE: dict[str, Make] = {
    "Adafactor": lambda p: Adafactor(p, 0.02),
    "Muon": lambda p: Muon(p, 0.02, weight_decay=0.0),
    "Shampoo": lambda p: Shampoo(p, 0.01),
    "SOAP": lambda p: SOAP(p, 0.01),
}
"""Those that look at more than one element: each problem is a matrix of its own."""

WAYS: dict[str, Mapping[str, Any]] = {
    "proximal": {"mode": "proximal"},
    "proximal, average": {"mode": "proximal", "average": 0.999},
    "halfspace": {"mode": "halfspace"},
}
SEEDS, BATCHES = 5, (32, 64)


class Problem(NamedTuple):
    """Data, a loss of its predictions, and a penalty."""

    x: Tensor
    y: Tensor
    slope: Callable[[Tensor, Tensor], Tensor]
    """(prediction, target) → the derivative of the loss of each example."""

    strength: float
    ridge: float
    """The strength of an L2 beside the L1."""

    curvature: float
    """An upper bound of the loss' second derivative."""


def scaled(x: np.ndarray) -> np.ndarray:
    """Each feature with mean 0 and deviation 1."""
    deviation = x.std(0)
    scaled: np.ndarray = (x - x.mean(0)) / np.where(deviation > 0, deviation, 1)
    return scaled


@functools.cache
def problems() -> dict[str, Problem]:
    """The lasso of the diabetes data, and a logistic elastic net of the breast cancer data.

    Without its L2 the last is so flat that full-batch descent is far from arriving in 20,000 steps.
    """
    x, y = load_diabetes(return_X_y=True)
    lasso = Problem(
        torch.tensor(scaled(x)), torch.tensor(scaled(y)), lambda p, y: p - y, 0.1, 0.0, 1.0
    )
    x, y = load_breast_cancer(return_X_y=True)
    logistic = Problem(
        torch.tensor(scaled(x)),
        torch.tensor(y.astype(float)),
        lambda p, y: torch.sigmoid(p) - y,
        0.03,
        0.01,
        0.25,
    )
    return {"diabetes": lasso, "breast cancer": logistic}


@functools.cache
def solved(name: str) -> Tensor:
    """The minimiser: scikit-learn's, or by accelerated proximal gradient descent with restarts."""
    problem = problems()[name]
    if name == "diabetes":
        lasso = Lasso(problem.strength, fit_intercept=False, tol=1e-14, max_iter=100_000)
        return torch.tensor(lasso.fit(problem.x.numpy(), problem.y.numpy()).coef_)
    x, y = problem.x, problem.y
    n, d = x.shape
    largest = float(torch.linalg.eigvalsh(x.T @ x / n)[-1])
    step = 1 / (problem.curvature * largest + 2 * problem.ridge)
    w = z = torch.zeros(d, dtype=x.dtype)
    t = 1.0
    for _ in range(5000):
        g = problem.slope(x @ z, y) @ x / n + 2 * problem.ridge * z
        moved = z - step * g
        new = moved.sign() * (moved.abs() - step * problem.strength).clamp_min(0)
        t = 1.0 if (z - new) @ (new - w) > 0 else t
        after = (1 + (1 + 4 * t * t) ** 0.5) / 2
        z, w, t = new + (t - 1) / after * (new - w), new, after
    return w


class Outcome(NamedTuple):
    """How one optimizer fared in one way: by run."""

    right: Tensor
    """The share of the last 200 steps with exactly the right zeros."""

    distance: Tensor
    """The largest distance of a coefficient from the minimiser, at the end."""


def trained(
    name: str,
    make: Make,
    way: Mapping[str, Any],
    steps: int,
    *,
    whole: bool = False,
    batches: Sequence[int] = BATCHES,
) -> Outcome | str:
    """All runs at once: the rows of one matrix, or matrices of one row; or why it is refused."""
    problem, expected = problems()[name], solved(name)
    d, runs = problem.x.shape[1], SEEDS * len(batches)
    shapes = [(1, d)] * runs if whole else [(runs, d)]
    model = nn.ParameterList([nn.Parameter(torch.zeros(s, dtype=torch.float64)) for s in shapes])
    optimizer = make(model.parameters())
    try:
        penalty: Regularizer = L1(problem.strength)
        if problem.ridge:
            penalty = penalty + L2(problem.ridge)
        rules = {key: penalty for key, _ in model.named_parameters()}
        regularize(model, rules).attach(optimizer, **way)
    except PenalizeError:
        return "refused"
    random = torch.Generator().manual_seed(0)
    rate, found, right = optimizer.param_groups[0]["lr"], torch.empty(0), torch.zeros(runs)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        w = torch.cat([p.detach() for p in model])
        examples = [drawn(len(problem.x), n, random) for n in batches]
        parts = zip(w.split(SEEDS), examples, strict=True)  # type: ignore[no-untyped-call]
        g = torch.cat([_gradient(problem, *each) for each in parts])
        for p, part in zip(model, list(g) if whole else [g], strict=True):
            p.grad = part.reshape(p.shape).clone()
        optimizer.step()
        if step >= steps - 200:
            found = torch.cat([p.detach() for p in model])
            right += ((found == 0) == (expected == 0)).all(1)
    return Outcome(right / 200, (found - expected).abs().amax(1))


def drawn(examples: int, batch: int, random: torch.Generator) -> Tensor:
    """The numbers of the examples of a batch, for each seed; all of them where it is so large."""
    if batch >= examples:
        return torch.arange(examples).expand(SEEDS, examples)
    return torch.randint(0, examples, (SEEDS, batch), generator=random)


def _gradient(problem: Problem, w: Tensor, examples: Tensor) -> Tensor:
    """The gradient of each row, on its own examples."""
    x, y = problem.x[examples], problem.y[examples]
    slopes = problem.slope((x @ w[:, :, None])[..., 0], y)
    gradient: Tensor = (slopes[:, None] @ x)[:, 0] / examples.shape[1]
    return gradient


def share(found: Outcome | str, part: slice) -> str:
    """The mean share of right steps, and the largest distance, of some runs."""
    if isinstance(found, str):
        return found
    return (
        f"{100 * float(found.right[part].mean()):.0f} % ({float(found.distance[part].max()):.3f})"
    )


def mini_batches(name: str, steps: int) -> str:
    """The table of right zeros, by optimizer and size of batch."""
    expected = solved(name)
    rows = []
    for kind, make in {**ELEMENTWISE, **WHOLE}.items():
        found = [trained(name, make, way, steps, whole=kind in WHOLE) for way in WAYS.values()]
        for number, size in enumerate(BATCHES):
            part = slice(number * SEEDS, (number + 1) * SEEDS)
            rows.append([kind, str(size), *(share(each, part) for each in found)])
            print(name, *rows[-1], flush=True)
    zeros = int((expected == 0).sum())
    title = f"### {name}: {zeros} of {len(expected)} coefficients are 0; {steps} steps\n\n"
    return title + table(["optimizer", "batch", *WAYS], rows)


LATE: dict[str, Make] = {
    "SGD": ELEMENTWISE["SGD"],
    "RAdam": ELEMENTWISE["RAdam"],
    "RAdam, lr=0.03": lambda p: RAdam(p, 0.03),
    "Adafactor": WHOLE["Adafactor"],
    "Adafactor, lr=0.1": lambda p: Adafactor(p, 0.1),
}
"""Those that need the most steps on the breast cancer data, and SGD; also at larger rates."""


def late() -> str:
    """The table of right zeros in few steps: batches of 64, and all of the data in each."""
    name = "breast cancer"
    sizes = {"64": 64, "all": len(problems()[name].x)}
    columns = [(steps, average) for steps in (1500, 3000) for average in (0.999, 0.99)]
    rows = []
    for kind, make in LATE.items():
        whole = kind.startswith(tuple(WHOLE))
        found = [
            trained(
                name,
                make,
                {"mode": "halfspace", "average": average},
                steps,
                whole=whole,
                batches=[*sizes.values()],
            )
            for steps, average in columns
        ]
        for i, size in enumerate(sizes):
            part = slice(i * SEEDS, (i + 1) * SEEDS)
            rows.append([kind, size, *(share(each, part) for each in found)])
            print(*rows[-1], flush=True)
    head = [f"{steps} steps, `average={average}`" for steps, average in columns]
    return table(["optimizer", "batch", *head], rows)
