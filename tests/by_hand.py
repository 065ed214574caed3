"""Training loops by hand, with nothing of ours in them: what trainers are compared with.

The first kernel of the network has λ₁Σ|w|, the second λ₂Σw²; biases have nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

ADVICE = (
    ".*does not have many workers",
    ".*lower value for log_every_n_steps",
    ".*LeafSpec.* is deprecated",
)
"""What Lightning warns of in small trainings."""

STRENGTHS = (0.03, 0.05)
"""λ₁ and λ₂."""

RATE = 0.1

Batch = tuple[Tensor, Tensor]


def network(seed: int = 0) -> nn.Sequential:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator).double())
    return model


def data(count: int) -> Batch:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 5, generator=generator, dtype=torch.float64)
    return x, (x[:, :1] - 2 * x[:, 1:2]).tanh()


def batches(count: int, size: int = 4) -> list[Batch]:
    x, y = data(count * size)
    return list(zip(x.split(size), y.split(size), strict=True))


def loss_of(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return (model(x) - y).square().mean()


def trained(
    model: nn.Sequential,
    seen: Sequence[Batch],
    mode: str,
    make: Callable[..., torch.optim.Optimizer],
    *,
    accumulate: int = 1,
    clip: float | None = None,
    after: Callable[[nn.Module], None] = lambda model: None,
) -> nn.Sequential:
    """The model, after a step for every so many batches; the last window may be short."""
    optimizer = make(model.parameters(), lr=RATE)
    for number, (x, y) in enumerate(seen, 1):
        (loss_of(model, x, y) / accumulate).backward()
        if mode == "in the loss":
            _gradient_step(model, "gradient")
        if number % accumulate and number < len(seen):
            continue
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        if mode in ("gradient", "decoupled"):
            _gradient_step(model, mode)
        optimizer.step()
        if mode == "proximal":
            _soft_thresholds(model)
        optimizer.zero_grad()
        after(model)
    return model


def trained_in(
    half: torch.dtype,
    model: nn.Sequential,
    seen: Sequence[Batch],
    scaler: torch.amp.GradScaler | None,
) -> tuple[nn.Sequential, int]:
    """The model after SGD steps in mixed precision, in mode gradient; and how many were skipped."""
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    skipped = 0
    for x, y in seen:
        with torch.autocast("cpu", half, cache_enabled=False):
            loss = loss_of(model, x, y)
        if scaler is None:
            loss.backward()
            _gradient_step(model, "gradient")
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            if all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters()):
                _gradient_step(model, "gradient")
            else:
                skipped += 1
            scaler.step(optimizer)
            scaler.update()
        optimizer.zero_grad()
    return model, skipped


@torch.no_grad()
def _gradient_step(model: nn.Sequential, mode: str) -> None:
    (first, second), (lasso, ridge) = (model[0].weight, model[2].weight), STRENGTHS
    for w, slope in ((first, lasso * first.sign()), (second, 2 * ridge * second)):
        if mode == "gradient":
            assert w.grad is not None
            w.grad += slope
        else:
            w -= RATE * slope


@torch.no_grad()
def _soft_thresholds(model: nn.Sequential) -> None:
    """The proximal steps behind plain SGD, whose step is its rate."""
    (first, second), (lasso, ridge) = (model[0].weight, model[2].weight), STRENGTHS
    first.copy_(first.sign() * (first.abs() - RATE * lasso).clamp(min=0))
    second /= 1 + 2 * RATE * ridge


def apart(first: nn.Module, second: nn.Module) -> float:
    """The largest difference of any parameter."""
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return max(float((p - q).detach().abs().max()) for p, q in pairs)
