"""Which path each weight takes: the one place where it is decided."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from penalize.regularizers.base import Regularizer
from penalize.regularizers.grouping import Axes, grouping_of
from penalize.regularizers.groups import GroupLasso
from penalize.steps import Taken
from penalize.torch.kernels import triton
from penalize.torch.kernels.cpu import Buffers, Groups
from penalize.torch.kernels.jobs import (
    PACK,
    PACKED,
    Chunked,
    Foreach,
    Job,
    Packed,
    Plain,
    Whole,
    rows_of,
)

_only_plain: list[None] = []
"""Not empty while the reference is asked for."""


@contextmanager
def reference() -> Iterator[None]:
    """Within the block every weight takes the plain path: what the others are compared with."""
    _only_plain.append(None)
    try:
        yield
    finally:
        _only_plain.pop()


@dataclass(frozen=True)
class Works:
    """What is to be done in one step, as columns with one entry per weight."""

    names: Sequence[str]
    ws: Sequence[Tensor]
    besides: Sequence[Tensor]
    """What a gradient is added to, which may be the weight; or the second moment of its optimizer,
    the weight itself where there is none."""

    regularizers: Sequence[Regularizer]
    keys: Sequence[Hashable]
    """Weights of one key have one scale, or one step."""

    on_device: Sequence[bool]
    """Whether the scale, or step, is a tensor that nobody may wait for."""

    steps: Sequence[Taken] | None = None
    """Of a proximal operator; None for a gradient."""

    def fingerprint(self) -> list[Any]:
        """What the decision depends on, but for the layouts, which jobs look at themselves."""
        identities = [*map(id, self.ws), *map(id, self.regularizers)]
        # A parameter stays the same object when the model goes to another type or device.
        kinds = [(x.dtype, x.device, x.shape) for x in (*self.ws, *self.besides)]
        steps = (
            None if self.steps is None else [(s.second is None, s.is_squared) for s in self.steps]
        )
        return [*identities, *kinds, *self.keys, *self.on_device, steps, bool(_only_plain)]


Make = Callable[[Sequence[int]], Iterable[Job]]
"""Numbers of weights → the jobs that they make up."""


class Router:
    """Sends the weights of one optimizer down their paths, and remembers which they took.

    The decision is made again only when something has changed that it was made for.
    """

    def __init__(self) -> None:
        self.taken: dict[str, tuple[str, str]] = {}
        """By the name of a weight: the path that it took last, and why, where it is the plain one.
        """

        self._buffers = Buffers()
        # Kept, so that identities stay those of what is there. Gradients are not: they may go.
        self._kept: tuple[Sequence[Tensor], Sequence[Regularizer]] = (), ()
        self._fingerprint: list[Any] = []
        self._jobs: list[Job] = []
        self._decided: dict[str, tuple[str, str]] = {}

    def add(self, works: Works, scales: Mapping[Any, float | Tensor]) -> None:
        """beside ← beside + scale·∇Ω(w) for each weight; the scale by key."""
        for job, ws, tos, scale in self._additions(works, scales):
            job.add(ws, tos, scale)

    def value_and_add(self, works: Works, scales: Mapping[Any, float | Tensor]) -> list[Tensor]:
        """The same; scalars in float64 that sum to Σ Ω(w) of the weights before it."""
        additions = self._additions(works, scales)
        return [job.value_and_add(ws, tos, scale) for job, ws, tos, scale in additions]

    def _additions(
        self, works: Works, scales: Mapping[Any, float | Tensor]
    ) -> Iterator[tuple[Job, list[Tensor], list[Tensor], float | Tensor]]:
        for job in self._jobs_for(works):
            numbers = job.numbers
            ws, tos = [works.ws[i] for i in numbers], [works.besides[i] for i in numbers]
            yield job, ws, tos, scales[works.keys[numbers[0]]]

    def pass_by(self, names: Iterable[str], why: str) -> None:
        """Note that these weights are treated one by one by somebody else, for a reason."""
        self.taken = dict.fromkeys(names, (Plain.path, why))

    def shrink(self, works: Works) -> None:
        """w ← prox of step·Ω at w for each weight."""
        steps = works.steps or []
        for job in self._jobs_for(works):
            job.shrink([works.ws[i] for i in job.numbers], [steps[i] for i in job.numbers])

    def _jobs_for(self, works: Works) -> Sequence[Job]:
        fingerprint = works.fingerprint()
        if fingerprint == self._fingerprint and all(
            job.fits([works.ws[i] for i in job.numbers], [works.besides[i] for i in job.numbers])
            for job in self._jobs
        ):
            self.taken = self._decided
            return self._jobs
        buckets: dict[Hashable, tuple[Make, list[int]]] = {}
        for i in range(len(works.ws)):
            key, make = self._decide(works, i)
            buckets.setdefault(key, (make, []))[1].append(i)
        self._jobs = [job for make, numbers in buckets.values() for job in make(numbers)]
        self._kept, self._fingerprint = (works.ws, works.regularizers), fingerprint
        self.taken = self._decided = {
            works.names[i]: (job.path, job.why) for job in self._jobs for i in job.numbers
        }
        return self._jobs

    def _decide(self, works: Works, i: int) -> tuple[Hashable, Make]:
        """What a weight has in common with those it goes with, and what they make up."""
        w, beside, regularizer = works.ws[i], works.besides[i], works.regularizers[i]

        def plain(why: str) -> tuple[Hashable, Make]:
            return i, lambda numbers: [Plain(numbers, regularizer, why)]

        if _only_plain:
            return plain("it was asked for")
        if not all(type(x) in (Tensor, nn.Parameter) for x in (w, beside)):
            return plain(f"it is a {type(w).__name__}")
        if beside.dtype is not w.dtype or beside.device != w.device:
            return plain("the optimizer keeps something of another type beside it")
        per_element = works.steps is not None and beside is not w
        kind = (works.keys[i], w.device, w.dtype)
        rows = rows_of(regularizer, w.ndim)
        l1, l2, rest = regularizer.split()
        wide = w.dtype.itemsize >= 4
        # As a factor of an addition, a strength would be rounded to half precision.
        exact = wide or beside is w
        known = not works.on_device[i]
        if known and not (l1 or rest or per_element) and isinstance(l2, float) and exact:
            return ("foreach", l2, *kind), lambda numbers: [Foreach(numbers, l2)]
        if triton.acts_on(w.device):
            program = triton.program_for(rows, w, beside, works.steps[i] if works.steps else None)
            if isinstance(program, str):
                return plain(program)
            return ("triton", program, *kind), _launches(works, program)
        if not known:
            return plain("a scale is known on the device only")
        if w.device.type != "cpu":
            return plain(f"there is no kernel for {w.device.type}")
        if rows is None or not rows.can_view(w, beside):
            kernel = _kernel_of_whole(regularizer, w)
            if kernel is None or per_element or not wide:
                return plain("it cannot be seen as rows that are penalized one by one")
            return i, lambda numbers: [Whole(numbers, kernel, self._buffers)]
        if w.numel() > PACKED or not w.is_contiguous():
            return i, lambda numbers: [Chunked(numbers, rows, wide, self._buffers)]
        length = w.shape[rows.leading :].numel()

        def packs(numbers: Sequence[int]) -> Iterator[Job]:
            for pack in _packs(numbers, works.ws):
                shapes = [works.ws[j].shape for j in pack]
                yield Packed(pack, rows, shapes, w.new_empty(0), self._buffers)

        return ("packed", rows, 0 if rows.is_flat else length, *kind), packs


def _launches(works: Works, program: triton.Program) -> Make:
    def launch(numbers: Sequence[int]) -> Iterator[Job]:
        found = [rows_of(works.regularizers[i], works.ws[i].ndim) for i in numbers]
        yield triton.Triton(numbers, [rows for rows in found if rows is not None], program)

    return launch


def _kernel_of_whole(regularizer: Regularizer, w: Tensor) -> Groups | None:
    """That of a group lasso along any axes; None where it is no such thing."""
    if not isinstance(regularizer, GroupLasso) or not isinstance(regularizer.strength, float):
        return None
    groups = grouping_of(regularizer.groups, w.shape)
    if not isinstance(groups, Axes) or not w.numel():
        return None
    return Groups(regularizer.strength, regularizer.size_weighted, tuple(groups.within(w.ndim)))


def _packs(numbers: Sequence[int], ws: Sequence[Tensor]) -> Iterator[list[int]]:
    """The numbers in runs whose weights fill a buffer."""
    pack: list[int] = []
    filled = 0
    for i in numbers:
        if pack and filled + ws[i].numel() > PACK:
            yield pack
            pack, filled = [], 0
        pack.append(i)
        filled += ws[i].numel()
    yield pack
