"""Every regularizer on shards: the numbers of the whole, and no communication without need."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import CASES, FEW, KINDS, Case
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import on_ranks
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import (
    DTensor,
    Partial,
    Placement,
    Replicate,
    Shard,
    distribute_tensor,
)
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from penalize import L1, L1L2, L2, Elementwise, GroupLasso, Orthogonal, Regularizer
from penalize.backends import Array, Backend
from penalize.errors import NoProximalOperatorError, StepError


@dataclass(frozen=True, repr=False)
class Quartic(Regularizer):
    """A user's own, written for whole tensors: it knows nothing of shards."""

    strength: float

    def _value(self, w: Array, xp: Backend) -> Array:
        return self.strength * w.pow(4).sum() / w.shape[0]

    def _gradient(self, w: Array, xp: Backend) -> Array:
        return 4 * self.strength * w**3 / w.shape[0]


@dataclass(frozen=True, repr=False)
class Centred(L2):
    """Derived from what works on shards, and overrides it with what does not."""

    def _value(self, w: Array, xp: Backend) -> Array:
        return self.strength * ((w - w.mean()) ** 2).sum()

    def _gradient(self, w: Array, xp: Backend) -> Array:
        return 2 * self.strength * (w - w.mean())

    def _prox(self, w: Array, step: float | Array, xp: Backend) -> Array:
        shrunk = w / (1 + (2 * self.strength) * step)
        return shrunk + (w.mean() - shrunk.mean())


@dataclass(frozen=True, repr=False)
class Robust(Elementwise):
    """Elementwise, but its sum is PyTorch's."""

    strength: float

    def _value(self, w: Array, xp: Backend) -> Array:
        return self.strength * nn.functional.huber_loss(w, torch.zeros_like(w), reduction="sum")

    def _gradient(self, w: Array, xp: Backend) -> Array:
        return self.strength * w.clip(-1, 1)


def whole_of(r: Regularizer, shape: tuple[int, ...]) -> Tensor:
    """Weights with zeros, and with a first row of zeros."""
    w = np.random.default_rng(0).normal(size=shape)
    w[0] = 0
    w.flat[::5] = 0
    return torch.tensor(w)


