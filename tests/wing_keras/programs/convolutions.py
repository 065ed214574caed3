"""Convolutions without their dead channels, where Keras computes in float64."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from compacted import RANDOM, TOLERANCE, apart, drawn, run, zeros
from keras import layers

from penalize.keras import compact


def network() -> Any:
    """Convolutions, norms, and a flattened map, with a dead unit or two in each."""
    model = drawn(
        keras.Sequential(
            [
                keras.Input((8, 8, 2)),
                layers.Conv2D(5, 3, name="a"),
                layers.BatchNormalization(name="norm"),
                layers.ReLU(negative_slope=0.1),
                layers.Conv2D(4, 3, padding="same", activation="sigmoid", name="b"),
                layers.MaxPooling2D(2),
                layers.SeparableConv2D(4, 2, activation="tanh", name="c"),
                layers.DepthwiseConv2D(2, depth_multiplier=2, name="d"),
                layers.Dropout(0.5),
                layers.Flatten(),
                layers.Dense(6, activation="sigmoid", name="e"),
                layers.Dense(3, activation="softmax", name="f"),
            ]
        )
    )
    get = model.get_layer
    zeros(get("a").kernel, np.s_[..., 1])  # not 0 behind the norm, before a border of zeros: stays
    zeros(get("norm").gamma, 3)
    zeros(get("norm").beta, 3)  # 0 there
    zeros(get("b").kernel, np.s_[..., [0, 2]])  # a half behind the sigmoid
    zeros(get("c").pointwise_kernel, np.s_[..., 1])
    zeros(get("e").kernel, np.s_[:, 2])
    zeros(get("f").kernel, 4)  # not read
    return model


def check_a_network() -> None:
    model, x = network(), RANDOM.standard_normal((4, 8, 8, 2))
    before = [w.copy() for w in model.get_weights()]
    smaller = compact(model, x[:2])
    assert [(row.name, row.before, row.after) for row in smaller] == [
        ("a.kernel", 5, 4),
        ("b.kernel", 4, 2),
        ("c.pointwise_kernel", 4, 3),
        ("e.kernel", 6, 4),
        ("f.kernel", 3, 3),
    ]
    stays = "it is a constant, not 0, and 'b.kernel' is applied at a border of zeros, where it"
    assert [*smaller[0].kept] == [f"{stays} would be another"]
    assert smaller.indices("d.kernel", 2).tolist() == [0, 2, 3]
    assert smaller.indices("d.kernel", 0) is None
    expected = run(model, x)
    assert apart(expected, run(smaller.model, x)) < TOLERANCE
    for layer in smaller.model.layers:
        if layer.name in "bcef":  # what the constants add is what makes it equal
            zeros(layer.bias, ...)
    assert apart(expected, run(smaller.model, x)) > 1e-3
    assert [type(layer) for layer in smaller.model.layers] == [type(a) for a in model.layers]
    assert [layer.name for layer in smaller.model.layers] == [a.name for a in model.layers]
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert smaller.model.count_params() == smaller.parameters[1] < smaller.parameters[0]
