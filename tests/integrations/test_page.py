"""What docs/trainers.md says is true."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from readme import with_outputs

PAGE = Path(__file__).parents[2] / "docs" / "trainers.md"


@pytest.mark.filterwarnings("ignore")  # what trainers advise
def test_the_page_on_trainers_prints_what_it_says(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    with contextlib.chdir(tmp_path):
        assert with_outputs(text) == text
