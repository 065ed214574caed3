"""A training run as data: what a path needs to know to train many models side by side."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from penalize.errors import PathError
from penalize.selection import inputs
from penalize.selection.describing import name_of
from penalize.selection.folds import SEEDS
from penalize.selection.learner import HeldOut
from penalize.selection.settings import check_settings, settings_of
from penalize.torch.plan import Plan
from penalize.torch.selection.rates import RateSchedule, check_scheduler

Fit = Callable[[Plan, Tensor, Tensor], Any]
"""(plan, train, valid) → the loss on the held-out samples, or a mapping of ``loss`` and ``score``.

It trains ``plan.model``, in place, on the samples of these numbers, with the plan attached to its
optimizer or in its loss.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """Training by an optimizer, on tensors: a ``fit`` that a path can stack.

    Called as ``training(plan, train, valid)`` it trains ``plan.model`` on the samples of these
    numbers, in the ordinary way. The batches of an epoch depend on ``seed`` and the epoch alone.

    Args:
        x: the inputs, samples along the first axis: a tensor, for ``model(x)``; a tuple of them,
            for ``model(*x)``; or a dictionary, for ``model(**x)``.
        y: the targets, likewise: a tensor.
        loss: (output, target) → the mean loss over the batch, such as ``nn.MSELoss()``.
        optimizer: makes an optimizer of parameters: ``partial(torch.optim.Adam, lr=1e-3)``.
        scheduler: makes a schedule of its learning rate, anew in each run:
            ``partial(CosineAnnealingLR, T_max=100)``.
        scheduler_every: ``"epoch"`` or ``"step"``: after which the schedule goes on.
        epochs: passes over the samples, at most.
        batch_size: None: all samples in each step.
        mode: how the plan is attached; see ``Plan.attach``.
        score: (output, target) → a number to be shown beside the loss, such as an accuracy.
        seed: of the batches.
        tolerance: training ends after an epoch in which no weight has moved by more than this.

    Raises:
        PathError: x and y are not tensors with as many samples, a number is out of its range, or
            the scheduler makes none, or one that goes by a loss.
    """

    x: inputs.Inputs
    y: Tensor
    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    epochs: int = 100
    batch_size: int | None = None
    mode: str = "proximal"
    score: Callable[[Tensor, Tensor], Any] | None = None
    seed: int = 0
    tolerance: float = 0.0
    scheduler: Callable[[Any], LRScheduler] | None = None
    scheduler_every: str = "epoch"

    def __post_init__(self) -> None:
        inputs.check(
            self.x, self.y, lambda part: isinstance(part, Tensor), "tensor", "torch.as_tensor"
        )
        for name in ("loss", "optimizer"):
            if not callable(getattr(self, name)) or isinstance(getattr(self, name), Optimizer):
                raise PathError(
                    f"Training got {name}={getattr(self, name)!r}",
                    "expected a function: loss=nn.MSELoss(), "
                    "optimizer=partial(torch.optim.Adam, lr=1e-3)",
                )
        check_scheduler(self.scheduler, self.scheduler_every)
        check_settings(self)

    @property
    def samples(self) -> int:
        """The number of samples."""
        return len(self.y)

    def __call__(self, plan: Plan, train: Tensor, valid: Tensor) -> HeldOut:
        """Train ``plan.model``, and tell what it is worth on the samples held out."""
        model = plan.model
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = self.optimizer(parameters)
        was_training = model.training
        model.train()
        with attached(plan, optimizer, self.mode):
            schedule = self.scheduled(optimizer)
            for epoch in range(self.epochs):
                before = [p.detach().clone() for p in parameters] if self.tolerance else []
                for rows in self.batches(train, epoch):
                    closure: Callable[[], Any] = partial(self._gradients, optimizer, plan, rows)
                    optimizer.step(closure)
                    schedule.after("step")
                schedule.after("epoch")
                if self.tolerance and _moved(parameters, before) <= self.tolerance:
                    break
        model.train(was_training)
        return self.held_out(model, valid)

    def scheduled(self, optimizer: Optimizer) -> RateSchedule:
        """A new schedule of an optimizer's learning rate."""
        return RateSchedule(self.scheduler, optimizer, self.scheduler_every)

    def _gradients(self, optimizer: Optimizer, plan: Plan, rows: Tensor) -> Tensor:
        """The closure of a step: some optimizers, such as LBFGS, call it several times."""
        optimizer.zero_grad()
        output = inputs.output_of(plan.model, inputs.taken(self.x, rows))
        value = self.loss(output, self.y[rows])
        if plan.activities:
            value = value + plan.activity_penalty()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    def batches(self, train: Tensor, epoch: int) -> Iterator[Tensor]:
        """The sample numbers of each batch of an epoch."""
        if self.batch_size is None:
            yield train
            return
        # A seed of its own for each epoch, so that an epoch can be had without those before it.
        seed = (self.seed * 1_000_003 + epoch) % (SEEDS + 1)
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(train), generator=generator)
        yield from torch.split(train[order], self.batch_size)

    @torch.no_grad()
    def held_out(self, model: Callable[..., Tensor], rows: Tensor) -> HeldOut:
        """Loss and score on some samples, in evaluation."""
        modules = [model] if isinstance(model, nn.Module) else []
        before = [m.training for m in modules]
        for m in modules:
            m.eval()
        output = inputs.output_of(model, inputs.taken(self.x, rows))
        target = self.y[rows]
        for m, was_training in zip(modules, before, strict=True):
            m.train(was_training)
        score = math.nan if self.score is None else float(self.score(output, target))
        return HeldOut(float(self.loss(output, target)), score)

    def data_loss(self, model: nn.Module) -> Tensor:
        """The loss of all samples, without any penalty."""
        return self.loss(inputs.output_of(model, self.x), self.y)

    def describe(self) -> dict[str, Any]:
        """The settings that make its results what they are, as plain data."""
        probe = self.optimizer([nn.Parameter(torch.zeros(1))])
        # A mark of an attachment, say, is none of its settings.
        settings = {name: probe.param_groups[0].get(name) for name in probe.defaults}
        return {
            "loss": name_of(self.loss),
            "optimizer": f"{type(probe).__name__} {settings!r}",
            "data": digest([*inputs.parts_of(self.x).values(), self.y]),
            **({} if self.scheduler is None else {"scheduler": self.scheduled(probe).described()}),
            "mode": self.mode,
            **settings_of(self),
        }


@contextmanager
def attached(plan: Plan, optimizer: Optimizer, mode: str) -> Iterator[None]:
    """A block in which the plan acts on the optimizer; no longer, whatever is raised in it."""
    if not plan.targets():  # it may penalize outputs alone
        yield
        return
    attachment = plan.attach(optimizer, mode=mode)
    try:
        yield
    finally:
        attachment.detach()


def _moved(parameters: Iterable[Tensor], before: Iterable[Tensor]) -> float:
    return max(
        float((p.detach() - old).abs().max()) for p, old in zip(parameters, before, strict=True)
    )


def digest(tensors: Iterable[Tensor]) -> str:
    """A text that tells whether tensors are the same."""
    hashed = hashlib.sha256()
    for tensor in tensors:
        hashed.update(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
        hashed.update(
            tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        )
    return hashed.hexdigest()
