"""The proximal step that a chain of optax really took; see :mod:`penalize.steps`.

Each function reads the state after the update. What a chain multiplies together is multiplied here.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from penalize import steps
from penalize.backends import jax as xp
from penalize.errors import ModeError, OptimizerError
from penalize.jax.chains import Link, Position
from penalize.jax.trees import arrays_of
from penalize.steps import Step, Taken


class Scaling(NamedTuple):
    """How far a constant gradient goes: a factor, over a denominator per element."""

    factor: Any = 1.0
    denominators: Mapping[str, Any] | None = None
    """By the name of the parameter."""

    def of(self, name: str) -> Step:
        """The step of one parameter."""
        held = self.denominators
        return Step(self.factor, None if held is None else held[name])


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
    return Scaling(steps.sgd(1.0, decay).factor)


def _scaling(of: Callable[[Any], Taken], seconds: Any) -> Scaling:
    """What a formula makes of each second moment."""
    taken = {name: of(second).step(xp) for name, second in arrays_of(seconds).items()}
    return Scaling(of(None).factor, {name: step.denominator for name, step in taken.items()})


def _adam(link: Link, count: Any) -> Scaling:
    s = link.settings
    count, b1, b2 = link.of_state("count"), s["b1"], s["b2"]
    kept: dict[str, Any] = {"eps": s["eps"], "inside": s["eps_root"]}
    if s["nesterov"]:
        kept |= {"betas": (b1, b2), "count": count, "momenta": (b1, b1), "product": b1**count}
        return _scaling(lambda nu: steps.nadam(1.0, nu, **kept), link.of_state("nu"))
    correction = 1 - b2**count
    return _scaling(
        lambda nu: steps.adam(1.0, nu, correction=correction, **kept), link.of_state("nu")
    )


def _amsgrad(link: Link, count: Any) -> Scaling:
    s = link.settings
    if s["bias_correction_nu"] and s["bias_correction_mu"]:
        return _scaling(
            lambda nu: steps.adam(1.0, nu, eps=s["eps"], inside=s["eps_root"]),
            link.of_state("nu_max"),
        )
    raise _unknown("scale_by_amsgrad without bias correction")


def _adamax(link: Link, count: Any) -> Scaling:
    return _scaling(lambda norm: steps.adamax(1.0, norm), link.of_state("nu"))  # with eps in it


def _rss(link: Link, count: Any) -> Scaling:
    eps = link.settings["eps"]
    sums = link.of_state("sum_of_squares")
    return _scaling(lambda total: steps.adagrad(1.0, total, inside=eps), sums)


def _rms(link: Link, count: Any) -> Scaling:
    s = link.settings
    kept: dict[str, Any] = {"inside" if s["eps_in_sqrt"] else "eps": s["eps"]}
    is_corrected = s["bias_correction"]
    kept["correction"] = 1 - s["decay"] ** (link.of_state("count") if is_corrected else count + 1)
    formula = steps.adam if is_corrected else steps.rmsprop
    return _scaling(lambda nu: formula(1.0, nu, **kept), link.of_state("nu"))


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


def scaling_of(where: Position, count: Any) -> Scaling:
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


def check_rate(where: Position, learning_rate: Any) -> None:
    """Raise :class:`OptimizerError` if the chain is seen to have another learning rate.

    Arrays, as ``inject_hyperparams`` makes them, may change; the step follows the chain.
    """
    with contextlib.suppress(jax.errors.ConcretizationTypeError):  # a schedule of traced values
        _check_rate(where, learning_rate)


def _check_rate(where: Position, learning_rate: Any) -> None:
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
