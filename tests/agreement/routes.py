"""Every way to apply the table, each run in a process of its framework.

Keras has one backend per process, so there are three; the other frameworks run beside their own.
"""

from __future__ import annotations

import functools
import pickle
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from keras_programs import BACKENDS, python

from agreement.problem import Run
from agreement.rules import RULES


class Route(NamedTuple):
    """A framework, and how the plan is applied there."""

    framework: str
    applied: str
    process: str
    program: str
    """``module.function``"""


REFERENCE = Route("PyTorch", "by hand, nothing of ours", "torch", "pytorch.written_by_hand")

_IN_KERAS = "`regularize(model, rules)`, then `fit`"

ROUTES = (
    Route("PyTorch", "`loss + plan.penalty()`", "torch", "pytorch.loss_term"),
    Route("PyTorch", "`plan.attach(optimizer)`", "torch", "pytorch.attached"),
    Route(
        "TensorFlow 1, a graph",
        "`regularized(optimizer, plan=plan)`",
        "tensorflow",
        "tensorflow1.run",
    ),
    Route("TensorFlow 2, a tape", "`loss + plan.penalty()`", "tensorflow", "tensorflow2.run"),
    Route("JAX", "`loss + plan.penalty(params)`", "jax", "trees.loss_term"),
    Route("JAX", "`optax.chain(plan.gradient(), optax.sgd(lr))`", "jax", "trees.chained"),
    Route("Keras on TensorFlow", _IN_KERAS, "tensorflow", "keras3.run"),
    Route("Keras on JAX", _IN_KERAS, "jax", "keras3.run"),
    Route("Keras on PyTorch", _IN_KERAS, "torch", "keras3.run"),
)


@functools.cache
def runs() -> dict[Route, Run]:
    """Every route, the reference first."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor() as pool:
        paths = {process: Path(folder) / process for process in BACKENDS}
        done = pool.map(lambda process: _start(process, paths[process]), BACKENDS)
        found = {route: run for part in done for route, run in part.items()}
    return {route: found[route] for route in (REFERENCE, *ROUTES)}


def _start(process: str, path: Path) -> dict[Route, Run]:
    done = python(
        _PROGRAM.format(process=process, path=str(path)),
        KERAS_BACKEND=process,
        JAX_ENABLE_X64="1",
        JAX_PLATFORMS="cpu",
    )
    assert done.returncode == 0, done.stderr
    found: dict[Route, Run] = pickle.loads(path.read_bytes())
    return found


_PROGRAM = """
import warnings
from agreement.routes import run_those_of
warnings.simplefilter("error")
warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)  # Keras' own
run_those_of({process!r}, {path!r})
"""


def run_those_of(process: str, path: str) -> None:
    """Run the routes of this process, and leave what they did in a file."""
    found = {r: _run(r) for r in (REFERENCE, *ROUTES) if r.process == process}
    Path(path).write_bytes(pickle.dumps(found))


def _run(route: Route) -> Run:
    module, _, function = route.program.partition(".")
    run: Run = getattr(import_module(f"agreement.{module}"), function)(RULES)
    return run
