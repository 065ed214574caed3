"""A trial: some steps of a new optimizer, of the class and settings of one that is in use.

Whether an optimizer may be acted on beside its gradients depends on what it does with what it
keeps, and neither its name nor one step tells: Lookahead puts its own weights in place after five,
and others begin by setting something up. So a new one is made, on small weights, and watched. The
user's optimizer, the random numbers, and whoever listens to steps know nothing of it.
"""

from __future__ import annotations

import io
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from penalize.torch.clock import unheard
from penalize.torch.modes.recipes import Recipe, refusing

STEPS = 20
"""How many there are in a trial that is not told otherwise."""

Edit = Callable[[int, Tensor], None]
"""(step, weights) → what is done to the weights before a step; steps count from 1."""


Look = Callable[[Optimizer, Sequence[nn.Parameter]], None]
"""(optimizer, weights) → looks at them."""


def run(
    recipe: Recipe,
    change: Mapping[str, Any],
    edit: Edit | None = None,
    *,
    steps: int = STEPS,
    look: Look | None = None,
    in_closure: bool = False,
) -> list[Tensor]:
    """All weights of a new optimizer, in one vector: at first, and after each step.

    Args:
        recipe: how it is made.
        change: settings that are to be others than those of the one in use.
        edit: what is done beside it.
        steps: how many it takes.
        look: what is called after the last.
        in_closure: whether a closure computes the gradients, and the edit comes right after it.

    Raises:
        NotTriedError: it cannot be made, or cannot be stepped in this way.
    """
    with refusing(), _unseen():
        optimizer, parameters = recipe.make(change)
        try:
            passed = _trained(optimizer, parameters, edit, steps, in_closure)
            if look is not None:
                look(optimizer, parameters)
        finally:
            _let_go(optimizer)
    return passed


def _trained(
    optimizer: Optimizer,
    parameters: Sequence[nn.Parameter],
    edit: Edit | None,
    steps: int,
    in_closure: bool,
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    towards = [torch.randn(p.shape, generator=generator) for p in parameters]
    passed = [_vector(parameters)]
    for step in range(1, steps + 1):
        noise = [0.3 * torch.randn(p.shape, generator=generator) for p in parameters]
        gradients = [
            (t + n).to(p.device) for t, n, p in zip(towards, noise, parameters, strict=True)
        ]
        act = None if edit is None else partial(edit, step)
        closure = _closure(parameters, gradients, act)
        if in_closure:
            optimizer.step(closure)  # type: ignore[arg-type]  # a tensor, as everywhere
        else:
            closure()
            optimizer.step()
        passed.append(_vector(parameters))
    return passed


def _closure(
    parameters: Sequence[nn.Parameter],
    gradients: Sequence[Tensor],
    edit: Callable[[Tensor], None] | None,
) -> Callable[[], Tensor]:
    """What computes the gradients, and has the weights edited when it did so first."""
    waiting = [] if edit is None else [edit]

    def closure() -> Tensor:
        for p, gradient in zip(parameters, gradients, strict=True):
            p.grad = gradient.clone()
        for each in waiting:
            for p in parameters:
                each(p.detach())
        waiting.clear()
        return torch.zeros(())

    return closure


def _let_go(optimizer: Optimizer) -> None:
    """Have nothing in it refer to itself: it is gone now, and not when Python collects it."""
    if vars(optimizer).pop("step", None) is not None:
        for inner in list(vars(optimizer).values()):
            if isinstance(inner, Optimizer):
                _let_go(inner)


@contextmanager
def _unseen() -> Iterator[None]:
    """Within the block nobody hears of steps; afterwards the random numbers are those of before."""
    state = random.getstate()
    numpy = sys.modules.get("numpy")
    drawn = None if numpy is None else numpy.random.get_state()
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng())
        stack.callback(random.setstate, state)
        if numpy is not None:
            stack.callback(numpy.random.set_state, drawn)
        stack.enter_context(unheard())
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(redirect_stdout(io.StringIO()))
        # Whatever the user's defaults are: the weights of a trial are in float32.
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float32)
        stack.enter_context(torch.device("cpu"))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if "torch._dynamo" in sys.modules:  # so few steps are not worth a compilation
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


def _vector(parameters: Sequence[nn.Parameter]) -> Tensor:
    return torch.cat([p.detach().reshape(-1).to("cpu", torch.float64) for p in parameters])
