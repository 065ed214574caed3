"""The fast paths: each is compared with the plain one, and it is asserted which path ran."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
import torch
import torch.optim as opt
from cases import CASES, Case
from torch import Tensor, nn

from penalize import (
    EWC,
    L1,
    L1L2,
    L2,
    MCP,
    GroupLasso,
    Huber,
    LInf1,
    ModeError,
    NuclearNorm,
    Regularizer,
    SparseGroupLasso,
    kernels,
    named,
    toward,
)
from penalize.steps import Taken
from penalize.torch import regularize
from penalize.torch.kernels import Additions, Router, Shrinkings, reference, triton
from penalize.torch.kernels.jobs import PACKED
from penalize.torch.kernels.packed import PACK
from penalize.torch.kernels.rows import rows_of

PROGRAM = Path(__file__).parent / "programs" / "triton_kernels.py"

SHAPES: dict[str, list[tuple[int, ...]]] = {
    "small": [(3, 4), (7, 4), (4,), (2, 3, 3, 3), (5, 4)],
    "large": [(300, 257), (70_001,), (32, 40, 7, 7)],
    "mixed": [(3, 4), (300, 257), (6, 4), (), (1, 1)],
}
REGULARIZERS: dict[str, Regularizer] = {
    "L1": L1(0.3),
    "L2": L2(0.3),
    "L1L2": L1L2(0.2, 0.3),
    "L1+L2": L1(0.2) + L2(0.3),
    "nothing": L1(0.0),
    "Huber": Huber(0.3, 0.5),
    "MCP": MCP(0.3),
    "rows": GroupLasso(0.3, groups=0),
    "unweighted": GroupLasso(0.3, groups=0, size_weighted=False),
    "sparse rows": SparseGroupLasso(0.3, groups=0),
    "rows+L2": GroupLasso(0.3, groups=0) + L2(0.1),
    "last axis": GroupLasso(0.3, groups=-1),
    "one group": GroupLasso(0.3, groups=()),
}


def draw(shapes: list[tuple[int, ...]], dtype: torch.dtype) -> list[Tensor]:
    """Weights with zeros in them, and whole rows of zeros."""
    torch.manual_seed(0)
    ws = [torch.randn(shape, dtype=dtype) for shape in shapes]
    for w in ws:
        w[w.abs() < 0.2] = 0.0
        if w.ndim > 1 and len(w) > 1:
            w[1] = 0.0
    return ws


def additions(regularizer: Regularizer, ws: list[Tensor], tos: list[Tensor]) -> Additions:
    count = len(ws)
    names = [str(i) for i in range(count)]
    return Additions(names, ws, tos, [regularizer] * count, [0] * count, [False] * count)


def shrinkings(regularizer: Regularizer, ws: list[Tensor], steps: list[Taken]) -> Shrinkings:
    names = [str(i) for i in range(len(ws))]
    return Shrinkings(names, ws, [regularizer] * len(ws), steps)


def fitting(regularizer: Regularizer, shapes: list[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Those that have the axes that the groups are along."""
    has_groups = "groups=0" in repr(regularizer) or "groups=-1" in repr(regularizer)
    return [shape for shape in shapes if shape or not has_groups]


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    """Of sums of up to 40·49 squares, in another order."""
    return {
        torch.float64: {"rtol": 1e-12, "atol": 1e-14},
        torch.float32: {"rtol": 1e-5, "atol": 1e-6},
    }[dtype]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("regularizer", REGULARIZERS.values(), ids=REGULARIZERS)
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
class TestEachPath:
    """Against the reference, twice with one router, so that its buffers are used again."""

    def test_gradient(self, shapes: Any, regularizer: Regularizer, dtype: torch.dtype) -> None:
        ws = draw(fitting(regularizer, shapes), dtype)
        router = Router()
        for scale in (1.0, -0.5):
            tos = [torch.randn_like(w) for w in ws]
            expected, others = [to.clone() for to in tos], [to.clone() for to in tos]
            router.add(additions(regularizer, ws, tos), {0: scale})
            values = router.value_and_add(additions(regularizer, ws, others), {0: scale})
            with reference():
                Router().add(additions(regularizer, ws, expected), {0: scale})
            torch.testing.assert_close(tos, expected, **tolerance(dtype))
            torch.testing.assert_close(others, tos, rtol=0, atol=0)
            value = sum(float(regularizer(w.double())) for w in ws)
            assert float(sum(values)) == pytest.approx(value, rel=1e-5)
        assert "plain" not in {path for path, _ in router.taken.values()} or regularizer in (
            REGULARIZERS["last axis"],
        )

    def test_decoupled(self, shapes: Any, regularizer: Regularizer, dtype: torch.dtype) -> None:
        """What is added to is the weight itself."""
        ws = draw(fitting(regularizer, shapes), dtype)
        expected = [w.clone() for w in ws]
        router = Router()
        for _ in range(2):
            router.add(additions(regularizer, ws, ws), {0: -0.1})
            with reference():
                Router().add(additions(regularizer, expected, expected), {0: -0.1})
        for w, other in zip(ws, expected, strict=True):
            torch.testing.assert_close(w, other, **tolerance(dtype))

    def test_prox(self, shapes: Any, regularizer: Regularizer, dtype: torch.dtype) -> None:
        ws = draw(fitting(regularizer, shapes), dtype)
        expected = [w.clone() for w in ws]
        router = Router()
        for factor in (0.5, 1.5):
            steps = [Taken(factor)] * len(ws)
            router.shrink(shrinkings(regularizer, ws, steps))
            with reference():
                Router().shrink(shrinkings(regularizer, expected, steps))
        for w, other in zip(ws, expected, strict=True):
            torch.testing.assert_close(w, other, **tolerance(dtype))
            assert torch.equal(w == 0, other == 0)

    def test_prox_with_a_step_per_element(
        self, shapes: Any, regularizer: Regularizer, dtype: torch.dtype
    ) -> None:
        if regularizer == REGULARIZERS["one group"]:
            pytest.skip("its root is found to rounding of a sum over the whole weight")
        ws = draw(fitting(regularizer, shapes), dtype)
        seconds = [torch.rand_like(w) for w in ws]
        steps = [Taken(0.4, second, 1.1, 1e-8) for second in seconds]
        expected = [w.clone() for w in ws]
        router = Router()
        router.shrink(shrinkings(regularizer, ws, steps))
        with reference():
            Router().shrink(shrinkings(regularizer, expected, steps))
        for w, other in zip(ws, expected, strict=True):
            torch.testing.assert_close(w, other, rtol=1e-4, atol=1e-5)
            assert torch.equal(w == 0, other == 0)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_case_of_the_table(case: Case) -> None:
    """As one small weight; what is a constraint has no gradient."""
    torch.manual_seed(0)
    w = torch.randn(case.shape, dtype=torch.float64)
    if case.regularizer.differentiable:
        to, expected = torch.zeros_like(w), torch.zeros_like(w)
        Router().add(additions(case.regularizer, [w], [to]), {0: 2.0})
        expected += 2.0 * case.regularizer.gradient(w)
        torch.testing.assert_close(to, expected, rtol=1e-12, atol=1e-14)
    if case.has_prox:
        moved = w.clone()
        Router().shrink(shrinkings(case.regularizer, [moved], [Taken(0.3)]))
        torch.testing.assert_close(moved, case.regularizer.prox(w, 0.3), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rows_say_what_the_whole_says(case: Case) -> None:
    """``by_rows``: value and gradient of the whole are those of its rows, taken one by one."""
    found = case.regularizer.by_rows(len(case.shape))
    if found is None:
        pytest.skip("it is no sum over rows")
    rows, leading = found
    torch.manual_seed(0)
    w = torch.randn(case.shape, dtype=torch.float64)
    matrix = w.reshape(*case.shape[:leading], -1).reshape(-1, w[(0,) * leading].numel())
    values = torch.stack([rows(row[None]) for row in matrix])
    torch.testing.assert_close(values.sum(), case.regularizer(w), rtol=1e-12, atol=1e-14)
    if case.regularizer.differentiable:
        parts = torch.cat([rows.gradient(row[None]) for row in matrix]).reshape(case.shape)
        torch.testing.assert_close(parts, case.regularizer.gradient(w), rtol=1e-12, atol=1e-14)


def test_what_depends_on_places_is_no_sum_over_rows() -> None:
    w = torch.randn(3, 4)
    for regularizer in (
        EWC(w * w, w),
        toward(w, L1(1.0)),
        NuclearNorm(1.0),
        GroupLasso(1.0, groups=1),
    ):
        assert regularizer.by_rows(2) is None
        assert (L1(1.0) + regularizer).by_rows(2) is None
    assert (GroupLasso(1.0, groups=0) + GroupLasso(1.0, groups=(0, 1))).by_rows(3) is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["L1", "L2", "L1L2", "MCP", "rows", "last axis"])
