"""On PyTorch: its kernels have the axes of Keras' in reverse, and are called weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from agreement.problem import CLASSES, EPSILON, RATE, SHAPES, START, STEPS, TOKENS, Run, by_hand
from penalize.torch import regularize

NAMES = {
    name: name.replace("embeddings", "weight")
    .replace("kernel", "weight")
    .replace("gamma", "weight")
    .replace("beta", "bias")
    for name in SHAPES
}


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(11, 4)
        self.conv = nn.Conv1d(4, 5, kernel_size=3)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.conv(self.tokens(tokens).transpose(1, 2)).sigmoid().transpose(1, 2)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.norm = nn.LayerNorm(5, eps=EPSILON)
        self.hidden = nn.Linear(20, 7)
        self.head = nn.Linear(7, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm(self.encoder(tokens)).flatten(1)
        return self.head(self.hidden(x).sigmoid())


def as_named(net: Net) -> dict[str, Tensor]:
    """The parameters, by the common names and in the common layout."""
    return {name: _turned(name, net.get_parameter(of_torch)) for name, of_torch in NAMES.items()}


def _turned(name: str, w: Tensor) -> Tensor:
    return w.permute(*reversed(range(w.ndim))) if name.endswith("kernel") else w


def make() -> Net:
    net = Net().double()
    with torch.no_grad():
        for name, w in as_named(net).items():
            w.copy_(torch.from_numpy(START[name]))
    return net


def written_by_hand(rules: Any) -> Run:
    net = make()
    return train(net, lambda: by_hand(as_named(net)))


def loss_term(rules: Any) -> Run:
    net = make()
    plan = regularize(net, rules)
    return train(net, plan.penalty, plan)


def attached(rules: Any) -> Run:
    net = make()
    plan = regularize(net, rules)
    return train(net, None, plan)


def train(net: Net, penalty: Callable[[], Tensor] | None, plan: Any = None) -> Run:
    """Ten steps with the penalty in the loss; without one, with the plan attached."""
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE)
    if penalty is None:
        plan.attach(optimizer)
    with torch.no_grad():
        start = float((penalty or plan.penalty)())
    tokens, classes = torch.from_numpy(TOKENS), torch.from_numpy(CLASSES).long()
    steps = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = functional.cross_entropy(net(tokens), classes)
        (loss if penalty is None else loss + penalty()).backward()
        optimizer.step()
        steps.append({n: w.detach().numpy().copy() for n, w in as_named(net).items()})
    return Run(start, _seen(plan), steps)


def _seen(plan: Any) -> dict[str, str]:
    by_name = {row.name: repr(row.regularizer) for row in plan.rows} if plan else {}
    return {name: by_name[of_torch] for name, of_torch in NAMES.items() if by_name}
