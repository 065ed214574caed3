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
from penalize.torch.clock import Group, OptimizerStep, sign_of
from penalize.torch.kernels import Begun, HalfSteps, Kept
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


class Batch(NamedTuple):
    """Weights that a kernel has stepped together."""

    job: HalfSteps
    names: frozenset[str]
    targets: Sequence[Live]
    remembered: Kept

    def each(self) -> dict[str, Memory]:
        """The memory of each, by its name."""
        names = [target.name for target in self.targets]
        return dict(zip(names, self.remembered.each(), strict=True))


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
        self._batches: list[Batch] = []
        """What is kept of weights that go together, as long as nobody asks for one of them."""

        self._is_shown = False
        """Whether somebody else has what is kept, so that nothing of it may be written to."""

        self._spare: list[tuple[HalfSteps, list[Tensor]]] = []
        """The averages of the step before, of weights that go together: where the next may go."""

        self._opened: dict[str, Opened] = {}
        self._done: list[Batch] = []
        """Of the weights that kernels have stepped."""

        self.begun: list[tuple[HalfSteps, Begun, Sequence[Live]]] = []
        """What kernels have begun in this step, and of which weights."""

        self._loaded: Mapping[str, Mapping[str, Any]] = {}
        """What was saved, and not asked for yet."""

    @property
    def kept(self) -> dict[str, Memory]:
        """As the last step left them. What has been asked for is replaced, and not written to."""
        self._is_shown = True
        return self._each()

    @kept.setter
    def kept(self, kept: dict[str, Memory]) -> None:
        self._is_shown, self._kept, self._batches = True, kept, []

    def _each(self) -> dict[str, Memory]:
        """The memory of each weight, one by one."""
        for batch in self._batches:
            self._kept = {**self._kept, **batch.each()}
        self._batches = []
        return self._kept

    def _of(self, name: str) -> Memory | None:
        """The memory of one."""
        if any(name in batch.names for batch in self._batches):
            self._each()
        return self._kept.get(name)

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
        kept = self._of(target.name)
        return opened if kept is None else opened._replace(memory=kept)

    def begin(
        self, job: HalfSteps, targets: Sequence[Live], ws: Sequence[Tensor]
    ) -> tuple[Kept, list[Tensor]]:
        """The memory of weights that a kernel steps, and room for their averages."""
        remembered = next((each.remembered for each in self._batches if each.job is job), None)
        if remembered is None:
            remembered = self._gathered(targets, ws)
        rooms = next((rooms for spare, rooms in self._spare if spare is job), None)
        self._spare = [each for each in self._spare if each[0] is not job]
        return remembered, rooms or [mean.new_empty(mean.shape) for mean in remembered.means]

    def _gathered(self, targets: Sequence[Live], ws: Sequence[Tensor]) -> Kept:
        """The memory of weights that a kernel has not stepped before."""
        memories, shapes = [], []
        for target, held in zip(targets, ws, strict=True):
            w, xp = open_array(held.detach())
            memory = self._of(target.name)
            kind = w.device, torch.promote_types(w.dtype, torch.float32)
            if memory is None or (memory.mean.device, memory.mean.dtype) != kind:
                memory = self._memory_of(target.name, xp.wide(w), xp, whole=False)
            memories.append(memory)
            shapes.append(w.shape)
        return Kept.of(memories, shapes)

    def finish(self, job: HalfSteps, targets: Sequence[Live], remembered: Kept) -> None:
        """What is remembered of weights that a kernel has stepped."""
        names = frozenset(target.name for target in targets)
        self._done.append(Batch(job, names, targets, remembered))

    def close(self, targets: Sequence[Live], step: OptimizerStep) -> None:
        """The step is over. What was frozen in it is forgotten."""
        found: dict[str, Memory] = {}
        skipped = step.found_inf
        before = [] if self._is_shown else self._batches
        self._spare = [(each.job, each.remembered.means) for each in before]
        for target in filter(self.is_open, targets) if self._opened else ():
            memory = self._opened[target.name].memory
            was = self._of(target.name)
            if skipped is not None and was is not None:
                there = skipped.to(memory.mass.device) > 0
                memory = Memory(
                    *(torch.where(there, *pair) for pair in zip(was, memory, strict=True))
                )
            found[target.name] = memory
        self._kept, self._batches, self._is_shown = found, self._done, False
        self._loaded = {}
        self.forget_step()

    def forget_step(self) -> None:
        """Nothing waits for the end of a step."""
        self._opened, self._done, self.begun = {}, [], []

    def _memory_of(self, name: str, w: Tensor, xp: Backend, whole: bool) -> Memory:
        kept = memory = self._of(name)
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
            for name, memory in self._each().items()
        }

    def is_open(self, target: Live) -> bool:
        """Whether a weight was opened in this step; not if its closure was never called."""
        return target.name in self._opened

    # --- saving and resuming ----------------------------------------------------------------

    def state(self, targets: Sequence[Any]) -> dict[str, dict[str, Any]]:
        """The memory of each weight as tensors and numbers, sharded as the weights are."""
        kept = self.kept
        written = {t.name: _written(kept[t.name], t) for t in targets if t.name in kept}
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
    sign = sign_of(group)
    return sign if scale is None else sign * scale.to(parameter.device)
