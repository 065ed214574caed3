"""Trap 38: embeddings with sparse gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from penalize import L2, ModeError, embeddings
from penalize.torch import regularize


def test_a_clear_error_names_the_choice() -> None:
    model = nn.Sequential(nn.Embedding(10, 3, sparse=True), nn.Linear(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    model(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):  # naive
        optimizer.step()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    regularize(model, {embeddings: L2(0.1), "1": L2(0.1)}).attach(optimizer)
    before = [p.detach().clone() for p in model.parameters()]
    gradient = model[1].weight.grad.clone()
    with pytest.raises(ModeError, match=r"'0\.weight' has a sparse gradient.*sparse=False"):
        optimizer.step()
    assert all(map(torch.equal, before, model.parameters()))
    assert torch.equal(gradient, model[1].weight.grad)  # nor is it half applied