def test_half_precision_is_at_least_as_near_to_the_truth(name: str, dtype: torch.dtype) -> None:
    regularizer = REGULARIZERS[name]
    ws = draw([(3, 4), (300, 257)], dtype)
    tos = [torch.randn_like(w) for w in ws]
    truths = [
        to.double() + 0.5 * regularizer.gradient(w.double()) for w, to in zip(ws, tos, strict=True)
    ]
    plain = [to.clone() for to in tos]
    Router().add(additions(regularizer, ws, tos), {0: 0.5})
    with reference():
        Router().add(additions(regularizer, ws, plain), {0: 0.5})
    for to, other, truth in zip(tos, plain, truths, strict=True):
        assert (to - truth).abs().mean() <= 1.01 * (other - truth).abs().mean()


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "small": nn.Linear(4, 3),
            "tiny": nn.Linear(4, 2),
            "large": nn.Linear(300, 257),
            "conv": nn.Conv2d(3, 4, 3),
            "other": nn.Linear(30, 20),
            "normed": nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)),
        }
    )


PATHS = {
    "small.weight": "packed",
    "tiny.weight": "packed",
    "large.weight": "chunked",
    "conv.weight": "whole",
    "other.weight": "plain",
    "normed.weight": "autograd",
}


def test_explain_says_which_path_each_weight_took() -> None:
    m = model()
    rules: Any = {
        kernels: L1(0.1),
        "conv": GroupLasso(0.1, groups="inputs"),
        "other": NuclearNorm(0.1),
    }
    optimizer = opt.SGD(m.parameters(), lr=0.1)
    attachment = regularize(m, rules).attach(optimizer)
    assert {row.path for row in attachment.explain()} == {"", "autograd"}
    assert "not stepped yet" in str(attachment.explain())
    optimizer.step()
    found = attachment.explain()
    assert {row.name: row.path for row in found} == PATHS
    whys = {row.name: row.why for row in found}
    assert all(whys.values())
    small = {name for name, why in whys.items() if "pays from" in why}
    assert small == {"small.weight", "tiny.weight", "large.weight"}
    (line,) = (line for line in str(found).splitlines() if line.startswith("other.weight"))
    assert "plain" in line
    assert "rows" in line
    with reference():
        optimizer.zero_grad()
        optimizer.step()
    paths = {row.path for row in attachment.explain()}
    assert paths == {"plain", "autograd"}


