"""A smaller model with the same answers, or the unit stays."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from penalize.errors import CompactError, ModelError, NothingToCutWarning
from penalize.torch import Compacted, compact

pytestmark = pytest.mark.filterwarnings("ignore:.*:UserWarning:transformers")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def double(model: nn.Module) -> nn.Module:
    """The model in float64, evaluated, with statistics of batch norm as training leaves them."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                for w in (module.weight, module.bias, module.running_mean):
                    w.normal_(0.5, 0.3)
    return model.eval().double()


def silence(weight: Tensor, units: Any, dimension: int = 0) -> None:
    with torch.no_grad():
        weight.index_fill_(dimension, torch.as_tensor(units, dtype=torch.int64), 0.0)


def apart(model: nn.Module, other: nn.Module, *inputs: Any, **keywords: Any) -> float:
    with torch.no_grad():
        a, b = (first(each(*inputs, **keywords)) for each in (model, other))
    return float((a - b).abs().max() / a.abs().max())


def first(output: Any) -> Tensor:
    if isinstance(output, Tensor):
        return output
    return output[0]


def proven(model: nn.Module, *inputs: Any, **options: Any) -> Compacted:
    """Compacted, and as it was on inputs that it has not seen, of another batch size."""
    found = compact(model, inputs, **options)
    others = [
        torch.randn(5, *x.shape[1:], dtype=x.dtype) * 3 if x.is_floating_point() else x
        for x in inputs
    ]
    assert apart(model, found.model, *others) < 1e-12
    return found


def left(found: Compacted) -> dict[str, int]:
    return {row.name.removesuffix(".weight"): row.after for row in found}


# --- what goes ----------------------------------------------------------------------------------


class Mlp(nn.Sequential):
    def __init__(self, activation: nn.Module | None = None, bias: bool = True) -> None:
        last = nn.Linear(8, 6, bias=bias), nn.ReLU(), nn.Linear(6, 3)
        super().__init__(nn.Linear(4, 8), activation or nn.Sigmoid(), *last)


def test_what_dropping_zero_units_alone_changes() -> None:
    """sigmoid(b) is not 0: the naive way loses it, and the right one has it in the next bias."""
    model = double(Mlp())
    silence(model[0].weight, [1, 4])
    naive, stay = copy.deepcopy(model), [0, 2, 3, 5, 6, 7]
    naive[0].weight, naive[0].bias = (
        nn.Parameter(w[stay]) for w in (model[0].weight, model[0].bias)
    )
    naive[2].weight = nn.Parameter(model[2].weight[:, stay])
    x = torch.randn(5, 4, dtype=torch.float64)
    assert apart(model, naive, x) > 1e-2

    found = proven(model, x)
    assert left(found) == {"0": 6, "2": 6, "4": 3}
    assert found.model[0].out_features == found.model[2].in_features == 6
    assert (model[0].out_features, len(model[0].bias)) == (8, 8)  # it is left as it is
    assert found.indices("0.weight").tolist() == stay
    assert found.indices("4.weight") is None
    expected = model[2].bias + model[2].weight[:, [1, 4]] @ torch.sigmoid(model[0].bias[[1, 4]])
    torch.testing.assert_close(found.model[2].bias, expected)


def test_a_unit_that_nobody_hears_goes_though_it_lives() -> None:
    model = double(Mlp())
    silence(model[2].weight, [3, 5], 1)
    assert left(proven(model, torch.randn(2, 4).double())) == {"0": 6, "2": 6, "4": 3}


def test_what_only_reads_the_dead_is_dead() -> None:
    model = double(Mlp())
    silence(model[0].weight, [0, 1, 2])
    silence(model[2].weight, [3, 4, 5, 6, 7], 1)  # the second layer reads constants alone
    found = proven(model, torch.randn(2, 4).double())
    assert left(found) == {"0": 1, "2": 1, "4": 3}  # a layer keeps one


@given(
    st.lists(st.integers(0, 7), max_size=7),
    st.lists(st.integers(0, 7), max_size=7),
    st.lists(st.integers(0, 5), max_size=5),
    st.sampled_from([nn.ReLU(), nn.GELU(), nn.SiLU(), nn.Tanh(), nn.PReLU(), nn.Softplus()]),
)
@settings(max_examples=8)
def test_any_units_of_an_mlp(
    silent: list[int], unheard: list[int], second: list[int], activation: nn.Module
) -> None:
    model = double(Mlp(activation))
    silence(model[0].weight, silent)
    silence(model[2].weight, unheard, 1)
    silence(model[2].weight, second)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NothingToCutWarning)
        found = proven(model, torch.randn(2, 4).double())
    assert left(found) == {
        "0": max(8 - len({*silent, *unheard}), 1),
        "2": max(6 - len({*second}), 1),
        "4": 3,
    }


