"""Hidden units of recurrent layers that stay 0 go, or that nobody hears."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from wing_torch.test_compacting import apart, double, left, silence
from wing_torch.test_compacting_attacks import answers, draw

pytestmark = pytest.mark.filterwarnings("ignore::penalize.errors.NothingToCutWarning")

GATES = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}


class Recurrent(nn.Module):
    """A layer, a recurrent one of five hidden units, and one that reads all steps or the last."""

    def __init__(self, kind: Any, reads: str = "steps", **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.rnn, self.reads = nn.Linear(3, 4), kind(4, 5, **options), reads
        size = {"steps": 5 * (1 + self.rnn.bidirectional), "end": 5, "all ends": 10}[reads]
        self.out = nn.Linear(size, 2)
        double(self)

    def forward(self, x: Tensor, *state: Tensor) -> Tensor:
        steps, end = self.rnn(self.first(x).sigmoid(), *state)
        if self.reads == "steps":
            return self.out(steps)
        end = end[-1] if isinstance(end, tuple) else end  # an LSTM's c
        return self.out(end[-1] if self.reads == "end" else end.transpose(0, 1).flatten(1))

    def candidates(self, unit: int) -> list[Tensor]:
        """The parameters that a unit is the tanh of, in all layers and directions."""
        gates = GATES[type(self.rnn)]
        return [
            p.view(gates, 5, -1)[min(2, gates - 1), unit] for p in self.rnn.parameters()
        ]  # fmt: skip

    def still(self, unit: int) -> None:
        """Let a unit hear nothing but itself."""
        with torch.no_grad():
            for p in self.candidates(unit):
                p.zero_()
            for name, w in self.rnn.named_parameters():
                if name.startswith("weight_hh"):
                    w.view(-1, 5, 5)[:, unit, unit] = 0.7

    def unheard(self, unit: int) -> None:
        """Let nobody hear a unit but itself."""
        with torch.no_grad():
            for name, w in self.rnn.named_parameters():
                if name.startswith("weight_hh"):
                    own = w.view(-1, 5, 5)[:, unit, unit].clone()
                    w[:, unit] = 0.0
                    w.view(-1, 5, 5)[:, unit, unit] = own
                elif name.startswith("weight_ih") and "l0" not in name:
                    w[:, unit::5] = 0.0
            self.out.weight[:, unit::5] = 0.0


def hidden(found: Any) -> set[int]:
    sizes = {n for name, n in left(found).items() if name.startswith("rnn")}
    assert sizes == {found.model.rnn.hidden_size}
    return sizes


WAYS: list[tuple[str, dict[str, Any]]] = [
    ("steps", {}),
    ("steps", {"bidirectional": True, "batch_first": True}),
    ("end", {"num_layers": 2, "bias": False}),
    ("all ends", {"num_layers": 2}),
]


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize(("reads", "options"), WAYS)
def test_hidden_units_that_stay_zero_or_that_nobody_hears(
    kind: Any, reads: str, options: dict[str, Any]
) -> None:
    model = Recurrent(kind, reads, **options)
    model.still(1)
    model.unheard(4)
    found = answers(model, draw(3, 4, 3), draw(6, 2, 3), draw(1, 1, 3))
    assert hidden(found) == {3}
    again = kind(4, 3, **options).double()
    again.load_state_dict(found.model.rnn.state_dict())


def test_what_it_reads_goes_into_its_bias() -> None:
    model = Recurrent(nn.LSTM)
    silence(model.first.weight, [2])
    found = answers(model, draw(3, 4, 3), draw(6, 2, 3))
    assert left(found) == {"first": 3, "rnn.weight_hh_l0": 5, "out": 2}
    assert found.model.rnn.input_size == 3


@pytest.mark.parametrize("kind", GATES)
def test_a_constant_candidate_is_no_constant(kind: Any) -> None:
    """Its first step is another than its second: a bias in place of the unit is off."""
    model = Recurrent(kind)
    with torch.no_grad():
        for p in model.rnn.parameters():
            p.view(-1, 5, p[0].numel())[:, 1] = 0.0 if p.ndim > 1 else 0.5
    naive, x = copy.deepcopy(model), draw(3, 4, 3)
    steps = model.rnn(model.first(x).sigmoid())[0]
    with torch.no_grad():
        naive.out.bias += naive.out.weight[:, 1] * steps[-1, 0, 1]
        naive.out.weight[:, 1] = 0.0
    assert apart(model, naive, x) > (1e-2 if kind is not nn.RNN else -1)
    assert hidden(answers(model, x, draw(6, 2, 3))) == {5}


@pytest.mark.parametrize(("kind", "after"), [(nn.LSTM, 4), (nn.GRU, 5)])
def test_biases_that_cancel(kind: Any, after: int) -> None:
    """A GRU's reset gate takes a part of one of them."""
    model = Recurrent(kind)
    model.still(1)
    with torch.no_grad():
        for b, sign in zip(model.candidates(1)[2:], (1, -1), strict=True):
            b += 0.5 * sign
    assert hidden(answers(model, draw(3, 4, 3), draw(6, 2, 3))) == {after}


