"""A PostgreSQL server for the tests that need one: Debian's, on a socket in a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def _programs() -> Path:
    """The folder of the newest version's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version)
    on_path = shutil.which("initdb")
    if not (found or on_path):
        pytest.skip("PostgreSQL's server is not installed: apt-get install postgresql")
    return (found[-1] if found else Path(on_path or "").resolve()).parent


def _version(path: Path) -> int:
    return int(path.parts[-3].partition(".")[0])


class Server:
    """A server that can be stopped and started; nothing of it outlives the block of `running`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = _programs()
        self.url = f"postgresql+psycopg://penalize:secret@/postgres?host={folder}"
        # It refuses to be root, as who runs tests in a container often is.
        self.user = {}
        if os.getuid() == 0:
            self.user = {"user": "postgres", "group": "postgres", "extra_groups": []}
            shutil.chown(folder, "postgres", "postgres")
        self._run("initdb", "--auth=trust", "--username=penalize", "--no-sync", "--encoding=UTF8")

    def _run(self, program: str, *arguments: str) -> None:
        command = [self.programs / program, "-D", self.folder / "data", *arguments]
        done = subprocess.run(
            command,
            cwd="/",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **self.user,
        )
        assert done.returncode == 0, done.stdout

    def start(self) -> None:
        options = f"-k {self.folder} -c listen_addresses= -c shared_buffers=16MB -F"
        self._run("pg_ctl", "-w", "-s", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "-w", "-s", "-m", "immediate", "stop")


@contextmanager
def running() -> Iterator[Server]:
    """A server that runs."""
    with tempfile.TemporaryDirectory(prefix="penalize-pg-") as folder:  # a socket's path is short
        server = Server(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()
