"""The Trainer of transformers with PenalizeCallback, against loops by hand that know neither."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import by_hand
import pytest
import torch
from by_hand import STRENGTHS, apart
from torch import nn
from transformers import Trainer, TrainerCallback
from transformers_runs import Regression, dataset, trainer

from penalize import (
    L1,
    L2,
    AppliedTwiceError,
    ModeError,
    NoMatchError,
    StateError,
    TrainerError,
    everything,
    kernels,
    units,
    warmup,
)
from penalize.integrations.transformers import PenalizeCallback
from penalize.torch import regularize

RULES = {kernels: L2(STRENGTHS[1]), "model.0": L1(STRENGTHS[0])}
SGD, ADAM = torch.optim.SGD, torch.optim.Adam


MODES = [("gradient", ADAM), ("decoupled", ADAM), ("proximal", SGD)]


@pytest.mark.parametrize(("mode", "make"), MODES, ids=[mode for mode, _ in MODES])
def test_ten_steps_of_accumulated_and_clipped_gradients(
    mode: str, make: Any, tmp_path: Path
) -> None:
    how = {"gradient_accumulation_steps": 2, "max_grad_norm": 0.1, "num_train_epochs": 2}
    trained = trainer(tmp_path, PenalizeCallback(RULES, mode), make=make, **how)
    trained.train()
    seen = [*by_hand.batches(10), *by_hand.batches(10)]
    expected = by_hand.trained(by_hand.network(), seen, mode, make, accumulate=2, clip=0.1)
    assert apart(trained.model, expected) < 1e-12
    assert apart(trained.model, by_hand.network()) > 0.01


def test_a_penalty_in_compute_loss_enters_with_each_micro_batch(tmp_path: Path) -> None:
    """Of a model that divides its loss by all items of a step, as those of transformers do."""

    class Normalized(Regression):
        def forward(self, x: Any, labels: Any, **told: Any) -> Any:
            return {"loss": (self.model(x) - labels).square().sum() / told["num_items_in_batch"]}

    def run(*callbacks: Any, share: float = 0.0) -> nn.Module:
        model = Normalized()
        plan = regularize(model, RULES) if share else None

        class Own(Trainer):
            def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
                loss = super().compute_loss(model, inputs, *args, **kwargs)
                return loss if plan is None else loss + share * plan.penalty()

        made = trainer(tmp_path, *callbacks, model=model, make=SGD, gradient_accumulation_steps=2)
        made.__class__ = Own
        made.train()
        return model.model

    seen = by_hand.batches(10)
    expected = by_hand.trained(by_hand.network(), seen, "gradient", SGD, accumulate=2)
    assert apart(run(share=1.0), expected) > 1e-3  # twice as much
    assert apart(run(share=1 / 2), expected) < 1e-12
    assert apart(run(PenalizeCallback(RULES)), expected) < 1e-12


def test_bfloat16(tmp_path: Path) -> None:
    """(On a CPU, ``fp16=True`` trains in float32.)"""
    model = Regression()
    model.model.float()
    trained = trainer(tmp_path, PenalizeCallback(RULES), model=model, make=SGD, bf16=True)
    trained.train_dataset = [{k: v.float() for k, v in row.items()} for row in dataset()]
    trained.train()
    seen = [(x.float(), y.float()) for x, y in by_hand.batches(10)]
    expected, _ = by_hand.trained_in(torch.bfloat16, by_hand.network().float(), seen, None)
    assert apart(model.model, expected) < 1e-6


def test_what_the_trainer_clips_may_have_the_penalty_in_it(tmp_path: Path) -> None:
    callback = PenalizeCallback(RULES, clip="with")
    trained = trainer(tmp_path, callback, make=SGD, max_grad_norm=0.1)
    trained.train()
    expected = by_hand.trained(by_hand.network(), by_hand.batches(10), "in the loss", SGD, clip=0.1)
    assert apart(trained.model, expected) < 1e-12


# --- weight decay ---------------------------------------------------------------------------------


def test_weight_decay_of_the_trainer_is_refused_or_replaced(tmp_path: Path) -> None:
    decay = {"weight_decay": 0.1, "optim": "adamw_torch"}
    with pytest.raises(AppliedTwiceError, match=r"weight_decay=0\.1 of AdamW") as caught:
        trainer(tmp_path, PenalizeCallback(RULES), **decay).train()
    assert "TrainingArguments(weight_decay=0.0)" in caught.value.__notes__[0]

    trained = trainer(tmp_path, **decay)
    trained.train()
    rules = L2.from_weight_decay(0.1)
    replaced = trainer(
        tmp_path, PenalizeCallback(rules, "decoupled", replaces_weight_decay=True), **decay
    )
    replaced.train()
    assert apart(trained.model, replaced.model) < 1e-12
    assert {group["weight_decay"] for group in replaced.optimizer.param_groups} == {0.0}

    callback = PenalizeCallback({"nowhere": L2(0.1)}, replaces_weight_decay=True)
    refused = trainer(tmp_path, callback, **decay)
    with pytest.raises(NoMatchError):
        refused.train()
    assert {group["weight_decay"] for group in refused.optimizer.param_groups} == {0.0, 0.1}


# --- the log --------------------------------------------------------------------------------------


class Reporter(TrainerCallback):
    """What stands in ``report_to``: it gets the logs in the order of the callbacks."""

    def __init__(self, penalizing: PenalizeCallback) -> None:
        self.penalizing = penalizing
        self.told: dict[int, dict[str, float]] = {}
        self.truth: dict[int, dict[str, float]] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        assert self.penalizing.plan is not None
        self.truth[state.global_step] = self.penalizing.plan.breakdown()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" in logs:
            self.told[state.global_step] = dict(logs)


class Normed(Regression):
    """The same behind a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.LayerNorm(next(self.parameters()).shape[1]), self.model)
        self.double()


