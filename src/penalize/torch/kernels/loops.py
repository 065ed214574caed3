"""The operations of a kernel in the loops over a row that compute them.

What needs a sum over a row is computed in a loop after the one that sums. Each loop computes again
what it needs of an element, but for what costs a division or a root: that is kept for later loops.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from penalize.torch.kernels.symbols import Extent, Operand, Operation, Symbol, Turn

SUMS = ("sum", "total")
_DEAR = ("/", "sqrt", "log", "cos")


@dataclass
class Section:
    """Numbers of a row, and then one loop over its elements."""

    numbers: list[str] = field(default_factory=list)
    """The operations for them, in order."""

    sums: list[str] = field(default_factory=list)
    """What the loop adds up."""

    kept: list[str] = field(default_factory=list)
    """What it keeps for later loops."""

    stores: bool = False
    """Whether it stores what the kernel gives."""

    @property
    def loops(self) -> bool:
        """Whether there is anything to do for the elements."""
        return bool(self.sums or self.stores)


Operations = Mapping[str, Operation]


class Plan:
    """The sections of one row.

    Args:
        operations: by the name of what each gives.
        wanted: which numbers of a row are wanted.
        outs: what is stored for each element.
        keeps: whether what later loops need may be kept for them.
        inputs: what is read for each element, and is to be kept too: it does not lie together, and
            would not stay in the cache.
    """

    def __init__(
        self,
        operations: Operations,
        wanted: Iterable[Operand],
        outs: Sequence[Symbol] = (),
        *,
        keeps: bool = True,
        inputs: Sequence[str] = (),
    ) -> None:
        self.operations = operations
        ends = [x for x in (*wanted, *outs) if isinstance(x, Symbol)]
        found = needed(operations, [x.name for x in ends])
        self._stages: dict[str, int] = {}
        """For each operation, how many loops are over before it can be computed."""

        for name in operations:
            self._stages[name] = self._stage_of(name)
        last = max([self._stages.get(x.name, 0) for x in ends], default=0)
        self.sections = [Section() for _ in range(last + 1)]
        for name in operations:
            if name not in found:
                continue
            if self._is_sum(name):
                self.sections[self._stages[name] - 1].sums.append(name)
            elif not self.is_tile(name):
                self.sections[self._stages[name]].numbers.append(name)
        self.outs = outs
        if outs:  # when all that is read has been: it may be stored in its place
            first = max(self._stages.get(out.name, 0) for out in outs)
            sums = [i for i, section in enumerate(self.sections) if section.sums]
            self.sections[max(first, *sums, 0)].stores = True
        if keeps:
            self._keep(inputs)

    def is_tile(self, name: str) -> bool:
        """Whether an operation is for each element."""
        return name in self.operations and _is_tile(self.operations, name)

    def _is_sum(self, name: str) -> bool:
        """Whether it is a sum over elements; a total of one number is that number."""
        operation = self.operations[name]
        (first, *_) = operation.operands
        return operation.name in SUMS and isinstance(first, Symbol) and first.level is Extent.TILE

    def _stage_of(self, name: str) -> int:
        operation = self.operations[name]
        stages = [self._stages.get(each, 0) for each in _names(operation)]
        return max(stages, default=0) + self._is_sum(name)

    def _keep(self, inputs: Sequence[str]) -> None:
        first: dict[str, Section] = {}
        for section, roots in self._places():
            seen: set[str] = set()
            left = list(roots)
            while left:
                name = left.pop()
                if name in seen or not (name in inputs or self.is_tile(name)):
                    continue
                seen.add(name)
                is_dear = name in inputs or self.operations[name].name in _DEAR
                if is_dear and name in first:
                    if name not in first[name].kept:
                        first[name].kept.append(name)
                elif name not in inputs:
                    left.extend(_names(self.operations[name]))
            if section is not None:
                first.update({name: section for name in seen if name not in first})

    def _places(self) -> Iterator[tuple[Section | None, list[str]]]:
        """Each loop over the elements in the order of the kernel, and what it needs; without a
        section those that are within a turn.
        """
        for section in self.sections:
            for name in section.numbers:
                turn = self.operations[name].turn
                if turn is not None:
                    yield (
                        None,
                        [each for inner in turn.operations.values() for each in _names(inner)],
                    )
            roots = [each for name in section.sums for each in _names(self.operations[name])]
            if section.stores:
                roots += [out.name for out in self.outs]
            yield section, roots


def _is_tile(operations: Operations, name: str) -> bool:
    operation = operations[name]
    if operation.name in SUMS or operation.turn is not None:
        return False
    return any(isinstance(x, Symbol) and x.level is Extent.TILE for x in operation.operands)


def _names(operation: Operation) -> list[str]:
    """What an operation needs; of a turn, also what is outside."""
    names = [x.name for x in operation.operands if isinstance(x, Symbol)]
    if operation.turn is not None:
        names += _outside(operation.turn)
    return names


def _outside(turn: Turn) -> list[str]:
    found = needed(turn.operations, [x.name for x in turn.closer if isinstance(x, Symbol)])
    return [name for name in found if name not in turn.operations]


def needed(operations: Operations, ends: Iterable[str]) -> dict[str, None]:
    """The names of all that is computed for these, and read."""
    found: dict[str, None] = {}
    left = list(ends)
    while left:
        name = left.pop()
        if name not in found:
            found[name] = None
            left += _names(operations[name]) if name in operations else []
    return found
