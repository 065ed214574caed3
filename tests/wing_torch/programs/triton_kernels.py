"""Every case of the table by the generated kernels, in Triton's interpreter.

A program of its own: the interpreter is chosen by an environment variable that Triton reads when it
is imported. Prints how many cases took which path, as JSON.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"
sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from cases import CASES, Case
from cases import KINDS as OF_EACH_KIND
from torch import Tensor

from penalize import L1, L1L2, GroupLasso, Huber, Regularizer, SparseGroupLasso
from penalize.steps import Taken
from penalize.torch.kernels import Additions, Router, Shrinkings, interpreted, reference

TOLERANCE = {
    torch.float64: {"rtol": 1e-10, "atol": 1e-12},
    torch.float32: {"rtol": 2e-5, "atol": 2e-6},
    torch.bfloat16: {"rtol": 2e-2, "atol": 1e-2},
}
DTYPES = list(TOLERANCE)


def draw(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    w = torch.randn(tuple(shape), dtype=torch.float64)
    w[w.abs() < 0.2] = 0.0
    if w.ndim > 1:
        w[0] = 0.0
    return w.to(dtype)


def additions(rs: list[Regularizer], ws: list[Tensor], tos: list[Tensor]) -> Additions:
    names, count = [str(i) for i in range(len(ws))], len(ws)
    return Additions(names, ws, tos, rs, [0] * count, [False] * count)


def shrinkings(rs: list[Regularizer], ws: list[Tensor], steps: list[Taken]) -> Shrinkings:
    return Shrinkings([str(i) for i in range(len(ws))], ws, rs, steps)


def both(
    run: Callable[[Router, list[Tensor]], None],
    start: list[Tensor],
    seen: Counter[str],
    exact: torch.dtype | None = None,
) -> tuple[list[Tensor], list[Tensor]]:
    """What the kernels make of tensors, twice with one router, and what the reference does."""
    router, fast, slow = (
        Router(),
        [x.clone() for x in start],
        [x.to(exact, copy=True) for x in start],
    )
    times = 1 if exact else 2
    for _ in range(times):
        with interpreted():
            run(router, fast)
    seen.update(path for path, _ in router.taken.values())
    for _ in range(times):
        with reference():
            run(Router(), slow)
    return fast, [x.to(y.dtype) for x, y in zip(slow, start, strict=True)]


def check(case: Case, dtype: torch.dtype, seen: Counter[str]) -> None:
    """One weight: its gradient, and its prox with each kind of step."""
    r, w = case.regularizer, draw(case.shape, dtype)
    second = torch.rand(case.shape, dtype=torch.float64).to(dtype)
    kinds: list[Any] = [("gradient", None)] if r.differentiable else []
    kinds += [("one", Taken(0.3))] if case.has_prox else []
    if case.has_prox and case.prox_per_element:
        kinds += [
            ("root", Taken(0.3, second, 1.2, 1e-3)),
            ("each", Taken(0.3, second, 0.9, 0.1, False)),
        ]
    for name, taken in kinds:

        def run(router: Router, tensors: list[Tensor], taken: Any = taken) -> None:
            dtype = tensors[0].dtype
            if taken is None:
                router.add(additions([r], [w.to(dtype)], tensors), {0: -0.7})
            elif taken.second is None:
                router.shrink(shrinkings([r], tensors, [taken]))
            else:
                beside = taken.second.to(dtype)
                router.shrink(shrinkings([r], tensors, [taken._replace(second=beside)]))

        counted: Counter[str] = Counter()
        start = [torch.ones_like(w) if taken is None else w]
        # In half precision the kernels round once, and the reference at each turn.
        exact = torch.float32 if dtype is torch.bfloat16 else None
        fast, slow = both(run, start, counted, exact)
        seen.update({f"{name}: {path}": 1 for path in counted})
        if r.by_rows(w.ndim) is not None:
            seen[f"{name}: rows"] += 1
            if "plain" in counted:
                seen[f"{name}: plain rows"] += 1
                seen["no kernel: " + type(r).__name__] += 1
        message = f"{case} {dtype} {name}"
        torch.testing.assert_close(
            fast, slow, **TOLERANCE[dtype], msg=lambda m, s=message: f"{s}: {m}"
        )
        if dtype is not torch.bfloat16 and taken is not None:
            assert torch.equal(fast[0] == 0, slow[0] == 0), message


KINDS: list[Callable[[float], Regularizer]] = [
    L1,
    lambda s: L1L2(s, 2 * s),
    lambda s: GroupLasso(s, groups=0),
    lambda s: SparseGroupLasso(s, groups=0),
    lambda s: Huber(s, 0.4),
]


def check_many(kind: Callable[[float], Regularizer], seen: Counter[str]) -> None:
    """Many shapes and strengths in few launches, with numbers that only the device knows."""
    shapes = [(3, 4), (40, 4), (2, 3, 3, 3), (7, 100), (1, 1), (1500, 3)]
    ws = [draw(shape, torch.float32) for shape in shapes]
    count = len(ws)
    rs = [kind(0.01 * (1 + i)) for i in range(count)]

    def add(router: Router, tensors: list[Tensor]) -> None:
        router.add(additions(rs, ws, tensors), {0: 1.0})

    with interpreted():
        values = Router().value_and_add(
            additions(rs, ws, [torch.ones_like(w) for w in ws]), {0: 1.0}
        )
    expected = sum(float(r(w.double())) for r, w in zip(rs, ws, strict=True))
    assert abs(float(sum(values)) - expected) <= 1e-5 * expected

    fast, slow = both(add, [torch.ones_like(w) for w in ws], seen)
    torch.testing.assert_close(fast, slow, rtol=2e-5, atol=1e-6)

    lr, scale = torch.tensor(0.1), torch.tensor(1.5)
    seconds = [w.abs() + 0.1 for w in ws]
    steps = [Taken(lr, second, scale, 1e-3) for second in seconds]

    def shrink(router: Router, tensors: list[Tensor]) -> None:
        router.shrink(shrinkings(rs, tensors, steps))

    fast, slow = both(shrink, ws, seen)
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-5)


def main() -> None:
    torch.manual_seed(0)
    seen: Counter[str] = Counter()
    for case in CASES:
        # Rounding is that of a kind; what cases of a kind differ in shows in float64.
        for dtype in DTYPES if case in OF_EACH_KIND else DTYPES[:1]:
            check(case, dtype, seen)
    many: Counter[str] = Counter()
    for kind in KINDS:
        check_many(kind, many)
    print(json.dumps({"seen": seen, "many": many}))


if __name__ == "__main__":
    main()
