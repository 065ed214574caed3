"""Whether tensors look as they did: by PyTorch's own guards, and one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from penalize.torch.kernels import looks
from penalize.torch.kernels.looks import Looks

CHANGES: dict[str, Callable[[nn.Parameter], object]] = {
    "type": lambda w: setattr(w, "data", w.data.double()),
    "half of another kind": lambda w: setattr(w, "data", w.data.half()),
    "device": lambda w: torch.utils.swap_tensors(w, nn.Parameter(torch.empty(3, 3, device="meta"))),
    "shape": lambda w: setattr(w, "data", torch.zeros(1, 9)),
    "strides": lambda w: setattr(w, "data", w.data.t()),
    "sign": lambda w: setattr(w, "data", w.data._neg_view()),
    "whether it trains": lambda w: w.requires_grad_(False),
    "layout": lambda w: torch.utils.swap_tensors(w, nn.Parameter(torch.eye(3).to_sparse())),
    "only zeros, nowhere": lambda w: torch.utils.swap_tensors(
        w, nn.Parameter(torch._efficientzerotensor(3, 3))
    ),
}


@pytest.fixture(params=["guards", "one by one"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Both ways; each asserts that it ran."""
    asked: list[None] = []

    def seen(x: Tensor) -> object:
        asked.append(None)
        return one(x)

    one = looks.look_of
    if request.param == "one by one":
        monkeypatch.setattr(looks, "_Guards", None)
    else:
        assert looks._Guards is not None
    monkeypatch.setattr(looks, "look_of", seen)
    yield request.param
    assert asked


def columns() -> tuple[list[nn.Parameter], list[Tensor]]:
    return [nn.Parameter(torch.ones(3, 3)) for _ in range(3)], [torch.ones(3, 3) for _ in range(3)]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(change: str, way: str) -> None:
    ws, besides = columns()
    found = Looks(ws, besides)
    assert found.are_of(ws, besides)
    CHANGES[change](ws[1])
    assert not found.are_of(ws, besides)
    assert Looks(ws, besides).are_of(ws, besides)


def test_another_class_is_seen(way: str) -> None:
    class Named(Tensor):
        pass

    ws, besides = columns()
    found = Looks(ws, besides)
    besides[0] = besides[0].as_subclass(Named)
    assert not found.are_of(ws, besides)


def test_what_only_looks_alike_is_the_same(way: str) -> None:
    ws, _ = columns()
    found = Looks(ws)
    assert found.are_of([nn.Parameter(torch.zeros(3, 3)) for _ in ws])
    assert not found.are_of(ws[:2])


def test_the_guards_are_asked_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else thousands of small weights would be looked at in Python in each step."""
    ws, besides = columns()
    found = Looks(ws, besides)
    monkeypatch.setattr(looks, "look_of", lambda x: pytest.fail("one by one"))
    assert found.are_of(ws, besides)
    with torch.no_grad():
        assert found.are_of(ws, besides)


def test_another_mode_around_is_no_change() -> None:
    ws, besides = columns()
    found = Looks(ws, besides)
    with torch.inference_mode():
        assert found.are_of(ws, besides)
    assert found.are_of(ws, besides)


def test_what_is_there_twice(way: str) -> None:
    ws, _ = columns()
    found = Looks(ws, ws)
    assert found.are_of(ws, ws)
    ws[0].data = torch.ones(3, 3, dtype=torch.float64)
    assert not found.are_of(ws, ws)


def test_guards_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as those of a version whose arguments are others."""

    def refused(*args: object) -> None:
        raise TypeError("unexpected arguments")

    monkeypatch.setattr(looks, "_Guards", refused)
    ws, besides = columns()
    found = Looks(ws, besides)
    assert found.are_of(ws, besides)
    besides[2] = besides[2].double()
    assert not found.are_of(ws, besides)
