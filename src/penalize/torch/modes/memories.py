"""What a mode remembers of each weight between steps: running averages of the data's gradient.

They live where the weight lives, in float32 or wider: each rank has those of its own shard.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from penalize.backends import Backend, open_array
from penalize.backends import torch as local
from penalize.errors import StateError
from penalize.halfspace import SCALARS, HalfSpace, Memory, begun, has_kinks, share_left
from penalize.regularizers.base import as_number
from penalize.torch.clock import Group, OptimizerStep
from penalize.torch.kernels import Begun, HalfSteps
from penalize.torch.model.sharding import laid_out_as
from penalize.torch.model.targets import Live, Target, weight_in


class Opened(NamedTuple):
    """One weight in a step, as the mathematics takes it."""

    space: HalfSpace
    """With a copy of it as it was when the step began, a shard where that is enough."""

    memory: Memory


def opened_again(target: Live) -> Tensor:
    """The weight as it is now, as it was opened."""
    array, xp = _open_now(target)
    now: Tensor = xp.wide(array)
    return now


def _open_now(target: Live | Target) -> tuple[Tensor, Backend]:
    w = weight_in(target, [p.detach() for p in target.parameters])
    return open_array(w, whole=not target.regularizer.on_shards)


class Memories:
    """The memory of each weight of one optimizer, by its name.

    A step that is skipped or raises leaves it as it was; of several evaluations of a closure the
    last one counts.
    """

    def __init__(self, average: float) -> None:
        self.average = average
        self._kept: dict[str, Memory] = {}
        self._is_shown = False
        """Whether somebody else has what is kept, so that nothing of it may be written to."""

        self._spare: dict[str, Tensor] = {}
        """The averages of the step before, by the name of a weight: where the next may go."""

        self._opened: dict[str, Opened] = {}
        self._done: dict[str, Memory] = {}
        """Of the weights that kernels have stepped."""

        self.begun: list[tuple[HalfSteps, Begun, Sequence[Live]]] = []
        """What kernels have begun in this step, and of which weights."""

        self._loaded: Mapping[str, Mapping[str, Any]] = {}
        """What was saved, and not asked for yet."""

    @property
    def kept(self) -> dict[str, Memory]:
        """As the last step left them. What has been asked for is replaced, and not written to."""
        self._is_shown = True
        return self._kept

    @kept.setter
    def kept(self, kept: dict[str, Memory]) -> None:
        self._is_shown, self._kept = True, kept

    # --- a step -----------------------------------------------------------------------------

    def open(self, target: Live) -> Opened:
        """A weight as it was at the beginning of the step."""
        opened = self._opened.get(target.name)
        if opened is None:
            whole = not target.regularizer.on_shards
            array, xp = _open_now(target)
            w = xp.wide(array)
            held = target.parameters[0]
            w = w.clone() if w is array or w.data_ptr() == held.data_ptr() else w
            space = HalfSpace(target.regularizer, w, self.average, xp)
            opened = Opened(space, self._memory_of(target.name, w, xp, whole))
            self._opened[target.name] = opened
        return opened

    def note(self, target: Live, memory: Memory) -> None:
        """What is remembered of a weight, if the step is taken."""
        self._opened[target.name] = self._opened[target.name]._replace(memory=memory)

    def reopen(self, target: Live) -> Opened:
        """As :meth:`open`, with the memory of before the step: a closure is evaluated again."""
        opened = self.open(target)
        kept = self._kept.get(target.name)
        return opened if kept is None else opened._replace(memory=kept)

    def begin(
        self, targets: Sequence[Live], ws: Sequence[Tensor]
    ) -> tuple[list[Memory], list[Tensor]]:
        """The memories of weights that kernels step, and room for their averages."""
        memories, rooms = [], []
        for target, held in zip(targets, ws, strict=True):
            w, xp = open_array(held.detach())
            memory = self._kept.get(target.name)
            kind = w.device, torch.promote_types(w.dtype, torch.float32)
            if memory is None or (memory.mean.device, memory.mean.dtype) != kind:
                memory = self._memory_of(target.name, xp.wide(w), xp, whole=False)
            room = self._spare.pop(target.name, None)
            if room is None or not _is_like(room, memory.mean, w):
                room = memory.mean.new_empty(w.shape)
            memories.append(memory)
            rooms.append(room)
        return memories, rooms

    def finish(self, target: Live, memory: Memory) -> None:
        """What is remembered of a weight that a kernel has stepped."""
        self._done[target.name] = memory

    def close(self, targets: Sequence[Live], step: OptimizerStep) -> None:
        """The step is over. What was frozen in it is forgotten."""
        found, skipped = dict(self._done), step.found_inf
        self._spare = (
            {} if self._is_shown else {n: self._kept[n].mean for n in found if n in self._kept}
        )
        for target in filter(self.is_open, targets):
            memory = self._opened[target.name].memory
            before = self._kept.get(target.name)
            if skipped is not None and before is not None:
                there = skipped.to(memory.mass.device) > 0
                memory = Memory(
                    *(torch.where(there, *pair) for pair in zip(before, memory, strict=True))
                )
            found[target.name] = memory
        self._kept, self._is_shown, self._loaded = found, False, {}
        self.forget_step()

    def forget_step(self) -> None:
        """Nothing waits for the end of a step."""
        self._opened, self._done, self.begun = {}, {}, []

    def _memory_of(self, name: str, w: Tensor, xp: Backend, whole: bool) -> Memory:
        kept = memory = self._kept.get(name)
        if memory is None and name in self._loaded:
            memory = self._read(name, self._loaded[name], w, whole)
        if memory is None:
            memory = begun(w, xp)
        if memory.mean.device != w.device or memory.mean.dtype != w.dtype:
            memory = Memory(*(x.to(w.device, w.dtype) for x in memory))
        if memory is not kept:
            self._kept = {**self._kept, name: memory}
        return memory

    def left(self) -> dict[str, float]:
        """The share of its zeros that each weight has left in the last 1/(1 − average) steps."""
        return {
            name: float(share_left(memory, self.average, local))
            for name, memory in self._kept.items()
        }

    def is_open(self, target: Live) -> bool:
        """Whether a weight was opened in this step; not if its closure was never called."""
        return target.name in self._opened

    # --- saving and resuming ----------------------------------------------------------------

    def state(self, targets: Sequence[Any]) -> dict[str, dict[str, Any]]:
        """The memory of each weight as tensors and numbers, sharded as the weights are."""
        written = {
            target.name: _written(self.kept[target.name], target)
            for target in targets
            if target.name in self._kept
        }
        return {**{name: dict(saved) for name, saved in self._loaded.items()}, **written}

    def load(self, state: Mapping[str, Mapping[str, Any]], targets: Sequence[Target]) -> None:
        """Go on from what :meth:`state` gave, or the whole of it; see :func:`check_saved`."""
        weights = {target.name: weight_in(target, target.parameters) for target in targets}
        self.kept, self._opened = {}, {}
        self._loaded = {
            name: {**saved, "mean": laid_out_as(saved["mean"], weights[name])}
            for name, saved in state.items()
        }

    def _read(self, name: str, saved: Mapping[str, Any], w: Tensor, whole: bool) -> Memory:
        mean, _ = open_array(saved["mean"], whole=whole)
        if mean.shape != w.shape:
            raise StateError(
                f"the average of {name!r} has the shape {tuple(mean.shape)}, and {tuple(w.shape)} "
                "is what is stepped here"
            )
        numbers = [w.new_tensor(float(saved[field])) for field in SCALARS]
        return Memory(mean.to(w.device, w.dtype).clone(), *numbers)


def _is_like(room: Tensor, mean: Tensor, w: Tensor) -> bool:
    """Whether an average of a weight may go there."""
    kind = (room.dtype, room.device, room.shape)
    return kind == (mean.dtype, mean.device, w.shape) and room.is_contiguous()


def _written(memory: Memory, target: Any) -> dict[str, Any]:
    _, xp = _open_now(target)
    numbers = {field: float(getattr(memory, field)) for field in SCALARS}
    return {"mean": xp.like(memory.mean, memory.mean), **numbers}


def check_saved(state: object, targets: Sequence[Target]) -> None:
    """Raise :class:`StateError` unless this is what :meth:`Memories.state` gives of these."""
    here = {target.name: target for target in targets}
    if not isinstance(state, Mapping) or not all(
        isinstance(each, Mapping) and set(each) == set(Memory._fields) for each in state.values()
    ):
        raise StateError("its averages are no mapping from name to what a half-space step keeps")
    for name, saved in state.items():
        if name not in here:
            raise StateError(f"it has an average of {name!r}, which is not stepped here")
        shape = here[name].binding.shape()
        mean = saved["mean"]
        if not isinstance(mean, Tensor) or not mean.is_floating_point():
            raise StateError(
                f"the average of {name!r} is to be a tensor of real numbers, not {mean!r}"
            )
        if mean.shape != shape:
            raise StateError(
                f"the average of {name!r} has the shape {tuple(mean.shape)}, and {shape} is what "
                "is stepped here"
            )
        for field in SCALARS:
            if not math.isfinite(as_number(saved[field])):
                raise StateError(
                    f"beside the average of {name!r} it has {field}={saved[field]!r}, and a finite "
                    "number is expected"
                )


def check_known(target: Target) -> None:
    """Raise :class:`NoKinkError` if a penalty has kinks at zero of no known size."""
    has_kinks(target.name, target.regularizer)


def data_gradient(target: Live, opened: Opened, factors: Sequence[Any]) -> Tensor:
    """The gradient of the data beside a weight, of what each ``.grad`` has factor times."""
    gradients: list[Tensor] = []
    for p in target.parameters:
        assert p.grad is not None  # modes give one to what has none
        gradients.append(p.grad.detach())
    factor, *others = factors
    if others:
        gradients = [gradient / each for gradient, each in zip(gradients, factors, strict=True)]
        factor = 1.0
    held = weight_in(target, gradients)
    array, xp = open_array(held, whole=not target.regularizer.on_shards)
    gradient: Tensor = xp.wide(array).to(opened.space.w.dtype) / factor
    return gradient


def factor_of(parameter: nn.Parameter, group: Group, scale: Tensor | None) -> Any:
    """What ``.grad`` is multiplied by: a scaler's factor, and −1 where it is maximized."""
    sign = -1.0 if group.get("maximize", False) else 1.0
    return sign if scale is None else sign * scale.to(parameter.device)
