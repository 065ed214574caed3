"""``suggest``: groups of all that leads to a unit, so that what a penalty makes zero can be cut."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from penalize import L2, GroupLasso, blocks, kernels
from penalize.errors import ModelError, RulesError
from penalize.torch import compact, regularize, suggest

LASSO = GroupLasso(3e-3)


class Residual(nn.Module):
    """A stem and a residual block with batch norms; its maps are flattened into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.first, self.norm1 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.second, self.norm2 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.head = nn.Linear(24, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        inner = torch.relu(self.norm1(self.first(x)))
        x = torch.relu(x + self.norm2(self.second(inner)))
        return self.head(functional.adaptive_avg_pool2d(x, 2).flatten(1))


class Gated(nn.Module):
    """A gated layer in a residual stream, gate and values in one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(4), nn.Linear(4, 12), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        values, gate = self.up(self.norm(x)).chunk(2, -1)
        return x + self.down(values * torch.sigmoid(gate))


def perceptron() -> nn.Module:
    layers = [nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)]
    return nn.Sequential(*layers)


def made(kind: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A model, and data that a part of its units can explain."""
    torch.manual_seed(0)
    if kind == "perceptron":
        x = torch.randn(64, 6).double()
        return (
            perceptron().double(),
            x,
            torch.stack([torch.tanh(x[:, 0] + x[:, 1]), x[:, 2].relu()], 1),
        )
    x = torch.randn(48, 1, 6, 6).double()
    return Residual().double(), x, torch.stack([x[:, 0, :3].mean((1, 2)), x.amax((1, 2, 3))], 1)


def trained(model: nn.Module, plan: Any, x: Tensor, y: Tensor, mode: str) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    plan.attach(optimizer, mode=mode)
    for _ in range(60):
        optimizer.zero_grad()
        functional.mse_loss(model(x), y).backward()
        optimizer.step()
    model.eval()


def dead(plan: Any) -> int:
    """How many units are zero in all that is in their group."""
    return sum(int((each.value == 0).all(1).sum()) for each in plan.penalized_now())


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("perceptron", "proximal"), ("residual", "proximal"), ("residual", "halfspace")],
)
def test_what_becomes_zero_is_cut(kind: str, mode: str) -> None:
    model, x, y = made(kind)
    plan = regularize(model, **suggest(model, x[:2], LASSO))
    trained(model, plan, x, y, mode)
    found = compact(model, x[:2])
    residual = {"stem.weight": 1, "second.weight": 0}  # cut at two places, and one group
    cut = sum(residual.get(row.name, 1) * (row.before - row.after) for row in found.rows)
    assert cut == dead(plan) > 0
    assert not any(row.kept for row in found.rows)
    with torch.no_grad():
        torch.testing.assert_close(found.model(x), model(x), rtol=0, atol=1e-12)


def test_rows_of_one_member_alone_stay() -> None:
    """The naive rules: what the stem adds to the stream keeps the channel."""
    model, x, y = made("residual")
    trained(model, regularize(model, {"second": GroupLasso(0.2)}), x, y, "proximal")
    assert (model.second.weight == 0).flatten(1).all(1).any()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = compact(model, x[:2])
    rows = {row.name: row for row in found.rows}
    assert rows["stem.weight"].after == rows["second.weight"].after == 6
    assert rows["second.weight"].kept.keys() == {"it changes with the input"}


# --- what is suggested --------------------------------------------------------------------------


def members(model: nn.Module, x: Any, **kwargs: Any) -> dict[str, Any]:
    suggestion = suggest(model, x, LASSO, **kwargs)
    assert all(regularizer == LASSO for regularizer, _ in suggestion.together.values())
    return {name: its for name, (_, its) in suggestion.together.items()}


def test_all_that_leads_to_a_unit() -> None:
    model = Residual()
    x = torch.randn(2, 1, 6, 6)
    norms = {f"norm{i}.{name}": 0 for i in ("", 2) for name in ("weight", "bias")}
    assert members(model, x) == {
        "stem": {"stem.weight": 0, "second.weight": 0, **norms},
        "first": {"first.weight": 0, "norm1.weight": 0, "norm1.bias": 0},
    }
    assert model.training  # it is left as it was


