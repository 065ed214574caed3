"""One program, run on TensorFlow 1's own vocabulary and on ours: the same names, values, errors.

Each program is written once, against whatever vocabulary it is given.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow
import torch

from penalize.torch import tf1

tf = tensorflow.compat.v1

ARRAY = np.array([[0.5, -1.0, 2.0], [3.0, 0.25, -0.125]])
FLOATS = {"float32": (tf.float32, torch.float32), "float64": (tf.float64, torch.float64)}


class Outcome(NamedTuple):
    variables: dict[str, tuple[int, ...]]
    dtypes: list[str]
    trainable: list[str]
    penalties: list[float]
    total: float
    returned: list[Any]


Program = Callable[[Any], Any]


def on_tensorflow(program: Program, float_: str) -> Outcome:
    words = SimpleNamespace(
        **{name: getattr(tf, name) for name in WORDS},
        float=FLOATS[float_][0],
        int32=tf.int32,
        l1=lambda s: lambda w: tf.constant(s, w.dtype.base_dtype) * tf.reduce_sum(tf.abs(w)),
        l2=lambda s: lambda w: tf.constant(s, w.dtype.base_dtype) * tf.nn.l2_loss(w),
        filled=tf.constant_initializer,
        zeros=tf.zeros_initializer(),
        tensor=tf.constant,
    )
    with tf.Graph().as_default(), tf.Session() as session:
        with tf.variable_scope(tf.get_variable_scope(), dtype=words.float):
            returned = program(words) or []
        session.run(tf.global_variables_initializer())
        variables = tf.global_variables()
        losses = tf.losses.get_regularization_losses()
        return Outcome(
            {v.op.name: tuple(v.shape.as_list()) for v in variables},
            [v.dtype.base_dtype.name for v in variables],
            [v.op.name for v in tf.trainable_variables()],
            [float(session.run(tf.convert_to_tensor(loss))) for loss in losses],
            float(session.run(tf.losses.get_regularization_loss())),
            [r if isinstance(r, str | int) else session.run(r).tolist() for r in returned],
        )


def on_torch(program: Program, float_: str) -> Outcome:
    words = SimpleNamespace(
        **{name: getattr(tf1, name) for name in WORDS},
        float=FLOATS[float_][1],
        int32=torch.int32,
        l1=tf1.contrib.layers.l1_regularizer,
        l2=tf1.contrib.layers.l2_regularizer,
        filled=lambda value: lambda shape, dtype: torch.full(shape, value, dtype=dtype),
        zeros=torch.zeros,
        tensor=torch.tensor,
    )
    with tf1.VariableStore() as store:
        with tf1.variable_scope(tf1.get_variable_scope(), dtype=words.float):
            returned = program(words) or []
        names = {id(v): name for name, v in store.named_parameters()}
        variables = tf1.global_variables()
        return Outcome(
            {names[id(v)]: tuple(v.shape) for v in variables},
            [str(v.dtype).removeprefix("torch.") for v in variables],
            [names[id(v)] for v in tf1.trainable_variables()],
            [loss.item() for loss in tf1.losses.get_regularization_losses()],
            tf1.losses.get_regularization_loss().item(),
            [r if isinstance(r, str | int) else r.tolist() for r in returned],
        )


WORDS = (
    "AUTO_REUSE",
    "GraphKeys",
    "add_to_collection",
    "fixed_size_partitioner",
    "get_collection",
    "get_variable",
    "get_variable_scope",
    "global_variables",
    "no_regularizer",
    "trainable_variables",
    "variable_scope",
)

AGREEING: dict[str, Program] = {}
FAILING: dict[str, Program] = {}


def agrees(program: Program) -> Program:
    AGREEING[program.__name__] = program
    return program


def fails(program: Program) -> Program:
    FAILING[program.__name__] = program
    return program


@pytest.mark.parametrize("float_", FLOATS)
@pytest.mark.parametrize("program", AGREEING.values(), ids=AGREEING)
def test_agrees(program: Program, float_: str) -> None:
    expected, found = on_tensorflow(program, float_), on_torch(program, float_)
    rtol = 1e-6 if float_ == "float32" else 1e-14
    assert found._replace(penalties=[], total=0.0) == expected._replace(penalties=[], total=0.0)
    np.testing.assert_allclose(found.penalties, expected.penalties, rtol=rtol)
    np.testing.assert_allclose(found.total, expected.total, rtol=rtol)


@pytest.mark.parametrize("program", FAILING.values(), ids=FAILING)
def test_fails_alike(program: Program) -> None:
    kinds = ValueError, TypeError, RuntimeError
    with pytest.raises(kinds) as theirs:
        on_tensorflow(program, "float32")
    kind = next(kind for kind in kinds if isinstance(theirs.value, kind))
    with pytest.raises(kind) as ours:
        on_torch(program, "float32")
    assert type(ours.value).__module__ == "penalize.errors"


def test_the_harness_sees_a_difference() -> None:
    def program(v: Any) -> None:
        v.get_variable("a" if v.int32 is torch.int32 else "b", [2], initializer=v.filled(1.0))

    assert on_tensorflow(program, "float32") != on_torch(program, "float32")


def a(v: Any, name: str = "w", **kwargs: Any) -> Any:
    return v.get_variable(name, [2, 3], initializer=v.filled(0.5), **kwargs)


# --- regularizers ---------------------------------------------------------------------------


@agrees
def no_losses(v: Any) -> None:
    a(v)


@agrees
def regularizer_argument(v: Any) -> None:
    a(v, regularizer=v.l2(0.1))


@agrees
def regularizer_of_the_scope(v: Any) -> None:
    with v.variable_scope("s", regularizer=v.l1(0.1)):
        a(v)
        a(v, "v")


@agrees
def inner_scope_overrides(v: Any) -> None:
    with v.variable_scope("s", regularizer=v.l1(0.1)):
        a(v, "before")
        with v.variable_scope("t", regularizer=v.l2(10.0)):
            a(v)
        a(v, "after")


@agrees
def argument_overrides_the_scope(v: Any) -> None:
    with v.variable_scope("s", regularizer=v.l1(0.1)):
        a(v, regularizer=v.l2(7.0))


@agrees
def none_inherits(v: Any) -> None:
    with (
        v.variable_scope("s", regularizer=v.l1(0.1)),
        v.variable_scope("t", regularizer=None),
        v.variable_scope("u"),
    ):
        a(v, regularizer=None)


@agrees
def no_regularizer_disables(v: Any) -> None:
    with v.variable_scope("s", regularizer=v.l1(0.1)):
        a(v, "out", regularizer=v.no_regularizer)
        a(v, "in")
        with v.variable_scope("t", regularizer=v.no_regularizer):
            a(v)
            a(v, "again", regularizer=v.l2(1.0))


@agrees
def biases_and_untrained_too(v: Any) -> None:
    with v.variable_scope("s", regularizer=v.l1(0.1)):
        a(v, "weights")
        v.get_variable("biases", [3], initializer=v.filled(2.0))
        v.get_variable("moving_mean", [3], initializer=v.filled(3.0), trainable=False)


@agrees
def a_regularizer_that_gives_none(v: Any) -> None:
    with v.variable_scope("s", regularizer=lambda w: None):
        a(v)


@agrees
def a_regularizer_that_looks_at_the_shape(v: Any) -> None:
    with v.variable_scope("s", regularizer=lambda w: v.l2(1.0)(w) if len(w.shape) > 1 else None):
        a(v)
        v.get_variable("b", [3], initializer=v.filled(2.0))


@agrees
def set_regularizer_acts_from_there_on(v: Any) -> None:
    with v.variable_scope("s") as scope:
        a(v, "before")
        scope.set_regularizer(v.l1(0.5))
        a(v, "after")


@agrees
def reuse_adds_no_second_entry(v: Any) -> list[Any]:
    with v.variable_scope("s", regularizer=v.l1(0.1)):
        first = a(v)
    with v.variable_scope("s", reuse=True):
        again = a(v)
    return [int(first is again)]


@agrees
def auto_reuse_adds_no_second_entry(v: Any) -> list[Any]:
    found = []
    for _ in range(3):
        with v.variable_scope("s", reuse=v.AUTO_REUSE, regularizer=None):
            found.append(a(v, regularizer=None))
    return [len({id(w) for w in found})]


@agrees
def a_scope_that_is_entered_later_keeps_its_regularizer(v: Any) -> None:
    with v.variable_scope("s", regularizer=v.l2(0.1)) as scope:
        a(v)
    with v.variable_scope("other", regularizer=v.l1(100.0)), v.variable_scope(scope):
        a(v, "v")


@agrees
def a_scope_that_is_entered_later_with_another(v: Any) -> None:
    with v.variable_scope("s", regularizer=v.l2(0.1)) as scope:
        a(v)
    with v.variable_scope(scope, regularizer=v.l1(100.0)):
        a(v, "v")
    with v.variable_scope(scope):
        a(v, "u")


# --- names and scopes -----------------------------------------------------------------------


@agrees
def nested_names(v: Any) -> list[Any]:
    names = []
    a(v, "root")
    with v.variable_scope("s") as s, v.variable_scope("t/u") as t:
        a(v)
        a(v, "deep/er")
        names += [s.name, t.name, v.get_variable_scope().name]
    return [*names, v.get_variable_scope().name]


@agrees
def a_captured_scope_leaves_the_current_one(v: Any) -> list[Any]:
    with v.variable_scope("s") as scope:
        a(v)
    with v.variable_scope("other"):
        with v.variable_scope(scope) as again:
            a(v, "v")
            with v.variable_scope("t"):
                a(v)
        a(v)
    return [again.name]


@agrees
def default_names_are_unique(v: Any) -> list[Any]:
    names = []
    for _ in range(3):
        with v.variable_scope(None, default_name="dense") as scope:
            a(v)
            names.append(scope.name)
    with v.variable_scope("dense", default_name="unused") as scope:
        names.append(scope.name)
    return names


@agrees
def default_names_start_anew_below_a_scope(v: Any) -> list[Any]:
    names = []
    for outer in ("net", "net", "other"):
        with v.variable_scope(outer, reuse=v.AUTO_REUSE):
            for _ in range(2):
                with v.variable_scope(None, "dense") as scope:
                    a(v)
                    names.append(scope.name)
    return names


@agrees
def default_names_around_a_captured_scope(v: Any) -> list[Any]:
    names = []
    with v.variable_scope("net") as net, v.variable_scope(None, "dense"):
        a(v)
    for _ in range(2):
        with v.variable_scope(net, reuse=v.AUTO_REUSE):
            for _ in range(2):
                with v.variable_scope(None, "dense") as scope:
                    a(v)
                    names.append(scope.name)
    with v.variable_scope("net"), v.variable_scope(None, "dense") as scope:
        names.append(scope.name)
    return names


@agrees
def default_name_after_a_scope_of_that_name(v: Any) -> list[Any]:
    with v.variable_scope("dense"):
        a(v)
    with v.variable_scope("dense_1"):
        a(v)
    with v.variable_scope(None, "dense") as scope:
        a(v)
    return [scope.name]


@agrees
def one_scope_object_entered_twice(v: Any) -> list[Any]:
    block = v.variable_scope(None, default_name="dense")
    with block as first:
        a(v)
    with block as second:
        a(v, "v")
    return [first.name, second.name]


@agrees
def an_error_leaves_the_scope(v: Any) -> list[Any]:
    with pytest.raises(KeyError), v.variable_scope("s"), v.variable_scope("t"):
        raise KeyError
    return [v.get_variable_scope().name]


@agrees
def what_a_scope_tells(v: Any) -> list[Any]:
    with v.variable_scope("s/t", reuse=v.AUTO_REUSE) as scope:
        scope.set_caching_device(None)
        scope.set_use_resource(True)
        scope.set_initializer(v.filled(2.0))
        told = scope.caching_device, scope.use_resource, scope.constraint, scope.regularizer
        v.get_variable("w", [2], collections=[v.GraphKeys.LOCAL_VARIABLES], trainable=0)
        found = [len(scope.local_variables()), len(scope.trainable_variables())]
        return [scope.original_name_scope, str(told), *found]


@fails
def left_before_the_scope_inside(v: Any) -> None:
    with v.variable_scope("a"):
        outer = v.variable_scope("b")
        outer.__enter__()
        with v.variable_scope("c"):
            outer.__exit__(None, None, None)


@fails
def a_kept_scope_left_before_the_scope_inside(v: Any) -> None:
    with v.variable_scope("a") as kept:
        pass
    outer = v.variable_scope(kept)
    outer.__enter__()
    v.variable_scope("c").__enter__()
    outer.__exit__(None, None, None)


@fails
def left_twice(v: Any) -> None:
    block = v.variable_scope("a")
    with block:
        pass
    block.__exit__(None, None, None)


@fails
def entered_inside_of_itself(v: Any) -> None:
    block = v.variable_scope("a")
    with block, block:
        pass


@fails
def a_default_name_that_is_no_string(v: Any) -> None:
    with v.variable_scope(None, 5):
        pass


def _named(name: str) -> dict[str, Program]:
    def scope(v: Any) -> None:
        with v.variable_scope(name):
            pass

    def default(v: Any) -> None:
        with v.variable_scope(None, name):
            pass

    return {
        f"{name!r} as variable": lambda v: a(v, name),
        f"{name!r} as scope": scope,
        f"{name!r} as default": default,
    }


for _name in ("a b", "a$", "/a", "a:0", "_a", "ä"):
    FAILING.update(_named(_name))


# --- reuse ----------------------------------------------------------------------------------


@agrees
def reuse_variables_from_there_on(v: Any) -> list[Any]:
    with v.variable_scope("s") as scope:
        first = a(v)
        scope.reuse_variables()
        again = a(v)
    with v.variable_scope("s"):
        a(v, "new")
    return [int(first is again)]


@agrees
def reuse_is_inherited(v: Any) -> list[Any]:
    with v.variable_scope("s"), v.variable_scope("t"):
        first = a(v)
    with v.variable_scope("s", reuse=True), v.variable_scope("t", reuse=False):
        again = v.get_variable("w")
    return [int(first is again)]


@agrees
def auto_reuse_makes_and_shares(v: Any) -> list[Any]:
    with v.variable_scope("s", reuse=v.AUTO_REUSE), v.variable_scope("t"):
        first, again, other = a(v), a(v), a(v, "v")
    return [int(first is again), int(first is other)]


@agrees
def a_captured_scope_keeps_its_reuse(v: Any) -> list[Any]:
    with v.variable_scope("s", reuse=v.AUTO_REUSE) as scope:
        first = a(v)
    with v.variable_scope(scope):
        return [int(first is a(v))]


@agrees
def a_shape_with_unknown_sizes_shares(v: Any) -> list[Any]:
    first = a(v)
    with v.variable_scope(v.get_variable_scope(), reuse=True):
        return [int(v.get_variable("w", [None, 3]) is first)]


@fails
def exists_already(v: Any) -> None:
    a(v)
    a(v)


@fails
def does_not_exist(v: Any) -> None:
    with v.variable_scope("s", reuse=True):
        a(v)


@fails
def made_after_reuse_variables(v: Any) -> None:
    with v.variable_scope("s") as scope:
        scope.reuse_variables()
        a(v)


@fails
def shared_with_another_shape(v: Any) -> None:
    a(v)
    with v.variable_scope(v.get_variable_scope(), reuse=True):
        v.get_variable("w", [3, 2])


@fails
def shared_with_another_rank(v: Any) -> None:
    a(v)
    with v.variable_scope(v.get_variable_scope(), reuse=True):
        v.get_variable("w", [2])


@fails
def shared_with_another_dtype(v: Any) -> None:
    a(v)
    with v.variable_scope(v.get_variable_scope(), reuse=True):
        a(v, dtype=v.int32)


@fails
def a_constant_shared_without_its_dtype(v: Any) -> None:
    with v.variable_scope("s", reuse=v.AUTO_REUSE):
        for _ in range(2):
            v.get_variable("w", initializer=ARRAY)


@fails
def reuse_of_a_default_name(v: Any) -> None:
    with v.variable_scope(None, "s", reuse=True):
        pass


@fails
def no_name_at_all(v: Any) -> None:
    with v.variable_scope(None):
        pass


@fails
def a_name_that_is_no_string(v: Any) -> None:
    with v.variable_scope(5):
        pass


@fails
def another_reuse(v: Any) -> None:
    with v.variable_scope("s", reuse="maybe"):
        pass


@fails
def another_auxiliary_name_scope(v: Any) -> None:
    with v.variable_scope("s", auxiliary_name_scope="no"):
        pass


# --- values ---------------------------------------------------------------------------------


@agrees
def a_number_as_initializer(v: Any) -> list[Any]:
    return [v.get_variable("w", initializer=0.5), v.get_variable("step", initializer=7)]


@agrees
def a_list_as_initializer(v: Any) -> list[Any]:
    return [v.get_variable("w", initializer=[[0.5, 1.0]]), v.get_variable("v", initializer=[1, 2])]


@agrees
def an_array_as_initializer(v: Any) -> list[Any]:
    return [v.get_variable("w", initializer=ARRAY, regularizer=v.l2(0.1))]


@agrees
def a_tensor_as_initializer(v: Any) -> list[Any]:
    return [v.get_variable("w", initializer=v.tensor(ARRAY.tolist()))]


@agrees
def a_function_without_arguments(v: Any) -> list[Any]:
    return [v.get_variable("w", initializer=lambda: v.tensor([1.0, 2.0]))]


@agrees
def initializer_of_the_scope(v: Any) -> list[Any]:
    with v.variable_scope("s", initializer=v.filled(3.0)):
        with v.variable_scope("t"):
            first = v.get_variable("w", [2])
        second = v.get_variable("w", [2], initializer=v.filled(4.0))
    return [first, second]


@agrees
def dtype_of_the_scope(v: Any) -> list[Any]:
    with v.variable_scope("s", dtype=v.int32), v.variable_scope("t"):
        return [
            v.get_variable("w", [2]),
            v.get_variable("v", [2], dtype=v.float, initializer=v.zeros),
        ]


@agrees
def integers_start_at_zero(v: Any) -> list[Any]:
    return [v.get_variable("step", [], dtype=v.int32, trainable=False)]


@agrees
def a_size_as_shape(v: Any) -> list[Any]:
    return [v.get_variable("w", 3, initializer=v.filled(1.5))]


@agrees
def a_scalar(v: Any) -> list[Any]:
    return [v.get_variable("w", [], initializer=v.filled(1.5), regularizer=v.l2(3.0))]


@fails
def shape_and_value(v: Any) -> None:
    v.get_variable("w", [2, 3], initializer=ARRAY)


@fails
def value_of_another_dtype(v: Any) -> None:
    v.get_variable("w", initializer=ARRAY, dtype=v.int32)


VALUES: dict[str, Any] = {
    "a dictionary": {},
    "a set": {1, 2},
    "an object": object(),
    "None in a list": [1.0, None],
    "a word in a list": [1.0, "a"],
    "rows of two lengths": [[1.0, 2.0], [3.0]],
    "an array of objects": np.array([object()]),
}
for _kind, _value in VALUES.items():
    FAILING[f"{_kind} as initializer"] = lambda v, _value=_value: v.get_variable(
        "w", initializer=_value
    )
    FAILING[f"{_kind} from an initializer"] = lambda v, _value=_value: v.get_variable(
        "w", initializer=lambda: _value
    )
for _kind, _value in {"none": None, "a word": "a", "a dictionary": {}}.items():
    FAILING[f"{_kind} for a shape"] = lambda v, _value=_value: v.get_variable(
        "w", [2], initializer=lambda shape, dtype: _value
    )
for _shape in ("ab", [2.5], [2.0], ["2"], [True], [[2]]):
    FAILING[f"the shape {_shape!r}"] = lambda v, _shape=_shape: v.get_variable(
        "w", _shape, initializer=v.filled(1.0)
    )
for _regularizer in ("l2", 0.1):
    FAILING[f"the regularizer {_regularizer!r}"] = lambda v, _regularizer=_regularizer: a(
        v, regularizer=_regularizer
    )


@fails
def initializer_gives_another_dtype(v: Any) -> None:
    v.get_variable("w", [2], initializer=lambda shape, dtype: v.tensor([1, 2]))


@agrees
def initializer_gives_an_array_of_another_dtype(v: Any) -> list[Any]:
    return [v.get_variable("w", [2], initializer=lambda shape, dtype: np.ones(2, np.float32))]


@agrees
def a_complex_number(v: Any) -> None:
    v.get_variable("w", initializer=1j)


@fails
def a_number_as_name(v: Any) -> None:
    a(v, 3)  # type: ignore[arg-type]


@fails
def neither_shape_nor_initializer(v: Any) -> None:
    v.get_variable("w")


@fails
def a_shape_with_unknown_sizes_makes_nothing(v: Any) -> None:
    v.get_variable("w", [None, 3])


@fails
def a_negative_size(v: Any) -> None:
    v.get_variable("w", [-2, 3])


@fails
def initializer_needs_a_shape(v: Any) -> None:
    v.get_variable("w", initializer=lambda shape, dtype: v.filled(1.0)(shape, dtype=dtype))


@fails
def initializer_gives_another_shape(v: Any) -> None:
    v.get_variable("w", [2], initializer=lambda shape, dtype: v.tensor([1.0, 2.0, 3.0]))


# --- custom getters -------------------------------------------------------------------------


@agrees
def a_getter_that_renames(v: Any) -> None:
    def getter(getter: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        return getter(name + "_suffix", *args, **kwargs)

    with v.variable_scope("s", custom_getter=getter, regularizer=v.l2(0.1)):
        a(v)
    a(v, "argument", custom_getter=getter)


@agrees
def a_getter_that_computes(v: Any) -> list[Any]:
    def doubled(getter: Any, *args: Any, **kwargs: Any) -> Any:
        return 2 * getter(*args, **kwargs)

    with v.variable_scope("s", custom_getter=doubled, regularizer=v.l1(0.1)):
        return [a(v)]


@agrees
def nested_getters(v: Any) -> list[Any]:
    def adding(number: float) -> Any:
        def getter(getter: Any, name: str, *args: Any, **kwargs: Any) -> Any:
            return number + 10 * getter(f"{name}_{number:g}", *args, **kwargs)

        return getter

    with v.variable_scope("s", custom_getter=adding(1.0)) as scope:
        with v.variable_scope("t", custom_getter=adding(2.0)):
            both = a(v)
        argument = a(v, "v", custom_getter=adding(3.0))
    with v.variable_scope(scope, custom_getter=adding(4.0)):
        return [both, argument, a(v, "u")]


@agrees
def a_getter_sees_what_was_resolved(v: Any) -> list[Any]:
    seen: list[Any] = []

    def getter(getter: Any, *args: Any, **kwargs: Any) -> Any:
        seen.extend([kwargs["name"], str(kwargs["reuse"]), int(kwargs["regularizer"] is r)])
        return getter(*args, **{**kwargs, "regularizer": None, "trainable": False})

    r = v.l1(1.0)
    with v.variable_scope("s", custom_getter=getter, regularizer=r):
        a(v)
    return seen


@agrees
def a_getter_that_shares(v: Any) -> list[Any]:
    def sharing(getter: Any, *args: Any, **kwargs: Any) -> Any:
        return getter(*args, **{**kwargs, "reuse": v.AUTO_REUSE})

    first = a(v)
    return [int(first is a(v, custom_getter=sharing))]


@fails
def a_getter_that_is_not_callable(v: Any) -> None:
    a(v, custom_getter="getter")


# --- collections ----------------------------------------------------------------------------


@agrees
def variables_in_collections(v: Any) -> list[Any]:
    keys = v.GraphKeys
    a(v, "model", collections=[keys.GLOBAL_VARIABLES, keys.MODEL_VARIABLES])
    a(v, "untrained", trainable=False, collections=[keys.GLOBAL_VARIABLES, "mine"])
    a(v, "default")
    return [len(v.get_collection(k)) for k in (keys.MODEL_VARIABLES, "mine", "unknown")]


@agrees
def values_in_collections(v: Any) -> list[Any]:
    for value in ("text", 5, "text"):
        v.add_to_collection("mine", value)
    return [*v.get_collection("mine"), len(v.get_collection("mine", scope="t"))]


@agrees
def collections_of_a_scope(v: Any) -> list[Any]:
    with v.variable_scope("a", regularizer=v.l1(1.0)) as scope:
        a(v)
        with v.variable_scope("b"):
            a(v)
            a(v, "v", trainable=False)
    with v.variable_scope("c", regularizer=v.l1(1.0)):
        a(v)
    keys = v.GraphKeys
    counts = [
        [
            len(v.global_variables(s)),
            len(v.trainable_variables(s)),
            len(v.get_collection(keys.REGULARIZATION_LOSSES, s)),
        ]
        for s in ("a", "a/b", "a/", "a/b/w", "c", "d", "", None)
    ]
    inside = [len(scope.global_variables()), len(scope.trainable_variables())]
    return [str(counts), *inside, len(scope.get_collection(keys.REGULARIZATION_LOSSES))]


@fails
def collections_that_are_no_list(v: Any) -> None:
    a(v, collections="variables")


# --- partitioners: the checks; the shards are another story ----------------------------------


def cut(v: Any, name: str = "w", partitions: Any = (2, 1), **kwargs: Any) -> Any:
    return a(v, name, partitioner=lambda shape, dtype: partitions, **kwargs)


@agrees
def a_scalar_is_not_cut(v: Any) -> list[Any]:
    return [
        v.get_variable("w", [], initializer=v.filled(1.0), partitioner=v.fixed_size_partitioner(3))
    ]


@fails
def a_partitioner_that_is_not_callable(v: Any) -> None:
    a(v, partitioner=3)


@fails
def a_partitioner_that_gives_no_sequence(v: Any) -> None:
    cut(v, partitions=2)


@fails
def a_partitioner_of_another_rank(v: Any) -> None:
    cut(v, partitions=[2])


@fails
def a_partitioner_that_gives_zero(v: Any) -> None:
    cut(v, partitions=[0, 1])


@fails
def a_partitioner_that_gives_no_integers(v: Any) -> None:
    cut(v, partitions=[1.5, 1])


@fails
def a_partitioner_that_gives_more_shards_than_rows(v: Any) -> None:
    cut(v, partitions=[5, 1])


@fails
def a_partitioner_along_two_axes(v: Any) -> None:
    cut(v, partitions=[2, 3])


@fails
def a_partitioner_without_a_shape(v: Any) -> None:
    v.get_variable("w", initializer=ARRAY, partitioner=v.fixed_size_partitioner(2))


@fails
def cut_and_exists_already(v: Any) -> None:
    cut(v)
    cut(v)


@fails
def cut_and_does_not_exist(v: Any) -> None:
    with v.variable_scope("s", reuse=True):
        cut(v)


@fails
def cut_otherwise(v: Any) -> None:
    with v.variable_scope("s", reuse=v.AUTO_REUSE):
        cut(v, partitions=[2, 1])
        cut(v, partitions=[1, 3])


@fails
def cut_and_then_not(v: Any) -> None:
    with v.variable_scope("s", reuse=v.AUTO_REUSE):
        cut(v)
        a(v)


@fails
def not_cut_and_then_cut(v: Any) -> None:
    with v.variable_scope("s", reuse=v.AUTO_REUSE):
        a(v)
        cut(v)


@fails
def cut_with_another_shape(v: Any) -> None:
    with v.variable_scope("s", reuse=v.AUTO_REUSE):
        cut(v)
        v.get_variable("w", [4, 3], partitioner=lambda shape, dtype: (2, 1))
