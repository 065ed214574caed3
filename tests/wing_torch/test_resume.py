"""Saving, being killed, going on: the weights of an uninterrupted run, and nothing doubled."""

from __future__ import annotations

import ast
import copy
import io
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from wing_torch.programs import resumed

from penalize import L1, L2, AppliedTwiceError, GroupLasso, Regularizer, StateError, kernels
from penalize.torch import regularize
from penalize.torch.acting.attachment import Attachment

PROGRAM = Path(resumed.__file__)
RULES: dict[Any, Regularizer] = {
    kernels: L1(0.01) + L2(0.02),
    "2": GroupLasso(0.05, groups=[[0, 1, 2, 3], [4, 5, 6, 7]]),
}
OPTIMIZERS: dict[str, Any] = {
    "momentum": lambda p: SGD(p, lr=0.05, momentum=0.9),
    "amsgrad": lambda p: Adam(p, lr=0.05, amsgrad=True),
    "AdamW": lambda p: AdamW(p, lr=0.05, weight_decay=0.0),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def train(model: nn.Module, optimizer: Optimizer, steps: range) -> None:
    for i in steps:
        x = torch.randn(8, 6, generator=torch.Generator().manual_seed(i)).double()
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def through_a_file(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_killed_twice(tmp_path: Path) -> None:
    def run(name: str, dies_at: int) -> int:
        """In a process of its own where it dies."""
        if dies_at < 0:
            resumed.main(tmp_path / name, dies_at)
            return 0
        command = [sys.executable, str(PROGRAM), str(tmp_path / name), str(dies_at)]
        return subprocess.run(command, check=False).returncode

    assert run("whole", -1) == 0
    assert run("killed", 3) == -signal.SIGKILL
    assert run("killed", 7) == -signal.SIGKILL
    assert run("killed", -1) == 0
    whole, killed = (torch.load(tmp_path / n, weights_only=True) for n in ("whole", "killed"))
    assert killed["start"] == whole["start"]
    torch.testing.assert_close(killed["model"], whole["model"], rtol=0, atol=0)
    assert any((value == 0).any() for value in whole["model"].values())


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("mode", ["gradient", "decoupled", "proximal"])
@pytest.mark.parametrize("attach_first", [False, True], ids=["load, attach", "attach, load"])
def test_resumed(make: Any, mode: str, attach_first: bool) -> None:
    whole = network()
    optimizer = make(whole.parameters())
    attachment = regularize(whole, RULES).attach(optimizer, mode)
    train(whole, optimizer, range(5))
    saved = through_a_file([part.state_dict() for part in (whole, optimizer, attachment)])
    train(whole, optimizer, range(5, 10))

    again = network()
    optimizer = make(again.parameters())
    if attach_first:
        attachment = regularize(again, RULES).attach(optimizer, mode)
    again.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    if not attach_first:
        attachment = regularize(again, RULES).attach(optimizer, mode)
    attachment.load_state_dict(saved[2])
    train(again, optimizer, range(5, 10))
    torch.testing.assert_close(again.state_dict(), whole.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("mode", ["gradient", "decoupled", "proximal"])
def test_attaching_again_does_not_double(mode: str) -> None:
    model, other = network(), network()
    first, second = (SGD(m.parameters(), lr=0.1) for m in (model, other))
    plan, its_plan = regularize(model, RULES), regularize(other, RULES)
    plan.attach(first, mode)
    with pytest.raises(AppliedTwiceError):
        plan.attach(first, mode)
    with pytest.raises(AppliedTwiceError):
        regularize(model, RULES).attach(first, mode)
    for _ in range(3):
        plan.attachments()[0].detach()
        plan.attach(first, mode)
    its_plan.attach(second, mode)
    train(model, first, range(3))
    train(other, second, range(3))
    torch.testing.assert_close(model.state_dict(), other.state_dict(), rtol=0, atol=0)


# --- foreign and damaged states ---------------------------------------------------------------


def attached(rules: Any = RULES, mode: str = "gradient", **options: Any) -> tuple[Any, Attachment]:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    attachment = regularize(model, rules).attach(optimizer, mode, **options)
    return (model, optimizer), attachment


def state() -> dict[str, Any]:
    _, attachment = attached()
    return attachment.state_dict()


def test_the_state_is_plain_data() -> None:
    assert ast.literal_eval(repr(state())) == state()
    assert through_a_file(state()) == state()


FOREIGN: dict[str, tuple[Any, str]] = {
    "nothing": (None, "not saved by one of these"),
    "a model's": (network().state_dict(), "not saved by one of these"),
    "cut off": ({"version": 1, "mode": "gradient"}, "not saved by one of these"),
    "a later version": ({**state(), "version": 3}, "its version is 3, and 2 is read here"),
    "of two optimizers": ({**state(), "steps": [1, 1]}, "there are 1 optimizers here"),
    "damaged steps": ({**state(), "steps": ["1"]}, "it has the steps ['1']"),
    "damaged": ({**state(), "penalties": [1]}, "its penalties are no mapping"),
    "another mode": (attached(mode="proximal")[1].state_dict(), "mode='proximal', and here"),
    "another clip": (attached(clip="with")[1].state_dict(), "clip='with', and here it is 'with"),
    "another strength": (
        attached({kernels: L1(0.01) + L2(0.02), "2": L1(3.0)})[1].state_dict(),
        "'2.weight' has",
    ),
    "more parameters": (
        attached({**RULES, "0.bias": L2(1.0)})[1].state_dict(),
        "'0.bias' is penalized there only",
    ),
    "fewer": (attached({"0": RULES[kernels]})[1].state_dict(), "'2.weight' is penalized here only"),
}


@pytest.mark.parametrize(("saved", "message"), FOREIGN.values(), ids=FOREIGN)
def test_a_state_that_does_not_fit_is_named_and_changes_nothing(saved: Any, message: str) -> None:
    (model, optimizer), attachment = attached()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(StateError) as caught:
        attachment.load_state_dict(saved)
    assert message in str(caught.value)
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert attachment.alive
    train(model, optimizer, range(1))


def test_every_difference_is_named() -> None:
    _, attachment = attached()
    saved = attached({"0": L2(3.0), "2.bias": L1(1.0)}, "decoupled")[1].state_dict()
    with pytest.raises(StateError) as caught:
        attachment.load_state_dict(saved)
    for part in ("mode='decoupled'", "'0.weight' has", "'2.bias' is", "'2.weight' is"):
        assert part in str(caught.value)


@pytest.mark.parametrize("modes", [("halfspace", "gradient"), ("gradient", "halfspace")])
def test_a_state_with_an_average_where_there_is_none(modes: tuple[str, str]) -> None:
    saved, here = (attached(RULES, mode)[1] for mode in modes)
    average = [0.999 if mode == "halfspace" else None for mode in modes]
    with pytest.raises(
        StateError, match=f"it has average={average[0]}, and here it is {average[1]}"
    ):
        here.load_state_dict(saved.state_dict())
