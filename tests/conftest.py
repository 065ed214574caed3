"""Settings that frameworks read when they are imported, those of Hypothesis, and who runs what."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import keras_programs
import pytest
from hypothesis import settings

WORKER = "PYTEST_XDIST_WORKER" in os.environ
if WORKER:  # one core for each: more threads than cores wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"  # here; the others run in processes of their own

# A busy machine is no failure: no test asserts a time.
settings.register_profile("penalize", deadline=None)
settings.load_profile("penalize")


@pytest.fixture(autouse=True, scope="module")
def _only_what_is_made_here() -> None:
    """What was made before is left out of garbage collection, and of looking through live objects.

    The frameworks together have millions, and each collection would go through all of them. What is
    garbage goes first: frozen, it would stay, and its plans with it.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_plan_outlives_its_test() -> Iterator[None]:
    """An optimizer and what is attached to it refer to each other, so that counting frees neither.

    Every step of an optimizer would look through the plans of earlier tests.
    """
    yield
    gc.collect(1)


# --- who runs what ------------------------------------------------------------------------------

KERAS_PROGRAMS = {"test_programs.py", "test_12_backends.py"}


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file stays on one worker, which so makes its fixtures, caches and processes once."""
    if WORKER:
        groups = {path: _group(path) for path in {item.path for item in items}}
        for item in items:
            item.add_marker(pytest.mark.xdist_group(groups[item.path]))


def _group(path: Path) -> str:
    """Its own file, or those that share processes with it."""
    if path.name in KERAS_PROGRAMS:
        return "Keras programs"
    return "ranks" if "on_ranks(" in path.read_text("utf-8") else str(path)


def pytest_collection_finish(session: pytest.Session) -> None:
    """The programs of the Keras wing run beside the tests, if any of these asks for them.

    Not beside workers, which leave no core for them: there they run when they are asked for.
    """
    asked = KERAS_PROGRAMS & {item.path.name for item in session.items}
    if asked and not WORKER and not session.config.option.collectonly:
        keras_programs.start()


def pytest_sessionfinish() -> None:
    keras_programs.stop()
