"""FISTA in twenty lines: accelerated proximal gradient descent with ``plan.prox``.

min ‖y − Xw‖²/(2n) + Ω(w), on scikit-learn's diabetes data, beside its Lasso. The prox takes any
penalty that has one: try ``GroupLasso`` over correlated features. Source: Beck and Teboulle, A fast
iterative shrinkage-thresholding algorithm for linear inverse problems, 2009. Run it with
``python examples/jax_fista.py``; it needs jax and scikit-learn.
"""

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Lasso

from penalize import L1, Regularizer
from penalize.jax import regularize

jax.config.update("jax_enable_x64", True)

x, y = load_diabetes(return_X_y=True)
x, y = (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()
X, Y = jnp.asarray(x), jnp.asarray(y)


def data_loss(params):
    return ((X @ params["w"] - Y) ** 2).mean() / 2


def fista(regularizer: Regularizer, steps: int = 500):
    """The minimiser, from zero."""
    params = {"w": jnp.zeros(X.shape[1])}
    plan = regularize(params, {"w": regularizer})
    step = 1 / jnp.linalg.eigvalsh(X.T @ X / len(X))[-1]  # one over the gradient's Lipschitz bound

    def iterate(_, carry):
        params, ahead, t = carry
        moved = jax.tree.map(lambda w, g: w - step * g, ahead, jax.grad(data_loss)(ahead))
        new = plan.prox(moved, step)
        t_new = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        ahead = jax.tree.map(lambda a, b: a + (t - 1) / t_new * (a - b), new, params)
        return new, ahead, t_new

    start = (params, params, jnp.ones(()))
    params, _, _ = jax.jit(lambda: jax.lax.fori_loop(0, steps, iterate, start))()
    return np.asarray(params["w"])


w = fista(L1(0.05))
expected = Lasso(alpha=0.05, fit_intercept=False, tol=1e-14, max_iter=100_000).fit(x, y).coef_
apart = float(np.abs(w - expected).max())
print("  ours          ", np.round(w, 4))
print("  scikit-learn's", np.round(expected, 4))
print(f"{apart:.1e} apart, {(w == 0).sum()} and {(expected == 0).sum()} of {w.size} exact zeros")
