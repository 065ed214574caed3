"""Trap 20: weight normalisation hides the weight behind a magnitude and a direction."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from penalize import L1, L2, ModeError
from penalize.torch import regularize


def test_the_rule_on_weight_names_the_effective_weight() -> None:
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 3)))
    originals = dict(model.named_parameters())
    magnitude = originals["0.parametrizations.weight.original0"]
    assert magnitude.ndim == 2  # naive: "more than one axis" takes it for a kernel
    plan = regularize(model, {"0.weight": L2(0.5)})
    rows = {row.name: row for row in plan.rows}
    assert set(rows) == {"0.weight", "0.bias"}
    assert "WeightNorm" in rows["0.weight"].note
    torch.testing.assert_close(plan.penalty(), 0.5 * model[0].weight.pow(2).sum())


@pytest.mark.parametrize("regularizer", [L1(0.3), L2(0.3)])
def test_its_gradient_reaches_the_originals(regularizer: L1 | L2) -> None:
    torch.manual_seed(0)
    models = [nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 3))) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in models]
    plan = regularize(models[0], regularizer)
    regularize(models[1], regularizer).attach(optimizers[1])
    x = torch.randn(8, 4)
    for _ in range(5):
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            loss = model(x).pow(2).mean()
            (loss + plan.penalty() if model is models[0] else loss).backward()
            optimizer.step()
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("mode", ["decoupled", "proximal"])
def test_modes_that_would_have_to_set_it_are_refused(mode: str) -> None:
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(4, 3)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ModeError, match=r"'0\.weight' is computed from other parameters"):
        regularize(model, L1(0.1)).attach(optimizer, mode=mode)
