"""Loops with accelerate and ``prepare``, against loops by hand that know neither."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import by_hand
import pytest
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import DistributedType
from accelerate_runs import forget, loader, loop
from by_hand import STRENGTHS, apart
from torch.optim import SGD, Adam

from penalize import L1, L2, AppliedTwiceError, StateError, TrainerError, kernels, warmup
from penalize.integrations.accelerate import prepare
from penalize.torch import regularize

RULES = {kernels: L2(STRENGTHS[1]), "0": L1(STRENGTHS[0])}
RESUMED: Any = {kernels: L2(STRENGTHS[1]) * warmup(20), "0": L1(0.3) * warmup(25)}


@pytest.fixture(autouse=True)
def _forget_the_last() -> Iterator[None]:
    """Accelerate has one state per process."""
    forget()
    yield
    forget()


MODES = [("gradient", Adam), ("decoupled", Adam), ("proximal", SGD)]


@pytest.mark.parametrize(("mode", "make"), MODES, ids=[mode for mode, _ in MODES])
@pytest.mark.parametrize("early", [False, True])
def test_ten_steps_of_accumulated_and_clipped_gradients(mode: str, make: Any, early: bool) -> None:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = by_hand.network()
    optimizer = make(model.parameters(), lr=by_hand.RATE)
    if early:
        prepare(regularize(model, RULES), accelerator, optimizer, mode)
    prepared, stepped, data = accelerator.prepare(model, optimizer, loader(20))
    if not early:
        prepare(regularize(prepared, RULES), accelerator, stepped, mode)
    loop(accelerator, prepared, stepped, data, clip=0.1)
    seen = by_hand.batches(20)
    expected = by_hand.trained(by_hand.network(), seen, mode, make, accumulate=2, clip=0.1)
    assert apart(model, expected) < 1e-12


@pytest.mark.parametrize("scale", [2.0**10, 2.0**18])
def test_a_scaler_that_skips_steps(scale: float) -> None:
    """As with ``mixed_precision="fp16"``, which needs an accelerator: on a CPU by its parts."""
    accelerator = Accelerator(cpu=True)
    model = by_hand.network().float()
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    optimizer = AcceleratedOptimizer(SGD(model.parameters(), lr=by_hand.RATE), scaler=scaler)
    prepare(regularize(model, RULES), accelerator, optimizer)
    seen = [(x.float(), y.float()) for x, y in by_hand.batches(10)]
    for x, y in seen:
        with torch.autocast("cpu", torch.float16, cache_enabled=False):
            loss = by_hand.loss_of(model, x, y)
        scaler.scale(loss).backward()
        optimizer.step()
        optimizer.zero_grad()
    again = torch.amp.GradScaler("cpu", init_scale=scale)
    expected, skipped = by_hand.trained_in(torch.float16, by_hand.network().float(), seen, again)
    assert apart(model, expected) < 1e-6
    assert bool(skipped) == (scale == 2.0**18)


def resumable(rules: Any = RESUMED, mode: str = "proximal") -> tuple[Any, ...]:
    forget()
    accelerator = Accelerator(cpu=True)
    model = by_hand.network()
    optimizer = SGD(model.parameters(), lr=by_hand.RATE)
    model, optimizer = accelerator.prepare(model, optimizer)
    attachment = prepare(regularize(model, rules), accelerator, optimizer, mode)
    return accelerator, model, optimizer, attachment


def test_a_training_that_was_ended_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    accelerator, whole, optimizer, _ = resumable()
    loop(accelerator, whole, optimizer, [*loader(), *loader()])
    accelerator, model, optimizer, _ = resumable()
    loop(accelerator, model, optimizer, loader())
    accelerator.save_state(tmp_path / "half")
    loop(accelerator, model, optimizer, loader(3))
    accelerator, model, optimizer, attachment = resumable()
    accelerator.load_state(tmp_path / "half")
    assert attachment.steps == [10]
    loop(accelerator, model, optimizer, loader())
    assert apart(model, whole) == 0.0

    accelerator, *_ = resumable(RULES)
    with pytest.raises(StateError, match=r"'0\.weight' has"):
        accelerator.load_state(tmp_path / "half")
    forget()
    bare = Accelerator(cpu=True)
    bare.prepare(model, SGD(model.parameters()))
    bare.save_state(tmp_path / "bare")
    accelerator, *_ = resumable()
    with pytest.raises(RuntimeError, match="Registered objects: 1"):
        accelerator.load_state(tmp_path / "bare")


def test_twice_and_what_steps_by_itself_are_refused() -> None:
    accelerator, model, optimizer, attachment = resumable()
    with pytest.raises(AppliedTwiceError, match="the attachment to SGD in mode 'proximal'"):
        prepare(regularize(model, RESUMED), accelerator, optimizer)
    attachment.detach()
    accelerator.state.distributed_type = DistributedType.DEEPSPEED
    with pytest.raises(TrainerError, match="distributed_type=DEEPSPEED"):
        prepare(regularize(model, RESUMED), accelerator, optimizer)
    assert len(accelerator._custom_objects) == 1
