"""How runs of a Keras path are trained, where its grid begins, and what it refuses."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from reference import raises

from penalize import L1, L2, PathError, ResultsError
from penalize.keras import Training, path, plan_on, regularize
from penalize.keras.selection.learner import KerasLearner

_rng = np.random.default_rng(0)
X = _rng.normal(size=(50, 6)).astype("float32")
Y = np.tanh(X[:, :1] - X[:, 1:2]) + 0.5
FOLDS = [(range(35), range(35, 50))]


def network(*middle: Any) -> Any:
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(4, "tanh", name="a"), *middle, keras.layers.Dense(1, name="b")]
    model = keras.Sequential([keras.Input((6,)), *layers])
    rate = keras.optimizers.schedules.ExponentialDecay(0.05, 2, 0.5)
    model.compile(keras.optimizers.Adam(rate), "mse")
    return model


def check_a_run_is_fit_by_hand() -> None:
    """With the schedule from its beginning, in each mode; statistics and all."""
    training = Training(x=X, y=Y, epochs=2, batch_size=25)
    for mode in ("loss", "halfspace"):
        model = network(keras.layers.BatchNormalization(name="n"))
        found = path(
            training, regularize(model, L1(1.0), mode=mode), [0.1, 0.01], None, progress=False
        )
        mine = network(keras.layers.BatchNormalization(name="n"))
        mine.optimizer.build(mine.trainable_variables)
        plan = regularize(mine, L1(0.1), mode=mode)
        begun = [(v, np.array(keras.ops.convert_to_numpy(v))) for v in mine.optimizer.variables]
        for strength in (0.1, 0.01):
            for rows in training.batches(np.arange(50)):
                mine.train_on_batch(X[rows], Y[rows])
            for name, w in plan.variables().items():
                place = found.strengths.index(strength)
                value = keras.ops.convert_to_numpy(w)
                np.testing.assert_allclose(found.weights(name)[place], value, atol=1e-6)
            mean = keras.ops.convert_to_numpy(mine.layers[1].moving_mean)
            np.testing.assert_allclose(found.weights("n.moving_mean")[place], mean, atol=1e-6)
            plan.detach()
            for variable, value in begun if strength == 0.1 else []:
                variable.assign(value)
            plan = regularize(mine, L1(0.01), mode=mode)
            if mode == "halfspace":
                break  # its averages are among the variables of the optimizer


def check_batches_have_every_sample_once() -> None:
    training = Training(x=X, y=Y, epochs=2, batch_size=20)
    batches = list(training.batches(np.arange(5, 50)))
    assert [len(rows) for rows in batches] == [20, 20, 5, 20, 20, 5]
    for epoch in (batches[:3], batches[3:]):
        assert sorted(np.concatenate(epoch)) == list(range(5, 50))
    assert not np.array_equal(batches[0], batches[3])


def check_a_grid_begins_where_nothing_is_left() -> None:
    """For one layer the dual norm at zero, the bias fitted; for two where each is zero alone."""
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, name="out")])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    plan = regularize(model, L1(2.0), mode="proximal")
    training = Training(x=X, y=Y, epochs=1)
    top, _ = path(training, plan, 2, None, progress=False).strengths
    wanted = np.abs(2 * X.T @ (Y - Y.mean()) / 50).max() / 2
    np.testing.assert_allclose(top, wanted, rtol=2e-5)

    deep = network()
    deep.layers[1].kernel.regularizer = L1(7.0)  # it is declared, and not in the data's loss
    weights = [w.copy() for w in deep.get_weights()]
    plan = regularize(deep, L1(1.0))
    top, _ = path(training, plan, 2, None, progress=False).strengths
    a, bias, b, end = weights
    hidden = np.tanh(X @ a + bias)
    second = np.abs(2 * hidden.T @ (end - Y) / 50).max() / 7
    rest = 2 * (np.tanh(bias) @ b + end - Y) / 50
    first = np.abs(X.T @ (rest * (b[:, 0] * (1 - np.tanh(bias) ** 2)))).max()
    np.testing.assert_allclose(top, max(first, second), rtol=1e-4)
    for old, new in zip(weights, deep.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def check_several_inputs_and_a_score() -> None:
    left, right = keras.Input((3,), name="left"), keras.Input((3,), name="right")
    out = keras.layers.Dense(1, name="out")(keras.layers.Concatenate()([left, right]))
    model = keras.Model([left, right], out)
    model.compile(keras.optimizers.SGD(0.1), keras.losses.MeanSquaredError())
    plan = regularize(model, L1(1.0), mode="proximal")
    found = []
    for x in ((X[:, :3], X[:, 3:]), {"left": X[:, :3], "right": X[:, 3:]}):
        training = Training(x=x, y=Y, epochs=1, score=lambda y, output: np.abs(y - output).max())
        found.append(path(training, plan, [0.1], FOLDS, progress=False))
    np.testing.assert_array_equal(*(each.weights("out.kernel") for each in found))
    assert found[0].rows[1].score > found[0].rows[1].loss > 0


def check_a_path_goes_on_where_it_was() -> None:
    model = network()
    plan = regularize(model, L1(1.0), mode="proximal")
    args = Training(x=X, y=Y, epochs=1, batch_size=25), plan, [0.1, 0.01], None
    whole = path(*args, progress=False)
    run, made = KerasLearner.run, []

    def killed(self: Any, task: Any) -> Any:
        made.append(task)
        if len(made) == 2:
            raise KeyboardInterrupt
        return run(self, task)

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        file = Path(folder) / "path.sqlite"
        patch.setattr(KerasLearner, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            path(*args, progress=False, saved=file)
        assert plan.in_force
        patch.undo()
        resumed = path(*args, progress=False, saved=file)
        np.testing.assert_array_equal(resumed.weights("a.kernel"), whole.weights("a.kernel"))
        other = Training(x=X, y=Y, epochs=3, batch_size=25), *args[1:]
        raises(ResultsError, "something else", lambda: path(*other, saved=file, progress=False))


def check_refusals() -> None:
    model = network()
    plan = regularize(model, L1(1.0))
    training = Training(x=X, y=Y)
    for changes, said in {
        "{'y': Y[:3]}": "an x of shape (50, 6) and a y of shape (3, 1); expected as many samples",
        "{'x': [[1.0]]}": "x[0] that is no array, but a list; use numpy.asarray",
        "{'loss': 'mse'}": "loss='mse'; expected a function of y_true and y_pred",
        "{'epochs': 0}": "epochs=0",
        "{'seed': -1}": "seed=-1",
    }.items():
        settings = {"x": X, "y": Y, **eval(changes, {"Y": Y})}
        raises(PathError, said, lambda settings=settings: Training(**settings))
    raises(PathError, "Fit is 3; penalize.keras.path takes what", lambda: path(3, plan))
    raises(PathError, "Plan is 3; penalize.keras.path takes", lambda: path(training, 3))
    raises(PathError, "patience=0", lambda: path(training, plan, patience=0))
    plan.detach()
    nothing = regularize(model, {"a": None, "b": None})
    raises(PathError, "The plan penalizes nothing", lambda: path(training, nothing))
    nothing.detach()
    model.layers[0].kernel.regularizer = keras.regularizers.L1(0.1)
    plan = regularize(model, L2(1.0))
    said = "'a.kernel' declares L1 of Keras, whose strength is not the plan's to change"
    raises(PathError, said, lambda: path(training, plan, [0.1]))
    assert plan.in_force
    bare = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    raises(PathError, "compile it first", lambda: path(training, regularize(bare, L1(1.0))))
    bare.compile("sgd")
    said = "was compiled with the loss None; pass Training(loss="
    raises(PathError, said, lambda: path(training, plan_on(bare.layers[0].kernel)))
