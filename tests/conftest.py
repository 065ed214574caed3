"""Settings that frameworks read when they are imported, those of Hypothesis, and who runs what."""

import functools
import gc
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras_programs
import pytest
from hypothesis import settings

WORKER = "PYTEST_XDIST_WORKER" in os.environ
if WORKER:  # one core for each: more threads than cores wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# What is compiled here runs a few times, on small arrays: compiling takes the time.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# Kernels that are compiled here are kept for this run alone.
_KERNELS = tempfile.TemporaryDirectory(prefix="penalize-kernels-")
os.environ["PENALIZE_CACHE_DIR"] = _KERNELS.name
os.environ["KERAS_BACKEND"] = "tensorflow"  # here; the others run in processes of their own

# A busy machine is no failure: no test asserts a time. The examples are the same in each run, so
# that what breaks a test is a change; `make test-all` looks for others.
settings.register_profile("default", deadline=None, max_examples=30, derandomize=True)
settings.register_profile("all", deadline=None, max_examples=200)
settings.load_profile("default")


@pytest.fixture(autouse=True, scope="module")
def _only_what_is_made_here(request: pytest.FixtureRequest) -> None:
    """What was made before is left out of garbage collection, and of looking through live objects.

    The frameworks together have millions, and each collection would go through all of them. What is
    garbage goes first: frozen, it would stay, and its plans with it. The Keras wing, which looks
    for models, would go through all that is frozen object by object, which takes seconds.
    """
    gc.collect()
    if "penalize.keras" in request.path.read_text("utf-8"):
        gc.unfreeze()
    else:
        gc.freeze()


@pytest.fixture(autouse=True)
def _no_plan_outlives_its_test() -> Iterator[None]:
    """An optimizer and what is attached to it refer to each other, so that counting frees neither.

    Every step of an optimizer would look through the plans of earlier tests.
    """
    yield
    gc.collect(1)


# --- who runs what ------------------------------------------------------------------------------

KERAS_PROGRAMS = re.compile(
    r"^from (keras_programs import .*result|agreement\.routes)", re.MULTILINE
)

EXAMPLES = "test_examples.py"
"""It runs the trainers too."""

# What takes longest goes first, so that no worker is left alone with it at the end.
LONGEST = (
    "test_regularizers.py",
    "ranks",
    "Keras programs",
    "test_oracles.py",
    "test_optimizers.py",
    "test_path_oracles.py",
    "test_jax.py",
    "test_resumed_path.py",
    "test_kernels.py",
    "test_docs.py",
    "test_transforms.py",
    "trainers",
    "test_keras_names.py",
    "test_stacking.py",
    "test_compacting.py",
    "test_flattening.py",
    "test_path.py",
    "test_plan.py",
    "test_resume.py",
    "test_sharded.py",
    "test_many_strengths.py",
    "test_parameters.py",
    "test_doctor.py",
    "test_mirrored.py",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file stays on one worker, which so makes its fixtures, caches and processes once."""
    from xdist.scheduler import LoadScopeScheduling

    # xdist's own --dist loadgroup writes the group into an item's id, which pytest 9.2 passes over.
    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(config.rootpath / nodeid.partition("::")[0])

    return ByGroup(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first."""
    if WORKER:
        places = {path: _place(_group(path)) for path in {item.path for item in items}}
        items.sort(key=lambda item: places[item.path])


@functools.cache
def _group(path: Path) -> str:
    """Its own file, or those that share processes with it, or imports that take seconds."""
    text = path.read_text("utf-8")
    if KERAS_PROGRAMS.search(text):
        return "Keras programs"
    if "on_ranks(" in text:
        return "ranks"
    return "trainers" if "integrations" in path.parts or path.name == EXAMPLES else str(path)


def _place(group: str) -> int:
    """In LONGEST, or behind them all."""
    name = Path(group).name
    return LONGEST.index(name) if name in LONGEST else len(LONGEST)


def pytest_collection_finish(session: pytest.Session) -> None:
    """The programs of the Keras wing run beside the tests, if any of these asks for them.

    Not beside workers, which leave no core for them: there they run when they are asked for.
    """
    if not WORKER and not session.config.option.collectonly:
        cells = [getattr(item, "callspec", None) for item in session.items]
        asked = [cell.params for cell in cells if cell and {"backend", "check"} <= {*cell.params}]
        keras_programs.start((cell["backend"], cell["check"]) for cell in asked)


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Ranks that wait for a test take time from those that run."""
    if _group(item.path) == "ranks" != (nextitem and _group(nextitem.path)):
        sys.modules["ranks"].stop()


def pytest_sessionfinish() -> None:
    keras_programs.stop()
