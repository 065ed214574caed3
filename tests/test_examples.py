"""Every example runs, and shows what it says."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
DIGITS = [path for path in sorted(EXAMPLES.glob("*.py")) if path.stem.endswith("_digits")]


def run(path: Path) -> dict[str, Any]:
    return runpy.run_path(str(path))


@pytest.fixture(scope="module", autouse=True)
def ray() -> Iterator[subprocess.Popen[str]]:
    """In a process of its own, which waits for others most of the time: the rest runs meanwhile."""
    with subprocess.Popen(
        [sys.executable, EXAMPLES / "ray_tune.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
    ) as process:
        yield process


@pytest.mark.filterwarnings("ignore")  # what trainers advise
@pytest.mark.parametrize("path", DIGITS, ids=lambda path: path.stem)
def test_digits(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # where trainers write
    found = run(path)
    assert found["accuracy"] > 0.9
    assert 0.3 < found["zeros"] < 0.9
    assert 0.3 < float((np.asarray(found["kernel"]) == 0).mean()) < 0.9
    assert f"{found['zeros']:.1%} exact zeros" in capsys.readouterr().out


def test_fista(capsys: pytest.CaptureFixture[str]) -> None:
    found = run(EXAMPLES / "jax_fista.py")
    assert found["apart"] < 1e-10
    np.testing.assert_array_equal(found["w"] == 0, found["expected"] == 0)
    assert "4 and 4 of 10 exact zeros" in capsys.readouterr().out


def test_many_strengths_at_once_in_jax() -> None:
    found = run(EXAMPLES / "jax_path.py")
    assert found["strengths"][0] > found["best"] > found["strengths"][-1]
    assert list(found["zeros"]) == sorted(found["zeros"], reverse=True)


def test_all_are_here_and_short() -> None:
    lines = {path: len(path.read_text("utf-8").splitlines()) for path in EXAMPLES.glob("*.py")}
    assert max(lines.values()) <= 60
    for trainer in ("accelerate", "ignite", "keras", "lightning", "skorch", "transformers"):
        assert lines[EXAMPLES / f"{trainer}_digits.py"] < 40, trainer


def test_ray_tune(ray: subprocess.Popen[str]) -> None:
    out, err = ray.communicate()
    assert ray.returncode == 0, err
    assert "best strength 0.03: loss 0.5" in out
