"""The page of optimizers of other houses, and the script that measures them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

SCRIPT = Path(__file__).parents[2] / "scripts" / "optimizers.py"


def script() -> Any:
    spec = importlib.util.spec_from_file_location("optimizers_elsewhere", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_counts_what_is_on_it_and_says_the_versions() -> None:
    measured = script()
    page = measured.DOCUMENT.read_text(encoding="utf-8")
    parts = measured.sections(page)
    assert page == measured.page_of(parts)
    for name, part in parts.items():
        requirement = measured.PACKAGES[name].requirement
        assert part.splitlines()[0] == f"## {requirement.replace('==', ' ')}"


class Steady(Optimizer):
    """Decays whatever its lr, by default."""

    def __init__(self, params: Any, lr: float = 0.1, weight_decay: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p *= 1 - group["weight_decay"]
                p -= group["lr"] * p.grad.sign()


def test_a_row() -> None:
    *cells, gradient, decoupled, proximal = script().row_of("Steady", Steady)
    assert cells == [
        "Steady",
        "0.01",
        "decoupled, without lr; not multiplied by lr=0.1: 10 times as strong as AdamW's",
        "",
        "none",
    ]
    assert gradient == "exact" or gradient.startswith("< ")
    assert (decoupled, proximal) == ("exact", "refused: its step is not known")
