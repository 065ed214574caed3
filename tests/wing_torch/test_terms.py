"""Penalties that are written into a loss by hand are found; gradients of data are not accused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from penalize.torch.auditing.gradient_kinds import Kind
from penalize.torch.auditing.loss_terms import Pass, Trace


def look(loss: Tensor) -> Pass:
    trace = Trace([loss])
    with trace.looking():
        loss.backward()
    return trace.result()


def found(loss: Tensor, w: Tensor) -> list[tuple[str, float, bool]]:
    """What penalizes a weight: the kind, its coefficient in all, and whether it is a norm."""
    terms = look(loss).terms.get(id(w), [])
    kinds = sorted({(term.kind.value, term.is_norm) for term in terms})
    return [
        (kind, sum(t.coefficient for t in terms if (t.kind, t.is_norm) == (kind, norm)), norm)
        for kind, norm in kinds
    ]


X = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(20) % 3


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


# How people write λΣw² of one weight or of all; each has gradient 2λw with λ = 1.
SQUARES: dict[str, Callable[[Tensor, list[Tensor]], Tensor]] = {
    "pow": lambda w, _: w.pow(2).sum(),
    "**": lambda w, _: (w**2).sum(),
    "square": lambda w, _: w.square().sum(),
    "product": lambda w, _: (w * w).sum(),
    "mean": lambda w, _: (w**2).mean() * w.numel(),
    "half": lambda w, _: 2.0 * (0.5 * w**2).sum(),
    "norm squared": lambda w, _: w.norm() ** 2,
    "linalg": lambda w, _: torch.linalg.vector_norm(w).pow(2),
    "mse": lambda w, _: F.mse_loss(w, torch.zeros_like(w), reduction="sum"),
    "dot": lambda w, _: w.flatten() @ w.flatten(),
    "einsum": lambda w, _: torch.einsum("ij,ij->", w, w),
    "trace": lambda w, _: (w @ w.T).trace(),
    "detached factor": lambda w, _: 2 * (w * w.detach()).sum(),
    "into a tensor": lambda w, _: torch.tensor(0.0) + w.pow(2).sum(),
    "strength is a tensor": lambda w, _: torch.tensor(1.0) * w.pow(2).sum(),
    "sum": lambda w, all_: sum((p.pow(2).sum() for p in all_), torch.tensor(0.0)),
    "stack": lambda w, all_: torch.stack([p.pow(2).sum() for p in all_]).sum(),
    "stacked norms": lambda w, all_: (torch.stack([p.norm() for p in all_]) ** 2).sum(),
    "norm of norms": lambda w, all_: torch.stack([p.norm() for p in all_]).norm() ** 2,
    "foreach": lambda w, all_: (torch.stack(torch._foreach_norm(all_)) ** 2).sum(),
    "vector": lambda w, all_: nn.utils.parameters_to_vector(all_).pow(2).sum(),
    "cat": lambda w, all_: torch.cat([p.view(-1) for p in all_]).norm() ** 2,
}
KERNELS = ["0.weight", "3.weight"]


@pytest.mark.parametrize("write", SQUARES.values(), ids=SQUARES)
@given(strength=st.floats(1e-6, 10.0))
def test_an_l2_however_it_is_written(
    write: Callable[[Tensor, list[Tensor]], Tensor], strength: float
) -> None:
    model = network()
    w = model[0].weight
    penalty = strength * write(w, list(model.parameters()))
    ((kind, c, is_norm),) = found(F.cross_entropy(model(X), Y) + penalty, w)
    assert (kind, is_norm) == ("L2", False)
    assert c == pytest.approx(2 * strength, rel=1e-3)


ABSOLUTES: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": lambda w: w.abs().sum(),
    "norm": lambda w: w.norm(p=1),
    "linalg": lambda w: torch.linalg.vector_norm(w, ord=1),
    "l1_loss": lambda w: F.l1_loss(w, torch.zeros_like(w), reduction="sum"),
    "sign": lambda w: (w * w.sign()).sum(),
}


@pytest.mark.parametrize("write", ABSOLUTES.values(), ids=ABSOLUTES)
@given(strength=st.floats(1e-6, 10.0))
def test_an_l1_however_it_is_written(write: Callable[[Tensor], Tensor], strength: float) -> None:
    model = network()
    w = model[0].weight
    ((kind, c, is_norm),) = found(F.cross_entropy(model(X), Y) + strength * write(w), w)
    assert (kind, is_norm) == ("L1", False)
    assert c == pytest.approx(strength, rel=1e-3)


@pytest.mark.parametrize(
    "write",
    [
        lambda w: w.norm(),
        lambda w: torch.linalg.vector_norm(w),
        lambda w: w.pow(2).sum().sqrt(),
        lambda w: torch.stack(torch._foreach_norm([w])).sum(),
    ],
)
def test_a_norm_without_a_square_is_told_from_an_l2(write: Callable[[Tensor], Tensor]) -> None:
    model = network()
    w = model[0].weight
    ((kind, c, is_norm),) = found(F.cross_entropy(model(X), Y) + 0.1 * write(w), w)
    assert (kind, is_norm) == ("L2", True)
    assert c == pytest.approx(0.1 / float(w.detach().norm()), rel=1e-3)


@pytest.mark.parametrize(
    "write",
    [
        lambda w: (w.norm() - 1) ** 2,
        lambda w: (1 - w.norm()) ** 2,
        lambda w: (w.pow(2).sum() - 1).pow(2),
        lambda w: w.pow(2).sum() ** 2,
        lambda w: F.relu(w.norm() - 0.1),
        lambda w: (w.norm() + 1).log(),
        lambda w: F.mse_loss(w.norm(), torch.tensor(0.5)),
        lambda w: (w.norm() * 2 + 1) ** 2,
    ],
)
def test_what_pulls_less_as_the_weight_shrinks_is_no_l2(write: Callable[[Tensor], Tensor]) -> None:
    """Its gradient is a multiple of the weight, which changes with it."""
    model = network()
    w = model[0].weight
    ((kind, _, is_norm),) = found(F.cross_entropy(model(X), Y) + 0.1 * write(w), w)
    assert (kind, is_norm) == ("L2", True)


def test_an_elastic_net_is_both() -> None:
    model = network()
    penalty = sum((0.1 * p.abs() + 0.3 * p * p).sum() for p in model.parameters())
    for name in KERNELS:
        w = model.get_parameter(name)
        pairs = [
            (kind, pytest.approx(c, rel=1e-3), norm)
            for kind, c, norm in [("L1", 0.1, False), ("L2", 0.6, False)]
        ]
        model.zero_grad()
        assert found(F.cross_entropy(model(X), Y) + penalty, w) == pairs
        penalty = sum((0.1 * p.abs() + 0.3 * p * p).sum() for p in model.parameters())


def test_weights_that_tell_nothing_alone_follow_the_others() -> None:
    """A fresh norm's scales are all 1: an L2 of them could be a sum. Its biases are 0."""
    model = network()
    penalty = 0.1 * sum(p.pow(2).sum() for p in model.parameters())
    terms = look(F.cross_entropy(model(X), Y) + penalty).terms
    names = {name for name, p in model.named_parameters() if id(p) in terms}
    assert names == {"0.weight", "0.bias", "1.weight", "3.weight", "3.bias"}
    model = network()
    scales = model[1].weight
    assert found(F.cross_entropy(model(X), Y) + 0.1 * scales.pow(2).sum(), scales) == []


