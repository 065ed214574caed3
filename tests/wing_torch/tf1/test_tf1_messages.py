"""Every message of the vocabulary: what was found, where, what was expected."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

from penalize import (
    L0,
    NoGradientError,
    NonNegative,
    PenalizeError,
    PenaltyError,
    ScopeError,
    VariableError,
)
from penalize.torch import tf1
from penalize.torch.tf1 import AUTO_REUSE, get_collection, get_variable, variable_scope


def shared(make: dict[str, Any], share: dict[str, Any], reuse: Any = True) -> None:
    get_variable("w", **make)
    with variable_scope(tf1.get_variable_scope(), reuse=reuse):
        get_variable("w", **share)


def left_early() -> None:
    outer = variable_scope("a")
    outer.__enter__()
    with variable_scope("b"):
        outer.__exit__(None, None, None)


def twice(block: Any) -> None:
    with block, block:
        pass


def mixed() -> Any:
    layers = tf1.contrib.layers
    return layers.sum_regularizer([layers.l1_regularizer(0.1), L0(0.1)])


def opened(*args: Any, **kwargs: Any) -> None:
    with variable_scope(*args, **kwargs):
        pass


def cut(partitions: Any) -> Callable[..., Any]:
    return lambda shape, dtype: partitions


MESSAGES: list[tuple[Callable[[], Any], type[PenalizeError], str]] = [
    (
        lambda: opened_and(lambda: get_variable("w", [2]), "s", regularizer="l2"),
        ScopeError,
        "Variable 's/w' got regularizer='l2'; expected a callable.",
    ),
    (
        lambda: get_variable("", [2]),
        VariableError,
        "A variable was asked for with name=''; expected a name such as 'weights'.",
    ),
    (
        lambda: get_variable(3, [2]),
        ScopeError,
        "A variable was asked for with name=3; expected a name such as 'weights'.",
    ),
    (
        lambda: get_variable("w", [2], regularizer="l2"),
        ScopeError,
        "Variable 'w' got regularizer='l2'; expected a callable.",
    ),
    (
        lambda: (get_variable("w", [2]), get_variable("w", [2])),
        VariableError,
        "Variable 'w' already exists; expected reuse=AUTO_REUSE or reuse=True on the "
        "variable_scope around it; on PyTorch the model's code runs in every step.",
    ),
    (
        lambda: shared({"shape": [2]}, {"shape": [3]}),
        VariableError,
        "Variable 'w' is asked for with shape (3,); expected shape (2,), which it has.",
    ),
    (
        lambda: shared({"shape": [2]}, {"dtype": torch.int32}),
        VariableError,
        "Variable 'w' is asked for with dtype torch.int32; expected dtype torch.float32, with "
        "which it was made.",
    ),
    (
        lambda: shared({"shape": [2]}, {"shape": [2], "partitioner": cut([2])}),
        VariableError,
        "Variable 'w' is asked for with partitions [2]; expected partitions None, with which it "
        "was made.",
    ),
    (
        lambda: shared({"shape": [2], "partitioner": cut([2])}, {"shape": [2]}, AUTO_REUSE),
        VariableError,
        "Variable 'w' is asked for with partitions None; expected partitions [2], with which it "
        "was made.",
    ),
    (
        lambda: opened_and(lambda: get_variable("w", [2]), "s", reuse=True),
        VariableError,
        "Variable 's/w' does not exist, and reuse=True makes none; expected reuse=AUTO_REUSE, "
        "which makes those that do not exist, or a name that does.",
    ),
    (
        lambda: get_variable("w"),
        VariableError,
        "Variable 'w' has neither a shape nor an initializer; expected one of them.",
    ),
    (
        lambda: get_variable("w", [2], initializer=[1.0, 2.0]),
        VariableError,
        "Variable 'w' got a shape, and a value as its initializer, which has one; expected one of "
        "them.",
    ),
    (
        lambda: get_variable("w", initializer=0.5, dtype="float64"),
        VariableError,
        "The initializer of variable 'w' is of torch.float32; expected torch.float64, as dtype= "
        "says.",
    ),
    (
        lambda: get_variable("w", [2], initializer=lambda shape, dtype: torch.ones(3)),
        VariableError,
        "The initializer of variable 'w' gave shape (3,); expected shape (2,).",
    ),
    (
        lambda: get_variable("w", [2], initializer=torch.ones(3), partitioner=cut([1])),
        VariableError,
        "The initializer of variable 'w' has shape (3,); expected shape (2,).",
    ),
    (
        lambda: get_variable("w", [None], initializer=ones),
        VariableError,
        "Variable 'w' was asked for with the initializer ones and shape=(None,); expected a shape "
        "without unknown sizes, or an initializer that needs no arguments.",
    ),
    (
        lambda: get_variable("w", initializer=torch.zeros),
        VariableError,
        "Variable 'w' was asked for with the initializer zeros and shape=None; expected a shape "
        "without unknown sizes, or an initializer that needs no arguments.",
    ),
    (
        lambda: get_variable("w", [-1]),
        VariableError,
        "Variable 'w' was asked for with shape=[-1]; expected a sequence of sizes >= 0.",
    ),
    (
        lambda: get_variable("w", "ab"),
        ScopeError,
        "Variable 'w' was asked for with shape='ab'; expected a sequence of sizes >= 0.",
    ),
    (
        lambda: get_variable("w", [2], dtype="floaty"),
        ScopeError,
        "Variable 'w' was asked for with dtype='floaty'; expected one such as torch.float32.",
    ),
    (
        lambda: get_variable("w", [2], collections="mine"),
        VariableError,
        "Variable 'w' got collections='mine'; expected a list, tuple or set.",
    ),
    (
        lambda: get_variable("w", [2], custom_getter=5),  # type: ignore[arg-type]
        VariableError,
        "Variable 'w' got custom_getter=5; expected a callable.",
    ),
    (
        lambda: get_variable("w", [2], constraint="positive"),
        VariableError,
        "The constraint 'positive' was given, and no optimizer of PyTorch applies it; expected no "
        "constraint here; project the weight after optimizer.step().",
    ),
    (
        lambda: opened("s", constraint="positive"),
        VariableError,
        "The constraint 'positive' was given, and no optimizer of PyTorch applies it; expected no "
        "constraint here; project the weight after optimizer.step().",
    ),
    (
        lambda: get_variable("w", [2], partitioner=5),
        VariableError,
        "The partitioner of variable 'w' is 5; expected a callable.",
    ),
    (
        lambda: get_variable("w", partitioner=cut([1])),
        VariableError,
        "The partitioner of variable 'w' was given the shape None; expected a shape without "
        "unknown sizes.",
    ),
    (
        lambda: get_variable("w", [2], partitioner=cut([1, 1])),
        VariableError,
        "The partitioner of variable 'w' returned [1, 1]; expected one number for each axis of "
        "(2,).",
    ),
    (
        lambda: get_variable("w", [2], partitioner=cut([0])),
        VariableError,
        "The partitioner of variable 'w' returned [0]; expected numbers >= 1, and no more than "
        "rows in (2,).",
    ),
    (
        lambda: get_variable("w", [2], partitioner=cut([0.5])),
        ScopeError,
        "The partitioner of variable 'w' returned [0.5]; expected integers.",
    ),
    (
        lambda: get_variable("w", initializer={}),
        ScopeError,
        "The initializer of variable 'w' is or gave {}; expected numbers, or a tensor.",
    ),
    (
        lambda: get_variable("w", [2], initializer=lambda shape, dtype: None),
        VariableError,
        "The initializer of variable 'w' is or gave None; expected numbers, or a tensor.",
    ),
    (
        lambda: get_variable("w", [2], initializer=lambda shape, dtype: torch.tensor([1, 2])),
        VariableError,
        "The initializer of variable 'w' gave a tensor of torch.int64; expected torch.float32, for "
        "which it was asked: it is called with dtype=.",
    ),
    (
        lambda: get_variable("a b", [2]),
        VariableError,
        "A variable got the name 'a b'; expected letters, digits and _ . / - only, and a letter "
        "or digit first.",
    ),
    (
        lambda: opened("s$"),
        VariableError,
        "A variable_scope got the name 's$'; expected letters, digits and _ . / - only, and a "
        "letter or digit first.",
    ),
    (
        lambda: opened(None, 5),
        ScopeError,
        "A variable_scope got default_name=5, a int; expected a name.",
    ),
    (
        lambda: variable_scope("s").__exit__(None, None, None),
        ScopeError,
        "A variable_scope was left that is not open; expected it to be entered first.",
    ),
    (
        lambda: left_early(),
        ScopeError,
        "The variable_scope 'a' was left before 'a/b', which was opened after it; expected scopes "
        "to be left in the order in which a with statement leaves them.",
    ),
    (
        lambda: twice(variable_scope("a")),
        ScopeError,
        "The variable_scope 'a' was entered again inside of itself; expected a block of its own "
        "for each, as of variable_scope(scope), where scope is what this one gave.",
    ),
    (
        lambda: get_variable("w", [2], regularizer=lambda w: "a"),
        PenaltyError,
        "<lambda> returned 'a' for 'w'; expected a scalar.",
    ),
    (
        lambda: get_variable("w", [2], regularizer=NonNegative()),
        NoGradientError,
        "NonNegative() (on 'w') has no gradient that could act on a weight: it is constant "
        "wherever it is finite, or it jumps. Leave it out here, and give it to a plan of the "
        'variables, in mode="proximal".',
    ),
    (
        lambda: get_variable("w", [2], regularizer=mixed()),
        NoGradientError,
        "L0(0.1) (on 'w') has no gradient that could act on a weight: it is constant wherever it "
        "is finite, or it jumps. Leave it out here, and give it to a plan of the variables, in "
        'mode="proximal".',
    ),
    (
        lambda: get_variable("w", [2, 2], partitioner=cut([2, 2])),
        VariableError,
        "The partitioner of variable 'w' returned [2, 2]; expected shards along one axis only.",
    ),
    (
        lambda: opened(None),
        ScopeError,
        "A variable_scope got neither name_or_scope nor default_name; expected one of them.",
    ),
    (
        lambda: opened(5),
        ScopeError,
        "A variable_scope got name_or_scope=5, a int; expected a name, or a scope that "
        "variable_scope has opened.",
    ),
    (
        lambda: opened("s", reuse="yes"),
        VariableError,
        "A variable_scope got reuse='yes'; expected True, False, None or AUTO_REUSE.",
    ),
    (
        lambda: opened(None, "s", reuse=True),
        VariableError,
        "A variable_scope got reuse=True with a default_name, which is made unique and so names no "
        "scope that exists; expected a name_or_scope.",
    ),
    (
        lambda: opened("s", auxiliary_name_scope=1),
        ScopeError,
        "A variable_scope got auxiliary_name_scope=1; expected True or False.",
    ),
    (
        lambda: get_collection("mine", scope="gen.*"),
        VariableError,
        "The scope 'gen.*' is a regular expression, which is not supported; expected the name of a "
        "scope, such as 'generator', which holds all that lies below it.",
    ),
    (
        lambda: get_collection("mine", scope=tf1.get_variable_scope()),  # type: ignore[arg-type]
        ScopeError,
        "The scope of a collection was given as a VariableScope; expected the name of a scope, "
        "such as get_variable_scope().name.",
    ),
]


class _Ones:
    def __call__(self, shape: list[int], dtype: torch.dtype) -> Any:
        return torch.ones(shape, dtype=dtype)

    def __repr__(self) -> str:
        return "ones"


ones = _Ones()


def opened_and(act: Callable[[], Any], *args: Any, **kwargs: Any) -> None:
    with variable_scope(*args, **kwargs):
        act()


@pytest.mark.parametrize(("act", "kind", "message"), MESSAGES)
def test_message(act: Callable[[], Any], kind: type[PenalizeError], message: str) -> None:
    with tf1.VariableStore() as store, pytest.raises(kind) as caught:
        act()
    assert str(caught.value) == message
    again = pickle.loads(pickle.dumps(caught.value))
    assert (type(again), str(again)) == (kind, message)
    assert len(list(store.parameters())) <= 1


def test_the_families() -> None:
    assert issubclass(VariableError, ValueError)
    assert issubclass(ScopeError, TypeError)
    assert issubclass(ScopeError, RuntimeError)


def test_a_scope_that_was_left_early_is_still_open() -> None:
    """Nothing was done, so that each scope can be left in its turn; an error leaves them all."""
    with tf1.VariableStore() as store:
        outer, inner = variable_scope("a"), variable_scope("b")
        outer.__enter__()
        inner.__enter__()
        with pytest.raises(ScopeError):
            outer.__exit__(None, None, None)
        get_variable("w", [])
        inner.__exit__(None, None, None)
        outer.__exit__(None, None, None)
        get_variable("x", [])
        with pytest.raises(ScopeError, match="'s/a' was left before 's/a/b'"), variable_scope("s"):
            left_early()
        get_variable("y", [])
        assert [name for name, _ in store.named_parameters()] == ["a/b/w", "x", "y"]


@pytest.mark.parametrize("scope", ["^net", "net|head", "net/(a)", "w[01]", "net\\d", "net?", "a+"])
def test_patterns_are_refused(scope: str) -> None:
    with tf1.VariableStore(), pytest.raises(VariableError, match="is a regular expression"):
        tf1.trainable_variables(scope)
