"""Weights that are joined: parts of several parameters as one matrix, with a row for each unit.

What a regularizer says of the rows of a matrix it then says of a unit's weights in all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from penalize.errors import ModelError
from penalize.regularizers.base import Regularizer
from penalize.torch.model.bindings import Binding
from penalize.torch.model.members import Member


@dataclass(frozen=True, eq=False)
class Joined:
    """Members side by side: one row for each unit. Written back, it is their parts again.

    Where they are sharded, every rank gathers and computes the whole.
    """

    module: nn.Module
    """The model."""

    name: str
    members: tuple[Member, ...]
    effective = True

    @property
    def can_be_set(self) -> bool:
        """Whether every member is a parameter itself."""
        return not any(member.binding.effective for member in self.members)

    def read(self) -> Tensor:
        return torch.cat(_beside(m.rows(m.binding.read()) for m in self.members), 1)

    def parameters(self) -> tuple[nn.Parameter, ...]:
        return tuple(p for member in self.members for p in member.binding.parameters())

    def shape(self) -> tuple[int, ...]:
        return self.members[0].units, sum(member.width for member in self.members)

    # Of the parameters, where each is a member itself:

    def joined(self, tensors: Iterable[Tensor]) -> Tensor:
        """The matrix of what is laid out as the parameters are."""
        pairs = zip(self.members, tensors, strict=True)
        return torch.cat(_beside(member.rows(x) for member, x in pairs), 1)

    def apart(
        self, matrix: Tensor, into: Sequence[Tensor], factors: Sequence[Any] | None = None
    ) -> list[Tensor]:
        """The parts of a matrix, each in what is laid out as its parameter is.

        Args:
            matrix: what a unit has in all members, side by side.
            into: what the parts are put into; copies, where not all of it is replaced.
            factors: by which the parts are multiplied.
        """
        widths = [member.width for member in self.members]
        parts: Sequence[Tensor] = torch.split(matrix, widths, 1)
        if factors is not None:
            parts = [part * factor for part, factor in zip(parts, factors, strict=True)]
        return [m.put(part, x) for m, part, x in zip(self.members, parts, into, strict=True)]

    def own(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """What is laid out as the parameters are, with 0 for what is none of a unit's."""
        return self.apart(self.joined(tensors), [torch.zeros_like(x) for x in tensors])

    def gradients(self, regularizer: Regularizer) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """∇Ω with respect to each parameter that is trained."""
        parameters = self.parameters()
        slope = regularizer.gradient(self.joined([p.detach() for p in parameters]))
        zeros = [torch.zeros_like(p) for p in parameters]
        yield from zip(parameters, self.apart(slope, zeros), strict=True)


def _beside(parts: Iterable[Tensor]) -> list[Tensor]:
    """Rows on the device of the first."""
    first, *others = parts
    return [first, *(part.to(first.device) for part in others)]


def check_joined(targets: Iterable[Any]) -> None:
    """Raise :class:`ModelError` if members were frozen, or tied, since they were planned.

    Args:
        targets: all that is penalized, joined or not.
    """
    held: dict[nn.Parameter, tuple[str, Binding]] = {}
    for target in targets:
        binding = target.binding
        members = binding.members if isinstance(binding, Joined) else ()
        if members:
            _check_alike(target.name, members)
        pairs = [(m.name, m.binding) for m in members] or [(target.name, binding)]
        for name, own in pairs:
            for p in () if own.effective else own.parameters():
                other = held.setdefault(p, (name, own))
                if other[1] != own:
                    raise ModelError(
                        f"{name!r} and {other[0]!r}, one of them in a group that spans "
                        "parameters, were tied after they were planned",
                        "plan the model as it is now; detach() first what is attached",
                    )


def _check_alike(name: str, members: Sequence[Member]) -> None:
    """Raise unless all members are trained, or none: a group is penalized as a whole."""
    by: dict[bool, list[str]] = {True: [], False: []}
    for m in members:
        for p in m.binding.parameters():
            by[p.requires_grad or not isinstance(p, nn.Parameter)].append(m.name)
    if by[True] and by[False]:
        raise ModelError(
            f"of the members of the group {name!r}, {by[False][0]!r} is frozen, and {by[True][0]!r}"
            " is not",
            "freeze all of them, or leave the frozen ones out of it",
        )
