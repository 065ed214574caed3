"""The group lasso's network without the hidden units that it does not use."""

from __future__ import annotations

import statistics
import time
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from penalize.demo.data import Digits
from penalize.demo.training import Trained
from penalize.errors import NothingToCutWarning
from penalize.torch import compact


@dataclass(frozen=True)
class SmallerRow:
    """The figures of a network that was compacted."""

    units: int
    """Hidden units left."""

    units_in_all: int
    parameters: int
    """Numbers that its parameters are."""

    parameters_in_all: int
    time: float
    """How long all test images take at once, over how long they take in the network before."""

    changed: int
    """Test images that are predicted otherwise than before."""


def smaller(trained: Trained, data: Digits) -> SmallerRow:
    """The figures of a run's network, compacted."""
    model, images = trained.model.eval(), data.test_images
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NothingToCutWarning)  # after an epoch there may be none
        found = compact(model, images)
    with torch.no_grad():
        changed = model(images).argmax(dim=1) != found.model(images).argmax(dim=1)
    before, after = found.parameters
    return SmallerRow(
        units=found[0].after,
        units_in_all=found[0].before,
        parameters=after,
        parameters_in_all=before,
        time=time_ratio(found.model, model, images),
        changed=int(changed.sum()),
    )


def time_ratio(model: nn.Module, other: nn.Module, batch: Tensor, rounds: int = 41) -> float:
    """How long a model takes for a batch, over how long another takes: the median of many pairs.

    It is the time of the processor, on one thread, and the models take turns: so it is hardly
    another one on a busy machine.
    """
    timers = [
        Timer("model(batch)", globals={"model": each, "batch": batch}, timer=time.thread_time)
        for each in (model, other)
    ]
    with torch.inference_mode():
        for timer in timers:
            timer.timeit(3)
        pairs = [[timer.timeit(5).mean for timer in timers] for _ in range(rounds)]
    return statistics.median(mine / theirs for mine, theirs in pairs)
