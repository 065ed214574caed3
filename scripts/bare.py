"""A wheel in bare environments: with each extra alone, and with the least versions it admits.

scripts/release.py builds the wheel and asks for both.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
PLAN = "parameter"
"""With which a plan that is printed begins."""

SOON = 300
"""Seconds in which somebody who has nothing but Python is to see one."""


def run(*command: str | Path, **options: Any) -> str:
    """What a command prints. Stops where it fails."""
    done = subprocess.run(
        [str(part) for part in command], check=False, stdout=subprocess.PIPE, text=True, **options
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}\nfailed: {' '.join(map(str, command))}")
    return done.stdout


# --- what an extra asks for ---------------------------------------------------------------------

_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[([\w,-]+)\])?(?:>=([\d.]+))?")


def extras() -> list[str]:
    """The extras of pyproject.toml."""
    return list(_optional())


def _optional() -> dict[str, list[str]]:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    found: dict[str, list[str]] = tomllib.loads(text)["project"]["optional-dependencies"]
    return found


def least(extra: str) -> Iterator[tuple[str, str]]:
    """The packages of an extra and of those in it, each with its least version."""
    for requirement in _optional()[extra]:
        name, inner, version = _REQUIREMENT.match(requirement).groups()  # type: ignore[union-attr]
        if name == "penalize":
            for other in inner.split(","):
                yield from least(other)
        else:
            yield name, version


def pinned() -> dict[str, str]:
    """The versions of constraints.txt, by the name of the package."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    found = dict(line.split("==") for line in lines if "==" in line)
    return found | {"tensorflow": found["tensorflow_cpu"]}  # two builds of one version


class Environment:
    """A new environment with Python and pip, in a folder."""

    def __init__(self, folder: Path, python: str = sys.executable) -> None:
        self.folder = folder
        run(python, "-m", "venv", folder / "env")
        self.python = folder / "env" / "bin" / "python"
        outside = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        self.variables = outside | {"KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3"}

    def install(
        self,
        wheel: Path,
        wanted: Sequence[str],
        versions: dict[str, str],
        beside: Sequence[str] = (),
    ) -> None:
        """Install the wheel with extras, and packages beside it, at these versions.

        PyTorch goes first and by its version, so that pip is never offered another build of it.
        """
        file = self.folder / "constraints.txt"
        file.write_text("".join(f"{name}=={v}\n" for name, v in versions.items()), "utf-8")
        if any(name == "torch" for extra in wanted for name, _ in least(extra)):
            self._pip(file, f"torch=={versions['torch']}")
        self._pip(file, f"{wheel}[{','.join(wanted)}]", *beside)

    def _pip(self, constraints: Path, *what: str) -> None:
        self.run("-m", "pip", "install", "-qq", "-c", constraints, *what)

    def run(self, *arguments: str | Path, cwd: Path | None = None) -> str:
        """What Python prints there, by default in the environment's folder."""
        return run(self.python, *arguments, cwd=cwd or self.folder, env=self.variables)

    def size(self) -> float:
        """MB of what is installed."""
        files = (f for f in (self.folder / "env").rglob("*") if not f.is_symlink())
        return sum(f.stat().st_size for f in files if f.is_file()) / 1e6


# --- each extra alone ---------------------------------------------------------------------------

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def first_program() -> str:
    """The program with which the README begins."""
    return _BLOCK.findall((ROOT / "README.md").read_text("utf-8"))[0]


JAX = """
import jax.numpy as jnp
import optax

from penalize import L1, kernels
from penalize.jax import regularize

params = {"hidden": {"kernel": jnp.ones((4, 3)), "bias": jnp.zeros(3)}}
plan = regularize(params, {kernels: L1(1e-3)})
optax.chain(optax.adam(1e-2), plan.proximal(1e-2)).init(params)
print(plan)
"""
TENSORFLOW = """
import tensorflow as tf

from penalize import L1, kernels
from penalize.tensorflow import regularize

plan = regularize([tf.Variable(tf.ones((4, 3)), name="hidden/kernel")], {kernels: L1(1e-3)})
plan.penalty()
print(plan)
"""
KERAS = """
import keras

from penalize import L1, kernels
from penalize.keras import regularize

model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden")])
model.compile("sgd", "mse")
print(regularize(model, {kernels: L1(1e-3)}))
"""
SELECT = """
import numpy as np
from torch import nn

from penalize import L1
from penalize.torch import regularize

x = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
np.savez("data.npz", x=x, y=x[:, :1])
print(regularize(nn.Linear(4, 1), L1(1.0)))
"""


