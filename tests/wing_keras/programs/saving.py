"""What is saved, loaded and cloned; what LoRA does; and every refusal."""

from __future__ import annotations

import copy
import tempfile
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
from fitting import X, Y, around, fit, network, same, weights
from keras import layers, optimizers
from reference import raises

from penalize import (
    L1,
    L2,
    ArrayError,
    GroupLasso,
    ModeError,
    ModelError,
    NeverAppliedWarning,
    NoMatchError,
    NoStepError,
    RegularizerError,
    kernels,
    warmup,
)
from penalize.keras import from_keras, plan_on, regularize, to_keras


def saved_and_loaded(model: keras.Model) -> keras.Model:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return keras.models.load_model(path)


def penalties(model: keras.Model) -> list[float]:
    return [round(float(keras.ops.convert_to_numpy(loss)), 6) for loss in model.losses]


def check_a_plan_survives_saving_and_cloning() -> None:
    partition = GroupLasso(0.1, groups=[[0, 1, 2], list(range(3, 30))])
    for regularizer in (L1(0.1) + GroupLasso(0.2, "inputs"), partition):
        model = network()
        fit(model)
        regularize(model, {"first": regularizer})
        loaded = saved_and_loaded(model)
        assert penalties(loaded) == penalties(model)
        assert loaded.layers[0].kernel.regularizer == model.layers[0].kernel_regularizer
        clone = keras.models.clone_model(model)
        assert clone.layers[0].kernel.regularizer == model.layers[0].kernel_regularizer
        for one in (model, loaded):  # the optimizer's state was saved too
            fit(one)
        same(weights(model), weights(loaded))


def check_nested_layers_are_saved() -> None:
    inputs = keras.Input((5, 4))
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True))(inputs)
    x = layers.TimeDistributed(layers.Dense(3))(x)
    inner = keras.Model(inputs, x, name="inner")
    outer = keras.Input((5, 4))
    model = keras.Model(outer, layers.Conv1D(2, 3)(inner(outer)))
    plan = regularize(model, {kernels: L2(0.1)})
    assert "not saved" not in str(plan)
    loaded = saved_and_loaded(model)
    assert penalties(loaded) == penalties(model)
    assert len(model.losses) == 6


def check_what_is_not_saved_is_said() -> None:
    inputs = keras.Input((5, 4))
    model = keras.Model(inputs, layers.MultiHeadAttention(2, 3, name="mha")(inputs, inputs))
    plan = regularize(model, {"mha.query": L2(0.1)})
    assert str(plan).endswith(
        "not saved with the model: 'mha.query.kernel'; make the plan again after loading"
    )
    assert saved_and_loaded(model).losses == []


def check_a_proximal_plan_is_not_saved() -> None:
    model = network(optimizer=optimizers.SGD(0.1))
    regularize(model, L1(0.1), mode="proximal")
    loaded = saved_and_loaded(model)
    assert loaded.losses == []
    assert loaded.layers[0].kernel.constraint is None


def check_a_deep_copy_has_the_plan() -> None:
    """Keras saves and loads for it; a proximal plan is not saved, so that nothing shrank."""
    inputs = keras.Input((5, 4))
    for mode in ("proximal", "loss"):
        attention = layers.MultiHeadAttention(2, 3, name="mha")(inputs, inputs)
        model = keras.Model(inputs, layers.Dense(1, name="last")(attention))
        model.compile(optimizers.SGD(0.1), "mse")
        rules = {"mha": L1(0.5), "last": L2(0.1) if mode == "loss" else L1(0.2)}
        plan = regularize(model, rules, mode=mode)
        twin = copy.deepcopy(model)
        theirs = plan_on(twin.layers[-1].kernel)
        assert theirs is not None
        assert theirs is not plan
        assert theirs.mode == mode
        assert {r.name: r.regularizer for r in theirs.rows} == {
            r.name: r.regularizer for r in plan.rows
        }
        batch = np.ones((4, 5, 4)), np.ones((4, 5, 1))
        for one in (model, twin, further := copy.deepcopy(twin)):
            one.train_on_batch(*batch)
        same(weights(model), weights(twin))
        same(weights(model), weights(further))
        theirs.detach()
        assert "__deepcopy__" not in vars(twin)
        assert plan_on(copy.deepcopy(twin).layers[-1].kernel) is None
        assert plan.in_force