def test_a_relu_of_what_is_not_above_zero() -> None:
    model = Recurrent(nn.RNN, nonlinearity="relu")
    model.still(1)
    with torch.no_grad():
        model.candidates(1)[2].sub_(0.5)
    assert hidden(answers(model, draw(3, 4, 3), draw(6, 2, 3))) == {4}


def test_what_a_still_unit_hears_has_to_be_still() -> None:
    model = Recurrent(nn.GRU)
    for unit in (1, 2, 3):
        model.still(unit)
    w = model.rnn.weight_hh_l0.view(3, 5, 5)
    with torch.no_grad():
        w[2, 1, 2] = 0.3  # of another that is still
        w[2, 3, 0] = 0.3  # and of one that lives
    found = answers(model, draw(3, 4, 3), draw(6, 2, 3))
    assert found.indices("rnn.weight_hh_l0", 1).tolist() == [0, 3, 4]


def test_layers_have_one_number_of_units() -> None:
    model = Recurrent(nn.GRU, num_layers=2)
    model.still(1)
    silence(model.out.weight, [0, 2], 1)
    with torch.no_grad():
        for unit in (0, 2):  # in the second layer alone
            model.rnn.weight_hh_l1[:, unit] = 0.0
    found = answers(model, draw(3, 4, 3), draw(6, 2, 3))
    assert hidden(found) == {4}
    assert "2: all layers and directions have one number of units" in str(found)


def test_a_state_that_is_given_keeps_them() -> None:
    class Given(Recurrent):
        def forward(self, x: Tensor, h: Tensor, c: Tensor) -> Tensor:
            return self.out(self.rnn(self.first(x).sigmoid(), (h, c))[0])

    model = Given(nn.LSTM)
    model.still(1)
    silence(model.first.weight, [2])
    states = draw(1, 4, 5), draw(1, 4, 5)
    found = answers(model, (draw(3, 4, 3), *states), (draw(6, 4, 3), *states))
    assert left(found) == {"first": 3, "rnn.weight_hh_l0": 5, "out": 2}
    assert "1: lstm begins with a state that is given, not 0" in str(found)


def test_projections_keep_them() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LSTM(4, 5, proj_size=2)).double().eval()
    silence(model[0].weight, [1])
    found = answers(model, draw(3, 4, 3), draw(6, 2, 3))
    assert "1: lstm has projections" in str(found)


def test_a_state_of_zeros_in_the_code() -> None:
    class Zeros(Recurrent):
        def __init__(self) -> None:
            super().__init__(nn.GRU)
            self.width = 5

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x, x.new_zeros(1, x.shape[1], self.width))

    model = Zeros()
    model.still(1)
    found = answers(model, draw(3, 4, 3), draw(6, 2, 3))
    assert hidden(found) == {4}
    assert found.model.width == 4