class Try(NamedTuple):
    """What is tried with an extra: a program that prints a plan, and the command."""

    program: str = ""
    """By default that of the README, which is PyTorch's."""

    beside: tuple[str, ...] = ()
    """Extras that it needs beside it."""

    command: tuple[str, ...] = ()
    """What ``penalize`` is given."""


TRIES = {
    "jax": Try(JAX),
    "tensorflow": Try(TENSORFLOW),
    "keras": Try(KERAS, beside=("jax",)),
    "demo": Try(command=("demo", "--epochs", "1")),
    "select": Try(SELECT, command=("path", "torch.nn:Linear", "--data", "data.npz")),
}


def tried(wheel: Path, extra: str, python: str) -> str:
    """A sentence: how long it took from nothing to a plan with an extra, and how large it is."""
    what = TRIES.get(extra, Try())
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        there = Environment(Path(folder), python)
        there.install(wheel, [extra, *what.beside], pinned())
        installed = time.perf_counter()
        Path(folder, "train.py").write_text(what.program or first_program(), "utf-8")
        printed = there.run("train.py")
        done = time.perf_counter()
        if not printed.startswith(PLAN):
            raise SystemExit(f"[{extra}] printed no plan but\n{printed}")
        there.run("-m", "pip", "check")
        if what.command:
            run(there.python.with_name("penalize"), *what.command, cwd=folder, env=there.variables)
        beside = "".join(f" beside [{other}]" for other in what.beside)
        seconds, of_them = done - began, installed - began
        late = ", LATE" if seconds > SOON else ""
        return (
            f"[{extra}]{beside}: a plan after {seconds:.0f} s{late}, {of_them:.0f} s of them to "
            f"install {there.size():.0f} MB"
        )


# --- the least versions -------------------------------------------------------------------------

WITH_TESTS = ("pytest", "hypothesis", "numpy", "scikit-learn")
"""What tests need beside an extra; of NumPy and scikit-learn, what goes with its versions."""


class Least(NamedTuple):
    """Extras at their least versions, and the tests that are run with them."""

    extras: tuple[str, ...]
    tests: tuple[str, ...]
    choose: str = ""
    """What pytest's -k is given."""


LEAST = {
    "jax": Least(
        ("jax",),
        tuple(
            f"tests/wing_jax/test_{name}.py"
            for name in ("chains", "halfspace", "ledger", "steps", "transforms")
        ),
    ),
    "keras": Least(
        ("keras", "tensorflow"),
        (
            "tests/wing_keras",
            *(
                f"tests/wing_tensorflow/test_{name}.py"
                for name in ("audit", "plan", "regularized", "tf1_halfspace", "tf1_proximal")
            ),
        ),
        "not jax and not torch and not agree",
    ),
    "select": Least(
        ("select", "demo"),
        (
            "tests/test_demo.py",
            *(
                f"tests/wing_torch/selection/test_{name}.py"
                for name in ("path", "pictures", "tuning")
            ),
        ),
    ),
}


def tested(wheel: Path, name: str) -> str:
    """A sentence: what the tests say with the least versions, and which these are."""
    extras, tests, choose = LEAST[name]
    known = pinned()
    # Of PyTorch's least version the package index has no build for the CPU.
    of_extras = {n: v for extra in extras for n, v in least(extra) if n != "torch"}
    of_tests = {n: known[n] for n in ("pytest", "hypothesis", "torch")}
    with tempfile.TemporaryDirectory() as folder:
        there = Environment(Path(folder))
        there.install(wheel, extras, of_tests | of_extras, WITH_TESTS)
        options = ["-q", "-p", "no:cacheprovider", "-o", "filterwarnings=default", "-k", choose]
        printed = there.run("-m", "pytest", *options, *tests, cwd=ROOT)
    versions = ", ".join(f"{n} {v}" for n, v in of_extras.items())
    return f"{versions}: {printed.strip().splitlines()[-1]}"