class Convolutions(nn.Module):
    """Batch norm, one kernel for each channel, a residual sum, pooling, and columns by position."""

    def __init__(self, padding: int = 0, mode: str = "zeros") -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.each = nn.Conv2d(6, 12, 3, groups=6, padding=padding, padding_mode=mode)
        self.mixed = nn.Conv2d(12, 5, 1)
        self.beside = nn.Conv2d(12, 5, 1, bias=False)
        self.act = nn.PReLU(5)
        self.last = nn.Linear(5 * 9, 3)
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self.norm(self.first(x)))
        x = self.each(x)
        x = self.act(self.mixed(x) + self.beside(x))
        x = functional.adaptive_avg_pool2d(x, 3)
        return self.last(x.flatten(1))


def test_convolutions() -> None:
    model = double(Convolutions())
    silence(model.first.weight, [1, 4])  # a constant behind relu6, with its own kernel
    silence(model.mixed.weight, [2])
    silence(model.beside.weight, [2, 3])  # 3 lives in the other summand
    found = proven(model, torch.randn(2, 2, 8, 8).double())
    # `beside` has no bias for what the constants add.
    assert left(found) == {"first": 6, "each": 12, "mixed": 4, "beside": 4, "last": 3}
    assert "no bias beside it" in str(found)
    found = proven(model, torch.randn(2, 2, 8, 8).double(), biases=True)
    assert left(found) == {"first": 4, "each": 8, "mixed": 4, "beside": 4, "last": 3}
    assert found.model.each.groups == 4
    assert found.model.beside.bias is not None
    assert found.model.act.num_parameters == found.model.norm.num_features == 4
    assert found.model.last.in_features == 4 * 9


@pytest.mark.parametrize("mode", ["zeros", "reflect"])
def test_at_a_border_of_zeros_a_constant_is_another(mode: str) -> None:
    model = double(Convolutions(1, mode))
    silence(model.first.weight, [1, 4])
    with torch.no_grad():
        model.norm.bias[1], model.norm.bias[4] = 9.0, -9.0  # 6 behind relu6, and 0
        model.beside.bias = nn.Parameter(torch.zeros(5).double())
    found = proven(model, torch.randn(2, 2, 8, 8).double())
    assert left(found)["first"] == (5 if mode == "zeros" else 4)
    # A map of one element is all border.
    small = proven(model, torch.randn(2, 2, 1 if mode == "zeros" else 2, 2).double())
    assert left(small) == left(found)


