"""Trap 18: biases whose names do not end in ``.bias``."""

from __future__ import annotations

from torch import nn

from penalize import L2, Role
from penalize.torch import regularize


def test_biases_of_attention_and_recurrent_layers() -> None:
    model = nn.ModuleDict(
        {
            "attention": nn.MultiheadAttention(4, 2, add_bias_kv=True),
            "lstm": nn.LSTM(4, 4, num_layers=2, bidirectional=True),
            "cell": nn.GRUCell(4, 4),
        }
    )
    hidden = {
        name
        for name, _ in model.named_parameters()
        if "bias" in name.rpartition(".")[2] and not name.endswith(".bias")
    }
    assert len(hidden) == 3 + 8 + 2
    naive = {name for name, _ in model.named_parameters() if not name.endswith(".bias")}
    assert hidden <= naive  # the suffix test would penalize them all
    rows = {row.name: row for row in regularize(model, L2(1e-4)).rows}
    for name in hidden:
        assert rows[name].role is Role.BIAS
        assert rows[name].regularizer is None
    assert rows["attention.in_proj_weight"].regularizer == L2(1e-4)
    assert rows["lstm.weight_hh_l1_reverse"].regularizer == L2(1e-4)
