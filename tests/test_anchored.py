"""Anchors: what a reference may be, where it comes from, and every message."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from penalize import (
    EWC,
    L1,
    L2,
    Anchored,
    AnchorError,
    ConfigError,
    GroupLasso,
    RegularizerError,
    everything,
    kernels,
    toward,
)
from penalize.regularizers.constants import Constant
from penalize.regularizers.place import Place
from penalize.torch import regularize

W = np.random.default_rng(0).normal(size=(2, 3))


def references() -> dict[str, Any]:
    import jax.numpy as jnp
    import tensorflow as tf

    return {
        "NumPy": W,
        "float32": W.astype(np.float32),
        "a list": W.tolist(),
        "PyTorch": torch.tensor(W),
        "a parameter": nn.Parameter(torch.tensor(W)),
        "bfloat16": torch.tensor(W).bfloat16(),
        "JAX": jnp.asarray(W),
        "TensorFlow": tf.constant(W),
        "a TensorFlow variable": tf.Variable(W),
    }


@pytest.mark.parametrize("kind", list(references()))
def test_an_array_of_any_framework(kind: str) -> None:
    r = toward(references()[kind], L2(1.0))
    tolerance = 0.02 if kind == "bfloat16" else 1e-6
    np.testing.assert_allclose(r.reference.numpy(), W, atol=tolerance)
    assert float(r(W)) == pytest.approx(0.0, abs=1e-4)
    assert r == toward(references()[kind], L2(1.0))
    assert hash(r) == hash(toward(references()[kind], L2(1.0)))
    assert type(r).from_config(json.loads(json.dumps(r.get_config()))) == r


def test_it_is_copied_and_does_not_change() -> None:
    source = torch.tensor(W)
    r = toward(source, L2(1.0))
    source.zero_()
    np.testing.assert_array_equal(r.reference.numpy(), W)
    with pytest.raises(ValueError, match="read-only"):
        r.reference.numpy()[0] = 1.0


def test_what_frameworks_keep_is_not_pickled() -> None:
    r = toward(W, L2(1.0))
    r(torch.tensor(W))
    assert r.reference.held
    again = pickle.loads(pickle.dumps(r))
    assert again == r
    assert not again.reference.held


def test_by_name() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)).double()
    state = {name: p + 1.0 for name, p in model.state_dict().items()}
    plan = regularize(model, {everything: toward(state, L2(1.0))})
    assert plan.breakdown() == {name: pytest.approx(p.numel()) for name, p in state.items()}
    slashes = {name.replace(".", "/"): p for name, p in state.items()}
    assert float(regularize(model, {everything: toward(slashes, L2(1.0))}).penalty().detach()) == 13
    assert repr(toward(state, L2(1.0))) == "toward(<4 arrays by name>, L2(1.0))"
    with pytest.raises(AnchorError, match=r"has no array for '1\.weight'; give it one, or exempt"):
        regularize(model, {kernels: toward({"0.weight": state["0.weight"]}, L2(1.0))})


def test_what_no_parameter_asks_for_is_passed_over() -> None:
    """BatchNorm counts its batches, AveragedModel its models; a module may save anything."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).double()
    state = {**model.state_dict(), "n_averaged": torch.tensor(0), "1._extra_state": b"what"}
    assert state["1.num_batches_tracked"].dtype == torch.int64
    fisher = {"0.weight": torch.ones(4, 3, 3, 3), "epoch": 3, "rng": torch.ones(2).byte()}
    for r in (toward(state, L2(0.01)), EWC(fisher, state)):
        plan = regularize(model, {kernels: r})
        with torch.no_grad():
            model[0].weight += 1.0
        assert plan.penalty().item() == pytest.approx(1.08 if r.strengths == () else 108.0)
        with torch.no_grad():
            model[0].weight -= 1.0
        assert type(r).from_config(json.loads(json.dumps(r.get_config()))) == r


def test_what_a_parameter_asks_for_is_not() -> None:
    model = nn.Linear(2, 3)
    r = toward({"weight": model.weight, "bias": torch.ones(3, dtype=torch.int64)}, L2(1.0))
    assert regularize(model, r).penalty().item() == 0.0
    with pytest.raises(AnchorError, match=r"no array for 'bias' \(What toward got as .*int64"):
        regularize(model, {everything: r})
    averaged = torch.optim.swa_utils.AveragedModel(model)
    with pytest.raises(AnchorError, match=r"for 'weight', but one for 'module\.weight'; give"):
        regularize(model, toward(averaged.state_dict(), L2(1.0)))


