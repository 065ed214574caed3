"""skorch: the strength of an L1 by cross-validation, and which pixels of a digit are needed.

Run it with ``python examples/skorch_digits.py``; it needs penalize[skorch].
"""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from skorch import NeuralNetClassifier
from skorch.callbacks import LRScheduler
from torch import nn

from penalize import L1, kernels
from penalize.integrations.skorch import PenalizeCallback

x, y = load_digits(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split((x / 16).astype("float32"), y, random_state=0)


def network():
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


torch.manual_seed(0)
rate = LRScheduler("CosineAnnealingLR", T_max=15)
net = NeuralNetClassifier(
    network,
    criterion=nn.CrossEntropyLoss,
    optimizer=torch.optim.Adam,
    callbacks=[PenalizeCallback(mode="proximal"), rate],
    **{"lr": 0.02, "max_epochs": 15, "train_split": None, "verbose": 0},
)
rules = [{kernels: L1(strength)} for strength in (3e-4, 3e-3, 3e-2)]
grid = GridSearchCV(net, {"callbacks__PenalizeCallback__rules": rules}, cv=2)
accuracy = grid.fit(x_train, y_train).score(x_test, y_test)
best = grid.best_estimator_
zeros, kernel = best.history[-1, "zeros"], best.module_[0].weight.detach()
print(f"chosen {grid.best_params_['callbacks__PenalizeCallback__rules']}")
print(f"accuracy {accuracy:.1%}, {zeros:.1%} exact zeros")
