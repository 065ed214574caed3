"""docs/jax-loops.md prints what it says."""

from __future__ import annotations

import contextlib
from pathlib import Path

from readme import with_outputs

PAGE = Path(__file__).parent.parent.parent / "docs" / "jax-loops.md"


def test_the_page_of_loops_prints_what_it_says(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    with contextlib.chdir(tmp_path):
        assert with_outputs(text) == text
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]
