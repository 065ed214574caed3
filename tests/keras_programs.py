"""Functions of tests that run once per backend: Keras has one backend per process.

A process for each backend is started when it is first asked, and runs what it is sent, one function
after the other. ``tests/wing_keras/programs`` holds the checks of the Keras wing, functions named
``check_…``. What a function raised is raised where it was asked for.
"""

from __future__ import annotations

import ast
import atexit
import functools
import importlib
import logging
import os
import pickle
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

BACKENDS = ("tensorflow", "jax", "torch")
PROGRAMS = Path(__file__).parent / "wing_keras" / "programs"


# What is read of a model, what is in its files, and mathematics, do not depend on the backend; the
# others act on it.
ONLY_ON = {
    **dict.fromkeys(["records", "peers", "logged", "trained_paths"], "torch"),
    **dict.fromkeys(["averages", "dtypes"], "tensorflow"),  # the others add up any dtypes
    "convolutions": "tensorflow",  # there Keras keeps to float64
    "drawn_paths": "tensorflow",
}


def checks(backend: str) -> list[str]:
    """``program.check``, for all of them that a backend runs."""
    return [
        f"{path.stem}.{node.name}"
        for path in sorted(PROGRAMS.glob("*.py"))
        if ONLY_ON.get(path.stem, backend) == backend
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")
    ]


_beside = ThreadPoolExecutor(max_workers=1)


def start(wanted: Iterable[tuple[str, str]]) -> None:
    """Run these beside the tests: pairs of a backend and a ``module.function``."""
    for backend, function in wanted:
        _asked(backend, function)


def stop() -> None:
    """Start no more of them."""
    _beside.shutdown(wait=False, cancel_futures=True)


def result(backend: str, function: str) -> Any:
    """What ``module.function()`` returned in the process of a backend. It runs once."""
    value, raised = _asked(backend, function).result()
    assert not raised, f"{function} on {backend}:\n{raised}"
    return value


@functools.cache
def _asked(backend: str, function: str) -> Future[tuple[Any, str]]:
    return _beside.submit(lambda: _process(backend).run(function))


@functools.cache
def _process(backend: str) -> _Process:
    return _Process(backend)


class _Process:
    def __init__(self, backend: str) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._own = subprocess.Popen(
            [sys.executable, "-c", "import keras_programs; keras_programs.serve()"],
            env=_environment(KERAS_BACKEND=backend, JAX_ENABLE_X64="1", JAX_PLATFORMS="cpu"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        atexit.register(self._close)

    def run(self, function: str) -> tuple[Any, str]:
        """What it returned, and the traceback of what it raised."""
        assert self._own.stdin is not None
        assert self._own.stdout is not None
        try:
            pickle.dump(function, self._own.stdin)
            self._own.stdin.flush()
            answer: tuple[Any, str] = pickle.load(self._own.stdout)
        except (EOFError, BrokenPipeError):
            self._errors.seek(0)
            return None, f"the process has ended: {self._errors.read().decode()[-2000:]}"
        return answer

    def _close(self) -> None:
        self._own.kill()
        self._own.communicate()
        self._errors.close()


def serve() -> None:
    """What such a process does, until it is ended."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what Keras prints is no answer
    sys.path.insert(0, str(PROGRAMS))
    import keras

    logging.getLogger("tensorflow").setLevel("ERROR")
    warnings.simplefilter("error")
    # Keras' own.
    warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
    while True:
        try:
            module, _, name = pickle.load(sys.stdin.buffer).rpartition(".")
        except EOFError:
            return
        try:
            keras.utils.set_random_seed(0)
            answer = getattr(importlib.import_module(module), name)(), ""
        except BaseException:  # noqa: BLE001
            answer = None, traceback.format_exc()
        pickle.dump(answer, answers)
        answers.flush()


def python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program in a new Python, with the paths of this one."""
    return subprocess.run(
        [sys.executable, "-c", program],
        env=_environment(**environment),
        capture_output=True,
        text=True,
        check=False,
    )


def _environment(**more: str) -> dict[str, str]:
    paths = os.pathsep.join(filter(None, sys.path))
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": paths, **more}
