"""An attached plan: hooks on optimizers that apply each penalty exactly once per step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol
from weakref import finalize, ref

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from penalize.errors import StateError
from penalize.regularizers.base import Regularizer
from penalize.torch import doors
from penalize.torch.acting.checks import check_can_act, share_out
from penalize.torch.acting.copied import CopiedAttachment
from penalize.torch.acting.state import check_averages, check_same, state_of
from penalize.torch.acting.stepper import Source, Stepper
from penalize.torch.claims import check_free, claims_of
from penalize.torch.clock import Group, groups_of, listen
from penalize.torch.kernels.routes import Route, Routes
from penalize.torch.model.bindings import trainable
from penalize.torch.model.targets import Target, joined_in
from penalize.torch.modes.base import Effect, Mode, Replayed
from penalize.torch.modes.memories import Memories, check_saved


class AttachedPlan(Source, Protocol):
    """The plan, as its attachment sees it."""

    def check_newcomers(self, stepped: Collection[int]) -> None:
        """Warn of parameters with these ids that came to the model after it was planned."""

    def activity_state(self) -> dict[str, Any]:
        """What it penalizes beside weights, for the state."""

    def restore(self, regularizers: Mapping[str, Regularizer], steps: int) -> None:
        """Take what was saved."""


class Attachment:
    """What ``plan.attach`` returns. Lives as long as the optimizer; :meth:`detach` ends it.

    It refers to its optimizers weakly, so that dropping an optimizer drops its attachment. A copy
    of it, as in a copied or pickled object that holds one, is dead: it has the state alone.
    """

    def __init__(
        self,
        plan: AttachedPlan,
        optimizers: Sequence[Optimizer],
        new_mode: Callable[[], Mode],
        place: str,
    ) -> None:
        """Check everything, then attach. See ``Plan.attach``; raises what that documents."""
        modes = [new_mode() for _ in optimizers]
        self._plan = plan
        self._place = place
        self._optimizers = [ref(optimizer) for optimizer in optimizers]
        self._kind = " and ".join(type(optimizer).__name__ for optimizer in optimizers)
        self._mode = modes[0]
        self._steppers: list[Stepper] = []
        self._hooks: list[RemovableHandle] = []

        shares = share_out(plan.all_targets, optimizers)
        for mode, optimizer, share in zip(modes, optimizers, shares, strict=True):
            _check(mode, optimizer, share)
        modes[0].check_all(plan.all_targets)
        check_free(self.claims, str(self), "Call detach() on the first one")

        for mode, optimizer, share in zip(modes, optimizers, shares, strict=True):
            self._hook(mode, optimizer, share)
        doors.enter(self)
        plan.check_newcomers({key for optimizer in optimizers for key in groups_of(optimizer)})

    def _hook(self, mode: Mode, optimizer: Optimizer, share: Sequence[Target]) -> None:
        active = (target.name for target in share if trainable(target.binding))
        stepper = Stepper(self._plan, (target.name for target in share), active, mode)
        # The optimizer keeps its hooks, and by them the attachment and its claims, alive.
        self._hooks += listen(optimizer, stepper, kept=self)
        listeners = mode.listen(share, optimizer, stepper)
        # They hang on parameters, which may outlive the optimizer.
        finalize(optimizer, _remove, listeners).atexit = False
        self._hooks += listeners
        self._steppers.append(stepper)

    @property
    def claims(self) -> list[doors.Claim]:
        """What it applies, for the book of doors."""
        return claims_of(self._plan.all_targets)

    @property
    def mode(self) -> str:
        """``"gradient"``, ``"decoupled"``, ``"proximal"`` or ``"halfspace"``."""
        return self._mode.name

    @property
    def adds_at_backward(self) -> bool:
        """Whether the penalty is in ``.grad`` when a backward pass is over."""
        return self._mode.clip == "with"

    @property
    def optimizers(self) -> list[Optimizer]:
        """What it is attached to, as far as that is alive."""
        return [held for optimizer in self._optimizers if (held := optimizer()) is not None]

    def effect(self, target: Target, run: Replayed) -> Effect:
        """What one application of its mode changes in a step: what an audit compares with."""
        return self._mode.effect(target, run)

    def param_groups(self) -> dict[int, Group]:
        """The param group of each parameter of its optimizers, by the parameter's id."""
        return {key: group for o in self.optimizers for key, group in groups_of(o).items()}

    @property
    def alive(self) -> bool:
        """Whether it still acts: not detached, and an optimizer of it exists."""
        return bool(self._hooks) and bool(self.optimizers)

    def detach(self) -> None:
        """Stop acting. The weights and the optimizer's state stay as they are."""
        for stepper in self._steppers:
            stepper.detached = True
        _remove(self._hooks)
        self._hooks.clear()
        doors.leave(self)
        self._plan.applied.detached = True

    def explain(self) -> Routes:
        """How the penalty of each parameter was computed in the last step: prints as a table.

        ``path`` is one of those in :mod:`penalize.torch.kernels`, or ``"autograd"`` for a weight
        that is computed from other parameters. ``why`` says what kept a weight from a fast path.

        Of a mode that keeps an average, ``left`` is the share of the zeros that were left in the
        last 1/(1 − average) steps, over 1 where they are left again and again: where it is not
        small, raise ``average``. It waits for the device, and of a sharded weight it is that of
        this rank's shard.
        """
        taken = {name: how for s in self._steppers for name, how in s.mode.router.taken.items()}
        joined = {n: how for s in self._steppers for n, how in s.mode.joined_router.taken.items()}
        others = {
            False: ("autograd", "it is computed from other parameters"),
            True: ("plain", "its groups span parameters, which are copied into one matrix"),
        }
        left = {name: share for each in self._memories for name, share in each.left().items()}
        return Routes(
            Route(
                t.name,
                t.regularizer,
                *(
                    joined.get(t.name, others[joined_in(t) is not None])
                    if t.binding.effective
                    else taken.get(t.name, ("", ""))
                ),
                left.get(t.name),
            )
            for t in self._plan.all_targets
        )

    @property
    def penalty(self) -> Tensor | None:
        """Σ Ω(w) of the last step, of the weights before it: a scalar in float64, for logging.

        None before the first step, and where ``attach`` was not told ``values=True``. It stays on
        the device: ``float(attachment.penalty)`` waits for it.
        """
        values = [s.mode.value for s in self._steppers if s.mode.value is not None]
        return (
            torch.stack([value.to(values[0].device) for value in values]).sum() if values else None
        )

    # --- resuming ---------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What is applied, and how, as plain data; it loads under ``weights_only=True``.

        It has the number of steps, which schedules follow, the values at the start that parameters
        are drawn toward, and the averages of a mode that keeps some; and it is checked when
        training goes on: that the same penalties are applied in the same way as before.
        """
        how: dict[str, Any] = {
            "mode": self._mode.name,
            "clip": self._mode.clip,
            "steps": self.steps,
        }
        if self._memories:
            how["average"] = self._memories[0].average
            how["averages"] = [each.state(self._plan.all_targets) for each in self._memories]
        return state_of(self._plan.all_targets, **how, **self._plan.activity_state())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Check that what was saved is what is attached here, and go on from there.

        Taken from it are the number of steps, the values at the start and the averages. Nothing is,
        if it raises.

        Raises:
            StateError: it was not saved by an attachment, or by one with other parameters,
                regularizers or another mode; the message names every difference.
        """
        found = check_same(state, self.state_dict())
        averages = check_averages(state.get("averages", []), len(self._memories))
        for stepper, saved in zip(self._steppers, averages, strict=False):  # there may be none
            check_saved(saved, stepper.targets)
        steps = state["steps"]
        if len(steps) != len(self._steppers):
            raise StateError(
                f"it has the steps {steps!r}, and there are {len(self._steppers)} optimizers here"
            )
        for memories, saved, stepper in zip(self._memories, averages, self._steppers, strict=False):
            memories.load(saved, stepper.targets)
        self.steps = steps
        self._plan.restore(found, max(steps))

    @property
    def steps(self) -> list[int]:
        """How many steps each of its optimizers has taken with it: what schedules follow."""
        return [stepper.count.steps for stepper in self._steppers]

    @steps.setter
    def steps(self, steps: Sequence[int]) -> None:
        for stepper, number in zip(self._steppers, steps, strict=True):
            stepper.count.steps = number

    @property
    def _memories(self) -> list[Memories]:
        return [s.mode.memories for s in self._steppers if s.mode.memories is not None]

    def pending(self) -> list[Any]:
        """What it knows of the steps before, and of gradients that wait for one, to be put back."""
        return [stepper.mode.pending() for stepper in self._steppers]

    def forget_step(self, pending: Sequence[Any]) -> None:
        """Answer for no step that raised: what it did has been put back, and the same waits."""
        for stepper, waits in zip(self._steppers, pending, strict=True):
            stepper.forget_step()
            stepper.mode.wait_for(waits)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # It consists of hooks on an optimizer, and a copy of that one has none.
        return CopiedAttachment, (self._kind, self.mode, self._place, self.state_dict())

    def __str__(self) -> str:
        return f"the attachment to {self._kind} in mode {self.mode!r} ({self._place})"

    def __repr__(self) -> str:
        state = "" if self.alive else ", detached"
        return f"<Attachment: {self._kind}, mode={self.mode!r}{state}>"


def _check(mode: Mode, optimizer: Optimizer, share: Sequence[Target]) -> None:
    check_can_act(optimizer)
    groups = groups_of(optimizer)
    active = [target for target in share if trainable(target.binding)]
    doors.check_weight_decay(active, optimizer, groups)
    for target in share:
        mode.check(target, optimizer)
    mode.advise([target.at(0) for target in active], groups, optimizer)


def _remove(hooks: Iterable[RemovableHandle]) -> None:
    for hook in hooks:
        hook.remove()
