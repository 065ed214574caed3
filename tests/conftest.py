"""Settings that frameworks read when they are imported, and those of Hypothesis."""

import gc
import os

import keras_programs
import pytest
from hypothesis import settings

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

    The frameworks together have millions, and each collection would go through all of them.
    """
    gc.freeze()


def pytest_collection_finish(session: pytest.Session) -> None:
    """The programs of the Keras wing run beside the tests, if any of these asks for them."""
    asking = {"test_programs.py", "test_12_backends.py"}
    if not session.config.option.collectonly and asking & {i.path.name for i in session.items}:
        keras_programs.start()


def pytest_sessionfinish() -> None:
    keras_programs.stop()
