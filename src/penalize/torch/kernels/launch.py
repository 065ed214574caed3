"""One run of a compiled kernel over all weights that go together."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from itertools import chain, filterfalse, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from penalize.torch.kernels import native, workers
from penalize.torch.kernels.forms import form_of
from penalize.torch.kernels.printer import printed
from penalize.torch.kernels.routines import Routine
from penalize.torch.kernels.rows import Columns, Rows

BLOCK = 2**14
"""How many elements a thread takes at once."""

ALONE = 2**15
"""Up to so many elements one thread is enough."""

Layout = Rows | Columns


class Launcher:
    """Runs the kernels of some weights.

    Args:
        routine: one of the kernels; others have its form, type and layout.
        layouts: how each weight lies.
        shapes: how many rows each has, and of what length.
    """

    def __init__(
        self, routine: Routine, layouts: Sequence[Layout], shapes: Sequence[tuple[int, int]]
    ) -> None:
        self._shapes = torch.tensor(shapes, device="cpu")
        self.blocks = _blocks(routine, shapes)
        """(number of a weight, first, last) of rows, columns or elements, for each block."""

        self._stride = _stride(routine, shapes)
        elements = sum(height * length for height, length in shapes)
        # A thread that wakes up for less would come late.
        self._most_threads = 1 if elements <= ALONE else max(2, len(self.blocks) // 4)
        strengths, roots = [], []
        for layout, (height, length) in zip(layouts, shapes, strict=True):
            size = height if routine.layout == "columns" else length
            strengths.append(form_of(layout.regularizer, size)[1])
            roots.append([math.sqrt(size)])
        self._strengths, self._roots = (
            torch.tensor(x, dtype=torch.float64, device="cpu") for x in (strengths, roots)
        )
        self._numbers: tuple[Any, Tensor] = None, self._roots
        self._seen: dict[tuple[bytes, tuple[bool, ...]], bool] = {}

    def numbers(self, of_all: tuple[float, ...]) -> Tensor:
        """The table of a kernel's numbers, where these are the same for all weights."""
        if of_all != self._numbers[0]:
            each = torch.tensor([of_all], dtype=torch.float64, device="cpu")
            self._numbers = of_all, self.numbers_of_each(each.expand(len(self._roots), -1))
        return self._numbers[1]

    def numbers_of_each(self, numbers: Tensor) -> Tensor:
        """The same, where each weight has its own: a row of them."""
        return torch.cat([self._strengths, numbers, self._roots], dim=1)

    def run(
        self,
        routine: Routine,
        arrays: Mapping[str, Sequence[Tensor]],
        numbers: Tensor,
        places: Mapping[str, array[int]] | None = None,
    ) -> Tensor:
        """What each block says of each sum; the places are the addresses, where they are known."""
        source = printed(routine)
        outline, kernel = source.outline, native.native(source.text)
        columns = [arrays[name] for name in outline.arrays]
        written = tuple(name in outline.outs for name in outline.arrays)
        addresses = array("q", bytes(8 * len(columns) * len(self._shapes)))
        for i, name in enumerate(outline.arrays):
            at = addresses_of(arrays[name]) if places is None else places[name]
            addresses[i :: len(columns)] = at
        # On the CPU, whatever PyTorch's default device is.
        values = torch.empty(len(self.blocks), len(outline.sums), dtype=torch.float64, device="cpu")
        threads = min(torch.get_num_threads(), self._most_threads)
        if threads > 1 and self._share_memory(addresses, columns, written):
            threads = 1  # which takes one weight after the other
        wide = torch.float64 if routine.computed == "double" else torch.float32
        kept = torch.empty(threads, source.kept * self._stride, dtype=wide, device="cpu")
        tables = [addresses.buffer_info()[0], self._shapes.data_ptr(), numbers.data_ptr()]
        room = [kept.data_ptr(), kept.stride(0) * kept.element_size(), self._stride]
        # Each thread begins with a part of its own: memory is fast where it is read in order.
        firsts = [len(self.blocks) * i // threads for i in range(threads + 1)]
        parts = [
            [self.blocks[first:].data_ptr(), values[first:].data_ptr(), 0, last - first]
            for first, last in pairwise(firsts)
        ]
        work = array("q", [0, threads, *tables, *room, *chain(*parts)])
        # What is at these addresses lives as long as any thread works on it.
        workers.run(kernel, work, threads, (columns, addresses, numbers, values, kept, self))
        for name in outline.outs:
            _mark_written(arrays[name])
        return values

    def of_weights(self, values: Tensor) -> Tensor:
        """Of what each block says, the sums of each weight."""
        found = values.new_zeros(len(self._shapes), values.shape[1])
        return found.index_add_(0, self.blocks[:, 0], values)

    def _share_memory(
        self, addresses: array[int], columns: list[Sequence[Tensor]], written: tuple[bool, ...]
    ) -> bool:
        """Whether what is written for one weight is read or written for another, as where two
        parameters have one storage, or one gradient.
        """
        key = addresses.tobytes(), written
        if key not in self._seen:
            if len(self._seen) >= _SEEN:
                self._seen.clear()
            self._seen[key] = _overlap(_ranges(columns, written))
        return self._seen[key]


def addresses_of(xs: Sequence[Tensor]) -> array[int]:
    """Where each lies; 0 where it is not in memory."""
    return array("q", map(Tensor.data_ptr, xs))


def are_in_memory(xs: Sequence[Tensor]) -> bool:
    """Whether all have an address."""
    return 0 not in addresses_of(xs)


def _mark_written(xs: Sequence[Tensor]) -> None:
    """Have autograd know that something was written to them, as it does of its own functions."""
    try:
        increment_version(xs)
    except (TypeError, AttributeError, RuntimeError):
        # Not every version of PyTorch takes more than one, and those of inference have no version.
        for x in filterfalse(Tensor.is_inference, xs):
            increment_version(x)


_SEEN = 8
"""For how many sets of addresses it is known: averages take turns in two places."""


def _ranges(
    columns: list[Sequence[Tensor]], written: tuple[bool, ...]
) -> list[tuple[int, int, bool]]:
    """(first, end, is written) of all that is read or written."""
    ranges = []
    for each in zip(*columns, strict=True):
        pairs = [(x.data_ptr(), x, is_written) for x, is_written in zip(each, written, strict=True)]
        own = {first for first, _, is_written in pairs if is_written}
        for first, x, is_written in pairs:
            if is_written or first not in own:  # a weight may be what it is added to
                ranges.append((first, first + x.element_size() * x.numel(), is_written))
    return ranges


def _overlap(ranges: list[tuple[int, int, bool]]) -> bool:
    """Whether of these (first, end, is written) one that is written overlaps another."""
    end_of_all = end_of_written = 0
    for first, end, is_written in sorted(ranges):
        if first < (end_of_all if is_written else end_of_written):
            return True
        if is_written:
            end_of_all = end_of_written = end
        else:
            end_of_all = max(end_of_all, end)
    return False


def _blocks(routine: Routine, shapes: Sequence[tuple[int, int]]) -> Any:
    """(number of a weight, first, last) of rows, columns or elements, for each block."""
    parts = []
    for i, (height, length) in enumerate(shapes):
        whole, step = {
            "flat": (length, BLOCK),
            "rows": (height, max(1, BLOCK // length)),
            "columns": (length, routine.lanes),
        }[routine.layout]
        first = torch.arange(0, whole, step, device="cpu")
        last = (first + step).clamp_(max=whole)
        parts.append(torch.stack([torch.full_like(first, i), first, last], dim=1))
    return torch.cat(parts)


def _stride(routine: Routine, shapes: Sequence[tuple[int, int]]) -> int:
    """How many elements a row has at most, or as many columns as a vector has."""
    if routine.layout == "columns":
        return max(height for height, _ in shapes) * routine.lanes
    return max(length for _, length in shapes) if routine.layout == "rows" else 0
