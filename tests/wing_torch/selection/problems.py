"""A small problem that the tests of a path share."""

from functools import partial

import torch
from torch import nn

from penalize.torch import Training

torch.manual_seed(7)
X = torch.randn(61, 6, dtype=torch.float64)
Y = (X @ torch.randn(6, 1, dtype=torch.float64) + 0.3 * torch.randn(61, 1)).tanh().double()


def network(*middle: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(6, 5), *(middle or (nn.Tanh(),)), nn.Linear(5, 1)]
    return nn.Sequential(*layers).double()


def training(**changes) -> Training:
    settings = {
        "x": X,
        "y": Y,
        "loss": nn.MSELoss(),
        "optimizer": partial(torch.optim.Adam, lr=0.02),
        "epochs": 4,
        "batch_size": 16,
    }
    return Training(**{**settings, **changes})
