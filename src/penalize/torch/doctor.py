"""``penalize doctor``: a training script, run as it is for a few steps, and what it really does."""

from __future__ import annotations

import runpy
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import nn
from torch.optim import Optimizer

from penalize.report import Report
from penalize.torch.facts import declared, named, weights
from penalize.torch.findings import findings
from penalize.torch.observe import Observer
from penalize.torch.plan import Plan, plans
from penalize.torch.roster import holding, optimizers_of, roster, stepped_by

_PATIENCE = 5
"""How many times the wanted steps an optimizer may do while another has not done its own."""


class Enough(BaseException):
    """Ends the script. Not an Exception, which a training loop may catch."""


class Patient:
    """A training loop that is watched until its optimizers have made some steps."""

    def __init__(self, steps: int) -> None:
        self._wanted = steps
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
        counts = self._observer.steps
        # While they are alive: a loop may end before its time, and nothing is left of it then.
        self._models = holding(stepped_by(counts))
        known = {id(p) for model in self._models for p in model.parameters()}
        self._optimizers = optimizers_of(known, counts)
        self._plans = list(plans)
        done = all(counts.get(o, 0) >= self._wanted for o in self._optimizers)
        if done or counts[optimizer] >= _PATIENCE * self._wanted:
            raise Enough

    @property
    def history(self) -> str:
        """What it did: ``3 steps of Adam``."""
        names = named(self._optimizers)
        steps = self._observer.steps
        return ", ".join(f"{n} steps of {names[o]}" for o, n in steps.items())

    def report(self) -> Report:
        """What acts on its parameters."""
        members = roster(self._models, self._optimizers)
        received = self._observer.received
        facts = weights(members, received, self._optimizers, self._plans)
        rows = [*declared(self._plans, members, received), *findings(facts)]
        return Report(rows, "nothing regularizes what it trains")


def examine(script: Path, arguments: Sequence[str], steps: int) -> int:
    """Run a script for a few steps, print what was found, and return the exit code.

    0: nothing is wrong; 1: something is; 2: the script could not be run, or made no step.
    """
    patient = Patient(steps)
    failed = _run(script, arguments, patient)
    if not patient.history:
        if not failed:
            sys.stderr.write(
                f"{script} made no step of a torch.optim.Optimizer in this process; pass the "
                "script that trains, with the arguments that make it train.\n"
            )
        return 2
    report = patient.report()
    sys.stdout.write(f"\npenalize doctor: {script.name}, after {patient.history}\n{report}\n")
    return 2 if failed else int(not report.ok)


def _run(script: Path, arguments: Sequence[str], patient: Patient) -> bool:
    """Run it as ``python SCRIPT ARGS`` does. Whether it failed, and its traceback was shown."""
    argv, path = sys.argv, sys.path
    sys.argv, sys.path = [str(script), *arguments], [str(script.resolve().parent), *path[1:]]
    try:
        with patient.watched():
            runpy.run_path(str(script), run_name="__main__")
    except Enough:
        return False
    except SystemExit as ending:
        if isinstance(ending.code, str):
            sys.stderr.write(f"{ending.code}\n")  # as Python does
        return ending.code not in (None, 0)
    except Exception as error:  # noqa: BLE001  # whatever a script may raise
        _show(error, script)
        return True
    finally:
        sys.argv, sys.path = argv, path
    return False


def _show(error: Exception, script: Path) -> None:
    """Its traceback, from the script on: how it came to be run here is no help."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != str(script):
        trace = trace.tb_next
    traceback.print_exception(type(error), error, trace)
