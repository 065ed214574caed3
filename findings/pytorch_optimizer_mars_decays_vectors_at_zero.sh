#!/usr/bin/env bash
# MARS of pytorch-optimizer decays vectors (biases, norms) by lr_1d·weight_decay_1d, 3e-3·0.1, whatever lr and
# weight_decay are: also where weight_decay=0, which turns the decay off for matrices alone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy pytorch-optimizer==4.1.0
"$folder/env/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import torch
from pytorch_optimizer import MARS

print("pytorch-optimizer", version("pytorch-optimizer"))
for decay, expected in ((0.0, 1.0), (0.1, 0.99)):
    matrix, vector = torch.nn.Parameter(torch.ones(3, 3)), torch.nn.Parameter(torch.ones(3))
    optimizer = MARS([matrix, vector], lr=0.1, weight_decay=decay)
    matrix.grad, vector.grad = torch.zeros(3, 3), torch.zeros(3)
    optimizer.step()
    print(f"lr=0.1, weight_decay={decay}, no gradient: matrix 1 → {matrix[0, 0]:.5f}, vector 1 → {vector[0]:.5f}")
    assert abs(matrix[0, 0].item() - expected) < 1e-6 and abs(vector[0].item() - (1 - 3e-4)) < 1e-6
PY
