"""The kernels that are compiled for the CPU, against the plain path.

A kernel takes about a tenth of a second to compile, so that few forms are asked much. Every row of
the table of cases is asked once, by ``make test-all``; here one of each kind.
"""

from __future__ import annotations

import errno
import math
import os
import subprocess
import sys
import threading
from array import array
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.optim as opt
from cases import CASES, KINDS, Case
from torch import Tensor, nn
from wing_torch.test_kernels import SORTED, additions, draw, shrinkings, tolerance

from penalize import L1, L1L2, GroupLasso, LInf1, NuclearNorm, Regularizer, kernels
from penalize.steps import Taken
from penalize.torch import forks, regularize
from penalize.torch.kernels import Router, at_any_size, compiled, launch, native, reference, workers
from penalize.torch.kernels.printer import printed

PROGRAM = Path(__file__).parent / "programs" / "compiled_kernels.py"
SHAPES = [(3, 4), (300, 257), (5, 64), (2, 3, 3, 3), (1, 1), (40, 40, 7, 7), (129, 16)]
FORMS: dict[str, Regularizer] = {
    "L1L2": L1L2(0.2, 0.3),
    "rows": GroupLasso(0.3, groups=0) + L1(0.1),
    "columns": GroupLasso(0.3, groups=-1) + L1(0.1),
}


def both(
    run: Callable[[Router, list[Tensor]], object], start: list[Tensor]
) -> tuple[list[Tensor], list[Tensor], Router]:
    """What the kernels make of tensors, and the reference, and who did it."""
    router, fast, slow = Router(), [x.clone() for x in start], [x.clone() for x in start]
    with at_any_size():
        run(router, fast)
    with reference():
        run(Router(), slow)
    return fast, slow, router


def paths(router: Router) -> set[str]:
    return {path for path, _ in router.taken.values()}


def check(case: Case) -> None:
    """One weight: its gradient, and its prox with each kind of step."""
    r = case.regularizer
    (w,) = draw([case.shape], torch.float64)
    second = torch.rand_like(w)
    takes: list[Taken | None] = [None] if r.differentiable else []
    takes += [Taken(0.3)] if case.has_prox else []
    if case.has_prox and case.prox_per_element:
        takes += [Taken(0.3, second, 1.2, 1e-3), Taken(0.3, second, 0.9, 0.1, False)]
    for taken in takes:

        def run(router: Router, tensors: list[Tensor], taken: Taken | None = taken) -> None:
            if taken is None:
                router.add(additions(r, [w], tensors), {0: -0.7})
            else:
                router.shrink(shrinkings(r, tensors, [taken]))

        start = torch.ones_like(w) if taken is None else w
        fast, slow, router = both(run, [start])
        torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-14)
        assert torch.equal(fast[0] == 0, slow[0] == 0)
        ((path, why),) = router.taken.values()
        if (r.by_rows(w.ndim) or r.by_columns(w.ndim)) is None or not w.numel():
            assert path != "compiled"
        elif path != "compiled":
            assert any(name in repr(r) for name in SORTED)
            assert "its formula has no place in a kernel" in why


@pytest.mark.parametrize("case", KINDS, ids=str)
def test_one_of_each_kind(case: Case) -> None:
    check(case)


@pytest.mark.breadth
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_case_of_the_table(case: Case) -> None:
    check(case)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", FORMS)
