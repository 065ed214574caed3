"""Recurrent layers: hidden units that stay 0 from the first step to the last.

A unit's state is 0 at first. In an LSTM c ← f·c + i·g and h = o·tanh(c): both stay 0 if what g is
the tanh of is 0. In a GRU h ← (1 - z)·n + z·h, with n = tanh(W x + b + r·(U h + b′)): if W x + b
and U h + b′ both are. Otherwise a unit is no constant: its first step is another than its second.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from penalize.torch.compacting.calls import Call, first_along, if_zero
from penalize.torch.compacting.readers import Move, Reader, constants_along
from penalize.torch.compacting.units import Units
from penalize.torch.compacting.values import Facts, Piece, same_along, values_in

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
CANDIDATE = {"lstm": 2, "gru": 2, "rnn_tanh": 0, "rnn_relu": 0}
"""Which of the gates is the tanh, or the relu."""


class Gates(NamedTuple):
    """The parameters of one direction of one layer, of its inputs and of its hidden units."""

    inputs: Facts
    hidden: Facts
    biases: Sequence[Facts]


def recurrent(call: Call, x: Facts, state: Any, parameters: Sequence[Facts], *rest: Any) -> Any:
    """All layers of an LSTM, a GRU or an RNN."""
    has_biases, layers, _, train, is_both_ways = rest[:5]
    each, directions, states = 4 if has_biases else 2, 1 + is_both_ways, values_in(state)
    is_whole = all(_is_whole(call.units, value) for value in parameters)
    if train or len(parameters) != each * layers * directions or not is_whole:
        call.wiring.keep_parameters(parameters, f"{call.name} takes it")
        return call.unknown(f"{call.name} has projections, or weights that are computed", x, states)
    parts = [parameters[i : i + each] for i in range(0, len(parameters), each)]
    is_given = not all(bool(if_zero(h).all()) for h in states)
    ends: list[Facts] = []
    for layer in range(layers):
        if not same_along(x.units, [*range(len(x.shape) - 1)]):
            call.wiring.keep_parameters(parameters, f"{call.name} takes it")
            return call.unknown(f"{call.name} takes it along several dimensions", x, states)
        made = [
            _read(call, x, Gates(part[0], part[1], part[2:]), is_given)
            for part in parts[layer * directions : (layer + 1) * directions]
        ]
        ends += made
        beside = _together(made, torch.cat)
        x = _spread(beside, (*x.shape[:-1], len(beside.units)))
    call.wiring.keep(states, f"{call.name} begins with it")
    call.wiring.balanced.append([end.units for end in ends])
    last = _together(ends, torch.stack).moved(lambda part: part[:, None])
    found = [_spread(x, call.meta[0].shape), *(_spread(last, each.shape) for each in call.meta[1:])]
    call.wiring.moves.append(Move([value.units for value in found], False, call.owner))
    return found


def _together(values: list[Facts], f: Callable[[list[Tensor]], Tensor]) -> Facts:
    units, known = f([value.units for value in values]), f([value.known for value in values])
    return Facts(units, known, f([value.constant for value in values]))


def _spread(value: Facts, shape: Sequence[int]) -> Facts:
    found: Facts = value.moved(lambda part: part.expand(*shape))
    return found


def _is_whole(units: Units, value: Facts) -> bool:
    """Whether a value is a parameter as it is."""
    origin = value.origin
    return (
        origin is not None
        and units.are_numbers(origin.elements)
        and origin.elements.is_contiguous()
        and value.shape == tuple(units.weights[origin.name].shape)
    )


def _read(call: Call, x: Facts, gates: Gates, is_given: bool) -> Facts:
    """The hidden units of one direction of one layer, as a vector."""
    inputs, hidden = _origin(gates.inputs), _origin(gates.hidden)
    units, read = call.units.of(hidden.name, 1), call.units.of(inputs.name, 1)
    for value in (gates.inputs, gates.hidden, *gates.biases):
        call.units.join(call.units.of(_origin(value).name, 0), units.repeat(GATES[call.name]))
    ids = first_along(x.units, range(len(x.shape) - 1)).reshape(-1)
    call.units.join(ids, read)
    call.units.keep(read[ids < 0], "it reads an input of the model")
    constants = constants_along(x, len(x.shape) - 1)
    is_dead = _dead(call.name, gates, constants)
    state = torch.where(is_dead, 0.0, torch.nan).double()
    bias = _origin(gates.biases[0]) if gates.biases else None
    others = gates.hidden.constant.clone()  # what hears itself alone is heard by nobody
    for gate in others.reshape(-1, len(units), len(units)):
        gate.fill_diagonal_(0)
    for name, each, w, values, to in (
        (inputs.name, ids, gates.inputs.constant, constants, bias),
        (hidden.name, units, others, state, None),
    ):
        call.wiring.readers.append(Reader(name, each, w, (w == 0).all(0), values, to))
    call.wiring.moves.append(Move([x.units], False, call.owner))
    call.wiring.writes(hidden, units, is_dead)
    if is_given:
        call.units.keep(units, f"{call.name} begins with a state that is given, not 0")
    zeros = torch.zeros(len(units), dtype=torch.float64)
    return Facts(units, is_dead if not is_given else zeros.bool(), zeros)


def _origin(value: Facts) -> Piece:
    if value.origin is None:
        raise ValueError("a weight that is no parameter")
    return value.origin


def _dead(name: str, gates: Gates, constants: Tensor) -> Tensor:
    """Which hidden units are 0 at all steps."""
    values = [gates.inputs, gates.hidden, *gates.biases]
    size, gate = gates.hidden.shape[1], CANDIDATE[name]
    parts = [value.constant.double().reshape(GATES[name], size, -1) for value in values]
    is_finite = torch.stack([part.isfinite().all(2).all(0) for part in parts]).all(0)
    inputs, hidden, *biases = (part[gate] for part in parts)
    lives = constants.isnan()
    heard = inputs @ torch.where(lives, 0.0, constants)
    first, second = (b[:, 0] for b in biases) if biases else (torch.zeros(size).double(),) * 2
    if name == "gru":
        is_still = (heard + first == 0) & (second == 0)
    else:
        whole = heard + first + second
        is_still = whole <= 0 if name == "rnn_relu" else whole == 0
    found = is_still & is_finite & (inputs[:, lives] == 0).all(1)
    while True:  # who hears one that is not among them is none of them, until all are left
        rest = found & (hidden[:, ~found] == 0).all(1)
        if torch.equal(rest, found):
            return found
        found = rest
