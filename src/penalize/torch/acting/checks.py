"""What an attachment checks of its optimizers before it acts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer

from penalize.errors import OptimizerError, some
from penalize.torch.clock import groups_of
from penalize.torch.model.joined import Joined
from penalize.torch.model.targets import Target
from penalize.torch.stack import is_stepping


def optimizers_in(given: object) -> list[Optimizer]:
    """What ``attach`` was given, as a list; each without the wrappers that only pass its steps on.

    Raises:
        OptimizerError: there is none, or something is no optimizer of PyTorch.
    """
    several = given if isinstance(given, Sequence) else [given]
    found = [_within(each) for each in several]
    wrong = [each for each in found if not isinstance(each, Optimizer)]
    if wrong or not found:
        raise _no_optimizer(wrong[0] if wrong else given)
    return found


def _within(optimizer: Any) -> Any:
    """The optimizer whose step runs hooks.

    Wrappers as those of accelerate and Lightning take its class, and have neither hooks nor groups
    nor state of their own. One with a state of its own does something beside passing steps on.
    """
    inner = getattr(optimizer, "optimizer", None)
    if (
        not isinstance(inner, Optimizer)
        or not isinstance(optimizer, Optimizer)
        or "_optimizer_step_pre_hooks" in vars(optimizer)
        or optimizer.param_groups is not inner.param_groups
        or optimizer.state is not inner.state
    ):
        return optimizer
    return _within(inner)


def _no_optimizer(found: object) -> OptimizerError:
    kind = type(found)
    if kind.__module__.partition(".")[0] == "fastai":
        return OptimizerError(
            f"attach got a {kind.__module__}.{kind.__qualname__}, which runs no hooks of PyTorch",
            "make the Learner with opt_func=partial(OptimWrapper, opt=torch.optim.Adam), and "
            "attach to learn.opt.opt",
        )
    return OptimizerError(
        f"attach got {kind.__name__}", "pass a torch.optim.Optimizer, or a list of them"
    )


def share_out(targets: Sequence[Target], optimizers: Sequence[Optimizer]) -> list[list[Target]]:
    """The targets that each optimizer steps. Every trainable one must be stepped by one of them."""
    held = [set(groups_of(optimizer)) for optimizer in optimizers]
    shares: list[list[Target]] = [[] for _ in optimizers]
    missing, doubled, wanted = [], [], 0
    everyone = set().union(*held)
    for target in targets:
        needed = {id(p) for p in target.binding.parameters() if p.requires_grad}
        known = {id(p) for p in target.binding.parameters()}
        wanted += bool(needed)
        takers = [i for i, ids in enumerate(held) if ids & known and needed <= ids]
        if not takers and not needed:
            takers = list(range(len(held)))  # frozen; any of them may get it when it is unfrozen
        if not takers:
            if isinstance(target.binding, Joined) and needed & everyone:
                raise _in_parts(target.name, target.binding, held)
            missing.append(target.name)
        if needed and len(takers) > 1:
            doubled.append(target.name)
        for i in takers:
            shares[i].append(target)
    if doubled:
        raise OptimizerError(
            f"{some(doubled)} would be stepped, and penalized, by several of the optimizers",
            "let each optimizer have parameters of its own",
        )
    if missing and len(missing) == wanted:
        raise OptimizerError(
            f"the optimizer holds none of the plan's {wanted} penalized parameters",
            "make it from the same model, after the model was moved, wrapped or sharded",
        )
    if missing:
        raise OptimizerError(
            f"the optimizer does not hold {some(missing)}, which the plan penalizes",
            "give it every penalized parameter, attach to all optimizers of the model at once "
            "(plan.attach([first, second])), or exempt these with a rule that gives None",
        )
    return shares


def _in_parts(name: str, binding: Joined, held: Sequence[set[int]]) -> OptimizerError:
    """What to say of a group whose members are not all stepped by one optimizer."""
    most = max(held, key=lambda ids: sum(id(p) in ids for p in binding.parameters()))
    without = [
        m.name for m in binding.members if not all(id(p) in most for p in m.binding.parameters())
    ]
    return OptimizerError(
        f"the group {name!r} spans parameters that no one of the optimizers holds: {some(without)} "
        "of its members are missing from the one that holds most of them",
        "give all members of a group to one optimizer",
    )


def check_can_act(optimizer: Optimizer) -> None:
    """An attachment needs step hooks, and has no graph to differentiate the step through."""
    if not hasattr(optimizer, "_optimizer_step_pre_hooks"):
        raise OptimizerError(
            f"{type(optimizer).__name__} never called Optimizer.__init__, so it has no step hooks",
            "attach to the optimizer that it wraps",
        )
    if is_stepping(optimizer):
        raise OptimizerError(
            f"attach was called in the middle of a step of {type(optimizer).__name__}",
            "attach between two steps",
        )
    if any(group.get("differentiable") for group in optimizer.param_groups):
        raise OptimizerError(
            f"{type(optimizer).__name__} has differentiable=True, and an attachment has no graph",
            "add plan.penalty() to the loss instead",
        )
