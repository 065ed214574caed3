"""A smaller model at each strength of a path."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from penalize import GroupLasso
from penalize.errors import PathError
from penalize.torch import Training, path, regularize

pytestmark = pytest.mark.filterwarnings("ignore::penalize.errors.NothingToCutWarning")


def test_each_strength_has_its_size() -> None:
    torch.manual_seed(0)
    x = torch.randn(40, 3).double()
    training = Training(
        x=x,
        y=x[:, :1].abs(),
        loss=nn.MSELoss(),
        optimizer=partial(torch.optim.SGD, lr=0.1),
        epochs=60,
    )
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    plan = regularize(model, {"0": GroupLasso(1.0, groups="outputs")})
    found = path(training, plan, [0.3, 0.03, 0.003], None, progress=False)
    before = [w.clone() for w in model.parameters()]
    smaller = [found.compact(x[:2], which=strength) for strength in found.strengths]
    left = [each[0].after for each in smaller]
    assert left == sorted(left)
    assert left[0] < left[-1]
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    for strength, each in zip(found.strengths, smaller, strict=True):
        found.load(strength)
        torch.testing.assert_close(each.model(x), model(x), rtol=0, atol=1e-12)
    with pytest.raises(PathError, match=r"0\.5 is no strength of the path"):
        found.compact(x, which=0.5)