def check_a_deep_copy_of_a_model_around() -> None:
    model, part = around(network(optimizer=optimizers.SGD(0.1)))
    plan = regularize(part, {"first": L2(0.1)})
    twin = copy.deepcopy(model)
    theirs = plan_on(twin.layers[-1].layers[0].kernel)
    assert [r.name for r in theirs.rows if r.regularizer] == [f"{part.name}.first.kernel"]
    for one in (model, twin):
        fit(one)
    same(weights(model), weights(twin))
    plan.detach()
    compiled = network(optimizer=optimizers.SGD(0.1))
    regularize(compiled, L1(0.1), mode="proximal")
    compiled.optimizer.clipnorm = 1.0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        twin = copy.deepcopy(compiled)
    said = [str(w.message) for w in caught if w.category is NeverAppliedWarning]
    assert len(said) == 1
    assert f"The copy of {compiled.name!r} has not the plan of saving.py:" in said[0]
    assert "not exact under clipnorm=1.0 of SGD" in said[0]
    assert plan_on(twin.layers[0].kernel) is None


def check_a_schedule_is_saved_and_followed_by_a_plan_alone() -> None:
    if keras.backend.backend() == "jax":
        return  # a schedule in the loss is refused there
    model = network(optimizer=optimizers.SGD(0.1))
    plan = regularize(model, {"first": L2(0.1) * warmup(40), "second": L2(0.1)})
    assert str(plan).endswith(
        "saved with a schedule, which a plan alone follows: 'first.kernel'; make the plan again "
        "after loading"
    )
    fit(model)
    loaded = saved_and_loaded(model)
    raises(NoStepError, "follows a schedule", lambda: loaded.evaluate(X, Y, verbose=0))
    regularize(loaded)  # what is declared
    for one in (model, loaded):
        fit(one)
    same(weights(model), weights(loaded))
    same(weights(copy.deepcopy(model)), weights(model))
    twin = copy.deepcopy(model)
    for one in (model, twin):
        fit(one)
    same(weights(model), weights(twin))


def check_lora_before_the_plan() -> None:
    model = network(keras.regularizers.L2(0.01))
    model.layers[0].enable_lora(2)
    plan = regularize(model, {kernels: L1(0.1)})
    rows = {row.name: row for row in plan.rows}
    kernel, factor = rows["first.kernel"], rows["first.lora_kernel_a"]
    assert kernel.regularizer is None
    assert "LoRA trains lora_kernel_a and lora_kernel_b instead" in kernel.note
    assert "skipped: frozen" in kernel.note
    # Keras has put the kernel's own regularizer on the factors, and the plan says so.
    assert factor.regularizer == L2(0.01)
    assert "acts on the factor, not on the kernel" in factor.note
    plain = network()
    plain.layers[0].enable_lora(2)
    plan = regularize(plain, L1(0.1))
    assert list(plan.breakdown()) == ["second.kernel"]  # rules for kernels pass the factors over


def check_lora_after_the_plan() -> None:
    model = network()
    plan = regularize(model, {"first": L2(0.1)})
    model.layers[0].enable_lora(2)
    rows = {row.name: row for row in plan.rows}
    assert rows["first.kernel"].regularizer is None
    assert rows["first.lora_kernel_a"].regularizer == L2(0.1)
    assert rows["first.lora_kernel_a"].declared_at == "Keras, after the plan was made"
    assert set(plan.breakdown()) == {"first.lora_kernel_a", "first.lora_kernel_b"}
    total = float(keras.ops.convert_to_numpy(plan.penalty()))
    np.testing.assert_allclose(total, sum(penalties(model)), rtol=1e-5)
    plan.detach()
    assert model.losses == []
    assert model.layers[0].lora_kernel_a.regularizer is None