class TestManyWeights:
    """Of all shapes, with all strengths, in one call."""

    def test_gradient_and_value(self, name: str, dtype: torch.dtype) -> None:
        ws = draw(SHAPES, dtype)
        rs = [(1 + i) / len(ws) * FORMS[name] for i in range(len(ws))]
        for values in (False, True):

            def run(router: Router, tos: list[Tensor], values: bool = values) -> None:
                work = additions(rs[0], ws, tos)
                object.__setattr__(work, "regularizers", rs)
                if values:
                    found = float(sum(router.value_and_add(work, {0: -0.7})))
                    expected = sum(float(r(w.double())) for r, w in zip(rs, ws, strict=True))
                    assert found == pytest.approx(expected, rel=1e-5)
                else:
                    router.add(work, {0: -0.7})

            fast, slow, router = both(run, [torch.randn_like(w) for w in ws])
            torch.testing.assert_close(fast, slow, **tolerance(dtype))
            assert paths(router) == {"compiled"}
            assert len(router._jobs) == 1

    def test_decoupled(self, name: str, dtype: torch.dtype) -> None:
        """What is added to is the weight itself."""
        fast, slow, router = both(
            lambda router, ws: router.add(additions(FORMS[name], ws, ws), {0: -0.1}),
            draw(SHAPES, dtype),
        )
        torch.testing.assert_close(fast, slow, **tolerance(dtype))
        assert paths(router) == {"compiled"}

    @pytest.mark.parametrize("per_element", [False, True])
    def test_prox(self, name: str, dtype: torch.dtype, per_element: bool) -> None:
        ws = draw(SHAPES, dtype)
        seconds = [torch.rand_like(w) if per_element else None for w in ws]
        steps = [Taken(0.4, second, 1.1, 1e-8) for second in seconds]
        fast, slow, router = both(
            lambda router, ws: router.shrink(shrinkings(FORMS[name], ws, steps)), ws
        )
        # The root is found to rounding of a sum.
        close = {"rtol": 1e-4, "atol": 1e-5} if dtype is torch.float32 else tolerance(dtype)
        torch.testing.assert_close(fast, slow, **close)
        assert all(torch.equal(x == 0, y == 0) for x, y in zip(fast, slow, strict=True))
        assert paths(router) == {"compiled"}
        assert len(router._jobs) == 1


TINY = torch.finfo(torch.float32).tiny
STRANGE = [math.nan, math.inf, -math.inf, -0.0, 0.0, TINY / 8, -TINY / 8, 1e38, -1e-30, 2.0]


@pytest.mark.parametrize("second", [None, 0.0, 1e-30, math.inf, math.nan, 4.0])
@pytest.mark.parametrize("name", FORMS)
def test_strange_numbers(name: str, second: float | None) -> None:
    """Each alone in a group, all together, and in the rest of a row that no vector holds."""
    n = len(STRANGE)
    square = torch.zeros(n + 1, n + 1).fill_diagonal_(1.0)
    square[range(n), range(n)] = torch.tensor(STRANGE)
    square[n, :n] = torch.tensor(STRANGE)
    ws = [square, torch.tensor([STRANGE * 4]), torch.tensor([STRANGE * 4]).T.contiguous()]

    def run(router: Router, tensors: list[Tensor]) -> None:
        if second is None:
            router.add(additions(FORMS[name], ws, tensors), {0: 0.5})
        else:
            steps = [Taken(0.4, torch.full_like(w, second), 1.0, 1e-8) for w in ws]
            router.shrink(shrinkings(FORMS[name], tensors, steps))

    start = [torch.full_like(w, -0.0) for w in ws] if second is None else ws
    fast, slow, router = both(run, start)
    assert paths(router) == {"compiled"}
    for x, y in zip(fast, slow, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-5, atol=0, equal_nan=True)
        signs = [z.signbit() & (z == 0) for z in (x, y)]
        assert torch.equal(*signs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", FORMS)
def test_half_precision_is_at_least_as_near_to_the_truth(name: str, dtype: torch.dtype) -> None:
    ws = draw(SHAPES, dtype)
    start = [torch.randn_like(w) for w in ws]
    start[0][0, 0], start[0][0, 1] = math.nan, math.inf
    truths = [
        to.double() + 0.5 * FORMS[name].gradient(w.double())
        for w, to in zip(ws, start, strict=True)
    ]
    fast, slow, router = both(
        lambda router, tos: router.add(additions(FORMS[name], ws, tos), {0: 0.5}), start
    )
    assert paths(router) == {"compiled"}
    assert fast[0][0, 0].isnan()
    assert fast[0][0, 1].isinf()
    for x, y, truth in zip(fast, slow, truths, strict=True):
        known = truth.isfinite()
        errors = [(z - truth)[known].abs().mean() for z in (x, y)]
        assert errors[0] <= 1.01 * errors[1]


def test_groups_whose_steps_differ_by_orders_of_magnitude() -> None:
    """Where Newton's method alone would creep."""
    torch.manual_seed(0)
    w = 10.0 ** (16 * torch.rand(200, 300, dtype=torch.float64) - 8)
    second = (10.0 ** (16 * torch.rand_like(w) - 8)) ** -2.0
    regularizer = GroupLasso(1.0, groups=0, size_weighted=False)
    for r, x in ((regularizer, w), (regularizer._with(groups=1), w.T.contiguous())):
        given = [Taken(1.0, second if x is w else second.T.contiguous(), 1.0, 0.0)]
        fast, slow, router = both(
            lambda router, ws, r=r, given=given: router.shrink(shrinkings(r, ws, given)), [x]
        )
        assert paths(router) == {"compiled"}
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=0)


