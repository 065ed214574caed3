"""A bar in a terminal or notebook, if rich is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(what: str, total: int, *, shown: bool) -> Iterator[Callable[[int, str], None]]:
    """A progress bar, and what moves it on and says what was found last."""
    try:
        from rich.console import Console
        from rich.progress import Progress as Bar
        from rich.progress import ProgressColumn
    except ImportError:
        shown = False
    console = Console(stderr=True) if shown else None
    if console is None or not (console.is_terminal or console.is_jupyter):
        yield lambda *_: None
        return
    columns: list[str | ProgressColumn] = [*Bar.get_default_columns(), "{task.fields[now]}"]
    with Bar(*columns, console=console, transient=True) as shown_bar:
        task = shown_bar.add_task(what, total=total, now="")
        yield lambda count, now: shown_bar.update(task, advance=count, now=now)
