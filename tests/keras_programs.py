"""Checks of the Keras wing, run once per backend: Keras has one backend per process.

``tests/wing_keras/programs`` holds the checks, functions named ``check_…``. All of them run in one
process per backend, which starts with the tests and runs beside them; what each one raised or
returned comes back by name.
"""

from __future__ import annotations

import ast
import functools
import json
import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

BACKENDS = ("tensorflow", "jax", "torch")
PROGRAMS = Path(__file__).parent / "wing_keras" / "programs"


# What is read of a model, and mathematics, do not depend on the backend; the others act on it.
ONLY_ON = {"records": "torch", "peers": "torch"}


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


def start() -> None:
    """Start the processes, one after the other."""
    for backend in BACKENDS:
        _started(backend)


def stop() -> None:
    """Start no more of them."""
    _beside.shutdown(wait=False, cancel_futures=True)


def results(backend: str) -> dict[str, dict[str, Any]]:
    """What each check returned on a backend, or the traceback of what it raised."""
    return _started(backend).result()


@functools.cache
def _started(backend: str) -> Future[dict[str, dict[str, Any]]]:
    return _beside.submit(_results, backend)


def _results(backend: str) -> dict[str, dict[str, Any]]:
    wanted = checks(backend)
    done = python(_RUN.format(folder=str(PROGRAMS), checks=wanted), KERAS_BACKEND=backend)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    found = {entry["check"]: entry for entry in map(json.loads, lines)}
    for name in wanted:
        found.setdefault(name, {"error": f"{name} never ran: {done.stderr[-2000:]}"})
    return found


def python(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program in a new Python, with the paths of this one."""
    return subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )


_RUN = """
import importlib, json, logging, sys, time, traceback, warnings
sys.path.insert(0, {folder!r})
import keras
logging.getLogger("tensorflow").setLevel("ERROR")
warnings.simplefilter("error")
warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)  # Keras' own
for name in {checks!r}:
    program, _, check = name.partition(".")
    entry, start = dict(check=name), time.perf_counter()
    try:
        keras.utils.set_random_seed(0)
        entry["value"] = getattr(importlib.import_module(program), check)()
    except BaseException:
        entry["error"] = traceback.format_exc()
    entry["seconds"] = round(time.perf_counter() - start, 2)
    print(json.dumps(entry), flush=True)
"""
