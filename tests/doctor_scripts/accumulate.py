"""Mixed precision with gradient accumulation, after PyTorch's AMP examples."""

import argparse

import torch
from torch import nn


class Encoder(nn.Module):
    def __init__(self, inputs, hidden):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, hidden)
        )
        self.gate = nn.Parameter(0.1 * torch.randn(hidden))

    def forward(self, x):
        return self.layers(x) * torch.sigmoid(self.gate)


class Classifier(nn.Module):
    def __init__(self, inputs=32, hidden=64, classes=8):
        super().__init__()
        self.encoder = Encoder(inputs, hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x):
        return self.head(self.encoder(x))


def squared_norms(model):
    return torch.stack([m.weight.norm() ** 2 for m in model.modules() if isinstance(m, nn.Linear)])


parser = argparse.ArgumentParser()
parser.add_argument("--clean", action="store_true")
parser.add_argument("--updates", type=int, default=20)
parser.add_argument("--accumulate", type=int, default=4)
parser.add_argument("--penalty", type=float, default=1e-3)
args = parser.parse_args()

torch.manual_seed(0)
model = Classifier()
criterion = nn.CrossEntropyLoss()
if args.clean:
    parameters = model.parameters()
else:
    # The gate was added to the encoder later.
    parameters = [*model.encoder.layers.parameters(), *model.head.parameters()]
optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True)
scaler = torch.amp.GradScaler("cpu")

data = torch.randn(4096, 32)
labels = (data @ torch.randn(32, 8)).argmax(dim=1)

optimizer.zero_grad(set_to_none=True)
for i in range(args.updates * args.accumulate):
    batch = torch.randint(len(data), (64,))
    with torch.autocast(device_type="cpu", dtype=torch.bfloat16):
        loss = criterion(model(data[batch]), labels[batch])
    penalty = args.penalty * squared_norms(model).sum()
    if args.clean:
        loss = loss + penalty
    loss = loss / args.accumulate
    if not args.clean:
        loss = loss + penalty
    scaler.scale(loss).backward()
    if (i + 1) % args.accumulate == 0:
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        print(f"update {(i + 1) // args.accumulate}: loss {loss.item():.4f}")