def test_l2_takes_one_call_for_all() -> None:
    m = model()
    optimizer = opt.SGD(m.parameters(), lr=0.1)
    attachment = regularize(m, {kernels: L2(0.1), named("normed"): None}).attach(optimizer)
    optimizer.step()
    assert {row.path for row in attachment.explain() if row.name != "normed.weight"} == {"foreach"}


@pytest.mark.parametrize("mode", ["gradient", "decoupled", "proximal"])
def test_a_model_that_changes_between_steps_is_followed(mode: str) -> None:
    """Other values, another type, another shape or layout behind the same parameter."""

    def steps(plain: bool) -> list[Tensor]:
        torch.manual_seed(0)
        m = nn.Sequential(nn.Linear(4, 4), nn.Linear(300, 300), nn.Linear(4, 4))
        optimizer = opt.SGD(m.parameters(), lr=0.1)
        regularize(m, L1(0.1)).attach(optimizer, mode=mode)

        def step() -> None:
            optimizer.zero_grad()
            if plain:
                with reference():
                    optimizer.step()
            else:
                optimizer.step()

        step()
        for layer in m:
            layer.weight.data = layer.weight.data.t()  # square, and not contiguous
        step()
        m[0].weight.data = m[0].weight.data[:2]
        m[1].weight.data = m[1].weight.data[:200].clone()
        step()
        m.double()
        step()
        m[2].weight.requires_grad_(False)
        step()
        m[2].weight.requires_grad_(True)
        step()
        return [p.detach() for p in m.parameters()]

    for fast, slow in zip(steps(plain=False), steps(plain=True), strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("regularizer", "paths"),
    [
        (L2(0.3), ("foreach", "chunked")),
        (L1L2(0.2, 0.3), ("chunked", "chunked")),
        (GroupLasso(0.3, groups=0), ("chunked", "chunked")),
        (GroupLasso(0.3, groups=1), ("whole", "plain")),
    ],
    ids=repr,
)
def test_a_model_that_goes_to_half_precision_is_decided_anew(
    regularizer: Regularizer, paths: tuple[str, str]
) -> None:
    """It keeps its parameters: what is exact for float32 would round strengths in bfloat16."""
    m = nn.Linear(257, 300)
    optimizer = opt.SGD(m.parameters(), lr=0.1)
    attachment = regularize(m, regularizer).attach(optimizer)
    for dtype, path in zip((torch.float32, torch.bfloat16), paths, strict=True):
        m.to(dtype)
        w = m.weight.detach().clone()
        optimizer.zero_grad()
        m.weight.grad = torch.zeros_like(m.weight)
        optimizer.step()
        torch.testing.assert_close(m.weight.grad, regularizer.gradient(w), rtol=1e-6, atol=0)
        assert [row.path for row in attachment.explain()] == [path]