def test_under_autocast() -> None:
    model = network()
    w = model[0].weight
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = F.cross_entropy(model(X), Y) + 0.1 * w.pow(2).sum()
    ((kind, c, _),) = found(loss, w)
    assert (kind, c) == ("L2", pytest.approx(0.2, rel=1e-3))


def test_half_precision_weights() -> None:
    model = network().bfloat16()
    w = model[0].weight
    loss = F.cross_entropy(model(X.bfloat16()), Y) + 0.1 * w.pow(2).sum()
    ((kind, c, _),) = found(loss, w)
    assert (kind, c) == ("L2", pytest.approx(0.2, rel=1e-2))


def test_what_the_data_is_multiplied_by() -> None:
    model = network()
    w = model[0].weight
    data = F.cross_entropy(model(X), Y)
    seen = look(data / 4 + 0.1 * w.pow(2).sum())
    assert seen.data == pytest.approx(0.25)
    assert not seen.terms[id(w)][0].shares_divisor
    data = F.cross_entropy(model(X), Y)
    seen = look((data + 0.1 * w.pow(2).sum()) / 4)
    assert seen.data == pytest.approx(0.25)
    assert seen.terms[id(w)][0].shares_divisor
    assert look(0.1 * w.pow(2).sum()).data is None


def test_what_a_penalty_is_multiplied_by() -> None:
    model = network()
    w = model[0].weight
    for loss, expected in (
        (w.pow(2).sum(), []),
        (0.1 * w.pow(2).sum(), [0.1]),
        (torch.tensor(0.1) * w.pow(2).sum() / 4, [0.1, 0.25]),
        (torch.tensor([2.0, 3.0]) * w.pow(2).sum(), [float("nan")]),
    ):
        seen = look(F.cross_entropy(model(X), Y) + loss.mean())
        (term,) = seen.terms[id(w)]
        assert sorted(term.scales) == pytest.approx(expected, nan_ok=True)
        assert not seen.is_normalized
    total = F.cross_entropy(model(X), Y, reduction="none").sum()
    assert look(total / 20 + w.pow(2).sum()).is_normalized
    total = F.cross_entropy(model(X), Y, reduction="sum")
    assert look(total / 20 + w.pow(2).sum()).is_normalized


def test_a_loss_without_a_graph_and_a_penalty_alone() -> None:
    w = nn.Parameter(torch.randn(3, 4))
    assert found(w.pow(2).sum(), w) == [("L2", pytest.approx(2.0), False)]
    leaf = nn.Parameter(torch.tensor(1.0))
    assert look(leaf).terms == {}


# --- nothing else is accused --------------------------------------------------------------------


