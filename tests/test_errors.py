"""Errors are values: they derive from one base, read as sentences, and survive pickling."""

from __future__ import annotations

import inspect
import pickle

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
        if kind is not Refusal:  # what twelve of them share, and nobody raises
            assert getattr(penalize, kind.__name__) is kind


def test_errors_survive_pickling() -> None:
    with pytest.raises(StrengthError) as caught:
        L1(-1)
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is StrengthError
    assert str(again) == str(caught.value)


def test_refusals_have_one_constructor_and_start_with_a_capital() -> None:
    kinds = [kind for kind in ERRORS if issubclass(kind, Refusal) and kind is not Refusal]
    assert len(kinds) == 12
    for kind in kinds:
        assert "__init__" not in vars(kind)
        sentence = f"There is no mode 'x'; {kind.lead}one of a, b."
        assert str(kind("there is no mode 'x'", "one of a, b")) == sentence
    assert [kind.__name__ for kind in kinds if kind.lead] == [
        "PenaltyError",
        "ScopeError",
        "VariableError",
    ]


def test_long_lists_of_names_are_cut() -> None:
    names = [f"p{i}" for i in range(9)]
    assert some(names[:2]) == "'p0', 'p1'"
    assert some(names) == "'p0', 'p1', 'p2', 'p3' and 5 more"
    assert "and 5 more" in str(AppliedTwiceError(names, "a", "b", "Do this"))
