#!/usr/bin/env bash
# The weight decay of torch_optimizer's SGDW is not w ← w − lr·weight_decay·w but w ← w − lr·weight_decay: every weight
# goes down by the same number, the negative ones away from zero, and a zero does not stay one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy torch_optimizer==0.3.0
"$folder/env/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import torch
from torch_optimizer import SGDW

print("torch_optimizer", version("torch_optimizer"))
start = torch.tensor([-2.0, 0.0, 2.0])
w = torch.nn.Parameter(start.clone())
optimizer = SGDW([w], lr=0.1, weight_decay=1.0)
for _ in range(3):
    w.grad = torch.zeros(3)
    optimizer.step()
print("weights", start.tolist(), "after three steps without a gradient:", w.tolist())
print("an L2 would have led to", (start * 0.9**3).tolist())
assert torch.allclose(w, start - 3 * 0.1), w
PY
