"""Trainers on two ranks train as one process does. Each rank imports its trainer, when it runs."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import by_hand
import pytest
import torch
from by_hand import STRENGTHS, apart
from ranks import on_ranks
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import SGD
from torch.utils.data import DataLoader, DistributedSampler

from penalize import L1, L2, kernels
from penalize.integrations.attached import Attached
from penalize.torch import regularize


def rules(first: str) -> Any:
    return {kernels: L2(STRENGTHS[1]), first: L1(STRENGTHS[0])}


def expected() -> nn.Module:
    return by_hand.trained(by_hand.network(), by_hand.batches(10), "proximal", SGD)


@contextmanager
def accelerated() -> Iterator[None]:
    """The environment that accelerate reads; and its state, one per process, forgotten."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    rank = str(distributed.get_rank())
    launched = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    with patch.dict(os.environ, launched):
        yield
    for state in (AcceleratorState, GradientState, PartialState):
        state._shared_state.clear()


@on_ranks(2)
def test_accelerate() -> None:
    from accelerate import Accelerator

    from penalize.integrations.accelerate import prepare

    model = by_hand.network()
    with accelerated():
        accelerator = Accelerator(cpu=True)
        rows: Any = list(zip(*by_hand.data(40), strict=True))
        optimizer: Any = SGD(model.parameters(), lr=by_hand.RATE)
        parts = accelerator.prepare(model, optimizer, DataLoader(rows, batch_size=2))
        wrapped, optimizer, data = parts
        assert isinstance(wrapped, nn.parallel.DistributedDataParallel)
        prepare(regularize(wrapped, rules("0")), accelerator, optimizer, "proximal")
        for x, y in data:
            accelerator.backward(by_hand.loss_of(wrapped, x, y))
            optimizer.step()
            optimizer.zero_grad()
    assert apart(model, expected()) < 1e-12


@on_ranks(2)
def test_what_one_rank_writes_has_the_averages_of_all() -> None:
    """Shards would be read back as those of the rank that wrote: on the other ones, wrong."""

    def run(attached: Attached, model: nn.Module, state: Any, seen: Any) -> dict[str, Any]:
        optimizer = SGD(model.parameters(), lr=by_hand.RATE)
        attached.begin(model, [optimizer], run=model, state=state)
        for x, y in seen:
            by_hand.loss_of(model, x, y).backward()
            optimizer.step()
            optimizer.zero_grad()
        return attached.state_dict()

    def callback() -> Attached:
        return Attached(rules("0"), "proximal", words={}, average=0.9)

    seen = by_hand.batches(10)
    whole, model = by_hand.network(), by_hand.network()
    fully_shard(model)
    run(callback(), whole, None, seen)
    written = [run(callback(), model, None, seen[:5])]
    assert all(type(each["mean"]) is torch.Tensor for each in written[0]["averages"][0].values())
    distributed.broadcast_object_list(written)  # as one rank writes, and all read
    run(callback(), model, written[0], seen[5:])
    for found, wanted in zip(model.parameters(), whole.parameters(), strict=True):
        assert isinstance(found, DTensor)
        torch.testing.assert_close(
            found.full_tensor().detach(), wanted.detach(), rtol=0, atol=1e-12
        )


class WithLoss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = by_hand.network()

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": by_hand.loss_of(self.model, x, labels)}


@pytest.mark.breadth
@on_ranks(2)
def test_transformers() -> None:
    from transformers import Trainer, TrainingArguments

    from penalize.integrations.transformers import PenalizeCallback

    with accelerated(), tempfile.TemporaryDirectory() as folder:
        model = WithLoss()
        how = TrainingArguments(
            folder,
            per_device_train_batch_size=2,
            num_train_epochs=1,
            lr_scheduler_type="constant",
            max_grad_norm=0.0,
            train_sampling_strategy="sequential",
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            ddp_backend="gloo",
            dataloader_pin_memory=False,
        )
        rows: Any = [{"x": x, "labels": y} for x, y in zip(*by_hand.data(40), strict=True)]
        trained = Trainer(
            model=model,
            args=how,
            train_dataset=rows,
            callbacks=[PenalizeCallback(rules("model.0"), "proximal")],
            optimizers=(SGD(model.parameters(), lr=by_hand.RATE), None),
        )
        trained.train()
    assert isinstance(trained.model_wrapped, nn.parallel.DistributedDataParallel)
    assert apart(model, expected()) < 1e-12


@pytest.mark.breadth
@pytest.mark.parametrize("sharded", [False, True], ids=["DDP", "FSDP2"])
@on_ranks(2)
def test_lightning(sharded: bool) -> None:
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.plugins.environments import LightningEnvironment
    from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy

    from penalize.integrations.lightning import PenalizeCallback

    class Launched(LightningEnvironment):
        """Processes that are there already."""

        creates_processes_externally = True

        def world_size(self) -> int:
            return 2

        def global_rank(self) -> int:
            return distributed.get_rank()

        local_rank = global_rank

    class Regression(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = by_hand.network()

        def configure_model(self) -> None:
            if sharded:
                fully_shard(self.model, mesh=self.device_mesh["data_parallel"])

        def training_step(self, batch: Any, number: int) -> Any:
            return by_hand.loss_of(self.model, *batch)

        def configure_optimizers(self) -> Any:
            return SGD(self.parameters(), lr=by_hand.RATE)

    strategy: Any = DDPStrategy(process_group_backend="gloo")
    if sharded:
        sizes = {"data_parallel_size": 2, "tensor_parallel_size": 1}
        strategy = ModelParallelStrategy(process_group_backend="gloo", **sizes)
    quiet = ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing")
    rows: Any = list(zip(*by_hand.data(40), strict=True))
    module, callback = Regression(), PenalizeCallback(rules("model.0"), "proximal")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Lightning advises
        trainer = Trainer(
            accelerator="cpu",
            devices=2,
            strategy=strategy,
            plugins=[Launched()],
            max_epochs=1,
            callbacks=[callback],
            **dict.fromkeys(quiet, False),
        )
        trainer.fit(module, DataLoader(rows, 2, sampler=DistributedSampler(rows, shuffle=False)))
    assert trainer.global_step == 10
    for found, wanted in zip(module.parameters(), expected().parameters(), strict=True):
        assert isinstance(found, DTensor) == sharded
        whole = found.full_tensor() if isinstance(found, DTensor) else found
        torch.testing.assert_close(whole.detach(), wanted.detach(), rtol=0, atol=1e-12)