class Cosine(nn.Module):
    """Weights divided by their norm: on that path the gradient is an exact multiple of them."""

    def __init__(self, rows: int, dim: int | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, 4))
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        if self.dim is None:
            return x @ (self.weight / self.weight.norm()).T
        return F.normalize(x, dim=1) @ F.normalize(self.weight, dim=self.dim).T


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(12, 6)
        self.head = nn.Linear(6, 12, bias=False)
        self.head.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.table(x.abs().long().sum(1) % 12)))


class TiedAutoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.5 * torch.randn(3, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T @ self.weight


class LoRA(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(4, 5).requires_grad_(False)
        self.a, self.b = nn.Parameter(torch.randn(2, 4)), nn.Parameter(torch.zeros(5, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.a.T @ self.b.T


class Mixture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts = nn.Linear(4, 3), nn.ModuleList(nn.Linear(4, 5) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        weights = self.gate(x).softmax(1)
        return sum(weights[:, i : i + 1] * e(x) for i, e in enumerate(self.experts))


class Standardized(nn.Linear):
    """Weight standardization."""

    def forward(self, x: Tensor) -> Tensor:
        w = (self.weight - self.weight.mean(1, keepdim=True)) / self.weight.std(1, keepdim=True)
        return F.linear(x, w, self.bias)


class Quadratic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.form, self.scale = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale.exp() * torch.einsum("bi,ij,bj->b", x, self.form, x)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cells = kind(4, 6, num_layers=2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cells(x.reshape(5, -1, 4))[0]


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.reshape(5, -1, 4))


class Conv(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.repeat(1, 16).reshape(-1, 1, 8, 8))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "perceptron": network,
    "linear": lambda: nn.Linear(4, 2),
    "one output": lambda: nn.Linear(4, 1),
    "zero head": lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), zeroed(nn.Linear(6, 3))),
    "convolutions": lambda: Conv(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten()
    ),
    "transformer": Encoder,
    "LSTM": lambda: Recurrent(nn.LSTM),
    "GRU": lambda: Recurrent(nn.GRU),
    "tied": Tied,
    "tied autoencoder": TiedAutoencoder,
    "weight norm": lambda: parametrizations.weight_norm(nn.Linear(4, 3)),
    "weight norm of all": lambda: parametrizations.weight_norm(nn.Linear(4, 3), dim=None),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.Linear(4, 3)),
    "orthogonal": lambda: parametrizations.orthogonal(nn.Linear(4, 4)),
    "cosine, of all": lambda: Cosine(5, None),
    "cosine, by rows": lambda: Cosine(5, 1),
    "cosine, one row": lambda: Cosine(1, 1),
    "LoRA": LoRA,
    "mixture": Mixture,
    "standardized": lambda: Standardized(4, 3),
    "quadratic": Quadratic,
    "PReLU": lambda: nn.Sequential(nn.Linear(4, 6), nn.PReLU(6), nn.LayerNorm(6), nn.Linear(6, 2)),
    "bilinear": lambda: Paired(nn.Bilinear(4, 4, 3)),
    "deep linear": lambda: nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(4))),
}


class Paired(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, x)


def zeroed(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    return layer


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "mse": lambda out, x: (out - x.sum()).pow(2).mean(),
    "squares": lambda out, x: out.pow(2).mean(),
    "sum": lambda out, x: out.sum(),
    "abs": lambda out, x: out.abs().mean() / 3,
    "softmax": lambda out, x: F.cross_entropy(
        out.reshape(len(out), -1), torch.zeros(len(out), dtype=torch.long)
    ),
    "norm": lambda out, x: out.norm(),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_data_is_never_called_a_penalty(
    make: Callable[[], nn.Module], loss: Callable[[Tensor, Tensor], Tensor]
) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        model = make()
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            x = torch.randn(20, 4)
            assert look(loss(model(x), x)).terms == {}
            optimizer.step()


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_penalty_beside_that_data_is_found(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    model, x = make(), torch.randn(20, 4)
    penalized = [p for p in model.parameters() if p.requires_grad and tells(p)]
    loss = model(x).pow(2).mean() + 0.01 * sum(p.pow(2).sum() for p in penalized)
    terms = look(loss).terms
    for p in penalized:
        assert [(t.kind, round(t.coefficient, 6)) for t in terms[id(p)]] == [(Kind.L2, 0.02)]


def tells(p: Tensor) -> bool:
    return p.numel() >= 4 and float((p.abs().max() - p.abs().min()).detach()) > 1e-3


def test_a_penalty_of_outputs_is_data() -> None:
    """Activity regularization."""
    model = network()
    hidden = model[0](X)
    assert look(hidden.pow(2).mean() + hidden.abs().mean()).terms == {}


@pytest.mark.parametrize(
    "combine",
    [lambda data, p: torch.log(data + p), lambda data, p: data * p, torch.hypot],
    ids=["log", "product", "hypot"],
)
def test_a_loss_that_is_no_sum_is_left_alone(combine: Callable[[Tensor, Tensor], Tensor]) -> None:
    model = network()
    data = F.cross_entropy(model(X), Y)
    assert look(combine(data, model[0].weight.pow(2).sum())).terms == {}
