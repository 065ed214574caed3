"""What every trainer is to do alike, and the table of docs/trainers.md, which names its tests."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import by_hand
import pytest
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from accelerate_runs import forget, loader, loop
from by_hand import RATE, apart
from documents import DOCS, part_of, read
from halfspace_reference import HalfSpace
from ignite.engine import create_supervised_trainer
from lightning_runs import QUIET, fitted
from skorch import NeuralNetRegressor
from torch import nn, tensor
from torch.optim import SGD
from trainer_features import COLUMNS, FEATURES, LINES, Shown, cell, table
from transformers_runs import trainer

import penalize
from penalize import L1, L2, kernels
from penalize.integrations import accelerate, ignite, lightning, skorch, transformers
from penalize.torch import regularize

pytestmark = QUIET
TESTS = Path(__file__).parents[1]
FOLDERS = (TESTS / "integrations", TESTS / "wing_keras" / "programs")
RULES = {kernels: L1(0.1)}
HALFSPACE: Any = {"mode": "halfspace", "average": 0.9}


@pytest.fixture(autouse=True)
def _forget_the_accelerator() -> Iterator[None]:
    yield
    forget()


# --- the half-space rule in each trainer ----------------------------------------------------------


def _lightning(folder: Path) -> nn.Module:
    return fitted(lightning.PenalizeCallback(RULES, **HALFSPACE)).model


def _transformers(folder: Path) -> nn.Module:
    callback = transformers.PenalizeCallback(RULES, **HALFSPACE)
    training = trainer(folder, callback, make=SGD)
    training.train()
    return training.model.model


def _accelerate(folder: Path) -> nn.Module:
    accelerator, model = Accelerator(cpu=True), by_hand.network()
    prepared = accelerator.prepare(model, SGD(model.parameters(), lr=RATE), loader())
    accelerate.prepare(regularize(model, RULES), accelerator, prepared[1], **HALFSPACE)
    loop(accelerator, *prepared)
    return model


def _skorch(folder: Path) -> nn.Module:
    return in_skorch(NeuralNetRegressor, skorch.PenalizeCallback(RULES, **HALFSPACE)).module_


def _ignite(folder: Path) -> nn.Module:
    model = by_hand.network()
    optimizer = SGD(model.parameters(), lr=RATE)
    engine = create_supervised_trainer(model, optimizer, nn.MSELoss())
    ignite.PenalizeCallback(RULES, **HALFSPACE).attach(engine, model, optimizer)
    engine.run(by_hand.batches(10))
    return model


def in_skorch(kind: type[Any], callback: Any) -> Any:
    net = kind(
        by_hand.network, optimizer=SGD, lr=RATE, max_epochs=1, batch_size=4, callbacks=[callback],
        train_split=None, verbose=0,
    )  # fmt: skip
    return net.fit(*by_hand.data(40))


@pytest.mark.parametrize("run", [_lightning, _transformers, _accelerate, _skorch, _ignite])
def test_ten_steps_of_the_half_space_rule(run: Callable[[Path], nn.Module], tmp_path: Path) -> None:
    expected = by_hand.network()
    optimizer = SGD(expected.parameters(), lr=RATE)
    weights = [expected[0].weight, expected[2].weight]
    rules = [HalfSpace(w.detach().numpy().ravel(), 0.9, element=0.1) for w in weights]
    for x, y in by_hand.batches(10):
        optimizer.zero_grad()
        by_hand.loss_of(expected, x, y).backward()
        before = [w.detach().numpy().ravel().copy() for w in weights]
        for w, b, rule in zip(weights, before, rules, strict=True):
            w.grad = tensor(rule.before(b, w.grad.numpy().ravel())).view_as(w)
        optimizer.step()
        for w, b, rule in zip(weights, before, rules, strict=True):
            w.data = tensor(rule.after(b, w.detach().numpy().ravel())).view_as(w)
    assert (expected[0].weight == 0).any()
    assert apart(run(tmp_path), expected) < 1e-12


# --- what a trainer leaves to its users -----------------------------------------------------------


def test_accumulation_in_skorch() -> None:
    """By the recipe of its own documentation."""

    class Accumulating(NeuralNetRegressor):  # type: ignore[misc]
        def get_loss(self, *args: Any, **kwargs: Any) -> Any:
            return super().get_loss(*args, **kwargs) / 2

        def train_step(self, batch: Any, **fit_params: Any) -> Any:
            done = len(self.history[-1, "batches"])
            step = self.train_step_single(batch, **fit_params)
            if done % 2 == 0:
                self.optimizer_.step()
                self.optimizer_.zero_grad()
            return step

    rules = {kernels: L2(by_hand.STRENGTHS[1]), "0": L1(by_hand.STRENGTHS[0])}
    found = in_skorch(Accumulating, skorch.PenalizeCallback(rules, "proximal")).module_
    seen = by_hand.batches(10)
    expected = by_hand.trained(by_hand.network(), seen, "proximal", SGD, accumulate=2)
    assert apart(found, expected) < 1e-12


class Tracker(GeneralTracker):
    name, requires_logging_directory = "seen", False

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Any] = []

    tracker = None

    def log(self, values: Any, step: Any = None, **_: Any) -> None:
        self.seen.append((step, values))


def test_what_accelerate_logs() -> None:
    tracker = Tracker()
    accelerator = Accelerator(cpu=True, log_with=tracker)
    accelerator.init_trackers("run")
    plan = regularize(by_hand.network(), RULES)
    accelerator.log(penalize.log(plan), step=3)
    ((step, values),) = tracker.seen
    assert step == 3
    assert values["penalty"] == pytest.approx(sum(plan.breakdown().values()))


# --- the table ------------------------------------------------------------------------------------


SHOWN = {
    (column, each)
    for features in FEATURES.values()
    for column, cells in features.items()
    for each in cells
}


def source_and_test(name: str) -> tuple[str, ast.FunctionDef]:
    """The file of a test, and its function."""
    file, _, function = name.partition("::")
    (path,) = [folder / file for folder in FOLDERS if (folder / file).exists()]
    source = path.read_text(encoding="utf-8")
    nodes = ast.parse(source).body
    (found,) = [n for n in nodes if isinstance(n, ast.FunctionDef) and n.name == function]
    return source, found


def test_every_cell_has_a_test_that_runs() -> None:
    for column, shown in SHOWN:
        source, function = source_and_test(shown.test)
        marks = " ".join(ast.unparse(each) for each in function.decorator_list)
        assert function.name.startswith(("test_", "check_")), shown
        assert "skip" not in marks, shown
        assert "xfail" not in marks, shown
        if column == "modes" and shown.what != "loss":  # Keras' default
            assert all(f'"{mode}"' in source for mode in shown.what.split(", ")), shown


def test_a_test_that_is_gone_would_be_seen() -> None:
    with pytest.raises(ValueError, match="not enough values"):
        source_and_test("test_lightning.py::test_that_never_was")


def test_the_page_has_the_table() -> None:
    """`make readme` writes it."""
    page = read(DOCS / "trainers.md")
    assert part_of(page, "features") == table()
    sections = {part.partition("\n")[0]: part for part in page.split("\n## ")}
    for name, lines in LINES.items():
        assert [line for line in lines if line not in sections[name]] == []


def test_no_trainer_and_no_column_is_left_out() -> None:
    files = {path.stem for path in Path(penalize.integrations.__path__[0]).glob("*.py")}
    assert {name.lower() for name in FEATURES} == files - {"__init__", "attached"}
    assert all(tuple(features) == COLUMNS for features in FEATURES.values())
    assert LINES.keys() == FEATURES.keys()


def test_cells() -> None:
    fine, no = Shown("bf16", "a::b"), Shown("fp16", "a::b", "refused")
    assert cell((fine, fine._replace(what="fp16"))) == "tested: bf16, fp16"
    assert cell((no, fine)) == "tested: bf16; refused: fp16"
    assert cell((fine._replace(what=""),)) == "tested"
    assert cell(()) == "not there"
