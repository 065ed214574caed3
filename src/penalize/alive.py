"""The live objects of a type."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def alive(kind: type[T], among: Iterable[Any] | None = None) -> list[T]:
    """Objects of a type, or a type below it, that the collector knows; oldest first.

    A large process has millions of objects: each is asked for nothing but its type, whose place in
    a set is found sooner than whether it is a subclass. ``isinstance`` would ask the object too,
    and some proxies answer by importing things.
    """
    kinds = {kind, *_below(kind)}
    objects = gc.get_objects() if among is None else among
    return [thing for thing in objects if type(thing) in kinds]


def _below(kind: type[Any]) -> Iterator[type[Any]]:
    for below in type.__subclasses__(kind):
        yield below
        yield from _below(below)
