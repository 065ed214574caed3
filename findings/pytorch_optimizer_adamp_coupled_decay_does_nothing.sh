#!/usr/bin/env bash
# AdamP and SGDP of pytorch-optimizer with weight_decouple=False do not decay at all: any weight_decay gives the
# weights of 0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy pytorch-optimizer==4.1.0
"$folder/env/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import torch
from pytorch_optimizer import SGDP, AdamP

print("pytorch-optimizer", version("pytorch-optimizer"))
for kind in (AdamP, SGDP):
    found = []
    for decay in (0.0, 0.1, 10.0):
        w = torch.nn.Parameter(torch.linspace(-1, 1, 12).reshape(4, 3))
        optimizer = kind([w], lr=0.1, weight_decay=decay, weight_decouple=False)
        for i in range(5):
            w.grad = torch.randn(4, 3, generator=torch.Generator().manual_seed(i))
            optimizer.step()
        found.append(w.detach())
    same = all(torch.equal(each, found[0]) for each in found)
    print(f"{kind.__name__}: weight_decay 0, 0.1 and 10 lead to the same weights: {same}")
    assert same
PY
