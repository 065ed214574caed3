"""The results file: rows and weights of a path, written as they come, in SQLite.

Each unit of work is one transaction: after a kill the file has all of it or nothing.
"""

from __future__ import annotations

import contextlib
import io
import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from penalize.errors import ResultsError

APPLICATION = 0x70656E61  # "pena"
VERSION = 1
_ELSEWHERE = "name another file, or move this one away"

_TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE row (place INTEGER, fold TEXT, record TEXT NOT NULL, PRIMARY KEY (place, fold));
CREATE TABLE weights (fold TEXT, place INTEGER, data BLOB NOT NULL, PRIMARY KEY (fold, place));
CREATE TABLE progress (key TEXT PRIMARY KEY, data BLOB NOT NULL);
"""

Done = tuple[int, str, Mapping[str, Any], Mapping[str, Tensor] | None]
"""(place of the strength, fold, record, weights to be kept)."""


class Store:
    """What is known of a path; in a file, or in memory where there is no path to one.

    Args:
        path: the file, which is made if it is not there.
        about: what the results are of. A file of something else is refused.

    Raises:
        ResultsError: the file is no results file, is damaged, is of something else, or cannot be
            written.
    """

    def __init__(self, path: Path | None, about: Mapping[str, Any]) -> None:
        # As a file would give it back: tuples become lists.
        about = json.loads(json.dumps({"version": VERSION, **about}, default=repr))
        self.path = path
        self._kept_at = time.monotonic()
        is_new = path is None or not path.exists() or path.stat().st_size == 0
        if path is not None and not is_new:
            _check_kind(path)
        if path is not None and not path.parent.is_dir():
            raise ResultsError(path, "is in a folder that does not exist", "make it first")
        with contextlib.ExitStack() as stack:
            with self._writing():
                self._connection = sqlite3.connect(":memory:" if path is None else path)
            stack.callback(self._connection.close)
            if is_new:
                self._begin(about)
            else:
                self._check(path, about)
            stack.pop_all()

    def _begin(self, about: Mapping[str, Any]) -> None:
        values = "".join(
            f"INSERT INTO about VALUES ({_quoted(key)}, {_quoted(json.dumps(value))});\n"
            for key, value in about.items()
        )
        # One transaction: a file that is killed here is empty, and is begun again.
        with self._writing():
            self._connection.executescript(
                f"BEGIN; PRAGMA application_id = {APPLICATION}; {_TABLES} {values} COMMIT;"
            )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """A file that cannot be written is said so: another path works at it, the disk is full."""
        try:
            yield
        except sqlite3.Error as error:
            raise ResultsError(
                self.path,
                f"cannot be written ({error})",
                "see whether another path writes there, and whether there is room",
            ) from None

    def _check(self, path: Any, about: Mapping[str, Any]) -> None:
        try:
            (verdict,) = self._connection.execute("PRAGMA integrity_check").fetchone()
            found = dict(self._connection.execute("SELECT key, value FROM about"))
            known = {key: json.loads(value) for key, value in found.items()}
        except (sqlite3.DatabaseError, ValueError) as error:
            raise ResultsError(path, f"is damaged ({error})", _ELSEWHERE) from None
        if verdict != "ok":
            raise ResultsError(path, f"is damaged ({verdict.partition(chr(10))[0]})", _ELSEWHERE)
        different = [key for key in {**about, **known} if known.get(key) != about.get(key)]
        if different:
            told = "; ".join(
                f"{key} {_short(known.get(key))} there and {_short(about.get(key))} here"
                for key in different
            )
            raise ResultsError(path, f"has the results of something else ({told})", _ELSEWHERE)

    def rows(self) -> dict[tuple[int, str], dict[str, Any]]:
        """The records by place and fold."""
        found = self._connection.execute("SELECT place, fold, record FROM row")
        return {(place, fold): json.loads(record) for place, fold, record in found}

    def weights(self, fold: str, place: int | None = None) -> dict[str, Tensor] | None:
        """Those that a fold ended with at a strength, or at the last one that is known."""
        last = "" if place is None else "AND place = ?"
        values = (fold,) if place is None else (fold, place)
        found = self._connection.execute(
            f"SELECT data FROM weights WHERE fold = ? {last} ORDER BY place DESC LIMIT 1", values
        ).fetchone()
        return None if found is None else _read(found[0])

    def add(self, done: Iterable[Done], *, key: str = "", keep_all: str = "") -> None:
        """Write what was done, and drop its progress.

        Args:
            done: the rows.
            key: that of the progress.
            keep_all: the fold of which the weights at every strength are kept; of the others the
                last ones are.
        """
        with self._writing(), self._connection as connection:
            for place, fold, record, weights in done:
                connection.execute(
                    "INSERT INTO row VALUES (?, ?, ?)", (place, fold, json.dumps(record))
                )
                if weights is None:
                    continue
                if fold != keep_all:
                    connection.execute("DELETE FROM weights WHERE fold = ?", (fold,))
                connection.execute(
                    "INSERT INTO weights VALUES (?, ?, ?)", (fold, place, _written(weights))
                )
            connection.execute("DELETE FROM progress WHERE key = ?", (key,))

    # --- on the way -------------------------------------------------------------------------

    def progress(self, key: str) -> Any:
        """What was kept under a key, or None."""
        found = self._connection.execute("SELECT data FROM progress WHERE key = ?", (key,))
        row = found.fetchone()
        return None if row is None else _read(row[0])

    def keep(self, key: str, state: Callable[[], Any], every: float) -> None:
        """Keep a state, if the last one is ``every`` seconds old."""
        if self.path is None or time.monotonic() - self._kept_at < every:
            return
        with self._writing(), self._connection as connection:
            connection.execute("REPLACE INTO progress VALUES (?, ?)", (key, _written(state())))
        self._kept_at = time.monotonic()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _check_kind(path: Path) -> None:
    """By its first bytes, without touching it."""
    try:
        with path.open("rb") as file:
            head = file.read(72)
    except OSError as error:
        raise ResultsError(path, f"cannot be read ({error.strerror})", _ELSEWHERE) from None
    if not head.startswith(b"SQLite format 3\0"):
        raise ResultsError(path, "is no results file", _ELSEWHERE)
    if int.from_bytes(head[68:72], "big") != APPLICATION:
        raise ResultsError(path, "is a database of something else", _ELSEWHERE)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _written(state: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _read(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), weights_only=True)
