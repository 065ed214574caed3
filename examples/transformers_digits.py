"""transformers: a small vision transformer on handwritten digits, half of it exact zeros.

L1 by proximal steps behind the Trainer's AdamW, whose own decay is off. Run it with
``python examples/transformers_digits.py``; it needs penalize[transformers] and scikit-learn.
"""

import torch
from sklearn.datasets import load_digits
from torch.utils.data import random_split
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification, set_seed

from penalize import L1
from penalize.integrations.transformers import PenalizeCallback

set_seed(0)
images, digits = map(torch.tensor, load_digits(return_X_y=True))
images = (images.float() / 8 - 1).reshape(-1, 1, 8, 8)
rows = [{"pixel_values": x, "labels": y} for x, y in zip(images, digits, strict=True)]
train, test = random_split(rows, [0.75, 0.25])
shape = {"image_size": 8, "patch_size": 2, "num_channels": 1, "num_labels": 10}
size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
config = ViTConfig(**shape, **size, num_attention_heads=4, initializer_range=0.2)
model, penalize = ViTForImageClassification(config), PenalizeCallback(L1(1e-3), "proximal")
args = TrainingArguments(
    "build/transformers_digits",
    per_device_train_batch_size=32,
    num_train_epochs=5,
    learning_rate=5e-3,
    weight_decay=0.0,
    logging_strategy="epoch",
    save_strategy="no",
)
trainer = Trainer(model, args, train_dataset=train, callbacks=[penalize])
trainer.train()
logits = model(images[test.indices].to(model.device)).logits.cpu()
accuracy = float((logits.argmax(1) == digits[test.indices]).float().mean())
kernel = model.vit.layers[1].mlp.fc1.weight.detach().cpu()
zeros = [row["zeros"] for row in trainer.state.log_history if "zeros" in row][-1]
print(f"accuracy {accuracy:.1%}, {zeros:.1%} exact zeros")
