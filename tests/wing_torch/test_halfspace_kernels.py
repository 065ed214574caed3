"""The kernels of half-space steps that are compiled for the CPU, against the plain path."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from penalize import L1, L2, MCP, GroupLasso, Regularizer, SparseGroupLasso, warmup
from penalize.torch import regularize
from penalize.torch.acting.attachment import Attachment
from penalize.torch.kernels import CompiledHalves, at_any_size, reference
from penalize.torch.kernels.cpu import Buffers
from penalize.torch.kernels.forms import form_of
from penalize.torch.kernels.printer import printed
from penalize.torch.kernels.routines import Routine
from penalize.torch.kernels.work import Work

FORMS: dict[str, Regularizer] = {
    "flat": L1(0.05) + L2(0.01),
    "not convex": MCP(0.05, 3.0),
    "rows": GroupLasso(0.05, groups=0),
    "columns": SparseGroupLasso(0.1, groups=-1),
    "rows of all kinds": L1(0.01) + GroupLasso(0.05, groups=0) + L2(0.01),
}
SHAPES = [(3, 4), (300, 257), (1, 1), (2, 3, 3, 3), (129, 16)]
Make = Callable[[Any], Optimizer]


def sgd(parameters: Any) -> Optimizer:
    return SGD(parameters, 0.1, momentum=0.5)


def drift(w: Tensor) -> Tensor:
    """What some elements, rows and columns are drawn to, others less."""
    random = torch.Generator().manual_seed(7)
    found = 0.06 * torch.randn(w.shape, generator=random)
    for axis in (0, -1):
        found *= 2 * torch.rand(w.shape[axis], generator=random).reshape(
            [-1 if i == axis % w.ndim else 1 for i in range(w.ndim)]
        )
    return found


class Stepped:
    """Weights under gradients that are drawn, about as large as the penalty."""

    def __init__(
        self,
        penalty: Any,
        dtype: torch.dtype = torch.float64,
        make: Make = sgd,
        ws: list[Tensor] | None = None,
    ) -> None:
        random = torch.Generator().manual_seed(0)
        drawn = [0.1 * torch.randn(shape, generator=random).double() for shape in SHAPES]
        for w in drawn:
            w.mul_(w.abs() > 0.03)
            w[0] = 0.0  # a group
            w[..., 0] = 0.0
        self.weights = nn.ParameterList([w.clone().to(dtype) for w in ws or drawn])
        self.optimizer = make(self.weights.parameters())
        plan = regularize(self.weights, penalty)
        self.attachment: Attachment = plan.attach(self.optimizer, mode="halfspace", average=0.8)
        self.given: list[Tensor] = []

    def step(self, i: int, gradients: list[Tensor] | None = None) -> None:
        random = torch.Generator().manual_seed(i)
        for n, w in enumerate(self.weights):
            if gradients is None:
                noise = 0.03 * torch.randn(w.shape, generator=random)
                g = 0.2 * w.detach() + (noise + drift(w)).to(w.dtype)
            else:
                g = gradients[n].to(w.dtype)
            w.grad = g.clone()
        self.optimizer.step()
        self.given = [w.grad for w in self.weights if w.grad is not None]

    @property
    def values(self) -> list[Tensor]:
        return [w.detach() for w in self.weights]

    @property
    def memory(self) -> dict[str, Any]:
        (averages,) = self.attachment.state_dict()["averages"]
        return dict(averages)

    @property
    def paths(self) -> set[tuple[str, str]]:
        return {(route.path, route.why) for route in self.attachment.explain()}


def both(*how: Any, steps: Any = range(12), **more: Any) -> tuple[Stepped, Stepped]:
    """What the kernels make of it, and the plain path."""
    found = []
    contexts: list[Callable[[], AbstractContextManager[None]]] = [at_any_size, reference]
    for context in contexts:
        each = Stepped(*how, **more)
        with context():
            for i in steps:
                each.step(i)
        found.append(each)
    return found[0], found[1]


CLOSE: dict[torch.dtype, dict[str, float]] = {
    torch.float64: {"rtol": 1e-11, "atol": 1e-14},
    torch.float32: {"rtol": 1e-4, "atol": 1e-6},
    torch.bfloat16: {"rtol": 1e-2, "atol": 1e-3},
    torch.float16: {"rtol": 2e-3, "atol": 1e-4},
}


def check_same(fast: Stepped, slow: Stepped, **close: Any) -> None:
    torch.testing.assert_close(fast.values, slow.values, **close)
    torch.testing.assert_close(fast.given, slow.given, **close)
    for x, y in zip(fast.values, slow.values, strict=True):
        zeros = [(z == 0) & ~z.signbit() for z in (x, y)]
        assert torch.equal(*zeros)
    assert fast.memory.keys() == slow.memory.keys()
    for name, saved in fast.memory.items():
        expected = slow.memory[name]
        torch.testing.assert_close(saved.pop("mean"), expected.pop("mean"), **close)
        assert saved == pytest.approx(expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", FORMS)
class TestTheSameAsThePlainPath:
    """The weights, what optimizers are given, and all that is remembered."""

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
    def test_many_steps(self, name: str, dtype: torch.dtype) -> None:
        fast, slow = both(FORMS[name], dtype)
        assert fast.paths == {("compiled", "")}
        assert slow.paths == {("plain", "it was asked for")}
        many = fast.values[1]
        assert 0.05 < (many == 0).double().mean() < 0.95
        assert any(memory["left"] > 0 for memory in fast.memory.values())
        check_same(fast, slow, **CLOSE[dtype])

    def test_strange_numbers(self, name: str) -> None:
        """Each with each: in the weight and in its gradient, alone in a row and among others."""
        tiny = torch.finfo(torch.float32).tiny
        strange = [math.nan, math.inf, -math.inf, -0.0, 0.0, tiny / 8, 1e30, -1e-30, 2.0]
        n = len(strange)
        pairs = torch.tensor(strange).expand(n, n)
        diagonal = torch.full((n, n), 0.5).fill_diagonal_(1.0) * torch.diag(torch.tensor(strange))
        ws = [pairs, pairs.T.contiguous(), torch.nan_to_num(diagonal, nan=math.nan)]
        gs = [pairs.T.contiguous(), torch.full((n, n), 1e-3), pairs]
        found = []
        for context in (at_any_size, reference):
            each = Stepped(FORMS[name], torch.float32, lambda p: SGD(p, 0.5), ws)
            with context():
                for i in range(3):
                    each.step(i, gs)
            found.append(each)
        fast, slow = found
        assert fast.paths == {("compiled", "")}
        check_same(fast, slow, rtol=1e-5, atol=1e-7, equal_nan=True)

    def test_on_two_threads(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
        fast, slow = both(FORMS[name], steps=range(4))
        check_same(fast, slow, **CLOSE[torch.float64])


HALVES = {
    "flat": torch.float16,
    "not convex": torch.bfloat16,
    "columns": torch.float16,
    "rows of all kinds": torch.bfloat16,
}


@pytest.mark.parametrize("name", HALVES)
def test_half_precision(name: str) -> None:
    fast, slow = both(FORMS[name], HALVES[name], steps=range(1))
    assert fast.paths == {("compiled", "")}
    check_same(fast, slow, **CLOSE[HALVES[name]])


@pytest.mark.parametrize("name", ["flat", "rows of all kinds"])
def test_where_the_loss_is_maximized(name: str) -> None:
    fast, slow = both(FORMS[name], make=lambda p: SGD(p, 0.1, maximize=True), steps=range(6))
    assert fast.paths == {("compiled", "")}
    check_same(fast, slow, **CLOSE[torch.float64])


def test_a_penalty_without_a_kink_beside_one_that_has_some() -> None:
    penalties = {"0": L2(0.1), "1": L1(0.05), "2": L1(0.0), "3": L1(0.05), "4": L2(0.1)}
    fast, slow = both(penalties)
    assert fast.paths == {("compiled", "")}
    check_same(fast, slow, **CLOSE[torch.float64])


@pytest.mark.parametrize("name", ["flat", "rows of all kinds"])
def test_a_warm_up(name: str) -> None:
    fast, slow = both(FORMS[name] * warmup(5))
    assert fast.paths == {("compiled", "")}
    check_same(fast, slow, **CLOSE[torch.float64])


def test_under_adam() -> None:
    fast, slow = both(FORMS["rows"], make=lambda p: Adam(p, 0.01))
    assert fast.paths == {("compiled", "")}
    check_same(fast, slow, **CLOSE[torch.float64])


# --- what is remembered -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["flat", "rows"])
def test_what_was_saved_stays_as_it_was(name: str) -> None:
    """Averages are written over, but for those that somebody has."""
    with at_any_size():
        stepped = Stepped(FORMS[name])
        for i in range(3):
            stepped.step(i)
        saved = stepped.memory
        before = {key: memory["mean"].clone() for key, memory in saved.items()}
        pending = stepped.attachment.pending()
        weights = [w.clone() for w in stepped.values]
        momentum = stepped.optimizer.state_dict()
        momentum = {**momentum, "state": {
            key: {"momentum_buffer": each["momentum_buffer"].clone()}
            for key, each in momentum["state"].items()
        }}  # fmt: skip
        ends = []
        for _ in range(2):
            for i in range(3, 7):
                stepped.step(i)
            ends.append([w.clone() for w in stepped.values])
            for key, memory in saved.items():
                assert torch.equal(memory["mean"], before[key])
            stepped.attachment.forget_step(pending)
            stepped.optimizer.load_state_dict(momentum)
            with torch.no_grad():
                torch._foreach_copy_(list(stepped.weights), weights)
        assert all(map(torch.equal, *ends))


def test_two_buffers_take_turns() -> None:
    """So that no step allocates an average, unless somebody has the last one."""
    with at_any_size():
        stepped = Stepped(FORMS["flat"])
        places = []
        for i in range(6):
            stepped.step(i)
            (stepper,) = stepped.attachment._steppers
            memories = stepper.mode.memories
            assert memories is not None
            (batch,) = memories._batches
            places.append(batch.remembered.means[0].data_ptr())
    assert len(set(places[1:])) == 2
    assert places[2:4] == places[4:]


def test_paths_take_turns() -> None:
    """What one path remembers the other goes on with: all, one by one, or of some of them."""
    found = []
    for every in (at_any_size, reference):
        stepped = Stepped(FORMS["rows of all kinds"])
        taken = []
        for i in range(9):
            with reference() if i in (3, 4) else every():
                stepped.weights[0].requires_grad_(i != 6)
                if i == 7:
                    assert len(stepped.attachment.explain()) == len(SHAPES)
                stepped.step(i)
                taken.append("compiled" in {path for path, _ in stepped.paths})
        found.append(stepped)
        assert taken == [every is at_any_size and i not in (3, 4) for i in range(9)]
    check_same(*found, **CLOSE[torch.float64])


class Fails(SGD):
    """An optimizer that raises when it is told to."""

    fails = False

    def step(self, closure: Any = None) -> Any:
        if self.fails:
            raise ArithmeticError("it fails")
        return super().step(closure)


def test_a_step_that_raises_is_none() -> None:
    def make(parameters: Any) -> Optimizer:
        return Fails(parameters, 0.1)

    expected, _ = both(FORMS["rows"], make=make, steps=range(6))
    with at_any_size():
        stepped = Stepped(FORMS["rows"], make=make)
        for i in range(6):
            if i == 3:
                Fails.fails = True
                try:
                    with pytest.raises(ArithmeticError):
                        stepped.step(99)
                finally:
                    Fails.fails = False
                stepped.optimizer.zero_grad()
            stepped.step(i)
    check_same(stepped, expected, rtol=0, atol=0)


# --- what else may be in a step ---------------------------------------------------------------


class Replaces(SGD):
    """An optimizer that puts something else in the place of a weight's data."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                if p.ndim == 2:
                    p.data = p.data.T.contiguous().T