def test_groups_inside_are_resolved() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    plan = regularize(model, toward("start", GroupLasso(1.0)))
    assert repr(plan.targets()[0].regularizer).endswith("GroupLasso(1.0, groups=0))")
    assert plan.breakdown() == {"0.weight": 0.0, "1.weight": 0.0}


def test_a_proximal_step_arrives_at_the_anchor_exactly() -> None:
    p = toward(W, L1(1.0)).prox(W + np.array([0.3, -0.2, 5.0]), 0.5)
    np.testing.assert_array_equal(p[:, :2], W[:, :2])
    np.testing.assert_allclose(p[:, 2], W[:, 2] + 4.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: toward("begin", L2(1.0)),
            "What toward got as reference is .begin., a str .*; expected an array, a mapping",
        ),
        (lambda: toward(None, L2(1.0)), "reference is None, a NoneType"),
        (lambda: toward({}, L2(1.0)), r"reference is \{\}, a dict"),
        (lambda: toward({"w": "x"}, L2(1.0)), r"reference\['w'\] is 'x', a str"),
        (lambda: toward(np.ones(2, int), L2(1.0)), "A regularizer was given a NumPy array of dty"),
        (lambda: EWC("start", W), "EWC got as fisher is 'start', a str"),
        (lambda: EWC(-W, W), r"\(fisher\) with an element that is negative or not finite"),
        (lambda: EWC({"a": [1.0], "b": [np.nan]}, "start"), r"\(b\) with an element"),
        (lambda: EWC([1e39, np.inf], "start"), "negative or not finite; expected the mean of"),
    ],
)
def test_what_is_no_reference(make: Any, message: str) -> None:
    with pytest.raises(AnchorError, match=message):
        make()


def test_what_is_no_regularizer() -> None:
    with pytest.raises(
        RegularizerError, match="What toward got as its regularizer is 3; write toward"
    ):
        toward(W, 3)  # type: ignore[arg-type]


def test_on_a_bare_array() -> None:
    for r in (toward("start", L2(1.0)), EWC(np.ones((2, 3)), "start")):
        with pytest.raises(AnchorError, match="only a plan knows the value at the start"):
            r(W)
    with pytest.raises(AnchorError, match=r"of shape \(2, 3\) for a weight of \(3, 2\)"):
        toward(W, L2(1.0)).gradient(W.T)


def test_in_regularize() -> None:
    model = nn.Linear(2, 3)
    with pytest.raises(AnchorError, match=r"of shape \(2, 3\) for 'weight', whose shape is \(3, 2"):
        regularize(model, toward(W, L2(1.0)))
    with pytest.raises(AnchorError, match="needs the value of 'weight' at the start"):
        regularize(nn.Linear(2, 3, device="meta"), toward("start", L2(1.0)))
    with pytest.raises(
        AnchorError, match=r"is lazy and has no values yet; run one batch .*; regularize the model"
    ):
        regularize(nn.LazyLinear(3), {"weight": toward("start", L2(1.0))})
    with pytest.raises(AnchorError, match="it is not planned yet"):
        toward("start", L2(1.0)).resolve(Place(("w",)))


def test_an_abstract_tree_has_no_start() -> None:
    import jax
    import jax.numpy as jnp

    from penalize.jax import regularize as regularize_tree

    abstract = jax.eval_shape(lambda: {"w": jnp.ones((2, 2))})
    with pytest.raises(AnchorError, match="needs the value of 'w' at the start"):
        regularize_tree(abstract, toward("start", L2(1.0)))


def test_bad_configs() -> None:
    with pytest.raises(ConfigError, match="it needs a reference and a regularizer"):
        Anchored.from_config({"reference": "start"})
    with pytest.raises(ConfigError, match=r"EWC\.from_config cannot read 3"):
        EWC.from_config(3)  # type: ignore[arg-type]


def test_a_constant_prints_its_size() -> None:
    assert repr(toward(W, L1(1.0))) == "toward(<float64 2×3>, L1(1.0))"
    assert repr(Constant("float32", (), b"\0\0\0\0")) == "<float32 scalar>"


def test_what_inference_mode_makes_is_not_kept() -> None:
    w = torch.tensor(W + 1.0, requires_grad=True)
    r = toward(W, L2(1.0))
    with torch.inference_mode():
        assert float(r(w)) == pytest.approx(6.0)
    assert not r.reference.held
    r(w).backward()
    torch.testing.assert_close(w.grad, torch.full((2, 3), 2.0, dtype=torch.float64))
