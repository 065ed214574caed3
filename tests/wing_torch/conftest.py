"""For the tests of this wing."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def _only_what_is_made_here() -> Iterator[None]:
    """An audit looks through all live objects; those of other frameworks are millions by now."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
