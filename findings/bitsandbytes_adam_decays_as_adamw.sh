#!/usr/bin/env bash
# The weight decay of bitsandbytes' Adam is decoupled, as in its AdamW; that of PyTorch's Adam is added to the
# gradient. Whoever changes one Adam for the other with weight_decay set trains something else.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy bitsandbytes==0.50.2
"$folder/env/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import bitsandbytes
import torch

print("bitsandbytes", version("bitsandbytes"))
found = {}
for kind in (torch.optim.Adam, bitsandbytes.optim.Adam, bitsandbytes.optim.AdamW):
    w = torch.nn.Parameter(torch.ones(4))
    optimizer = kind([w], lr=0.1, weight_decay=0.01)
    w.grad = torch.zeros(4)
    optimizer.step()
    name = f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
    found[name] = w[0].item()
    print(f"{name}, lr=0.1, weight_decay=0.01, no gradient: 1 → {found[name]:.6f}")
assert abs(found["torch.Adam"] - 0.9) < 1e-4
assert abs(found["bitsandbytes.Adam"] - 0.999) < 1e-5
assert found["bitsandbytes.Adam"] == found["bitsandbytes.AdamW"]
PY
