"""A plan in skorch's nets."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self
from weakref import WeakKeyDictionary, ref

from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from penalize.callsite import called_at, callsite
from penalize.errors import (
    AppliedTwiceError,
    MissingPackageError,
    NoMatchError,
    OptimizerError,
    PenalizeError,
    StateError,
    TrainerError,
)
from penalize.integrations.attached import Attached
from penalize.planning import Roles
from penalize.rules import Rules
from penalize.torch.acting.attachment import Attachment
from penalize.torch.doors import MARK
from penalize.torch.joining import Together
from penalize.torch.plan import Plan

try:
    from sklearn.base import clone
    from skorch import NeuralNet
    from skorch.callbacks import Callback
except ModuleNotFoundError as error:
    raise MissingPackageError("skorch", "penalize.integrations.skorch") from error

_WORDS: dict[type[PenalizeError], str] = {
    AppliedTwiceError: "In skorch: write optimizer__weight_decay=0 (which param_groups may set "
    "too), and leave plan.penalty() out of get_loss.",
    NoMatchError: "In skorch the names are those of net.module_, as "
    "net.module_.named_parameters() has them; of a net with several modules each begins with the "
    'name of its own, as in "module.0.weight".',
    OptimizerError: "In skorch: the optimizers are those that net.initialize_optimizer sets.",
    StateError: "In skorch: give PenalizeCallback the rules and the mode that f_optimizer= (or the "
    "pickled net) was saved with, or load_params(f_params=...) alone, and train with a new "
    "optimizer.",
}


class PenalizeCallback(Callback):  # type: ignore[misc]
    """A callback that applies rules in each optimizer step of a net, exactly once.

    ``NeuralNetClassifier(Net, callbacks=[PenalizeCallback({kernels: L1(1e-4)}, "proximal")])``. It
    plans ``net.module_`` and attaches when training begins, acts after ``GradientNormClipping``,
    and records ``penalty``, ``penalties/<rule>``, ``zeros`` and the groups that are left in
    ``net.history`` at the end of each epoch (:func:`penalize.log`).

    Its arguments are parameters as those of each callback: ``callbacks__PenalizeCallback__rules``
    in ``set_params`` and in the grid of ``GridSearchCV``. ``partial_fit`` goes on; ``fit``, which
    makes module and optimizer anew, and other rules begin at step 0. The state of the attachment is
    saved with the optimizer's, in ``f_optimizer`` of ``save_params`` and ``Checkpoint``, and with a
    net that is pickled or copied; ``load_params`` and ``LoadInitState`` go on from there.

    Args:
        rules: see :func:`penalize.torch.regularize`; names are those of ``net.module_``. With
            several modules each name begins with that of its module: ``"module.0.weight"``.
        mode: how they act, as in ``plan.attach``; and so are ``clip``, ``values`` and ``average``.
        roles: corrects what a parameter is taken for, as in ``regularize``.
        together: groups that span parameters, the same.

    Nothing is looked at before training begins.

    Raises:
        PenalizeError: what ``regularize`` and ``plan.attach`` raise of rules, mode, module or
            optimizer.
        StateError: what goes on was saved with other rules or another mode, or without its state.
        TrainerError: the net has two such callbacks.
    """

    def __init__(
        self,
        rules: Rules | None = None,
        mode: str = "gradient",
        *,
        clip: str = "without",
        average: float | None = None,
        values: bool = False,
        roles: Roles | None = None,
        together: Together | None = None,
    ) -> None:
        # A name without _ at its end is that of a parameter.
        self.rules = rules
        self.mode = mode
        self.clip = clip
        self.average = average
        self.values = values
        self.roles = roles
        self.together = together
        self.place_ = callsite()
        self.attached_: Attached | None = None
        self.trained_: WeakKeyDictionary[Optimizer, _Trained] = WeakKeyDictionary()

    @property
    def plan_(self) -> Plan | None:
        """The plan of the net that is trained, or was last; None before."""
        return None if self.attached_ is None else self.attached_.plan

    @property
    def attachment_(self) -> Attachment | None:
        """The attachment to its optimizers; None before the first training."""
        return None if self.attached_ is None else self.attached_.attachment

    def on_train_begin(self, net: NeuralNet, **_: Any) -> None:
        """Plan and attach, unless that was done and goes on."""
        names = [name for name, each in net.callbacks_ if isinstance(each, PenalizeCallback)]
        if len(names) > 1:
            raise TrainerError(
                f"callbacks= of this {type(net).__name__} has {' and '.join(names)}",
                "give one PenalizeCallback, with the rules of both",
            )
        optimizers = [getattr(net, f"{name}_") for name in net._optimizers]
        # As they are now: rules may be changed where they stand.
        arguments = {key: copy.copy(value) for key, value in self.get_params(deep=False).items()}
        before = self.trained_.get(optimizers[0])
        if before is not None and before.goes_on(optimizers, arguments):
            self.attached_ = before.attached
        else:
            self._attach(net, optimizers, arguments)

    def _attach(
        self, net: NeuralNet, optimizers: Sequence[Optimizer], arguments: Mapping[str, Any]
    ) -> None:
        same = self.trained_.get(optimizers[0])
        if same is None:
            state = self._saved(optimizers)
        else:
            state = same.attached.state_dict() if same.arguments == arguments else None
        with called_at(self.place_):
            attached = Attached(**arguments, words=_WORDS)
        for optimizer, before in list(self.trained_.items()):
            if before.net() is net:
                before.attached.end()
                del self.trained_[optimizer]
        attached.begin(_module_of(net), optimizers, run=object(), state=state)
        hooks = _ride(attached)
        held = [ref(optimizer) for optimizer in optimizers]
        self.trained_[optimizers[0]] = _Trained(attached, arguments, ref(net), held, hooks)
        self.attached_ = attached

    def on_epoch_end(self, net: NeuralNet, **_: Any) -> None:
        """Record the numbers of the plan in the history."""
        if self.attached_ is not None:
            for key, number in self.attached_.logged().items():
                net.history.record(key, number)

    # --- what is saved ----------------------------------------------------------------------

    def _saved(self, optimizers: Sequence[Optimizer]) -> Mapping[str, Any] | None:
        """The state that these optimizers were saved with; None where they begin without one."""
        found = [g[MARK] for each in optimizers for g in each.param_groups if MARK in g]
        saved = next((each for each in found if isinstance(each, Mapping)), None)
        if saved is None and found and self.attached_ is not None:
            saved = self.attached_.waiting  # of a net that was copied or unpickled
        if saved is None and found:
            error = StateError("the optimizer was saved with penalties, and without their state")
            error.add_note(_WORDS[StateError])
            raise error
        return saved

    def __getstate__(self) -> dict[str, Any]:
        acting = [each for each in self.trained_.values() if each.attached.acts]
        # In nets that share a callback nobody could tell whose state this is.
        attached = self.attached_ if len(acting) < 2 else None
        return {**vars(self), "attached_": attached, "trained_": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, trained_=WeakKeyDictionary())

    def __sklearn_clone__(self) -> Self:
        new = type(self)(
            **{k: clone(v, safe=False) for k, v in self.get_params(deep=False).items()}
        )
        new.place_ = self.place_  # and not a line of scikit-learn
        return new


def _module_of(net: NeuralNet) -> nn.Module:
    """The module that is trained; several, under their names, as one."""
    modules: dict[str, nn.Module] = {name: getattr(net, f"{name}_") for name in net._modules}
    if len(modules) == 1:
        return next(iter(modules.values()))
    return nn.ModuleDict(modules)


class _Trained(NamedTuple):
    """What trains with an optimizer."""

    attached: Attached
    arguments: Mapping[str, Any]
    net: ref[NeuralNet]
    optimizers: Sequence[ref[Optimizer]]
    hooks: Sequence[RemovableHandle]

    def goes_on(self, optimizers: Sequence[Optimizer], arguments: Mapping[str, Any]) -> bool:
        """Whether it trains with these, and nothing else."""
        same = [held() for held in self.optimizers] == list(optimizers)
        return same and self.attached.acts and self.arguments == arguments


def _ride(attached: Attached) -> list[RemovableHandle]:
    """Have the state of the attachment saved and loaded with that of its first optimizer.

    Of what skorch saves it is the one thing that an attachment goes with. A mark stands in its
    param groups anyway; and what is loaded there before training begins is there when it does.
    """
    assert attached.attachment is not None
    optimizer, held = attached.attachment.optimizers[0], ref(attached)
    return [
        optimizer.register_state_dict_post_hook(functools.partial(_with_state, held)),
        optimizer.register_load_state_dict_pre_hook(functools.partial(_take_state, held)),
    ]


def _with_state(
    held: ref[Attached], optimizer: Optimizer, state_dict: dict[str, Any]
) -> dict[str, Any] | None:
    attached = held()
    if attached is None or not attached.acts:
        return None
    first, *others = state_dict["param_groups"]
    return {**state_dict, "param_groups": [{**first, MARK: attached.state_dict()}, *others]}


def _take_state(held: ref[Attached], optimizer: Optimizer, state_dict: Mapping[str, Any]) -> None:
    attached = held()
    saved = state_dict["param_groups"][0].get(MARK)
    if attached is not None and attached.acts and isinstance(saved, Mapping):
        attached.load_state_dict(saved)
