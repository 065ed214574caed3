"""Trap 19: norms and stacked biases taken for kernels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from penalize import L2, Role, of_type
from penalize.torch import regularize


class ScanStackedNorm(nn.Module):
    """The scales of twelve layers in one parameter, as a scan over layers holds them."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(12, 8))
        self.bias = nn.Parameter(torch.zeros(12, 8))


class Whitener(nn.Module):
    """A norm by deed, not by name."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8, 8))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(8, 8)
        self.rms = nn.RMSNorm(8)
        self.norm = ScanStackedNorm()
        self.whiten = Whitener()

    def forward(self, x: Tensor) -> Tensor:
        return self.rms(self.dense(x))


def test_roles_come_from_type_and_name_before_shape() -> None:
    model = Net()
    by_suffix = {n for n, _ in model.named_parameters() if not n.endswith("bias")}
    by_ndim = {n for n, p in model.named_parameters() if p.ndim > 1}
    assert "rms.weight" in by_suffix  # naive
    assert {"norm.weight", "norm.bias"} <= by_ndim  # naive
    roles = {row.name: row.role for row in regularize(model, L2(1e-4)).rows}
    assert roles["rms.weight"] is roles["norm.weight"] is Role.NORM
    assert roles["norm.bias"] is Role.BIAS
    assert roles["dense.weight"] is Role.KERNEL


def test_stacked_biases_of_an_ensemble_are_biases() -> None:
    stacked, _ = torch.func.stack_module_state([nn.Linear(3, 2) for _ in range(4)])
    ensemble = nn.ParameterDict({name: nn.Parameter(p) for name, p in stacked.items()})
    assert ensemble["bias"].ndim == 2
    rows = {row.name: row for row in regularize(ensemble, L2(1e-4)).rows}
    assert rows["bias"].role is Role.BIAS
    assert rows["weight"].regularizer == L2(1e-4)


def test_a_custom_norm_can_be_told_by_type() -> None:
    told = regularize(Net(), L2(1e-4), roles={of_type(Whitener): "norm"})
    exempted = regularize(Net(), {of_type(nn.Module): L2(1e-4), of_type(Whitener): None})
    for plan in (told, exempted):
        assert [r.name for r in plan.rows if r.regularizer] == ["dense.weight"]
    assert {r.name: r.role for r in told.rows}["whiten.weight"] is Role.NORM