def check_models_that_cannot_be_read() -> None:
    unbuilt = keras.Sequential([layers.Dense(2)])
    raises(
        ModelError,
        "This Sequential is not built; build or call it first",
        lambda: regularize(unbuilt, L2(0.1)),
    )

    class Lazy(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = layers.Dense(2, name="used"), layers.Dense(2, name="unused")

        def call(self, x: Any) -> Any:
            return self.used(x)

    lazy = Lazy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras notices too
        lazy(X)
    raises(
        ModelError,
        "This Lazy is not built: 'unused' has no variables yet; build or call it first",
        lambda: regularize(lazy, L2(0.1)),
    )
    raises(ModelError, "got a dict as the model", lambda: regularize({}, L2(0.1)))
    empty = keras.Sequential([keras.Input((2,)), layers.Flatten()])
    raises(ModelError, "has no trainable variables", lambda: regularize(empty, L2(0.1)))


def check_a_failed_plan_changes_nothing() -> None:
    model = network()
    raises(NoMatchError, "nearest", lambda: regularize(model, {"frist": L2(0.1)}))
    raises(ModeError, "There is no mode 'x'", lambda: regularize(model, L2(0.1), mode="x"))
    assert model.losses == []
    assert all(v.regularizer is None for v in model.variables)
    assert all(plan_on(v) is None for v in model.variables)
    # Also where setting fails half way.
    second = type(model.layers[1].kernel)

    class Stubborn(second):  # type: ignore[misc, valid-type]
        @property
        def regularizer(self) -> Any:
            return None

        @regularizer.setter
        def regularizer(self, value: Any) -> None:
            raise RuntimeError("stubborn")

    model.layers[1].kernel.__class__ = Stubborn
    raises(RuntimeError, "stubborn", lambda: regularize(model, L2(0.1)))
    assert model.layers[0].kernel.regularizer is None
    assert model.layers[0].kernel_regularizer is None
    assert plan_on(model.layers[0].kernel) is None


def check_only_floating_variables() -> None:
    class Counter(layers.Layer):
        def build(self, shape: Any) -> None:
            self.kernel = self.add_weight(
                shape=(2, 2), dtype="int32", initializer="ones", name="kernel"
            )
            self.built = True

        def call(self, x: Any) -> Any:
            return x

    if keras.backend.backend() == "torch":
        return  # Keras itself refuses such a variable there
    layer = Counter()
    layer.build((None, 2))
    raises(ArrayError, "'kernel' of dtype int32", lambda: regularize(layer, L2(0.1)))


def check_conversions_that_do_not_exist() -> None:
    raises(RegularizerError, "from_keras got <lambda>", lambda: from_keras(lambda w: w))
    raises(RegularizerError, "to_keras got GroupLasso(0.1)", lambda: to_keras(GroupLasso(0.1)))
    scheduled = L1(0.1) * warmup(5)
    raises(RegularizerError, "to_keras got L1(0.1) * warmup", lambda: to_keras(scheduled))
    raises(RegularizerError, "to_keras got 3", lambda: to_keras(3))  # type: ignore[arg-type]


def check_a_plan_of_half_precision() -> None:
    layer = layers.Dense(4, dtype="float16", kernel_initializer=keras.initializers.Constant(100.0))
    layer.build((None, 64))
    plan = regularize(layer, L2(0.01))
    np.testing.assert_allclose(plan.breakdown()["kernel"], 0.01 * 64 * 4 * 1e4, rtol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (loss,) = layer.losses
    assert np.isfinite(float(keras.ops.convert_to_numpy(loss)))
