"""Lightning's Trainer with PenalizeCallback, against loops by hand that know nothing of either."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import by_hand
import pytest
import torch
from by_hand import STRENGTHS, apart
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn
from torch.utils.data import DataLoader

from penalize import (
    L1,
    L2,
    AppliedTwiceError,
    ModeError,
    NoMatchError,
    OptimizerError,
    RulesError,
    StateError,
    TrainerError,
    cli,
    kernels,
    warmup,
)
from penalize.integrations.lightning import PenalizeCallback

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*lower value for log_every_n_steps"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated:FutureWarning"),
]

RULES = {kernels: L2(STRENGTHS[1]), "model.0": L1(STRENGTHS[0])}
SGD, ADAM = torch.optim.SGD, torch.optim.Adam


class Regression(LightningModule):
    def __init__(self, make: Any = SGD) -> None:
        super().__init__()
        self.model = by_hand.network()
        self.make = make
        self.none_at: int | None = None

    def training_step(self, batch: Any, number: int) -> Any:
        return None if number == self.none_at else by_hand.loss_of(self.model, *batch)

    def configure_optimizers(self) -> Any:
        return self.make(self.parameters(), lr=by_hand.RATE)


def loader(count: int = 10) -> DataLoader[Any]:
    x, y = by_hand.data(4 * count)
    return DataLoader(list(zip(x, y, strict=True)), batch_size=4)  # type: ignore[arg-type]


def trainer(*callbacks: Callback, **arguments: Any) -> Trainer:
    defaults = {
        **dict.fromkeys(
            ["logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"], False
        ),
        **{"accelerator": "cpu", "precision": "64-true", "max_epochs": 1},
    }
    return Trainer(callbacks=list(callbacks), **{**defaults, **arguments})


def fitted(
    callback: PenalizeCallback, module: Regression | None = None, **arguments: Any
) -> Regression:
    module = module or Regression()
    trainer(callback, **arguments).fit(module, loader())
    return module


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


def test_the_log_has_the_numbers_of_the_plan_when_the_trainer_writes() -> None:
    logger, callback = Recorder(), PenalizeCallback(RULES, "proximal")
    truth = Breakdowns(callback)
    how: Any = {"logger": logger, "log_every_n_steps": 2, "accumulate_grad_batches": 2}
    trained = trainer(callback, truth, **how)
    trained.fit(Regression(), loader(12))
    assert trained.callback_metrics["penalty"] == pytest.approx(sum(truth.seen[5].values()))
    written = [(step, numbers) for step, numbers in logger.seen if "penalty" in numbers]
    assert [step for step, _ in written] == [1, 3, 5]
    for step, numbers in written:
        parts = truth.seen[step]
        assert numbers["penalties/model.0"] == pytest.approx(parts["model.0.weight"], rel=1e-6)
        assert numbers["penalties/kernels"] == pytest.approx(parts["model.2.weight"], rel=1e-6)
        assert numbers["penalty"] == pytest.approx(sum(parts.values()), rel=1e-6)
        assert 0 <= numbers["zeros"] < 1


# --- resuming -------------------------------------------------------------------------------------

RESUMED: Any = {kernels: L2(STRENGTHS[1]) * warmup(20), "model.0": L1(0.3) * warmup(25)}


class Killed(Callback):
    """Ends the training in the middle of its second epoch, after saving at the end of the first."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.path)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 13:
            raise KeyError("killed")


def test_a_training_that_was_ended_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    def callback() -> PenalizeCallback:
        return PenalizeCallback(RESUMED, "proximal", average=0.9)

    whole = fitted(callback(), max_epochs=3)
    path = tmp_path / "one.ckpt"
    with pytest.raises(KeyError, match="killed"):
        trainer(callback(), Killed(path), max_epochs=3).fit(Regression(), loader())
    again = Regression()
    trainer(callback(), max_epochs=3).fit(again, loader(), ckpt_path=path, weights_only=True)
    assert apart(again.model, whole.model) == 0.0

    module, schedules = Regression(), callback()
    twice = trainer(schedules, max_epochs=1)
    twice.fit(module, loader())
    assert twice.fit_loop.max_epochs is not None
    twice.fit_loop.max_epochs = 3
    twice.fit(module, loader())
    assert schedules.attachment is not None
    assert schedules.attachment.steps == [30]
    assert apart(module.model, whole.model) == 0.0

    trainer(schedules).fit(Regression(), loader())
    assert schedules.attachment.steps == [10]  # another trainer begins anew


def test_checkpoints_of_other_penalties_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "with.ckpt"
    callback = PenalizeCallback(RULES)
    saver = trainer(callback)
    saver.fit(Regression(), loader())
    saver.save_checkpoint(path)  # after the training
    for other, problem in (
        (PenalizeCallback(RULES, "decoupled"), "mode='gradient', and here it is 'decoupled'"),
        (PenalizeCallback({kernels: L2(0.5)}), "'model.2.weight' has"),
    ):
        with pytest.raises(StateError, match=problem) as caught:
            trainer(other, max_epochs=2).fit(Regression(), loader(), ckpt_path=path)
        assert "Trainer.fit without ckpt_path" in caught.value.__notes__[0]
        assert not (other.attachment and other.attachment.alive)
    bare = tmp_path / "without.ckpt"
    without = trainer()
    without.fit(Regression(), loader())
    without.save_checkpoint(bare)
    with pytest.raises(StateError, match="saved without a PenalizeCallback"):
        trainer(PenalizeCallback(RULES), max_epochs=2).fit(Regression(), loader(), ckpt_path=bare)


