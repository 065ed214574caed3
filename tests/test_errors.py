"""Errors are values: they derive from one base, read as sentences, and survive pickling."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

import penalize
from penalize import L1, AppliedTwiceError, PenalizeError, StrengthError, errors
from penalize.errors import Refusal, some

ERRORS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, Exception) and kind.__module__ == "penalize.errors"
]


def test_all_errors_are_public_and_derive_from_one() -> None:
    for kind in ERRORS:
        assert issubclass(kind, PenalizeError | UserWarning)
        if kind is not Refusal:  # what fourteen of them share, and nobody raises
            assert getattr(penalize, kind.__name__) is kind


def test_errors_survive_pickling() -> None:
    with pytest.raises(StrengthError) as caught:
        L1(-1)
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is StrengthError
    assert str(again) == str(caught.value)


def test_refusals_have_one_constructor_and_start_with_a_capital() -> None:
    kinds = [kind for kind in ERRORS if Refusal in kind.__bases__]
    assert len(kinds) == 14
    for kind in kinds:
        assert "__init__" not in vars(kind)
        sentence = f"There is no mode 'x'; {kind.lead}one of a, b."
        assert str(kind("there is no mode 'x'", "one of a, b")) == sentence
    assert [kind.__name__ for kind in kinds if kind.lead] == [
        "PenaltyError",
        "ScopeError",
        "VariableError",
    ]


def test_generic_sentences_start_with_a_capital() -> None:
    error = penalize.ModeError("there is no mode 'x'", "expected one of a, b")
    assert str(error) == "There is no mode 'x'; expected one of a, b."
    for found in ("the model's output is 3", "mini-batches end", "loss: none", "plan's rows, all"):
        assert str(penalize.PathError(found, "look")) == f"{found.capitalize()}; look."


@pytest.mark.parametrize(
    "found",
    [
        *(
            "bz2bad.npz cannot be read",
            "strengths='few'",
            "l2_regularizer got 3",
            "'data' is empty",
        ),
        *("data/x is no file", "encoder.weight has no values", "x0 is nothing", "ключ is no name"),
    ],
)
def test_names_keep_the_case_that_they_have(found: str) -> None:
    """A capital at the beginning would make another name of them."""
    assert str(penalize.PathError(found, "look at it")) == f"{found}; look at it."


def test_what_is_quoted_may_end_with_a_full_stop() -> None:
    said = "is 'x': L1 got strength=-1."
    errors = [
        penalize.PathError(f"it {said}", "look at it."),
        penalize.RulesError(f"it {said}", "Write 1.", "a strength."),
        penalize.ResultsError("file", said, "look at it."),
        penalize.SelectorError(f"it {said}", "a name."),
        penalize.GroupsError(3, said, "look at it."),
        penalize.StateError(f"it {said}"),
        penalize.ConfigError("L1", {}, said),
        penalize.NoProximalOperatorError(L1(1.0), said),
        penalize.AppliedTwiceError(["w"], "a", "b", "Look at it."),
        penalize.NoGradientError(L1(1.0), instead="Look at it."),
    ]
    for error in errors:
        assert not re.search(r"\.[.;,]|\.$\.", str(error)), error
        assert str(error).endswith(".")
    assert str(penalize.PathError("it is '..'", "write ...")) == "It is '..'; write ...."


def test_long_lists_of_names_are_cut() -> None:
    names = [f"p{i}" for i in range(9)]
    assert some(names[:2]) == "'p0', 'p1'"
    assert some(names) == "'p0', 'p1', 'p2', 'p3' and 5 more"
    assert "and 5 more" in str(AppliedTwiceError(names, "a", "b", "Do this"))
