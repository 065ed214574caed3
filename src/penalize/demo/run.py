"""The demo from start to end: train, show, write."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from penalize.demo import picture, report
from penalize.demo.contenders import CONTENDERS
from penalize.demo.data import Digits, digits
from penalize.demo.measure import DemoRow, measure
from penalize.demo.training import Trained, train


def run(
    output: Path, *, epochs: int = 100, seed: int = 0, console: Console | None = None
) -> list[Trained]:
    """Train every contender, print plan and table, and write ``digits.{png,md,json}``.

    Args:
        output: a directory that exists.
        epochs: passes over the training images, for each contender.
        seed: of the initial weights and the order of the batches, the same for every contender.
        console: where to print; standard output if None.
    """
    console = console or Console()
    data = digits()
    runs = _train_all(data, epochs, seed, console)
    rows = [measure(trained, data) for trained in runs]
    _show(runs[-1], rows, console)
    content = report.data(rows, runs, epochs=epochs, seed=seed)
    files = [output / f"digits.{kind}" for kind in ("png", "md", "json")]
    picture.write(files[0], runs, rows)
    files[1].write_text(report.markdown(rows), encoding="utf-8")
    files[2].write_text(report.as_json(content), encoding="utf-8")
    for file in files:
        console.print(f"wrote {file}", soft_wrap=True, markup=False, highlight=False)
    return runs


def _show(last: Trained, rows: Sequence[DemoRow], console: Console) -> None:
    console.print(f"The plan of the model '{last.contender.name}':", highlight=False)
    # The plan lays out its own columns; wrapping would take them apart.
    console.print(str(last.plan), soft_wrap=True, markup=False, highlight=False)
    console.print(report.table(rows))


def _train_all(data: Digits, epochs: int, seed: int, console: Console) -> list[Trained]:
    columns = (TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn())
    runs = []
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        for contender in CONTENDERS:
            task = progress.add_task(contender.name, total=epochs)
            advance = partial(progress.advance, task)
            runs.append(train(contender, data, epochs=epochs, seed=seed, after_epoch=advance))
    return runs
