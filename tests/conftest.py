"""Settings that frameworks read when they are imported, and those of Hypothesis."""

import os

from hypothesis import settings

os.environ.setdefault("JAX_ENABLE_X64", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"  # here; the others run in processes of their own

# A busy machine is no failure: no test asserts a time.
settings.register_profile("penalize", deadline=None)
settings.load_profile("penalize")
