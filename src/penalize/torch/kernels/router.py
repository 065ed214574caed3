"""Which path each weight takes: each kind of job is asked in turn whether it treats it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import is_
from typing import Any, TypeVar

from torch import Tensor, nn

from penalize.regularizers.base import Regularizer
from penalize.torch.kernels.compiled import Compiled
from penalize.torch.kernels.cpu import Buffers
from penalize.torch.kernels.jobs import (
    Chunked,
    Foreach,
    Job,
    Note,
    Offer,
    Penalizing,
    PlainJob,
    Whole,
)
from penalize.torch.kernels.looks import Looks
from penalize.torch.kernels.packed import Packed
from penalize.torch.kernels.triton import Triton
from penalize.torch.kernels.work import Additions, Shrinkings, Work
from penalize.torch.model.sharding import is_sharded

KINDS: tuple[type[Penalizing], ...] = (Compiled, Foreach, Triton, Whole, Chunked, Packed)
"""In the order in which they are asked. What none takes is for the plain path."""

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


class Router:
    """Sends the weights of one optimizer down their paths, and remembers which they took.

    The decision is made again only when something has changed that it was made for.

    Args:
        kinds: which kinds of job it asks, in turn.
    """

    def __init__(self, kinds: Sequence[type[Job]] = KINDS) -> None:
        self._kinds = kinds
        self.taken: dict[str, tuple[str, str]] = {}
        """By the name of a weight: the path that it took last, and why it was no faster one."""

        self._buffers = Buffers()
        # Kept, so that identities stay those of what is there. Gradients are not: they may go.
        self._kept: tuple[Sequence[Tensor], Sequence[Regularizer]] = (), ()
        self._looks = Looks()
        self._settings: tuple[Any, ...] = ()
        self._jobs: list[Any] = []
        self._decided: dict[str, tuple[str, str]] = {}

    def add(self, additions: Additions, scales: Mapping[Any, float | Tensor]) -> None:
        """to ← to + scale·∇Ω(w) for each weight; the scale by key."""
        for job, ws, tos, scale in self._divided(_local(additions), scales):
            job.add(ws, tos, scale)

    def value_and_add(
        self, additions: Additions, scales: Mapping[Any, float | Tensor]
    ) -> list[Tensor]:
        """The same; scalars in float64 that sum to Σ Ω(w) of the weights before it.

        Of what is sharded the value is that of the whole.
        """
        divided = self._divided(additions, scales)
        return [job.value_and_add(ws, tos, scale) for job, ws, tos, scale in divided]

    def shrink(self, shrinkings: Shrinkings) -> None:
        """w ← prox of step·Ω at w for each weight."""
        local = _local(shrinkings)
        for job in self.jobs(local):
            job.shrink(job.its(local.ws), job.its(local.steps))

    def pass_by(self, names: Iterable[str], why: str) -> None:
        """Note that these weights are treated one by one by somebody else, for a reason."""
        self.taken = dict.fromkeys(names, (PlainJob.path, why))

    def _divided(
        self, additions: Additions, scales: Mapping[Any, float | Tensor]
    ) -> Iterator[tuple[Penalizing, list[Tensor], list[Tensor], float | Tensor]]:
        for job in self.jobs(additions):
            key = additions.keys[job.numbers[0]]
            yield job, job.its(additions.ws), job.its(additions.besides), scales[key]

    def jobs(self, works: Additions | Shrinkings) -> Sequence[Any]:
        """The jobs of these weights, which are of the kinds that are asked, or plain."""
        ws, besides = works.ws, works.besides
        settings = works.keys, works.on_device, bool(_only_plain)
        if (
            all(map(_are_same, (ws, works.regularizers), self._kept))
            and settings == self._settings
            # A parameter stays the same object when the model goes to another type or device.
            and self._looks.are_of(*_columns(ws, besides))
            and all(job.fits(job.its(ws), job.its(besides)) for job in self._jobs)
        ):
            self.taken = self._decided
            return self._jobs
        buckets: dict[Hashable, tuple[Offer, list[int]]] = {}
        notes: list[str] = []
        for i in range(len(ws)):
            offer, note = self._best(works[i])
            notes.append(note)
            buckets.setdefault(offer.key, (offer, []))[1].append(i)
        self._jobs = [
            job
            for offer, numbers in buckets.values()
            for job in offer.make(numbers, [works[i] for i in numbers])
        ]
        self._kept, self._settings = (ws, works.regularizers), settings
        self._looks = Looks(*_columns(ws, besides))
        self.taken = self._decided = {
            works.names[i]: (job.path, job.why or notes[i])
            for job in self._jobs
            for i in job.numbers
        }
        return self._jobs

    def _best(self, work: Work) -> tuple[Offer, str]:
        """The first offer, and what is to be said about it; that of the plain path, if there is a
        reason against all others.
        """
        why, note = _why_not_fast(work), ""
        for kind in self._kinds:
            if why and not (kind.takes_shards and is_sharded(work.w) and not _only_plain):
                continue
            offer = kind.offer(work, self._buffers)
            if isinstance(offer, Offer):
                return offer, note
            if isinstance(offer, Note):
                note = offer
            elif offer:
                why = offer
                break
        return PlainJob.offer(work, self._buffers, note or why), ""


_WHOLE = {Tensor, nn.Parameter}

T = TypeVar("T", Additions, Shrinkings)


def _are_same(xs: Sequence[Any], ys: Sequence[Any]) -> bool:
    """Whether these are the same objects."""
    return xs is ys or (len(xs) == len(ys) and all(map(is_, xs, ys)))


def _columns(ws: Sequence[Tensor], besides: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    """Both; one where nothing lies beside the weights."""
    return [ws] if _are_same(ws, besides) else [ws, besides]


def _local(works: T) -> T:
    """The same on the shards of what is sharded, where these are enough."""
    return works if _WHOLE.issuperset(map(type, works.ws)) else works.local()


def _why_not_fast(work: Work) -> str:
    """Why nothing but the plain path is open to a weight; empty where others may be."""
    if _only_plain:
        return "it was asked for"
    if type(work.w) not in _WHOLE:
        return f"it is a {type(work.w).__name__}"
    if type(work.beside) not in _WHOLE:
        return f"the optimizer keeps a {type(work.beside).__name__} beside it"
    if work.beside.dtype is not work.w.dtype or work.beside.device != work.w.device:
        return "the optimizer keeps something of another type beside it"
    return ""
