"""What looks like a constant, or like a number of units, on the example alone."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune
from wing_torch.test_compacting import apart, double, left, silence

from penalize.errors import ModelError, NothingToCutWarning
from penalize.torch import Compacted, compact

pytestmark = pytest.mark.filterwarnings("ignore::penalize.errors.NothingToCutWarning")


class Small(nn.Module):
    """Two layers, of whose eight units 1 and 6 are constants behind the first, and a way."""

    def __init__(self, way: Callable[..., Tensor], image: bool = False, **modules: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(4, 8, 1) if image else nn.Linear(4, 8)
        self.last = nn.Conv2d(8, 3, 1) if image else nn.Linear(8, 3)
        self.way = way
        for name, module in modules.items():
            setattr(self, name, module)
        silence(self.first.weight, [1, 6])
        with torch.no_grad():
            self.first.bias[1], self.first.bias[6] = 0.7, -0.4
        double(self)

    def forward(self, *inputs: Any) -> Tensor:
        return self.way(self, *inputs)


def draw(*sizes: int) -> Tensor:
    return 3 * torch.randn(*sizes, dtype=torch.float64)


def answers(model: nn.Module, example: Any, *others: Any, **options: Any) -> Compacted:
    """Compacted; it is what it was on other inputs, and the model is left alone."""
    before = copy.deepcopy(model.state_dict())
    found = compact(model, example, **options)
    for key, x in model.state_dict().items():
        torch.testing.assert_close(x, before[key], rtol=0, atol=0, equal_nan=True)
    for each in others:
        each = each if isinstance(each, tuple) else (each,)
        assert apart(model, found.model, *each) < 1e-12
    return found


# --- constants of one size ------------------------------------------------------------------


def by_length(x: Tensor) -> Tensor:
    return torch.arange(x.shape[1]).double()[:, None]


SIZES: dict[str, tuple[Callable[..., Tensor], int]] = {
    "sum": (lambda m, x: m.last(m.first(x).sum(1)), 8),
    "sum of zeros": (lambda m, x: m.last(m.first(x).relu().sum(1)), 7),
    "mean": (lambda m, x: m.last(m.first(x).mean(1)), 6),
    "norm": (lambda m, x: m.last(m.first(x).norm(dim=1)), 8),
    "softmax": (lambda m, x: m.last(m.first(x).softmax(1)), 8),
    "a factor": (lambda m, x: m.last(m.first(x) * x.shape[1]), 8),
    "filled": (lambda m, x: m.last(m.first(x) * torch.full((), float(x.shape[1])).double()), 8),
    "positions": (lambda m, x: m.last(m.first(x) * by_length(x)), 8),
    "a mask": (lambda m, x: m.last(m.first(x) * (by_length(x) < 5)), 8),
    "a row": (lambda m, x: m.last(m.first(x) * m.table[x.shape[1] - 1]), 8),
    "chance": (lambda m, x: m.last(m.first(x) * (torch.rand(1).double() > -1)), 8),
}


@pytest.mark.parametrize("kind", SIZES)
def test_a_constant_of_one_length_is_none(kind: str) -> None:
    (way, after), length = SIZES[kind], 1 if kind == "positions" else 5
    model = Small(way, table=nn.Parameter(torch.randn(12, 8)))
    found = answers(model, draw(2, length, 4), draw(3, 9, 4), draw(1, 2, 4))
    assert left(found)["first"] == after


def test_a_border_that_the_example_does_not_have() -> None:
    def even(model: Any, x: Tensor) -> Tensor:
        return model.last(functional.pad(model.first(x).relu(), (0, x.shape[3] % 2)))

    found = answers(Small(even, True), draw(1, 4, 6, 6), draw(2, 4, 5, 7))
    assert left(found)["first"] == 7  # relu of -0.4 is 0 at the border too


@pytest.mark.parametrize("mode", ["constant", "replicate"])
def test_a_map_that_is_all_border(mode: str) -> None:
    """On a map of one element the constant is one, with its border: on no other is it that."""

    def padded(model: Any, x: Tensor) -> Tensor:
        return model.wide(functional.pad(model.first(x).relu(), (1, 1, 1, 1), mode=mode))

    model = Small(padded, True, wide=nn.Conv2d(8, 3, 3, 3))
    found = answers(model, draw(2, 4, 1, 1), draw(2, 4, 7, 5), draw(1, 4, 4, 4))
    assert left(found)["first"] == (7 if mode == "constant" else 6)


def test_what_a_model_keeps_of_a_call_is_left_alone() -> None:
    def counted(model: Any, x: Tensor) -> Tensor:
        model.calls.append(x.shape)
        return model.last(model.first(x))

    model = Small(counted)
    model.calls = []
    compact(model, draw(2, 4))
    assert model.calls == []


def test_what_code_does_for_another_size() -> None:
    def branches(model: Any, x: Tensor) -> Tensor:
        return model.last(model.first(x)) if x.shape[1] < 8 else model.other(model.first(x))

    model = Small(branches, other=nn.Linear(8, 3))
    found = answers(model, draw(2, 5, 4), draw(2, 9, 4))
    assert (left(found)["first"], left(found)["other"]) == (6, 3)


def test_a_number_is_an_input_as_others_are() -> None:
    model = Small(lambda m, x, scale: m.last(m.first(x) * scale))
    found = answers(model, (draw(2, 4), 2.0), (draw(2, 4), 3.0))
    assert "'last.weight' reads it as different constants" in str(found)


def test_sizes_that_belong_together_are_found() -> None:
    """A mask of the length of the inputs, which cannot change alone."""
    model = Small(lambda m, x, mask: m.last((m.first(x) * mask[..., None]).sum(1)))
    ones = torch.ones(2, 5).double()
    assert left(answers(model, (draw(2, 5, 4), ones), (draw(3, 7, 4), draw(3, 7))))["first"] == 8


def test_numbers_of_units_in_code_are_seen_where_the_example_shows_nothing() -> None:
    """Another unit would be clamped, at 1000."""

    def half(model: Any, x: Tensor) -> Tensor:
        h = model.first(x)
        return model.last(torch.cat([h[:, :4].clamp(max=1e3), h[:, 4:]], 1))

    found = answers(Small(half), draw(2, 4), 1e4 * draw(50, 4))
    assert left(found)["first"] == 8
    assert "may stand in the model's code" in str(found)


def test_numbers_of_units_in_code_of_a_weight_that_is_shared_out() -> None:
    def columns(model: Any, x: Tensor) -> Tensor:
        h = model.first(x)
        w = model.whole.weight
        return functional.linear(h, w[:, :8], model.whole.bias) + functional.linear(x, w[:, 8:])

    model = Small(columns, whole=nn.Linear(12, 3))
    assert left(answers(model, draw(2, 4), draw(5, 4)))["first"] == 8


def test_a_number_of_units_that_is_no_size_keeps_those_that_it_is_of() -> None:
    """Without two of eight each would be divided by six: the naive way is a third off."""

    def divided(model: Any, x: Tensor) -> Tensor:
        h, other = model.first(x), model.second(x).relu()
        return model.last(h / h.shape[-1]) + model.narrow(model.beside(other))

    layers = {"second": nn.Linear(4, 5), "beside": nn.Linear(5, 5), "narrow": nn.Linear(5, 3)}
    model = Small(divided, **layers)
    for layer in layers.values():
        silence(layer.weight, [2])
    found = answers(model, draw(2, 4), draw(5, 4))
    assert left(found) == {"first": 8, "last": 3, "second": 4, "beside": 4, "narrow": 3}
    assert "2: without it outputs would differ, beginning in 'last'" in str(found)


# --- memory that is shared --------------------------------------------------------------------


def written(change: Callable[[Tensor], Any], early: Callable[[Tensor], Tensor]) -> Any:
    def way(model: Any, x: Tensor) -> Tensor:
        h = model.first(x)
        other = early(h)
        change(h)
        return model.last(other)

    return way


def without_gradients(h: Tensor) -> None:
    with torch.no_grad():
        h.clamp_(min=0)


@pytest.mark.parametrize("change", [torch.relu_, lambda h: h[:, 1:2].add_(1.0), without_gradients])
@pytest.mark.parametrize(
    "early",
    [
        lambda h: h.view(-1, 8),
        lambda h: functional.dropout(h, 0.5, False),
        lambda h: h.contiguous(),
        lambda h: h * 1.0,
    ],
)
def test_a_value_that_is_changed_by_another_name(change: Any, early: Any) -> None:
    answers(Small(written(change, early)), draw(2, 4), draw(5, 4))


@pytest.mark.parametrize("quietly", [False, True])
def test_a_buffer_that_each_call_changes_is_no_constant(quietly: bool) -> None:
    def counted(model: Any, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(not quietly):
            model.count.add_(1.0)
        return model.last(model.first(x) * model.count)

    model = Small(counted)
    model.register_buffer("count", torch.ones(1).double())
    assert left(answers(model, draw(2, 4), draw(5, 4), draw(5, 4)))["first"] == 8


# --- parameters with two uses -----------------------------------------------------------------


TWICE: dict[str, tuple[Callable[..., Tensor], int]] = {
    "a weight, doubled": (
        lambda m, x: m.last(m.first(x)) + functional.linear(x, m.first.weight * 2)[:, :3],
        8,
    ),
    "the size of a weight": (lambda m, x: m.last(m.first(x)) / m.last.weight.norm(), 8),
    "a bias": (lambda m, x: m.last(m.first(x)) + m.last.bias * 2, 8),
    "columns of a weight, turned": (
        lambda m, x: functional.linear(m.first(x), m.last.weight.flip(1), m.last.bias),
        6,
    ),
}


@pytest.mark.parametrize("kind", TWICE)
def test_a_parameter_that_is_used_otherwise_too(kind: str) -> None:
    way, after = TWICE[kind]
    assert left(answers(Small(way), draw(2, 4), draw(5, 4)))["first"] == after


# --- numbers ------------------------------------------------------------------------------------


def test_rounding_to_integers() -> None:
    model = Small(lambda m, x: m.last(m.first(x).to(torch.int64).double()))
    assert left(answers(model, draw(2, 4), draw(5, 4)))["first"] == 8


def test_a_step_that_rounding_decides() -> None:
    """10 · 0.7 is 7 in float32, and 6.9999999 of the same number in float64."""
    model = Small(lambda m, x: m.last((m.first(x) * 10).floor())).float()
    found = compact(model, draw(2, 4).float())
    assert left(found)["first"] == 8
    zero = Small(lambda m, x: m.last(m.first(x).relu().floor()))
    assert left(answers(zero, draw(2, 4), draw(5, 4)))["first"] == 7


def test_complex_weights_are_more_than_their_real_parts() -> None:
    model = nn.Sequential(*(nn.Linear(3, 3, dtype=torch.complex128) for _ in range(2))).eval()
    with torch.no_grad():
        model[0].weight.real[:2] = 0.0
        model[1].weight.real[:, :2] = 0.0
    x = torch.randn(2, 3, dtype=torch.complex128)
    assert torch.equal(compact(model, x).model(x), model(x))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(number: float) -> None:
    model = Small(lambda m, x: m.last(m.first(x).relu()))
    with torch.no_grad():
        model.last.weight[0, 6] = number  # relu of -0.4 is 0, and 0 times that is NaN
    found = compact(model, draw(2, 4))
    assert left(found)["first"] == 7
    assert "'last.weight' has a weight for it that is not finite" in str(found)


def test_half_precision_in_code() -> None:
    model = Small(lambda m, x: m.last(m.first(x.bfloat16()).relu()).double()).bfloat16()
    found = compact(model, draw(2, 4))
    assert left(found)["first"] == 6
    assert apart(model, found.model, draw(5, 4)) < 0.05


def test_a_mask_of_huge_numbers_hides_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    from penalize.torch.compacting import proving

    right = proving.decided

    def wrong(*args: Any) -> Any:
        found = right(*args)
        return found._replace(offsets={k: x * (1 + 1e-6) for k, x in found.offsets.items()})

    monkeypatch.setattr(proving, "decided", wrong)
    first = torch.tensor([True, False, False])
    model = Small(lambda m, x: m.last(m.first(x)).masked_fill(first, -1e9))
    found = compact(model, draw(2, 4))
    assert "2: without it outputs would differ, beginning in 'last'" in str(found)


# --- what may go --------------------------------------------------------------------------------


def no_scale(module: Any) -> Any:
    silence(module.weight, [0, 3])
    return module


MAY_GO: dict[str, tuple[Callable[..., Tensor], int]] = {
    "zeros like it": (lambda m, x: m.last(torch.maximum(h := m.first(x), torch.zeros_like(h))), 6),
    "without a batch": (lambda m, x: m.last(m.first(x[0]).relu()), 6),
    "a mean within it": (lambda m, x: m.last(functional.avg_pool2d(m.first(x), 2)), 6),
    "batch norm without scale": (lambda m, x: m.last(m.norm(m.first(x)).relu()), 4),
    "instance norm without scale": (lambda m, x: m.last(m.inner(m.first(x)).relu()), 4),
    "a gate": (lambda m, x: m.narrow(functional.glu(m.first(x), 1)), 8),
}


@pytest.mark.parametrize("kind", MAY_GO)
def test_what_is_exact_goes(kind: str) -> None:
    """Behind a scale of 0 a living unit is a constant; both halves of a gate go together."""
    way, after = MAY_GO[kind]
    model = Small(
        way,
        True,
        norm=nn.BatchNorm2d(8),
        inner=nn.InstanceNorm2d(8, affine=True),
        narrow=nn.Conv2d(4, 3, 1),
    )
    no_scale(model.norm), no_scale(model.inner)
    found = answers(model, draw(1, 4, 8, 8), draw(1, 4, 5, 7))
    assert left(found)["first"] == after


def test_a_gate_of_one_operator() -> None:
    model = Small(lambda m, x: m.narrow(functional.glu(m.first(x))), narrow=nn.Linear(4, 3))
    silence(model.first.weight, [1, 2, 5])
    assert left(answers(model, draw(2, 4), draw(5, 4)))["first"] == 4


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.MultiheadAttention(8, 2, batch_first=True),
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
    ],
)
def test_modules_that_look_at_their_sizes_keep_them(make: Any) -> None:
    def way(model: Any, x: Tensor) -> Tensor:
        h = model.first(x)
        out = model.inner(h) if len([*model.inner.children()]) > 1 else model.inner(h, h, h)[0]
        return model.last(out)

    assert left(answers(Small(way, inner=make()), draw(2, 5, 4), draw(3, 7, 4)))["first"] == 8


def test_an_example_that_needs_a_gradient() -> None:
    model = Small(lambda m, x: m.last(m.first(x)))
    assert left(compact(model, draw(2, 4).requires_grad_() * 2))["first"] == 6


# --- what is refused ----------------------------------------------------------------------------


def test_parameters_without_a_shape() -> None:
    with pytest.raises(ModelError, match=r"lazy parameters, which have no shape .* call the model"):
        compact(nn.Sequential(nn.Linear(4, 8), nn.LazyLinear(3)).eval(), torch.randn(2, 4))


def test_pruning_with_masks() -> None:
    model = Small(lambda m, x: m.last(m.first(x)))
    prune.ln_structured(model.first, "weight", 0.5, 2, 0)
    with pytest.raises(
        ModelError, match=r"'first.weight' of a Small is computed by .*prune\.remove"
    ):
        compact(model, draw(2, 4))
    prune.remove(model.first, "weight")
    assert left(answers(model, draw(2, 4), draw(5, 4)))["first"] == 4


def test_sizes_that_depend_on_the_data() -> None:
    model = Small(lambda m, x: m.last(m.first(x)[x[:, 0] > 0]))
    with pytest.raises(ModelError, match="a tensor whose size depends on the data"):
        compact(model, draw(2, 4))


# --- any network --------------------------------------------------------------------------------


class Drawn(nn.Module):
    """A graph of maps, norms, gates, residual sums and pools, drawn by chance."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.chance, self.layers = random.Random(seed), nn.ModuleList()
        widths, self.steps = [3], []
        for _ in range(7):
            at = self.chance.choice(range(max(len(widths) - 3, 0), len(widths)))
            kind = self.chance.choice(KINDS)
            alike = [i for i, c in enumerate(widths) if c == widths[at]]
            other = self.chance.choice(alike if kind != "cat" else range(len(widths)))
            layer, width = self.made(kind, widths[at], widths[other])
            self.layers.append(layer)
            self.steps.append((kind, at, other))
            widths.append(width)
        self.head = nn.Linear(widths[-1], 2)

    def made(self, kind: str, width: int, other: int) -> tuple[nn.Module, int]:
        if kind == "map":
            more, size = self.chance.randint(3, 7), self.chance.choice([1, 3])
            bias, mode = self.chance.random() < 0.8, self.chance.choice(["zeros", "reflect"])
            return nn.Conv2d(width, more, size, 1, size // 2, bias=bias, padding_mode=mode), more
        if kind == "norm":
            return nn.BatchNorm2d(width), width
        if kind == "each":
            return nn.Conv2d(width, 2 * width, 1, groups=width), 2 * width
        if kind == "gate":
            return nn.Linear(width, width), width
        return nn.Identity(), width + other if kind == "cat" else width

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for (kind, at, other), layer in zip(self.steps, self.layers, strict=True):
            values.append(KINDS_OF[kind](layer, values[at], values[other]))
        return self.head(values[-1].mean((2, 3)))


def relu_by_another_name(_: Any, x: Tensor, __: Any) -> Tensor:
    x = x * 1.0
    functional.dropout(x, 0.5, False).relu_()
    return x


KINDS_OF: dict[str, Callable[..., Tensor]] = {
    "map": lambda layer, x, _: layer(x),
    "norm": lambda layer, x, _: layer(x),
    "each": lambda layer, x, _: layer(x),
    "gate": lambda layer, x, _: x * layer(x.mean((2, 3))).sigmoid()[:, :, None, None],
    "relu": lambda _, x, __: x.relu(),
    "sigmoid": lambda _, x, __: x.sigmoid(),
    "clamp": lambda _, x, __: x.clamp(-0.3, 0.4),
    "write": relu_by_another_name,
    "sum": lambda _, x, __: x + x.sum((2, 3), keepdim=True),
    "pool": lambda _, x, __: functional.max_pool2d(x, 3, 1, 1),
    "add": lambda _, x, y: x + y,
    "mul": lambda _, x, y: x * y,
    "cat": lambda _, x, y: torch.cat([x, y], 1),
}
KINDS = [*KINDS_OF, "map", "map", "map", "norm", "relu"]


def zeroed(model: nn.Module, chance: torch.Generator) -> Iterator[Tensor]:
    """Weights of which some rows, columns or scales are made 0."""
    for module in model.modules():
        w = getattr(module, "weight", None)
        for d in range(min(w.ndim, 2)) if isinstance(w, Tensor) else ():
            silence(w, (torch.rand(w.shape[d], generator=chance) < 0.4).nonzero().flatten(), d)
            yield w


def test_any_network() -> None:
    gone = 0
    for seed in range(10):
        torch.manual_seed(seed)
        model = double(Drawn(seed))
        assert [*zeroed(model, torch.Generator().manual_seed(seed))]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NothingToCutWarning)
            found = compact(model, draw(1, 3, 6, 6), biases=seed % 2 == 0)
        for x in (draw(2, 3, 6, 6), draw(1, 3, 9, 5), draw(3, 3, 4, 11)):
            with torch.no_grad():
                torch.testing.assert_close(found.model(x), model(x), rtol=1e-9, atol=1e-9)
        gone += sum(row.before - row.after for row in found)
    assert gone > 12
