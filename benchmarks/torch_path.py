"""What training many strengths side by side saves: 20 strengths × 5 folds of a network on digits.

The same path stacked, and one by one from the same start, in turns within this process. Prints a
page and writes it beside this file.
"""

from __future__ import annotations

import statistics
from functools import partial

import torch
from sklearn.datasets import load_digits
from timing import Work, interleaved, machine, ratios, shown, table, write
from torch import nn

from penalize import L1, GroupLasso, Regularizer
from penalize.torch import Path, Training, path, regularize

STRENGTHS, FOLDS, EPOCHS, TURNS = 20, 5, 5, 3
REGULARIZERS: dict[str, Regularizer] = {
    "L1": L1(1.0),
    "group lasso": GroupLasso(1.0, groups="inputs"),
}


def training(dtype: torch.dtype) -> Training:
    x, y = load_digits(return_X_y=True)
    return Training(
        x=torch.tensor(x / 16, dtype=dtype),
        y=torch.tensor(y),
        loss=nn.CrossEntropyLoss(),
        optimizer=partial(torch.optim.Adam, lr=3e-3),
        epochs=EPOCHS,
        batch_size=64,
    )


def network(dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).to(dtype)


def compared(name: str, dtype: torch.dtype) -> list[str]:
    fit = training(dtype)
    plan = regularize(network(dtype), REGULARIZERS[name])
    found: dict[str, Path] = {}

    def made(key: str, *, stacked: bool) -> None:
        settings = {"stacked": stacked, "warm": False, "refit": False, "progress": False}
        found[key] = path(fit, plan, STRENGTHS, FOLDS, **settings)  # type: ignore[arg-type]

    works = {
        "stacked": Work(partial(made, "stacked", stacked=True)),
        "alone": Work(partial(made, "alone", stacked=False)),
    }
    taken = interleaved(works, TURNS)
    pairs = list(zip(found["stacked"].rows, found["alone"].rows, strict=True))
    losses = max(abs(a.loss - b.loss) for a, b in pairs)
    norms = max(abs(a.norm - b.norm) / max(b.norm, 1e-12) for a, b in pairs)
    counts = sum(a.nonzero != b.nonzero for a, b in pairs)
    seconds = [f"{statistics.median(taken[key]):.1f}" for key in ("stacked", "alone")]
    faster = shown(ratios(taken["alone"], taken["stacked"]), 1)
    kind = str(dtype).removeprefix("torch.")
    return [name, kind, *seconds, faster, f"{losses:.1e}", f"{norms:.1e}", f"{counts}"]


def main() -> None:
    rows = [compared(name, torch.float32) for name in REGULARIZERS]
    rows.append(compared("L1", torch.float64))
    header = ["penalty", "dtype", "stacked, s", "one by one, s", "times faster"]
    header += ["losses apart", "norms apart, relative", "runs with other zeros"]
    lines = [
        "# A path, stacked and one by one",
        "",
        f"{STRENGTHS} strengths × {FOLDS} folds of a network (64–32–10) on scikit-learn's digits,",
        f"{EPOCHS} epochs of Adam in batches of 64, proximal steps: {STRENGTHS * FOLDS} runs from",
        f"one start. Written by `make bench`; {TURNS} turns each, in one process.",
        "",
        *table(header, rows),
        "",
        f"{machine()}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads.",
    ]
    write("torch_path.md", lines)


if __name__ == "__main__":
    main()