@pytest.mark.parametrize("name", ["flat", "columns"])
def test_weights_that_lie_otherwise_after_the_update(name: str) -> None:
    fast, slow = both(FORMS[name], make=lambda p: Replaces(p, 0.1), steps=range(1))
    assert fast.paths == {("compiled", "")}
    assert not fast.values[1].is_contiguous()
    check_same(fast, slow, **CLOSE[torch.float64])


@contextmanager
def scaled(optimizer: Optimizer) -> Iterator[None]:
    """Within the block the optimizer is told what a GradScaler tells a fused one."""
    optimizer.grad_scale, optimizer.found_inf = torch.ones(()), torch.zeros(())  # type: ignore[attr-defined]
    yield
    del optimizer.grad_scale, optimizer.found_inf  # type: ignore[attr-defined]


def test_what_no_kernel_takes() -> None:
    """And why, as explain() has it; a step later it may be another way."""
    w = torch.ones(4, 6)
    with at_any_size():
        stepped = Stepped(L1(0.05), torch.float32, lambda p: Adam(p, 0.01, fused=True), [w])
        stepped.step(0)
        assert stepped.paths == {("compiled", "")}
        stepped.weights[0].grad = w.clone()
        stepped.optimizer.step(lambda: 0.0)
        assert stepped.paths == {("plain", "its closure may be evaluated again")}
        with scaled(stepped.optimizer):
            stepped.step(2)
        assert stepped.paths == {("plain", "only the device knows whether this step is skipped")}
        stepped.step(3)
        assert stepped.paths == {("compiled", "")}
        stepped = Stepped(L1(0.05), torch.float32, ws=[w])
        stepped.weights[0].data = w.clone().T
        stepped.step(0)
        assert stepped.paths == {("plain", "it does not lie in memory element by element")}
    stepped = Stepped(L1(0.05), torch.float32, ws=[w])
    stepped.step(0)
    ((path, why),) = stepped.paths
    assert path == "plain"
    assert "compiling pays from 1,048,576 penalized weights on" in why
    elsewhere = Work(w.to("meta"), w.to("meta"), L1(0.05), 1.0, False, None, average=0.9)
    found = CompiledHalves.offer(elsewhere, Buffers())
    assert found == "there are kernels for half-space steps on the CPU only"


def test_a_kernel_has_no_strength_in_it_and_reads_a_sum_over_a_row_once() -> None:
    """What is summed before the update is not summed again after it."""
    form, _ = form_of(0.3125 * GroupLasso(1.0, groups=0), 4)
    texts = {
        task: printed(Routine(form, "float", "rows", task, average=0.9))
        for task in ("before", "moved", "after")
    }
    assert not any("3FD4" in source.text for source in texts.values())
    loops = {task: source.text.count(".body:") // 2 for task, source in texts.items()}
    assert loops == {"before": 5, "moved": 1, "after": 3}
