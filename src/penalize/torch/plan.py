"""The plan of a PyTorch model, and its two doors: loss term and attachment."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet, ref

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from penalize.callsite import callsite
from penalize.errors import (
    AppliedTwiceError,
    ModelError,
    NeverAppliedWarning,
    OptimizerError,
    StateError,
    some,
)
from penalize.parameters import Parameter
from penalize.plan import LivePlan, Row, row_of
from penalize.probes import Probed
from penalize.regularizers.base import Regularizer, described
from penalize.rules import Decision
from penalize.torch import ledger
from penalize.torch.outputs.activities import Activities
from penalize.torch.acting.attachment import Attachment, attachments_around, attachments_of
from penalize.torch.acting.balance import Balance, weighed
from penalize.torch.model.bindings import Binding, trainable
from penalize.torch.acting.checks import claims_of
from penalize.torch.modes.at_backward import mode_of
from penalize.torch.modes.modes import Target
from penalize.torch.outputs.rules import Activity
from penalize.torch.model.parameters import read
from penalize.torch.acting.state import check_same, state_of


class Entry(NamedTuple):
    """One parameter: its record, what was decided, and how to reach it."""

    parameter: Parameter
    decision: Decision
    binding: Binding
    regularizer: Regularizer | None
    """The decided one, with the words of its groups resolved to axes."""


plans: WeakSet[Plan] = WeakSet()
"""Those that are alive: made here, copied or unpickled."""


class Plan(Probed, LivePlan):
    """Rules resolved against a PyTorch model. Made by :func:`penalize.torch.regularize`.

    The rules are fixed; the weights are read through the model's modules each time, so a plan
    follows freezing, moving and replaced parameters.
    """

    def __init__(
        self, entries: Sequence[Entry], model: nn.Module, activities: Activities | None = None
    ) -> None:
        self.model = model
        """What was planned, for an audit of it."""

        self._entries = tuple(entries)
        self._targets = tuple(
            Target(e.parameter.name, e.binding, e.regularizer)
            for e in entries
            if e.regularizer is not None
        )
        self._activities = Activities() if activities is None else activities
        self._steps_before = 0
        self._begin()

    def _begin(self) -> None:
        self._attachments: list[ref[Attachment]] = []
        self.in_gradients: set[str] = set()
        """What a loss has penalized since it was last stepped."""

        self.applied_by_loss = False
        self.was_attached = False
        self.detached = False
        self.warned = False
        self._in_compiled_loss = False
        self._counts: WeakKeyDictionary[Optimizer, int] = WeakKeyDictionary()
        # The number of steps for compiled functions: to them an integer would be a constant.
        scheduled = self._activities.scheduled or any(
            target.regularizer.scheduled for target in self._targets
        )
        self._count = (
            torch.full((), self._steps_before, dtype=torch.int64, device="cpu")
            if scheduled
            else None
        )
        self._activities = self._activities.adopted_by(self, self._count)
        plans.add(self)

    # A copy is the plan of the copied model; what acts on the original does not act on it.

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: getattr(self, name) for name in _KEPT}
        return {**kept, "_steps_before": self.steps}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    @property
    def rows(self) -> tuple[Row, ...]:
        """One row per parameter, in the model's order; the rows tell what is frozen now."""
        return tuple(
            row_of(e.parameter, e.decision, e.binding.shape(), trainable(e.binding))
            for e in self._entries
        )

    def targets(self) -> list[Target]:
        """What is penalized now: frozen parameters are left out."""
        return [target for target in self._targets if trainable(target.binding)]

    def scaled(self, factor: float) -> Plan:
        """A plan of the same model with every strength multiplied by a number.

        It is to be applied in place of this one, which no longer warns that it is not.

        Raises:
            StrengthError: the factor, or a strength times it, is not a finite number ≥ 0.
            ModelError: the plan penalizes outputs, whose hooks belong to one plan.
        """
        if self.activities:
            raise ModelError(
                "the plan penalizes outputs of modules, and their hooks belong to it alone",
                "make a plan without activities",
            )
        entries = [_scaled(entry, factor) for entry in self._entries]
        self.note_detached()
        return Plan(entries, self.model)

    # --- over time --------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """How many steps an optimizer has taken with its parameters: what schedules follow.

        Of several optimizers, it is the number of the one with the most.
        """
        return self._steps_before + max(self._counts.values(), default=0)

    def count_step(self, optimizer: Optimizer) -> None:
        """An optimizer has stepped parameters of this plan."""
        self._counts[optimizer] = self._counts.get(optimizer, 0) + 1
        self._show_count()

    def _show_count(self) -> None:
        if self._count is not None:
            self._count.fill_(self.steps)

    def settle(self, optimizer: Optimizer) -> None:
        """An optimizer has stepped; the terms of outputs are of one step only."""
        problems = [self._activities.settle()]
        if not self.warned:
            problems.append(self._activities.look())
        for problem in filter(None, problems):
            if not self.warned:
                warnings.warn(
                    f"{type(optimizer).__name__} has stepped the plan's parameters, but {problem}",
                    NeverAppliedWarning,
                    stacklevel=4,
                )
        self.warned = self.warned or any(problems)

    def trains(self, groups: Mapping[int, Any]) -> bool:
        """Whether a step with these groups moves a model whose outputs are penalized."""
        held = (p for entry in self._entries for p in _parameters(entry.binding))
        return bool(self.activities) and any(id(p) in groups and p.grad is not None for p in held)

    def _now(self) -> list[Target]:
        """The targets, their strengths as they are in this step."""
        step: Any = self._count if torch.compiler.is_compiling() else self.steps
        return [target.at(step) for target in self.targets()]

    def state_dict(self) -> dict[str, Any]:
        """What is penalized, how many steps there were, and the values at the start: plain data.

        For a plan whose ``penalty()`` stands in the loss; the state of an attachment has it all.
        """
        return state_of(self._targets, steps=self.steps, **self.activity_state())

    def activity_state(self) -> dict[str, Any]:
        """The penalties on outputs as plain data, for a state; nothing where there are none."""
        found = {row.name: described(row.regularizer) for row in self.activities}
        return {"activities": found} if found else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Check that what was saved is what is planned here, and go on from there.

        Taken from it are the number of steps and the values at the start, that parameters are drawn
        toward. Nothing is, if it raises.

        Raises:
            StateError: it was not saved by a plan, or by one with other parameters or regularizers;
                the message names every difference.
        """
        found = check_same(state, self.state_dict())
        if not isinstance(state["steps"], int):
            raise StateError(f"it has the steps {state['steps']!r}, which is no number of them")
        self.restore(found, state["steps"])

    def restore(self, regularizers: Mapping[str, Regularizer], steps: int) -> None:
        """Take what was saved, in the attachments too."""
        self._counts.clear()
        self._steps_before = steps
        self._show_count()

        def new(name: str, old: Any) -> Any:
            return regularizers.get(name, old)

        self._entries = tuple(
            e._replace(regularizer=new(e.parameter.name, e.regularizer)) for e in self._entries
        )
        self._targets = tuple(
            replace(t, regularizer=new(t.name, t.regularizer)) for t in self._targets
        )
        for attachment in self.attachments():
            attachment.adopt(regularizers)

    # --- the loss term ----------------------------------------------------------------------

    def penalty(self) -> Tensor:
        """Σ Ω(w): a scalar to be added to the loss, in float32 or wider.

        Of a plan with activities, the terms of :meth:`activity_penalty` are in it.

        Works inside ``torch.compile(fullgraph=True)``. Beside an attachment it may be called to be
        looked at; differentiating it there raises :class:`AppliedTwiceError`. With K accumulated
        micro-batches add it once, or a K-th of it each time.

        Raises:
            ModelError: a penalized parameter is lazy and has no values yet.
        """
        weights, outputs = self._weight_penalty(), self._activities.total()
        if outputs is None:
            return weights
        return outputs.to(weights.device) + weights

    def _weight_penalty(self) -> Tensor:
        total: Tensor | None = None
        for target in self._now():
            w = target.binding.read()
            value = target.regularizer(w)
            if not target.regularizer.differentiable:
                value = value + 0.0 * w.reshape(-1)[:1].sum()  # so that a gradient comes by
            value = self.seen(target.name, value)
            total = value if total is None else total + value.to(total.device)
        if total is None:
            return self._nothing()
        if total.requires_grad:
            if torch.compiler.is_compiling():
                self._check_gradients()
                # No hook can stand in a compiled graph: a penalty with a gradient counts as used.
                self.applied_by_loss = self._in_compiled_loss = True
                self.in_gradients = {target.name for target in self._targets}
            else:
                total.register_hook(self._differentiated)  # type: ignore[no-untyped-call]
        return total

    def _nothing(self) -> Tensor:
        return torch.zeros((), device=self._entries[0].binding.parameters()[0].device)

    def _check_gradients(self) -> None:
        for target in self.targets():
            target.regularizer.check_gradient(repr(target.name))

    def _differentiated(self, gradient: Tensor) -> None:
        self._check_gradients()
        self.applied_by_loss = True
        self.in_gradients = {target.name for target in self.targets()}
        ledger.check_free(claims_of(self.targets()), "plan.penalty() in the loss", self._way_out())

    def _way_out(self) -> str:
        return _OUTPUTS_ALONE if self.activities else _ONE_DOOR

    def check_loss(self) -> None:
        """Raise :class:`AppliedTwiceError` if a compiled loss has what is attached, of any plan."""
        for plan in list(plans):
            if plan._in_compiled_loss:
                plan._in_compiled_loss = False
                ledger.check_free(
                    claims_of(plan.targets()),
                    "plan.penalty() in a compiled function, with gradients enabled",
                    f"{plan._way_out()}; to look at it there, call it under torch.no_grad()",
                )

    def breakdown(self) -> dict[str, float]:
        """The penalty of each penalized parameter by name, for logging. Synchronises the device."""
        with torch.no_grad():
            return {
                target.name: float(target.regularizer(target.binding.read()))
                for target in self._now()
                if _has_values(target.binding)
            }

    def balance(self, *, steps: int = 1, learning_rate: float | None = None) -> Balance:
        """How each penalty compares with the data now: too weak to matter, or drowning it?

        To be called between ``loss.backward()`` and ``optimizer.step()``. Each penalized parameter
        has the norms of the data's gradient and of ∇Ω(w), their ratio, and the part of its length
        that the penalty alone would take away in an epoch, 1 − (1 − lr·⟨w, ∇Ω(w)⟩/‖w‖²)^steps: what
        plain gradient descent, decoupled and proximal steps do; an adaptive optimizer in mode
        ``"gradient"`` scales it. Ratios under 1e-6 or over 10 are warned of, in a second table.

        A penalty in the loss, once and with factor 1, is taken out of the gradient again. After a
        GradScaler's ``backward`` call ``scaler.unscale_`` first. It waits for the device.

        Args:
            steps: how many steps an epoch has.
            learning_rate: that of the steps; None: of the optimizers that the plan is attached to.

        Raises:
            OptimizerError: there are no gradients, or the step is over.
        """
        attachments = self.attachments()
        inside = set(self.in_gradients)
        groups: dict[int, Any] = {}
        for attachment in attachments:
            groups |= attachment.param_groups()
            if attachment.adds_at_backward:
                inside |= {target.name for target in self.targets()}
        return weighed(self._now(), groups, inside, learning_rate, steps)

    # --- the outputs of modules -------------------------------------------------------------

    @property
    def activities(self) -> tuple[Activity, ...]:
        """The modules whose outputs are penalized, each with name, regularizer, declared_at."""
        return self._activities.rows

    def activity_penalty(self) -> Tensor:
        """Σ Ω(output)/batch over the forwards that no loss has used yet: a scalar for the loss.

        It belongs beside ``plan.attach(optimizer)``; :meth:`penalty` has it in it. Each forward of
        a module counts once. Reading uses nothing up: a term waits until a gradient has come back
        through it, a backward pass has freed its graph, or an optimizer steps the model; one that
        was in no loss by then is warned of. Read in a compiled function, with gradients enabled,
        it counts as used when the next forward begins.
        """
        outputs = self._activities.total()
        return self._nothing() if outputs is None else outputs

    def activity_breakdown(self) -> dict[str, float]:
        """The penalty of the last forward of each module that had one, by name, for logging."""
        return self._activities.breakdown()

    def remove_activities(self) -> None:
        """End the penalties on outputs: the hooks go, and what waits for a loss."""
        self._activities.remove()

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}\n\n{self._activities}" if self.activities else text

    # --- the attachment ---------------------------------------------------------------------

    def attach(
        self,
        optimizer: Optimizer | Sequence[Optimizer],
        mode: str = "gradient",
        *,
        clip: str = "without",
        scaler: GradScaler | None = None,
        values: bool = False,
    ) -> Attachment:
        """Apply the plan in each step of the optimizer; nothing else changes in the loop.

        ==============  ============================================================
        mode            in each step
        ==============  ============================================================
        ``"gradient"``   ``.grad`` += ∇Ω(w) before the update, which is what the loss
                        term would give; after any clipping in the loop
        ``"decoupled"``  w ← w − lr·∇Ω(w) before the update, as AdamW decays weights
        ``"proximal"``   w ← prox of step·Ω at w after the update, with the step that
                        the optimizer really took; exact zeros
        ==============  ============================================================

        The penalty does not depend on the data: every trainable parameter of the plan is penalized
        in every step, also one whose ``.grad`` is None. Frozen parameters are left alone and
        followed when they are unfrozen.

        Args:
            optimizer: the optimizer, or several that share the model's parameters out.
            mode: how the plan acts.
            clip: with ``"without"``, what your loop clips between ``backward()`` and ``step()`` is
                the data's gradient alone. ``"with"`` has the penalty's gradient in it, as a loss
                term has: it is added at the end of the first ``backward()`` of each step. Only for
                ``"gradient"``; the other modes do not act through the gradient.
            scaler: the ``GradScaler`` of the loop. Only ``clip="with"`` has to know it.
            values: whether ``attachment.penalty`` is to have Σ Ω(w) of each step. It is computed
                with the gradient, while the weights are in the cache; not for ``"proximal"``.

        Raises:
            ModeError: there is no such mode, or it cannot act on a parameter or optimizer.
            OptimizerError: the optimizer lacks parameters that the plan penalizes, or is in the
                middle of a step.
            AppliedTwiceError: a penalty is attached already, or an L2 meets ``weight_decay``.
            NoProximalOperatorError: a regularizer has no exact prox under this optimizer.

        Nothing is attached if it raises.
        """
        new_mode = mode_of(mode, clip, scaler, values)
        optimizers = [optimizer] if isinstance(optimizer, Optimizer) else optimizer
        if not (
            isinstance(optimizers, Sequence)
            and optimizers
            and all(isinstance(o, Optimizer) for o in optimizers)
        ):
            raise OptimizerError(
                f"attach got {type(optimizer).__name__}",
                "pass a torch.optim.Optimizer, or a list of them",
            )
        self._in_compiled_loss = False
        self._check_no_loss_pending()
        attachment = Attachment(self, self._targets, optimizers, new_mode, callsite())
        self._attachments = [a for a in self._attachments if a() is not None] + [ref(attachment)]
        self.was_attached = True
        return attachment

    def attachments(self) -> list[Attachment]:
        """Those that act now."""
        held = [attachment() for attachment in self._attachments]
        return [attachment for attachment in held if attachment is not None and attachment.alive]

    def penalized(self) -> list[tuple[str, None]]:
        """What is penalized now, by name."""
        return [(target.name, None) for target in self.targets()]

    @contextmanager
    def at_strength(self, strength: float) -> Iterator[None]:
        """Within the block, penalties are multiplied by a number; attachments act unless it is 0.

        It is for an audit, and leaves no trace of having been applied.
        """
        before = self.in_gradients, self.applied_by_loss, self.warned
        self.warned = True
        attachments = self.attachments()
        for attachment in attachments:
            attachment.muted = strength == 0
        try:
            with self.probed(lambda _, penalty: strength * penalty):
                yield
        finally:
            self.in_gradients, self.applied_by_loss, self.warned = before
            for attachment in attachments:
                attachment.muted = False

    @contextmanager
    def counts_kept(self) -> Iterator[None]:
        """Steps within the block are not counted once it is over."""
        counts = dict(self._counts)
        steps = [(attachment, attachment.steps) for attachment in self.attachments()]
        try:
            yield
        finally:
            self._counts = WeakKeyDictionary(counts)
            self._show_count()
            for attachment, counted in steps:
                attachment.steps = counted

    def acts_on(self, optimizer: Optimizer) -> bool:
        """Whether an attachment of this plan acts in the steps of this optimizer."""
        mine = self.attachments()
        return any(a in mine for a in (*attachments_of(optimizer), *attachments_around(optimizer)))

    def note_detached(self) -> None:
        """An attachment was detached: that the plan acts nowhere is on purpose."""
        self.detached = True

    def check_newcomers(self, held: Collection[int]) -> None:
        """Warn of parameters, by id, that came to the model after it was planned."""
        known = {id(p) for entry in self._entries for p in _parameters(entry.binding)}
        if known.issuperset(held):
            return
        bindings = {entry.binding for entry in self._entries}
        new = [
            parameter.name
            for parameter, binding in read(self.model)
            if binding not in bindings and any(id(p) in held for p in binding.parameters())
        ]
        if new:
            warnings.warn(
                f"{some(new)} came to the {type(self.model).__name__} after it was planned, so no "
                "rule reaches what the optimizer steps there. detach(), regularize the model as it "
                "is now, and attach again.",
                NeverAppliedWarning,
                stacklevel=4,
            )

    def _check_no_loss_pending(self) -> None:
        pending = [
            target.name
            for target in self.targets()
            if target.name in self.in_gradients
            and any(p.grad is not None for p in target.binding.parameters())
        ]
        if pending:
            raise AppliedTwiceError(
                pending,
                "plan.penalty() in a loss whose gradients are waiting for a step",
                "the attachment",
                "Call optimizer.step() or zero_grad() before attach()",
            )


def _scaled(entry: Entry, factor: float) -> Entry:
    decided, regularizer = entry.decision.regularizer, entry.regularizer
    if decided is None or regularizer is None:
        return entry
    decision = replace(entry.decision, regularizer=factor * decided)
    return entry._replace(decision=decision, regularizer=factor * regularizer)


_KEPT = ("model", "_entries", "_targets", "_activities")
"""What a copy of a plan has from it."""

_ONE_DOOR = "Take plan.penalty() out of the loss, or detach() the attachment"
_OUTPUTS_ALONE = (
    "Write plan.activity_penalty() in the loss in place of plan.penalty(), or detach() the "
    "attachment"
)


def _parameters(binding: Binding) -> tuple[nn.Parameter, ...]:
    """Those behind a weight; none if the model no longer has it."""
    try:
        return binding.parameters()
    except ModelError:
        return ()


def _has_values(binding: Binding) -> bool:
    """Meta and lazy parameters have no values to show."""
    return binding.shape() is not None and not any(p.is_meta for p in binding.parameters())
