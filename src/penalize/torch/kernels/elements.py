"""What a kernel reads, computes and stores at one element, or at a vector of neighbours."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping

from penalize.torch.kernels.forms import Outline
from penalize.torch.kernels.llvm import Computed, Writer, in_memory
from penalize.torch.kernels.loops import Operations
from penalize.torch.kernels.symbols import Extent, Operation, Symbol


class Elements(Writer):
    """Lines that treat elements.

    Args:
        computed: LLVM's name of the type that is computed in.
        outline: what is read and stored.
        slots: the number of whatever is kept for later loops over a row, by its name.
        operations: what computes each value.
    """

    def __init__(
        self, computed: str, outline: Outline, slots: Mapping[str, int], operations: Operations
    ) -> None:
        super().__init__(computed)
        self.outline, self._slots = outline, slots
        self.operations: ChainMap[str, Operation] = ChainMap(dict(operations))
        self.kept_now: set[str] = set()
        """What has been kept for the elements of this row by now."""

        self.at_address: dict[str, str] = {}
        """Where the arrays of a weight begin."""

    def entries(self, table: str, kind: str, row: str, width: int) -> list[str]:
        """A row of a table."""
        start = self.address(f"%{table}", kind, self.let(f"mul i64 {row}, {width}"))
        return [
            self.let(f"load {kind}, ptr {self.address(start, kind, str(i))}") for i in range(width)
        ]

    def address(self, base: str, kind: str, index: str) -> str:
        return self.let(f"getelementptr {kind}, ptr {base}, i64 {index}")

    def store(self, known: dict[str, Computed], index: str, kept_at: str) -> None:
        """All that is given, when all of it is computed: it may lie where something was read."""
        found: dict[str, list[str]] = {}
        for name, out in self.outline.outs.items():
            each = [
                self.element(x.name, known, index, kept_at)
                for x in (out if isinstance(out, tuple) else (out,))
            ]
            found[name] = [self.at(x, Extent.TILE) for x in each]
        for name, xs in found.items():
            stored, place = self.outline.arrays[name], self._place(name, index)
            if stored == "i8":
                self.write_bits(xs, place)
            else:
                self.write(xs[0], place, stored)

    def element(self, name: str, known: dict[str, Computed], index: str, kept_at: str) -> Computed:
        """A value at an element, computed with all that it needs."""
        if name in known:
            return known[name]
        if name in self.kept_now:
            kind, place = self.kind(Extent.TILE), self.kept_place(name, kept_at)
            known[name] = Computed(self.let(f"load {kind}, ptr {place}, align 4"), Extent.TILE)
        elif name in self.outline.reads:
            array, _, bit = self.outline.reads[name].partition(".")
            place = self._place(array, index)
            if bit:
                known[name] = self.read_bit(place, int(bit))
            else:
                known[name] = Computed(self.read(place, self.outline.arrays[array]), Extent.TILE)
        else:
            operation = self.operations[name]
            operands = [
                self.element(x.name, known, index, kept_at) if isinstance(x, Symbol) else x
                for x in operation.operands
            ]
            known[name] = self.operation(operation.name, operands)
        return known[name]

    def kept_place(self, name: str, kept_at: str) -> str:
        start = self.let(f"mul i64 %stride, {self._slots[name]}")
        return self.address("%scratch", self.computed, self.let(f"add i64 {start}, {kept_at}"))

    def _place(self, name: str, index: str) -> str:
        return self.address(self.at_address[name], in_memory(self.outline.arrays[name]), index)
