"""Groups for a penalty: the units of a model that ``compact`` could cut, once they are zero."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from penalize.errors import ModelError, RulesError
from penalize.names import unique
from penalize.regularizers.base import Regularizer
from penalize.regularizers.grouping import blocks
from penalize.tables import Listing
from penalize.torch.compacting.carrying import with_biases
from penalize.torch.compacting.compacted import check_can_be_cut, given_as
from penalize.torch.compacting.cutting import Cut
from penalize.torch.compacting.others import others
from penalize.torch.compacting.proof import Inputs
from penalize.torch.compacting.proving import proven
from penalize.torch.compacting.spaces import Parts, Space, spaces_of
from penalize.torch.compacting.tracing import traced
from penalize.torch.joining import Together
from penalize.torch.model.members import in_words, listed


@dataclass(frozen=True)
class Suggested:
    """Units that can go, or cannot.

    Args:
        name: of the group, or of the weight that makes units that are in none.
        units: how many.
        members: what a unit has of each parameter; empty where they are in no group.
        why: they are in none.
    """

    name: str
    units: int
    members: tuple[str, ...]
    why: str = ""


class Suggestion(Listing[Suggested]):
    """What ``suggest`` returns: prints as a table; ``regularize(model, **suggestion)`` takes it."""

    columns: ClassVar[Mapping[str, Callable[[Suggested], str]]] = {
        "units of": lambda row: row.name,
        "units": lambda row: str(row.units),
        "each has": lambda row: listed(row.members),
        "in no group": lambda row: row.why,
    }

    def __init__(self, rows: Sequence[Suggested], together: Together) -> None:
        super().__init__(rows)
        self.together = together
        """The groups, as ``regularize`` takes them."""

    def keys(self) -> list[str]:
        """The arguments of ``regularize`` that it has."""
        return ["together"]

    def __getitem__(self, index: int | str) -> Any:
        return self.together if index == "together" else self.rows[index]  # type: ignore[index]

    def remarks(self) -> Iterator[str]:
        inside = sum(row.units for row in self.rows if row.members)
        total = sum(row.units for row in self.rows)
        groups = len(self.together)
        yield f"{inside} of {total} units in {groups} group{'' if groups == 1 else 's'}"


def suggest(
    model: nn.Module,
    inputs: Any,
    regularizer: Regularizer,
    keywords: Mapping[str, Any] | None = None,
    *,
    biases: bool = False,
) -> Suggestion:
    """Groups that span parameters, one for each unit that :func:`compact` can cut once it is zero.

    The model is followed on the example, as ``compact`` follows it. A group has all weights that
    lead to a unit: rows of weights, and what biases, norms and scales have of it; of a channel of a
    residual stream those of every layer that adds to it. Where that does not make it go, because
    what is left of it is a constant that no bias can hold, a group has the weights that lead away
    from it instead. That they go is tried: every other unit of a copy is set to zero, and cut.

    Args:
        model: a module, in whatever mode, before it is sharded; it is left as it is.
        inputs: what to call it with: a tensor, or a tuple of arguments. A small batch will do.
        regularizer: the penalty of each group: one of a matrix with a row for each unit, such as
            ``GroupLasso(1e-3)``.
        keywords: arguments by name.
        biases: whether ``compact`` will be called with ``biases=True``.

    Returns:
        What ``regularize(model, **suggestion)`` takes; and a table of it, with what is in no group.

    Raises:
        ModelError: this is no model, it has lazy parameters or such as hooks compute, or
            ``torch.export`` cannot follow it.
        RulesError: the regularizer is none.
    """
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"suggest got a {type(model).__name__}", "pass a torch.nn.Module, and then its inputs"
        )
    if not isinstance(regularizer, Regularizer):
        raise RulesError(
            f"suggest got the regularizer {regularizer!r}, a {type(regularizer).__name__}",
            "Write suggest(model, inputs, GroupLasso(1e-3)).",
            "one of a matrix with a row for each unit",
        )
    trial = copy.deepcopy(model).eval()
    check_can_be_cut(trial)
    _without_zeros(trial)
    given = given_as(inputs, keywords)
    tried = [given, *others(trial, given)]
    wiring = traced(with_biases(trial) if biases else trial, *tried)
    spaces, left = spaces_of(wiring, {n for n, p in model.named_parameters() if p.requires_grad})
    found = _Found(trial, tried, biases, left)
    found.choose(spaces)
    return found.suggestion(regularizer)


def _without_zeros(model: nn.Module) -> None:
    """Set what is 0 from the start, as biases and some scales are, to numbers, so as to live."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            if p.is_floating_point():
                drawn = 0.1 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
                p.copy_(torch.where(p == 0, drawn.to(p.device, p.dtype), p))


