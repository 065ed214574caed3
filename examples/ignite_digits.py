"""ignite: a network on handwritten digits, whose penalties and zeros are among the metrics.

Run it with ``python examples/ignite_digits.py``; it needs penalize[ignite] and scikit-learn.
"""

import torch
from ignite.engine import Events, create_supervised_trainer
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from penalize import L1, L2, kernels
from penalize.integrations.ignite import PenalizeCallback

x, y = load_digits(return_X_y=True)
parts = train_test_split((x / 16).astype("float32"), y, random_state=0)
x_train, x_test, y_train, y_test = map(torch.tensor, parts)
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
trainer = create_supervised_trainer(model, optimizer, nn.CrossEntropyLoss())
penalties = PenalizeCallback({kernels: L2(1e-4), "0": L1(1e-3)}, mode="proximal")
penalties.attach(trainer, model, optimizer)
trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda _: rate.step())


@trainer.on(Events.EPOCH_COMPLETED(every=10))
def show():
    print({name: round(number, 4) for name, number in trainer.state.metrics.items()})


data = DataLoader(TensorDataset(x_train, y_train), batch_size=128, shuffle=True)
trainer.run(data, max_epochs=20)
kernel = model[0].weight.detach()
zeros = trainer.state.metrics["zeros"]
accuracy = float((model(x_test).argmax(1) == y_test).double().mean())
print(f"accuracy {accuracy:.1%}, {zeros:.1%} exact zeros")