def test_a_gate_and_what_it_multiplies() -> None:
    pairs = [[i, i + 6] for i in range(6)]
    found = suggest(Gated(), torch.randn(2, 4), LASSO)
    assert found.together == {"up": (LASSO, {"up.weight": (0, pairs), "up.bias": (0, pairs)})}
    (up, down) = found.rows
    assert up.members == ("up.weight[[i, i+6], :]", "up.bias[[i, i+6]]")
    assert (down.name, down.units, down.members) == ("down.weight", 4, ())
    assert down.why == "add combines it with what has no units to go with it"


def test_what_leads_away_where_a_constant_would_be_left() -> None:
    """σ(0) is not 0, and nothing can hold it: a layer without a bias, or a border of zeros."""
    layers = [nn.Linear(4, 6), nn.Sigmoid(), nn.Linear(6, 3, bias=False)]
    model, x = nn.Sequential(*layers), torch.randn(2, 4)
    assert members(model, x) == {"0": {"2.weight": 1}}
    assert members(model, x, biases=True) == {"0": {"0.weight": 0, "0.bias": 0}}
    flat = nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(64, 3, bias=False))
    )
    found = members(flat, torch.randn(2, 1, 6, 6))
    assert found == {"0": {"3.weight": blocks(1, 4)}}  # each channel has 16 columns
    with torch.no_grad():
        flat[3].weight[:, 16:32] = 0
    assert compact(flat.eval(), torch.randn(2, 1, 6, 6)).rows[0].after == 3


def test_why_units_are_in_no_group() -> None:
    layers = [nn.Conv2d(1, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Conv2d(4, 1, 1), nn.Tanh(), nn.Conv2d(1, 3, 1))
    found = suggest(model, torch.randn(2, 1, 6, 6), LASSO)
    assert list(found.together) == ["2"]
    why = {row.name: row.why for row in found.rows if not row.members}
    assert why == {
        "0.weight": "it is a constant, not 0, and '2.weight' is applied at a border of zeros, "
        "where it would be another; and what reads it, '2.weight', is in another group",
        "4.weight": "a layer keeps one unit",
        "6.weight": "it is an output of the model",
    }
    text = str(found)
    assert "2.weight[i, :, :, :], 2.bias[i]" in text
    assert text.endswith("4 of 12 units in 1 group")


def test_frozen_and_tied_weights() -> None:
    model = perceptron()
    model[0].weight.requires_grad_(False)
    found = suggest(model, torch.randn(2, 6), LASSO)
    assert list(found.together) == ["2"]
    assert found.rows[-2].why == "it is not trained, or the same as another"
    tied = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    tied[2].weight = tied[0].weight
    for name, (_, its) in suggest(tied, torch.randn(2, 4), LASSO).together.items():
        regularize(tied, together={name: (LASSO, its)})


def test_beside_rules() -> None:
    """It has the groups alone, so that rules can stand beside it."""
    model = perceptron()
    found = suggest(model, torch.randn(2, 6), LASSO)
    plan = regularize(model, {kernels: L2(1e-4)}, **found)
    assert [row.name for row in plan.rows if row.regularizer] == ["4.weight"]
    assert [row.name for row in plan.together] == ["0", "2"]


def test_what_is_no_model_and_no_regularizer() -> None:
    with pytest.raises(ModelError, match="Suggest got a list"):
        suggest([], torch.zeros(1), LASSO)  # type: ignore[arg-type]
    with pytest.raises(RulesError, match=r"suggest got the regularizer 0\.1, a float"):
        suggest(nn.Linear(1, 1), torch.zeros(1), 0.1)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"[Tt]orch\.export cannot follow"):
        suggest(copy.deepcopy(perceptron()), torch.zeros(2, 5), LASSO)
