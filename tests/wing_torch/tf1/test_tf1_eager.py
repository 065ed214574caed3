"""What is different where there is no graph: the model's code runs in every step."""

from __future__ import annotations

import copy
import functools
import pickle
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.utils import parametrize

from penalize import L1, L2, IgnoredRegularizerWarning, VariableError
from penalize.torch import tf1
from penalize.torch.tf1 import GraphKeys
from penalize.torch.tf1.contrib.layers import (
    apply_regularization,
    l1_regularizer,
    l2_regularizer,
    sum_regularizer,
)

LOSSES = GraphKeys.REGULARIZATION_LOSSES


@pytest.fixture
def store() -> Iterator[tf1.VariableStore]:
    with tf1.VariableStore() as store:
        yield store


def w_of_ones(regularizer: Any = None, name: str = "w", **kwargs: Any) -> Any:
    with tf1.variable_scope(tf1.get_variable_scope(), reuse=tf1.AUTO_REUSE):
        return tf1.get_variable(
            name, [2], initializer=torch.ones, regularizer=regularizer, **kwargs
        )


# --- steps ----------------------------------------------------------------------------------


def test_each_step_asks_anew_and_the_penalty_acts_once(store: tf1.VariableStore) -> None:
    """Against the same steps by hand, with everything declared anew in each of them."""
    by_hand = torch.ones(2, dtype=torch.float64)

    def model() -> Any:
        with tf1.variable_scope("s", reuse=tf1.AUTO_REUSE, dtype=torch.float64):
            w = tf1.get_variable(
                "w", [2], initializer=torch.ones, regularizer=lambda w: 0.5 * w.square().sum()
            )
            tf1.add_to_collection(GraphKeys.WEIGHTS, w)
            apply_regularization(sum_regularizer([l1_regularizer(0.25)]))
            return w

    model()
    optimizer = torch.optim.SGD(store.parameters(), lr=0.5)
    for _ in range(4):
        optimizer.zero_grad()
        (model()[0] ** 2 + tf1.losses.get_regularization_loss()).backward()
        optimizer.step()
        data = torch.stack([2 * by_hand[0], torch.zeros_like(by_hand[0])])
        by_hand = by_hand - 0.5 * (data + by_hand + 0.25 * by_hand.sign())
    torch.testing.assert_close(store.get_parameter("s/w").detach(), by_hand)
    assert len(tf1.get_collection(LOSSES)) == 2
    assert len(tf1.get_collection(GraphKeys.WEIGHTS)) == 1


def test_what_apply_regularization_returns_is_of_this_step(store: tf1.VariableStore) -> None:
    w = w_of_ones()
    for regularizer in (l2_regularizer(1.0), tf1.contrib.layers.l1_regularizer(1.0)):
        apply_regularization(regularizer, [w]).backward()
    assert w.grad.tolist() == [2.0, 2.0]
    # Two different ones are two entries; both are computed anew, after their graphs were freed.
    assert [loss.item() for loss in tf1.get_collection(LOSSES)] == [1.0, 2.0]
    tf1.losses.get_regularization_loss().backward()
    assert w.grad.tolist() == [4.0, 4.0]


class Halved:
    """A regularizer that is an object, made anew in each step."""

    def __call__(self, w: torch.Tensor) -> torch.Tensor:
        return 0.5 * w.square().sum()


CHANGING: dict[str, Callable[[int], Any]] = {
    "a schedule": lambda step: l2_regularizer(0.2 / (step + 1)),
    "a tensor made anew": lambda step: l2_regularizer(torch.tensor(0.2)),
    "an object made anew": lambda step: Halved(),
    "one of penalize": lambda step: L2(0.2 + step),
    "a function": lambda step: lambda w: step * w.sum(),
}


@pytest.mark.parametrize("make", CHANGING.values(), ids=CHANGING)
def test_a_regularizer_that_is_another_in_the_next_step_is_refused(
    make: Callable[[int], Any], store: tf1.VariableStore
) -> None:
    """It would act beside that of the step before, and the penalty would grow with the steps."""
    w = w_of_ones()
    apply_regularization(make(0), [w])
    with pytest.raises(VariableError, match=r"would act beside it; .*with a tensor for a scale"):
        apply_regularization(make(1), [w])
    assert len(tf1.get_collection(LOSSES)) == 1


def test_a_scale_that_changes(store: tf1.VariableStore) -> None:
    w, scale = w_of_ones(), torch.tensor(1.0)
    regularizer = l2_regularizer(scale)
    for step in (1.0, 2.0):
        scale.fill_(step)
        assert apply_regularization(regularizer, [w]).item() == step
        assert tf1.losses.get_regularization_loss().item() == step


