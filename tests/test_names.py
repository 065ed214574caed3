"""Names: made unique, and roles of what is tied."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penalize.names import unique
from penalize.parameters import Role
from penalize.roles import role_of_ties


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], []),
        (["a", "b"], ["a", "b"]),
        (["w", "w", "w"], ["w", "w_1", "w_2"]),
        (["w_1", "w", "w"], ["w_1", "w", "w_2"]),
    ],
)
def test_unique(names: list[str], expected: list[str]) -> None:
    assert unique(names) == expected


@given(st.lists(st.sampled_from(["w", "w_1", "w_1_1", "b"])))
def test_unique_keeps_count_and_beginnings(names: list[str]) -> None:
    found = unique(names)
    assert len(set(found)) == len(names)
    assert all(new.startswith(old) for new, old in zip(found, names, strict=True))


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ({Role.KERNEL}, Role.KERNEL),
        ({Role.KERNEL, Role.EMBEDDING}, Role.EMBEDDING),
        ({Role.KERNEL, Role.OTHER, Role.BIAS}, Role.BIAS),
    ],
)
def test_the_role_of_what_is_tied(roles: set[Role], expected: Role) -> None:
    assert role_of_ties(roles) is expected
