"""The database of a study: opened, asked patiently, and what it refuses as a sentence."""

from __future__ import annotations

import re
import sqlite3
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import sqlalchemy
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError, SQLAlchemyError

from penalize.errors import MissingPackageError, PathError, ResultsError

HEARTBEAT, GRACE = 15, 60
"""The seconds between two signs of life of a trial, and those after which it is taken for dead."""

RETRIES = 3
"""How often a trial is begun again whose process has died."""

WAITS = (1, 2, 4, 8, 16)
"""The seconds between tries of a database that does not answer."""

RACES = (0.1, 0.2, 0.4)
"""The seconds between tries to make what another process is making."""

T = TypeVar("T")

_THERE_ALREADY = {"23505", "42710", "42P07"}
"""SQLSTATE of what another process has made meanwhile."""

_DISK_FULL = "53100"
"""That of PostgreSQL without room."""

_REACHED = "see whether the server runs, and that host, port, database, user and password are right"
_AGAIN = "see what is wrong there, and call tune again: trials that have ended are kept"
_ROOM = "make room, and call tune again: trials that have ended are kept"


class Database:
    """A storage that is asked for something: ``database(ask)`` gives what ``ask()`` gives.

    One that does not answer for a while is asked again, so that a server may be started anew.

    Args:
        storage: a URL; a storage of Optuna's; or None, for one in memory.
        what: what it is asked about, for messages.

    Raises:
        ResultsError: it cannot be reached, read or written. Passwords are not in the message.
    """

    def __init__(self, storage: Any, what: str) -> None:
        self.storage = storage
        self.place = f"{what} in {_shown(storage)}"

    def __call__(self, ask: Callable[[], T]) -> T:
        return self._tried(ask, WAITS, _passes, "cannot be read or written", _AGAIN)

    def at_first(self, ask: Callable[[], T]) -> T:
        """The same, when it is opened: tables and the study may be made by another process now."""
        return self._tried(ask, RACES, _is_race, "cannot be opened", _REACHED)

    def _tried(
        self,
        ask: Callable[[], T],
        waits: Sequence[float],
        again: Callable[[SQLAlchemyError], bool],
        found: str,
        instead: str,
    ) -> T:
        for wait in (*waits, None):
            try:
                return ask()
            except (SQLAlchemyError, StorageInternalError) as error:
                cause = _of_sqlalchemy(error)
                if wait is None or not again(cause):
                    raise self._refusal(cause, found, instead) from None
                time.sleep(wait)
        raise AssertionError("the last wait is None")

    def _refusal(self, error: Exception, found: str, instead: str) -> ResultsError:
        if _is_full(error):
            found, instead = "is full", _ROOM
        said = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        for secret in _secrets(self.storage):
            said = said.replace(secret, "***")
        return ResultsError(self.place, f"{found} ({said or type(error).__name__})", instead)

    def opened(self) -> Any:
        """Optuna's storage: as it was given, or of a URL, with signs of life.

        Raises:
            PathError: the URL is none.
            MissingPackageError: the driver of the database is not installed.
        """
        if not isinstance(self.storage, str):
            return self.storage
        try:
            url = sqlalchemy.make_url(self.storage)
            url.get_dialect()
        except ArgumentError:
            raise PathError(
                f"storage={_shown(self.storage)!r} is no URL of a database",
                'write "sqlite:///study.db", or "postgresql+psycopg://user@host/database"',
            ) from None
        try:
            return self.at_first(partial(_opened, url))
        except ImportError:
            driver = url.get_driver_name()
            extra = "postgresql" if driver == "psycopg" else ""
            raise MissingPackageError(driver, self.place, extra) from None

    def close(self, opened: Any) -> None:
        """Close the connections of a storage that was made here."""
        if isinstance(self.storage, str):
            opened.remove_session()
            opened.engine.dispose()


def _opened(url: sqlalchemy.URL) -> RDBStorage:
    text = url.render_as_string(hide_password=False)
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        return RDBStorage(text)  # which is another one in each thread
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return RDBStorage(
            text,
            {"pool_pre_ping": True},
            heartbeat_interval=HEARTBEAT,
            grace_period=GRACE,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(RETRIES),
        )


# --- what is shown ------------------------------------------------------------------------------


def _shown(storage: Any) -> str:
    """The storage, without passwords."""
    url = getattr(storage, "url", storage)
    if not isinstance(url, str):
        return "memory" if url is None else f"a {type(storage).__name__}"
    hidden = re.sub(r"(?<=://)([^:/@]*):.*@", r"\1:***@", url)
    return re.sub(r"(?i)(password=)[^&]*", r"\1***", hidden)


def _secrets(storage: Any) -> list[str]:
    """What must not be shown, longest first."""
    try:
        url = sqlalchemy.make_url(getattr(storage, "url", storage))
    except ArgumentError:
        return []
    found = [url.password, url.query.get("password")]
    return sorted((str(each) for each in found if each), key=len, reverse=True)


# --- what went wrong ----------------------------------------------------------------------------


def _of_sqlalchemy(error: Exception) -> SQLAlchemyError:
    """SQLAlchemy's own error, which Optuna raises another one for."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    return cause if isinstance(cause, SQLAlchemyError) else SQLAlchemyError(str(error))


def _sqlstate(error: SQLAlchemyError) -> str | None:
    return getattr(getattr(error, "orig", None), "sqlstate", None)


def _is_full(error: Exception) -> bool:
    orig = getattr(error, "orig", None)
    code = getattr(orig, "sqlite_errorcode", 0) & 0xFF
    return code == sqlite3.SQLITE_FULL or getattr(orig, "sqlstate", None) == _DISK_FULL


def _is_race(error: SQLAlchemyError) -> bool:
    return _sqlstate(error) in _THERE_ALREADY or "already exists" in str(error)


def _passes(error: SQLAlchemyError) -> bool:
    """True for what may be over in a moment: a server that starts again, a lock."""
    return isinstance(error, OperationalError | InterfaceError) and not _is_full(error)