def test_a_tensor_that_is_computed_in_each_step_is_refused(store: tf1.VariableStore) -> None:
    w = w_of_ones()
    with pytest.raises(VariableError, match=r"of shape \(2, 1\) was .*as regularizer\(tensor\)"):
        apply_regularization(L2(0.5), [w.reshape(2, 1)])
    assert tf1.get_collection(LOSSES) == []


def test_equal_tensors_are_two_weights(store: tf1.VariableStore) -> None:
    a, b = (torch.nn.Parameter(torch.tensor(2.0)) for _ in range(2))
    for _ in range(2):
        for weight in (a, b):
            apply_regularization(l2_regularizer(1.0), [weight])
    assert tf1.losses.get_regularization_loss().item() == 4.0


def test_another_dtype_of_the_store_is_no_other_variable(store: tf1.VariableStore) -> None:
    w = w_of_ones()
    store.to(torch.float64)
    again = w_of_ones()
    assert again.dtype == torch.float64
    assert torch.equal(again, w.double())


def test_a_tensor_of_an_earlier_step_is_returned_as_it_is(store: tf1.VariableStore) -> None:
    w = w_of_ones()
    first = w.square().sum()
    tf1.add_to_collection(LOSSES, first)
    assert tf1.get_collection(LOSSES) == [first]
    assert tf1.get_collection(LOSSES, scope="") == []  # it has no name
    tf1.losses.get_regularization_loss().backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        tf1.losses.get_regularization_loss().backward()
    store.clear_collection(LOSSES)
    store.clear_collection("unknown")
    assert tf1.get_collection(LOSSES) == []
    assert tf1.losses.get_regularization_loss().item() == 0.0


def test_a_list_that_was_given_is_not_the_collection(store: tf1.VariableStore) -> None:
    tf1.add_to_collection("mine", 1)
    tf1.get_collection("mine").append(2)
    assert tf1.get_collection("mine") == [1]


def test_evaluation_follows_the_gradient_mode(store: tf1.VariableStore) -> None:
    w_of_ones(l2_regularizer(1.0))
    with torch.no_grad():
        assert not tf1.losses.get_regularization_loss().requires_grad
    assert tf1.losses.get_regularization_loss().requires_grad


# --- the warning of a regularizer that is ignored ---------------------------------------------


class Callable_:
    def __init__(self, strength: float) -> None:
        self.strength = strength

    def __call__(self, w: Tensor) -> Tensor:
        return self.strength * w.sum()

    def times(self, w: Tensor) -> Tensor:
        return self.strength * w.sum()


def scaled(w: Tensor, strength: float) -> Tensor:
    return strength * w.sum()


def closure(strength: Any) -> Any:
    return lambda w: strength * w.sum()


def itself() -> Any:
    def regularizer(w: Tensor) -> Any:
        return regularizer.strength * w.sum()  # type: ignore[attr-defined]

    regularizer.strength = 1.0  # type: ignore[attr-defined]
    return regularizer


ONE = Callable_(1.0)
TENSOR = torch.tensor(2.0)
SAME: dict[str, tuple[Any, Any]] = {
    "penalize": (L2(0.1), L2(0.1)),
    "contrib": (l2_regularizer(0.1), l2_regularizer(0.1)),
    "sum": (
        sum_regularizer([l1_regularizer(0.1), L2(0.1)]),
        sum_regularizer([l1_regularizer(0.1), L2(0.1)]),
    ),
    "function": (closure(0.1), closure(0.1)),
    "partial": (functools.partial(scaled, strength=1.0), functools.partial(scaled, strength=1.0)),
    "method": (ONE.times, ONE.times),
    "tensor": (closure(TENSOR), closure(TENSOR)),
    "no new one": (L2(0.1), None),
    "none at all": (None, tf1.no_regularizer),
    "none either": (tf1.no_regularizer, None),
}
OTHER: dict[str, tuple[Any, Any]] = {
    "penalize": (L2(0.1), L2(0.2)),
    "kind": (L2(0.1), L1(0.1)),
    "contrib": (l2_regularizer(0.1), l2_regularizer(0.2)),
    "contrib kind": (l2_regularizer(0.1), l1_regularizer(0.1)),
    "sum": (sum_regularizer([L1(0.1), L2(0.1)]), sum_regularizer([L1(0.1)])),
    "function": (closure(0.1), closure(0.2)),
    "partial": (functools.partial(scaled, strength=1.0), functools.partial(scaled, strength=2.0)),
    "method": (ONE.times, Callable_(1.0).times),
    "object": (Callable_(1.0), Callable_(1.0)),
    "tensor": (closure(torch.tensor(2.0)), closure(torch.tensor(2.0))),
    "holds itself": (itself(), itself()),
    "new": (None, L2(0.1)),
    "disabled": (L2(0.1), tf1.no_regularizer),
    "enabled": (tf1.no_regularizer, L2(0.1)),
}


