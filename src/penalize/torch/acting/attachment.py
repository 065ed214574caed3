"""An attached plan: hooks on optimizers that apply each penalty exactly once per step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet, finalize, ref

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from penalize.errors import OptimizerError, StateError
from penalize.regularizers.base import Regularizer
from penalize.torch import ledger
from penalize.torch.model.bindings import trainable
from penalize.torch.acting.checks import (
    check_can_act,
    check_weight_decay,
    claims_of,
    groups_of,
    share_out,
)
from penalize.torch.modes.modes import Group, Mode, Target
from penalize.torch.kernels.routes import Route, Routes
from penalize.torch.acting.state import check_same, state_of
from penalize.torch.acting.stepper import Stepper
from penalize.torch.modes.step_sizes import stepped_by

MARK = "penalize"
"""What is written into an optimizer's param groups while it has attachments. Its copies and
checkpoints carry the mark but no hooks, and so can be told from it."""

_by_optimizer: WeakKeyDictionary[Optimizer, WeakSet[Attachment]] = WeakKeyDictionary()


def attachments_of(optimizer: Optimizer) -> list[Attachment]:
    """Those to this optimizer."""
    return [attachment for attachment in _by_optimizer.get(optimizer, ()) if attachment.alive]


def attachments_around(optimizer: Optimizer) -> list[Attachment]:
    """Those to optimizers whose param groups it shares, as one that wraps another does."""
    mine = {id(group) for group in optimizer.param_groups}
    others = [o for o in list(_by_optimizer) if any(id(g) in mine for g in o.param_groups)]
    return [attachment for other in others for attachment in attachments_of(other)]


def lacks_attachments(optimizer: Optimizer) -> bool:
    """Whether its param groups tell of attachments that it does not have: it is a copy."""
    marked = any(MARK in group for group in optimizer.param_groups)
    return marked and not attachments_of(optimizer) and not attachments_around(optimizer)


class Source(Protocol):
    """The plan, as its attachment sees it."""

    def check_loss(self) -> None:
        """Raise if a loss applies it as well."""

    def check_newcomers(self, held: Collection[int]) -> None:
        """Warn of parameters with these ids that came to the model after it was planned."""

    def note_detached(self) -> None: ...

    def activity_state(self) -> dict[str, Any]:
        """What it penalizes beside weights, for the state."""

    def restore(self, regularizers: Mapping[str, Regularizer], steps: int) -> None:
        """Take what was saved, in its attachments too."""


class Attachment:
    """What ``plan.attach`` returns. Lives as long as the optimizer; :meth:`detach` ends it.

    It refers to its optimizers weakly, so that dropping an optimizer drops its attachment.
    """

    def __init__(
        self,
        plan: Source,
        targets: Sequence[Target],
        optimizers: Sequence[Optimizer],
        new_mode: Callable[[], Mode],
        place: str,
    ) -> None:
        """Check everything, then attach. See ``Plan.attach``; raises what that documents."""
        modes = [new_mode() for _ in optimizers]
        self._plan = plan
        self._targets = tuple(targets)
        self._modes = modes
        self._mode = modes[0]
        self._place = place
        self._optimizers = [ref(optimizer) for optimizer in optimizers]
        self._kind = " and ".join(type(optimizer).__name__ for optimizer in optimizers)
        self._sizes = WeakKeyDictionary({o: len(groups_of(o)) for o in optimizers})
        self._hooks: list[RemovableHandle] = []
        self.muted = False
        """Whether it lets steps pass, while an audit looks at them without the penalty."""

        self.acts = 0
        """How often it has acted."""

        self._steppers: list[Stepper] = []

        shares = share_out(targets, optimizers)
        for mode, optimizer, share in zip(modes, optimizers, shares, strict=True):
            _check(mode, optimizer, share)
        self.claims = claims_of(targets)
        """What it applies, for the ledger."""

        ledger.check_free(self.claims, str(self), "Call detach() on the first one")

        for mode, optimizer, share in zip(modes, optimizers, shares, strict=True):
            self._hook(mode, optimizer, share)
        ledger.enter(self)
        for optimizer in optimizers:
            for known in {optimizer, stepped_by(optimizer)}:
                _by_optimizer.setdefault(known, WeakSet()).add(self)
            _mark(optimizer)
        plan.check_newcomers({key for optimizer in optimizers for key in groups_of(optimizer)})

    def _hook(self, mode: Mode, optimizer: Optimizer, share: Sequence[Target]) -> None:
        stepper = Stepper(self, share, mode)
        # A compiled step runs its hooks as they are. (As decorators these would load the compiler
        # with the module, which takes seconds.)
        before = torch.compiler.disable(stepper.before)  # type: ignore[no-untyped-call]
        after = torch.compiler.disable(stepper.after)  # type: ignore[no-untyped-call]
        self._hooks.append(optimizer.register_step_pre_hook(before))
        self._hooks.append(optimizer.register_step_post_hook(after))
        listeners = mode.listen(share, optimizer, stepper.active)
        # They hang on parameters, which may outlive the optimizer.
        finalize(optimizer, _remove, listeners).atexit = False
        self._hooks.extend(listeners)
        self._steppers.append(stepper)

    @property
    def mode(self) -> str:
        """``"gradient"``, ``"decoupled"`` or ``"proximal"``."""
        return self._mode.name

    @property
    def adds_at_backward(self) -> bool:
        """Whether the penalty is in ``.grad`` when a backward pass is over."""
        return self._mode.clip == "with"

    def param_groups(self) -> dict[int, Group]:
        """The param group of each parameter of its optimizers, by the parameter's id."""
        held = [optimizer() for optimizer in self._optimizers]
        return {k: g for o in held if o is not None for k, g in groups_of(o).items()}

    @property
    def alive(self) -> bool:
        """Whether it still acts: not detached, and an optimizer of it exists."""
        return bool(self._hooks) and any(optimizer() is not None for optimizer in self._optimizers)

    def detach(self) -> None:
        """Stop acting. The weights and the optimizer's state stay as they are."""
        _remove(self._hooks)
        self._hooks.clear()
        for held in self._optimizers:
            optimizer = held()
            if optimizer is not None:
                _mark(optimizer)
        self._plan.note_detached()

    def explain(self) -> Routes:
        """How the penalty of each parameter was computed in the last step: prints as a table.

        ``path`` is one of those in :mod:`penalize.torch.kernels`, or ``"autograd"`` for a weight
        that is computed from other parameters. ``why`` says what kept a weight from a fast path.
        """
        taken = {name: how for mode in self._modes for name, how in mode.router.taken.items()}
        autograd = ("autograd", "it is computed from other parameters")
        return Routes(
            Route(
                t.name,
                t.regularizer,
                *(autograd if t.binding.effective else taken.get(t.name, ("", ""))),
            )
            for t in self._targets
        )

    @property
    def penalty(self) -> Tensor | None:
        """Σ Ω(w) of the last step, of the weights before it: a scalar in float64, for logging.

        None before the first step, and where ``attach`` was not told ``values=True``. It stays on
        the device: ``float(attachment.penalty)`` waits for it.
        """
        values = [mode.value for mode in self._modes if mode.value is not None]
        return (
            torch.stack([value.to(values[0].device) for value in values]).sum() if values else None
        )

    @property
    def is_stepping(self) -> bool:
        """Whether an optimizer of it is in the middle of a step."""
        return any(stepper.is_running for stepper in self._steppers)

    def guard(self, optimizer: Optimizer, held: Mapping[int, Group]) -> None:
        """What is looked at before each step."""
        self._plan.check_loss()
        if len(held) != self._sizes.get(optimizer):
            self._sizes[optimizer] = len(held)
            self._plan.check_newcomers(held)
        _mark(optimizer)  # load_state_dict replaces the param groups

    # --- resuming ---------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What is applied, and how, as plain data; it loads under ``weights_only=True``.

        It has the number of steps, which schedules follow, and the values at the start that
        parameters are drawn toward; and it is checked when training goes on: that the same
        penalties are applied in the same way as before.
        """
        how = {"mode": self._mode.name, "clip": self._mode.clip, "steps": self.steps}
        return state_of(self._targets, **how, **self._plan.activity_state())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Check that what was saved is what is attached here, and go on from there.

        Taken from it are the number of steps and the values at the start. Nothing is, if it raises.

        Raises:
            StateError: it was not saved by an attachment, or by one with other parameters,
                regularizers or another mode; the message names every difference.
        """
        found = check_same(state, self.state_dict())
        steps = state["steps"]
        counts = isinstance(steps, list) and all(isinstance(number, int) for number in steps)
        if not counts or len(steps) != len(self._steppers):
            raise StateError(
                f"it has the steps {steps!r}, and there are {len(self._steppers)} optimizers here"
            )
        self.steps = steps
        self._plan.restore(found, max(steps))

    @property
    def steps(self) -> list[int]:
        """How many steps each of its optimizers has taken with it: what schedules follow."""
        return [stepper.steps for stepper in self._steppers]

    @steps.setter
    def steps(self, steps: Sequence[int]) -> None:
        for stepper, number in zip(self._steppers, steps, strict=True):
            stepper.steps = number

    def adopt(self, regularizers: Mapping[str, Regularizer]) -> None:
        """Take other regularizers for parameters of these names, as a saved state has them."""
        self._targets = tuple(
            replace(t, regularizer=regularizers.get(t.name, t.regularizer)) for t in self._targets
        )
        self.claims = claims_of(self._targets)
        for stepper in self._steppers:
            stepper.adopt(regularizers)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise OptimizerError(
            "an attachment was copied or pickled, and it consists of hooks on an optimizer",
            "save attachment.state_dict(), and attach a plan of the copied model to its optimizer",
        )

    def __str__(self) -> str:
        return f"the attachment to {self._kind} in mode {self.mode!r} ({self._place})"

    def __repr__(self) -> str:
        state = "" if self.alive else ", detached"
        return f"<Attachment: {self._kind}, mode={self.mode!r}{state}>"


def _check(mode: Mode, optimizer: Optimizer, share: Sequence[Target]) -> None:
    check_can_act(optimizer)
    groups = groups_of(optimizer)
    active = [target for target in share if trainable(target.binding)]
    check_weight_decay(active, optimizer, groups)
    for target in share:
        mode.check(target, optimizer)
    mode.advise([target.at(0) for target in active], groups, optimizer)


def _mark(optimizer: Optimizer) -> None:
    is_attached = bool(attachments_of(optimizer))
    for group in optimizer.param_groups:
        if is_attached:
            group[MARK] = True
        else:
            group.pop(MARK, None)


def _remove(hooks: Iterable[RemovableHandle]) -> None:
    for hook in hooks:
        hook.remove()
