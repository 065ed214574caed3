"""``clip="with"`` in every loop: equal to a loss term under the same clipping, or refused."""

from __future__ import annotations

import copy
import gc
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, parametrizations
from torch.optim import LBFGS, SGD, AdamW, Optimizer
from torch.utils.checkpoint import checkpoint

from penalize import L1, L2, GroupLasso, ModeError, OptimizerError, everything
from penalize.torch import audit, regularize

RULES = {everything: L1(0.1) + L2(0.3), "2": GroupLasso(0.5)}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def batches(count: int = 4) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        yield (
            torch.randn(12, 6, generator=generator).double(),
            torch.randn(12, 3, generator=generator).double(),
        )


def sgd(model: nn.Module, **options: Any) -> SGD:
    return SGD(model.parameters(), lr=0.05, momentum=0.9, **options)


def loss_of(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.mse_loss(model(x), y)


Loop = Callable[[nn.Module, Optimizer, Any], None]
"""(model, optimizer, what is added to each loss)."""


def simple(model: nn.Module, optimizer: Optimizer, penalty: Any) -> None:
    for x, y in batches():
        optimizer.zero_grad()
        (loss_of(model, x, y) + penalty()).backward()
        clip_grad_norm_(model.parameters(), 0.3)
        optimizer.step()


def by_value(model: nn.Module, optimizer: Optimizer, penalty: Any) -> None:
    for x, y in batches():
        optimizer.zero_grad()
        (loss_of(model, x, y) + penalty()).backward()
        clip_grad_value_(model.parameters(), 0.05)
        optimizer.step()


def accumulated(model: nn.Module, optimizer: Optimizer, penalty: Any) -> None:
    for x, y in batches():
        optimizer.zero_grad()
        for a, b in zip(x.chunk(3), y.chunk(3), strict=True):
            ((loss_of(model, a, b) + penalty()) / 3).backward()
        clip_grad_norm_(model.parameters(), 0.3)
        optimizer.step()


def closures(model: nn.Module, optimizer: Optimizer, penalty: Any) -> None:
    def closure(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, x, y) + penalty()
        loss.backward()
        clip_grad_norm_(model.parameters(), 0.3)
        return loss

    for batch in batches():
        optimizer.step(partial(closure, *batch))


def another_pass_before(model: nn.Module, optimizer: Optimizer, penalty: Any) -> None:
    """As a generator's loss goes through its discriminator."""
    for x, y in batches():
        loss_of(model, x, y).backward()
        optimizer.zero_grad()
        (loss_of(model, x, y) + penalty()).backward()
        clip_grad_norm_(model.parameters(), 0.3)
        optimizer.step()


def a_pass_that_fails(model: nn.Module, optimizer: Optimizer, penalty: Any) -> None:
    def fail(gradient: Tensor) -> None:
        raise KeyboardInterrupt

    for x, y in batches():
        optimizer.zero_grad()
        hook = model[0].weight.register_hook(fail)
        with pytest.raises(KeyboardInterrupt):
            loss_of(model, x, y).backward()
        hook.remove()
        optimizer.zero_grad()
        (loss_of(model, x, y) + penalty()).backward()
        clip_grad_norm_(model.parameters(), 0.3)
        optimizer.step()


def checkpointed(model: nn.Module, optimizer: Optimizer, penalty: Any) -> None:
    """Reentrant checkpoints run a backward pass within the backward pass."""
    for x, y in batches():
        optimizer.zero_grad()
        out = checkpoint(model, x.requires_grad_(), use_reentrant=True)
        (nn.functional.mse_loss(out, y) + penalty()).backward()
        clip_grad_norm_(model.parameters(), 0.3)
        optimizer.step()


def never_cleared(model: nn.Module, optimizer: Optimizer, penalty: Any) -> None:
    for x, y in batches():
        (loss_of(model, x, y) + penalty()).backward()
        clip_grad_norm_(model.parameters(), 0.3)
        optimizer.step()


def with_a_graph_of_the_gradient(model: nn.Module, optimizer: Optimizer, penalty: Any) -> None:
    """Accumulation puts another tensor in the place of .grad then."""
    for x, y in batches():
        optimizer.zero_grad()
        for a, b in zip(x.chunk(2), y.chunk(2), strict=True):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ((loss_of(model, a, b) + penalty()) / 2).backward(create_graph=True)
        for p in model.parameters():
            assert p.grad is not None
            p.grad.detach_()
        clip_grad_norm_(model.parameters(), 0.3)
        optimizer.step()


def unrolled_with_skipped_steps(model: nn.Module, optimizer: Optimizer, penalty: Any) -> None:
    """A weight that is used three times and more: autograd adds its gradients up in place."""
    for i, (x, _) in enumerate(batches(6)):
        optimizer.zero_grad()
        hidden = x
        for _ in range(4):
            hidden = model[0](hidden).repeat(1, 2)[:, :6]
        (model(hidden).square().mean() + penalty()).backward()
        clip_grad_norm_(model.parameters(), 0.3)
        if i % 2:
            optimizer.step()


LOOPS: dict[str, Loop] = {
    loop.__name__: loop
    for loop in (
        simple,
        by_value,
        accumulated,
        closures,
        never_cleared,
        with_a_graph_of_the_gradient,
        unrolled_with_skipped_steps,
        another_pass_before,
        a_pass_that_fails,
        checkpointed,
    )
}


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
@pytest.mark.parametrize("maximize", [False, True], ids=["", "maximize"])
def test_equals_a_loss_term_that_is_clipped(loop: Loop, maximize: bool) -> None:
    by_hand, attached, unclipped = network(), network(), network()
    optimizers = [sgd(m, maximize=maximize) for m in (by_hand, attached, unclipped)]
    plan = regularize(by_hand, RULES)
    sign = -1 if maximize else 1
    loop(by_hand, optimizers[0], lambda: sign * plan.penalty())
    regularize(attached, RULES).attach(optimizers[1], clip="with")
    loop(attached, optimizers[1], lambda: 0)
    regularize(unclipped, RULES).attach(optimizers[2])
    loop(unclipped, optimizers[2], lambda: 0)
    torch.testing.assert_close(attached.state_dict(), by_hand.state_dict(), rtol=1e-9, atol=1e-12)
    assert not torch.allclose(unclipped[0].weight, by_hand[0].weight, rtol=1e-3)


def test_lbfgs() -> None:
    by_hand, attached = network(), network()
    plan = regularize(by_hand, L2(0.3))
    options: dict[str, Any] = {"max_iter": 5, "line_search_fn": "strong_wolfe"}
    closures(by_hand, LBFGS(by_hand.parameters(), **options), plan.penalty)
    optimizer = LBFGS(attached.parameters(), **options)
    regularize(attached, L2(0.3)).attach(optimizer, clip="with")
    closures(attached, optimizer, lambda: 0)
    torch.testing.assert_close(attached.state_dict(), by_hand.state_dict(), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("enabled", [False, True])
def test_under_a_scaler(fused: bool, enabled: bool) -> None:
    by_hand, attached = network(), network()
    optimizer = AdamW(by_hand.parameters(), lr=0.01, weight_decay=0.0)
    plan = regularize(by_hand, RULES)
    accumulated(by_hand, optimizer, plan.penalty)
    optimizer = AdamW(attached.parameters(), lr=0.01, weight_decay=0.0, fused=fused)
    scaler = torch.amp.GradScaler("cpu", enabled=enabled)
    regularize(attached, RULES).attach(optimizer, clip="with", scaler=scaler)
    for x, y in batches():
        optimizer.zero_grad()
        for a, b in zip(x.chunk(3), y.chunk(3), strict=True):
            scaler.scale(loss_of(attached, a, b) / 3).backward()
        scaler.unscale_(optimizer)
        clip_grad_norm_(attached.parameters(), 0.3)
        scaler.step(optimizer)
        scaler.update()
    torch.testing.assert_close(attached.state_dict(), by_hand.state_dict(), rtol=1e-6, atol=1e-9)


def test_effective_weights() -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        return parametrizations.weight_norm(nn.Linear(6, 3)).double()

    by_hand, attached = make(), make()
    plan = regularize(by_hand, L2(0.3))
    simple(by_hand, sgd(by_hand), plan.penalty)
    optimizer = sgd(attached)
    regularize(attached, L2(0.3)).attach(optimizer, clip="with")
    simple(attached, optimizer, lambda: 0)
    torch.testing.assert_close(attached.state_dict(), by_hand.state_dict())


def test_parameters_without_a_gradient_and_ones_that_are_unfrozen() -> None:
    """What no backward pass reaches is penalized all the same, and clipped with the rest."""
    by_hand, attached = network(), network()
    for model in (by_hand, attached):
        model.append(nn.Linear(2, 2).double())
        model[0].requires_grad_(False)
        model[3].weight.data.fill_(0.5)
        model[3].bias.data.fill_(0.1)
    plan = regularize(by_hand, RULES)
    first, second = sgd(by_hand), sgd(attached)
    regularize(attached, RULES).attach(second, clip="with")
    for unfrozen in (False, True):
        for model, optimizer, penalty in (
            (by_hand, first, plan.penalty),
            (attached, second, lambda: 0),
        ):
            model[0].requires_grad_(unfrozen)
            for x, y in batches():
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(model[:3](x), y)
                (loss + penalty()).backward()
                clip_grad_norm_(model.parameters(), 0.3)
                optimizer.step()
    torch.testing.assert_close(attached.state_dict(), by_hand.state_dict())


def test_several_optimizers() -> None:
    by_hand, attached = network(), network()
    plan = regularize(by_hand, RULES)
    simple(by_hand, sgd(by_hand), plan.penalty)
    first, second = sgd(attached[0]), sgd(attached[2])
    regularize(attached, RULES).attach([first, second], clip="with")
    for x, y in batches():
        for optimizer in (first, second):
            optimizer.zero_grad()
        loss_of(attached, x, y).backward()
        clip_grad_norm_(attached.parameters(), 0.3)
        for optimizer in (first, second):
            optimizer.step()
    torch.testing.assert_close(attached.state_dict(), by_hand.state_dict())


def test_the_audit_sees_it_once_and_detach_ends_it() -> None:
    model = network()
    optimizer = sgd(model)
    plan = regularize(model, RULES)
    attachment = plan.attach(optimizer, clip="with")

    def step() -> None:
        x, y = next(batches())
        optimizer.zero_grad()
        loss_of(model, x, y).backward()
        optimizer.step()

    assert audit(step, plan).ok
    attachment.detach()
    x, y = next(batches())
    optimizer.zero_grad()
    loss_of(model, x, y).backward()
    expected = torch.autograd.grad(loss_of(model, x, y), [model[0].weight])[0]
    assert torch.equal(model[0].weight.grad, expected)


def test_the_optimizer_is_not_kept_alive() -> None:
    model = network()
    plan = regularize(model, L2(0.1))
    plan.attach(sgd(model), clip="with")
    assert plan.attachments() == []
    loss_of(model, *next(batches())).backward()
    optimizer = sgd(model)
    plan.attach(optimizer, clip="with")
    copy.deepcopy(model)


# --- what is refused ------------------------------------------------------------------------


def attached(**options: Any) -> tuple[nn.Sequential, SGD]:
    model = network()
    optimizer = sgd(model)
    regularize(model, L2(0.1)).attach(optimizer, clip="with", **options)
    return model, optimizer


@pytest.mark.parametrize("when", ["between two passes", "after a step"])
def test_gradients_that_were_zeroed_in_place(when: str) -> None:
    """At once, and not when a step happens to be skipped."""
    model, optimizer = attached()
    x, y = next(batches())
    loss_of(model, x, y).backward()
    if when == "after a step":
        optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    with pytest.raises(OptimizerError, match=r"When a backward pass began.*zero_grad\(set_to_none"):
        loss_of(model, x, y).backward()


def test_gradients_that_no_backward_pass_gave() -> None:
    model, optimizer = attached()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    with pytest.raises(OptimizerError, match=r"not the one that a backward pass.*in place"):
        optimizer.step()


def test_a_pass_that_reaches_no_penalized_weight() -> None:
    """It is clipped with what the pass does reach."""
    by_hand, model = network(), network()
    optimizers = [sgd(m) for m in (by_hand, model)]
    plan = regularize(by_hand, {"2": L2(3.0)})
    regularize(model, {"2": L2(3.0)}).attach(optimizers[1], clip="with")
    x, _ = next(batches())
    for m, optimizer, penalty in zip(
        (by_hand, model), optimizers, (plan.penalty, lambda: 0), strict=True
    ):
        (m[0](x).square().mean() + penalty()).backward()
        assert clip_grad_norm_(m.parameters(), 0.3) > 0.3
        optimizer.step()
    torch.testing.assert_close(model.state_dict(), by_hand.state_dict())


def test_two_plans_and_several_passes() -> None:
    by_hand, model = network(), network()
    first, second = sgd(by_hand), sgd(model)
    plan = regularize(by_hand, RULES)
    accumulated(by_hand, first, plan.penalty)
    regularize(model, {everything: L1(0.1) + L2(0.3), "2.weight": None}).attach(second, clip="with")
    regularize(model, {"2": GroupLasso(0.5)}).attach(second, clip="with")
    accumulated(model, second, lambda: 0)
    torch.testing.assert_close(model.state_dict(), by_hand.state_dict())


def test_the_parameters_keep_no_hooks() -> None:
    model = network()
    for _ in range(3):
        optimizer = sgd(model)
        attachment = regularize(model, L2(0.1)).attach(optimizer, clip="with")
        attachment.detach()
        regularize(model, L2(0.1)).attach(optimizer, clip="with")
        del optimizer, attachment
        gc.collect()
    for p in model.parameters():
        assert not p._backward_hooks
        assert not p._post_accumulate_grad_hooks


@pytest.mark.parametrize("when", ["before another pass", "before the step"])
def test_gradients_that_were_replaced(when: str) -> None:
    model, optimizer = attached()
    x, y = next(batches())
    loss_of(model, x, y).backward()
    for p in model.parameters():
        p.grad = p.grad / 2
    before = copy.deepcopy(model.state_dict())
    if when == "before another pass":
        with pytest.raises(OptimizerError, match="When a backward pass began"):
            loss_of(model, x, y).backward()
    else:
        with pytest.raises(OptimizerError, match=r"not the one that a backward pass.*in place"):
            optimizer.step()
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("unscale", [False, True])
def test_a_scaler_that_was_not_told_of(fused: bool, unscale: bool) -> None:
    model = network()
    optimizer = sgd(model, fused=fused)
    regularize(model, L2(0.1)).attach(optimizer, clip="with")
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(loss_of(model, *next(batches()))).backward()
    if unscale:
        scaler.unscale_(optimizer)
    with pytest.raises(OptimizerError, match=r"SGD is stepped by a GradScaler.*scaler=scaler"):
        scaler.step(optimizer)


def test_a_scaler_that_is_not_used() -> None:
    model, optimizer = attached(scaler=torch.amp.GradScaler("cpu"))
    loss_of(model, *next(batches())).backward()
    with pytest.raises(OptimizerError, match="stepped without it"):
        optimizer.step()


@pytest.mark.parametrize("mode", ["decoupled", "proximal"])
def test_other_modes(mode: str) -> None:
    model = network()
    with pytest.raises(ModeError, match=f"mode='{mode}' adds none"):
        regularize(model, L2(0.1)).attach(sgd(model), mode, clip="with")


@pytest.mark.parametrize("clip", ["before", None, True])
def test_other_words(clip: Any) -> None:
    model = network()
    with pytest.raises(ModeError, match=r'expected "without" or "with"'):
        regularize(model, L2(0.1)).attach(sgd(model), clip=clip)


def test_a_scaler_that_is_none() -> None:
    model = network()
    with pytest.raises(ModeError, match=r"scaler=1024\.0; expected the torch\.amp\.GradScaler"):
        regularize(model, L2(0.1)).attach(sgd(model), clip="with", scaler=1024.0)  # type: ignore[arg-type]
