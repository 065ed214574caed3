#!/usr/bin/env bash
# Within torch.func.vmap the slice of a tensor that requires a gradient says requires_grad=False, and gets its gradient
# all the same. Whoever leaves out what "is frozen" leaves out every member of an ensemble.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 numpy
"$folder/env/bin/python" -W ignore - <<'PY'
import torch
from torch.func import functional_call, stack_module_state, vmap

print("torch", torch.__version__.partition("+")[0])
base = torch.nn.Linear(3, 2)
said = []


class Penalized(torch.nn.Module):
    def forward(self, x):
        weight = self.layer.weight
        said.append((weight.requires_grad, isinstance(weight, torch.nn.Parameter)))
        return (weight * weight).sum()


model = Penalized()
model.layer = base
params, _ = stack_module_state([torch.nn.Linear(3, 2) for _ in range(4)])
stacked = {f"layer.{name}": value for name, value in params.items()}
vmap(lambda p: functional_call(model, p, (torch.ones(1, 3),)))(stacked).sum().backward()
got = torch.allclose(params["weight"].grad, 2 * params["weight"])
print("within vmap (requires_grad, is a Parameter):", said, "| its gradient came:", got)
assert said == [(False, False)] and got
PY
