"""``penalize doctor``: a training script, run as it is for a few steps, and what it really does."""

from __future__ import annotations

import os
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import nn
from torch.optim import Optimizer

from penalize.alive import alive
from penalize.report import Found, Level, Report
from penalize.torch.auditing.models_alive import holding, roster, stepped_by, with_idle
from penalize.torch.auditing.observer import Observer
from penalize.torch.auditing.rows import declared, named, weights
from penalize.torch.auditing.verdicts import findings
from penalize.torch.doors import plans_alive
from penalize.torch.plan import Plan

_PATIENCE = 5
"""How many times the wanted steps an optimizer may do while another has not done its own."""


class Enough(BaseException):
    """Ends the script. Not an Exception, which a training loop may catch."""


class Patient:
    """A training loop that is watched until its optimizers have made some steps.

    Args:
        steps: how many.
        leave: called when the loop goes on though it was ended.
    """

    def __init__(self, steps: int, leave: Callable[[], None]) -> None:
        self._wanted = steps
        self._leave = leave
        self._has_ended = False
        self._strangers = alive(Optimizer)  # none, in a process of its own
        self._forgotten: list[str] = []
        self._observer = Observer(self._count)
        self._models: list[nn.Module] = []
        self._optimizers: list[Optimizer] = []
        self._plans: list[Plan] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Within the block everything is seen; :class:`Enough` is raised in the last step."""
        with self._observer.watching():
            yield

    def _count(self, optimizer: Optimizer) -> None:
        if self._has_ended:  # a bare `except:` swallowed it
            self._leave()
        counts = self._observer.steps
        # While they are alive: a loop may end before its time, and nothing is left of it then.
        self._models = holding(stepped_by(counts))
        strangers = {*self._strangers, *self._observer.wrappers}
        ours = [o for o in alive(Optimizer) if o not in strangers]
        trained = [o for o in ours if any(p.requires_grad for p in stepped_by([o]))]
        self._optimizers = with_idle([*counts], trained)
        self._forgotten = self._outside()
        self._plans = plans_alive()
        done = all(counts.get(o, 0) >= self._wanted for o in self._optimizers)
        if done or counts[optimizer] > _PATIENCE * self._wanted:
            self._has_ended = True
            raise Enough

    def _outside(self) -> list[str]:
        """The models that get gradients, and of which no optimizer holds anything."""
        held = {id(p) for p in stepped_by(self._optimizers)}
        given = [r.parameter for r in self._observer.received.values() if r.got_gradient]
        unheld = [p for p in given if p.requires_grad and id(p) not in held]
        return [
            type(model).__name__
            for model in holding(unheld)
            if held.isdisjoint(id(p) for p in model.parameters())
        ]

    @property
    def history(self) -> str:
        """What it did: ``3 steps of Adam``."""
        names = named(self._optimizers)
        steps = self._observer.steps
        done = [f"{n} steps of {names[o]}" for o, n in steps.items()]
        done += [f"none of {names[o]}" for o in self._optimizers if o not in steps]
        if steps and not self._observer.passes:
            done.append("and no backward pass that could be looked at")
        return ", ".join(done)

    def report(self) -> Report:
        """What acts on its parameters."""
        members = roster(self._models, self._optimizers)
        received = self._observer.received
        facts = weights(members, received, self._optimizers, self._plans)
        says = "gets gradients, and no optimizer holds any of it: give it to one, or freeze it"
        unheld = [Found(name, Level.LOOK, says) for name in self._forgotten]
        rows = [*declared(self._plans, members, received), *findings(facts), *unheld]
        return Report(rows, "no weight decay, L1 or L2 was seen")


def examine(script: Path, arguments: Sequence[str], steps: int) -> int:
    """Run a script for a few steps, print what was found, and return the exit code.

    0: nothing is wrong; 1: something is; 2: the script could not be run, or made no step; 130: it
    was interrupted.
    """

    def leave() -> None:
        code = _tell(script, patient, 0)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    patient = Patient(steps, leave)
    return _tell(script, patient, _run(script, arguments, patient))


def _tell(script: Path, patient: Patient, failed: int) -> int:
    """Print what was found, or why nothing was. The exit code, where the script did not fail."""
    if not patient.history:
        if not failed:
            sys.stderr.write(
                f"{script} made no step of a torch.optim.Optimizer in this process; pass the "
                "script that trains, with the arguments that make it train.\n"
            )
        return failed or 2
    report = patient.report()
    sys.stdout.write(f"\npenalize doctor: {script.name}, after {patient.history}\n{report}\n")
    return failed or int(not report.ok)


def _run(script: Path, arguments: Sequence[str], patient: Patient) -> int:
    """Run it as ``python SCRIPT ARGS`` does. If it fails, its traceback is shown; else 0."""
    argv, path, streams = sys.argv, sys.path, (sys.stdout, sys.stderr)
    sys.argv, sys.path = [str(script), *arguments], [str(script.resolve().parent), *path[1:]]
    try:
        with patient.watched():
            runpy.run_path(str(script), run_name="__main__")
    except Enough:
        return 0
    except KeyboardInterrupt:
        return 130
    except SystemExit as ending:
        if isinstance(ending.code, str):
            sys.stderr.write(f"{ending.code}\n")  # as Python does
        return 0 if ending.code in (None, 0) else 2
    except Exception as error:  # noqa: BLE001  # whatever a script may raise
        _show(error, script)
        return 2
    finally:
        sys.argv, sys.path = argv, path
        sys.stdout, sys.stderr = streams
    return 0


def _show(error: Exception, script: Path) -> None:
    """Print the traceback from the script on: how it came to be run here is no help."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != str(script):
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace)