class _Found:
    """The spaces whose units go, each with the parts that have to be zero for that."""

    def __init__(
        self,
        model: nn.Module,
        inputs: Sequence[Inputs],
        biases: bool,
        left: dict[str, dict[str, int]],
    ) -> None:
        self._model, self._inputs, self._biases, self._left = model, inputs, biases, left
        self._chosen: list[tuple[Space, Parts]] = []

    def choose(self, spaces: Sequence[Space]) -> None:
        """Find out which units go without what leads to them, or else without what leads away."""
        several = [space for space in spaces if space.units > 1]
        for space in spaces:
            if space not in several:
                self._leave(space, "a layer keeps one unit")
        what = self._cut([(space, space.parts) for space in several])
        self._chosen = [(s, s.parts) for s in several if s.are_gone(what.indices)]
        rest = [space for space in several if not space.are_gone(what.indices)]
        taken = {name for _, parts in self._chosen for name, _ in parts}
        free = [s for s in rest if s.readers and taken.isdisjoint(name for name, _ in s.readers)]
        other = self._cut([*self._chosen, *((s, s.readers) for s in free)]) if free else what
        for space in rest:
            if space in free and space.are_gone(other.indices):
                self._chosen.append((space, space.readers))
            else:
                both = sorted(taken.intersection(name for name, _ in space.readers))
                beside = f"; and what reads it, {both[0]!r}, is in another group" if both else ""
                self._leave(space, _why_not_gone(space, what) + beside)

    def _cut(self, planted: Sequence[tuple[Space, Parts]]) -> Cut:
        """What ``compact`` does to a copy in which every other unit is zero."""
        model = copy.deepcopy(self._model)
        for space, parts in planted:
            space.plant(model, parts)
        source = with_biases(model) if self._biases else model
        return proven(model, source, traced(source, *self._inputs), self._inputs)[0]

    def _leave(self, space: Space, why: str) -> None:
        counts = self._left.setdefault(space.writers[0], {})
        counts[why] = counts.get(why, 0) + space.units

    def suggestion(self, regularizer: Regularizer) -> Suggestion:
        """As it is returned."""
        shapes = {name: tuple(p.shape) for name, p in self._model.named_parameters()}
        names = unique(_name(space) for space, _ in self._chosen)
        rows, together = [], {}
        for name, (space, parts) in zip(names, self._chosen, strict=True):
            members = [in_words(n, len(shapes[n]), d, index) for (n, d), index in parts.items()]
            rows.append(Suggested(name, space.units, tuple(members)))
            axes = {n: _axis(d, index, shapes[n][d]) for (n, d), index in parts.items()}
            together[name] = (regularizer, axes)
        for name, counts in self._left.items():
            rows += [Suggested(name, count, (), why) for why, count in counts.items()]
        return Suggestion(rows, together)


def _why_not_gone(space: Space, what: Cut) -> str:
    """Why planted units have stayed."""
    found = [why for name in space.writers for why in what.kept.get(name, {})]
    return "; ".join(dict.fromkeys(found)) or "it stays, for no reason that is known"


def _name(space: Space) -> str:
    """The layer that makes them, or the first one."""
    name = space.writers[0]
    return name.rpartition(".")[0] or f"units of {name}"


def _axis(axis: int, index: Tensor, length: int) -> Any:
    """Where units lie, as ``together=`` has it."""
    units, each = index.shape
    if torch.equal(index.reshape(-1), torch.arange(length)):
        return axis if each == 1 else blocks(axis, units)
    return axis, index[:, 0].tolist() if each == 1 else index.tolist()
