"""The proximal step that a chain of optax really took; see :mod:`penalize.steps`.

Each function reads the state after the update. What a chain multiplies together is multiplied here.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from penalize.errors import ModeError, OptimizerError
from penalize.jax.chains import Link, Place
from penalize.jax.trees import arrays_of
from penalize.steps import SLACK


class Scaling(NamedTuple):
    """How far a constant gradient goes: a factor, over a denominator per element."""

    factor: Any = 1.0
    denominators: Mapping[str, Any] | None = None
    """By the name of the parameter."""


_RATES = {"scale": "step_size", "scale_by_schedule": "step_size_fn"}
"""What multiplies by a rate, and what it calls it."""


def _rate(link: Link) -> Any:
    return link.settings[_RATES[link.kind]]


def _scale(link: Link, count: Any) -> Scaling:
    return Scaling(_rate(link))


def _schedule(link: Link, count: Any) -> Scaling:
    return Scaling(_rate(link)(link.of_state("count") - 1))


def _trace(link: Link, count: Any) -> Scaling:
    decay = link.settings["decay"]
    if isinstance(decay, float | int) and decay >= 1:
        raise _unknown(f"momentum {decay!r}, which adds up gradients without end,")
    # Also with Nesterov's: a constant gradient enters 1 + μ/(1 − μ) times.
    return Scaling(1 / (1 - decay))


def _adam(link: Link, count: Any) -> Scaling:
    s = link.settings
    count, b1 = link.of_state("count"), s["b1"]
    factor: Any = 1.0
    if s["nesterov"]:
        # A constant gradient g has the first moment (1 − b₁ᵗ)·g.
        factor = b1 * (1 - b1**count) / (1 - b1 ** (count + 1)) + (1 - b1) / (1 - b1**count)
    corrected = {k: v / (1 - s["b2"] ** count) for k, v in arrays_of(link.of_state("nu")).items()}
    return Scaling(factor, _rooted(corrected, s))


def _amsgrad(link: Link, count: Any) -> Scaling:
    s = link.settings
    if s["bias_correction_nu"] and s["bias_correction_mu"]:
        return Scaling(1.0, _rooted(arrays_of(link.of_state("nu_max")), s))
    raise _unknown("scale_by_amsgrad without bias correction")


def _adamax(link: Link, count: Any) -> Scaling:
    return Scaling(1.0, arrays_of(link.of_state("nu")))


def _rss(link: Link, count: Any) -> Scaling:
    sums = arrays_of(link.of_state("sum_of_squares"))
    return Scaling(1.0, {k: jnp.sqrt(v + link.settings["eps"]) for k, v in sums.items()})


def _rms(link: Link, count: Any) -> Scaling:
    s = link.settings
    nu = arrays_of(link.of_state("nu"))
    root: Any = 1.0
    if s["bias_correction"]:
        nu = {k: v / (1 - s["decay"] ** link.of_state("count")) for k, v in nu.items()}
    else:
        # It does not correct its average for the zero that it began with. Here the denominator is
        # the corrected one, which compares with a gradient, and the factor undoes it.
        root = jnp.sqrt(1 - s["decay"] ** (count + 1))
    eps = s["eps"]
    if s["eps_in_sqrt"]:
        return Scaling(1 / root, {k: jnp.sqrt(v + eps) / root for k, v in nu.items()})
    return Scaling(1 / root, {k: (jnp.sqrt(v) + eps) / root for k, v in nu.items()})


def _rooted(squares: Mapping[str, Any], s: Mapping[str, Any]) -> dict[str, Any]:
    return {k: jnp.sqrt(v + s["eps_root"]) + s["eps"] for k, v in squares.items()}


_KINDS: dict[str, Callable[[Link, Any], Scaling]] = {
    "scale": _scale,
    "scale_by_schedule": _schedule,
    "trace": _trace,
    "scale_by_adam": _adam,
    "scale_by_amsgrad": _amsgrad,
    "scale_by_adamax": _adamax,
    "scale_by_rms": _rms,
    "scale_by_rss": _rss,
}
KNOWN = "sgd (with momentum), adam, adamw, nadam, amsgrad, adamax, rmsprop and adagrad"


def scaling_of(where: Place, count: Any) -> Scaling:
    """The step that was taken by what stands before the proximal transform.

    Raises:
        OptimizerError: it does not stand last in a chain.
        ModeError: the step of what stands before it is not known.
    """
    if not where.chained:
        raise OptimizerError(
            "the transform plan.proximal(...) is updated outside of an optax.chain, so it cannot "
            "know the step that was taken",
            "write optax.chain(optax.adam(learning_rate), plan.proximal(learning_rate))",
        )
    total = Scaling(-1.0)  # updates are added, and go against the gradient
    varies = is_scaled = False
    for link in where.before:
        if link.harmless:
            if is_scaled and link.limits:
                raise _unknown(f"{link.kind} behind what scales the gradient")
            continue
        is_scaled = True
        if link.kind not in _KINDS:
            raise _unknown(link.kind)
        if link.kind == "trace" and varies:
            # Its sum has earlier rates in it.
            raise _unknown("momentum behind a learning rate that may change")
        varies |= link.kind in _RATES and not isinstance(_rate(link), float | int)
        found = _KINDS[link.kind](link, count)
        if found.denominators is not None and total.denominators is not None:
            raise _unknown("two adaptive transforms in one chain")
        total = Scaling(total.factor * found.factor, found.denominators or total.denominators)
    return total


def _unknown(kind: str) -> ModeError:
    return ModeError(
        "the transform plan.proximal(...) needs the step that was really taken, and that of "
        f"{kind} is not known",
        f"use {KNOWN}, in one chain with it, or plan.gradient()",
    )


_PROBES = (0, 1, 10, 100, 1_000, 10_000)


def check_rate(where: Place, learning_rate: Any) -> None:
    """Raise :class:`OptimizerError` if the chain is seen to have another learning rate.

    Arrays, as ``inject_hyperparams`` makes them, may change; the step follows the chain.
    """
    with contextlib.suppress(jax.errors.ConcretizationTypeError):  # a schedule of traced values
        _check_rate(where, learning_rate)


def _check_rate(where: Place, learning_rate: Any) -> None:
    rates = [_rate(link) for link in where.before if link.kind in _RATES]
    if any(isinstance(rate, jax.Array) for rate in [learning_rate, *rates]):
        return
    with jax.ensure_compile_time_eval():
        for count in _PROBES:
            taken = -math.prod(float(_at(rate, count)) for rate in rates)
            given = float(_at(learning_rate, count))
            if not math.isclose(taken, given, rel_tol=1e-5):
                raise OptimizerError(
                    f"the transform plan.proximal(...) was given the learning rate {given:.6g} (at "
                    f"step {count}), and stands in a chain that has {taken:.6g}",
                    "give both the same one",
                )


def _at(rate: Any, count: int) -> Any:
    return rate(count) if callable(rate) else rate


def bounded(scaling: Scaling, name: str, pull: Any) -> Any:
    """The step of one parameter, with a floor of Ω's pull / SLACK under the denominator."""
    if scaling.denominators is None:
        return scaling.factor
    return scaling.factor / jnp.maximum(scaling.denominators[name], pull / SLACK)
