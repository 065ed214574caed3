"""Trap 15: a tied embedding, named by its other alias."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from penalize import L1, L2, ConflictError, embeddings
from penalize.torch import regularize


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.wte.weight


def test_aliases_resolve_and_count_once() -> None:
    model = Tied()
    naive = [p for name, p in model.named_parameters() if name == "head.weight"]
    assert naive == []  # the second name is dropped without a word
    for name in ("head.weight", "wte.weight"):
        plan = regularize(model, {name: L1(0.5)})
        (row,) = plan.rows
        assert (row.name, row.aliases) == ("wte.weight", ("head.weight",))
        assert row.regularizer == L1(0.5)
        torch.testing.assert_close(plan.penalty(), 0.5 * model.wte.weight.abs().sum())


def test_disagreeing_rules_conflict() -> None:
    with pytest.raises(ConflictError, match=r"'wte\.weight' and 'head\.weight' are one tied"):
        regularize(Tied(), {"wte.weight": L1(0.5), "head.weight": L2(0.5)})
    later = regularize(Tied(), {embeddings: L1(0.5), "head.weight": L2(0.5)})
    assert later.rows[0].regularizer == L2(0.5)
