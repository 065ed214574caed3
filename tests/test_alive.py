"""Live objects by their type."""

from __future__ import annotations

from typing import Any

from penalize.alive import alive


class Kind:
    pass


class Below(Kind):
    pass


class Pretends:
    """As proxies do that answer isinstance by importing what they stand for."""

    @property
    def __class__(self) -> Any:
        raise AssertionError("it was asked")

    @__class__.setter
    def __class__(self, value: Any) -> None: ...


def test_of_a_type_or_below_it_and_no_other_is_asked() -> None:
    kept = [Below(), Kind(), Pretends(), object()]
    found = alive(Kind)
    assert [thing for thing in found if any(thing is each for each in kept)] == kept[:2]
    assert alive(Kind, kept) == kept[:2]
    assert alive(Below, kept) == kept[:1]


def test_the_naive_way_asks() -> None:
    try:
        isinstance(Pretends(), Kind)
    except AssertionError:
        return
    raise AssertionError("isinstance asks no object any more")
