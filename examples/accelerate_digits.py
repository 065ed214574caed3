"""accelerate: a network on handwritten digits that learns which pixels it does not need.

L1 on the first layer by proximal steps behind Adam: exact zeros. Run it with
``python examples/accelerate_digits.py``, or ``accelerate launch`` on several devices; it needs
penalize[accelerate] and scikit-learn.
"""

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from penalize import L1, L2, kernels
from penalize.integrations.accelerate import prepare
from penalize.torch import regularize

set_seed(0)
images, digits = map(torch.tensor, load_digits(return_X_y=True))
train, test = random_split(TensorDataset(images.float(), digits), [0.75, 0.25])
accelerator = Accelerator()
net = nn.Sequential(nn.Linear(64, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 10))
plan = regularize(net, {kernels: L2(1e-4), "0": L1(1e-3)})
model, optimizer, batches = accelerator.prepare(
    net, torch.optim.Adam(net.parameters(), lr=0.01), DataLoader(train, 128, shuffle=True)
)
prepare(plan, accelerator, optimizer, mode="proximal")
for _ in range(25):
    for x, y in batches:
        accelerator.backward(nn.functional.cross_entropy(model(x), y))
        optimizer.step()
        optimizer.zero_grad()

kernel = net[0].weight.detach().cpu()
accuracy = float((net.cpu()(test[:][0]).argmax(1) == test[:][1]).float().mean())
zeros = float((kernel == 0).float().mean())
accelerator.print(f"accuracy {accuracy:.1%}, {zeros:.1%} exact zeros", plan, sep="\n")
