"""The demo from start to end: train, show, write."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from penalize.demo import picture, report
from penalize.demo.contenders import CONTENDERS
from penalize.demo.data import Digits, digits
from penalize.demo.measure import measure
from penalize.demo.smaller import smaller
from penalize.demo.training import Curves, Trained, train

RUNS = 5
"""Seeds of each contender: what one of them finds depends on the machine, too."""


def run(
    output: Path,
    *,
    epochs: int = 100,
    seed: int = 0,
    runs: int = RUNS,
    console: Console | None = None,
) -> list[list[Trained]]:
    """Train every contender, print plan and table, and write ``digits.{png,md,json}``.

    The networks of the last contender are compacted.

    Args:
        output: a directory that exists.
        epochs: passes over the training images, for each contender.
        seed: the first one, of the initial weights and the order of the batches, the same for every
            contender; the picture is of it. The others are those after it.
        runs: how many seeds: the table has their medians.
        console: where to print; standard output if None.

    Returns:
        The runs of each contender.
    """
    console = console or Console()
    data = digits()
    seeds = [(seed + i) % 2**64 for i in range(runs)]
    trained = _train_all(data, epochs, seeds, console)
    rows = [[measure(each, data) for each in runs_of] for runs_of in trained]
    compacted = [smaller(each, data) for each in trained[-1]]
    told = report.sentence(CONTENDERS[-1].name, compacted, len(data.test_images))
    _show(trained[-1][0], rows, console)
    console.print(told, highlight=False)
    content = report.data(rows, trained, compacted, epochs=epochs, seeds=seeds)
    files = [output / f"digits.{kind}" for kind in ("png", "md", "json")]
    picture.write(files[0], [each[0] for each in trained], [each[0] for each in rows])
    files[1].write_text(f"{report.markdown(rows)}\n{told}\n", encoding="utf-8")
    files[2].write_text(report.as_json(content), encoding="utf-8")
    for file in files:
        console.print(f"wrote {file}", soft_wrap=True, markup=False, highlight=False)
    return trained


def _show(last: Trained, rows: report.Rows, console: Console) -> None:
    console.print(f"The plan of the model '{last.contender.name}':", highlight=False)
    # The plan lays out its own columns; wrapping would take them apart.
    console.print(str(last.plan), soft_wrap=True, markup=False, highlight=False)
    console.print(report.table(rows))


def _train_all(
    data: Digits, epochs: int, seeds: Sequence[int], console: Console
) -> list[list[Trained]]:
    columns = (TextColumn("{task.description:<16}"), BarColumn(8), MofNCompleteColumn())
    numbers = TextColumn("{task.fields[now]}", style="dim")
    runs = []
    with Progress(*columns, numbers, TimeElapsedColumn(), console=console) as progress:
        for contender in CONTENDERS:
            task = progress.add_task(contender.name, total=epochs * len(seeds), now="")

            def advance(curves: Curves, task: TaskID = task) -> None:
                progress.update(task, advance=1, now=_now(curves))

            runs.append(
                [train(contender, data, epochs=epochs, seed=s, after_epoch=advance) for s in seeds]
            )
    return runs


def _now(curves: Curves) -> str:
    """The numbers of a run as it goes on, beside its bar."""
    loss, penalty, zeros = curves.data_loss[-1], curves.penalty[-1], curves.zeros[-1]
    return f"loss {loss:.4f} penalty {penalty:.4f} zeros {zeros:4.0%}"
