"""One door per penalty: a second plan, a decay of the optimizer's, and the models that have one."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import keras
import numpy as np
from fitting import X, around, differ, fit, network, same, weights
from keras import layers, optimizers
from reference import raises

from penalize import L1, L2, AppliedTwiceError
from penalize.keras import plan_on, regularize


def check_a_second_plan_is_refused() -> None:
    model = network()
    first = regularize(model, {"first": L2(0.1)})
    error = raises(AppliedTwiceError, "'first.kernel'", lambda: regularize(model, L1(0.1)))
    for part in ("by the plan of doors.py:", "Call detach() on the first one"):
        assert part in str(error)
    assert str(error).count("doors.py:") == 2
    assert plan_on(model.layers[0].kernel) is first
    raises(AppliedTwiceError, "plan of", lambda: regularize(model, L1(0.1), mode="proximal"))
    first.detach()
    assert plan_on(model.layers[0].kernel) is None
    regularize(model, L1(0.1))


def check_weight_decay_beside_an_l2() -> None:
    def adamw() -> keras.Model:
        return network(optimizer=optimizers.AdamW(0.01))

    naive, once = adamw(), network(optimizer=optimizers.AdamW(0.01, weight_decay=0.0))
    for model in (naive, once):
        model.layers[0].kernel.regularizer = keras.regularizers.L2(0.1)
        fit(model)
    differ(weights(naive), weights(once))  # decayed twice, and nobody says so
    for mode in ("loss", "proximal"):
        error = raises(
            AppliedTwiceError,
            "weight_decay=0.004 of AdamW",
            lambda mode=mode: regularize(adamw(), L2(0.1), mode=mode),
        )
        assert "L2(0.1) of the plan" in str(error)
        regularize(adamw(), L1(0.1), mode=mode)
    excluded = optimizers.AdamW(0.01)
    excluded.exclude_from_weight_decay(var_names=["kernel"])
    regularize(network(optimizer=excluded), L2(0.1))
    scaled = optimizers.LossScaleOptimizer(optimizers.AdamW(0.01))
    raises(AppliedTwiceError, "AdamW", lambda: regularize(network(optimizer=scaled), L2(0.1)))


def check_the_two_decays_of_muon() -> None:
    """One is that of two-dimensional kernels, the other that of all that is stepped as by Adam."""

    def decays(name: str, **arguments: Any) -> bool:
        model = network(optimizer=optimizers.Muon(0.1, **arguments))
        before = weights(model)
        zeros = [keras.ops.zeros(v.shape) for v in model.trainable_variables]
        model.optimizer.apply(zeros, model.trainable_variables)
        moved = [not np.allclose(a, b) for a, b in zip(before, weights(model), strict=True)]
        decayed = moved[0 if name == "first.kernel" else 1]
        model = network(optimizer=optimizers.Muon(0.1, **arguments))
        if decayed:
            argument = "weight_decay" if name == "first.kernel" else "adam_weight_decay"
            part = f"Compile with {argument}=0.0"
            raises(AppliedTwiceError, part, lambda: regularize(model, {name: L2(0.01)}))
        else:
            regularize(model, {name: L2(0.01)})
        return decayed

    assert decays("first.bias", weight_decay=None)  # its default, and of 0.004
    assert decays("first.bias", weight_decay=0.0)
    assert not decays("first.bias", weight_decay=0.01, adam_weight_decay=0.0)
    assert not decays("first.bias", weight_decay=0.01, adam_weight_decay=None)
    assert decays("first.kernel", weight_decay=0.01, adam_weight_decay=0.0)
    assert not decays("first.kernel", weight_decay=None)


def check_the_decays_of_several_optimizers_in_one() -> None:
    table = optimizers.OptimizerMap(optimizers.SGD(0.1))
    table[".*first.*"] = optimizers.AdamW(0.1)
    model = network(optimizer=optimizers.MultiOptimizer(table))
    for _ in ("not built", "built"):
        error = raises(
            AppliedTwiceError, "weight_decay=0.004 of AdamW", lambda: regularize(model, L2(0.1))
        )
        assert "'first.kernel'" in str(error)
        plan = regularize(model, {"second": L2(0.1)})
        fit(model)
        plan.detach()


def check_weight_decay_that_is_compiled_later() -> None:
    for regularizer, rules in ((None, L2(0.1)), (keras.regularizers.L2(0.1), None)):
        for mode in ("loss", "proximal"):
            model = network(regularizer, optimizers.SGD(0.1))
            regularize(model, rules, mode=mode)
            fit(model)
            before = weights(model)
            model.compile(optimizers.AdamW(0.01), "mse")
            error = raises(AppliedTwiceError, "weight_decay=0.004 of AdamW", lambda m=model: fit(m))
            assert f"with which the model {model.name!r} is compiled" in str(error)
            same(before, weights(model), atol=0)
            model.compile(optimizers.SGD(0.1), "mse")
            fit(model)
    model = network(optimizer=optimizers.SGD(0.1))
    regularize(model, L2(0.1))
    model.optimizer.weight_decay = 0.5
    raises(AppliedTwiceError, "weight_decay=0.5 of SGD", lambda: model.losses)
    model = network()
    regularize(model, L1(0.1))  # no L2, and so no second door
    model.compile(optimizers.AdamW(0.01), "mse")
    fit(model)


def check_weight_decay_of_a_model_around_a_part() -> None:
    part = network()

    def once() -> weakref.ref[keras.Model]:
        whole, _ = around(part)
        regularize(part, L2(0.1))
        whole.compile(optimizers.AdamW(0.01), "mse")
        raises(AppliedTwiceError, f"the model {whole.name!r} is compiled", lambda: fit(whole))
        return weakref.ref(whole)

    gone = once()
    gc.collect()
    assert gone() is None  # the plan does not keep it
    fit(part)


def check_a_model_that_is_out_of_scope_has_no_say() -> None:
    part = network()

    def once() -> None:
        whole, _ = around(part)
        whole.compile(optimizers.AdamW(0.01), "mse")
        fit(whole)

    gc.disable()
    try:
        once()
        regularize(part, L2(0.1))
    finally:
        gc.enable()


def check_models_are_found_when_the_collector_is_frozen() -> None:
    def step(ours: keras.Model, regularizer: Any) -> None:
        theirs, _ = around(network(regularizer))
        theirs.set_weights(ours.get_weights())
        for model in (ours, theirs):
            fit(model)
        same(weights(ours), weights(theirs), atol=0)

    class Garbage:
        def __init__(self) -> None:
            self.itself = self

    whole, part = around(network())
    fit(whole)
    gc.freeze()
    try:
        frozen, garbage = gc.get_freeze_count(), weakref.ref(Garbage())
        plan = regularize(part, L2(0.1))
        assert 0 < gc.get_freeze_count() <= frozen  # some of it is gone, and nothing came
        gc.collect()
        assert garbage() is None  # had it been frozen, it would stay for good
        step(whole, L2(0.1))
        plan.detach()
        step(whole, None)
        assert 0 < gc.get_freeze_count() <= frozen
    finally:
        gc.unfreeze()


def check_models_of_others_are_in_nobodys_way() -> None:
    class Unfinished(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dense = layers.Dense(2)

        @property
        def variables(self) -> Any:
            raise RuntimeError("not yet")

    class Cyclic(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.part = layers.Dense(2)
            self.part.whole = self

    class HalfMade(keras.Model):
        def __init__(self) -> None:
            others.append(self)
            raise RuntimeError("half way")

    others: list[Any] = [Unfinished(), Cyclic()]
    raises(RuntimeError, "half way", HalfMade)
    assert len(others) == 3
    model = network()
    regularize(model, L2(0.1)).detach()


def check_an_audit_sees_a_plan_in_force_once() -> None:
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    import penalize.tensorflow

    model = network()
    regularize(model, {"first": L2(0.1)})
    shown = penalize.tensorflow.regularize(model)
    assert {row.name: row.regularizer for row in shown.rows}["first.kernel"] == L2(0.1)

    def loss() -> Any:
        return tf.reduce_mean(model(X)) + sum(model.losses)

    assert [row.factor for row in penalize.tensorflow.audit(loss, shown)] == [1.0]
    assert len(model.losses) == 1
