"""The plan of a PyTorch model, and its two doors: loss term and attachment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import ref

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from penalize.callsite import callsite
from penalize.errors import AppliedTwiceError
from penalize.probes import Probed
from penalize.torch.claims import check_free, claims_of
from penalize.torch.model.targets import Target, doubled
from penalize.torch.planned import PlannedModel

if TYPE_CHECKING:  # the half of this wing that a penalty in the loss never needs
    from penalize.torch.acting.attachment import Attachment
    from penalize.torch.acting.balance import Balance


class Plan(Probed, PlannedModel):
    """Rules resolved against a PyTorch model. Made by :func:`penalize.torch.regularize`.

    The rules are fixed; the weights are read through the model's modules each time, so a plan
    follows freezing, moving and replaced parameters.
    """

    def _begin(self, steps: int) -> None:
        self._attachments: list[ref[Attachment]] = []
        super()._begin(steps)

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
                self.applied.by_loss = self.applied.in_compiled_loss = True
                self.applied.in_loss = {target.name for target in self.all_targets}
            else:
                total.register_hook(self._differentiated)  # type: ignore[no-untyped-call]
        return total

    def _nothing(self) -> Tensor:
        return torch.zeros((), device=self.weights[0].binding.parameters()[0].device)

    def _check_gradients(self) -> None:
        for target in self.targets():
            target.regularizer.check_gradient(repr(target.name))

    def _differentiated(self, gradient: Tensor) -> None:
        self._check_gradients()
        targets = self.targets()
        self.applied.by_loss = True
        self.applied.in_loss = {target.name for target in targets}
        self._check_free(targets, "plan.penalty() in the loss")

    def _check_free(self, targets: Iterable[Target], newcomer: str, aside: str = "") -> None:
        instead = _OUTPUTS_ALONE if self.activities else _ONE_DOOR
        check_free(claims_of(targets), newcomer, instead + aside)

    def check_loss(self) -> None:
        """Raise :class:`AppliedTwiceError` if a compiled loss has what is attached."""
        self.applied.in_compiled_loss = False
        standing = self.standing()
        self._check_ties_of_compiled(standing)
        self._check_free(
            standing,
            "plan.penalty() in a compiled function, with gradients enabled",
            "; to look at it there, call it under torch.no_grad()",
        )

    def _check_ties_of_compiled(self, standing: Iterable[Target]) -> None:
        """A compiler does not look again whether two parameters are one."""
        late = sorted(doubled(standing) - self.applied.compiled_for[1])
        if late:
            self.applied.tied_since += tuple(late)
            raise AppliedTwiceError(
                late,
                "plan.penalty() in a function that was compiled before it was tied",
                "the same under the other name",
                "Call zero_grad(), and compute the loss again: it is compiled anew",
            )

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
        from penalize.torch.acting.balance import weighed

        attachments = self.attachments()
        inside = set(self.applied.in_loss)
        groups: dict[int, Any] = {}
        for attachment in attachments:
            groups |= attachment.param_groups()
            if attachment.adds_at_backward:
                inside |= {target.name for target in self.targets()}
        return weighed(self._now(), groups, inside, learning_rate, steps)

    # --- the outputs of modules -------------------------------------------------------------

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
        average: float | None = None,
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
        ``"halfspace"``  as ``"gradient"``; what is 0 stays until the averaged gradient of
                        the data overcomes the penalty, and what leaves its side is set
                        to 0: exact zeros under any optimizer, on mini-batches
        ==============  ============================================================

        The penalty does not depend on the data: every trainable parameter of the plan is penalized
        in every step, also one whose ``.grad`` is None. Frozen parameters are left alone and
        followed when they are unfrozen.

        An optimizer that is not PyTorch's is tried before weights are moved beside it: steps of
        a new one, of its class and settings, on small weights.

        Args:
            optimizer: the optimizer, or several that share the model's parameters out. Wrappers
                that only pass its steps on, as those of accelerate and Lightning, are looked
                through.
            mode: how the plan acts.
            clip: with ``"without"``, what your loop clips between ``backward()`` and ``step()`` is
                the data's gradient alone. ``"with"`` has the penalty's gradient in it, as a loss
                term has: it is added at the end of the first ``backward()`` of each step. Only for
                ``"gradient"``; the other modes do not act through the gradient.
            scaler: the ``GradScaler`` of the loop. Only ``clip="with"`` has to know it.
            values: whether ``attachment.penalty`` is to have Σ Ω(w) of each step. It is computed
                with the gradient, while the weights are in the cache; not for ``"proximal"``.
            average: how much of the running average of the data's gradient stays in a step, from 0
                to below 1. By default 0.999 in ``"halfspace"``, the average of about a thousand
                steps; in ``"proximal"`` there is none, and with one a zero is left only when the
                average overcomes the penalty. It costs 4 bytes per penalized weight (8 for float64
                weights), is saved with ``attachment.state_dict()``, and begins anew where a
                parameter is unfrozen. Give the last 3/(1 − average) steps a small learning rate.

        Raises:
            ModeError: there is no such mode, or it cannot act on a parameter or optimizer.
            OptimizerError: the optimizer lacks parameters that the plan penalizes, or is in the
                middle of a step.
            AppliedTwiceError: a penalty is attached already, or an L2 meets ``weight_decay``.
            NoProximalOperatorError: a regularizer has no exact prox under this optimizer.
            NoKinkError: in ``"halfspace"``, a regularizer has no kink at 0, or none of known size.

        Nothing is attached if it raises.
        """
        from penalize.torch.acting.attachment import Attachment
        from penalize.torch.acting.checks import optimizers_in
        from penalize.torch.modes.choice import mode_of

        new_mode = mode_of(mode, clip, scaler, values, average)
        optimizers = optimizers_in(optimizer)
        self.applied.in_compiled_loss = False
        self._check_no_loss_pending()
        attachment = Attachment(self, optimizers, new_mode, callsite())
        self._attachments = [a for a in self._attachments if a() is not None] + [ref(attachment)]
        self.applied.attached = True
        return attachment

    def attachments(self) -> list[Attachment]:
        """The attachments that act now."""
        held = [attachment() for attachment in self._attachments]
        return [attachment for attachment in held if attachment is not None and attachment.alive]

    def penalized(self) -> list[tuple[str, None]]:
        """What is penalized now, by name."""
        return [(target.name, None) for target in self.standing()]

    def _check_no_loss_pending(self) -> None:
        pending = [
            target.name
            for target in self.targets()
            if target.name in self.applied.in_loss
            and any(p.grad is not None for p in target.binding.parameters())
        ]
        if pending:
            raise AppliedTwiceError(
                pending,
                "plan.penalty() in a loss whose gradients are waiting for a step",
                "the attachment",
                "Call optimizer.step() or zero_grad() before attach()",
            )


_ONE_DOOR = "Take plan.penalty() out of the loss, or detach() the attachment"
_OUTPUTS_ALONE = (
    "Write plan.activity_penalty() in the loss in place of plan.penalty(), or detach() the "
    "attachment"
)
