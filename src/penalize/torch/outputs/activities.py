"""Penalties on the outputs of modules: hooks that compute them, and where they wait for a loss.

A term waits until a gradient has come back through it, until a backward pass has freed its graph
without it, or until an optimizer has stepped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import finalize, ref

import torch
from torch import Tensor, nn
from torch.autograd import Variable

from penalize.backends import open_array
from penalize.errors import some
from penalize.tables import laid_out, with_aliases
from penalize.torch.outputs.batches import parts_of
from penalize.torch.outputs.rules import Activity
from penalize.torch.outputs.terms import (
    Hook,
    OutputTerm,
    check_is_called_once,
    check_was_counted,
)


class Activities:
    """The activity penalties of one plan, which has to adopt them."""

    def __init__(
        self, chosen: Sequence[tuple[nn.Module, Activity]] = (), *, in_eval: bool = False
    ) -> None:
        self.in_eval = in_eval
        self._hooks = [(module, Hook(activity)) for module, activity in chosen]
        for module, hook in self._hooks:
            module.register_forward_hook(hook)
        self._begin()

    def _begin(self) -> None:
        self._last = self._bottom = OutputTerm("", None, None)
        self._in_compiled_loss = False
        self._used = False
        self.entered_loss = False
        """Whether a loss has ever had a term of them."""

        self._left_out: set[str] = set()
        self._looked = False
        self._plan: ref[Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"in_eval": self.in_eval, "_hooks": self._hooks}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    @property
    def scheduled(self) -> bool:
        """Whether a strength follows a schedule."""
        return any(hook.activity.regularizer.scheduled for _, hook in self._hooks)

    def adopted_by(self, plan: Any, count: Tensor | None) -> Activities:
        """The activities; for a second plan of the same modules others like them.

        Args:
            plan: whose steps schedules follow. When it is gone, so are the hooks.
            count: its steps, for compiled functions.
        """
        if self._plan is not None and self._plan() is not None:
            pairs = [(module, hook.activity) for module, hook in self._hooks]
            return Activities(pairs, in_eval=self.in_eval).adopted_by(plan, count)
        self._plan, self._count = ref(plan), count
        for _, hook in self._hooks:
            hook.owner = self
        held = [(ref(module), hook) for module, hook in self._hooks]
        finalize(plan, _remove, held).atexit = False
        if held:
            open_array(torch.empty(()))  # looked up now: torch.compile cannot trace the search
        return self

    def remove(self) -> None:
        """End them: no hook and no term is left."""
        _remove([(ref(module), hook) for module, hook in self._hooks])
        self._hooks = []
        self._last = self._bottom

    def scaled(self, factor: float) -> Activities:
        """Penalties on the outputs of the same modules with every strength multiplied."""
        held = [(module, hook.activity) for module, hook in self._hooks]
        pairs = [(m, a._replace(regularizer=factor * a.regularizer)) for m, a in held]
        return Activities(pairs, in_eval=self.in_eval)

    @contextmanager
    def resting(self) -> Iterator[None]:
        """A block in which no output is penalized; what waits for a loss goes on waiting."""
        kept = dict(vars(self))
        self._begin()
        for _, hook in self._hooks:
            hook.owner = None
        try:
            yield
        finally:
            vars(self).update(kept)
            for _, hook in self._hooks:
                hook.owner = self

    @property
    def rows(self) -> tuple[Activity, ...]:
        return tuple(hook.activity for _, hook in self._hooks)

    def breakdown(self) -> dict[str, float]:
        """The penalty of the last forward of each module that had one."""
        seen = ((hook.activity.name, hook.last) for _, hook in self._hooks)
        return {name: float(last) for name, last in seen if last is not None}

    def __str__(self) -> str:
        now = self.breakdown()
        columns: dict[str, Callable[[Activity], str]] = {
            "output of": lambda row: with_aliases(row.name, row.aliases),
            "regularizer": lambda row: repr(row.regularizer),
            "last penalty": lambda row: f"{now[row.name]:.4g}" if row.name in now else "",
            "declared at": lambda row: row.declared_at,
        }
        return laid_out(columns, self.rows)

    # --- where terms come from --------------------------------------------------------------

    def take(self, hook: Hook, module: nn.Module, output: Any) -> None:
        """The penalty of an output, to wait for a loss."""
        compiling = torch.compiler.is_compiling()
        name, regularizer, *_ = hook.activity
        if regularizer.scheduled:
            regularizer = regularizer.at(self._count if compiling else self._steps())
        check_is_called_once(module, name)
        parts = parts_of(module, output, name)
        value: Tensor = sum(regularizer(part.tensor) / part.samples for part in parts)
        if not compiling and torch._C._current_graph_task_id() != -1:
            check_was_counted(name)
            return
        if self._in_compiled_loss:
            self._last, self._in_compiled_loss = self._bottom, False
        hook.last = value.detach()
        self._last = term = OutputTerm(name, value, self._last)
        if not compiling:
            for tensor, _ in parts:
                if tensor.requires_grad and not tensor.is_leaf:
                    # Held weakly: the graph must not hold what holds the graph.
                    left = partial(_came_by, ref(self), ref(term))
                    tensor.register_hook(left)  # type: ignore[no-untyped-call]

    def _steps(self) -> int:
        plan = None if self._plan is None else self._plan()
        return 0 if plan is None else plan.steps

    # --- where they go ----------------------------------------------------------------------

    def waiting(self) -> list[OutputTerm]:
        """The terms that no loss has used, oldest first."""
        found, term = [], self._last
        while term.before is not None:
            found.append(term)
            term = term.before
        return found[::-1]

    def total(self) -> Tensor | None:
        """The sum of all terms. A gradient that comes back through it uses them up."""
        terms = self.waiting()
        total: Any = 0
        for term in terms:
            value: Any = term.value
            total = total + (value.to(total.device) if isinstance(total, Tensor) else value)
        if not terms or not torch.is_grad_enabled():
            return total if terms else None
        if torch.compiler.is_compiling():
            # No hook can stand in a compiled graph: they go when the next forward begins.
            self._in_compiled_loss = self.entered_loss = True
            return total  # type: ignore[no-any-return]
        if not total.requires_grad:
            total.requires_grad_()  # of outputs without a gradient, which are used up as others
        total.register_hook(partial(_use, ref(self), terms))
        return total  # type: ignore[no-any-return]

    def drop(self, terms: Collection[OutputTerm]) -> None:
        """Let go of these."""
        gone = {id(term) for term in terms}
        kept = [term for term in self.waiting() if id(term) not in gone]
        self._last = self._bottom
        for term in kept:
            term.before = self._last
            self._last = term

    def use(self, terms: Collection[OutputTerm]) -> None:
        """A gradient has come back through them."""
        self._used = self.entered_loss = True
        self.drop(terms)
        # A compiled part that is checkpointed runs again in this pass, and cannot tell.
        end = partial(_end, ref(self), self.waiting())
        Variable._execution_engine.queue_callback(end)

    def keep(self, terms: Sequence[OutputTerm]) -> None:
        """Let go of all others."""
        kept = {id(term) for term in terms}
        self.drop([term for term in self.waiting() if id(term) not in kept])

    def leave_out(self, term: OutputTerm) -> None:
        """A backward pass has freed the graph of a term that was not in its loss."""
        self._left_out.add(term.name)
        self.drop([term])

    def settle(self) -> str:
        """An optimizer has stepped: drop what waits. What no loss had, as a sentence."""
        used = self._used or self._in_compiled_loss
        waiting = [] if self._in_compiled_loss else self.waiting()
        lost = [t.name for t in waiting if t.value is not None and t.value.requires_grad]
        lost += [] if used else sorted(self._left_out)
        self._last, self._in_compiled_loss, self._used = self._bottom, False, False
        self._left_out.clear()
        if not lost:
            return ""
        return (
            f"the penalty on the output of {some(dict.fromkeys(lost))} was in no loss. Add "
            "plan.penalty() to the loss, or + plan.activity_penalty() where the plan is attached; "
            "or end it by plan.remove_activities()."
        )

    def look(self) -> str:
        """After the first step: the modules that nobody called, as a sentence."""
        uncalled = [hook.activity.name for _, hook in self._hooks if not hook.called]
        looked, self._looked = self._looked, True
        if looked or not uncalled:
            return ""
        return (
            f"no forward has called {some(uncalled)} since the model was planned, so the penalty "
            "on the output acts nowhere. A module whose weights another one reads is never called; "
            "a model that was compiled and run before is not traced again: plan it first."
        )


def _remove(held: Sequence[tuple[ref[nn.Module], Hook]]) -> None:
    for reference, hook in held:
        hook.owner = None
        module = reference()
        hooks: dict[int, Any] = {} if module is None else module._forward_hooks
        for key in [key for key, known in hooks.items() if known is hook]:
            hooks.pop(key)


def _use(owner: ref[Activities], terms: Sequence[OutputTerm], gradient: Tensor) -> None:
    activities = owner()
    if activities is not None:
        activities.use(terms)


def _end(owner: ref[Activities], terms: Sequence[OutputTerm]) -> None:
    activities = owner()
    if activities is not None:
        activities.keep(terms)


def _came_by(owner: ref[Activities], reference: ref[OutputTerm], gradient: Tensor) -> None:
    """A gradient reaches an output: without its term, and for the last time?"""
    activities, term = owner(), reference()
    if activities is None or term is None or term.value is None:
        return
    if torch._C._autograd._get_current_graph_task_keep_graph():
        return
    node = term.value.grad_fn
    if node is not None and not torch._C._will_engine_execute_node(node):
        activities.leave_out(term)