class Unet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 6, 2, stride=2)
        self.deep = nn.Conv2d(6, 8, 1)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.skip = nn.Conv2d(1, 3, 1)
        self.norm = nn.BatchNorm2d(7)
        self.out = nn.Conv2d(7, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        deep = torch.relu(self.deep(torch.relu(self.down(x))))
        return self.out(torch.relu(self.norm(torch.cat([self.up(deep), self.skip(x)], 1))))


def test_a_unet_with_skips() -> None:
    model = double(Unet())
    silence(model.down.weight, [0, 5])
    silence(model.deep.weight, [2, 3])
    with torch.no_grad():
        model.deep.bias[2], model.deep.bias[3] = -1.0, 1.0  # 0 behind relu, and not 0
    silence(model.up.weight, [1], 1)
    silence(model.skip.weight, [0, 2])
    found = proven(model, torch.randn(2, 1, 6, 6).double())
    assert left(found) == {"down": 4, "deep": 7, "up": 3, "skip": 1, "out": 2}
    assert "'up.weight' spreads it unevenly" in str(found)
    assert found.model.norm.num_features == 4


class Gated(nn.Module):
    """A gate in one layer with what it gates, and an embedding that is the last layer, too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.inner = nn.Linear(6, 10)
        self.outer = nn.Linear(5, 6)
        self.head = nn.Linear(6, 11)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        a, gate = self.inner(x).chunk(2, -1)
        return self.head(x + self.outer(a * torch.sigmoid(gate)))


def test_gates_and_ties() -> None:
    model = double(Gated())
    silence(model.inner.weight, [1, 3])
    with torch.no_grad():
        model.inner.bias[1] = 0.0  # 0 × whatever the gate is
    silence(model.embedding.weight, [2], 1)
    silence(model.outer.weight, [2])
    with torch.no_grad():
        model.outer.bias[2] = 0.0
    found = proven(model, torch.randint(11, (2, 7)))
    assert left(found) == {"head": 5 + 11, "inner": 8, "outer": 5}
    assert found.model.head.weight is found.model.embedding.weight
    assert found.model.embedding.embedding_dim == found.model.head.in_features == 5


# --- what stays ---------------------------------------------------------------------------------


class Between(nn.Module):
    """A layer, something, and a layer that reads it."""

    def __init__(self, between: Callable[[Tensor], Tensor], shape: tuple[int, ...] = (8,)) -> None:
        super().__init__()
        self.first = nn.Linear(4, 8) if shape == (8,) else nn.Conv2d(4, 8, 1)
        self.between = between
        self.last = nn.LazyLinear(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(x)))


KEPT: dict[str, tuple[Any, str]] = {
    "layer norm": (nn.LayerNorm(8), "layer_norm takes its mean"),
    "RMS norm": (nn.RMSNorm(8), "rms_norm takes its mean"),
    "group norm": (nn.GroupNorm(2, 8), "group_norm takes its mean"),
    "softmax": (lambda x: x.softmax(-1), "softmax is taken over all"),
    "a mean over units": (lambda x: x - x.mean(-1, keepdim=True), "mean is taken over all"),
    "a size in the code": (lambda x: x.view(-1, 2, 4).flatten(1), "may stand in the model's code"),
    "a mask of its own": (lambda x: x * (torch.arange(8.0) > 2), "what has no units to go with it"),
    "a sort": (lambda x: x.sort(-1).values, "of which nothing is known here"),
}


@pytest.mark.filterwarnings("ignore:all .* dead units:penalize.errors.NothingToCutWarning")
@pytest.mark.parametrize("kind", KEPT)
def test_what_cannot_be_exact_stays(kind: str) -> None:
    between, why = KEPT[kind]
    model = Between(between)
    model(torch.randn(2, 4))
    model = double(model)
    silence(model.first.weight, [0, 1])
    found = proven(model, torch.randn(2, 4).double())
    assert left(found)["first"] == 8
    assert why in str(found)


def nhwc(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).flatten(1)


def shuffled(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.reshape(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w).flatten(1)


def padded(x: Tensor) -> Tensor:
    return (functional.pad(x, (0, 0, 0, 0, 4, 4)) + x.repeat(1, 2, 1, 1)).flatten(1)


@pytest.mark.filterwarnings("ignore:all .* dead units:penalize.errors.NothingToCutWarning")
@pytest.mark.parametrize(
    ("move", "after"),
    [
        (nn.Flatten(), 6),
        (nhwc, 6),  # columns by index, and not by arithmetic
        (lambda x: x.flip(1).flatten(1), 6),
        (lambda x: torch.cat([x, x.relu()], 1).flatten(1), 6),
        (lambda x: functional.max_pool2d(x, 2, padding=1).flatten(1), 6),
        (lambda x: functional.avg_pool2d(x, 2, padding=1).flatten(1), 8),  # zeros count there
        (lambda x: functional.interpolate(x, scale_factor=2).flatten(1), 6),
        (nn.Sequential(nn.InstanceNorm2d(8, affine=True), nn.Flatten()), 6),
        (shuffled, 8),
        (padded, 8),
        (nn.Sequential(nn.Conv2d(8, 8, 1, groups=2), nn.Flatten()), 8),
        (nn.Sequential(nn.PixelShuffle(2), nn.Flatten()), 8),
    ],
)
def test_indices_are_followed(move: Any, after: int) -> None:
    model = Between(move, (8, 4, 4))
    x = torch.randn(2, 4, 4, 4)
    model(x)
    model = double(model)
    silence(model.first.weight, [1, 6])
    assert left(proven(model, x.double()))["first"] == after


class Written(nn.Module):
    """A layer whose output is written into a part of zeros, by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 3), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        found = x.new_zeros(len(x), 8)
        found[:, 2:5] = self.first(x)
        found[:, 5:8].add_(1.0)
        return self.last(found)


