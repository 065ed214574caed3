"""Which axis ``"outputs"`` and ``"inputs"`` mean: measured by what the layer does, not by its docs.

An output is a slice of the kernel that alone decides one output channel; an input is one that one
input channel alone meets. Both are found by silencing the slice and looking at the layer.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from penalize import GroupLasso, GroupsError, kernels
from penalize.torch import regularize

# Layer, and an input with a batch in front and the channels next to it.
LAYERS: dict[str, tuple[nn.Module, Tensor]] = {
    "Linear": (nn.Linear(4, 3, bias=False), torch.randn(2, 4)),
    "Conv1d": (nn.Conv1d(4, 3, 2, bias=False), torch.randn(2, 4, 5)),
    "Conv2d": (nn.Conv2d(4, 3, 2, bias=False), torch.randn(2, 4, 5, 5)),
    "Conv3d": (nn.Conv3d(4, 3, 2, bias=False), torch.randn(2, 4, 3, 3, 3)),
    "ConvTranspose1d": (nn.ConvTranspose1d(4, 3, 2, bias=False), torch.randn(2, 4, 5)),
    "ConvTranspose2d": (nn.ConvTranspose2d(4, 3, 2, bias=False), torch.randn(2, 4, 5, 5)),
}


def groups_of(layer: nn.Module, word: str) -> int:
    """The axis that a plan resolves the word to."""
    plan = regularize(layer, {kernels: GroupLasso(1.0, groups=word)})
    (target,) = plan.targets()
    return int(target.regularizer.groups)


@pytest.mark.parametrize(("layer", "x"), LAYERS.values(), ids=LAYERS)
def test_outputs_alone_decide_one_output(layer: nn.Module, x: Tensor) -> None:
    axis = groups_of(layer, "outputs")
    before = layer(x)
    weight: Tensor = layer.weight
    for index in range(weight.shape[axis]):
        kept = weight.detach().clone()
        with torch.no_grad():
            weight.select(axis, index).zero_()
        after = layer(x)
        changed = [c for c in range(after.shape[1]) if not torch.equal(after[:, c], before[:, c])]
        assert changed == [index]
        assert not after[:, index].any()
        weight.data.copy_(kept)


@pytest.mark.parametrize(("layer", "x"), LAYERS.values(), ids=LAYERS)
def test_inputs_alone_meet_one_input(layer: nn.Module, x: Tensor) -> None:
    axis = groups_of(layer, "inputs")
    weight: Tensor = layer.weight
    for index in range(weight.shape[axis]):
        kept = weight.detach().clone()
        with torch.no_grad():
            weight.select(axis, index).zero_()
        other = x.clone()
        other[:, index] += 1.0
        torch.testing.assert_close(layer(other), layer(x))
        weight.data.copy_(kept)


def test_rows_of_an_embedding_are_its_inputs() -> None:
    layer = nn.Embedding(7, 3)
    rules: Any = {"weight": GroupLasso(1.0, groups="inputs", size_weighted=False)}
    torch.testing.assert_close(regularize(layer, rules).penalty(), layer.weight.norm(dim=1).sum())


@pytest.mark.parametrize(
    ("layer", "word"),
    [
        (nn.Conv2d(4, 4, 2, groups=2), "inputs"),
        (nn.ConvTranspose2d(4, 4, 2, groups=2), "outputs"),
        (nn.Bilinear(3, 4, 2), "inputs"),
    ],
)
def test_where_no_single_axis_holds_them(layer: nn.Module, word: str) -> None:
    with pytest.raises(GroupsError, match=rf"'{word}' on 'weight': no single axis holds the"):
        regularize(layer, GroupLasso(1.0, groups=word))
    regularize(layer, GroupLasso(1.0, groups=0))


def test_a_bias_has_outputs_but_no_inputs() -> None:
    layer = nn.Linear(4, 3)
    plan = regularize(layer, {"bias": GroupLasso(0.5)})
    torch.testing.assert_close(plan.penalty(), 0.5 * layer.bias.abs().sum())
    with pytest.raises(GroupsError, match="'inputs' on 'bias'"):
        regularize(layer, {"bias": GroupLasso(0.5, groups="inputs")})


def test_groups_that_do_not_fit_name_the_parameter() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    with pytest.raises(GroupsError, match=r"groups=2 on '0\.weight': the shape \(3, 4\) has no"):
        regularize(model, GroupLasso(1.0, groups=2))
    with pytest.raises(GroupsError, match=r"on '1\.weight': it lists 12 indices"):
        regularize(model, GroupLasso(1.0, groups=[list(range(12))]))


def test_a_tied_pair_that_disagrees_needs_an_axis() -> None:
    model = nn.ModuleDict({"wte": nn.Embedding(7, 3), "head": nn.Linear(3, 7, bias=False)})
    model["head"].weight = model["wte"].weight
    with pytest.raises(GroupsError, match="name an axis"):
        regularize(model, {"wte.weight": GroupLasso(1.0, groups="inputs")})
    regularize(model, {"wte.weight": GroupLasso(1.0, groups=0)})
