"""Lightning: a network on handwritten digits that learns which pixels it does not need.

L1 on the first layer by proximal steps behind Adam: exact zeros. Run it with
``python examples/lightning_digits.py``; it needs penalize[lightning] and scikit-learn.
"""

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from penalize import L1, L2, kernels
from penalize.integrations.lightning import PenalizeCallback


class Digits(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 10))

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


seed_everything(0, verbose=False)
images, digits = map(torch.tensor, load_digits(return_X_y=True))
train, test = random_split(TensorDataset(images.float(), digits), [0.75, 0.25])
model, rules = Digits(), {kernels: L2(1e-4), "net.0": L1(1e-3)}
trainer = Trainer(max_epochs=25, callbacks=[PenalizeCallback(rules, mode="proximal")])
trainer.fit(model, DataLoader(train, batch_size=128, shuffle=True))

kernel = model.net[0].weight.detach().cpu()
accuracy = float((model.net.cpu()(test[:][0]).argmax(1) == test[:][1]).float().mean())
zeros = float((kernel == 0).float().mean())
print(f"accuracy {accuracy:.1%}, {zeros:.1%} exact zeros", trainer.logged_metrics)
