"""A strength chosen by Ray Tune, on one machine or many: each trial is a path at one strength.

Run it with ``python examples/ray_tune.py``; it needs ray[tune] and scikit-learn. For a study that
several machines share without a cluster see ``penalize.torch.tune``, which has Optuna do it.
"""

import tempfile
from functools import partial

import ray
import torch
from ray import tune
from sklearn.datasets import load_diabetes
from torch import nn

from penalize import L1
from penalize.torch import Training, path, regularize


def trial(config: dict) -> dict:
    """The held-out loss at one strength, over five folds that are trained side by side."""
    x, y = load_diabetes(return_X_y=True)
    x, y = (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()
    torch.manual_seed(0)
    training = Training(
        x=torch.tensor(x),
        y=torch.tensor(y)[:, None],
        loss=nn.MSELoss(),
        optimizer=partial(torch.optim.SGD, lr=0.1),
        epochs=200,
    )
    plan = regularize(nn.Linear(10, 1).double(), L1(config["strength"]))
    found = path(training, plan, [1.0], folds=5, refit=False, progress=False)
    return {"loss": found.summary[0].loss, "nonzero": found.summary[0].nonzero}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            trial,
            param_space={"strength": tune.grid_search([0.3, 0.1, 0.03, 0.01])},
            tune_config=tune.TuneConfig(metric="loss", mode="min"),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        best = tuner.fit().get_best_result()
    ray.shutdown()
    print(f"best strength {best.config['strength']}: loss {best.metrics['loss']:.4f}")
