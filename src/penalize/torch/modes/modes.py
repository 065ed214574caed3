"""How a plan acts on a step: as a gradient, decoupled, or by the proximal operator.

A mode acts before the update, when the gradients are ready, or after it, without an autograd graph.
The penalty does not depend on the data, so every mode acts on each trainable parameter in each
step, also where the data gave no gradient, just as a loss term would.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer
from torch.utils.hooks import RemovableHandle

from penalize.backends import torch as xp
from penalize.errors import ModeError, OptimizerError, RoundedAwayWarning, some
from penalize.regularizers.base import Regularizer
from penalize.steps import Taken
from penalize.torch.model.bindings import Binding
from penalize.torch.kernels import Router, Works
from penalize.torch.modes.scaling import assign, may_be_skipped, scale_of
from penalize.torch.model.sharding import is_sharded, local_parts
from penalize.torch.modes.step_sizes import (
    KNOWN,
    is_per_element,
    rate_of,
    step_size_of,
    stepped_by,
    unbounded,
)

Group = Mapping[str, Any]
Active = Callable[[Mapping[int, Group]], "list[Live]"]
"""Param groups by id of the parameter → the targets that are trainable now."""


@dataclass(frozen=True)
class Target:
    """One weight and its regularizer, as a mode sees them."""

    name: str
    binding: Binding
    regularizer: Regularizer

    @property
    def parameters(self) -> tuple[nn.Parameter, ...]:
        """What is behind the weight, as it is now."""
        return self.binding.parameters()

    def at(self, step: Any) -> Target:
        """The same with its strength at a step of training."""
        regularizer = self.regularizer
        return replace(self, regularizer=regularizer.at(step)) if regularizer.scheduled else self


class Live(NamedTuple):
    """A target in one step: its strength at that step, and the parameters found behind it."""

    name: str
    binding: Binding
    regularizer: Regularizer
    parameters: tuple[nn.Parameter, ...]


class Mode:
    """One way to act on a step. Each overrides what it does."""

    name: ClassVar[str]

    clip: ClassVar[str] = "without"
    """Whether what a loop clips has the penalty in it."""

    once: ClassVar[bool] = False
    """Whether ``before`` acts once per step, not after each evaluation of a closure."""

    def __init__(self, *, values: bool = False) -> None:
        self._values = values
        self.value: Tensor | None = None
        """Σ Ω(w) of the last step, before it; None where it was not asked for."""

        self._without: list[nn.Parameter] = []
        """Parameters that had no gradient, and were given one for this step."""

        self.router = Router()
        """Decides how each weight is computed with."""

    def check(self, target: Target, optimizer: Optimizer) -> None:
        """Raise a sentence if the mode cannot act on this target with this optimizer."""

    def advise(
        self, targets: Sequence[Target], groups: Mapping[int, Group], optimizer: Optimizer
    ) -> None:
        """Warn of what can be done, and is of no use."""

    def listen(
        self, targets: Sequence[Target], optimizer: Optimizer, active: Active
    ) -> list[RemovableHandle]:
        """Further hooks that it needs."""
        return []

    def before(
        self, targets: Sequence[Live], groups: Mapping[int, Group], optimizer: Optimizer
    ) -> None:
        """Act before the update; ``groups`` are the param groups by id of the parameter.

        Whatever it has to refuse it refuses before it acts on any target.
        """

    def after(
        self, targets: Sequence[Live], groups: Mapping[int, Group], optimizer: Optimizer
    ) -> None:
        """Act after the update."""
        self._take_back()

    def _send(self, works: Works, scales: Mapping[Any, float | Tensor]) -> None:
        """to ← to + scale·∇Ω(w), and the value where it was asked for."""
        if self._values:
            self.value = _total(self.router.value_and_add(works, scales))
        else:
            self.router.add(works, scales)

    def _gradient_of(self, parameter: nn.Parameter) -> Tensor:
        """Its gradient; where it has none, zeros for this step."""
        gradient = parameter.grad
        if gradient is None:
            gradient = parameter.grad = torch.zeros_like(parameter)
            self._without.append(parameter)
        return gradient

    def _take_back(self) -> None:
        for parameter in self._without:
            parameter.grad = None
        self._without.clear()


class Gradient(Mode):
    """Adds ∇Ω(w) to ``.grad`` before the update: the gradient that the loss term would give."""

    name = "gradient"

    def check(self, target: Target, optimizer: Optimizer) -> None:
        target.regularizer.check_gradient(repr(target.name))

    def before(
        self, targets: Sequence[Live], groups: Mapping[int, Group], optimizer: Optimizer
    ) -> None:
        check_dense(targets)
        _check_new(targets)
        self._add(targets, groups, scale_of(optimizer))
        _stamp(targets)

    def after(
        self, targets: Sequence[Live], groups: Mapping[int, Group], optimizer: Optimizer
    ) -> None:
        super().after(targets, groups, optimizer)
        _stamp(targets)  # optimizers may change gradients in place

    def _add(
        self, targets: Sequence[Live], groups: Mapping[int, Group], scale: Tensor | None
    ) -> None:
        """``.grad`` += ∇Ω(w), in the units that ``.grad`` has now: multiplied by a scale."""
        plain = [target for target in targets if not target.binding.effective]
        ws = [target.parameters[0] for target in plain]
        tos = [self._gradient_of(w) for w in ws]
        keys: list[Any] = [id(groups[id(w)]) for w in ws]
        signs = {key: _sign(groups[id(w)]) for key, w in zip(keys, ws, strict=True)}
        scales: dict[Any, float | Tensor] = {**signs}
        if scale is not None:
            keys = [(key, w.device) for key, w in zip(keys, ws, strict=True)]
            scales = {key: signs[key[0]] * scale.to(key[1]) for key in keys}
        on_device = [scale is not None] * len(ws)
        works = works_of(plain, ws, tos, keys, on_device=on_device, whole=self._values)
        self._send(works, scales)
        for target in targets:
            if target.binding.effective:
                if self._values:
                    self.value = _total([self.value, target.regularizer(target.binding.read())])
                for parameter, gradient in gradients_of(target):
                    sign = _sign(groups[id(parameter)])
                    factor = sign if scale is None else sign * scale.to(gradient.device)
                    self._gradient_of(parameter).add_(factor * gradient)


_MAY_BE_SKIPPED = "only the device knows whether this step is skipped"


def _sign(group: Group) -> float:
    return -1.0 if group.get("maximize", False) else 1.0


def _total(values: Iterable[Tensor | None]) -> Tensor:
    """Their sum, on the device of the first."""
    first, *others = [value for value in values if value is not None] or [torch.zeros(())]
    return sum((value.to(first.device) for value in others), first.double())


def works_of(
    targets: Sequence[Live],
    ws: Sequence[Tensor],
    besides: Sequence[Tensor],
    keys: Sequence[Any],
    *,
    on_device: Sequence[bool],
    steps: Sequence[Taken] | None = None,
    whole: bool = False,
) -> Works:
    """What a router has to do, with the shards of what is sharded where these are enough.

    They are not for a value, which is of the whole.
    """
    names = [target.name for target in targets]
    regularizers = [target.regularizer for target in targets]
    if not whole and any(map(is_sharded, ws)):
        pairs = [local_parts(*each) for each in zip(ws, besides, regularizers, strict=True)]
        ws, besides = [w for w, _ in pairs], [beside for _, beside in pairs]
    if steps is not None:
        steps = [
            step if step.second is None else step._replace(second=beside)
            for step, beside in zip(steps, besides, strict=True)
        ]
    return Works(names, ws, besides, regularizers, keys, on_device, steps)


def version_of(gradient: Tensor) -> int:
    """How often a gradient was changed in place; for a sharded one, its shard."""
    if type(gradient) is not Tensor:
        gradient = getattr(gradient, "_local_tensor", gradient)
    try:
        return gradient._version
    except RuntimeError:  # an inference tensor has none
        return -1


_STEPPED = "_penalize_stepped"
"""On a gradient: its version when a penalty was last in it for a step."""


def _stamp(targets: Iterable[Live]) -> None:
    for target in targets:
        for parameter in target.parameters:
            gradient = parameter.grad
            if gradient is not None:
                setattr(gradient, _STEPPED, version_of(gradient))


def is_stepped(gradient: Tensor) -> bool:
    """Whether it is as a step has left it: with the penalty in it."""
    stamp = getattr(gradient, _STEPPED, None)
    return stamp is not None and stamp == version_of(gradient)


def gradients_of(target: Target | Live) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """The gradient of the penalty with respect to each parameter behind the weight."""
    sources = [p for p in target.parameters if p.requires_grad]
    if not target.binding.effective:
        yield sources[0], target.regularizer.gradient(sources[0])
        return
    with torch.enable_grad():
        penalty = target.regularizer(target.binding.read())
    computed = torch.autograd.grad(penalty, sources, allow_unused=True)
    yield from ((p, g) for p, g in zip(sources, computed, strict=True) if g is not None)


def check_dense(targets: Iterable[Live]) -> None:
    """A penalty on all rows of an embedding has no sparse gradient."""
    for target in targets:
        for parameter in target.parameters:
            gradient = parameter.grad
            if gradient is not None and gradient.is_sparse:
                raise ModeError(
                    f"{target.name!r} has a sparse gradient, and the gradient of "
                    f"{target.regularizer!r} is dense",
                    "build the embedding with sparse=False, or exempt it with a rule that gives "
                    "None",
                )


def _check_new(targets: Iterable[Live]) -> None:
    """The penalty stays in ``.grad`` after a step, until that is cleared."""
    for target in targets:
        for parameter in target.parameters:
            gradient = parameter.grad
            if gradient is not None and is_stepped(gradient):
                raise OptimizerError(
                    f"{target.name!r} is stepped again with the gradient of the last step, which "
                    "has the penalty in it already",
                    "call zero_grad() and backward() before each step",
                )


class Decoupled(Mode):
    """w ← w − lr·∇Ω(w) before the update, as AdamW does with its weight decay."""

    name = "decoupled"
    once = True

    def check(self, target: Target, optimizer: Optimizer) -> None:
        target.regularizer.check_gradient(repr(target.name))
        _check_can_be_set(self, target)
        if not moves_weights(optimizer):
            raise ModeError(
                f'mode="decoupled" moves the weights beside the optimizer, and '
                f"{type(optimizer).__name__} is not of torch.optim: it may keep weights of its own",
                'use mode="gradient"',
            )
        if isinstance(optimizer, LBFGS):
            raise ModeError(
                'mode="decoupled" needs a learning rate that scales the update, and LBFGS has none',
                'use mode="gradient"',
            )

    def advise(
        self, targets: Sequence[Target], groups: Mapping[int, Group], optimizer: Optimizer
    ) -> None:
        def moved(target: Target, w: Tensor, lr: Any) -> Tensor:
            return _decayed(w, target.regularizer, lr)

        _warn_if_rounded_away(self, targets, groups, moved)

    def before(
        self, targets: Sequence[Live], groups: Mapping[int, Group], optimizer: Optimizer
    ) -> None:
        if may_be_skipped(optimizer):
            if self._values:
                self.value = _total(t.regularizer(t.parameters[0]) for t in targets)
            self.router.pass_by((t.name for t in targets), _MAY_BE_SKIPPED)
            for target in targets:
                (parameter,) = target.parameters
                moved = _decayed(parameter, target.regularizer, rate_of(groups[id(parameter)]))
                assign(parameter, moved, optimizer)
            return
        ws = [target.parameters[0] for target in targets]
        keys = [id(groups[id(w)]) for w in ws]
        rates = {key: rate_of(groups[id(w)]) for key, w in zip(keys, ws, strict=True)}
        on_device = [isinstance(rates[key], Tensor) for key in keys]
        scales = {key: -rate for key, rate in rates.items()}
        works = works_of(targets, ws, ws, keys, on_device=on_device, whole=self._values)
        self._send(works, scales)


def _decayed(w: Tensor, regularizer: Regularizer, lr: float | Tensor) -> Tensor:
    """w − lr·∇Ω(w)."""
    l1, l2, rest = regularizer.split()
    if l1 or rest:
        return cast(Tensor, w - lr * regularizer.gradient(w))
    return w * (1 - lr * (2 * l2))  # rounded as AdamW does it, bit for bit


Move = Callable[[Target, Tensor, Any], Tensor]
"""(target, weight, learning rate) → where a penalty moves the weight."""


@torch.no_grad()
def _warn_if_rounded_away(
    mode: Mode, targets: Sequence[Target], groups: Mapping[int, Group], move: Move
) -> None:
    lost = [t.name for t in targets if _is_rounded_away(t, groups, move)]
    if lost:
        warnings.warn(
            f"{some(lost)}: in half precision the steps of mode={mode.name!r} are rounded away "
            "and most weights would never move. Keep the weights in float32 (autocast computes "
            'in half precision), or use mode="gradient".',
            RoundedAwayWarning,
            stacklevel=7,
        )


def _is_rounded_away(target: Target, groups: Mapping[int, Group], move: Move) -> bool:
    """Whether most weights would stay where they are, though the penalty pulls at them."""
    (parameter,) = target.binding.parameters()
    if parameter.dtype.itemsize > 2 or parameter.is_meta:
        return False
    group = groups[id(parameter)]
    lr = max(rate_of(group), group.get("initial_lr", 0.0))  # a warm-up begins below
    pulled = move(target, parameter.float(), lr) != parameter
    moved = move(target, parameter, lr) != parameter
    return bool(2 * moved.sum() < pulled.sum())


class Proximal(Mode):
    """w ← prox of step·Ω at w after the update, with the step that the optimizer really took."""

    name = "proximal"

    def check(self, target: Target, optimizer: Optimizer) -> None:
        _check_can_be_set(self, target)
        if step_size_of(optimizer) is None:
            raise ModeError(
                f'mode="proximal" needs the step that the optimizer really takes, and that of '
                f"{type(optimizer).__name__} is not known",
                f'use one of {KNOWN}, or mode="gradient"',
            )
        reason = unbounded(optimizer)
        if reason:
            raise ModeError(
                f'mode="proximal" needs a step that stays bounded, and {type(optimizer).__name__} '
                f"has none: {reason}",
                'use mode="gradient"',
            )
        target.regularizer.check_step(
            per_element=is_per_element(optimizer),
            where=f"{target.name!r} under {type(optimizer).__name__}",
        )

    def advise(
        self, targets: Sequence[Target], groups: Mapping[int, Group], optimizer: Optimizer
    ) -> None:
        step_size = step_size_of(optimizer)
        if step_size is not None and not is_per_element(optimizer):  # known before it is taken

            def moved(target: Target, w: Tensor, lr: Any) -> Tensor:
                (parameter,) = target.binding.parameters()
                taken = step_size({**groups[id(parameter)], "lr": lr}, {})
                return cast(Tensor, target.regularizer.prox(w, taken.factor))

            _warn_if_rounded_away(self, targets, groups, moved)

    def before(
        self, targets: Sequence[Live], groups: Mapping[int, Group], optimizer: Optimizer
    ) -> None:
        for target in targets:
            # Without one the optimizer would take no step here, and the prox would have no size.
            self._gradient_of(target.parameters[0])

    def after(
        self, targets: Sequence[Live], groups: Mapping[int, Group], optimizer: Optimizer
    ) -> None:
        step_size = step_size_of(optimizer)
        assert step_size is not None  # by check()
        ws = [target.parameters[0] for target in targets]
        steps = [step_size(groups[id(w)], optimizer.state.get(w, {})) for w in ws]
        if may_be_skipped(optimizer):
            self.router.pass_by((t.name for t in targets), _MAY_BE_SKIPPED)
            for target, w, taken in zip(targets, ws, steps, strict=True):
                assign(w, target.regularizer.prox_taken(w, taken.step(xp)), optimizer)
        else:
            self._shrink(targets, ws, steps)
        self._take_back()

    def _shrink(
        self, targets: Sequence[Live], ws: Sequence[Tensor], steps: Sequence[Taken]
    ) -> None:
        numbers: dict[Any, int] = {}
        keys, on_device = [], []
        for step in steps:
            factors = (step.factor, step.scale, step.offset, step.is_squared, step.second is None)
            tensor = any(isinstance(factor, Tensor) for factor in factors)
            on_device.append(tensor)
            keys.append(-1 if tensor else numbers.setdefault(factors, len(numbers)))
        seconds = [w if s.second is None else s.second for w, s in zip(ws, steps, strict=True)]
        self.router.shrink(works_of(targets, ws, seconds, keys, on_device=on_device, steps=steps))


def moves_weights(optimizer: Optimizer) -> bool:
    """Whether it is known to step from wherever the parameters are, as torch.optim's own do.

    An optimizer that keeps copies of the weights would undo what is done to them beside it.
    """
    kinds = set(type(stepped_by(optimizer)).__mro__) - {Optimizer}
    return any(f"{kind.__module__}.".startswith("torch.optim.") for kind in kinds)


def _check_can_be_set(mode: Mode, target: Target) -> None:
    if target.binding.effective:
        raise ModeError(
            f"{target.name!r} is computed from other parameters, so mode={mode.name!r} cannot set "
            "it",
            'use mode="gradient", or exempt it with a rule that gives None',
        )


MODES: dict[str, type[Mode]] = {mode.name: mode for mode in (Gradient, Decoupled, Proximal)}


def mode_named(name: object) -> type[Mode]:
    """The mode of that name. Raises :class:`ModeError` if there is none."""
    if not isinstance(name, str) or name not in MODES:
        raise ModeError(f"there is no mode {name!r}", f"expected one of {', '.join(MODES)}")
    return MODES[name]
