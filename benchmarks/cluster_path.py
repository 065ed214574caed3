"""What two workers save: 100 runs of a path in one process, and in two of joblib, Dask and Ray.

All are up before, have imported PyTorch, and have one thread each; the order changes from turn to
turn. Prints a page and writes it beside this file.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import joblib
import ray
import torch
from distributed import Client, LocalCluster
from ray.util.joblib import register_ray
from sklearn.datasets import load_digits
from timing import Work, interleaved, machine, ratios, shown, table, write
from torch import nn

from penalize import L1
from penalize.torch import Path, Training, path, regularize

STRENGTHS, FOLDS, EPOCHS, TURNS = 20, 5, 10, 4


def training() -> Training:
    x, y = load_digits(return_X_y=True)
    return Training(
        x=torch.tensor(x / 16, dtype=torch.float32),
        y=torch.tensor(y),
        loss=nn.CrossEntropyLoss(),
        optimizer=partial(torch.optim.Adam, lr=3e-3),
        epochs=EPOCHS,
        batch_size=64,
    )


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


@contextmanager
def clusters() -> Iterator[dict[str, Any]]:
    """Two workers of each; and what names them to joblib."""
    with ExitStack() as stack:
        workers = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
        client = stack.enter_context(Client(stack.enter_context(workers)))
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=50)
        stack.callback(ray.shutdown)
        register_ray()
        yield {
            "two processes of joblib": {"backend": "loky", "inner_max_num_threads": 1},
            "two workers of Dask": {"backend": "dask", "client": client},
            "two workers of Ray": {"backend": "ray"},
        }


def main() -> None:
    torch.set_num_threads(1)
    fit, plan = training(), regularize(network(), L1(1.0))
    settings: dict[str, Any] = {"warm": False, "refit": False, "progress": False}
    found: dict[str, Path] = {}

    def alone() -> None:
        found["one process"] = path(fit, plan, STRENGTHS, FOLDS, stacked=False, **settings)

    def stacked() -> None:
        found["one process, stacked"] = path(fit, plan, STRENGTHS, FOLDS, **settings)

    def spread(name: str, how: dict[str, Any]) -> None:
        with joblib.parallel_config(**how):
            found[name] = path(fit, plan, STRENGTHS, FOLDS, stacked=False, jobs=2, **settings)

    with clusters() as named:
        works = {name: Work(partial(spread, name, how)) for name, how in named.items()}
        works |= {"one process": Work(alone), "one process, stacked": Work(stacked)}
        taken = interleaved(works, TURNS)
    rows = []
    for name in ("one process", *named, "one process, stacked"):
        pairs = list(zip(found[name].rows, found["one process"].rows, strict=True))
        same = sum(a.loss == b.loss and a.nonzero == b.nonzero for a, b in pairs)
        apart = max(abs(a.loss - b.loss) for a, b in pairs)
        faster = shown(ratios(taken["one process"], taken[name]))
        seconds = f"{statistics.median(taken[name]):.1f}"
        rows.append([name, seconds, faster, f"{same} of {len(pairs)}", f"{apart:.1e}"])
    header = ["100 runs in", "s", "times faster", "equal to the last bit", "losses apart"]
    lines = [
        "# A path on two workers",
        "",
        f"{STRENGTHS} strengths × {FOLDS} folds of a network (64–32–10) on scikit-learn's digits,",
        f"{EPOCHS} epochs of Adam in batches of 64, proximal steps, each from the same start. All",
        f"workers are on this machine, one thread each. {TURNS} turns; medians and quartiles of",
        "the ratios within a turn. Written by `make bench`.",
        "",
        *table(header, rows),
        "",
        f"{machine()}, PyTorch {torch.__version__}, joblib {joblib.__version__}, "
        f"Ray {ray.__version__}.",
    ]
    write("cluster_path.md", lines)


if __name__ == "__main__":
    main()
