"""Every way to apply the table, each run in a process of its framework.

Keras has one backend per process, so there are three; the other frameworks run beside their own.
"""

from __future__ import annotations

import functools
from importlib import import_module
from typing import NamedTuple

from keras_programs import BACKENDS, result

from agreement.problem import Run
from agreement.rules import RULES


class Route(NamedTuple):
    """A framework, and how the plan is applied there."""

    framework: str
    applied: str
    process: str
    program: str
    """``module.function``"""


REFERENCE = Route("PyTorch", "by hand, nothing of ours", "torch", "pytorch.written_by_hand")

_IN_KERAS = "`regularize(model, rules)`, then `fit`"

ROUTES = (
    Route("PyTorch", "`loss + plan.penalty()`", "torch", "pytorch.loss_term"),
    Route("PyTorch", "`plan.attach(optimizer)`", "torch", "pytorch.attached"),
    Route(
        "TensorFlow 1, a graph",
        "`regularized(optimizer, plan=plan)`",
        "tensorflow",
        "tensorflow1.run",
    ),
    Route("TensorFlow 2, a tape", "`loss + plan.penalty()`", "tensorflow", "tensorflow2.run"),
    Route("JAX", "`loss + plan.penalty(params)`", "jax", "trees.loss_term"),
    Route("JAX", "`optax.chain(plan.gradient(), optax.sgd(lr))`", "jax", "trees.chained"),
    Route("Keras on TensorFlow", _IN_KERAS, "tensorflow", "keras3.run"),
    Route("Keras on JAX", _IN_KERAS, "jax", "keras3.run"),
    Route("Keras on PyTorch", _IN_KERAS, "torch", "keras3.run"),
)


@functools.cache
def runs() -> dict[Route, Run]:
    """Every route, the reference first."""
    parts = [result(process, "agreement.routes.those_of_this_process") for process in BACKENDS]
    found = {route: run for part in parts for route, run in part.items()}
    return {route: found[route] for route in (REFERENCE, *ROUTES)}


def those_of_this_process() -> dict[Route, Run]:
    """The routes that run where Keras has the backend that it has here."""
    import keras

    here = keras.backend.backend()
    return {route: _run(route) for route in (REFERENCE, *ROUTES) if route.process == here}


def _run(route: Route) -> Run:
    module, _, function = route.program.partition(".")
    run: Run = getattr(import_module(f"agreement.{module}"), function)(RULES)
    return run
