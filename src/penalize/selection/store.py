"""The results file: rows and weights of a path, written as they come, in SQLite.

Each unit of work is one transaction: after a kill the file has all of it or nothing. Every record
has a checksum, and a seal over all of them tells whether one is missing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path as File
from typing import Any, NamedTuple

from penalize.errors import PenalizeError, ResultsError
from penalize.selection.arrays import Arrays, State
from penalize.selection.encoding import decoded, encoded

APPLICATION = 0x70656E61  # "pena"
VERSION = 2
PATIENCE = 5.0
"""The seconds to wait for another process that has the file locked."""

_HEAD = 100
"""Bytes of the header of an SQLite file."""

_TABLES = (
    """CREATE TABLE record (kind TEXT, name TEXT, place INTEGER, data BLOB NOT NULL,
       checksum BLOB NOT NULL, PRIMARY KEY (kind, name, place))""",
    "CREATE TABLE seal (checksum BLOB NOT NULL)",
)

Done = tuple[int, str, Mapping[str, Any], State | None]
"""(place of the strength, fold, record, weights to be kept)."""


class Key(NamedTuple):
    """The name of a record: of what kind, of which fold, at which strength."""

    kind: str
    name: str = ""
    place: int = 0


_ABOUT = Key("about")


class Store:
    """The rows and weights of a path; in a file, or in memory where there is no path to one.

    Args:
        path: the file, which is made if it is not there.
        about: what the results are of. A file of something else is refused.
        arrays: what weights are.

    Raises:
        ResultsError: the file is no results file, or of another version, is damaged, is locked by
            another process, is of something else, or cannot be written. It is left as it is.
    """

    def __init__(self, path: File | None, about: Mapping[str, Any], arrays: Arrays) -> None:
        # As a file would give it back: tuples become lists.
        about = json.loads(json.dumps({**about, "byte order": sys.byteorder}, default=repr))
        self.path = path
        self._arrays = arrays
        self._kept_at = time.monotonic()
        is_new = path is None or not path.exists() or path.stat().st_size == 0
        if path is not None and not is_new:
            _check_kind(path)
        if path is not None and not path.parent.is_dir():
            raise ResultsError(path, "is in a folder that does not exist", "make it first")
        with contextlib.ExitStack() as stack:
            with self._said():
                target = ":memory:" if path is None else path
                self._connection = sqlite3.connect(target, timeout=PATIENCE)
            stack.callback(self._connection.close)
            if is_new:
                self._begin(about)
            self._check(about)
            stack.pop_all()

    def _begin(self, about: Mapping[str, Any]) -> None:
        # One transaction: a file that is killed here is empty, and is begun again.
        with self._said(), self._transaction() as connection:
            (found,) = connection.execute("PRAGMA application_id").fetchone()
            if found == APPLICATION:  # another process was faster
                return
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {VERSION}")
            for table in _TABLES:
                connection.execute(table)
            self._put(_ABOUT, json.dumps(about).encode())

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._connection as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("DELETE FROM seal")
            connection.execute("INSERT INTO seal VALUES (?)", (self._seal(),))

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        """A block in which whatever SQLite and damaged contents raise becomes a sentence."""
        try:
            yield
        except PenalizeError:
            raise
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            found, instead = _SENTENCES.get(code, _DAMAGED)
            raise ResultsError(self.path, found.format(error), instead) from None
        except (ValueError, KeyError, TypeError, RuntimeError, MemoryError) as error:
            raise ResultsError(self.path, _DAMAGED[0].format(error), _DAMAGED[1]) from None

    def _check(self, about: Mapping[str, Any]) -> None:
        with self._said():
            (verdict,) = self._connection.execute("PRAGMA integrity_check").fetchone()
            if verdict != "ok":
                raise ValueError(verdict.partition("\n")[0])
            for each in self._connection.execute("SELECT * FROM record"):
                _sound(each)
            (seal,) = self._connection.execute("SELECT checksum FROM seal").fetchone()
            if seal != self._seal():
                raise ValueError("a record is missing")
            known = json.loads(self._get(_ABOUT) or b"")
        if told := differences(known, about):
            raise ResultsError(self.path, f"has the results of something else ({told})", _ELSEWHERE)

    # --- records ----------------------------------------------------------------------------

    def _put(self, key: Key, data: bytes) -> None:
        values = (*key, data, _checksum(key, data))
        self._connection.execute("INSERT INTO record VALUES (?, ?, ?, ?, ?)", values)

    def _drop(self, kind: str, name: str) -> None:
        self._connection.execute("DELETE FROM record WHERE kind = ? AND name = ?", (kind, name))

    def _get(self, key: Key) -> bytes | None:
        found = self._connection.execute(f"{_SELECT} AND name = ? AND place = ?", key).fetchone()
        return None if found is None else _sound(found)

    def _seal(self) -> bytes:
        found = self._connection.execute(
            "SELECT kind, name, place, checksum FROM record ORDER BY kind, name, place"
        )
        return hashlib.sha256(repr(found.fetchall()).encode()).digest()

    # --- what is done -----------------------------------------------------------------------

    def rows(self) -> dict[tuple[int, str], dict[str, Any]]:
        """The records by place and fold."""
        with self._said():
            found = self._connection.execute(_SELECT, ("row",)).fetchall()
            return {(each[2], each[1]): json.loads(_sound(each)) for each in found}

    def weights(self, fold: str, place: int | None = None) -> State | None:
        """The weights that a fold ended with at a strength, or at the last one that is known."""
        with self._said():
            if place is None:
                ask = "SELECT MAX(place) FROM record WHERE kind = 'weights' AND name = ?"
                (place,) = self._connection.execute(ask, (fold,)).fetchone()
            data = None if place is None else self._get(Key("weights", fold, place))
            return None if data is None else decoded(data, self._arrays)

    def add(self, done: Iterable[Done], *, key: str = "", keep_all: str = "") -> None:
        """Write what was done, and drop its progress.

        Args:
            done: the rows.
            key: that of the progress.
            keep_all: the fold of which the weights at every strength are kept; of the others the
                last ones are.
        """
        with self._said(), self._transaction():
            for place, fold, record, weights in done:
                self._put(Key("row", fold, place), json.dumps(record).encode())
                if weights is None:
                    continue
                if fold != keep_all:
                    self._drop("weights", fold)
                self._put(Key("weights", fold, place), encoded(weights, self._arrays))
            self._drop("progress", key)

    # --- on the way -------------------------------------------------------------------------

    def progress(self, key: str) -> Any:
        """The state that was kept under a key, or None."""
        with self._said():
            data = self._get(Key("progress", key))
            return None if data is None else decoded(data, self._arrays)

    def keep(self, key: str, state: Callable[[], Any], every: float) -> None:
        """Keep a state, if the last one is ``every`` seconds old."""
        if self.path is None or time.monotonic() - self._kept_at < every:
            return
        data = encoded(state(), self._arrays)
        with self._said(), self._transaction():
            self._drop("progress", key)
            self._put(Key("progress", key), data)
        self._kept_at = time.monotonic()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


_SELECT = "SELECT * FROM record WHERE kind = ?"

_ELSEWHERE = "name another file, or move this one away"
_DAMAGED = "is damaged ({})", _ELSEWHERE
_LOCKED = "is locked by another process ({})", "wait until that has ended, or name another file"
_NOT_WRITTEN = (
    "cannot be written ({})",
    "see whether another path writes there, and whether there is room",
)
_SENTENCES = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    **dict.fromkeys(
        (
            sqlite3.SQLITE_CANTOPEN,
            sqlite3.SQLITE_CONSTRAINT,
            sqlite3.SQLITE_FULL,
            sqlite3.SQLITE_IOERR,
            sqlite3.SQLITE_PERM,
            sqlite3.SQLITE_READONLY,
        ),
        _NOT_WRITTEN,
    ),
}


def _check_kind(path: File) -> None:
    """The check of its first bytes, without touching it."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise ResultsError(path, f"cannot be read ({error.strerror})", _ELSEWHERE) from None
    if not head.startswith(b"SQLite format 3\0"):
        raise ResultsError(path, "is no results file", _ELSEWHERE)
    if int.from_bytes(head[68:72], "big") != APPLICATION:
        raise ResultsError(path, "is a database of something else", _ELSEWHERE)
    version = int.from_bytes(head[60:64], "big") or 1
    if version != VERSION:
        age, way_out = (
            ("a newer", "update penalize")
            if version > VERSION
            else ("an older", "end it with that")
        )
        raise ResultsError(
            path,
            f"was written by {age} penalize (its version is {version}, and {VERSION} is read here)",
            f"{way_out}, or name another file",
        )


def _checksum(key: Key, data: bytes) -> bytes:
    return hashlib.sha256(repr(tuple(key)).encode() + data).digest()


def _sound(record: tuple[Any, ...]) -> bytes:
    """The data of a record whose checksum is right. Raises :class:`ValueError`."""
    key, data, checksum = Key(*record[:3]), record[3], record[4]
    if _checksum(key, data) != checksum:
        raise ValueError(f"{' '.join(map(str, key))!r} has another checksum")
    return bytes(data)


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What differs between two descriptions; empty where nothing does."""
    return "; ".join(
        f"{key} {_short(there.get(key))} there and {_short(here.get(key))} here"
        for key in {**here, **there}
        if there.get(key) != here.get(key)
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
