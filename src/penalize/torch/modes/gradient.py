"""``mode="gradient"``: the gradient that the loss term would give, added to the data's."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import repeat
from operator import attrgetter, is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from penalize.errors import ModeError, NeverAppliedWarning, OptimizerError, some
from penalize.torch.clock import OptimizerStep, sign_of
from penalize.torch.kernels import Additions
from penalize.torch.model.targets import Live, Target, lives
from penalize.torch.modes.base import Effect, Mode, Replayed, gradients_of, total


class Gradient(Mode):
    """``.grad`` += ∇Ω(w) before the update."""

    name = "gradient"
    spans = True

    def check(self, target: Target, optimizer: Optimizer) -> None:
        target.regularizer.check_gradient(repr(target.name))

    def __init__(self, *, values: bool = False) -> None:
        super().__init__(values=values)
        self._added_to: tuple[Sequence[nn.Parameter], Sequence[Tensor | None]] = (), ()
        """In a step: the parameters, and the gradients that have the penalty in them."""

        self._versions: list[int] = []
        """Of these gradients, where there are any."""

        self._begun: list[tuple[nn.Parameter, Tensor, int, Tensor]] = []
        """Between the beginning of a step and its closure: each parameter, with its gradient, the
        version of that with the penalty in it, and what it was without."""

        self._warned = False

    def before(self, targets: Sequence[Live], step: OptimizerStep) -> None:
        targets = lives(targets)
        parameters = targets.parameters
        found = _gradients_of(parameters)
        gradients = _there(found)
        check_dense(targets, gradients)
        check_without_graph(targets, gradients)
        if any(map(hasattr, gradients, repeat(_STEPPED))):
            self._check_new(targets, step)
        self.add(targets, step.groups, step.scale)
        step.added.append((parameters, self))
        if len(gradients) < len(found):
            found = _gradients_of(parameters)  # some were given one
        self._added_to = parameters, found
        self._versions = _stamp(found)

    def _check_new(self, targets: Sequence[Live], step: OptimizerStep) -> None:
        """The penalty stays in ``.grad`` after a step, until that is cleared."""
        # What another plan has added in this step is no penalty of the last one.
        added = [each for outer in step.chain for each in outer.added]
        by = {id(p): whose for parameters, whose in added for p in parameters}
        again = stepped_again(
            target
            for target in targets
            if not by or all(by.get(id(p), self) is self for p in target.parameters)
        )
        if again:
            raise OptimizerError(
                f"{again[0]!r} is stepped again with the gradient of the last step, which "
                "has the penalty in it already",
                "call zero_grad() and backward() before each step",
            )

    def after(self, targets: Sequence[Live], step: OptimizerStep) -> None:
        parameters, added = self._added_to
        self._added_to = (), ()
        now = _gradients_of(parameters)
        if not all(map(is_, now, added)):
            self._warn_of_replaced(targets, step, zip(parameters, added, now, strict=True))
            self._versions = []
        self._begun = []
        every = lives(targets).parameters
        if self._without or parameters is not every:
            self.take_back()
            now, self._versions = _gradients_of(every), []
        _stamp(now, self._versions)  # optimizers may change gradients in place

    def broken_off(self, targets: Sequence[Live], step: OptimizerStep) -> None:
        super().broken_off(targets, step)
        added, self._added_to = zip(*self._added_to, strict=True), ((), ())
        still = {id(p) for p, gradient in added if gradient is not None and p.grad is gradient}
        names = [t.name for t in targets if any(id(p) in still for p in t.parameters)]
        if names:
            raise OptimizerError(
                f"an earlier step of {type(step.optimizer).__name__} raised after the penalty had "
                f"been added to the gradient of {some(names)}, which is there still",
                "call zero_grad(), which clears it, and backward() before the next step",
            )

    def before_closure(self, targets: Sequence[Live], step: OptimizerStep) -> bool:
        """A sharpness-aware optimizer moves the weights by the gradient that it finds."""
        gradients = gradients_there(targets)
        is_new = any(bool(_local(g).any()) for g in gradients)
        if not is_new or any(map(is_stepped, gradients)):
            return False
        check_dense(targets, gradients)
        check_without_graph(targets, gradients)
        held = [(p, p.grad) for t in targets for p in t.parameters if p.grad is not None]
        before = [(p, gradient, gradient.clone()) for p, gradient in held]
        self.add(targets, step.groups, step.scale)
        self._begun = [(p, gradient, version_of(gradient), was) for p, gradient, was in before]
        return True

    def at_closure(self) -> None:
        for parameter, gradient, version, before in self._begun:
            # Else it was cleared, or used up.
            if parameter.grad is gradient and version_of(gradient) == version:
                gradient.copy_(before)
        self._begun = []
        self.take_back()

    def _warn_of_replaced(
        self,
        targets: Sequence[Live],
        step: OptimizerStep,
        gradients: Iterable[tuple[nn.Parameter, Tensor | None, Tensor | None]],
    ) -> None:
        """An optimizer that writes ``.grad`` itself may do without what was added to it."""
        replaced = {id(p) for p, was, now in gradients if now is not None and now is not was}
        if not replaced or self._warned:
            return
        self._warned = True
        names = [t.name for t in targets if any(id(p) in replaced for p in t.parameters)]
        warnings.warn(
            f"{type(step.optimizer).__name__} replaced the gradient of {some(names)} within its "
            "step, after the penalty had been added to it. penalize.torch.audit(step, plan) tells "
            'whether the penalty still reaches the weights; mode="decoupled" does not need .grad.',
            NeverAppliedWarning,
            stacklevel=7,
        )

    def effect(self, target: Target, run: Replayed) -> Effect:
        changes = {
            p: sign_of(run.groups[id(p)]) * gradient
            for p, gradient in gradients_of(target)
            if id(p) in run.groups
        }
        return Effect("gradients", changes)

    def add(self, targets: Sequence[Live], groups: Any, scale: Tensor | None) -> None:
        """``.grad`` += ∇Ω(w), in the units that ``.grad`` has now: multiplied by a scale."""
        plain = lives(targets).plain
        ws = plain.parameters
        tos = self.gradients_of(ws)
        held = plain.among(groups)
        keys: list[Any] = list(map(id, held))
        distinct = dict(zip(keys, held, strict=True))
        scales: dict[Any, float | Tensor] = {key: sign_of(group) for key, group in distinct.items()}
        if scale is not None:
            keys = [(key, w.device) for key, w in zip(keys, ws, strict=True)]
            scales = {key: scales[key[0]] * scale.to(key[1]) for key in keys}
        on_device = [scale is not None] * len(ws)
        additions = Additions(plain.names, ws, tos, plain.regularizers, keys, on_device)
        if self._values:
            self.value = total(self.router.value_and_add(additions, scales))
        else:
            self.router.add(additions, scales)
        if len(plain) < len(targets):
            self._add_through(targets, groups, scale)

    def _add_through(self, targets: Iterable[Live], groups: Any, scale: Tensor | None) -> None:
        """The same for weights that are computed from other parameters."""
        for target in targets:
            if not target.binding.effective:
                continue
            if self._values:
                self.value = total([self.value, target.regularizer(target.binding.read())])
            for parameter, gradient in gradients_of(target):
                sign = sign_of(groups[id(parameter)])
                factor = sign if scale is None else sign * scale.to(gradient.device)
                self.gradient_of(parameter).add_(factor * gradient)


# --- gradients that have the penalty in them --------------------------------------------------


def version_of(gradient: Tensor) -> int:
    """How often a gradient was changed in place; for a sharded one, its shard."""
    if type(gradient) is not Tensor:
        gradient = _local(gradient)
    try:
        return gradient._version
    except RuntimeError:  # an inference tensor has none
        return -1


def _versions_of(gradients: Sequence[Tensor]) -> list[int]:
    if {Tensor}.issuperset(map(type, gradients)):
        with suppress(RuntimeError):
            return list(map(_VERSION, gradients))
    return list(map(version_of, gradients))


_VERSION = attrgetter("_version")

_STEPPED = "_penalize_stepped"
"""On a gradient: its version when a penalty was last in it for a step."""

_SAMPLE = "_penalize_sample"
"""On one gradient of a step: some of its values then."""


def _stamp(found: Iterable[Tensor | None], before: Sequence[int] = ()) -> list[int]:
    """Note the version of each gradient on it, unless they have these already; returns them."""
    gradients = _there(found)
    versions = _versions_of(gradients)
    if versions != before:
        for gradient, version in zip(gradients, versions, strict=True):
            setattr(gradient, _STEPPED, version)
    if gradients:
        setattr(gradients[0], _SAMPLE, _sample_of(gradients[0]).clone())
    return versions


def _sample_of(gradient: Tensor) -> Tensor:
    return _local(gradient).detach().reshape(-1)[:64]


def _local(gradient: Tensor) -> Tensor:
    return getattr(gradient, "_local_tensor", gradient)


def is_stepped(gradient: Tensor) -> bool:
    """Whether it is as a step has left it, as far as its version tells: with the penalty in it."""
    stamp = getattr(gradient, _STEPPED, None)
    return stamp is not None and stamp == version_of(gradient)


def copied(gradient: Tensor) -> Tensor:
    """A copy that is known to have a penalty in it where the gradient is."""
    copy = gradient.clone()
    if is_stepped(gradient):
        setattr(copy, _STEPPED, version_of(copy))
        setattr(copy, _SAMPLE, getattr(gradient, _SAMPLE, None))
    return copy


def stepped_again(targets: Iterable[Target | Live]) -> list[str]:
    """The names of those whose gradients are as a step has left them.

    What is written through ``.data`` leaves the version of a gradient as it is. So where these say
    so, the gradients are looked at: one of zeros has no penalty in it, and of each step the values
    of one gradient are known.
    """
    held = [(t.name, p.grad) for t in targets for p in t.parameters]
    stamped = [(name, g) for name, g in held if g is not None and hasattr(g, _STEPPED)]
    same = [(name, g) for name, g in stamped if is_stepped(g) and bool(_local(g).any())]
    for _, gradient in same:
        then: Tensor | None = getattr(gradient, _SAMPLE, None)
        if then is not None and not torch.equal(then, _sample_of(gradient)):
            return []
    return list(dict.fromkeys(name for name, _ in same))


def gradients_there(targets: Sequence[Live]) -> list[Tensor]:
    """The gradients behind the targets, where there are any."""
    return _there(_gradients_of(lives(targets).parameters))


def _there(gradients: Iterable[Tensor | None]) -> list[Tensor]:
    return [gradient for gradient in gradients if gradient is not None]


def _gradients_of(parameters: Iterable[nn.Parameter]) -> list[Tensor | None]:
    return list(map(_GRADIENT, parameters))


_GRADIENT = attrgetter("grad")
_IS_SPARSE, _HAS_GRAPH = attrgetter("is_sparse"), attrgetter("requires_grad")


def check_dense(targets: Sequence[Live], gradients: Sequence[Tensor]) -> None:
    """A penalty on all rows of an embedding has no sparse gradient."""
    if not any(map(_IS_SPARSE, gradients)):
        return
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


def check_without_graph(targets: Sequence[Live], gradients: Sequence[Tensor]) -> None:
    """What is added to a gradient has no graph: it would be missing from its derivatives."""
    if not any(map(_HAS_GRAPH, gradients)):
        return
    for target in targets:
        for parameter in target.parameters:
            if parameter.grad is not None and parameter.grad.requires_grad:
                raise ModeError(
                    f"the gradient of {target.name!r} has a graph, as backward(create_graph=True) "
                    "makes it for an optimizer that differentiates it again, and what is added to "
                    "it here has none",
                    "detach(), and add plan.penalty() to the loss",
                )
