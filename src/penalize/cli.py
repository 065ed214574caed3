"""The ``penalize`` command. It imports nothing heavy until a subcommand needs it."""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from penalize import __version__

# Module → the name that people know and pip installs.
_DEMO_NEEDS = {
    "torch": "torch",
    "numpy": "numpy",
    "sklearn": "scikit-learn",
    "matplotlib": "matplotlib",
    "rich": "rich",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    0: done, and the doctor found nothing wrong; 1: the doctor found a fault, or there was nothing
    to compact; 2: it could not be done, and stderr says why; 130: the doctor was interrupted.

    Raises:
        SystemExit: from argparse, for ``--help``, ``--version`` and malformed arguments.
    """
    arguments = _parser().parse_args(argv)
    if arguments.command == "doctor":
        return _doctor(arguments.script, arguments.arguments, arguments.steps)
    if arguments.command == "path":
        return _path(arguments)
    if arguments.command == "compact":
        return _compact(arguments)
    return _demo(arguments.output, arguments.epochs, arguments.seed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="penalize", description="Declare penalties once; have them applied exactly once."
    )
    parser.add_argument("--version", action="version", version=f"penalize {__version__}")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", required=True
    )
    demo = commands.add_parser(
        "demo",
        help="train one small network under five penalties, and show what each left of it",
        description="Train one small network on scikit-learn's digits under five penalties, from "
        "five seeds each, on the CPU in about a minute, and write a table, a picture and the "
        "numbers.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    demo.add_argument(
        "--output", type=Path, default=Path("penalize-demo"), metavar="DIR", help="where to write"
    )
    demo.add_argument(
        "--epochs", type=_at_least(1), default=100, metavar="N", help="passes over the data"
    )
    demo.add_argument(
        "--seed",
        type=_SEED,
        default=0,
        metavar="S",
        help="of the start and the batches; the first of five",
    )
    doctor = commands.add_parser(
        "doctor",
        help="run a PyTorch training script for a few steps, and tell what regularizes it",
        description="Run a PyTorch training script, unmodified, until its optimizers have made a "
        "few steps. Then print what regularization it really applies, to which parameters, and "
        "what is wrong with it. Exit code: 0 nothing is wrong, 1 something is, 2 it could not run.",
    )
    doctor.add_argument(
        "--steps", type=_at_least(1), default=3, metavar="N", help="of each optimizer (default: 3)"
    )
    doctor.add_argument("script", type=Path, metavar="SCRIPT", help="the script")
    doctor.add_argument(
        "arguments", nargs=argparse.REMAINDER, metavar="ARGS", help="the script's own arguments"
    )
    _add_path(commands)
    _add_compact(commands)
    return parser


def _add_path(commands: Any) -> None:
    path = commands.add_parser(
        "path",
        help="train a PyTorch model at many strengths, and choose one by cross-validation",
        description="Train a PyTorch model at many strengths of its penalties, on several folds, "
        "and tell which strength to choose. Writes the results as they come (a command that was "
        "killed goes on where it was when it is given again), a picture and a page.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    path.add_argument(
        "factory",
        metavar="MODULE:FACTORY",
        help="what makes the model: called without arguments, or with the numbers of inputs and "
        "outputs, as torch.nn:Linear",
    )
    path.add_argument(
        "--data",
        required=True,
        metavar="NAME|FILE",
        help="digits, diabetes or breast_cancer; or an .npz file with the arrays x and y",
    )
    path.add_argument(
        "--rules", type=Path, metavar="FILE", help="a TOML file of rules (L1(1.0) on kernels)"
    )
    path.add_argument("--output", type=Path, default=Path("penalize-path"), metavar="DIR")
    path.add_argument(
        "--strengths", default="auto", metavar="S", help="auto, how many, or 0.1,0.01,0.001"
    )
    path.add_argument("--folds", type=_at_least(2), default=5, metavar="K", help="how many folds")
    path.add_argument("--epochs", type=_at_least(1), default=50, metavar="N")
    path.add_argument("--batch-size", type=_at_least(1), default=64, metavar="N")
    path.add_argument("--optimizer", choices=["adam", "sgd"], default="adam")
    path.add_argument("--learning-rate", type=_above_zero, default=3e-3, metavar="LR")
    path.add_argument("--mode", choices=["proximal", "gradient", "decoupled"], default="proximal")
    path.add_argument("--seed", type=_SEED, default=0, metavar="S")


def _add_compact(commands: Any) -> None:
    compact = commands.add_parser(
        "compact",
        help="cut the dead units out of a saved PyTorch model",
        description="Cut the units out of a saved PyTorch model that are constant or not read, and "
        "prove that its outputs stay the same. The weights are read as weights alone: no code in "
        "the file is run. Exit code: 0 the smaller model is written, 1 there is nothing to cut, 2 "
        "it could not be done.",
    )
    compact.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a saved state_dict")
    compact.add_argument(
        "--model", required=True, metavar="MODULE:FACTORY", help="what makes the model"
    )
    compact.add_argument(
        "--input",
        type=_shape,
        action="append",
        required=True,
        dest="shapes",
        metavar="SHAPE",
        help="of an input, as 1,3,32,32; once for each, in their order",
    )
    compact.add_argument(
        "--output", type=Path, metavar="FILE", help="where the smaller module is saved"
    )
    compact.add_argument(
        "--onnx", type=Path, metavar="FILE", help="where it is exported, to be run without PyTorch"
    )
    compact.add_argument("--key", help="under which the state_dict stands in CHECKPOINT")
    compact.add_argument(
        "--biases", action="store_true", help="give biases to layers where they let a unit go"
    )


def _shape(text: str) -> tuple[int, ...]:
    """An argparse type: sizes, separated by commas."""
    sizes = text.split(",")
    if not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise argparse.ArgumentTypeError(f"{text!r} is no shape such as 1,3,32,32")
    return tuple(map(int, sizes))


def _at_least(least: int, most: int | None = None) -> Callable[[str], int]:
    """An argparse type: an integer with a lower bound, and perhaps an upper one."""
    bounds = f"≥ {least}" if most is None else f"from {least} to {most}"

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least or (most is not None and number > most):
            raise argparse.ArgumentTypeError(f"{text!r} is no integer {bounds}")
        return number

    return parse


_SEED = _at_least(0, 2**64 - 1)
"""What torch takes as one."""


def _above_zero(text: str) -> float:
    """An argparse type: a finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no finite number > 0")
    return number


def _demo(output: Path, epochs: int, seed: int) -> int:
    missing = [name for module, name in _DEMO_NEEDS.items() if not _is_installed(module)]
    if missing:
        them = "it" if len(missing) == 1 else "them"
        return _fail(
            f"penalize demo needs {', '.join(missing)}; "
            f"install {them} with: pip install 'penalize[demo]'"
        )
    try:
        # Before the training, so that a bad place costs no minute.
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return _fail(f"penalize demo cannot write to {output}: {error.strerror}")

    from penalize.demo import run

    try:
        run(output, epochs=epochs, seed=seed)
    except OSError as error:
        return _fail(f"penalize demo cannot write {error.filename}: {error.strerror}")
    return 0


def _doctor(script: Path, arguments: Sequence[str], steps: int) -> int:
    if not _is_installed("torch"):
        return _fail("penalize doctor needs torch; install it with: pip install 'penalize[torch]'")
    if not os.path.isfile(script):
        why = (
            "it is a directory; pass the script in it"
            if os.path.isdir(script)
            else "there is no such file"
        )
        return _fail(f"penalize doctor cannot run {script}: {why}")

    from penalize.scripts import streams_kept_open, threads_ended_by
    from penalize.torch.auditing.doctor import Enough, examine

    with streams_kept_open(), threads_ended_by(Enough):
        return examine(script, arguments, steps)


def _path(arguments: argparse.Namespace) -> int:
    needs = {"torch": "torch", "numpy": "numpy"}
    if not arguments.data.endswith(".npz"):
        needs["sklearn"] = "scikit-learn"
    missing = [name for module, name in needs.items() if not _is_installed(module)]
    if missing:
        return _fail(f"penalize path needs {', '.join(missing)}; install it with pip")
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return _fail(f"penalize path cannot write to {arguments.output}: {error.strerror}")

    from penalize.errors import PenalizeError
    from penalize.torch.selection.command import Options, run

    options = {key: value for key, value in vars(arguments).items() if key != "command"}
    try:
        run(Options(**options))
    except PenalizeError as error:
        return _fail(f"penalize path: {error}")
    return 0


def _compact(arguments: argparse.Namespace) -> int:
    if not _is_installed("torch"):
        return _fail("penalize compact needs torch; install it with: pip install 'penalize[torch]'")
    if arguments.output is None and arguments.onnx is None:
        return _fail("penalize compact is not told where to write; give --output, --onnx or both")

    from penalize.errors import PenalizeError
    from penalize.torch.compacting.command import run

    options = {key: value for key, value in vars(arguments).items() if key != "command"}
    try:
        why_not = run(options.pop("checkpoint"), **options)
    except PenalizeError as error:
        return _fail(f"penalize compact: {error}")
    if why_not:
        _fail(f"penalize compact: nothing is written: {why_not}")
    return int(bool(why_not))


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _fail(message: str) -> int:
    sys.stderr.write(message + "\n")
    return 2
