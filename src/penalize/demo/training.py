"""Training one network under one contender's penalty. Everything else is the same for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from penalize.demo.contenders import Contender
from penalize.demo.data import Digits
from penalize.logs import log
from penalize.torch import Plan, regularize

LEARNING_RATE = 0.1
MOMENTUM = 0.9
BATCH_SIZE = 64


class Network(nn.Module):
    """64 pixels → 64 hidden units with ReLU → 10 digits."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(64, 64)
        self.out = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """The logits."""
        scores: Tensor = self.out(torch.relu(self.hidden(images)))
        return scores


@dataclass(frozen=True)
class Curves:
    """Data loss and penalty apart, and zeros: before training, and after each epoch."""

    data_loss: list[float] = field(default_factory=list)
    penalty: list[float] = field(default_factory=list)
    zeros: list[float] = field(default_factory=list)
    """The share of the penalized weights that are exactly 0."""


@dataclass(frozen=True)
class Trained:
    """A contender, the network that it trained, its plan, and how it went."""

    contender: Contender
    model: Network
    plan: Plan
    curves: Curves


def train(
    contender: Contender,
    data: Digits,
    *,
    epochs: int,
    seed: int,
    after_epoch: Callable[[Curves], None] = lambda _: None,
) -> Trained:
    """SGD with momentum on the cross entropy; the attached plan does the rest."""
    with _seeded(seed):
        model = Network()
    plan = regularize(model, contender.rules)
    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
    plan.attach(optimizer, mode=contender.mode)
    order = torch.Generator().manual_seed(seed)
    trained = Trained(contender, model, plan, Curves())
    with _one_thread():
        _record(trained, data)
        for _ in range(epochs):
            _epoch(model, optimizer, data, order)
            _record(trained, data)
            after_epoch(trained.curves)
    return trained


def _epoch(
    model: Network, optimizer: torch.optim.Optimizer, data: Digits, order: torch.Generator
) -> None:
    """An ordinary loop: no penalty in sight."""
    shuffled = torch.randperm(len(data.train_labels), generator=order)
    for batch in torch.split(shuffled, BATCH_SIZE):
        optimizer.zero_grad()
        loss = cross_entropy(model(data.train_images[batch]), data.train_labels[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _record(trained: Trained, data: Digits) -> None:
    with torch.no_grad():
        loss = cross_entropy(trained.model(data.train_images), data.train_labels)
    trained.curves.data_loss.append(float(loss))
    numbers = log(trained.plan)
    trained.curves.penalty.append(numbers["penalty"])
    trained.curves.zeros.append(numbers.get("zeros", 0.0))  # without penalties there is no share


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed what draws initial weights, and leave the caller's random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def _one_thread() -> Iterator[None]:
    """Layers this small gain nothing from more, and on a busy machine they lose a lot."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
