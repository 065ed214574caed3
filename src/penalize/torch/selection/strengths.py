"""The start of a grid of strengths: the least one that leaves nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from penalize.errors import NoStrengthMaxError, PathError
from penalize.selection.beginning import beginning
from penalize.torch.model.targets import Target, joined_in, parts_of, weight_in
from penalize.torch.plan import Plan
from penalize.torch.selection.states import kept


def strength_max(loss: Callable[[], Tensor], plan: Plan) -> float:
    """The least f at which the plan, all its strengths times f, leaves nothing.

    The penalized weights are set to zero, all else that is trained (biases, say) is put where the
    loss is least, by L-BFGS, and the gradient there has a dual norm in each penalty:
    :meth:`penalize.Regularizer.strength_max`; f is the largest. Where the loss is convex in the
    weights, as of a model with one layer, that is exact: f·Ω leaves nothing, and less leaves
    something.

    With all weights at zero a deeper network passes no gradient, and zero is stationary at every
    strength. There (where the gradient is less than 1e-4 of those below) f is the largest of what
    each parameter needs to stay at zero by itself, while the others are as they are now: a place
    where a grid can start, and no bound.

    The units are those of the loss. scikit-learn's ``lasso_path`` has ‖y − Xw‖²/(2n), half the mean
    squared error: its largest ``alpha`` is half of what this gives for ``nn.MSELoss()`` and
    ``L1(1.0)``.

    Args:
        loss: a function without arguments that returns the data's loss, of all of them, without
            any penalty. The model stays in the mode (training or evaluation) in which it is.
        plan: what :func:`penalize.torch.regularize` returned. The model is left as it was.

    Raises:
        NoStrengthMaxError: a penalty of the plan is not known to leave nothing, such as an L2.
        PathError: nothing or an output is penalized, a weight is computed from others, the loss is
            no finite scalar, or no penalized weight changes it.
    """
    if not callable(loss) or not isinstance(plan, Plan):
        raise PathError(
            f"what strength_max got are a {type(loss).__name__} and a {type(plan).__name__}",
            "pass a function that returns the data's loss, and the plan",
        )
    targets = plan.targets()
    if plan.activities:
        raise PathError(
            "the plan penalizes outputs, and no strength is known from which on all of them are 0",
            "give the strengths: strengths=geometric(1.0, 1e-3, 20)",
        )
    _check(targets)
    model = plan.model
    with kept(model):
        for target in targets:
            _set_to_zero(target)
        _fit_the_rest(loss, model, targets)
        found = _largest(loss, targets)
    alone = max(_alone(loss, model, target) for target in targets)
    return beginning(found, alone)


def _check(targets: Sequence[Target]) -> None:
    if not targets:
        raise PathError("the plan penalizes nothing", "give regularize a rule that does")
    for target in targets:
        if target.binding.effective and joined_in(target) is None:
            raise PathError(
                f"{target.name!r} is computed from other parameters, and cannot be set to zero",
                "give the strengths",
            )
        try:
            target.regularizer.strength_max(torch.zeros_like(target.binding.read()))
        except NoStrengthMaxError:
            raise NoStrengthMaxError(target.regularizer, repr(target.name)) from None


@torch.no_grad()
def _set_to_zero(target: Target) -> None:
    parameters = target.parameters
    nothing = torch.zeros_like(weight_in(target, parameters))
    for p, part in zip(parameters, parts_of(target, nothing, parameters), strict=True):
        p.copy_(part)


def _fit_the_rest(loss: Callable[[], Tensor], model: nn.Module, targets: Sequence[Target]) -> None:
    """Put what is trained and not penalized where the loss is least."""
    held = {id(p) for target in targets for p in target.parameters}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in held]
    if not rest:
        return
    optimizer = torch.optim.LBFGS(
        rest,
        max_iter=500,
        tolerance_grad=1e-10,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        value, gradients = _differentiated(loss, rest)
        for p, g in zip(rest, gradients, strict=True):
            p.grad = g
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]


def _differentiated(
    loss: Callable[[], Tensor], parameters: Sequence[Tensor]
) -> tuple[Tensor, Sequence[Tensor]]:
    """The loss, and its gradients: zeros for what it does not depend on."""
    value = loss()
    if not isinstance(value, Tensor) or value.numel() != 1:
        found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise PathError(
            f"the loss returned a {found}", "return the mean loss of all samples, a scalar tensor"
        )
    if not value.requires_grad:
        return value, [torch.zeros_like(p) for p in parameters]
    return value, torch.autograd.grad(value, parameters, materialize_grads=True)


def _largest(loss: Callable[[], Tensor], targets: Sequence[Target]) -> float:
    """The strength that the gradients as they are need, each in the dual norm of its penalty."""
    parameters = list(dict.fromkeys(p for target in targets for p in target.parameters))
    slopes = dict(zip(parameters, _differentiated(loss, parameters)[1], strict=True))
    with torch.no_grad():
        found = [
            float(t.regularizer.strength_max(weight_in(t, [slopes[p] for p in t.parameters])))
            for t in targets
        ]
    return math.nan if any(map(math.isnan, found)) else max(found)


def _alone(loss: Callable[[], Tensor], model: nn.Module, target: Target) -> float:
    """The strength that one parameter needs to stay at zero while the others are as they are."""
    with kept(model):
        _set_to_zero(target)
        return _largest(loss, [target])
