"""Makes a path with a results file; killed by kill -9 when its K-th unit of work is written.

    path_runs.py FILE LOG HOW K

HOW is ``stacked`` (a unit is an epoch of the stack) or ``function`` (a run of a fit that writes
into LOG what it was called for). K is 0 for a run that is not killed; where it is negative, the
kill comes after the −K-th unit was written, else before.
"""

import os
import signal
import sys
from functools import partial
from pathlib import Path

import torch
from torch import nn

from penalize import L1
from penalize.selection import walk
from penalize.selection.store import Store
from penalize.torch import Training, path, regularize

file, log, how, kill_at = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])

torch.manual_seed(1)
x = torch.randn(40, 5)
y = (x[:, :1] - x[:, 1:2]).tanh()
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))
training = Training(
    x=x,
    y=y,
    loss=nn.MSELoss(),
    optimizer=partial(torch.optim.Adam, lr=0.02),
    epochs=4,
    batch_size=16,
)


def fit(plan, train, valid):
    with log.open("a") as out:
        out.write(f"{plan.rows[0].regularizer.strength!r} {sorted(valid.tolist())}\n")
    return training(plan, train, valid)


fit.samples = 40
units = 0


def counted(method):
    def wrapped(self, *args, **kwargs):
        global units
        units += 1
        if units == kill_at:  # between the work and the file
            os.kill(os.getpid(), signal.SIGKILL)
        method(self, *args, **kwargs)
        if units == -kill_at:  # or right after it
            os.kill(os.getpid(), signal.SIGKILL)

    return wrapped


Store.add = counted(Store.add)
if how == "stacked":
    walk.KEPT_EVERY = 0.0
    Store.keep = counted(Store.keep)
found = path(
    training if how == "stacked" else fit,
    regularize(model, L1(1.0)),
    [0.1, 0.03, 0.01],
    3,
    saved=file,
    progress=False,
)
assert (found.reason == "") == (how == "stacked"), found.reason
