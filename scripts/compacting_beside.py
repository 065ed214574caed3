"""Compare group lasso and ``compact`` with torch-pruning's recipes on the same network and data, at
the same size and time of training, and write that into docs/compacting.md: ``make compacting``.

torch-pruning is installed into a folder of its own, for this run. Nothing here is asserted. It
takes about ten minutes on one core.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from compacting import BATCH, PAGE, RATE, Images, accuracy, images, network
from documents import read, with_part
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from penalize import GroupLasso
from penalize.demo.smaller import time_ratio
from penalize.torch import compact, regularize

TORCH_PRUNING = "torch-pruning==1.6.1"
STRENGTHS, SEEDS = (1e-3, 4e-3, 8e-3), range(5)
BEFORE, AFTER = 20, 10
"""Epochs before a network becomes smaller, and after that."""


def train(
    model: nn.Module,
    optimizer: Optimizer,
    data: Images,
    epochs: range,
    seed: int,
    *,
    after_backward: Callable[[], None] = lambda: None,
    each_epoch: Callable[[], None] = lambda: None,
) -> None:
    """A part of all epochs, with a rate that falls to 0 at the end of the last one."""
    steps = -(-len(data.x) // BATCH)
    total, first = (BEFORE + AFTER) * steps, epochs.start * steps
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] = RATE
    falling = LambdaLR(optimizer, lambda step: 1 - (first + step) / total)
    for epoch in epochs:
        each_epoch()
        order = torch.Generator().manual_seed(1000 * seed + epoch)
        for i in torch.randperm(len(data.x), generator=order).split(BATCH):
            optimizer.zero_grad()
            cross_entropy(model(data.x[i]), data.y[i]).backward()  # type: ignore[no-untyped-call]
            after_backward()
            optimizer.step()
            falling.step()


FIRST, SECOND = range(BEFORE), range(BEFORE, BEFORE + AFTER)


def by_group_lasso(data: Images, seed: int, strength: float) -> nn.Module:
    """Penalized, compacted, and trained on without a penalty, with the state of the optimizer."""
    model = network(seed)
    optimizer = Adam(model.parameters(), lr=RATE)
    rules = {layer: GroupLasso(strength, groups="outputs") for layer in ("0", "2")}
    attachment = regularize(model, rules).attach(optimizer, mode="halfspace", average=0.99)
    train(model, optimizer, data, FIRST, seed)
    attachment.detach()
    found = compact(model.eval(), data.x_test, optimizer=optimizer)
    assert found.optimizer is not None
    train(found.model, found.optimizer, data, SECOND, seed)
    return found.model


def by_torch_pruning(data: Images, seed: int, channels: int, reg: float | None) -> nn.Module:
    """As its README does it: a pruner of group norms, one ratio for all layers, and fine-tuning.

    Args:
        data: the images.
        seed: of the start, and of the batches.
        channels: of the first layer that are left; twice as many are of the second.
        reg: of ``GroupNormPruner``, which trains for sparsity; None: ``BasePruner``.
    """
    import torch_pruning as tp

    model = network(seed)
    kind: Any = tp.pruner.BasePruner if reg is None else tp.pruner.GroupNormPruner
    pruner = kind(
        model,
        data.x_test[:1],
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=1 - channels / 32,
        ignored_layers=[model[-1]],
        **({} if reg is None else {"reg": reg}),
    )
    optimizer = Adam(model.parameters(), lr=RATE)
    if reg is None:
        train(model, optimizer, data, FIRST, seed)
    else:
        train(
            *(model, optimizer, data, FIRST, seed),
            after_backward=lambda: pruner.regularize(model),
            each_epoch=pruner.update_regularizer,
        )
    pruner.step()
    train(model, Adam(model.parameters(), lr=RATE), data, SECOND, seed)
    return model


def parameters(model: nn.Module) -> int:
    """How many numbers its parameters are."""
    return sum(p.numel() for p in model.parameters())


def channels_of(size: int) -> int:
    """With how many channels in the first layer, and twice as many in the second, a network is
    nearest to that size.
    """

    def size_of(a: int) -> int:
        b = 2 * a
        return 10 * a + (9 * a + 1) * b + (16 * b + 1) * 10

    return min(range(1, 33), key=lambda a: abs(size_of(a) - size))


class Result(NamedTuple):
    """What one way leaves, over all seeds."""

    way: str
    models: list[nn.Module]
    seconds: float
    """Of the processor, for all of their training."""

    def cells(self, data: Images) -> list[str]:
        """Its row of the table."""
        shares = [100 * accuracy(model, data) for model in self.models]
        sizes = [parameters(model) for model in self.models]
        kept = [[len(model.get_parameter(f"{i}.weight")) for model in self.models] for i in (0, 2)]
        work = statistics.fmean(map(operations, self.models)) / operations(network())
        times = [time_ratio(model, network(0), data.x_test) for model in self.models]
        return [
            self.way,
            f"{statistics.fmean(shares):.1f} ± {statistics.stdev(shares):.1f} %",
            " + ".join(f"{statistics.fmean(each):.0f}" for each in kept),
            f"{statistics.fmean(sizes):,.0f}",
            f"{100 * work:.1f} %",
            f"{statistics.median(times):.2f}",
            f"{self.seconds / len(self.models):.1f} s",
        ]


def operations(model: nn.Module) -> int:
    """Floating-point operations for an image."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 1, 8, 8))
    return int(counter.get_total_flops())


HEADER = ("", "accuracy", "channels", "parameters", "operations", "time", "training")


def made(way: str, make: Callable[[int], nn.Module]) -> Result:
    """What a way makes of each seed."""
    start = time.process_time()
    models = [make(seed) for seed in SEEDS]
    return Result(way, models, time.process_time() - start)


def results(data: Images, strength: float) -> list[Result]:
    """All ways, at the sizes that group lasso of one strength has found."""
    ours = made(
        f"group lasso, λ = {strength:g}, and `compact`",
        lambda seed: by_group_lasso(data, seed, strength),
    )
    sizes = [channels_of(parameters(model)) for model in ours.models]

    def theirs(reg: float | None) -> Result:
        name = "BasePruner`" if reg is None else f"GroupNormPruner`, reg = {reg:g}"
        return made(
            f"torch-pruning, `{name}", lambda seed: by_torch_pruning(data, seed, sizes[seed], reg)
        )

    sparse = [theirs(reg) for reg in (1e-4, 1e-3, 1e-2)]
    best = max(sparse, key=lambda each: sum(accuracy(model, data) for model in each.models))
    return [ours, theirs(None), best]


def installed(folder: str) -> None:
    """Have torch-pruning in this process."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
    subprocess.run([*pip, TORCH_PRUNING], check=True)
    sys.path.insert(0, folder)


def main() -> None:
    """Measure, and write the page."""
    torch.set_num_threads(1)
    data, lines = images(), [list(HEADER), ["---", *["---:"] * 6]]
    with tempfile.TemporaryDirectory() as folder:
        installed(folder)
        for strength in STRENGTHS:
            for each in results(data, strength):
                lines.append(each.cells(data))
                print(*lines[-1], flush=True)
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    Path(PAGE).write_text(with_part(read(PAGE), "beside torch-pruning", table), "utf-8")


if __name__ == "__main__":
    main()
