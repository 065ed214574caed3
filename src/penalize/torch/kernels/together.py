"""Half-space steps of sharded weights with groups, whose sums over the ranks are taken together.

What is computed is what a compiled kernel would: the same formulas, in the same loops. Here the
functions of PyTorch compute it, on each rank for its own shards, and between two loops the sums of
all weights are sent in one piece. (Elementwise penalties send nothing.)
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from penalize.backends import open_array
from penalize.halfspace import Memory
from penalize.torch.kernels import halves
from penalize.torch.kernels.compiled import layout_of
from penalize.torch.kernels.cpu import Buffers
from penalize.torch.kernels.forms import Form, Outline, form_of
from penalize.torch.kernels.halfsteps import Arrays, Begun, HalfSteps
from penalize.torch.kernels.jobs import Job, Note, Offer
from penalize.torch.kernels.launch import Layout
from penalize.torch.kernels.loops import Plan
from penalize.torch.kernels.routines import plan_of
from penalize.torch.kernels.rows import Rows
from penalize.torch.kernels.symbols import LoopTracer, NotTraceableError, Symbol
from penalize.torch.kernels.work import Work
from penalize.torch.model.sharding import is_sharded

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": torch.eq,
    "|": operator.or_,
    "&": operator.and_,
    "negative": operator.neg,
    "abs": torch.abs,
    "sqrt": torch.sqrt,
    "log": torch.log,
    "cos": torch.cos,
    "maximum": torch.maximum,
    "where": torch.where,
    "number": lambda x: x,
}


class Phase(NamedTuple):
    """One part of a step, such as what is done before the update."""

    outline: Outline
    plan: Plan
    often: frozenset[str]
    """The values that are needed more than once: others are forgotten, as each is an array."""


@cache
def phases_of(form: Form, average: float, is_double: bool) -> dict[str, Phase]:
    """The parts of a step of weights whose groups may lie on many ranks.

    Raises:
        NotTraceableError, TypeError, AttributeError: its formulas cannot be written down.
    """
    xp = LoopTracer(2.0**-52 if is_double else 2.0**-23, is_cut=True)
    outlines = halves.outlines_of(
        form, xp, is_flat=False, average=average, weight="weight", mean="mean"
    )
    parts = {}
    for task, outline in outlines.items():
        plan = plan_of(outline, xp.operations)
        for name in (name for section in plan.sections for name in section.numbers):
            if plan.operations[name].name not in _FUNCTIONS:
                raise NotTraceableError(f"it asks for {plan.operations[name].name} of a group")
        operands = [x for each in plan.operations.values() for x in each.operands]
        uses = Counter(x.name for x in operands if isinstance(x, Symbol))
        often = frozenset(name for name, count in uses.items() if count > 1)
        parts[task] = Phase(outline, plan, often)
    return parts


@dataclass
class Together(HalfSteps):
    """Sharded weights of one type, of whatever form."""

    path = "together"
    takes_shards = True

    parts: Sequence[dict[str, Phase]]
    """Of each weight, by the part of a step."""

    spaces: Sequence[Any]
    """The backend of each weight, which knows where its shards lie."""

    lie: Sequence[Any]
    """How they did when this was decided."""

    @classmethod
    def offer(cls, work: Work, buffers: Buffers) -> Offer | str:
        if not is_sharded(work.w):
            return ""
        layout = layout_of(work.regularizer, work.w.ndim)
        if layout is None or layout.layout == "flat" or not work.regularizer.on_shards:
            return Note("it is a DTensor")
        placements = cast(Any, work.w).placements
        if _lie([work.w]) != _lie([work.beside]) or any(p.is_partial() for p in placements):
            return Note("its gradient is sharded otherwise, or waits for a sum")
        if not work.w.numel():
            return Note("it has no elements")
        try:
            _phases_of(work, layout)
        except (NotTraceableError, TypeError, AttributeError) as error:
            return Note(f"its formula cannot be written down: {error}")

        def make(numbers: Sequence[int], works: Sequence[Work]) -> Iterator[Job]:
            found = [layout_of(each.regularizer, each.w.ndim) for each in works]
            known = [each for each in found if each is not None]
            shapes = [of.shape_of(each.w) for of, each in zip(known, works, strict=True)]
            parts = [_phases_of(each, of) for of, each in zip(known, works, strict=True)]
            spaces = [open_array(each.w.detach())[1] for each in works]
            sign, lie = cast(float, work.key), _lie([each.w for each in works])
            yield cls(numbers, known, shapes, sign, work.average, False, parts, spaces, lie)

        return Offer((cls, *work.kind), make)

    def fits(self, ws: list[Tensor], besides: list[Tensor]) -> bool:
        return self.lie == _lie(ws) == _lie(besides)

    def opened(self, xs: Sequence[Tensor]) -> Sequence[Tensor]:
        return [cast(Any, x.detach()).to_local() for x in xs]

    def opened_again(self, ws: Sequence[Tensor], begun: Begun) -> Sequence[Tensor]:
        return self.opened(ws)

    def closed(self, w: Tensor, found: Tensor) -> None:
        """Nothing: it is the shard itself."""

    def rooms(
        self, ws: Sequence[Tensor], means: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Any]]:
        return [torch.empty_like(w) for w in ws], [{} for _ in ws]

    def run(self, task: str, arrays: Arrays, memory: Memory) -> Tensor:
        numbers = [getattr(memory, name).unbind() for name in halves.REMEMBERED]
        shards = []
        for i, part in enumerate(each[task] for each in self.parts):
            own = {name: of[i] for name, of in arrays.items()}
            known = {name: of[i] for name, of in zip(halves.REMEMBERED, numbers, strict=True)}
            known["sign"] = memory.mass.new_full((), self.sign)
            shards.append(_Shard(part, self.layouts[i], self.shapes[i], own, known))
        # What is counted after the update is that of a shard, and stays here.
        kinds = ("sum",) if task == "after" else ("sum", "total")
        for number in range(max(len(shard.sections) for shard in shards)):
            found = [shard.through(number) for shard in shards]
            self._sum_over_ranks(shards, found, kinds)
            for shard, sums in zip(shards, found, strict=True):
                shard.known.update(sums)
        return torch.stack([shard.ended() for shard in shards])

    def _sum_over_ranks(
        self, shards: Sequence[_Shard], found: list[dict[str, Tensor]], kinds: tuple[str, ...]
    ) -> None:
        """Each sum ← that of all ranks: in one piece for those that the same dimensions cut."""
        asked: dict[Any, list[tuple[int, str]]] = {}
        for i, (shard, space) in enumerate(zip(shards, self.spaces, strict=True)):
            for name in found[i]:
                kind = shard.kind_of(name)
                if kind in kinds:
                    cut = space.cut(_axes(self.layouts[i], kind, space))
                    asked.setdefault((space.mesh, cut), []).append((i, name))
        for (_, cut), places in asked.items():
            each = [found[i][name] for i, name in places]
            total = self.spaces[places[0][0]].over(torch.cat([x.reshape(-1) for x in each]), cut)
            parts = torch.split(total, [x.numel() for x in each])
            for (i, name), part, x in zip(places, parts, each, strict=True):
                found[i][name] = part.reshape(x.shape)


class _Shard:
    """One weight in a part of a step: what is known of it, and what is computed.

    Args:
        part: which.
        layout: how its groups lie.
        shape: how many rows the whole has, and of what length.
        arrays: by name, as the outline has them.
        known: numbers.
    """

    def __init__(
        self,
        part: Phase,
        layout: Layout,
        shape: tuple[int, int],
        arrays: dict[str, Any],
        known: dict[str, Tensor],
    ) -> None:
        self._part, self._layout, self._arrays = part, layout, arrays
        self.sections = part.plan.sections
        self.known: dict[str, Tensor] = {**known, **arrays["sums"]}
        like = known["sign"]
        length = shape[layout.layout == "rows"]
        strengths = form_of(layout.regularizer, length)[1]
        numbers = {f"s{i}": x for i, x in enumerate(strengths)} | {"root_size": math.sqrt(length)}
        self.known |= {name: like.new_full((), x) for name, x in numbers.items()}
        self._within = 1 if layout.layout == "rows" else 0

    def kind_of(self, name: str) -> str:
        """Whether a sum is over each group, or the whole."""
        return self._part.plan.operations[name].name

    def through(self, number: int) -> dict[str, Tensor]:
        """The sums over the elements that are here, in one loop; what it gives is stored."""
        if number >= len(self.sections):
            return {}
        section, operations = self.sections[number], self._part.plan.operations
        for name in section.numbers:
            self.known[name] = self._computed(name, self.known)
        tile = dict(self.known)  # and what is as large as the weight, within this section only
        found = {}
        for name in section.sums:
            (x,) = operations[name].operands
            terms = self._value(x, tile)
            is_sum = self.kind_of(name) == "sum"
            found[name] = terms.sum(self._within, keepdim=True) if is_sum else terms.sum()
        if section.stores:
            outs = self._part.outline.outs
            values = {name: self._value(out, tile) for name, out in outs.items()}
            for name, value in values.items():
                self._arrays[name].copy_(value.reshape(self._arrays[name].shape))
        return found

    def ended(self) -> Tensor:
        """The sums that the part gives; those over groups that are needed again are kept."""
        outline = self._part.outline
        if outline.keeps:
            self._arrays["sums"].update(
                {each.name: self.known[each.name] for each in outline.again}
            )
        return torch.stack([self.known[each.name] for each in outline.sums])

    def _value(self, x: Any, known: dict[str, Tensor]) -> Tensor:
        if not isinstance(x, Symbol):
            return self.known["sign"].new_full((), x)
        if x.name in known:
            return known[x.name]
        found = self._computed(x.name, known)
        if x.name in self._part.often:
            known[x.name] = found
        return found

    def _computed(self, name: str, known: dict[str, Tensor]) -> Tensor:
        array = self._part.outline.reads.get(name)
        if array is not None:
            return self._layout.matrix(self._arrays[array]).to(self.known["sign"].dtype)
        operation = self._part.plan.operations[name]
        operands = [self._value(x, known) for x in operation.operands]
        found: Tensor = _FUNCTIONS[operation.name](*operands)
        return found


def _phases_of(work: Work, layout: Layout) -> dict[str, Phase]:
    length = layout.shape_of(work.w)[layout.layout == "rows"]
    form, _ = form_of(layout.regularizer, length)
    return phases_of(form, work.average, work.w.dtype == torch.float64)


def _axes(layout: Layout, kind: str, space: Any) -> range:
    """The axes of a weight that a sum is over."""
    ndim = len(space.full_shape)
    if kind == "total":
        return range(ndim)
    if isinstance(layout, Rows):
        return range(layout.leading, ndim)
    return range(ndim - layout.trailing)


def _lie(xs: Sequence[Any]) -> list[Any]:
    """How sharded arrays lie; None for what is none."""
    return [(x.device_mesh, x.placements) if is_sharded(x) else None for x in xs]
