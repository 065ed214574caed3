#!/usr/bin/env bash
# A fused optimizer under a GradScaler is stepped also where the gradients overflowed: its hooks run, and whoever
# counts steps by them counts one that changed nothing. The same optimizer unfused is not stepped at all.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy
"$folder/env/bin/python" -W ignore - <<'PY'
import math

import torch

print("torch", torch.__version__.partition("+")[0])
seen = {}
for fused in (False, True):
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    hooks = []
    optimizer.register_step_post_hook(lambda *_: hooks.append(1))
    for x in (1.0, math.inf, 1.0):
        optimizer.zero_grad()
        scaler.scale(model(torch.full((1, 2), x)).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    taken = {int(state["step"]) for state in optimizer.state.values()}
    seen[fused] = (len(hooks), taken)
    print(f"fused={fused}: hooks ran {len(hooks)} times, the optimizer counts {taken} steps")
assert seen == {False: (2, {2}), True: (3, {2})}, seen
PY