@pytest.mark.parametrize("mode", ["decoupled", "proximal"])
def test_explain_tells_of_a_step_that_may_be_skipped(mode: str) -> None:
    m = nn.Linear(4, 3)
    optimizer: Any = opt.SGD(m.parameters(), lr=0.1, fused=True)
    attachment = regularize(m, L1(0.1)).attach(optimizer, mode=mode)
    for found_inf, path in ((None, "packed"), (torch.zeros(()), "plain"), (None, "packed")):
        optimizer.found_inf = found_inf
        optimizer.zero_grad()
        optimizer.step()
        (row,) = attachment.explain()
        assert row.path == path
        assert ("skipped" in row.why) is (path == "plain")


@pytest.mark.parametrize("groups", [0, (0, 1), 1])
@pytest.mark.parametrize("both", [True, False])
def test_channels_last(groups: Any, both: bool) -> None:
    regularizer = GroupLasso(0.1, groups=groups) + L1(0.1) if groups != 1 else L1(0.1)
    w = torch.randn(16, 32, 9, 9).to(memory_format=torch.channels_last)
    to = torch.randn(16, 32, 9, 9)
    to = to.to(memory_format=torch.channels_last) if both else to
    expected = to + regularizer.gradient(w)
    router = Router()
    router.add(additions(regularizer, [w], [to]), {0: 1.0})
    torch.testing.assert_close(to, expected)
    is_fast = both and groups != (0, 1)
    assert router.taken["0"][0] == ("chunked" if is_fast else "plain")


