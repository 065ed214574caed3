#!/usr/bin/env bash
# heavyball's Scion initializes the weights anew in its first step: a matrix becomes orthogonal and a bias 0, whatever
# was loaded, and however small lr is. Fine-tuning begins from scratch without a word.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy heavyball==3.2.1
TORCHDYNAMO_DISABLE=1 "$folder/env/bin/python" -W ignore - <<'PY'
from importlib.metadata import version

import torch
from heavyball import Scion

print("heavyball", version("heavyball"))
loaded = torch.nn.Linear(4, 3)
with torch.no_grad():
    loaded.weight.fill_(0.5)
    loaded.bias.fill_(0.25)
optimizer = Scion(loaded.parameters(), lr=1e-6)
generator = torch.Generator().manual_seed(0)
for p in loaded.parameters():
    p.grad = torch.randn(p.shape, generator=generator)
optimizer.step()
product = loaded.weight @ loaded.weight.T
print("weights of 0.5 after a step with lr=1e-6:", loaded.weight[0].tolist())
print("W Wᵀ is a multiple of 1:", torch.allclose(product, product[0, 0] * torch.eye(3), atol=1e-2))
print("a bias of 0.25:", loaded.bias.tolist())
assert (loaded.weight - 0.5).abs().max() > 0.3 and loaded.bias.abs().max() < 1e-3
PY