def cut(w: Tensor, mesh: DeviceMesh, placements: Sequence[Placement]) -> DTensor:
    """What is the same on all ranks, sharded."""
    everywhere = DTensor.from_local(w, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return everywhere.redistribute(placements=placements)


def layouts(w: Tensor) -> Iterator[DTensor]:
    """A tensor cut along each axis, along two at once, along one twice, and not at all."""
    world = torch.distributed.get_world_size()
    line = init_device_mesh("cpu", (world,))
    axes = range(w.ndim)
    for axis in axes:
        yield cut(w, line, [Shard(axis)])
    if world == 2:
        yield cut(w, line, [Replicate()])
        return
    square = init_device_mesh("cpu", (2, 2))
    yield cut(w, square, [Shard(0), Shard(0)])
    if w.ndim > 1:
        yield cut(w, square, [Shard(0), Shard(1)])
        yield cut(w, square, [Replicate(), Shard(1)])


def check(r: Regularizer, d: DTensor, w: Tensor) -> None:
    """Everything of a regularizer on a sharded array is what it is on the whole one."""
    d, w = d.detach().requires_grad_(), w.clone().requires_grad_()
    value, expected = r(d), r(w)
    assert type(value) is Tensor
    same(value, expected)
    if r.differentiable:
        (3 * value).backward()
        (3 * expected).backward()
        assert isinstance(d.grad, DTensor)
        assert d.grad.placements == d.placements
        same(d.grad.full_tensor(), w.grad)
    with torch.no_grad():
        if r.differentiable:
            same_sharded(r.gradient(d), d, r.gradient(w))
        for step in (0.4, torch.tensor(0.4)):
            same_prox(r, d, w, step, step)
        steps = torch.rand(w.shape, generator=torch.Generator().manual_seed(1)).double()
        mesh, placements = d.device_mesh, d.placements
        same_prox(r, d, w, cut(steps, mesh, placements), steps)


def same_prox(r: Regularizer, d: DTensor, w: Tensor, step: float | Tensor, whole: object) -> None:
    try:
        expected = r.prox(w, whole)
    except NoProximalOperatorError:
        with pytest.raises(NoProximalOperatorError):
            r.prox(d, step)
    else:
        same_sharded(r.prox(d, step), d, expected)


def same_sharded(found: DTensor, like: DTensor, expected: Tensor) -> None:
    assert (found.placements, found.device_mesh) == (like.placements, like.device_mesh)
    assert (found.shape, found.stride(), found.dtype) == (like.shape, like.stride(), like.dtype)
    assert found.to_local().shape == like.to_local().shape
    same(found.full_tensor(), expected)


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert (found == 0).equal(expected == 0)


OWN = [
    Case(Quartic(0.3), lambda w: 0.0),
    Case(Centred(0.3), lambda w: 0.0),
    Case(Robust(0.3), lambda w: 0.0),
    Case(L1(0.1) + Quartic(0.3), lambda w: 0.0),
    Case(GroupLasso(0.3, groups=0), lambda w: 0.0, shape=(1, 5)),
    Case(GroupLasso(0.3, groups=1) + L1(0.1), lambda w: 0.0, shape=(7, 1)),
]


@pytest.mark.parametrize("index", range(len(CASES + OWN)), ids=[str(c) for c in CASES + OWN])
@on_ranks(2)
def test_two_ranks(index: int) -> None:
    check_all((CASES + OWN)[index])


@pytest.mark.parametrize("index", range(len(KINDS + OWN)), ids=[str(c) for c in KINDS + OWN])
@on_ranks(4)
def test_four_ranks(index: int) -> None:
    """Three rows on four ranks: one of them has none."""
    check_all((KINDS + OWN)[index])


def check_all(case: Case) -> None:
    w = whole_of(case.regularizer, case.shape)
    for d in layouts(w):
        check(case.regularizer, d, w)


def weight_of(rows: int) -> tuple[DTensor, Tensor]:
    """A strided shard, as fully_shard makes it of what tensor parallelism has cut already."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    layer = nn.Linear(4, rows, bias=False).double()
    w = layer.weight.detach().clone()
    parallelize_module(layer, mesh["tensor"], ColwiseParallel())
    fully_shard(layer, mesh=mesh["data"])
    return layer.weight, w


@pytest.mark.parametrize("rows", [8, 6, 5, 2])
@on_ranks(4)
def test_strided_shards(rows: int) -> None:
    """Of each kind one: what cases of a kind differ in, two ranks are asked.

    Where the rows are divided evenly, or some ranks have none, each class and each kind of groups
    once: unevenly divided rows ask all that these ask.
    """
    d, w = weight_of(rows)
    assert type(d.placements[0]).__name__ == "_StridedShard"
    for case in (KINDS if rows == 5 else FEW) + OWN:
        fits = case.shape == (3, 4) and "((" not in repr(case.regularizer) and case.typed
        if fits and "blocks" not in repr(case.regularizer):
            check(case.regularizer, d, w)
    partition = [list(range(5)), list(range(5, 4 * rows))]
    check(GroupLasso(0.3, groups=partition), d, w)


@on_ranks(2)
def test_a_pending_sum_is_carried_out() -> None:
    mesh = init_device_mesh("cpu", (2,))
    w = torch.randn(3, 4, dtype=torch.float64)
    d = DTensor.from_local(w / 2, mesh, [Partial()], run_check=False).requires_grad_()
    for r in (L1(0.3), GroupLasso(0.2, groups=0), Orthogonal(0.5)):
        same(r(d), r(w))
        (gradient,) = torch.autograd.grad(r(d), d)
        for found in (gradient, r.gradient(d.detach())):
            assert found.placements == (Replicate(),)
            same(found.to_local(), r.gradient(w))


@on_ranks(2)
def test_half_precision_is_reduced_in_float32() -> None:
    w = torch.full((4, 1000), 10.0, dtype=torch.float16)
    d = distribute_tensor(w, init_device_mesh("cpu", (2,)), [Shard(0)])
    assert L2(1.0)(d) == 400_000
    assert L2(1.0).gradient(d).dtype == torch.float16


@on_ranks(2)
def test_a_step_lies_as_the_weight_does() -> None:
    mesh = init_device_mesh("cpu", (2,))
    w = distribute_tensor(torch.randn(4, 4), mesh, [Shard(0)])
    r = L1(0.1)
    with pytest.raises(StepError, match="a step that is not sharded as w is; expected"):
        r.prox(w, distribute_tensor(torch.ones(4, 4), mesh, [Shard(1)]))
    with pytest.raises(StepError, match="a step that is not sharded as w is; expected"):
        r.prox(w, torch.ones(4, 4))
    with pytest.raises(StepError, match=r"a step of shape \(2, 4\) for a w of \(4, 4\)"):
        r.prox(w, torch.ones(2, 4))


# --- communication --------------------------------------------------------------------------


def counts(mode: CommDebugMode) -> dict[str, int]:
    return {str(op).rpartition(".")[2]: n for op, n in mode.get_comm_counts().items()}


def placed(*placements: Shard | Replicate, mesh: DeviceMesh | None = None) -> DTensor:
    mesh = mesh or init_device_mesh("cpu", (torch.distributed.get_world_size(),))
    return distribute_tensor(torch.randn(6, 8), mesh, placements)


ONE_SUM = {"all_reduce": 1}


@on_ranks(2)
def test_what_is_separable_communicates_nothing() -> None:
    rows = GroupLasso(0.2, groups=0)
    for r in (L1(0.1), L2(0.1), L1L2(0.1, 0.2), L1(0.1) + L2(0.2), rows, L1(0.1) + rows):
        w = placed(Shard(0))
        with CommDebugMode() as mode:
            r.gradient(w)
            r.prox(w, 0.1)
        assert counts(mode) == {}, r


@on_ranks(2)
def test_groups_that_cross_shards_take_one_sum() -> None:
    partition = GroupLasso(0.2, groups=[list(range(9)), list(range(9, 48))])
    for r in (GroupLasso(0.2, groups=1), GroupLasso(0.2, groups=()), partition):
        w = placed(Shard(0))
        for act in (r.gradient, lambda w, r=r: r.prox(w, 0.1), r):
            with CommDebugMode() as mode:
                act(w)
            assert counts(mode) == ONE_SUM, r


@on_ranks(2)
def test_a_value_takes_one_sum_and_its_gradient_none() -> None:
    for r in (L1(0.1), L2(0.1), GroupLasso(0.2, groups=0), GroupLasso(0.2, groups=1)):
        w = placed(Shard(0)).requires_grad_()
        with CommDebugMode() as mode:
            r(w).backward()
        assert counts(mode) == ONE_SUM, r


@on_ranks(2)
def test_what_is_not_known_to_work_on_shards_is_gathered() -> None:
    for r in (Orthogonal(0.1), Quartic(0.1), L1(0.1) + Orthogonal(0.1)):
        w = placed(Shard(0)).requires_grad_()
        with CommDebugMode() as mode:
            r(w).backward()
        assert counts(mode) == {"all_gather_into_tensor": 1}, r
        with CommDebugMode() as mode:
            r.gradient(w.detach())
        assert counts(mode) == {"all_gather_into_tensor": 1}, r


@on_ranks(2)
def test_what_the_documentation_says_is_communicated() -> None:
    rows = re.findall(r"^\| `(\w+\(.*)` \| (.*) \| (.*) \|$", documentation(), re.MULTILINE)
    assert len(rows) == 7
    w = distribute_tensor(torch.randn(4, 6), init_device_mesh("cpu", (2,)), [Shard(0)])
    for expression, gradient, value in rows:
        r: Regularizer = eval(expression)
        assert (in_words(lambda r=r: r.gradient(w)), in_words(lambda r=r: r(w))) == (
            gradient,
            value,
        )
        if r._why_not_prox(False) == "":
            assert in_words(lambda r=r: r.prox(w, 0.1)) == gradient


@on_ranks(2)
def test_what_the_documentation_says_of_adaptive_steps() -> None:
    w = placed(Shard(0))
    (said,) = re.findall(r"finding it takes (\d+ all-reduces)", documentation())
    found = in_words(lambda: GroupLasso(0.1, groups=1).prox(w, w * w))
    assert found == said, found
    assert in_words(lambda: GroupLasso(0.1, groups=0).prox(w, w * w)) == "none"


def documentation() -> str:
    return (Path(__file__).parents[3] / "docs" / "distributed.md").read_text("utf-8")


def in_words(act: Callable[[], object]) -> str:
    words = {"all_reduce": "all-reduce", "all_gather_into_tensor": "all-gather"}
    with CommDebugMode() as mode:
        act()
    found = [f"{n} {words[op]}{'s' if n > 1 else ''}" for op, n in counts(mode).items()]
    return ", ".join(found) or "none"


SHAPES = st.lists(st.integers(1, 6), min_size=1, max_size=3).map(tuple)


@st.composite
def cut_weights(draw: st.DrawFn) -> dict[str, object]:
    """A shape, which axis is cut, a set of axes or a partition, and a seed."""
    shape = draw(SHAPES)
    ndim = len(shape)
    groups: object = draw(st.sets(st.integers(0, ndim - 1)).map(tuple))
    if draw(st.booleans()):
        numbers = draw(st.lists(st.integers(0, 3), min_size=prod(shape), max_size=prod(shape)))
        split = [[i for i, n in enumerate(numbers) if n == group] for group in set(numbers)]
        groups = split
    return {
        "shape": shape,
        "axis": draw(st.integers(0, ndim - 1)),
        "groups": groups,
        "seed": draw(st.integers(0, 99)),
    }


@on_ranks(2)
def check_drawn(shape: tuple[int, ...], axis: int, groups: object, seed: int) -> None:
    w = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).double()
    d = cut(w, init_device_mesh("cpu", (2,)), [Shard(axis)])
    check(GroupLasso(0.3, groups=groups) + L1(0.1) + L2(0.2), d, w)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(cut_weights())
def test_any_shape_and_groups(drawn: dict[str, object]) -> None:
    check_drawn(**drawn)


@on_ranks(4)
def test_replicas_are_not_added_up() -> None:
    mesh = init_device_mesh("cpu", (2, 2))
    w = placed(Replicate(), Shard(0), mesh=mesh)
    columns = GroupLasso(0.2, groups=1)
    for act in (L1(0.1), columns, columns.gradient):
        with CommDebugMode() as mode:
            act(w)
        assert counts(mode) == ONE_SUM
    w = placed(Replicate(), Replicate(), mesh=mesh)
    with CommDebugMode() as mode:
        L1(0.1)(w)
    assert counts(mode) == {}


@on_ranks(4)
def test_each_dimension_of_the_mesh_that_cuts_a_group_takes_one_sum() -> None:
    w = placed(Shard(0), Shard(1), mesh=init_device_mesh("cpu", (2, 2)))
    for groups, sums in ((0, 1), (1, 1), ((), 2), ((0, 1), 0)):
        with CommDebugMode() as mode:
            GroupLasso(0.2, groups=groups).gradient(w)
        assert sum(counts(mode).values()) == sums, groups


@on_ranks(2)
def test_rowwise_parallel_rows_cross_shards() -> None:
    layer = nn.Linear(6, 4).double()
    w = layer.weight.detach().clone()
    parallelize_module(layer, init_device_mesh("cpu", (2,)), RowwiseParallel())
    assert layer.weight.placements == (Shard(1),)
    check(GroupLasso(0.2, groups=0), layer.weight, w)
