"""A module with a plan and its training, as a path asks for it."""

from __future__ import annotations

import copy
import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from penalize.errors import AuditError, PathError
from penalize.regularizers.base import described
from penalize.report import Measured, Report
from penalize.selection.arrays import State
from penalize.selection.describing import name_of
from penalize.selection.folds import Fold
from penalize.selection.learner import Done, Learner, Progress, Task, outcome_of
from penalize.torch.auditing.rerun import counts_kept
from penalize.torch.plan import Plan
from penalize.torch.selection.stacking import Run, at_once, train_together, why_not_stacked
from penalize.torch.selection.states import kept, penalized_names, set_state, state_of
from penalize.torch.selection.strengths import strength_max
from penalize.torch.selection.tensors import TENSORS
from penalize.torch.selection.training import Fit, Training, digest

if TYPE_CHECKING:
    from penalize.compacting.report import Compacted


class ModuleLearner(Learner):
    """A PyTorch module, trained by a :class:`Training` or by a function."""

    arrays = TENSORS
    stacks = True

    def __init__(self, fit: Fit, plan: Plan) -> None:
        self.fit = fit
        self.plan = plan

    @property
    def samples(self) -> int | None:
        found: int | None = getattr(self.fit, "samples", None)
        return found

    def penalized(self) -> list[str]:
        return penalized_names(self.plan)

    def about(self) -> dict[str, Any]:
        fit = self.fit
        return {
            "penalties": {t.name: described(t.regularizer) for t in self.plan.targets()},
            **self.plan.activity_state(),
            "model at the start": digest(state_of(self.plan.model).values()),
            "fit": fit.describe() if isinstance(fit, Training) else name_of(fit),
        }

    def state(self) -> State:
        return state_of(self.plan.model)

    def strength_max(self) -> float:
        training = self.fit
        if not isinstance(training, Training):
            raise PathError(
                "the strengths are to be found, and the loss of the data is not known, as fit is a "
                "function",
                "give them: strengths=geometric(top, top / 1000, 20) with top = "
                "strength_max(loss, plan)",
            )
        return strength_max(lambda: training.data_loss(self.plan.model), self.plan)

    def order(self, count: int, seed: int) -> np.ndarray:
        return drawn_order(count, seed)

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """The model, the plan's count of steps and what is drawn at random are put back.

        Of several threads one is within it at a time: they share what is drawn at random.
        """
        plan = self.plan
        with _ONE, kept(plan.model), torch.random.fork_rng(), counts_kept(plan), plan.resting():
            yield

    def plan_at(self, strength: float) -> Plan:
        return self.plan.scaled(strength)

    def load(self, state: State) -> None:
        set_state(self.plan.model, state)

    def compact(
        self, state: State, inputs: Any, keywords: Mapping[str, Any] | None, *, biases: bool
    ) -> Compacted:
        from penalize.torch.compacting.compacted import compact  # it loads much of torch.export

        model = copy.deepcopy(self.plan.model)
        set_state(model, state)
        return compact(model.eval(), inputs, keywords, biases=biases)

    # --- one by one -------------------------------------------------------------------------

    def run_apart(self, task: Task) -> Done:
        twin = ModuleLearner(self.fit, copy.deepcopy(self.plan))
        with twin.untouched():
            return twin.run(task)

    def run(self, task: Task) -> Done:
        began = time.perf_counter()
        model, fold = self.plan.model, _as_tensors(task.fold)
        set_state(model, task.start)
        model.zero_grad()
        torch.manual_seed(0)  # what a run draws does not depend on those before it
        at = self.plan.scaled(task.strength)
        try:
            held_out = outcome_of(self.fit(at, fold.train, fold.valid))
            missed = [Measured(name, 0.0, what=repr(r)) for name, r in at.never_applied()]
            if missed:
                loss = "activity_penalty" if at.activities else "penalty"
                raise AuditError(
                    f"{Report(missed)}\nfit(plan, train, valid) has to apply the plan that it is "
                    f"given, by plan.attach(optimizer) or by plan.{loss}() in the loss."
                )
        finally:  # whoever keeps the traceback of a fit that raised keeps its optimizer, too
            for attachment in at.attachments():
                attachment.detach()
            at.remove_activities()
            at.applied.warned = True
        return Done(task, held_out, state_of(model), time.perf_counter() - began)

    # --- side by side -----------------------------------------------------------------------

    def why_not_stacked(self) -> str:
        return why_not_stacked(self.fit, self.plan)

    def at_once(self, folds: int) -> int:
        assert isinstance(self.fit, Training)
        return at_once(self.fit, self.plan, folds)

    def groups(self, tasks: Sequence[Task]) -> Iterable[list[Task]]:
        """Folds with as many steps in an epoch, and the same strengths."""
        assert isinstance(self.fit, Training)
        size = self.fit.batch_size
        places: dict[str, tuple[int, ...]] = {}
        for task in tasks:
            places[task.fold.name] = (*places.get(task.fold.name, ()), task.place)
        groups: dict[Any, list[Task]] = {}
        for task in tasks:
            steps = 1 if size is None else math.ceil(len(task.fold.train) / size)
            groups.setdefault((steps, places[task.fold.name]), []).append(task)
        return groups.values()

    def together(self, tasks: Sequence[Task], progress: Progress) -> list[Done]:
        assert isinstance(self.fit, Training)
        began = time.perf_counter()
        trained = [n for n, p in self.plan.model.named_parameters() if p.requires_grad]
        runs = [
            Run(task.strength, _as_tensors(task.fold), {n: task.start[n] for n in trained})
            for task in tasks
        ]
        ended = train_together(self.fit, self.plan, runs, progress)
        each = (time.perf_counter() - began) / len(tasks)
        return [
            Done(task, end.held_out, end.weights, each)
            for task, end in zip(tasks, ended, strict=True)
        ]


_ONE = threading.RLock()


def _as_tensors(fold: Fold) -> Fold:
    return Fold(fold.name, torch.from_numpy(fold.train), torch.from_numpy(fold.valid))


def drawn_order(count: int, seed: int) -> np.ndarray:
    """The samples in an order at random, as PyTorch draws it."""
    found = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return found.numpy()