# --- beginning and ending -------------------------------------------------------------------------


def test_after_the_training_nothing_acts_and_the_same_model_can_be_trained_again() -> None:
    callback = PenalizeCallback(RULES)
    module = fitted(callback)
    assert callback.attachment is not None
    assert not callback.attachment.alive
    fitted(PenalizeCallback(RULES, "decoupled"), module)
    for made in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
        assert made.plan is None
        fitted(made, module)
        assert made.attachment.steps == [10]
    assert "test_lightning.py:" in str(made.plan)


class Interrupting(Callback):
    def on_train_batch_start(self, *_: Any) -> None:
        raise KeyError("stop")


def test_a_training_that_raised_does_not_stand_in_the_way() -> None:
    module, callback = Regression(), PenalizeCallback(RULES)
    broken = trainer(callback, Interrupting())
    with pytest.raises(KeyError, match="stop"):
        broken.fit(module, loader())
    assert callback.attachment is not None
    assert not callback.attachment.alive
    fitted(PenalizeCallback(RULES), module)


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: PenalizeCallback(0.1), RulesError, r"Write L2\(0\.1\)"),  # type: ignore[arg-type]
        (lambda: PenalizeCallback(L2(0.1), "prox"), ModeError, "no mode 'prox'"),
        (lambda: PenalizeCallback(L2(0.1), values=2), ModeError, "values=2"),
        (lambda: PenalizeCallback(L2(0.1), clap="with"), TypeError, "clap"),
    ],
)
def test_malformed(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


class Decaying(Regression):
    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters())


class HalfStepped(Regression):
    def configure_optimizers(self) -> Any:
        return SGD(self.model[0].parameters(), 0.1)


@pytest.mark.parametrize(
    ("rules", "kind", "error", "message", "words"),
    [
        ({"0": L1(0.1)}, Regression, NoMatchError, "nearest names are 'model.0'", "in front"),
        ({"module.model.0": L1(0.1)}, Regression, NoMatchError, "'model.0", "of wrappers"),
        (L2(0.1), Decaying, AppliedTwiceError, "weight_decay=0.01", "configure_optimizers"),
        (L2(0.1), HalfStepped, OptimizerError, "does not hold 'model.2.weight'", ""),
    ],
)
def test_what_does_not_fit(
    rules: Any, kind: type[Regression], error: type[Exception], message: str, words: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        fitted(PenalizeCallback(rules), kind())
    assert words in "".join(getattr(caught.value, "__notes__", []))


def test_two_callbacks_are_refused() -> None:
    with pytest.raises(RuntimeError, match="more than one stateful callback"):
        trainer(PenalizeCallback(RULES), PenalizeCallback(RULES))
    late = trainer(PenalizeCallback(RULES))
    late.callbacks.append(PenalizeCallback(RULES))  # type: ignore[attr-defined]
    with pytest.raises(TrainerError, match="give one, with the rules of both"):
        late.fit(Regression(), loader())


def test_deepspeed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class DeepSpeedStrategy(SingleDeviceStrategy):
        """A stand-in: DeepSpeed does not run here."""

    strategy = DeepSpeedStrategy("cpu")
    with pytest.raises(TrainerError, match="DeepSpeed steps the weights itself"):
        fitted(PenalizeCallback(RULES), strategy=strategy)


def test_what_the_trainer_clips_may_have_the_penalty_in_it() -> None:
    module = fitted(PenalizeCallback(RULES, clip="with"), gradient_clip_val=0.1)
    expected = by_hand.trained(by_hand.network(), by_hand.batches(10), "in the loss", SGD, clip=0.1)
    assert apart(module.model, expected) < 1e-12


# --- the doctor -----------------------------------------------------------------------------------

EXAMPLE = Path(__file__).parents[2] / "examples" / "lightning_digits.py"
PLANTED = {
    "nn.Linear(32, 10))": "nn.Linear(32, 10), nn.Linear(10, 10))",
    "batch[1])": "batch[1]) + 1e-4 * self.net[3].weight.square().sum()",
    "Adam(self.parameters(), lr=0.01)": "Adam([{'params': self.net[::3].parameters()}, "
    "{'params': self.net[1].parameters(), 'weight_decay': 0.1}], lr=0.01)",
    '"net.0": L1(1e-3)': '"net.0": L1(1e-3), "net.4": None',
}
"""A layer that is left out of the optimizer, an L2 that is in the loss as well, decayed norms."""


@pytest.mark.filterwarnings("ignore")
def test_the_doctor_finds_what_is_planted_in_the_example_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = EXAMPLE.read_text("utf-8")
    for good, bad in PLANTED.items():
        assert good in text
        text = text.replace(good, bad)
    monkeypatch.chdir(tmp_path)
    Path("train.py").write_text(text, "utf-8")
    assert cli.main(["doctor", "train.py"]) == 1
    _, _, report = capsys.readouterr().out.partition("penalize doctor: train.py")
    wrong = [" ".join(line.split()) for line in report.splitlines() if line.startswith("wrong")]
    assert [line.partition(" of a ")[0] for line in wrong] == [
        "wrong net.1.weight, net.1.bias weight_decay=0.1 of Adam, in the gradient norm: decayed, "
        "while the kernels are exempt",
        "wrong net.3.weight L2(0.0001) in the loss 1 penalized twice: also by L2(0.0001)",
        "wrong net.4.weight, net.4.bias no optimizer holds it, though it gets a gradient: give it "
        "to one, or freeze it",
    ]
    assert "2 of 2 applied exactly once" in report
