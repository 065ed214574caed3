#!/usr/bin/env bash
# On a CPU accelerate's mixed_precision="fp16", and so transformers' TrainingArguments(fp16=True), trains in float32
# without a word: no autocast, no GradScaler. bf16 does train in bfloat16 there.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/python" -m pip install --quiet --disable-pip-version-check \
    torch==2.13.0 transformers==5.23.0 accelerate==1.15.0 numpy
cd "$folder"
"$folder/env/bin/python" - <<'PY'
import contextlib
import io
import warnings
from importlib.metadata import version

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from transformers import Trainer, TrainingArguments

print("torch", torch.__version__.partition("+")[0], "transformers", version("transformers"))


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.seen = set()

    def forward(self, x, labels):
        out = self.layer(x)
        self.seen.add(out.dtype)
        return {"loss": (out.float() - labels).square().mean()}


rows = [{"x": torch.ones(2), "labels": torch.ones(1)}] * 4
found = {}
for half in ("fp16", "bf16"):
    arguments = TrainingArguments(
        "out", max_steps=2, use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True,
        dataloader_pin_memory=False, **{half: True},
    )
    trainer = Trainer(Model(), arguments, train_dataset=rows)
    said = io.StringIO()
    with warnings.catch_warnings(record=True) as warned, contextlib.redirect_stderr(said):
        warnings.simplefilter("always")
        trainer.train()
    about = [str(each.message) for each in warned] + said.getvalue().splitlines()
    about = [line for line in about if "16" in line or "half" in line or "precision" in line]
    found[half] = (trainer.model.seen, trainer.accelerator.scaler, about)
    print(f"{half}=True: outputs of {trainer.model.seen}, scaler {trainer.accelerator.scaler}, said: {about}")
assert found == {"fp16": ({torch.float32}, None, []), "bf16": ({torch.bfloat16}, None, [])}, found

AcceleratorState._shared_state.clear()
PartialState._shared_state.clear()
accelerator = Accelerator(cpu=True, mixed_precision="fp16")
with accelerator.autocast():
    out = torch.nn.Linear(2, 1)(torch.ones(1, 2))
print(f"Accelerator(mixed_precision={accelerator.mixed_precision!r}): {out.dtype}, scaler {accelerator.scaler}")
assert (accelerator.mixed_precision, out.dtype, accelerator.scaler) == ("fp16", torch.float32, None)
PY
