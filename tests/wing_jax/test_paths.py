"""Paths in JAX: against scikit-learn, PyTorch, loops by hand; modules of Flax NNX; refusals."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from flax import nnx
from sklearn.datasets import load_diabetes
from sklearn.linear_model import lasso_path

from penalize import L1, L2, GroupLasso, ModelError, PathError, ResultsError, biases, kernels
from penalize.jax import Path, Training, geometric, path, regularize
from penalize.jax.selection.learner import TreeLearner

quiet = partial(path, progress=False)
X, Y = ((a - a.mean(0)) / a.std(0) for a in load_diabetes(return_X_y=True))
Y = Y[:, None]
FOLDS = [(range(0, 300), range(300, 442))]


def mean_square(output, target):
    return jnp.mean((output - target) ** 2)


def linear(params, x):
    return x @ params["kernel"] + params["bias"]


def lasso(**changes):
    settings = {
        "model": {"kernel": jnp.zeros((10, 1)), "bias": jnp.full(1, 0.3)},
        "apply": linear,
        "x": X,
        "y": Y,
        "loss": mean_square,
        "optimizer": optax.sgd,
        "learning_rate": 0.2,
        "epochs": 3000,
        "tolerance": 1e-11,
    }
    return Training(**{**settings, **changes})


def planned(training, rules=None):
    return regularize(training.model, L1(1.0) if rules is None else rules)


# --- what it finds ------------------------------------------------------------------------------


def test_the_path_is_that_of_scikit_learn_and_of_pytorch():
    training = lasso()
    found = quiet(training, planned(training), geometric(1.2, 0.1, 3), FOLDS)
    assert isinstance(found, Path)
    w = found.weights("kernel")[:, :, 0]
    _, wanted, _ = lasso_path(X, Y[:, 0], alphas=np.array(found.strengths) / 2, tol=1e-10)
    np.testing.assert_allclose(w, wanted.T, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(w == 0, wanted.T == 0)
    assert (w == 0).any()
    assert (w != 0).any()

    from penalize import torch as wing

    model = torch.nn.Linear(10, 1).double()
    there = wing.path(
        wing.Training(
            x=torch.as_tensor(X),
            y=torch.as_tensor(Y),
            loss=torch.nn.MSELoss(),
            optimizer=partial(torch.optim.SGD, lr=0.2),
            epochs=500,
        ),
        wing.regularize(model, L1(1.0)),
        found.strengths,
        FOLDS,
        progress=False,
    )
    np.testing.assert_allclose(there.weights("weight")[:, 0].numpy(), w, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(there.weights("weight")[:, 0].numpy() == 0, w == 0)
    ours, theirs = ([row.loss for row in each.rows] for each in (found, there))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    assert found.best == there.best


@pytest.mark.parametrize(("rules", "outputs"), [(L1(2.0), 1), (GroupLasso(1.0), 2)])
def test_a_grid_begins_at_the_least_strength_that_leaves_nothing(rules, outputs):
    y = np.concatenate([Y, X[:, :1] - 0.3 * Y], 1)[:, :outputs] + 0.7
    model = {"kernel": jnp.ones((10, outputs)), "bias": jnp.zeros(outputs)}
    training, plan = lasso(model=model, y=y), regularize(model, rules)
    top = TreeLearner(training, plan).strength_max()
    found = quiet(training, plan, [1.0001 * top, 0.98 * top], None)
    assert not found.weights("kernel")[0].any()
    assert found.weights("kernel")[1].any()


def test_a_deep_network_begins_where_each_parameter_would_be_zero_alone():
    """All at zero passes no gradient there."""
    rng = np.random.default_rng(0)
    model = {"a": {"kernel": rng.normal(size=(10, 4))}, "b": {"kernel": rng.normal(size=(4, 1))}}

    def apply(params, x):
        return jnp.tanh(x @ params["a"]["kernel"]) @ params["b"]["kernel"]

    training = lasso(model=model, apply=apply, epochs=1)
    strengths = quiet(training, regularize(model, L1(2.0)), 2, None, refit=False).strengths
    a, b = (model[name]["kernel"] for name in "ab")
    first = np.abs(X.T @ (-2 * Y / len(X)) @ b.T).max()
    second = np.abs(2 * np.tanh(X @ a).T @ Y / len(X)).max()
    assert strengths[0] == pytest.approx(max(first, second) / 2, rel=2e-5)
    assert strengths[1] == pytest.approx(strengths[0] / 1000)


# --- how it trains ------------------------------------------------------------------------------

RATE = optax.linear_schedule(0.1, 0.01, 6)
MODES = {
    "proximal": lambda plan: optax.chain(optax.sgd(RATE), plan.proximal(RATE)),
    "gradient": lambda plan: optax.chain(plan.gradient(), optax.sgd(RATE)),
    "decoupled": lambda plan: optax.chain(optax.sgd(RATE), plan.decoupled(RATE)),
    "halfspace": lambda plan: plan.halfspace(optax.sgd(RATE)),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_run_is_a_loop_by_hand_with_a_schedule(mode):
    """The second one begins the schedule anew, from the weights of the first."""
    training = lasso(mode=mode, learning_rate=RATE, epochs=5, tolerance=0.0)
    found = quiet(training, planned(training), [0.5, 0.1], None)
    params = training.model
    for place, strength in enumerate([0.5, 0.1]):
        transform = MODES[mode](planned(training, L1(strength)))
        state = transform.init(params)
        for _ in range(5):
            gradients = jax.grad(lambda p: mean_square(linear(p, X), Y))(params)
            updates, state = transform.update(gradients, state, params)
            params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(found.weights("kernel")[place], params["kernel"], atol=1e-8)


def test_batches_are_all_samples_once_in_an_order_of_the_seed():
    """With a linear loss each sample moves the weights by its own part, whenever it comes."""
    settings = {"epochs": 1, "batch_size": 100, "tolerance": 0.0}
    training = lasso(loss=lambda output, y: jnp.sum(output) / 100, learning_rate=1.0, **settings)
    found = quiet(training, planned(training), [0.0], None)
    np.testing.assert_allclose(found.weights("kernel")[0, :, 0], -X.sum(0) / 100, atol=1e-12)
    one, other = (
        quiet(lasso(seed=seed, **settings), planned(training), [0.0], None).weights("kernel")
        for seed in (0, 1)
    )
    assert not np.allclose(one, other)


def test_several_inputs_by_place_and_by_name():
    halves = {"left": X[:, :5], "right": X[:, 5:]}

    def apply(params, left, right):
        return linear(params, jnp.concatenate([left, right], 1))

    settings = {"epochs": 3, "learning_rate": 0.1, "tolerance": 0.0}
    whole, *others = (
        quiet(training, planned(training), [0.1], None)
        for training in (
            lasso(**settings),
            lasso(apply=apply, x=halves, **settings),
            lasso(apply=apply, x=tuple(halves.values()), **settings),
        )
    )
    for found in others:
        np.testing.assert_allclose(found.weights("kernel"), whole.weights("kernel"), atol=1e-12)
        assert found.rows[0].loss == pytest.approx(whole.rows[0].loss, abs=1e-12)


# --- modules of Flax NNX ------------------------------------------------------------------------


class Net(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(10, 4, rngs=rngs)
        self.out = nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, x):
        return self.out(jnp.tanh(self.hidden(x)))


class Normed(Net):
    def __init__(self, rngs):
        super().__init__(rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.2, rngs=rngs)

    def __call__(self, x):
        return self.out(self.dropout(self.norm(self.hidden(x))))


def test_a_module_with_running_statistics_and_dropout():
    """What draws at random begins anew in each run; statistics are of the run, and are loaded."""
    module = Normed(nnx.Rngs(0))
    before = nnx.state(module, nnx.Not(nnx.RngState))
    plan = regularize(module, L1(1.0))
    data = {"x": X.astype("f"), "y": Y.astype("f"), "learning_rate": 0.05}
    training = lasso(model=module, apply=None, epochs=3, tolerance=0.0, **data)
    found = quiet(training, plan, [0.01, 0.001], None, warm=False)
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(module, nnx.Not(nnx.RngState)))
    assert found.weights("norm.mean").shape == (2, 4)
    again = quiet(training, plan, [0.001], None).weights("hidden.kernel")[0]
    np.testing.assert_array_equal(again, found.weights("hidden.kernel")[1])
    loaded = found.load(0.001)
    assert loaded is module
    np.testing.assert_array_equal(module.norm.mean[...], found.weights("norm.mean")[1])
    module.eval()
    (row,) = [row for row in found.rows if row.fold == "all" and row.strength == 0.001]
    assert row.loss == pytest.approx(float(mean_square(module(data["x"]), Y)), rel=1e-5)


def test_only_what_was_planned_is_trained():
    params = {"kernel": jnp.zeros((10, 1)), "bias": jnp.full(1, 0.3), "steps": jnp.zeros((), int)}
    training = lasso(model=params)
    found = quiet(training, regularize(params, L1(1.0)), [0.1], None)
    assert found.load(0.1).keys() == params.keys()
    assert found.load(0.1)["steps"].dtype == params["steps"].dtype
    assert found.plan(0.1).rows[1].regularizer == L1(0.1)
    assert found.penalized == ["kernel"]


# --- files and refusals -------------------------------------------------------------------------


def test_a_path_goes_on_where_it_was(tmp_path, monkeypatch):
    training = lasso(model={"kernel": jnp.ones((10, 1), jnp.bfloat16), "bias": jnp.zeros(1)})
    args = training, planned(training), [0.4, 0.1], None
    whole = quiet(*args)
    run, made = TreeLearner.run, []

    def killed(self, task):
        made.append(task)
        if len(made) == 2:
            raise KeyboardInterrupt
        return run(self, task)

    with monkeypatch.context() as patch:
        patch.setattr(TreeLearner, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            quiet(*args, saved=tmp_path / "path.sqlite")
    resumed = quiet(*args, saved=tmp_path / "path.sqlite")
    assert resumed.weights("kernel").dtype == jnp.bfloat16
    np.testing.assert_array_equal(resumed.weights("kernel"), whole.weights("kernel"))
    with pytest.raises(ResultsError, match="has the results of something else"):
        quiet(lasso(learning_rate=0.1), *args[1:], saved=tmp_path / "path.sqlite")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"y": Y[:5]}, r"an x of shape \(442, 10\) and a y of shape \(5, 1\); expected as many"),
        ({"x": [[1.0]]}, r"x\[0\] that is no array, but a list; use jax.numpy.asarray"),
        ({"optimizer": optax.sgd(0.1)}, "for the optimizer one of the learning rate"),
        ({"loss": 0.5}, "Training got loss=0.5; expected a function"),
        ({"mode": "prox"}, "mode='prox'; expected one of"),
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 0.5}, "batch_size=0.5"),
        ({"tolerance": -1}, "tolerance=-1"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_a_training_of_something_else(changes, said):
    with pytest.raises(PathError, match=said):
        lasso(**changes)


def test_what_makes_no_path_is_refused():
    from penalize import torch as wing

    training = lasso()
    plan = planned(training)
    there = wing.Training(
        x=torch.as_tensor(X),
        y=torch.as_tensor(Y),
        loss=torch.nn.MSELoss(),
        optimizer=torch.optim.SGD,
    )
    elsewhere = wing.regularize(torch.nn.Linear(10, 1), L1(1.0))
    for make, said in {
        partial(quiet, there, plan): "Fit is a Training of penalize.torch; penalize.jax.path takes "
        "what penalize.jax.Training makes",
        partial(wing.path, training, elsewhere): "Fit is a Training of penalize.jax; pass",
        partial(quiet, training, elsewhere): "Plan is a Plan of penalize.torch; penalize.jax.path",
        partial(wing.path, there, plan): "Plan is a Plan of penalize.jax; pass what penalize.torch",
        partial(quiet, 0.1, plan): "Fit is 0.1; penalize.jax.path takes",
    }.items():
        with pytest.raises(PathError, match=re.escape(said)):
            make()
    with pytest.raises(PathError, match="The plan penalizes nothing"):
        quiet(training, planned(training, {kernels: None}))
    with pytest.raises(PathError, match="a dict, and no function that applies it; pass apply="):
        quiet(lasso(apply=None), plan)
    with pytest.raises(ModelError, match="unlike the one that was planned"):
        quiet(training, regularize({"kernel": jnp.zeros((10, 1)), "b": jnp.zeros(3)}, L1(1.0)))
    with pytest.raises(PathError, match="patience=0"):
        quiet(training, plan, patience=0)
    with pytest.raises(PathError, match="has the dual norm"):
        quiet(lasso(loss=lambda output, target: jnp.zeros(())), plan)
    found = quiet(training, planned(training, {biases: L2(1.0)}), [0.1], None)
    assert found.penalized == ["bias"]
    with pytest.raises(
        PathError, match=r"for models of PyTorch; load the weights by load\(which\)"
    ):
        found.compact(X, which=0.1)
