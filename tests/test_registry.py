"""The class that a saved configuration is read back as: the one that wrote it, or none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch

from penalize import L1, L2, ConfigError, Regularizer, Scheduled, StateError, Sum, toward, warmup
from penalize.regularizers.base import described, read_from
from penalize.torch import regularize

SOURCE = """
from dataclasses import dataclass
from penalize import Elementwise

@dataclass(frozen=True, repr=False)
class Mine(Elementwise):
    strength: float = 1.0
    def _value(self, w, xp):
        return self.strength * xp.sum(w * w)

class Outer:
    @dataclass(frozen=True, repr=False)
    class Inner(Mine):
        pass

@dataclass(frozen=True, repr=False, slots=True)
class HasSlots(Mine):
    pass

def make():
    class Local(Mine):
        pass
    return Local
"""


def define(name: str, source: str = SOURCE) -> Any:
    module = sys.modules.setdefault(name, ModuleType(name))
    exec(compile(source, name, "exec"), vars(module))
    return module


@pytest.fixture
def modules() -> Iterator[tuple[Any, Any]]:
    """Two modules that each have a class of one name."""
    names = ["the_first.penalties", "the_second.penalties"]
    yield define(names[0]), define(names[1])
    for name in names:
        del sys.modules[name]


def read(config: Any) -> Regularizer:
    return read_from("here", config, config)


WRAPPED = [
    lambda r: r + L2(0.5),
    lambda r: Sum((L2(0.5), r)),
    lambda r: r * warmup(5),
    lambda r: toward([1.0, 2.0], r),
]


@pytest.mark.parametrize("wrap", WRAPPED)
def test_two_classes_of_one_name_are_each_read_back_as_themselves(modules: Any, wrap: Any) -> None:
    """By its bare name, the one that was defined last would be read for both."""
    for module in modules:
        regularizer = wrap(module.Mine(0.25))
        assert regularizer.get_config() != wrap(modules[1 - modules.index(module)].Mine(0.25))
        assert type(regularizer).from_config(regularizer.get_config()) == regularizer
        inner = wrap(module.Outer.Inner(0.25))
        assert type(inner).from_config(inner.get_config()) == inner


def test_what_is_written(modules: Any) -> None:
    assert described(L1(0.5)) == {"class_name": "L1", "config": {"l1": 0.5}}
    assert described(L1(0.5) * warmup(5))["class_name"] == "Scheduled"
    assert described(modules[0].Mine(0.5)) == {
        "class_name": "the_first.penalties:Mine",
        "config": {"strength": 0.5},
    }
    inner = described(modules[1].Outer.Inner(0.5))
    assert inner["class_name"] == "the_second.penalties:Outer.Inner"


def test_a_bare_name_is_read_where_one_class_has_it() -> None:
    @dataclass(frozen=True, repr=False)
    class HasThisNameAlone(L2):
        pass

    config = {"class_name": "HasThisNameAlone", "config": {"l2": 0.5}}
    assert read(config) == HasThisNameAlone(0.5)
    assert read({"class_name": "L2", "config": {"l2": 0.5}}) == L2(0.5)
    both = {"terms": [config, {"class_name": "L1", "config": {"l1": 0.5}}]}
    assert Sum.from_config(both) == HasThisNameAlone(0.5) + L1(0.5)


def test_a_bare_name_that_two_classes_have_is_refused(modules: Any) -> None:
    config = {"class_name": "Mine", "config": {"strength": 0.5}}
    with pytest.raises(ConfigError) as caught:
        read(config)
    assert (
        "the class_name 'Mine' is that of the_first.penalties:Mine and of the_second.penalties:Mine"
        "; write which of them is meant as class_name" in str(caught.value)
    )
    assert read({**config, "class_name": "the_first.penalties:Mine"}) == modules[0].Mine(0.5)


def test_one_of_two_classes_of_a_bare_name_may_be_in_a_function(modules: Any) -> None:
    @dataclass(frozen=True, repr=False)
    class Mine(L2):
        pass

    with pytest.raises(ConfigError, match=r"test_one_of_two.*<locals>.Mine and of the_first"):
        read({"class_name": "Mine", "config": {}})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "absent.penalties:Mine",
            r"absent.penalties:Mine is not known here; import absent.penalties first, or write "
            r"the_first.penalties:Mine or the_second.penalties:Mine as class_name if that is meant",
        ),
        ("absent:Other", "absent:Other is not known here; import absent first; expected"),
        ("__main__:Other", "__main__:Other is not known here; define it first, as the saving"),
        ("absent:make.<locals>.Other", "not known here; define it first, as the saving program"),
        ("Other", "no class is called 'Other' here; import the module that defines it first; the"),
        (["Mine"], r"no class is called \['Mine'\] here"),
        (None, "no class is called None here"),
    ],
)
def test_a_name_of_no_class_is_refused(modules: Any, name: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read({"class_name": name, "config": {}})
    assert "absent" not in sys.modules


def test_nothing_is_imported_by_a_name() -> None:
    before = set(sys.modules)
    with pytest.raises(ConfigError, match="import wave first"):
        read({"class_name": "wave:Mine", "config": {}})
    assert set(sys.modules) == before


def test_a_class_that_is_defined_again_is_read_as_the_new_one(modules: Any) -> None:
    """As in a notebook, or when a module is loaded again; the old one is still in use."""
    old = modules[0].Mine(0.5)
    new = define("the_first.penalties")
    again = read(described(old))
    assert again == new.Mine(0.5)
    assert type(again) is not type(old)


def test_two_classes_of_one_full_name_are_refused(modules: Any) -> None:
    first, second = modules[0].make(), modules[0].make()
    with pytest.raises(ConfigError, match=r"2 classes are .*make.<locals>.Local; define it once"):
        read(described(first(0.5)))
    del second
    assert read(described(first(0.5))) == first(0.5)


def test_slots_make_a_class_twice_and_it_is_read_back(modules: Any) -> None:
    slotted = modules[0].HasSlots(0.5)
    assert read(described(slotted)) == slotted


def test_the_state_of_an_attachment_with_bare_names_is_taken_up_again(modules: Any) -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rules = toward([[1.0, 2.0]], modules[0].Outer.Inner(0.5))
    attachment = regularize(model, rules).attach(optimizer)
    state = attachment.state_dict()
    inner = state["penalties"]["weight"]["config"]["regularizer"]
    assert inner["class_name"] == "the_first.penalties:Outer.Inner"
    inner["class_name"] = "Inner"
    with pytest.raises(StateError, match="class_name"):  # two classes have this name
        attachment.load_state_dict(state)
    del modules[1].Outer
    attachment.load_state_dict(state)
    inner["class_name"] = "Unknown"
    with pytest.raises(StateError, match="class_name"):
        attachment.load_state_dict(state)


def test_a_scheduled_class_of_a_user(modules: Any) -> None:
    scheduled = modules[1].Mine(0.5) * warmup(3)
    again = Scheduled.from_config(scheduled.get_config())
    assert type(again.regularizer) is modules[1].Mine
