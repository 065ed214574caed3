"""The benchmark that needs a GPU: what of it does not, and what it says where there is none."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

from penalize import L1, GroupLasso

SCRIPTS = Path(__file__).parents[2] / "benchmarks"
SHAPES = [(4, 3), (2, 5)]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """With one form of penalty."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import torch_gpu

    monkeypatch.setattr(torch_gpu, "FORMS", {"both": L1(1e-4) + GroupLasso(1e-4, groups=0)})
    return torch_gpu


def test_each_part_runs_without_a_gpu(script: ModuleType) -> None:
    header, _, *rows = script.bandwidth(SHAPES, "cpu", 2)
    assert len(rows) == len(script.JOBS)
    assert "copy" in header

    header, _, *rows = script.launches((1, 2), "cpu")
    assert len(rows) == len(script.JOBS)
    assert "2 tensors" in header

    _, _, *rows = script.graphs(SHAPES, "cpu", 2)
    assert all(row.endswith("| 0e+00 |") for row in rows)

    model = torch.nn.Linear(3, 2)
    _, _, *rows = script.whole_steps(model, lambda: model(torch.ones(3)).sum(), "cpu", 2)
    assert len(rows) == 2


def test_without_a_gpu_it_says_so_and_writes_nothing(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(script, "write", None)
    with pytest.raises(SystemExit, match=r"There is no GPU that PyTorch can use, so nothing was"):
        script.main()
