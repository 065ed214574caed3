"""Many runs at once: their weights along a new first axis, one optimizer for all of them.

Every step does for all runs what an ordinary one does for one: ``torch.func.vmap`` computes the
gradients, the optimizer is of those that treat elements one by one, and the penalty of each slice
has the strength of its run.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils._pytree import tree_leaves

from penalize.backends import Backend
from penalize.regularizers.base import Regularizer
from penalize.regularizers.wrapped import Wrapped
from penalize.selection.folds import Fold
from penalize.selection.inputs import arguments, output_of, taken
from penalize.selection.learner import HeldOut, Progress
from penalize.steps import Step
from penalize.torch.plan import Plan
from penalize.torch.regularize import regularize
from penalize.torch.selection.rates import RateSchedule
from penalize.torch.selection.states import penalized_names, weights_of
from penalize.torch.selection.training import Training, attached

BY_ELEMENT = (
    "SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Adagrad", "Adadelta", "ASGD",
    "Rprop",
)  # fmt: skip
"""Optimizers that treat elements one by one: stacked they do what they do to each alone."""

LARGEST = 2_000_000
"""Models with more weights keep the processor busy one at a time."""

MEMORY = 64_000_000
"""The most numbers in one stack: weights, or what modules give for a batch."""

Weights = Mapping[str, Tensor]


@dataclass(frozen=True, repr=False)
class Stacked(Wrapped):
    """Σ_k f_k·Ω(w_k), over the slices w_k along the first axis."""

    strengths: ClassVar[tuple[str, ...]] = ()
    on_shards = False

    regularizer: Regularizer
    multiples: tuple[float, ...]

    @property
    def weak_convexity(self) -> float | None:  # type: ignore[override]
        """See :attr:`Regularizer.weak_convexity`."""
        known = [(self.regularizer * f).weak_convexity for f in self.multiples]
        return None if None in known else max(known)

    def _value(self, w: Tensor, xp: Backend) -> Tensor:
        return self._each(lambda r, x: r(x), w).sum()

    def _gradient(self, w: Tensor, xp: Backend) -> Tensor:
        return self._each(lambda r, x: r.gradient(x), w)

    def _pull(self, w: Tensor, xp: Backend) -> Tensor:
        return self._each(lambda r, x: r.pull(x), w)

    def _prox(self, w: Tensor, step: float | Tensor, xp: Backend) -> Tensor:
        if isinstance(step, Tensor) and step.ndim:
            return self._each(lambda r, x, s: r.prox(x, s), w, step)
        return self._each(lambda r, x: r.prox(x, step), w)

    def _prox_taken(self, w: Tensor, step: Step, xp: Backend) -> Tensor:
        if step.denominator is None:
            return self._each(lambda r, x: r.prox_taken(x, step), w)
        return self._each(
            lambda r, x, d: r.prox_taken(x, step._replace(denominator=d)), w, step.denominator
        )

    def _each(self, f: Callable[..., Tensor], *arrays: Tensor) -> Tensor:
        factors = torch.tensor(self.multiples, dtype=arrays[0].dtype, device=arrays[0].device)

        def one(factor: Tensor, *slices: Tensor) -> Tensor:
            return f(self.regularizer.scaled(factor), *slices)

        found: Tensor = vmap(one)(factors, *arrays)
        return found


class Run(NamedTuple):
    """One run of a stack."""

    factor: float
    fold: Fold
    start: Weights


class Ended(NamedTuple):
    """The end of a run: its worth and its weights."""

    held_out: HeldOut
    weights: dict[str, Tensor]


def why_not_stacked(training: Any, plan: Plan) -> str:
    """The reason why runs cannot be stacked; empty where they can."""
    if not isinstance(training, Training):
        return "fit is a function; a Training can be stacked"
    if training.mode == "halfspace":
        return "a half-space step measures the steps of a whole weight"
    if plan.activities:
        return "outputs of modules are penalized"
    model = plan.model
    named = {id(p) for p in model.parameters()}
    optimizer = type(training.optimizer([nn.Parameter(torch.zeros(1))]))
    if optimizer.__module__.split(".")[:2] != ["torch", "optim"] or (
        optimizer.__name__ not in BY_ELEMENT
    ):
        return f"{optimizer.__name__} does not treat elements one by one"
    if any(t.binding.effective or id(t.parameters[0]) not in named for t in plan.targets()):
        return "a penalized weight is computed from other parameters, or groups span some"
    if any(t.regularizer.scheduled for t in plan.targets()):
        return "a strength follows a schedule"
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.track_running_stats:
            return f"{name!r} keeps running statistics"
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            return f"{name!r} draws at random"
    size = sum(p.numel() for p in model.parameters())
    if size > LARGEST:
        return f"the model has {size:,} weights, and more than {LARGEST:,} are trained one by one"
    try:
        with warnings.catch_warnings(action="error"):  # that it is slow, say, is a reason, too
            return _why_not_equal(training, plan)
    except Exception as error:  # noqa: BLE001 - whatever vmap cannot do is a reason
        reason = str(error).strip().partition("\n")[0]
        return f"torch.func cannot vectorize it: {type(error).__name__}: {reason}"


def _why_not_equal(training: Training, plan: Plan) -> str:
    """The reason why gradients of an epoch's batches, stacked, are not the ordinary ones."""
    model = plan.model
    parameters = [p for p in model.parameters() if p.requires_grad]
    stack = {name: torch.stack([w, w]) for name, w in weights_of(model).items()}
    gradients = _gradients(training, model, 1)
    model.train()
    for rows in training.batches(torch.arange(training.samples), 0):
        loss = training.loss(output_of(model, taken(training.x, rows)), training.y[rows])
        wanted = torch.autograd.grad(loss, parameters, materialize_grads=True)
        found = gradients(stack, *_padded([rows]))
        for ours, expected in zip(found.values(), wanted, strict=True):
            close = torch.finfo(expected.dtype).eps ** 0.5
            if not (ours - expected).norm() <= close * (1 + expected.norm()):
                return "the loss is no mean over the samples"
    for target in plan.targets():
        stacked = Stacked(target.regularizer, (1.0, 0.5))
        w = torch.stack([target.parameters[0].detach()] * 2)
        if training.mode == "proximal":
            stacked.prox(w, 0.1)
        else:
            stacked.gradient(w)
    return ""


