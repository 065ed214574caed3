"""Measure half-space steps, and write docs/halfspace.md with its picture: ``make halfspace``.

Nothing here is asserted: the tests have what must hold. It takes about half an hour on two cores.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits
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

from penalize import L1, L2, GroupLasso, PenalizeError, Regularizer
from penalize.backends import Array
from penalize.demo.contenders import Contender
from penalize.demo.data import digits
from penalize.demo.measure import measure
from penalize.demo.training import train as train_network
from penalize.halfspace import HalfSpace, Memory
from penalize.regularizers.groups import norms_of
from penalize.regularizers.least_norm import spread
from penalize.torch import regularize

ROOT = Path(__file__).parent.parent
PAGE, PICTURE = ROOT / "docs" / "halfspace.md", ROOT / "docs" / "halfspace.png"
MARK = "<!-- {}: measured -->"

Make = Callable[[Any], Optimizer]


class Lion(Optimizer):
    """Signs of a momentum (Chen et al., Symbolic discovery of optimization algorithms, 2023)."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                p.sub_(torch.sign(0.9 * m + 0.1 * p.grad), alpha=group["lr"])
                m.mul_(0.99).add_(p.grad, alpha=0.01)


class Shampoo(Optimizer):
    """A preconditioner that is a full matrix, of the columns (Gupta, Koren and Singer, 2018)."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                held = self.state[p].setdefault("c", 1e-6 * torch.eye(p.shape[1], dtype=p.dtype))
                held.mul_(0.99).add_(p.grad.T @ p.grad, alpha=0.01)
                values, vectors = torch.linalg.eigh(held)
                root = vectors @ torch.diag(values.clamp_min(1e-12) ** -0.5) @ vectors.T
                p.sub_(p.grad @ root, alpha=group["lr"])


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


def _scaled(x: np.ndarray) -> np.ndarray:
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
        torch.tensor(_scaled(x)), torch.tensor(_scaled(y)), lambda p, y: p - y, 0.1, 0.0, 1.0
    )
    x, y = load_breast_cancer(return_X_y=True)
    logistic = Problem(
        torch.tensor(_scaled(x)),
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
    name: str, make: Make, way: Mapping[str, Any], steps: int, *, whole: bool
) -> Outcome | str:
    """All runs at once: the rows of one matrix, or matrices of one row; or why it is refused."""
    problem, expected = problems()[name], solved(name)
    d, runs = problem.x.shape[1], SEEDS * len(BATCHES)
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
        examples = [torch.randint(0, len(problem.x), (SEEDS, n), generator=random) for n in BATCHES]
        parts = zip(w.split(SEEDS), examples, strict=True)  # type: ignore[no-untyped-call]
        g = torch.cat([_gradient(problem, *each) for each in parts])
        for p, part in zip(model, list(g) if whole else [g], strict=True):
            p.grad = part.reshape(p.shape).clone()
        optimizer.step()
        if step >= steps - 200:
            found = torch.cat([p.detach() for p in model])
            right += ((found == 0) == (expected == 0)).all(1)
    return Outcome(right / 200, (found - expected).abs().amax(1))


def _gradient(problem: Problem, w: Tensor, examples: Tensor) -> Tensor:
    """The gradient of each row, on its own examples."""
    x, y = problem.x[examples], problem.y[examples]
    slopes = problem.slope((x @ w[:, :, None])[..., 0], y)
    gradient: Tensor = (slopes[:, None] @ x)[:, 0] / examples.shape[1]
    return gradient


# --- groups -----------------------------------------------------------------------------------


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
    x, y = torch.tensor(_scaled(x / 16)), nn.functional.one_hot(torch.tensor(y)).double()

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
    """Within the block, groups are set to 0 by this rule."""
    ours = HalfSpace._gone

    def alone(self: HalfSpace, new: Array, side: Array, slope: Array, memory: Memory) -> Array:
        return ours(self, new, side, slope, memory._replace(moved=0 * memory.moved))

    reach: dict[Any, Tensor] = {}

    def near(self: HalfSpace, new: Array, side: Array, slope: Array, memory: Memory) -> Array:
        """‖ĝ‖ ≤ 0.9 λ, and within 30 moves of 0."""
        groups, size = self._kinks.sizes(self.w, self.xp)
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


# --- the page ---------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


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
        print(name, kind, found, flush=True)
        for number, size in enumerate(BATCHES):
            part = slice(number * SEEDS, (number + 1) * SEEDS)
            rows.append([kind, str(size), *(share(each, part) for each in found)])
    zeros = int((expected == 0).sum())
    title = f"### {name}: {zeros} of {len(expected)} coefficients are 0; {steps} steps\n\n"
    return title + table(["optimizer", "batch", *WAYS], rows)


def groups(problem: Groups, steps: int, seeds: int, kinds: Sequence[str] = ()) -> str:
    """The table of groups that are wrong, by optimizer and rule."""
    expected, margin, noise = solved_groups(problem)
    lives, rows = int((expected.norm(dim=0) > 0).sum()), []
    for kind in kinds or OF_GROUPS:
        cells = []
        for name in RULES:
            with rule(name):
                found = [groups_wrong(problem, kind, steps, seed) for seed in range(seeds)]
            wrong, clear, distance = np.mean(found, 0)
            cells.append(f"{wrong:.1f} / {clear:.1f} ({distance:.3f})")
        print(problem.name, noise, lives, kind, cells, flush=True)
        rows.append([kind, *cells])
    title = (
        f"### {problem.name}\n\n{lives} of {problem.shape[1]} groups are not 0; "
        f"{int(margin.sum())} have a margin. Noise over λ: {noise:.1f}. {steps} steps; seeds: "
        f"{seeds}.\n\n"
    )
    return title + table(["optimizer", *RULES], rows)


def picture(epochs: int) -> str:
    """Accuracy against zeros on the demo's network."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    data, rows = digits(), []
    figure, axes = pyplot.subplots(figsize=(6, 4))
    for mode in ("gradient", "proximal", "halfspace"):
        points = []
        for strength in (1e-4, 3e-4, 1e-3, 2e-3, 4e-3):
            runs = [
                measure(
                    train_network(
                        Contender(mode, L1(strength), mode), data, epochs=epochs, seed=seed
                    ),
                    data,
                )
                for seed in range(3)
            ]
            zeros = float(np.median([run.zeros_percent for run in runs]))
            accuracy = 100 * float(np.median([run.accuracy for run in runs]))
            points.append((zeros, accuracy))
            rows.append([f"`{mode}`", f"{strength:g}", f"{zeros:.1f} %", f"{accuracy:.1f} %"])
            print(rows[-1], flush=True)
        axes.plot(*zip(*points, strict=True), marker="o", label=mode)
    axes.set_xlabel("exact zeros in the kernels, %")
    axes.set_ylabel("accuracy on the test images, %")
    axes.legend()
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=110)
    return table(["mode", "λ", "zeros", "accuracy"], rows)


def replaced(page: str, part: str, text: str) -> str:
    """The page with one measured part of it anew."""
    begin, end = MARK.format(part), MARK.format(f"/{part}")
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{text.strip()}\n{end}{after}"


def main(arguments: Sequence[str]) -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help="those that are measured anew; all without")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--seeds", type=int, default=2, help="of the groups")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    steps, seeds = given.steps, given.seeds
    parts: dict[str, Callable[[], str]] = {
        "diabetes": lambda: mini_batches("diabetes", steps),
        "cancer": lambda: mini_batches("breast cancer", steps),
        "digits": lambda: groups(softmax(), steps, seeds),
        "outputs-64": lambda: groups(regression(64, 1.0), steps, seeds),
        "outputs-768": lambda: groups(
            regression(768, 3.0), steps, seeds, ("SGD, momentum", "Adam")
        ),
        "network": lambda: picture(30),
    }
    for name in given.parts or parts:
        text = parts[name]()
        PAGE.write_text(replaced(PAGE.read_text("utf-8"), name, text), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
