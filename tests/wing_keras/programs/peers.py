"""What Keras asks of its own regularizers and constraints, asked of those that stand for them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from reference import raises

from penalize import (
    L1,
    L1L2,
    L2,
    MaxNorm,
    MinMaxNorm,
    NonNegative,
    Orthogonal,
    Regularizer,
    RegularizerError,
    ShapeError,
    StrengthError,
    UnitNorm,
)
from penalize.keras import from_keras

RNG = np.random.default_rng(0)
W = RNG.normal(size=(4, 4)).astype("float32")
REGULARIZERS = [L1(0.1), L2(0.1), L1L2(0.1, 0.2), Orthogonal(0.1, "rows"), Orthogonal(0.1)]
CONSTRAINTS = [MaxNorm(3.0, groups=1), NonNegative(), UnitNorm(groups=0), MinMaxNorm(0.5, 2.0, 1)]


def number(value: Any) -> float:
    return float(keras.ops.convert_to_numpy(value))


def check_each_goes_through_keras_serialization() -> None:
    for r in (*REGULARIZERS, *CONSTRAINTS):
        assert keras.regularizers.get(r) is r
        written = keras.regularizers.serialize(r)
        assert keras.regularizers.deserialize(written) == r
        assert keras.regularizers.get(written) == r
        assert type(r).from_config(r.get_config()).get_config() == r.get_config()


def check_names_that_keras_knows() -> None:
    for name, ours in (("l1", L1(0.01)), ("l2", L2(0.01)), ("L1L2", L1L2(0.0, 0.0))):
        assert from_keras(keras.regularizers.get(name)) == ours
    orthogonal = keras.regularizers.get("orthogonal_regularizer")
    assert from_keras(orthogonal) == Orthogonal(0.01, "rows")


def check_values() -> None:
    x = keras.Variable(W)
    pairs: list[tuple[Regularizer, float]] = [
        (L1(0.1), 0.1 * np.abs(W).sum()),
        (L2(0.1), 0.1 * (W**2).sum()),
        (L1L2(0.1, 0.2), 0.1 * np.abs(W).sum() + 0.2 * (W**2).sum()),
        (L1L2(0.1, 0.0), number(L1(0.1)(x))),
        (L1L2(0.0, 0.1), number(L2(0.1)(x))),
        *((r, 0.0) for r in (L1(0.0), L2(0.0), L1L2(0.0, 0.0))),
    ]
    for r, expected in pairs:
        np.testing.assert_allclose(number(r(x)), expected, rtol=1e-6)
    for r in REGULARIZERS[:3]:
        assert number(r(keras.Variable(np.zeros((4, 4))))) == 0
        assert number(r(x)) == number(r(keras.Variable(-W)))
    for size in (10.0, 0.1):
        of_l1, of_l2 = (
            number(r(keras.Variable(np.full((4, 4), size)))) for r in (L1(1.0), L2(1.0))
        )
        assert (of_l2 > of_l1) == (size > 1)
    unit = W / np.linalg.norm(W, axis=1, keepdims=True)
    off_diagonal = np.abs(unit @ unit.T * (1 - np.eye(4)))
    np.testing.assert_allclose(
        number(Orthogonal(0.1, "rows")(x)), 0.1 * off_diagonal.sum() / 12, rtol=1e-5
    )


def check_arguments() -> None:
    raises(RegularizerError, "mode='invalid'", lambda: Orthogonal(0.01, "invalid"))
    raises(ShapeError, "(4, 4, 4)", lambda: Orthogonal(0.1)(keras.Variable(np.ones((4, 4, 4)))))
    for made in (L1(1), L1(1e-10), L1(1e6), L1(0)):
        assert type(made.strength) is float
    for wrong in ("a", float("nan"), float("inf"), -float("inf"), -1, -0.001, None, [0.1]):
        for kind in (L1, L2, Orthogonal):
            error = raises(StrengthError, kind.__name__, lambda k=kind, w=wrong: k(w))
            assert isinstance(error, ValueError)


def check_constraints() -> None:
    columns = np.array([[0.0, 0, 0], [1, 0, 0], [3, 0, 0], [3, 3, 3]]).T
    third = 2 / np.sqrt(3)
    expected = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [third, third, third]]).T
    of_keras = keras.constraints.MaxNorm(2.0)
    for r in (from_keras(of_keras), MaxNorm(2.0, groups=1)):
        found = keras.ops.convert_to_numpy(r.prox(keras.Variable(columns), 1.0))
        np.testing.assert_allclose(found, expected, atol=1e-6)
    w = RNG.random((100, 100)) * 100 - 50
    w[0, 0] = 0
    assert (from_keras(keras.constraints.NonNeg()).prox(w, 1.0) >= 0).all()
    lengths = np.linalg.norm(from_keras(keras.constraints.UnitNorm()).prox(w, 1.0), axis=0)
    np.testing.assert_allclose(lengths, 1.0)
    both = from_keras(keras.constraints.MinMaxNorm(0.2, 0.5)).prox(w, 1.0)
    lengths = np.linalg.norm(both, axis=0)
    assert (lengths >= 0.2 - 1e-9).all()
    assert (lengths <= 0.5 + 1e-9).all()


def check_how_optimizers_decay() -> None:
    """By lr·wd·w, as docs/units.md says, with three exceptions."""

    def after_a_step(kind: Any, shape: tuple[int, ...]) -> float:
        variable = keras.Variable(np.ones(shape, "float32"), name="w")
        optimizer = kind(learning_rate=0.1, weight_decay=0.5)
        optimizer.build([variable])
        optimizer.apply([keras.ops.zeros(shape)], [variable])
        return float(keras.ops.convert_to_numpy(variable).ravel()[0])

    base, otherwise = keras.optimizers.Optimizer, {"Ftrl": 0.0, "ScheduleFreeAdamW": 1.0}
    wrappers = ("LossScaleOptimizer", "MultiOptimizer")
    kinds = [k for k in vars(keras.optimizers).values() if isinstance(k, type)]
    seen = set()
    for kind in kinds:
        if not issubclass(kind, base) or kind is base or kind.__name__ in wrappers:
            continue
        seen.add(kind.__name__)
        kernel, bias = (after_a_step(kind, shape) for shape in ((2, 2), (2,)))
        expected = otherwise.get(kind.__name__, 0.95)
        np.testing.assert_allclose(kernel, expected, atol=1e-6, err_msg=kind.__name__)
        expected = 1 - 0.1 * 0.004 if kind.__name__ == "Muon" else expected
        np.testing.assert_allclose(bias, expected, atol=1e-6, err_msg=kind.__name__)
    assert {"SGD", "AdamW", "Lion", "Muon", "Ftrl"} <= seen