@pytest.mark.filterwarnings("ignore:all .* dead units:penalize.errors.NothingToCutWarning")
def test_what_is_written_into_is_not_taken_for_what_it_was() -> None:
    model = double(Written())
    silence(model.first.weight, [0])
    assert left(proven(model, torch.randn(2, 4).double())) == {"first": 3, "last": 2}


class Positions(nn.Module):
    """A table of which longer inputs see more."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(9, 6))
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x) + self.table[: x.shape[1]])


@pytest.mark.filterwarnings("ignore:.* has no dead unit:penalize.errors.NothingToCutWarning")
def test_what_an_example_does_not_show_of_a_table_counts() -> None:
    model = double(Positions())
    silence(model.first.weight, [2, 5])
    with torch.no_grad():
        model.table[:5, 2] = 0.0  # nothing at the places that the example has
        model.table[:, 5] = 1.0
    found = proven(model, torch.randn(2, 5, 4).double())
    assert left(found) == {"first": 5, "last": 2}
    assert found.model.table.shape == (9, 5)
    assert apart(model, found.model, torch.randn(2, 9, 4).double()) < 1e-12


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.a(x)) * self.c(self.b(x))


@pytest.mark.filterwarnings("ignore:all .* dead units:penalize.errors.NothingToCutWarning")
def test_a_layer_that_is_used_twice_has_one_bias() -> None:
    model = double(Twice())
    for layer in (model.a, model.b):
        silence(layer.weight, [0, 1])
    with torch.no_grad():
        model.a.bias[0] = model.b.bias[0]
    found = proven(model, torch.randn(2, 4).double())
    assert left(found) == {"a": 5, "b": 5, "c": 3}
    assert "reads it as different constants" in str(found)


# --- real architectures --------------------------------------------------------------------------


SMALL = {"num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 20}
WORDS = {"vocab_size": 50, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "GPT2LMHeadModel": ("GPT2", {**WORDS, "n_embd": 12, "n_layer": 1, "n_head": 3}),
    "BertForSequenceClassification": (
        "Bert",
        {**SMALL, "vocab_size": 50, "hidden_size": 12, "max_position_embeddings": 8},
    ),
    "LlamaForCausalLM": (
        "Llama",
        {**SMALL, **WORDS, "hidden_size": 24, "num_attention_heads": 6, "num_key_value_heads": 3},
    ),
    "T5ForConditionalGeneration": (
        "T5",
        {"vocab_size": 50, "d_model": 12, "d_kv": 4, "d_ff": 20, "num_layers": 1, "num_heads": 3},
    ),
    "ViTForImageClassification": (
        "ViT",
        {**SMALL, "hidden_size": 12, "image_size": 16, "patch_size": 8},
    ),
    "ResNetForImageClassification": (
        "ResNet",
        {"embedding_size": 6, "hidden_sizes": [6, 8], "depths": [2, 1], "layer_type": "basic"},
    ),
    "ConvNextForImageClassification": (
        "ConvNext",
        {"hidden_sizes": [6, 8], "depths": [1, 1], "num_stages": 2, "image_size": 16},
    ),
    "MobileNetV2ForImageClassification": (
        "MobileNetV2",
        {"depth_multiplier": 0.25, "image_size": 16},
    ),
}


HEARS = ("attn.c_proj", "attention.output.dense", "o_proj", "Attention.o")
MAPS = ("c_attn", "query", "key", "value", "q_proj", "k_proj", "v_proj")
MAPS += ("Attention.q", "Attention.k", "Attention.v", "relative_attention_bias")
HEADS = tuple(f"{name}.weight" for name in MAPS)


def architecture(name: str) -> tuple[nn.Module, dict[str, Any]]:
    import transformers

    kind, sizes = SIZES[name]
    model = getattr(transformers, name)(getattr(transformers, f"{kind}Config")(**sizes))
    ids = torch.randint(50, (2, 7))
    if "Image" in name:
        return model, {"pixel_values": torch.randn(2, 3, 16, 16).double()}
    if name == "BertForSequenceClassification":
        return model, {"input_ids": ids}
    targets = {"decoder_input_ids": ids} if name.startswith("T5") else {}
    return model, {"input_ids": ids, "use_cache": False, **targets}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.breadth if name.startswith("MobileNet") else ())
        for name in SIZES
    ],
)
def test_architectures(name: str) -> None:
    """A third of all units silent, their biases alive: what goes is exact, and something does."""
    model, inputs = architecture(name)
    model = double(model)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) or type(module).__name__ == "Conv1D":
            dimension = int(type(module).__name__ == "Conv1D")
            count = module.weight.shape[dimension]
            silence(module.weight, torch.randperm(count)[: count // 3].tolist(), dimension)
            if module.bias is not None:
                nn.init.normal_(module.bias)
    for path, module in model.named_modules():
        if path.endswith(HEARS):  # the second of three heads, or groups of heads
            dimension = int(type(module).__name__ != "Conv1D")
            size = module.weight.shape[dimension] // 3
            silence(module.weight, range(size, 2 * size), dimension)
    found = compact(model, (), inputs, biases=True)
    heads = [row for row in found if row.name.endswith(HEADS)]
    assert all(3 * row.after == 2 * row.before for row in heads)
    names = ("num_heads", "num_attention_heads", "n_heads", "split_size")
    counts = {getattr(module, name, 0) for module in found.model.modules() for name in names}
    assert counts <= {0, 2, 8, 4}
    assert bool(heads) is (SIZES[name][0] in ("GPT2", "Bert", "Llama", "T5", "ViT"))
    assert found.parameters[1] < found.parameters[0]
    assert found.operations[1] < found.operations[0]
    others = {key: another(x) for key, x in inputs.items()}
    assert apart(model, found.model, **others) < 1e-12


def another(x: Any) -> Any:
    if not isinstance(x, Tensor):
        return x
    return 2 * torch.randn_like(x) if x.is_floating_point() else torch.randint_like(x, 50)


class Sequences(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.hidden, self.out = nn.LSTM(3, 5), nn.Linear(5, 7), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.hidden(self.lstm(x)[0])))


def test_behind_an_lstm() -> None:
    model = double(Sequences())
    silence(model.hidden.weight, [0, 3])
    found = left(proven(model, torch.randn(4, 2, 3).double()))
    assert found == {"lstm.weight_hh_l0": 5, "hidden": 5, "out": 2}


# --- what goes with it ---------------------------------------------------------------------------


def test_training_goes_on_with_the_state_of_the_optimizer() -> None:
    """Silent units that also get no gradient: the smaller one takes the steps of the larger one."""
    model = double(Mlp(nn.ReLU()))
    with torch.no_grad():
        silence(model[0].weight, [1, 4])
        silence(model[2].weight, [1, 4], 1)
    optimizer = torch.optim.Adam(
        [{"params": [model[0].weight], "lr": 0.02}, {"params": [*model.parameters()][1:]}], lr=0.01
    )
    x, y = torch.randn(16, 4).double(), torch.randn(16, 3).double()

    def steps(model: nn.Module, optimizer: torch.optim.Optimizer, hold: bool = False) -> None:
        for _ in range(4):
            optimizer.zero_grad()
            functional.mse_loss(model(x), y).backward()
            if hold:
                model[0].weight.grad[[1, 4]] = 0.0
                model[0].bias.grad[[1, 4]] = 0.0
                model[2].weight.grad[:, [1, 4]] = 0.0
            optimizer.step()

    steps(model, optimizer, hold=True)
    found = compact(model, x, optimizer=optimizer)
    assert left(found)["0"] == 6
    assert found.optimizer is not None
    assert [group["lr"] for group in found.optimizer.param_groups] == [0.02, 0.01]
    steps(found.model, found.optimizer)
    steps(model, optimizer, hold=True)
    assert apart(model, found.model, x) < 1e-12


def test_what_is_kept_of_a_model() -> None:
    model = Mlp(nn.ReLU()).eval()
    silence(model[0].weight, [1, 4])
    model[2].weight.requires_grad_(False)
    calls = []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    found = compact(model, torch.randn(2, 4)).model
    calls.clear()
    found(torch.randn(2, 4))
    assert calls == [1]
    assert not found[2].weight.requires_grad
    assert found[0].weight.requires_grad
    assert found[0].weight.dtype == torch.float32
    again = Mlp(nn.ReLU())
    again[0], again[2] = nn.Linear(4, 6), nn.Linear(6, 6)
    again.load_state_dict(found.state_dict())


def test_a_parameter_that_is_given_to_a_module() -> None:
    class Table(Mlp):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Parameter(torch.randn(2, 4))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + super().forward(self.table)

    model = double(Table())
    silence(model[0].weight, [1, 4])
    assert compact(model, torch.randn(2, 4).double()).operations[1] > 0


def test_it_prints_as_a_table() -> None:
    model = Mlp(nn.ReLU()).eval()
    silence(model[0].weight, [1, 4])
    silence(model[4].weight, [0])
    assert str(compact(model, torch.randn(2, 4))) == (
        "layer     units  left  kept though dead\n"
        "--------  -----  ----  -------------------------------\n"
        "0.weight  8      6\n"
        "2.weight  6      6\n"
        "4.weight  3      3     1: it is an output of the model\n"
        "93 of 115 parameters (80.9%), 312 of 392 floating-point operations (79.6%)"
    )


# --- what is refused ------------------------------------------------------------------------------


def test_a_model_that_trains() -> None:
    with pytest.raises(ModelError, match=r"training mode .* call model.eval\(\)"):
        compact(Mlp(), torch.randn(2, 4))


def test_no_model() -> None:
    with pytest.raises(ModelError, match=r"Compact got a int; pass a torch\.nn\.Module"):
        compact(3, torch.randn(2, 4))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrap", "message"),
    [
        (torch.compile, r"model is an OptimizedModule.* compact model\._orig_mod in its place"),
        (nn.DataParallel, r"model is a DataParallel, .* compact model\.module in its place"),
        (
            lambda model: nn.Sequential(torch.compile(model), nn.ReLU()),
            r"model\.0 is an OptimizedModule, .* and wrap the result anew",
        ),
    ],
)
def test_a_model_within_another(wrap: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        compact(wrap(Mlp()).eval(), torch.randn(2, 4))


def test_a_model_that_is_compiled_in_place() -> None:
    model = Mlp(nn.ReLU()).eval()
    silence(model[0].weight, [1, 4])
    model.compile(backend="eager")
    assert left(compact(model, torch.randn(2, 4)))["0"] == 6


def test_inputs_that_do_not_fit(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ModelError, match=r"torch\.export cannot follow a Mlp on these inputs"):
        compact(Mlp().eval(), torch.randn(2, 5))
    assert "Traceback" not in caplog.text
    assert not [r for r in caplog.records if r.levelname == "ERROR"]


def test_control_flow_that_depends_on_the_data() -> None:
    class Branch(Mlp):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) if x.sum() > 0 else x

    with pytest.raises(ModelError, match="control flow does not depend on the data"):
        compact(Branch().eval(), torch.randn(2, 4))


def test_nothing_to_cut() -> None:
    model = Mlp().eval()
    with torch.no_grad():
        model[0].weight[:, 0] = 1e-9
    message = r"no dead unit to cut: 0 of its weights are 0, and 8 are small but not 0; group lasso"
    with pytest.warns(NothingToCutWarning, match=message):
        found = compact(model, torch.randn(2, 4))
    assert found.parameters[0] == found.parameters[1]
    silence(model[4].weight, [0])
    with pytest.warns(NothingToCutWarning, match="all 1 dead units of the Mlp stay"):
        compact(model, torch.randn(2, 4))


def test_an_optimizer_of_another_model() -> None:
    model = Mlp().eval()
    silence(model[0].weight, [1])
    optimizer = torch.optim.SGD([*model.parameters(), nn.Parameter(torch.ones(1))], lr=0.1)
    with pytest.raises(ModelError, match="holds 1 parameters that the model does not have"):
        compact(model, torch.randn(2, 4), optimizer=optimizer)


def test_what_would_differ_stays_and_the_table_says_where_it_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if a rule were wrong: offsets that are not put anywhere."""
    from penalize.torch.compacting import proving

    right = proving.decided
    monkeypatch.setattr(proving, "decided", lambda *a: right(*a)._replace(offsets={}))
    model = Mlp(nn.ReLU()).eval()
    silence(model[0].weight, [1, 4])
    silence(model[2].weight, [3])
    with torch.no_grad():
        model[2].bias[3] = -1.0  # 0 behind it: nothing is missing there
    found = compact(model, torch.randn(2, 4))
    assert left(found) == {"0": 8, "2": 5, "4": 3}
    assert "2: without it outputs would differ, beginning in '2'" in str(found)


def test_a_difference_that_is_none_of_the_units() -> None:
    class Chance(Mlp):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.rand(1)

    model = Chance().eval()
    silence(model[0].weight, [1, 4])
    message = r"on the example outputs are .* apart.*Nothing is returned"
    with pytest.raises(CompactError, match=message):
        compact(model, torch.randn(2, 4))