@pytest.mark.parametrize(("old", "new"), SAME.values(), ids=SAME)
def test_the_same_regularizer_made_anew_is_not_warned_of(
    old: Any, new: Any, store: tf1.VariableStore
) -> None:
    first = w_of_ones(old)
    losses = len(tf1.get_collection(LOSSES))
    assert w_of_ones(new) is first  # warnings are errors here
    assert len(tf1.get_collection(LOSSES)) == losses


@pytest.mark.parametrize(("old", "new"), OTHER.values(), ids=OTHER)
def test_another_regularizer_is_warned_of(old: Any, new: Any, store: tf1.VariableStore) -> None:
    w_of_ones(old)
    losses = len(tf1.get_collection(LOSSES))
    with pytest.warns(IgnoredRegularizerWarning, match=r"^Variable 'w' was made with the regulari"):
        w_of_ones(new)
    assert len(tf1.get_collection(LOSSES)) == losses


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            L2(0.1),
            l1_regularizer(0.5),
            "regularizer L2(0.1); it is shared here with l1_regularizer",
        ),
        (
            l1_regularizer(0.5),
            L2(0.1),
            "l1_regularizer(scale=0.5); it is shared here with L2(0.1),",
        ),
        (
            None,
            scaled,
            "with the regularizer none; it is shared here with scaled, which is ignored",
        ),
        (
            L2(0.1),
            tf1.no_regularizer,
            "it is shared here with no_regularizer, which is ignored, as",
        ),
    ],
)
def test_the_warning_names_both(old: Any, new: Any, words: str, store: tf1.VariableStore) -> None:
    w_of_ones(old)
    with pytest.warns(IgnoredRegularizerWarning) as caught:
        w_of_ones(new)
    assert words in str(caught[0].message)
    assert caught[0].filename == __file__


def test_an_inherited_regularizer_that_differs_is_warned_of(store: tf1.VariableStore) -> None:
    w_of_ones(L2(0.1))
    with (
        tf1.variable_scope(tf1.get_variable_scope(), regularizer=L2(0.2), reuse=True),
        pytest.warns(IgnoredRegularizerWarning, match=r"L2\(0\.2\)"),
    ):
        tf1.get_variable("w")


# --- a store is a module ----------------------------------------------------------------------


def test_a_copy_has_its_own_penalties(store: tf1.VariableStore) -> None:
    w = w_of_ones(l2_regularizer(1.0))
    apply_regularization(l1_regularizer(1.0), [w])
    tf1.add_to_collection(GraphKeys.WEIGHTS, w)
    other = copy.deepcopy(store)
    with torch.no_grad():
        w.zero_()
    assert [p.item() for p in store.get_collection(LOSSES)] == [0.0, 0.0]
    assert [p.item() for p in other.get_collection(LOSSES)] == [1.0, 2.0]
    assert other.get_collection(GraphKeys.WEIGHTS)[0] is other.get_parameter("w")
    with other:
        assert w_of_ones(l2_regularizer(1.0)) is other.get_parameter("w")
        w_of_ones(name="v")
    assert "v" not in dict(store.named_parameters())


def test_a_pickled_store_has_its_penalties(store: tf1.VariableStore) -> None:
    w_of_ones(L2(0.5))
    other = pickle.loads(pickle.dumps(store))
    assert [p.item() for p in other.get_collection(LOSSES)] == [1.0]


def test_a_replaced_parameter_is_followed(store: tf1.VariableStore) -> None:
    w_of_ones(L2(0.5))
    store.load_state_dict({"w": torch.full([2], 2.0)}, assign=True)
    assert tf1.losses.get_regularization_loss().item() == 4.0
    assert tf1.trainable_variables() == [store.get_parameter("w")]
    assert w_of_ones(L2(0.5)) is store.get_parameter("w")
    store.double()
    assert tf1.losses.get_regularization_loss().dtype is torch.float64