# --- who takes it, and what it says -----------------------------------------------------------


def stepped(m: nn.Module, rules: Any) -> dict[str, tuple[str, str]]:
    optimizer = opt.SGD(m.parameters(), lr=0.1)
    attachment = regularize(m, rules).attach(optimizer)
    optimizer.step()
    found = {row.name: (row.path, row.why) for row in attachment.explain()}
    attachment.detach()
    return found


def test_explain_says_compiled_or_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    m = nn.ModuleDict({name: nn.Linear(30, 20) for name in ("one", "two", "three")})
    rules = {kernels: L1(0.1), "two": LInf1(0.1, groups=0), "three": NuclearNorm(0.1)}
    assert "from 1,048,576 penalized weights on" in stepped(m, rules)["one.weight"][1]
    with at_any_size():
        found = stepped(m, rules)
        assert found["one.weight"] == ("compiled", "")
        assert found["two.weight"][0] == "packed"
        assert "its formula has no place in a kernel" in found["two.weight"][1]
        assert found["three.weight"][0] == "plain"
        monkeypatch.setattr(compiled, "LONGEST", {"rows": 29})
        assert "longer than 29" in stepped(m, GroupLasso(0.1, groups=0))["one.weight"][1]
        monkeypatch.setattr(native, "why_not_here", lambda: "llvmlite is not installed")
        assert stepped(m, rules)["one.weight"] == ("packed", "llvmlite is not installed")


def test_small_models_load_no_compiler() -> None:
    """Nobody waits for it in a first step that takes microseconds."""
    m = nn.Linear(30, 20)
    assert stepped(m, L1(0.1))["weight"][0] == "packed"
    assert stepped(nn.Linear(1024, 1024, bias=False), L1(0.1))["weight"][0] == "compiled"


@pytest.mark.parametrize("prox", [False, True])
def test_autograd_sees_what_has_changed(prox: bool) -> None:
    """A graph that has saved a weight must not be walked once the weight is another."""
    w, to = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    y = ((w if prox else to) ** 2).sum()
    with torch.no_grad(), at_any_size():
        if prox:
            Router().shrink(shrinkings(L1(0.5), [w], [Taken(0.5)]))
        else:
            Router().add(additions(L1(0.5), [w], [to]), {0: 1.0})
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()  # type: ignore[no-untyped-call]


def test_what_is_known_with_the_other_sign() -> None:
    """A view that PyTorch has negated, and not its memory; the other path refuses it."""
    w, to, router = torch.ones(3), torch._neg_view(torch.ones(3)), Router()
    with at_any_size():
        router.add(additions(L1(0.5), [w], [torch.ones(3)]), {0: 1.0})
        assert paths(router) == {"compiled"}
        with pytest.raises(RuntimeError, match="negation"):
            router.add(additions(L1(0.5), [w], [to]), {0: 1.0})