def test_packs_hold_as_many_as_a_buffer_does() -> None:
    shape = (PACKED // 64, 64)
    ws = [torch.randn(shape) for _ in range(2 * PACK // PACKED + 1)]
    router = Router()
    tos = [torch.zeros_like(w) for w in ws]
    router.add(additions(L1(0.5), ws, tos), {0: 1.0})
    assert {path for path, _ in router.taken.values()} == {"packed"}
    assert len(router._jobs) == 3
    for w, to in zip(ws, tos, strict=True):
        assert torch.equal(to, 0.5 * w.sign())


def test_memory_beyond_the_weights_does_not_grow_with_the_model() -> None:
    """Buffers are used again: after the first step nothing of a weight's size is made."""

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            out = func(*args, **(kwargs or {}))
            known = {x.untyped_storage().data_ptr() for x in _tensors((args, kwargs))}
            for x in _tensors(out):
                if x.untyped_storage().data_ptr() not in known:
                    self.seen = max(self.seen, x.untyped_storage().nbytes())
            return out

    def peak(regularizer: Regularizer, rows: int) -> int:
        w, to = torch.randn(rows, 1000), torch.randn(rows, 1000)
        router = Router()
        router.add(additions(regularizer, [w], [to]), {0: 1.0})
        with Largest() as largest:
            router.add(additions(regularizer, [w], [to]), {0: 1.0})
        return largest.seen

    for regularizer in (
        L1(0.1),
        L1L2(0.1, 0.1),
        GroupLasso(0.1, groups=0),
        GroupLasso(0.1, groups=1),
    ):
        assert peak(regularizer, 4000) <= 2**16
    assert peak(MCP(0.1), 4000) <= 2**21
    with reference():
        assert peak(L1(0.1), 4000) >= 4000 * 1000 * 4


def _tensors(tree: Any) -> list[Tensor]:
    return [x for x in torch.utils._pytree.tree_leaves(tree) if isinstance(x, Tensor)]


COUNTED = ("triton", "foreach", "rows", "plain rows")


def test_the_generated_kernels_in_tritons_interpreter() -> None:
    """The program compares each with the reference; here it is seen which path ran."""
    apart = Path(sys.prefix) / "triton"  # the Makefile puts it there, and says why
    assert apart.is_dir(), "the environment has no Triton: make test builds it"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(apart), *sys.path[1:]])}
    done = subprocess.run(
        [sys.executable, PROGRAM], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert set(seen["many"]) == {"triton"}
    gaps = {key.removeprefix("no kernel: ") for key in seen["seen"] if key.startswith("no kernel")}
    assert gaps == SORTED
    for kind in ("gradient", "one", "root", "each"):
        count = {path: seen["seen"].get(f"{kind}: {path}", 0) for path in COUNTED}
        assert count["triton"] == count["rows"] - count["plain rows"] - count["foreach"]
        assert count["rows"] >= 80


SORTED = {"LInf1", "ExclusiveLasso", "Simplex"}
"""What has to sort the elements of a group, which no kernel does."""


@pytest.mark.parametrize("regularizer", REGULARIZERS.values(), ids=REGULARIZERS)
def test_generated_kernels_have_no_strength_in_them(
    regularizer: Regularizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another strength, and another number of groups, is another number and not another kernel."""
    monkeypatch.setattr(triton, "is_available", lambda: True)
    programs = []
    for factor, shape in ((1.0, (3, 4)), (2.0, (4, 3))):
        w = torch.randn(shape)
        rows = rows_of(factor * regularizer, w.ndim)
        programs.append(triton.program_for(rows, w, w, None))
    assert programs[0] == programs[1]
    if not isinstance(programs[0], str):
        assert "0.3" not in triton.source_of(programs[0])


def test_why_there_is_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "is_available", lambda: True)
    w = torch.randn(3, 4)
    row = torch.randn(2, triton.LONGEST + 1)
    group = GroupLasso(0.1, groups=0)
    assert "rows" in str(triton.program_for(None, w, w, None))
    assert "longer" in str(triton.program_for(rows_of(group, 2), row, row, None))
    assert "formula" in str(triton.program_for(rows_of(LInf1(0.1, groups=0), 2), w, w, None))
    monkeypatch.setattr(triton, "is_available", lambda: False)
    assert triton.program_for(rows_of(group, 2), w, w, None) == "Triton is not installed"


@pytest.mark.parametrize("mode", ["gradient", "decoupled"])
@pytest.mark.parametrize("fused", [False, True])
def test_the_penalty_of_a_step_comes_with_its_gradient(mode: str, fused: bool) -> None:
    """It is that of the weights before the step, effective ones and half precision included."""
    m = model()
    m["other"].bfloat16()
    rules: Any = {kernels: L1(0.1) + L2(0.2), "conv": GroupLasso(0.1, groups="inputs")}
    if mode == "decoupled":
        rules["normed"] = None
    optimizer = opt.SGD(m.parameters(), lr=0.1, fused=fused)
    plan = regularize(m, rules)
    attachment = plan.attach(optimizer, mode=mode, values=True)
    assert attachment.penalty is None
    for _ in range(2):
        optimizer.zero_grad()
        expected = float(plan.penalty().detach())
        optimizer.step()
        assert attachment.penalty is not None
        assert attachment.penalty.dtype is torch.float64
        assert float(attachment.penalty) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("regularizer", [L1(0.1), L2(0.1), GroupLasso(0.1), MCP(0.1)], ids=repr)
def test_gradients_are_freed_after_a_step(regularizer: Regularizer) -> None:
    """Nothing keeps them for the next one, which would be another copy of the model."""
    m = nn.Sequential(nn.Linear(300, 257), nn.Linear(4, 3))
    optimizer = opt.SGD(m.parameters(), lr=0.1)
    regularize(m, regularizer).attach(optimizer)
    for layer in m:
        layer.weight.grad = torch.ones_like(layer.weight)
    held = [ref(layer.weight.grad) for layer in m]
    optimizer.step()
    optimizer.zero_grad()
    assert [gradient() for gradient in held] == [None, None]


def test_it_is_not_computed_unless_asked_for() -> None:
    m = nn.Linear(3, 2)
    optimizer = opt.SGD(m.parameters(), lr=0.1)
    attachment = regularize(m, L1(0.1)).attach(optimizer)
    optimizer.step()
    assert attachment.penalty is None


@pytest.mark.parametrize("how", [{"mode": "proximal"}, {"clip": "with"}])
def test_where_no_value_comes_with_the_gradient(how: dict[str, Any]) -> None:
    m = nn.Linear(3, 2)
    optimizer = opt.SGD(m.parameters(), lr=0.1)
    with pytest.raises(ModeError, match=r"values=True.*breakdown"):
        regularize(m, L1(0.1)).attach(optimizer, **how, values=True)
    with pytest.raises(ModeError, match="True or False"):
        regularize(m, L1(0.1)).attach(optimizer, values="yes")  # type: ignore[arg-type]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
class TestOnTheGPU:
    """The same paths where they are meant to run, and captured in a graph."""

    @pytest.mark.parametrize("regularizer", REGULARIZERS.values(), ids=REGULARIZERS)
    def test_equals_the_reference(self, regularizer: Regularizer) -> None:
        ws = [w.cuda() for w in draw(fitting(regularizer, SHAPES["mixed"]), torch.float32)]
        tos = [torch.ones_like(w) for w in ws]
        expected = [torch.ones_like(w) for w in ws]
        router = Router()
        router.add(additions(regularizer, ws, tos), {0: 0.5})
        with reference():
            Router().add(additions(regularizer, ws, expected), {0: 0.5})
        torch.testing.assert_close(tos, expected, rtol=1e-5, atol=1e-6)
        if regularizer != REGULARIZERS["last axis"]:
            assert {path for path, _ in router.taken.values()} <= {"triton", "foreach"}

    def test_a_step_can_be_captured(self) -> None:
        w, to = torch.randn(300, 257, device="cuda"), torch.zeros(300, 257, device="cuda")
        router, work = Router(), additions(L1(0.3), [w], [to])
        router.add(work, {0: 1.0})
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            router.add(work, {0: 1.0})
        to.zero_()
        graph.replay()
        torch.testing.assert_close(to, 0.3 * w.sign())
