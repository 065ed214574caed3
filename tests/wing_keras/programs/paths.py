"""Paths of Keras models against scikit-learn, on every backend."""

from __future__ import annotations

import keras
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.linear_model import lasso_path

from penalize import L1
from penalize.keras import Training, path, plan_on, regularize

X, Y = ((a - a.mean(0)) / a.std(0) for a in load_diabetes(return_X_y=True))
FOLDS = [(range(300), range(300, 442))]


def check_a_path_is_that_of_scikit_learn_and_leaves_the_model() -> None:
    model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(1, name="out")])
    model.compile(keras.optimizers.SGD(0.2), "mse")
    plan = regularize(model, L1(1.0), mode="proximal")
    before = model.get_weights()
    training = Training(x=X, y=Y[:, None], epochs=300, tolerance=1e-7)
    found = path(training, plan, [0.5, 0.2], FOLDS, progress=False)

    _, wanted, _ = lasso_path(X, Y, alphas=np.array(found.strengths) / 2, tol=1e-10)
    w = found.weights("out.kernel")[:, :, 0]
    np.testing.assert_allclose(w, wanted.T, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(w == 0, wanted.T == 0)
    assert (w == 0).any()

    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert plan.in_force
    assert int(model.optimizer.iterations) == 0
    at = found.plan(0.2)
    assert plan_on(model.layers[0].kernel) is at
    assert at.rows[0].regularizer == L1(0.2)
    found.load(0.2)
    np.testing.assert_array_equal(model.get_weights()[0][:, 0], w[1])
    (row,) = [row for row in found.rows if row.fold == "all" and row.strength == 0.2]
    np.testing.assert_allclose(row.loss, np.mean((model.predict(X, verbose=0) - Y[:, None]) ** 2))
    assert found.best == 0.2
