"""A path of six runs, and a fit that kills the process that it runs in."""

import dataclasses
import functools
import os
import signal
from pathlib import Path

import torch
from torch import nn
from wing_torch.selection.problems import network, training

from penalize import L1
from penalize.torch import path, regularize

FOLDS = [(range(30), range(30, 61)), (range(30, 61), range(30))]


def paths(fit, **more):
    """With dropout, so that what is drawn at random matters."""
    plan = regularize(network(nn.Tanh(), nn.Dropout(0.5)), L1(1.0))
    return path(fit, plan, [0.1, 0.01], FOLDS, **{"warm": False, "progress": False, **more})


def same(one, other):
    for ours, theirs in zip(one.rows, other.rows, strict=True):
        assert dataclasses.replace(ours, seconds=0.0) == dataclasses.replace(theirs, seconds=0.0)
    assert all(torch.equal(one.weights(name), other.weights(name)) for name in one.penalized)


class Killed:
    """A fit that kills the process that it runs in, from its run ``first`` on, ``times`` times."""

    def __init__(self, folder, first=0, times=1):
        self.folder = folder
        self.first = first
        self.times = times

    def __call__(self, plan, train, valid):
        if self.first <= counted(self.folder / "run") < self.first + self.times:
            os.kill(os.getpid(), signal.SIGKILL)
        return training(epochs=2)(plan, train, valid)


def counted(name):
    """How often this has been asked, of all processes."""
    count = 0
    while True:
        try:
            Path(f"{name}{count}").touch(exist_ok=False)
            return count
        except FileExistsError:
            count += 1


@functools.cache
def alone():
    return paths(training(epochs=2))