def test_its_weight_decay_in_our_units(tmp_path: Path) -> None:
    """AdamW's, of all but biases and norms."""

    def trained(weight_decay: float, *callbacks: TrainerCallback) -> nn.Module:
        ended = trainer(tmp_path, *callbacks, model=Normed(), weight_decay=weight_decay)
        ended.train()
        model = ended.model
        assert isinstance(model, nn.Module)
        return model

    theirs = trained(0.5)
    rules = units.convert("transformers.Trainer", weight_decay=0.5)
    assert apart(trained(0.0, PenalizeCallback(rules, "decoupled")), theirs) < 1e-9
    guesses = {everything: L2.from_weight_decay(0.5)}, {kernels: L2(0.5)}
    for guess in guesses:
        assert apart(trained(0.0, PenalizeCallback(guess, "decoupled")), theirs) > 1e-4


def test_the_log_has_the_numbers_of_the_plan(tmp_path: Path) -> None:
    callback = PenalizeCallback(RULES, "proximal")
    reporter = Reporter(callback)
    how = {"logging_strategy": "steps", "logging_steps": 3}
    trained = trainer(tmp_path, reporter, callback, make=SGD, **how)
    trained.train()
    assert list(reporter.told) == [3, 6, 9]
    history = {row["step"]: row for row in trained.state.log_history if "penalty" in row}
    assert list(history) == [3, 6, 9]
    for step, told in reporter.told.items():
        parts = reporter.truth[step]
        assert told["penalties/model.0"] == pytest.approx(parts["model.0.weight"], rel=1e-6)
        assert told["penalties/kernels"] == pytest.approx(parts["model.2.weight"], rel=1e-6)
        assert told["penalty"] == pytest.approx(sum(parts.values()), rel=1e-6)
        assert history[step]["zeros"] == told["zeros"]


# --- resuming -------------------------------------------------------------------------------------

RESUMED: Any = {kernels: L2(STRENGTHS[1]) * warmup(20), "model.0": L1(0.3) * warmup(25)}


