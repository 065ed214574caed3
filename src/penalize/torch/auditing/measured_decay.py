"""The weight decay of one parameter, from the runs of a step in which it was another."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from penalize.torch.auditing import decay_kinds as kinds
from penalize.torch.auditing.decay_kinds import CLOSE, Shrunk, Way
from penalize.torch.auditing.replay import Seen
from penalize.torch.auditing.verdicts import Decay
from penalize.torch.modes.recipes import NotTriedError, Recipe
from penalize.torch.modes.trials import run

LARGER = 8
"""The factor of larger gradients."""

_LITTLE = 0.02
"""A part of a weight, of which rounding may take a part."""

_ANY = Decay("", 1.0)
_ANOTHER = "not measured: the step differs each time it runs"
_ALL_ZERO = "its weights are 0 here, so it cannot be seen"


def strong_decay(group: Mapping[str, Any]) -> float:
    """A weight decay for which lr·weight_decay is 1/4, which cannot be overlooked."""
    rate = rate_or_none(group)
    return 0.25 / abs(rate) if rate else 0.25


def rate_or_none(group: Mapping[str, Any]) -> float | None:
    """The learning rate; None where there is none, as some choose their steps themselves."""
    rate = group.get("lr")
    return None if rate is None else float(rate)


class Measurement(NamedTuple):
    """The weights after a step."""

    found: Seen
    """As it is."""

    again: Seen
    """As it is, a second time."""

    without: Seen
    coupled: Seen | None
    """With an L2 in the gradient; None where the optimizer raises if that is done to it."""

    decoupled: Seen | None
    strong: Seen | None = None
    """With a decay that cannot be overlooked, where one of these was not enough."""

    strength: float = 1.0
    """How much more than ``strong_decay`` that is."""

    larger: tuple[Seen, Seen] | None = None
    """Without a decay and with the strong one, at larger gradients."""

    def of(self, p: Tensor, decay: Decay) -> Decay:
        """The decay of a parameter, with the factor and kind that were measured."""
        measured = self.without_reasons(p, decay)
        return measured._replace(note=self._why_not_seen(p)) if measured.factor == 0 else measured

    def without_reasons(self, p: Tensor, decay: Decay) -> Decay:
        """The same, but for why it changes nothing where it does not."""
        runs = [each.moved(p) for each in (self.found, self.again, self.without)]
        if len({len(tensors) for tensors in runs}) > 1:
            return decay._replace(note=_ANOTHER)
        # In its first step Adam takes the sign of the gradient, and what a decay adds is in the
        # state alone: so it is looked for where it is largest.
        noise, change = max(
            ((_distance(f, a), _distance(f, w)) for f, a, w in zip(*runs, strict=True)),
            key=lambda pair: pair[1],
        )
        if noise > CLOSE * change:
            return decay._replace(note=_ANOTHER)
        if not change:
            return decay._replace(factor=0.0) if bool(p.any()) else decay._replace(note=_ALL_ZERO)
        return self._plain(p, decay) or self._by_its_change(p, decay)

    def stronger(self, parameters: Sequence[Tensor]) -> float:
        """How much more it takes where the strong decay shrinks next to nothing."""
        least = self._least(parameters)
        return 0.25 / least if least < _LITTLE else 1.0

    def is_strong(self, parameters: Sequence[Tensor]) -> bool:
        """Whether the strong decay shrinks weights: one that a ratio holds back never does."""
        return self.strong is not None and self._least(parameters) >= _LITTLE

    def _least(self, parameters: Sequence[Tensor]) -> float:
        """The least by which the strong decay shrinks what no plain one explains."""
        assert self.strong is not None
        unclear = [p for p in parameters if self._plain(p, _ANY) is None]
        shrunk = [kinds.shrunk_by(self._step(self.strong, p)) for p in unclear]
        return min((part for part in shrunk if part), default=1.0)

    def is_clear(self, p: Tensor) -> bool:
        """Whether no further run would tell more of a parameter."""
        found, group = self.without_reasons(p, _ANY), self.found.groups[id(p)]
        if self.strong is not None:
            return found.kind == "" or _is_explained(found.factor, group)
        is_still = id(p) not in self.found.gradients or rate_or_none(group) == 0
        return found.factor == 1 or found.note in (_ANOTHER, _ALL_ZERO) or is_still

    def _why_not_seen(self, p: Tensor) -> str:
        """Why a decay changes nothing here."""
        if id(p) not in self.found.gradients:
            return "never applied: no gradient came"
        if rate_or_none(self.found.groups[id(p)]) == 0:
            return "not in this step, whose lr is 0"
        if self.strong is not None and self._changed_by(self.strong, p):
            return "nothing is changed by so small a one in this step"
        return _beginning(self.found.optimizers[id(p)], p)

    def _changed_by(self, other: Seen, p: Tensor) -> bool:
        return not torch.equal(other.weights[id(p)], self.without.weights[id(p)])

    def _plain(self, p: Tensor, decay: Decay) -> Decay | None:
        """As an L2 in the gradient, or by shrinking the weights before the update."""
        coupled = self._is_like(self.coupled, p, CLOSE)
        decoupled = self._is_like(self.decoupled, p, CLOSE / 10)
        if coupled and decoupled:  # the gradient is all that there is of the update
            known = decay.kind in (kinds.COUPLED, kinds.DECOUPLED)
            return decay._replace(factor=1.0, kind=decay.kind if known else kinds.EITHER)
        if coupled or decoupled:
            kind = kinds.COUPLED if coupled else kinds.DECOUPLED
            return decay._replace(factor=1.0, kind=kind)
        return None

    def _is_like(self, other: Seen | None, p: Tensor, bound: float) -> bool:
        """Whether weights and state are those of another run, next to what the decay changed."""
        if other is None:
            return False
        runs = [each.moved(p) for each in (self.found, self.without, other)]
        if len({len(tensors) for tensors in runs}) > 1:
            return False
        return all(
            _distance(found, like) <= max(bound * change, min(_rounding(found), change / 10))
            for found, without, like in zip(*runs, strict=True)
            for change in [_distance(found, without)]
        )

    def _by_its_change(self, p: Tensor, decay: Decay) -> Decay:
        """Told by what a strong decay shrinks."""
        if self.strong is None or len(self.strong.moved(p)) != len(self.found.moved(p)):
            return decay._replace(note=kinds.OF_ITS_OWN)
        own, strong = self._step(self.found, p), self._step(self.strong, p)
        named = next((way for way in kinds.ways_of(strong) if _agrees(way, own, p)), None)
        if named is not None:
            if any(not torch.equal(a, b) for a, b in self._states(p)):
                return self._named(named, kinds.IN_UPDATE, p, decay)
            return self._named(named, named.kind, p, decay)
        if self._is_like(self.decoupled, p, CLOSE):
            return decay._replace(factor=1.0, kind=kinds.DECOUPLED)
        gradient = _vector(self.found.gradients[id(p)])
        if kinds.ratio_of(strong, gradient) is not None:
            times = kinds.ratio_of(own, gradient)
            factor = math.nan if times is None else times
            return decay._replace(kind=kinds.BY_RATIO, factor=factor, note="")
        return decay._replace(note=kinds.OF_ITS_OWN + kinds.spread_of(strong))

    def _states(self, p: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        yield from zip(self.found.moved(p)[1:], self.without.moved(p)[1:], strict=True)

    def _step(self, seen: Seen, p: Tensor, without: Seen | None = None) -> Shrunk:
        after = (without or self.without).weights[id(p)]
        group = seen.groups[id(p)]
        rate = rate_or_none(group)
        is_own = seen is self.found
        amount = group["weight_decay"] if is_own else self.strength * strong_decay(group)
        x = float(amount) * (1.0 if rate is None else rate)
        return Shrunk(_vector(p), _vector(after), _vector(seen.weights[id(p)]), x)

    def _named(self, named: Way, kind: str, p: Tensor, decay: Decay) -> Decay:
        """A way, in words, with what its factor is."""
        times, group = named.times, self.found.groups[id(p)]
        rate = rate_or_none(group)
        if rate is None:
            note = f"{times:.3g} of weight_decay·w: there is no lr"
            return decay._replace(kind=kind, note=note)
        if abs(times - 1) <= CLOSE:
            return decay._replace(kind=kind, factor=1.0)
        if abs(times * rate - 1) <= CLOSE:
            note = f"not multiplied by lr={rate:.3g}: {times:.4g} times as strong as AdamW's"
            return decay._replace(kind=f"{kind}, without lr", factor=times, note=note)
        note = _by_a_setting(times, group) or self._by_gradients(named, p)
        note = note or f"multiplied by {times:.3g} beside lr"
        return decay._replace(kind=kind, factor=times, note=note)

    def _by_gradients(self, named: Way, p: Tensor) -> str:
        """Whether the factor changes with the gradients."""
        if self.larger is None:
            return ""
        without, strong = self.larger
        ways = kinds.ways_of(self._step(strong, p, without))
        other = next((way for way in ways if way.kind == named.kind), named)
        if abs(other.times - named.times) <= CLOSE * named.times:
            return ""
        return (
            f"multiplied by {named.times:.3g}, and by {other.times:.3g} if the gradients are "
            f"{LARGER} times as large"
        )


def _agrees(named: Way, own: Shrunk, p: Tensor) -> bool:
    """Whether the decay as it is does what a strong one does, but for rounding."""
    missed = float((own.found - named.predicts(own)).abs().max())
    change = float((own.found - own.without).abs().max())
    return missed <= CLOSE * change + _rounding(p) * float(own.found.abs().max())


def _beginning(optimizer: Optimizer, p: Tensor) -> str:
    """When the decay of a new optimizer begins, for one that this step has not."""
    try:
        recipe = Recipe(optimizer, p)
        with_one, without = (
            run(recipe, {"lr": 1e-2, "weight_decay": amount}) for amount in (10.0, 0.0)
        )
    except NotTriedError:
        return "not applied in this step"
    pairs = zip(with_one, without, strict=True)
    first = next((i for i, (a, b) in enumerate(pairs) if not torch.equal(a, b)), None)
    if first is None:
        return "never applied"
    if first == 1:
        return "not applied in this step"
    kind = type(optimizer).__name__
    return f"not in this step: a new {kind} begins with step {first}"


def _is_explained(times: float, group: Mapping[str, Any]) -> bool:
    """Whether it is known what a factor is."""
    rate = rate_or_none(group) or math.nan
    is_known = math.isnan(times) or abs(times - 1) <= CLOSE or abs(times * rate - 1) <= CLOSE
    return is_known or bool(_by_a_setting(times, group))


def _by_a_setting(times: float, group: Mapping[str, Any]) -> str:
    """The number among an optimizer's settings that a factor is."""
    for name, value in group.items():
        is_number = isinstance(value, float) or (isinstance(value, Tensor) and value.ndim == 0)
        is_other = is_number and name not in ("lr", "weight_decay")
        if is_other and abs(float(value) - times) <= CLOSE * times:
            return f"multiplied by its {name}, {float(value):.3g}, beside lr"
    return ""


def _distance(one: Tensor, other: Tensor) -> float:
    """The largest difference, next to the size."""
    if one.shape != other.shape:
        return math.inf
    if not one.numel():
        return 0.0
    return float((one - other).abs().max()) / (float(one.abs().max()) or 1.0)


def _rounding(tensor: Tensor) -> float:
    return 4 * torch.finfo(tensor.dtype).eps


def _vector(tensor: Tensor) -> Tensor:
    local = getattr(tensor, "to_local", None)  # each rank looks at what it has
    return (tensor if local is None else local()).detach().cpu().double().reshape(-1)
