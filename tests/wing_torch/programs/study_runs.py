"""One of several processes that work at one study."""

import os
import signal

from wing_torch.selection.problems import network, training

from penalize import L1, kernels, search
from penalize.torch import tune
from penalize.torch.selection import studies

RULES = {kernels: L1(search(1e-4, 1.0))}
FOLDS = [(range(40), range(40, 61))]
TRIALS = 12


class Booked:
    """A fit that keeps a book of its runs, one file for each, and what happens in the first."""

    def __init__(self, folder, first=lambda: None):
        self.folder = folder
        self.first = first
        self.runs = 0

    def __call__(self, plan, train, valid):
        self.runs += 1
        strength = plan.rows[0].regularizer.strength
        (self.folder / f"{os.getpid()}-{self.runs}").write_text(f"{strength!r}")
        if self.runs == 1:
            self.first()
        return training(epochs=2)(plan, train, valid)


def work(storage, fit, trials=TRIALS, **more):
    settings = {"trials": trials, "storage": storage, "progress": False, **more}
    return tune(fit, network(), RULES, FOLDS, **settings)


def process(all_four, storage, folder, is_killed):
    """All begin at once, and one is killed when each has a trial."""
    studies.LOOK = 0.1

    def first():
        all_four.wait()
        if is_killed:
            os.kill(os.getpid(), signal.SIGKILL)

    all_four.wait()
    work(storage, Booked(folder, first))
