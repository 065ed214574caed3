#!/usr/bin/env bash
# The trust ratio of torch_optimizer's LARS acts only where weight_decay is not 0: without, it is plain SGD. A
# weight_decay of 1e-12, which no weight notices as a decay, makes the first step 500 times smaller here.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy torch_optimizer==0.3.0
"$folder/env/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import torch
from torch_optimizer import LARS

print("torch_optimizer", version("torch_optimizer"))
steps = {}
for decay in (0.0, 1e-12, 1e-3):
    w = torch.nn.Parameter(torch.ones(3, 3))
    optimizer = LARS([w], lr=0.1, weight_decay=decay)
    w.grad = torch.full((3, 3), 5.0)
    optimizer.step()
    steps[decay] = 1 - w[0, 0].item()
    print(f"weight_decay={decay}: the first step is {steps[decay]:.6f}")
assert abs(steps[0.0] - 0.5) < 1e-6
assert 0 < steps[1e-12] < 0.5 / 400 and abs(steps[1e-12] / steps[1e-3] - 1) < 1e-2, steps
PY