class Logged(Tensor):
    """A type whose operations may be anything, on memory or not."""


@pytest.mark.parametrize(
    ("to", "why"),
    [
        (torch.ones(3).as_subclass(Logged), "keeps a Logged beside it"),
        (torch._efficientzerotensor((3,)), ""),
    ],
    ids=["of another type", "not in memory"],
)
def test_what_is_no_more_where_its_address_says(
    to: Tensor, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machine code would write there, or end the process."""
    w, router = torch.ones(3), Router()
    with at_any_size():
        router.add(additions(L1(0.5), [w], [torch.ones(3)]), {0: 1.0})
        assert paths(router) == {"compiled"}
        monkeypatch.setattr(compiled.Compiled, "_run", None)
        if why:
            router.add(additions(L1(0.5), [w], [to]), {0: 1.0})
            assert to.tolist() == [1.5] * 3
        else:
            with pytest.raises(RuntimeError, match="ZeroTensors are immutable"):
                router.add(additions(L1(0.5), [w], [to]), {0: 1.0})
    ((path, said),) = router.taken.values()
    assert path != "compiled"
    assert why in said


def test_another_strength_rate_or_shape_compiles_nothing() -> None:
    router, before = Router(), -1
    for strength, factor, shape in ((0.1, 0.5, (3, 4)), (0.2, 0.25, (30, 40))):
        ws = draw([shape], torch.float32)
        with at_any_size():
            router.shrink(shrinkings(GroupLasso(strength, groups=0), ws, [Taken(factor)]))
        assert paths(router) == {"compiled"}
        assert before in (-1, len(native._made))
        before = len(native._made)


def test_what_llvm_refuses_takes_another_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(text: str) -> None:
        raise RuntimeError("no such instruction")

    m = nn.Linear(30, 20)
    monkeypatch.setattr(native, "native", refuse)
    with at_any_size():
        path, why = stepped(m, L1(0.1))["weight"]
    assert path == "packed"
    assert "no such instruction" in why


def test_a_value_that_cannot_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the gradient can: it goes on, and asks LLVM once."""
    compile_, asked = native.native, []

    def refuse_values(text: str) -> native.Native:
        if text == refused:
            asked.append(text)
            raise RuntimeError("no such instruction")
        return compile_(text)

    ws = draw([(3, 4), (5, 2)], torch.float32)
    r, router = L1L2(0.2, 0.3), Router()
    with at_any_size():
        router.add(additions(r, ws, [w.clone() for w in ws]), {0: 1.0})
        (job,) = router._jobs
        assert isinstance(job, compiled.Compiled)
        refused = printed(replace(job.routine, with_value=True)).text
        monkeypatch.setattr(native, "native", refuse_values)
        tos = [w.clone() for w in ws]
        for _ in range(2):
            torch._foreach_copy_(tos, ws)  # what is penalized is the weight before
            found = router.value_and_add(additions(r, tos, tos), {0: 0.5})
            assert paths(router) == {"compiled"}
            assert float(sum(found)) == pytest.approx(sum(float(r(w)) for w in ws), rel=1e-6)
            torch.testing.assert_close(tos, [w + 0.5 * r.gradient(w) for w in ws])
    assert len(asked) == 1


def test_versions_beside_tensors_of_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    """These have none, and hide no other's: as some versions of PyTorch have it."""
    increment = launch.increment_version

    def strict(x: Tensor) -> None:
        if not isinstance(x, Tensor) or x.is_inference():
            raise RuntimeError("a tensor that has a version")
        increment(x)

    monkeypatch.setattr(launch, "increment_version", strict)
    with torch.inference_mode():
        tos = [torch.ones(3)]
    tos.append(torch.ones(3))
    with at_any_size():
        router = Router()
        router.add(additions(L1(0.5), [torch.ones(3), torch.ones(3)], tos), {0: 1.0})
    assert paths(router) == {"compiled"}
    assert tos[1]._version == 1


# --- on disk ------------------------------------------------------------------------------------


def forgotten(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """As in a new process."""
    monkeypatch.setattr(native, "_made", {})
    monkeypatch.setenv("PENALIZE_CACHE_DIR", str(folder))


def a_step() -> tuple[str, str]:
    w, to = torch.randn(3, 4), torch.zeros(3, 4)
    router = Router()
    with at_any_size():
        router.add(additions(L1(0.5), [w], [to]), {0: 1.0})
    assert torch.equal(to, 0.5 * w.sign())
    return router.taken["0"]


def no_compiler(self: Any, text: str) -> bytes:
    raise AssertionError("it is on disk")


def test_a_kernel_is_read_from_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    forgotten(monkeypatch, folder)
    assert a_step() == ("compiled", "")
    (file,) = folder.iterdir()
    forgotten(monkeypatch, folder)
    with monkeypatch.context() as patched:
        patched.setattr(native._Compiler, "compile", no_compiler)
        assert a_step() == ("compiled", "")
    # What is damaged, or cut off by a full disk, is compiled again.
    good = file.read_bytes()
    for bad in (good[:40], b"", good[:-1] + bytes([good[-1] ^ 1])):
        file.write_bytes(bad)
        forgotten(monkeypatch, folder)
        assert a_step() == ("compiled", "")
        assert file.read_bytes() == good
    # Another version's has another name.
    forgotten(monkeypatch, folder)
    monkeypatch.setattr(native._compiler(), "key", "another version")
    assert a_step() == ("compiled", "")
    assert len(list(folder.iterdir())) == 2


def test_where_no_kernel_can_be_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    forgotten(monkeypatch, tmp_path / "file" / "folder")
    path, why = a_step()
    assert path == "compiled"
    assert "anew in each process" in why
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    forgotten(monkeypatch, folder)
    assert "others can write" in a_step()[1]
    assert not list(folder.iterdir())

    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    forgotten(monkeypatch, tmp_path / "full")
    monkeypatch.setattr(native.os, "fdopen", full)
    path, why = a_step()
    assert path == "compiled"
    assert os.strerror(errno.ENOSPC) in why
    assert not list((tmp_path / "full").iterdir())


# --- threads and processes ------------------------------------------------------------------------


def test_threads_are_pytorchs_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever takes a block, what comes out is the same; on whatever default device."""
    names: set[str] = set()
    workers.in_threads(lambda number: names.add(threading.current_thread().name), 1)
    assert names == {threading.current_thread().name}
    w = torch.randn(400, 500)
    found = []
    before = torch.get_num_threads()
    teams: list[int] = []
    team = workers.openmp()
    assert team is not None  # as PyTorch is built for Linux

    def counted(kernel: int, work: int, count: int, flags: int) -> None:
        teams.append(count)
        team(kernel, work, count, flags)

    for count, way in ((1, counted), (3, counted), (3, None)):
        monkeypatch.setattr(workers, "openmp", lambda way=way: way)
        torch.set_num_threads(count)
        try:
            to = torch.zeros_like(w)
            with at_any_size(), torch.device("cpu" if count == 1 else "meta"):
                value = Router().value_and_add(additions(FORMS["rows"], [w], [to]), {0: 1.0})
        finally:
            torch.set_num_threads(before)
        found.append((to, *value))
    assert teams == [3]
    for other in found[1:]:
        assert all(torch.equal(*each) for each in zip(found[0], other, strict=True))


def test_more_threads_than_there_is_work_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes when all are there does nothing, and nobody waits for one that never comes."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    w, to = torch.randn(1000, 300), torch.zeros(1000, 300)
    with at_any_size():
        for calls in (1, 2, 5):
            to.zero_()

            def called(
                kernel: native.Native, work: array[int], count: int, alive: Any, calls: int = calls
            ) -> None:
                assert count == 3
                for _ in range(calls):
                    kernel.call(work.buffer_info()[0])

            monkeypatch.setattr(workers, "run", called)
            Router().add(additions(L1(0.5), [w], [to]), {0: 1.0})
            torch.testing.assert_close(to, 0.5 * w.sign())


def test_a_first_step_in_a_fork() -> None:
    """OpenMP's threads are no more there, and nothing of the kernels was loaded before it."""
    with at_any_size():  # so that it is on disk
        Router().add(additions(L1(0.5), [torch.ones(2)], [torch.ones(2)]), {0: 1.0})
    program = str(Path(PROGRAM).with_name("forked.py"))
    run = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, check=False, timeout=120
    )
    assert run.stdout == "forked\n", run.stderr


def test_children_of_multiprocessing_have_threads_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may have been forked before anything of penalize was loaded."""
    assert not forks.may_be_forked()
    monkeypatch.setattr("multiprocessing.parent_process", lambda: object())
    assert forks.may_be_forked()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(workers, "openmp", lambda: pytest.fail("OpenMP was asked"))
    w, to = torch.randn(1000, 300), torch.zeros(1000, 300)
    with at_any_size():
        Router().add(additions(L1(0.5), [w], [to]), {0: 1.0})
    torch.testing.assert_close(to, 0.5 * w.sign())


def test_without_openmp(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows: a pool of our own."""
    workers.openmp.cache_clear()
    monkeypatch.setattr(
        torch.__config__, "parallel_info", lambda: "ATen parallel backend: native thread pool"
    )
    try:
        assert workers.openmp() is None
    finally:
        workers.openmp.cache_clear()
    monkeypatch.undo()
    monkeypatch.setattr(torch, "__file__", "/nowhere/torch/__init__.py")
    try:
        assert workers.openmp() is None
    finally:
        workers.openmp.cache_clear()


def test_whoever_has_begun_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a thread cannot be started, and where the task of the calling thread fails."""
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def start_one(self: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(self)
        start(self)

    monkeypatch.setattr(workers, "_pool", workers._Pool())
    monkeypatch.setattr(threading.Thread, "start", start_one)
    for fails in (False, True):
        begun, returned = threading.Event(), threading.Event()
        late: list[bool] = []

        def task(
            number: int,
            begun: threading.Event = begun,
            returned: threading.Event = returned,
            late: list[bool] = late,
            fails: bool = fails,
        ) -> None:
            if number:
                begun.set()
                late.append(returned.wait(0.05))
            else:
                assert begun.wait(10)
                if fails:
                    raise KeyError("own")

        if fails:
            with pytest.raises(KeyError, match="own"):
                workers.in_threads(task, 4)
        else:
            workers.in_threads(task, 4)
        returned.set()
        assert late == [False]


def test_a_failure_in_another_thread_is_raised() -> None:
    begun = threading.Event()

    def task(number: int) -> None:
        if number:
            begun.set()
            raise KeyError("another's")
        assert begun.wait(10)

    with pytest.raises(KeyError, match="another's"):
        workers.in_threads(task, 2)


def test_threads_are_as_many_as_were_ever_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not as many as all calls together."""
    monkeypatch.setattr(workers, "_pool", workers._Pool())
    before = set(threading.enumerate())
    for count in (2, 4, 3, 1, 4):
        workers.in_threads(lambda number: None, count)
    assert len(set(threading.enumerate()) - before) == 3


@pytest.mark.parametrize("shares", ["nothing", "reads", "to", "w", "w and to", "a part"])
def test_weights_that_share_memory_are_one_after_the_other(
    shares: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where parameters are tied by their data, or have one gradient."""
    counts = []
    run = workers.run

    def counted(kernel: native.Native, work: array[int], count: int, alive: Any) -> None:
        counts.append(count)
        run(kernel, work, count, alive)

    monkeypatch.setattr(workers, "run", counted)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    start = torch.randn(800, 300)
    found = []
    for context in (at_any_size, reference):
        first, second, third, last = start.clone().split(200)
        ws, tos = {
            "nothing": ([first, second], [third, last]),
            "reads": ([first, first.view_as(first)], [third, last]),
            "to": ([first, second], [last, last]),
            "w": ([first, first], [first, first]),
            "w and to": ([first, second], [third, first]),
            "a part": ([first, second], [third, start_at(third, 1)]),
        }[shares]
        router = Router()
        with context():
            router.add(additions(L1L2(0.1, 0.2), ws, tos), {0: -0.5})
            if shares == "w":
                router.shrink(shrinkings(L1L2(0.1, 0.2), ws, [Taken(0.3), Taken(0.3)]))
        found.append(torch.cat([*ws, *tos]))
    assert counts == ([2] if shares in ("nothing", "reads") else [1, 1] if shares == "w" else [1])
    torch.testing.assert_close(*found)


def start_at(x: Tensor, offset: int) -> Tensor:
    """As many elements from another place in the same memory."""
    return x.as_strided(x.shape, x.stride(), x.storage_offset() + offset)


def test_many_threads_at_once() -> None:
    """Each with an optimizer of its own, over the same workers."""
    ws = [torch.randn(300, 400) for _ in range(8)]
    tos = [torch.zeros_like(w) for w in ws]

    def step(i: int) -> None:
        for _ in range(5):
            Router().add(additions(L1(0.5), [ws[i]], [tos[i]]), {0: 1.0})

    with at_any_size():
        threads = [threading.Thread(target=step, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for w, to in zip(ws, tos, strict=True):
        torch.testing.assert_close(to, 2.5 * w.sign())


def test_in_another_process_and_after_a_fork() -> None:
    """The kernel comes from disk there; a child that is forked has no workers, and gets its own."""
    with at_any_size():
        Router().add(additions(L1(0.5), [torch.ones(2)], [torch.ones(2)]), {0: 1.0})
    run = subprocess.run(
        [sys.executable, PROGRAM], capture_output=True, text=True, check=False, timeout=120
    )
    assert run.stdout == "kept, forked\n", run.stderr


def test_a_kernel_has_no_strength_in_it() -> None:
    r = 0.3125 * GroupLasso(1.0, groups=0)
    with at_any_size():
        router = Router()
        router.add(additions(r, [torch.ones(3, 4)], [torch.ones(3, 4)]), {0: 1.0})
    (job,) = router._jobs
    assert isinstance(job, compiled.Compiled)
    assert "3FD4" not in printed(job.routine).text


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_whose_code_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Others may neither write to the file, nor put another folder in the place of its folder."""
    folder = tmp_path / "mine" / "kernels"
    forgotten(monkeypatch, folder)
    assert a_step() == ("compiled", "")
    (file,) = folder.iterdir()
    assert folder.stat().st_mode & 0o777 == folder.parent.stat().st_mode & 0o777 == 0o700
    file.chmod(0o666)
    assert native._read(file) is None
    file.chmod(0o600)
    assert native._read(file) is not None
    folder.parent.chmod(0o777)
    forgotten(monkeypatch, folder)
    assert a_step() == ("compiled", f"{ANEW}: others can write to {folder.parent}")
    folder.parent.chmod(0o1777)  # as /tmp: nobody can move what is another's
    assert native.folder_of_kernels() == (folder, "")
    monkeypatch.setenv("PENALIZE_CACHE_DIR", "here")
    assert native.folder_of_kernels()[1] == f"{ANEW}: the folder here is no absolute path"
    monkeypatch.delenv("PENALIZE_CACHE_DIR")
    monkeypatch.setattr(native.Path, "home", no_home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(native.sys, "platform", "linux")
    assert native.folder_of_kernels()[1].startswith(f"{ANEW}: Could not determine home directory.")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert native.folder_of_kernels() == (tmp_path / "penalize" / "kernels", "")


ANEW = "it is compiled anew in each process"
