"""What one kernel for the CPU does, and what it computes for that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penalize.torch.kernels import halves
from penalize.torch.kernels.forms import FACTORS, Form, Outline, traced
from penalize.torch.kernels.llvm import SIZES
from penalize.torch.kernels.loops import Operations, Plan
from penalize.torch.kernels.symbols import LoopTracer


@dataclass(frozen=True)
class Routine:
    """What one kernel does."""

    form: Form
    stored: str
    """LLVM's name of the weights' type."""

    layout: str
    """"flat", where elements are treated one by one; "rows", or "columns"."""

    task: str
    """As :func:`prox_of` says; or which part of a half-space step it is."""

    with_value: bool = False
    """Whether each block of a gradient also stores its part of Ω(w)."""

    average: float = 0.0
    """Of a half-space step: how much of an average stays."""

    @property
    def computed(self) -> str:
        """LLVM's name of the type that it computes in."""
        return "double" if self.stored == "double" else "float"

    @property
    def lanes(self) -> int:
        """How many elements a vector has: as many as a line of the cache."""
        return 64 // SIZES[self.computed]

    def outline(self, xp: LoopTracer) -> Outline:
        """What it reads, computes and stores, written down by a tracer.

        Raises:
            NotTraceableError, TypeError, AttributeError: its formulas have no place in a kernel.
        """
        if self.task in halves.TASKS:
            outlines = halves.outlines_of(
                self.form,
                xp,
                is_flat=self.layout == "flat",
                average=self.average,
                weight=self.stored,
                mean=self.computed,
            )
            return outlines[self.task]
        out, value = traced(self.form, self.task, xp, with_value=self.with_value)
        arrays = dict.fromkeys(("w", "beside"), self.stored)
        sums = [] if value is None else [value]
        reads = {name: name for name in arrays}
        return Outline(arrays, FACTORS, reads, {"w" if self.task else "beside": out}, sums)


def plan_of(outline: Outline, operations: Operations, inputs: Sequence[str] = ()) -> Plan:
    """The loops of a kernel; see :class:`Plan` for the inputs."""
    outs = [x for out in outline.outs.values() for x in (out if isinstance(out, tuple) else (out,))]
    again = [] if outline.keeps else [each.name for each in outline.again]
    known = {*outline.reads, *again}
    own = {name: operation for name, operation in operations.items() if name not in known}
    wanted = [*outline.sums, *(outline.again if outline.keeps else [])]
    return Plan(own, wanted, outs, inputs=inputs)
