"""``penalize path``: a path of a model and data that are named on the command line."""

from __future__ import annotations

import inspect
import json
import math
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path as File
from typing import Any

import torch
from torch import Tensor, nn

from penalize.errors import MissingPackageError, PathError, PenalizeError
from penalize.regularizers.elementwise import L1
from penalize.rules_file import read_rules
from penalize.selection.result import Path
from penalize.torch.model.factories import factory, made, told
from penalize.torch.regularize import regularize
from penalize.torch.selection.data import Data, read
from penalize.torch.selection.path import path
from penalize.torch.selection.training import Training

OPTIMIZERS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}


@dataclass(frozen=True)
class Options:
    """The arguments of the command."""

    factory: str
    data: str
    rules: File | None
    output: File
    strengths: str
    folds: int
    epochs: int
    batch_size: int
    optimizer: str
    learning_rate: float
    mode: str
    seed: int


def run(options: Options) -> None:
    """Make the path, print its table, and write it into a folder.

    Raises:
        PenalizeError: something given is wrong; the message says what.
    """
    data = read(options.data)
    torch.manual_seed(options.seed)
    model = made_for(options.factory, data)
    plan = regularize(model, L1(1.0) if options.rules is None else read_rules(options.rules))
    loss, score = measures(model, data)
    training = Training(
        x=data.x,
        y=data.y,
        loss=loss,
        score=score,
        optimizer=partial(OPTIMIZERS[options.optimizer], lr=options.learning_rate),
        epochs=options.epochs,
        batch_size=min(options.batch_size, len(data.x)),
        mode=options.mode,
        seed=options.seed,
    )
    try:
        found = path(
            training,
            plan,
            strengths(options.strengths),
            options.folds,
            saved=options.output / "path.sqlite",
            seed=options.seed,
            progress=sys.stderr.isatty(),
        )
    except PenalizeError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the model, or the optimizer with it, raises
        raise PathError(
            f"training {options.factory} fails ({told(error)})",
            "look at the model, the learning rate and the batch size",
        ) from None
    print(found)  # noqa: T201
    print(f"{', '.join(_write(found, options.output))} are in {options.output}")  # noqa: T201


def _write(found: Path, output: File) -> list[str]:
    """The rows and pictures beside the results file; the names of all."""
    rows = [{key: _for_json(value) for key, value in asdict(row).items()} for row in found.rows]
    written = ["path.sqlite"]
    try:
        (output / "path.json").write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
        written.append("path.json")
        found.plot(output / "path.png")
        found.html(output / "path.html")
        written += ["path.png", "path.html"]
    except MissingPackageError as error:
        print(error, file=sys.stderr)  # noqa: T201
    except OSError as error:
        raise PathError(
            f"the results are in {written[0]!r}, and {error.filename!r} cannot be written "
            f"({error.strerror})",
            "give another --output, or move away what is in its place",
        ) from None
    return written


def _for_json(value: Any) -> Any:
    """The value as JSON has it: what is not finite is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def made_for(name: str, data: Data) -> nn.Module:
    """The model of ``MODULE:FACTORY``, which is called without arguments, or with the numbers of
    inputs and outputs if it takes two.

    Raises:
        ModelError: there is none, or it makes no module.
    """
    sizes = (data.inputs, data.outputs) if _takes_two(factory(name)) else ()
    return made(name, *sizes, takes="no arguments, or the numbers of inputs and outputs")


def _takes_two(factory: Callable[..., Any]) -> bool:
    """True if it needs two arguments by position, or one and takes another."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):
        return False
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return any(p.default is p.empty for p in places) and len(places) >= 2


Measure = Callable[[Tensor, Tensor], Tensor]


def measures(model: nn.Module, data: Data) -> tuple[Measure, Measure | None]:
    """The loss that fits the data and the model's outputs, and an accuracy for classes.

    Raises:
        PathError: the outputs fit no loss.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            outputs = model(data.x[:2])
    except Exception as error:  # noqa: BLE001 - whatever stands in it
        raise PathError(
            f"the model cannot take inputs of shape {tuple(data.x[:2].shape)} ({told(error)})",
            "make one that fits the data",
        ) from None
    model.train(was_training)
    if not isinstance(outputs, Tensor):
        raise PathError(
            f"the model returns a {type(outputs).__name__}", "make one that returns a tensor"
        )
    size = tuple(outputs.shape[1:])
    if not data.classes and size == data.y.shape[1:]:
        return nn.functional.mse_loss, None
    if data.classes and size == (data.classes,):
        return nn.functional.cross_entropy, _accuracy
    if data.classes == 2 and size == (1,):
        return _binary, _binary_accuracy
    raise PathError(
        f"the model has outputs of shape {size}, and the data "
        + (f"{data.classes} classes" if data.classes else f"targets of {tuple(data.y.shape[1:])}"),
        f"make one with {data.outputs} outputs",
    )


def _accuracy(output: Tensor, target: Tensor) -> Tensor:
    return (output.argmax(1) == target).float().mean()


def _binary(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(output[:, 0], target.to(output.dtype))


def _binary_accuracy(output: Tensor, target: Tensor) -> Tensor:
    return ((output[:, 0] > 0) == (target > 0)).float().mean()


def strengths(text: str) -> str | int | list[float]:
    """``auto``, a number of them, or the strengths themselves, separated by commas.

    Raises:
        PathError: it is none of these.
    """
    if text == "auto":
        return text
    try:
        return (
            int(text) if "," not in text and text.isdigit() else [float(s) for s in text.split(",")]
        )
    except ValueError:
        raise PathError(
            f"--strengths {text}", "expected auto, a number of them, or 0.1,0.01,0.001"
        ) from None
