"""Groups on mini-batches: how many are wrong, by three rules for when one is set to 0."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from documents import table
from halfspace_lasso import Lion, scaled
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim import SGD, Adam, Muon, Optimizer

from penalize import GroupLasso
from penalize.backends import Array
from penalize.halfspace import HalfSpace, Memory
from penalize.regularizers.groups import norms_of
from penalize.regularizers.least_norm import spread
from penalize.torch import regularize
from penalize.torch.kernels import reference


class Groups(NamedTuple):
    """A problem whose groups are the columns of a weight, and its minimiser."""

    name: str
    gradient: Callable[[Tensor, Tensor], Tensor]
    """(weight, numbers of examples) → the gradient."""

    examples: int
    shape: tuple[int, int]
    strength: float
    step: float


def softmax() -> Groups:
    """Digits: 64 pixels, each with 10 weights."""
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(scaled(x / 16)), nn.functional.one_hot(torch.tensor(y)).double()

    def gradient(w: Tensor, i: Tensor) -> Tensor:
        return (torch.softmax(x[i] @ w.T, 1) - y[i]).T @ x[i] / len(i)

    bound = 0.5 * float(torch.linalg.eigvalsh(x.T @ x / len(x))[-1])
    return Groups("digits, groups of 10", gradient, len(x), (10, 64), 0.02, 1 / bound)


def regression(outputs: int, strength: float) -> Groups:
    """40 inputs, of which 12 matter to many outputs: a layer whose inputs are groups."""
    random = torch.Generator().manual_seed(1)
    x = torch.randn(2000, 40, generator=random, dtype=torch.float64)
    x = 0.7 * x + 0.3 * x[:, :1]
    true = torch.zeros(outputs, 40, dtype=torch.float64)
    true[:, :12] = torch.randn(outputs, 12, generator=random, dtype=torch.float64)
    true[:, :12] *= torch.linspace(0.05, 0.5, 12)
    noise = torch.randn(2000, outputs, generator=random, dtype=torch.float64)
    y = x @ true.T + 3 * noise

    def gradient(w: Tensor, i: Tensor) -> Tensor:
        return (x[i] @ w.T - y[i]).T @ x[i] / len(i)

    step = 1 / float(torch.linalg.eigvalsh(x.T @ x / len(x))[-1])
    return Groups(
        f"regression, groups of {outputs}", gradient, len(x), (outputs, 40), strength, step
    )


@functools.cache
def solved_groups(problem: Groups) -> tuple[Tensor, Tensor, float]:
    """The minimiser; which groups have a margin; and the noise of a batch of 64, over λ."""
    every = torch.arange(problem.examples)
    w = z = torch.zeros(problem.shape, dtype=torch.float64)
    t = 1.0
    for _ in range(800):
        moved = z - problem.step * problem.gradient(z, every)
        norms = moved.norm(dim=0).clamp_min(1e-300)
        new = moved * (1 - problem.step * problem.strength / norms).clamp_min(0)
        t = 1.0 if ((z - new) * (new - w)).sum() > 0 else t
        after = (1 + (1 + 4 * t * t) ** 0.5) / 2
        z, w, t = new + (t - 1) / after * (new - w), new, after
    g, norms = problem.gradient(w, every), w.norm(dim=0)
    margin = torch.where(
        norms > 0,
        norms > 0.1 * norms.median().clamp_min(1e-9),
        g.norm(dim=0) < 0.95 * problem.strength,
    )
    random = torch.Generator().manual_seed(0)
    batches = torch.randint(0, problem.examples, (50, 64), generator=random)
    noise = torch.stack([problem.gradient(w, i) - g for i in batches]).norm(dim=1).mean(0)
    return w, margin, float((noise / problem.strength).median())


RULES = ("half-space test alone", "average and reach", "both tests")


@contextmanager
def rule(name: str) -> Iterator[None]:
    """Within the block, groups are set to 0 by this rule.

    All three on the plain path: kernels that are compiled have the mode's own rule.
    """
    ours = HalfSpace._gone

    def alone(self: HalfSpace, new: Array, side: Array, slope: Array, memory: Memory) -> Array:
        return ours(self, new, side, slope, memory._replace(moved=0 * memory.moved))

    reach: dict[Any, Tensor] = {}

    def near(self: HalfSpace, new: Array, side: Array, slope: Array, memory: Memory) -> Array:
        """‖ĝ‖ ≤ 0.9 λ, and within 30 moves of 0."""
        groups, size = self.kinks.sizes(self.w, self.xp)
        moves = norms_of(new - self.w, groups, self.xp).each
        key = new.shape
        reach[key] = 0.999 * reach.get(key, 0 * moves) + 0.001 * moves
        held = norms_of(memory.mean / memory.mass, groups, self.xp).each <= 0.9 * size
        lives = norms_of(self.w, groups, self.xp).each > 0
        close = norms_of(new, groups, self.xp).each <= 30 * reach[key] / memory.mass
        return alone(self, new, side, slope, memory) | spread(
            held & close & lives, groups, self.w, self.xp
        )

    HalfSpace._gone = {RULES[0]: alone, RULES[1]: near, RULES[2]: ours}[name]  # type: ignore[method-assign]
    try:
        with reference():
            yield
    finally:
        HalfSpace._gone = ours  # type: ignore[method-assign]


OF_GROUPS: dict[str, tuple[type[Optimizer], float, dict[str, Any]]] = {
    "SGD": (SGD, 0.1, {}),
    "SGD, momentum": (SGD, 0.03, {"momentum": 0.9}),
    "Adam": (Adam, 0.01, {}),
    "Lion": (Lion, 0.002, {}),
    "Muon": (Muon, 0.02, {"weight_decay": 0.0}),
}


def groups_wrong(problem: Groups, name: str, steps: int, seed: int) -> tuple[float, float, float]:
    """In the last 200 steps: groups that are wrong, those with a margin, and the distance."""
    expected, margin, _ = solved_groups(problem)
    kind, rate, settings = OF_GROUPS[name]
    random = torch.Generator().manual_seed(seed)
    w = nn.Parameter(0.05 * torch.randn(problem.shape, generator=random, dtype=torch.float64))
    model = nn.ParameterList([w])
    optimizer = kind([w], lr=rate, **settings)  # type: ignore[call-arg]
    penalty = GroupLasso(problem.strength, groups=1, size_weighted=False)
    regularize(model, {"0": penalty}).attach(optimizer, mode="halfspace")
    wrong, clear = 0.0, 0.0
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        i = torch.randint(0, problem.examples, (64,), generator=random)
        w.grad = problem.gradient(w.detach(), i)
        optimizer.step()
        if step >= steps - 200:
            off = (w.detach().norm(dim=0) > 0) != (expected.norm(dim=0) > 0)
            wrong, clear = wrong + int(off.sum()) / 200, clear + int((off & margin).sum()) / 200
    return wrong, clear, float((w.detach() - expected).abs().max())


def groups(problem: Groups, steps: int, seeds: int) -> str:
    """The table of groups that are wrong, by optimizer and rule."""
    expected, margin, noise = solved_groups(problem)
    lives, rows = int((expected.norm(dim=0) > 0).sum()), []
    for kind in OF_GROUPS:
        cells = []
        for name in RULES:
            with rule(name):
                found = [groups_wrong(problem, kind, steps, seed) for seed in range(seeds)]
            wrong, clear, distance = zip(*found, strict=True)
            cells.append(f"{spread_of(wrong)} / {spread_of(clear)}; {max(distance):.3f}")
        print(problem.name, kind, cells, flush=True)
        rows.append([kind, *cells])
    title = (
        f"### {problem.name}\n\n{lives} of {problem.shape[1]} groups are not 0; "
        f"{int(margin.sum())} have a margin. Noise over λ: {noise:.1f}. {steps} steps; seeds: "
        f"{seeds}.\n\n"
    )
    return title + table(["optimizer", *RULES], rows)


def spread_of(values: Sequence[float]) -> str:
    """The mean, and the least and the most where they differ from it."""
    mean, least, most = (f"{each:.1f}" for each in (np.mean(values), min(values), max(values)))
    return mean if least == most else f"{mean} ({least}–{most})"
