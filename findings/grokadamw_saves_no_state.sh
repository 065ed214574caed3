#!/usr/bin/env bash
# The state_dict of grokadamw's GrokAdamW has no moments: its state stays empty. A run that is saved and resumed as
# PyTorch says goes on from zero moments, and elsewhere than one that was not interrupted.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy grokadamw==0.1.2
"$folder/env/bin/python" -W ignore - <<'PY'
import copy
from importlib.metadata import version

import torch
from grokadamw import GrokAdamW

print("grokadamw", version("grokadamw"))


def steps(w, optimizer, first, last):
    for i in range(first, last):
        w.grad = torch.randn(4, generator=torch.Generator().manual_seed(i))
        optimizer.step()


through = torch.nn.Parameter(torch.ones(4))
optimizer = GrokAdamW([through], lr=0.1)
steps(through, optimizer, 0, 4)
saved, resumed = copy.deepcopy(optimizer.state_dict()), torch.nn.Parameter(through.detach().clone())
steps(through, optimizer, 4, 8)
optimizer = GrokAdamW([resumed], lr=0.1)
optimizer.load_state_dict(saved)
steps(resumed, optimizer, 4, 8)
apart = (through - resumed).abs().max().item()
print("saved state:", saved["state"], "| apart after 4 + 4 steps:", round(apart, 3))
assert saved["state"] == {} and apart > 0.05
PY
