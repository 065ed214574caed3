"""A compiled kernel in a process of its own: read from disk, with workers, and after a fork."""

from __future__ import annotations

import os
import signal

import torch

from penalize import L1
from penalize.torch.forks import may_be_forked
from penalize.torch.kernels import Additions, Router, at_any_size, native, workers

W = torch.randn(500, 400)
TOS = [torch.zeros_like(W) for _ in range(3)]
EXPECTED = (0.5 * W.sign()).numpy()


def is_right() -> bool:
    """Whether a kernel does what it should, on more than one thread.

    They are PyTorch's own, which do not work in a child: there they are ours. (So nothing large is
    asked of PyTorch there.)
    """
    to, router = TOS.pop(), Router()
    with at_any_size():
        router.add(Additions(["w"], [W], [to], [L1(0.5)], [0], [False]), {0: 1.0})
    used = bool(workers._pool.size) is may_be_forked() and router.taken["w"] == ("compiled", "")
    return used and bool((to.numpy() == EXPECTED).all())


def refuse(self: object, text: str) -> bytes:
    raise AssertionError("it is on disk")


def main() -> None:
    native._Compiler.compile = refuse  # type: ignore[method-assign]
    torch.set_num_threads(2)
    assert workers.openmp() is not None
    assert is_right()
    print("kept", end=", ", flush=True)
    child = os.fork()
    if not child:
        signal.alarm(60)  # rather than wait forever
        os._exit(0 if not workers._pool.size and is_right() else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
    assert is_right()
    print("forked")


if __name__ == "__main__":
    main()
