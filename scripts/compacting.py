"""Train a network by group lasso at several strengths, compact each, and write what that saves
into docs/compacting.md, with its picture: ``make compacting``.

Nothing here is asserted: the tests have what must hold. It takes about two minutes on one core.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import NamedTuple

import torch
from documents import DOCS, read, with_part
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

from penalize import GroupLasso
from penalize.demo.data import digits
from penalize.demo.smaller import time_ratio
from penalize.torch import Compacted, compact, regularize

PAGE, PICTURE = DOCS / "compacting.md", DOCS / "compacting.png"
STRENGTHS = (3e-4, 6e-4, 1e-3, 2e-3, 4e-3, 8e-3)
EPOCHS, BATCH, RATE = 30, 64, 2e-3


class Images(NamedTuple):
    """The digits as images of one channel."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


def images() -> Images:
    """Those of the demo, and its split."""
    found = digits()
    x, x_test = (part.reshape(-1, 1, 8, 8) for part in (found.train_images, found.test_images))
    return Images(x, found.train_labels, x_test, found.test_labels)


def network(seed: int = 0) -> nn.Sequential:
    """Two convolutions without padding, and a linear layer; the start that the seed gives."""
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(64 * 16, 10)),
    )


def trained(data: Images, strength: float | None) -> nn.Module:
    """The network, trained by Adam, with whole channels as groups; None: without a penalty."""
    model, steps = network(), EPOCHS * -(-len(data.x) // BATCH)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    if strength is not None:
        rules = {layer: GroupLasso(strength, groups="outputs") for layer in ("0", "2")}
        regularize(model, rules).attach(optimizer, mode="halfspace", average=0.99)
    falling = LambdaLR(optimizer, lambda step: 1 - step / steps)
    order = torch.Generator().manual_seed(0)
    for _ in range(EPOCHS):
        for i in torch.randperm(len(data.x), generator=order).split(BATCH):
            optimizer.zero_grad()
            cross_entropy(model(data.x[i]), data.y[i]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            falling.step()
    return model.eval()


def accuracy(model: nn.Module, data: Images) -> float:
    """The share of test images that are predicted right."""
    with torch.no_grad():
        return float((model(data.x_test).argmax(1) == data.y_test).double().mean())


def without_constants(model: nn.Module) -> nn.Module:
    """The network where channels of zeros are dropped, and with them what their biases added."""
    found = copy.deepcopy(model)
    for layer in found.modules():
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            with torch.no_grad():
                layer.bias[~layer.weight.flatten(1).any(1)] = 0.0
    return found


class Point(NamedTuple):
    """What one strength leaves."""

    strength: float
    before: float
    after: float
    naive: float
    found: Compacted
    time: float

    @property
    def left(self) -> str:
        """The channels of both convolutions that are left."""
        return " + ".join(str(row.after) for row in list(self.found)[:2])

    @property
    def cells(self) -> list[str]:
        """Its row of the table."""
        (p, q), (f, g) = self.found.parameters, self.found.operations
        return [
            f"{self.strength:g}",
            *(f"{100 * share:.1f} %" for share in (self.before, self.after, self.naive)),
            self.left,
            f"{q:,} ({q / p:.1%})",
            f"{g / f:.1%}",
            f"{self.time:.2f}",
        ]


HEADER = (
    *("λ", "accuracy", "compacted", "dropped alone", "channels left", "parameters"),
    *("operations", "time"),
)


def point(data: Images, strength: float) -> Point:
    """One strength: trained, compacted, measured."""
    model = trained(data, strength)
    found = compact(model, data.x_test)
    return Point(
        strength,
        accuracy(model, data),
        accuracy(found.model, data),
        accuracy(without_constants(model), data),
        found,
        time_ratio(found.model, model, data.x_test),
    )


def table(points: list[Point]) -> str:
    """In Markdown."""
    lines = [HEADER, ["---:"] * len(HEADER), *(each.cells for each in points)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(points: list[Point], without: float) -> None:
    """Accuracy against time, with what is left of 32 + 64 channels."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 4.2))
    grey, blue = "#6e6e6e", "#0072B2"
    axes.axhline(100 * without, color=grey, linewidth=1, linestyle="--")
    axes.text(0.02, 100 * without + 0.08, "no penalty: 32 + 64 channels", color=grey)
    times, accuracies = [p.time for p in points], [100 * p.after for p in points]
    axes.plot(times, accuracies, color=blue, linewidth=0.8, alpha=0.3)
    axes.plot(times, accuracies, "o", color=blue)
    for p in points:
        place = (p.time + 0.02, 100 * p.after)
        axes.annotate(
            f"{p.left}  (λ = {p.strength:g})", place, va="center", fontsize=8.5,
            bbox={"color": "white", "alpha": 0.8, "pad": 1},
        )  # fmt: skip
    axes.axvline(1, color=grey, linewidth=0.6, linestyle=":")
    axes.set_xlim(0, 1.35)
    axes.margins(y=0.1)
    axes.set_xlabel("time for a batch, over that of the network before it is compacted")
    axes.set_ylabel("test accuracy, %")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(PICTURE, dpi=150)


def main() -> None:
    """Measure, and write the page."""
    torch.set_num_threads(1)
    data = images()
    without = accuracy(trained(data, None), data)
    points = []
    for strength in STRENGTHS:
        points.append(point(data, strength))
        print(*points[-1].cells, flush=True)
    draw(points, without)
    told = f"Without a penalty the accuracy is {100 * without:.1f} %."
    text = with_part(read(PAGE), "compacting", f"{table(points)}\n\n{told}")
    Path(PAGE).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
