"""Lightning's Trainer with PenalizeCallback, against loops by hand that know nothing of either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import by_hand
import pytest
import torch
from by_hand import STRENGTHS, apart
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import (
    EMAWeightAveraging,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.plugins import MixedPrecision
from lightning_runs import QUIET, RULES, Regression, fitted, loader, trainer
from torch import nn

from penalize.integrations.attached import Attached
from penalize.integrations.lightning import PenalizeCallback
from penalize.torch import regularize

pytestmark = QUIET
SGD, ADAM = torch.optim.SGD, torch.optim.Adam


MODES = [("gradient", ADAM), ("decoupled", ADAM), ("proximal", SGD)]


@pytest.mark.parametrize(("mode", "make"), MODES, ids=[mode for mode, _ in MODES])
def test_ten_steps_of_accumulated_and_clipped_gradients(mode: str, make: Any) -> None:
    how = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1, "max_epochs": 2}
    module = fitted(PenalizeCallback(RULES, mode), Regression(make), **how)
    seen = [*by_hand.batches(10), *by_hand.batches(10)]
    expected = by_hand.trained(by_hand.network(), seen, mode, make, accumulate=2, clip=0.1)
    assert apart(module.model, expected) < 1e-12
    assert apart(module.model, by_hand.network()) > 0.01


def test_proximal_steps_leave_exact_zeros() -> None:
    first = fitted(PenalizeCallback(RULES, "proximal"), max_epochs=8).model[0]
    assert isinstance(first.weight, nn.Parameter)
    assert (first.weight == 0).sum() > 3


def test_line_searches_see_the_penalty() -> None:
    def lbfgs(parameters: Any, lr: float) -> torch.optim.Optimizer:
        return torch.optim.LBFGS(parameters, lr=lr, max_iter=3, line_search_fn="strong_wolfe")

    module = fitted(PenalizeCallback(RULES), Regression(lbfgs))
    model = by_hand.network()
    optimizer = lbfgs(model.parameters(), by_hand.RATE)
    for batch in by_hand.batches(10):

        def closure(batch: by_hand.Batch = batch) -> torch.Tensor:
            optimizer.zero_grad()
            lasso = STRENGTHS[0] * model[0].weight.abs().sum()
            loss = by_hand.loss_of(model, *batch) + lasso
            loss = loss + STRENGTHS[1] * model[2].weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
    assert apart(module.model, model) < 1e-9


class Mixed(Regression):
    def __init__(self, make: Any = SGD) -> None:
        super().__init__(make)
        self.model.float()

    def training_step(self, batch: Any, number: int) -> Any:
        return super().training_step([part.float() for part in batch], number)


@pytest.mark.parametrize(("dtype", "scale"), [("bf16", None), ("16", 2.0**10), ("16", 2.0**18)])
def test_mixed_precision(dtype: str, scale: float | None) -> None:
    """At the larger scale the first steps overflow, and are skipped: the penalty with them."""

    def scaler() -> torch.amp.GradScaler | None:
        return None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)

    name: Any = f"{dtype}-mixed"
    plugin = MixedPrecision(name, "cpu", scaler())
    module = fitted(PenalizeCallback(RULES), Mixed(), plugins=plugin, precision=None)
    half = torch.bfloat16 if dtype == "bf16" else torch.float16
    with torch.autocast("cpu", half, cache_enabled=False):
        seen = [(x.float(), y.float()) for x, y in by_hand.batches(10)]
    expected, skipped = by_hand.trained_in(half, by_hand.network().float(), seen, scaler())
    assert apart(module.model, expected) < 1e-6
    assert bool(skipped) == (scale == 2.0**18)


def test_an_average_of_the_weights_is_that_of_penalized_ones() -> None:
    average = EMAWeightAveraging(decay=0.8)
    module = Regression()
    trainer(average, PenalizeCallback(RULES, "proximal")).fit(module, loader())
    kept: list[list[torch.Tensor]] = []

    def follow(model: nn.Module) -> None:
        now = [p.detach().clone() for p in model.parameters()]
        kept.append(
            [0.8 * a + 0.2 * b for a, b in zip(kept[-1], now, strict=True)] if kept else now
        )

    by_hand.trained(by_hand.network(), by_hand.batches(10), "proximal", SGD, after=follow)
    for found, expected in zip(module.model.parameters(), kept[-1], strict=True):
        torch.testing.assert_close(found.detach(), expected, rtol=0, atol=1e-12)


class TwoOptimizers(Regression):
    automatic_optimization = False

    def configure_optimizers(self) -> Any:
        return SGD(self.model[0].parameters(), 0.1), SGD(self.model[2].parameters(), 0.1)

    def training_step(self, batch: Any, number: int) -> None:
        optimizers: Any = self.optimizers()
        self.manual_backward(super().training_step(batch, number))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def test_two_optimizers_under_manual_optimization() -> None:
    module = fitted(PenalizeCallback(RULES, "proximal"), TwoOptimizers())
    expected = by_hand.trained(by_hand.network(), by_hand.batches(10), "proximal", SGD)
    assert apart(module.model, expected) < 1e-12


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_the_penalty_acts_in_a_step_without_a_loss() -> None:
    module = Regression()
    module.none_at = 0
    trainer(PenalizeCallback(RULES), max_steps=1).fit(module, loader())
    start = by_hand.network()
    for place, slope in ((0, STRENGTHS[0] * start[0].weight.sign()), (2, 0.1 * start[2].weight)):
        moved = start[place].weight - by_hand.RATE * slope
        torch.testing.assert_close(module.model[place].weight, moved, rtol=0, atol=1e-15)


def test_what_the_trainer_clips_may_have_the_penalty_in_it() -> None:
    module = fitted(PenalizeCallback(RULES, clip="with"), gradient_clip_val=0.1)
    expected = by_hand.trained(by_hand.network(), by_hand.batches(10), "in the loss", SGD, clip=0.1)
    assert apart(module.model, expected) < 1e-12


class ByHook(Regression):
    def on_before_optimizer_step(self, optimizer: Any) -> None:
        first, second = self.model[0].weight, self.model[2].weight
        for w, slope in ((first, STRENGTHS[0] * first.sign()), (second, 0.1 * second)):
            w.grad += slope.detach()


def test_stochastic_weight_averaging() -> None:
    found = []
    for module, callbacks in ((Regression(), [PenalizeCallback(RULES)]), (ByHook(), [])):
        average = StochasticWeightAveraging(swa_lrs=0.05, swa_epoch_start=2)
        trainer(average, *callbacks, max_epochs=4).fit(module, loader())
        found.append(module.model)
    assert apart(*found) == 0.0


def test_a_hook_of_ones_own_before_the_step_is_too_early() -> None:
    """Lightning computes the gradients within the step: what was added before is zeroed."""

    class Early(Regression):
        def on_train_start(self) -> None:
            def add(*_: Any) -> None:
                for parameter in self.model.parameters():
                    parameter.grad = torch.ones_like(parameter)

            self.trainer.optimizers[0].register_step_pre_hook(add)

    module = Early()
    trainer().fit(module, loader())
    plain = by_hand.trained(by_hand.network(), by_hand.batches(10), "not at all", SGD)
    assert apart(module.model, plain) < 1e-12


def test_lightnings_own_wrapper_of_an_optimizer_can_be_attached_to() -> None:
    class Attaching(Regression):
        def on_train_start(self) -> None:
            wrapped: Any = self.optimizers()
            assert wrapped is not self.trainer.optimizers[0]
            self.attachment = regularize(self, RULES).attach(wrapped, "proximal")

    module = Attaching()
    trainer().fit(module, loader())
    assert module.attachment.optimizers == module.trainer.optimizers
    expected = by_hand.trained(by_hand.network(), by_hand.batches(10), "proximal", SGD)
    assert apart(module.model, expected) < 1e-12


# --- the log --------------------------------------------------------------------------------------


class Recorder(DummyLogger):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, dict[str, float]]] = []

    def log_metrics(self, metrics: Any, step: Any = None, **_: Any) -> None:
        self.seen.append((step, dict(metrics)))


class Breakdowns(Callback):
    """What the plan says after each step."""

    def __init__(self, callback: PenalizeCallback) -> None:
        self.callback = callback
        self.seen: dict[int, dict[str, float]] = {}

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        assert self.callback.plan is not None
        self.seen[trainer.global_step - 1] = self.callback.plan.breakdown()


def test_the_log_has_the_numbers_of_the_plan_when_the_trainer_writes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    computed: list[dict[str, float]] = []
    original = Attached.logged

    def counted(self: Attached) -> dict[str, float]:
        computed.append(original(self))
        return computed[-1]

    monkeypatch.setattr(Attached, "logged", counted)
    logger, callback = Recorder(), PenalizeCallback(RULES, "proximal")
    truth = Breakdowns(callback)
    how: Any = {"logger": logger, "log_every_n_steps": 2, "accumulate_grad_batches": 2}
    trained = trainer(callback, truth, **how)
    trained.fit(Regression(), loader(12))
    assert trained.callback_metrics["penalty"] == pytest.approx(sum(truth.seen[5].values()))
    written = [(step, numbers) for step, numbers in logger.seen if "penalty" in numbers]
    assert [step for step, _ in written] == [1, 3, 5]
    assert len(computed) == 3  # looking at every weight takes time
    for step, numbers in written:
        parts = truth.seen[step]
        assert numbers["penalties/model.0"] == pytest.approx(parts["model.0.weight"], rel=1e-6)
        assert numbers["penalties/kernels"] == pytest.approx(parts["model.2.weight"], rel=1e-6)
        assert numbers["penalty"] == pytest.approx(sum(parts.values()), rel=1e-6)
        assert 0 <= numbers["zeros"] < 1


def test_an_epoch_that_is_too_short_to_be_logged_is_monitored(tmp_path: Path) -> None:
    """With Lightning's ``log_every_n_steps=50``: without a number it raises."""
    callback, logger = PenalizeCallback(RULES, "proximal"), Recorder()
    best = ModelCheckpoint(tmp_path, monitor="penalty")
    how: Any = {"logger": logger, "enable_checkpointing": True}
    trained = trainer(callback, best, **how)
    trained.fit(Regression(), loader(3))
    assert callback.plan is not None
    assert trained.callback_metrics["penalty"] == pytest.approx(
        sum(callback.plan.breakdown().values())
    )
    assert best.best_model_score == trained.callback_metrics["penalty"]
    assert not any("penalty" in numbers for _, numbers in logger.seen)