class Doubled(torch.nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return 2 * w


def test_a_parametrized_variable_is_shared_as_its_effective_weight(
    store: tf1.VariableStore,
) -> None:
    w_of_ones(L2(0.5))
    parametrize.register_parametrization(store, "w", Doubled())
    assert w_of_ones(L2(0.5)).tolist() == [2.0, 2.0]
    assert tf1.losses.get_regularization_loss().item() == 4.0


def test_functional_call_reaches_the_penalties(store: tf1.VariableStore) -> None:
    class Model(tf1.VariableStore):
        def forward(self) -> Tensor:
            with self:
                return tf1.losses.get_regularization_loss()

    with Model() as model:
        w_of_ones(L2(0.5))
    found = torch.func.functional_call(model, {"w": torch.full([2], 3.0)}, ())
    assert found.item() == 9.0
    assert model().item() == 1.0


# --- which store --------------------------------------------------------------------------------


@pytest.fixture
def _fresh_default() -> Iterator[None]:
    tf1.reset_default_store()
    yield
    tf1.reset_default_store()


@pytest.mark.usefixtures("_fresh_default")
def test_there_is_a_default_store() -> None:
    default = tf1.get_default_store()
    w = w_of_ones()
    assert dict(default.named_parameters()) == {"w": w}
    with tf1.VariableStore() as outer:
        assert tf1.get_default_store() is outer
        with tf1.VariableStore() as inner:
            assert tf1.get_default_store() is inner
            assert tf1.global_variables() == []
        assert tf1.get_default_store() is outer
    assert tf1.get_default_store() is default
    tf1.reset_default_store()
    assert tf1.get_default_store() is not default
    assert tf1.global_variables() == []
    assert tf1.get_variable_scope().name == ""


def test_reset_inside_a_store_is_refused(store: tf1.VariableStore) -> None:
    with pytest.raises(VariableError, match="inside a `with store:` block, whose store it would"):
        tf1.reset_default_store()


def test_an_error_leaves_the_store() -> None:
    before = tf1.get_default_store()
    with pytest.raises(KeyError), tf1.VariableStore():
        raise KeyError
    assert tf1.get_default_store() is before


def test_each_store_has_its_own_scope(store: tf1.VariableStore) -> None:
    with tf1.variable_scope("s"), tf1.VariableStore() as other:
        w_of_ones()
        with store:
            w_of_ones(name="v")
    assert [name for name, _ in other.named_parameters()] == ["w"]
    assert [name for name, _ in store.named_parameters()] == ["s/v"]


def test_each_thread_has_its_own_scope(store: tf1.VariableStore) -> None:
    seen = []

    def look() -> None:
        seen.append(tf1.get_default_store() is store)
        with store:
            seen.append(tf1.get_variable_scope().name)

    with tf1.variable_scope("s"):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        assert tf1.get_variable_scope().name == "s"
    assert seen == [False, ""]


def test_nothing_is_kept_of_a_variable_whose_regularizer_fails(store: tf1.VariableStore) -> None:
    def fails(w: Tensor) -> Tensor:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        w_of_ones(fails)
    assert list(store.named_parameters()) == []
    assert tf1.global_variables() == []


def test_the_regularizer_is_called_once_with_the_whole_variable(store: tf1.VariableStore) -> None:
    """Trap 7: over shards a group penalty is another number."""
    seen = []

    def regularizer(w: Tensor) -> Tensor:
        seen.append(tuple(w.shape))
        return torch.linalg.matrix_norm(w, "nuc")

    with tf1.variable_scope("s", partitioner=tf1.fixed_size_partitioner(3), reuse=tf1.AUTO_REUSE):
        w = tf1.get_variable("w", [4, 2], regularizer=regularizer)
        assert tf1.get_variable("w", [4, 2]) is w
    with tf1.variable_scope("s", reuse=True):
        assert tf1.get_variable("w") is w
    assert tf1.global_variables() == [w]
    seen.clear()
    (loss,) = tf1.get_collection(LOSSES)
    assert seen == [(4, 2)]
    torch.testing.assert_close(loss, torch.linalg.matrix_norm(w, "nuc"))


def test_the_partitioner_is_told_shape_and_dtype(store: tf1.VariableStore) -> None:
    seen: dict[str, Any] = {}

    def partitioner(**kwargs: Any) -> list[int]:
        seen.update(kwargs)
        return [1, 1]

    tf1.get_variable("w", [4, 2], partitioner=partitioner)
    assert seen == {"shape": torch.Size([4, 2]), "dtype": torch.float32}
    value = torch.zeros(6, 2)
    tf1.get_variable("v", initializer=value, partitioner=partitioner)
    assert seen["shape"] == torch.Size([6, 2])
    assert tf1.fixed_size_partitioner(9, axis=1)(shape=torch.Size([4, 2])) == [1, 2]
    assert tf1.fixed_size_partitioner(3)(shape=torch.Size([4, 2]), dtype=None) == [3, 1]


def test_no_warning_is_raised_by_a_plain_program(store: tf1.VariableStore) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            with tf1.variable_scope("s", regularizer=l2_regularizer(0.1), reuse=tf1.AUTO_REUSE):
                tf1.get_variable("w", [2])