def at_once(training: Training, plan: Plan, folds: int) -> int:
    """The number of strengths that fit in one stack."""
    size = max(sum(p.numel() for p in plan.model.parameters()), _activations(training, plan.model))
    return max(1, MEMORY // max(size * folds, 1))


@torch.no_grad()
def _activations(training: Training, model: nn.Module) -> int:
    """The count of numbers that the modules give for a batch, which a backward pass has to have."""
    counts: list[int] = []

    def count(module: nn.Module, args: Any, output: Any) -> None:
        counts.extend(each.numel() for each in tree_leaves(output) if isinstance(each, Tensor))

    hooks = [module.register_forward_hook(count) for module in model.modules()]
    rows = next(training.batches(torch.arange(training.samples), 0))
    output_of(model, taken(training.x, rows))
    for hook in hooks:
        hook.remove()
    return sum(counts)


def train_together(
    training: Training, plan: Plan, runs: Sequence[Run], progress: Progress | None = None
) -> list[Ended]:
    """Train the runs side by side, each as it would be trained alone.

    They are of a grid: for each fold, in order, the same factors in the same order; and the folds
    have as many batches in an epoch.
    """
    progress = Progress() if progress is None else progress
    model = plan.model
    folds = list({run.fold.name: run.fold for run in runs}.values())
    names = list(runs[0].start)
    stack = nn.ParameterList([torch.stack([r.start[n] for r in runs]) for n in names])
    factors = tuple(run.factor for run in runs)
    rules = _rules(plan, names, factors)
    parameters = list(stack)
    optimizer = training.optimizer(parameters)
    stacked_plan = regularize(stack, rules) if rules else None
    gradients = _gradients(training, model, len(folds))
    was_training = model.training
    model.train()
    acting = attached(stacked_plan, optimizer, training.mode) if stacked_plan else nullcontext()
    with acting:
        schedule = training.scheduled(optimizer)
        epoch = _restored(progress.load(), stack, optimizer, schedule)
        while epoch < training.epochs:
            before = [p.detach().clone() for p in parameters] if training.tolerance else []
            batches = [list(training.batches(fold.train, epoch)) for fold in folds]
            for parts in zip(*batches, strict=True):
                rows, shares = _padded(parts)
                values = dict(zip(names, map(_value, parameters), strict=True))
                found = gradients(values, rows, shares)
                for name, p in zip(names, parameters, strict=True):
                    p.grad = found[name].contiguous()
                optimizer.step()
                schedule.after("step")
            schedule.after("epoch")
            epoch += 1
            if training.tolerance and _all_still(parameters, before, training.tolerance):
                break
            if epoch < training.epochs:
                progress.keep(partial(_state, epoch, stack, optimizer, schedule))
    model.train(was_training)
    slices = zip(*(p.detach() for p in parameters), strict=True)
    return [
        _ended(training, model, dict(zip(names, weights, strict=True)), run.fold)
        for run, weights in zip(runs, slices, strict=True)
    ]


def _rules(plan: Plan, names: Sequence[str], factors: tuple[float, ...]) -> list[Any]:
    # A stacked weight is called by its number.
    return [
        (str(names.index(name)), Stacked(target.regularizer, factors))
        for name, target in zip(penalized_names(plan), plan.targets(), strict=True)
    ]


def _value(parameter: Tensor) -> Tensor:
    return parameter.detach()


Gradients = Callable[[Weights, Tensor, Tensor], dict[str, Tensor]]


def _gradients(training: Training, model: nn.Module, folds: int) -> Gradients:
    """(stacked weights, sample numbers of each fold, their shares) → stacked gradients."""

    def loss(weights: Weights, x: Any, y: Tensor, shares: Tensor) -> Tensor:
        output = functional_call(model, dict(weights), *arguments(x))
        each = vmap(lambda o, t: training.loss(o.unsqueeze(0), t.unsqueeze(0)))(output, y)
        return (each * shares.to(each.dtype)).sum()

    # Inside, the strengths share their samples; outside, each fold has its own. The targets are
    # repeated (without a copy): the gradients of mse_loss and others in torch 2.13 fail where
    # output and target are not vectorized by the same maps.
    of_strengths = vmap(grad(loss), in_dims=(0, None, 0, None))
    of_folds = vmap(of_strengths)

    def gradients(weights: Weights, rows: Tensor, shares: Tensor) -> dict[str, Tensor]:
        grid = {n: w.reshape(folds, -1, *w.shape[1:]) for n, w in weights.items()}
        count = next(iter(grid.values())).shape[1]
        y = training.y[rows].unsqueeze(1)
        y = y.expand(-1, count, *y.shape[2:])
        shares = shares.to(training.y.device)
        found: dict[str, Tensor] = of_folds(grid, taken(training.x, rows), y, shares)
        return {name: g.flatten(0, 1) for name, g in found.items()}

    return gradients


def _padded(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Batches of nearly the same size as one array, and the share of each sample in the mean."""
    longest = max(map(len, parts))
    rows = [torch.cat([p, p[:1].expand(longest - len(p))]) for p in parts]
    shares = [(torch.arange(longest) < len(p)).double() / len(p) for p in parts]
    return torch.stack(rows), torch.stack(shares)


def _all_still(parameters: Sequence[Tensor], before: Sequence[Tensor], tolerance: float) -> bool:
    """True if no run has moved; one that is not finite moves no more."""
    return all(
        float((p.detach() - old).abs().nan_to_num(0.0, 0.0).max()) <= tolerance
        for p, old in zip(parameters, before, strict=True)
    )


def _ended(training: Training, model: nn.Module, weights: dict[str, Tensor], fold: Fold) -> Ended:
    was_training = model.training
    model.eval()
    held_out = training.held_out(
        lambda *args, **named: functional_call(model, weights, args, named), fold.valid
    )
    model.train(was_training)
    return Ended(held_out, {name: w.clone() for name, w in weights.items()})


def _state(
    epoch: int, stack: nn.ParameterList, optimizer: Any, schedule: RateSchedule
) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "stack": stack.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
    }


def _restored(
    state: Mapping[str, Any] | None,
    stack: nn.ParameterList,
    optimizer: Any,
    schedule: RateSchedule,
) -> int:
    if state is None:
        return 0
    stack.load_state_dict(state["stack"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state.get("schedule", {}))
    return int(state["epoch"])