class Killed(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 13:
            raise KeyError("killed")


HOW = {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": 4, "make": SGD}


def resumable() -> PenalizeCallback:
    return PenalizeCallback(RESUMED, "proximal", average=0.9)


@pytest.mark.parametrize("where", [True, "checkpoint-8"])
def test_a_training_that_was_ended_goes_on_as_if_it_had_not_been(
    where: Any, tmp_path: Path
) -> None:
    whole = trainer(tmp_path / "whole", resumable(), **{**HOW, "save_strategy": "no"})
    whole.train()
    killed = trainer(tmp_path, resumable(), Killed(), **HOW)
    with pytest.raises(KeyError, match="killed"):
        killed.train()
    again = trainer(tmp_path, resumable(), **HOW)
    again.train(resume_from_checkpoint=where if where is True else str(tmp_path / where))
    assert again.state.global_step == 30
    assert apart(again.model, whole.model) == 0.0


class KilledForGood(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 13:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.breadth
def test_a_process_that_was_killed(tmp_path: Path) -> None:
    here = Path(__file__).parent
    code = (
        f"import sys; sys.path[:0] = [{str(here)!r}, {str(here.parent)!r}]; import pathlib; "
        "from test_transformers import HOW, KilledForGood, resumable, trainer; "
        f"trainer(pathlib.Path({str(tmp_path)!r}), resumable(), KilledForGood(), **HOW).train()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    whole = trainer(tmp_path / "whole", resumable(), **{**HOW, "save_strategy": "no"})
    whole.train()
    again = trainer(tmp_path, resumable(), **HOW)
    again.train(resume_from_checkpoint=True)
    assert apart(again.model, whole.model) == 0.0


def test_checkpoints_of_other_penalties_are_refused(tmp_path: Path) -> None:
    how = {"save_strategy": "steps", "save_steps": 4, "make": SGD}
    trainer(tmp_path, PenalizeCallback(RULES), max_steps=4, **how).train()
    for other, problem in (
        (PenalizeCallback(RULES, "decoupled"), "mode='gradient', and here it is 'decoupled'"),
        (PenalizeCallback({kernels: L2(0.5)}), "'model.2.weight' has"),
    ):
        refused = trainer(tmp_path, other, **how)
        with pytest.raises(StateError, match=problem) as caught:
            refused.train(resume_from_checkpoint=True)
        assert "without resume_from_checkpoint" in caught.value.__notes__[0]
        assert other.attachment is None
        regularize(refused.model, RULES).attach(refused.optimizer)  # nothing is attached
    (tmp_path / "checkpoint-4" / "penalize.pt").write_bytes(b"no archive")
    with pytest.raises(StateError, match="cannot be read"):
        trainer(tmp_path, PenalizeCallback(RULES), **how).train(resume_from_checkpoint=True)
    (tmp_path / "checkpoint-4" / "penalize.pt").unlink()
    with pytest.raises(StateError, match="saved without a PenalizeCallback"):
        trainer(tmp_path, PenalizeCallback(RULES), **how).train(resume_from_checkpoint=True)


def test_no_training_that_goes_on_begins_anew(tmp_path: Path) -> None:
    """What it resumes from is found in the Trainer's call; a trainer may call it something else."""
    callback, ready = PenalizeCallback(RULES), trainer(tmp_path, make=SGD)
    ready.state.global_step = 4
    with pytest.raises(StateError, match=r"checkpoint-4 has no penalize\.pt"):
        callback.on_train_begin(
            ready.args, ready.state, ready.control, ready.model, ready.optimizer
        )


# --- beginning and ending -------------------------------------------------------------------------


def test_each_training_begins_anew_and_ends(tmp_path: Path) -> None:
    callback = PenalizeCallback(RULES, "proximal")
    trained = trainer(tmp_path, callback, make=SGD)
    trained.train()
    assert callback.attachment is not None
    assert not callback.attachment.alive
    trained.train()
    assert callback.attachment.steps == [10]
    seen = [*by_hand.batches(10), *by_hand.batches(10)]
    expected = by_hand.trained(by_hand.network(), seen, "proximal", SGD)
    assert apart(trained.model, expected) < 1e-12
    assert "test_transformers.py:" in str(callback.plan)


def test_a_training_that_raised_does_not_stand_in_the_way(tmp_path: Path) -> None:
    model = Regression()
    killed = trainer(tmp_path, PenalizeCallback(RULES), Killed(), model=model, num_train_epochs=2)
    with pytest.raises(KeyError, match="killed"):
        killed.train()
    trainer(tmp_path, PenalizeCallback(RULES), model=model).train()
    with pytest.raises(KeyError, match="killed"):
        killed.train()


# --- refusals -------------------------------------------------------------------------------------


def test_malformed() -> None:
    with pytest.raises(ModeError, match="no mode 'prox'"):
        PenalizeCallback(L2(0.1), "prox")


@pytest.mark.parametrize("name", ["0", "module.model.0", "_orig_mod.model.0"])
def test_names_that_the_model_does_not_have(name: str, tmp_path: Path) -> None:
    with pytest.raises(NoMatchError, match=r"'model\.0") as caught:
        trainer(tmp_path, PenalizeCallback({name: L1(0.1)})).train()
    assert "of wrappers" in caught.value.__notes__[0]


def test_two_callbacks_are_refused(tmp_path: Path) -> None:
    one = PenalizeCallback(RULES)
    for callbacks in ([one, one], [PenalizeCallback(RULES), PenalizeCallback(L1(0.1))]):
        with pytest.raises(TrainerError, match="give one, with the rules of both"):
            trainer(tmp_path, *callbacks).train()


def test_optimizers_that_step_by_themselves_are_refused(tmp_path: Path) -> None:
    callback = PenalizeCallback(RULES)
    ready = trainer(tmp_path, callback)
    ready.args.deepspeed = {"zero_optimization": {"stage": 1}}  # DeepSpeed does not run here
    with pytest.raises(TrainerError, match="DeepSpeed steps the weights itself") as caught:
        callback.on_train_begin(ready.args, ready.state, ready.control, ready.model, None)
    assert "TrainingArguments(deepspeed=...)" in str(caught.value)
    assert "divided by gradient_accumulation_steps if the model's forward takes **kwargs" in str(
        caught.value
    )
