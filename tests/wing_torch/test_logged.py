"""The numbers of a plan for a log, against counts by hand."""

from __future__ import annotations

import math

import pytest
import torch
from ranks import on_ranks
from torch import nn

from penalize import L1, L2, GroupLasso, biases, everything, kernels, linear, named
from penalize.torch import declare, regularize, scope
from penalize.torch.logged import logged


def network() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(2, 1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.5)
        model[0].weight[1] = 0
        model[1].weight[:, 2:] = 0
    return model


def test_penalties_by_rule_zeros_and_groups() -> None:
    model = network()
    rules = {
        kernels: L2(0.1),
        "0": GroupLasso(1.0) + L1(0.5),
        "1": L1(1.0),
        named("1") & biases: None,
    }
    found = logged(regularize(model, rules))
    group = 3 * math.sqrt(3) * math.sqrt(3) / 2 + 0.5 * 9 / 2
    assert found == {
        "penalty": pytest.approx(group + 2.0 + 0.05),
        "penalties/0": pytest.approx(group),
        "penalties/1": pytest.approx(2.0),
        "penalties/kernels": pytest.approx(0.05),
        "zeros": pytest.approx(7 / 22),
        "groups/0": 3,
    }
    assert next(iter(found)) == "penalty"


def test_declarations_scopes_frozen_and_tied_parameters() -> None:
    with scope({kernels: L2(0.1)}):
        model = network()
    declare(model[2].weight, L1(0.2))
    model[1].weight.requires_grad_(False)
    model.append(nn.Linear(4, 3))
    model[3].weight = nn.Parameter(torch.ones(3, 4))
    model.append(nn.Linear(4, 3))
    model[4].weight = model[3].weight
    found = logged(regularize(model, {everything: L1(1.0)}))
    assert found["penalties/scope_kernels"] == pytest.approx(0.1 * 9 / 4)
    assert found["penalties/2.weight"] == pytest.approx(0.2)
    assert found["penalties/everything"] == pytest.approx(12 + sum(map(_size, model)), rel=1e-6)
    assert not any(key.startswith("groups") for key in found)


def _size(layer: nn.Module) -> float:
    return float(layer.bias.detach().abs().sum())  # type: ignore[union-attr,operator]


def test_schedules_nans_and_a_plan_of_nothing() -> None:
    model = network()
    assert logged(regularize(model, {kernels: L1(1.0) * linear(0, 1, 10)}))["penalty"] == 0
    with torch.no_grad():
        model[0].weight[1, 0] = math.nan
    assert logged(regularize(model, {"0": GroupLasso(1.0)}))["groups/0"] == 4
    assert logged(regularize(model, {})) == {"penalty": 0.0}


@on_ranks(2)
def test_a_sharded_model_has_the_numbers_of_the_whole() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    rules = {kernels: L2(0.1), "0": GroupLasso(1.0), "1": GroupLasso(1.0, groups="inputs")}
    whole = logged(regularize(network(), rules))
    model = network()
    fully_shard(model, mesh=init_device_mesh("cpu", (2,)))
    assert logged(regularize(model, rules)) == pytest.approx(whole)
