"""What the checks share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def raises(kind: type | tuple[type, ...], part: str, act: Callable[[], Any]) -> BaseException:
    """The error that an act raises, which must be of a kind and contain a text."""
    with pytest.raises(kind) as caught:
        act()
    assert part in str(caught.value), f"{part!r} is not in: {caught.value}"
    return caught.value
