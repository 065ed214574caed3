"""What weight decay is in optimizers of other houses, and what our modes do under them.

``python scripts/optimizers.py`` installs each package of ``PACKAGES`` in a folder of its own,
without its dependencies (PyTorch stays the one of constraints.txt), measures every optimizer that
can be made in a process of its own, removes the folder, and writes
``docs/optimizers-elsewhere.md``.
Named ones only: ``python scripts/optimizers.py timm heavyball``; the others keep their tables.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import json
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
import types
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from penalize import L1, PenalizeError, everything
from penalize.torch import audit, regularize
from penalize.torch.modes.edits import why_not_edited

DOCUMENT = Path(__file__).parent.parent / "docs" / "optimizers-elsewhere.md"


class Package(NamedTuple):
    """Where optimizers are, and what has to be installed for them, without dependencies."""

    requirement: str
    module: str
    others: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()
    """Packages whose ``__init__`` is not run, for it imports what optimizers have no use for. The
    optimizers are in the files of the last."""


PACKAGES = {
    "pytorch-optimizer": Package(
        "pytorch-optimizer==4.1.0", "pytorch_optimizer", ("einops==0.8.2",)
    ),
    "timm": Package("timm==1.0.31", "timm.optim", passed_over=("timm", "timm.optim")),
    "torchao": Package("torchao==0.18.0", "torchao.optim"),
    "bitsandbytes": Package("bitsandbytes==0.50.2", "bitsandbytes.optim"),
    "heavyball": Package("heavyball==3.2.1", "heavyball"),
    "torch-optimi": Package("torch-optimi==0.3.3", "optimi"),
    "schedulefree": Package("schedulefree==1.4.1", "schedulefree"),
    "prodigyopt": Package("prodigyopt==1.1.2", "prodigyopt"),
    "dadaptation": Package("dadaptation==3.2", "dadaptation"),
    "lion-pytorch": Package("lion-pytorch==0.2.5", "lion_pytorch"),
    "adabelief-pytorch": Package(
        "adabelief-pytorch==0.2.1", "adabelief_pytorch", ("colorama==0.4.6", "tabulate==0.10.0")
    ),
    "came-pytorch": Package("came-pytorch==0.1.3", "came_pytorch"),
    "galore-torch": Package("galore-torch==1.0", "galore_torch", ("bitsandbytes==0.50.2",)),
    "adan-pytorch": Package("adan-pytorch==0.1.0", "adan_pytorch"),
    "madgrad": Package("madgrad==1.3", "madgrad"),
    "grokadamw": Package("grokadamw==0.1.2", "grokadamw"),
    "dog-optimizer": Package("dog-optimizer==1.0.3", "dog"),
    "transformers": Package("transformers==5.23.0", "transformers.optimization"),
    "torch_optimizer": Package(
        "torch_optimizer==0.3.0", "torch_optimizer", ("pytorch_ranger==0.1.1",)
    ),
}

NEEDED = {"num_data": 16, "num_iterations": 100, "base_optimizer": AdamW}
"""What some want beside parameters."""

DECAY, RATE, STRENGTH = 0.1, 0.1, 0.03

Make = Callable[[nn.Module], Optimizer]
Settings = dict[str, Any]


# --- making them -------------------------------------------------------------------------------


def classes(module: types.ModuleType) -> Iterator[tuple[str, type[Optimizer]]]:
    """The optimizers of a module that are not PyTorch's."""
    for name, kind in sorted(vars(module).items()):
        is_one = isinstance(kind, type) and issubclass(kind, Optimizer)
        if is_one and not kind.__module__.startswith("torch.") and not name.startswith("_"):
            yield name, kind


def ways_to_make(kind: type[Optimizer], settings: Settings) -> Iterator[Make]:
    """The ways in which an optimizer may want to be made."""
    wanted = inspect.signature(kind.__init__).parameters
    known = {k: v for k, v in settings.items() if k in wanted}
    known |= {k: v for k, v in NEEDED.items() if k in wanted}
    inner = {"lr": settings.get("lr", 0.01), "weight_decay": settings.get("weight_decay", 0.0)}

    def after(first: Callable[[nn.Module], Any], **beside: Any) -> Make:
        return lambda model: kind(first(model), **known, **beside)

    yield after(lambda m: list(m.parameters()))
    if "optimizer" in wanted:
        yield after(lambda m: AdamW(m.parameters(), **inner))
        yield lambda m: kind(AdamW, params=list(m.parameters()), **{**inner, **known})  # type: ignore[arg-type]
    yield lambda m: kind(list(m.parameters()), **known, **inner)  # passed on to a base optimizer
    for each in ({"momentum": 0.9}, {"relative_step": False, "scale_parameter": False}):
        if each.keys() <= wanted.keys():
            yield after(lambda m: list(m.parameters()), **each)
    yield after(lambda m: [{"params": list(m.parameters()), "use_muon": True}])
    yield after(lambda m: list(m.named_parameters()))
    yield after(lambda m: m)


def network(biases: bool) -> nn.Module:
    """Two layers, the same each time."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8, bias=biases), nn.Tanh(), nn.Linear(8, 4, bias=biases))


X = torch.randn(16, 6, generator=torch.Generator().manual_seed(0))
Y = torch.randn(16, 4, generator=torch.Generator().manual_seed(1))


class Loop:
    """A model, an optimizer, and a step of both."""

    def __init__(self, make: Make, biases: bool, graph: bool) -> None:
        self.model, self.graph = network(biases), graph
        self.optimizer = make(self.model)
        for each in (self.optimizer, self.model):
            each.train() if callable(getattr(each, "train", None)) else None  # type: ignore[union-attr]

    def backward(self, penalty: Callable[[nn.Module], Tensor | float] = lambda _: 0.0) -> None:
        self.optimizer.zero_grad()
        loss = nn.functional.mse_loss(self.model(X), Y) + penalty(self.model)
        loss.backward(create_graph=self.graph)

    def step(self) -> None:
        self.backward()
        self.optimizer.step()

    def weights(self) -> Tensor:
        return nn.utils.parameters_to_vector(self.model.parameters()).detach().clone()


def loop_of(kind: type[Optimizer], settings: Settings) -> Callable[[], Loop]:
    """How to begin with an optimizer: the first way in which it is made and steps three times."""
    raised: list[str] = []
    for biases in (True, False):
        for graph in (False, True):
            for make in ways_to_make(kind, settings):
                try:
                    begun = Loop(make, biases, graph)
                    for _ in range(3):
                        begun.step()
                except Exception as error:  # noqa: BLE001  # theirs
                    raised.append(f"{type(error).__name__}: {error}".splitlines()[0][:90])
                else:
                    return partial(Loop, make, biases, graph)
    raise RuntimeError(raised[0])


def settings_of(kind: type[Optimizer], **chosen: float) -> Settings:
    """The chosen ones that there are; a rate of 1 says that the optimizer finds its own."""
    wanted = inspect.signature(kind.__init__).parameters
    if "lr" in wanted and wanted["lr"].default == 1.0:
        chosen["lr"] = 1.0
    return chosen


# --- what they do ------------------------------------------------------------------------------


def decay_after(begin: Callable[[], Loop], steps: int) -> dict[str, tuple[float, str]]:
    """The factor and the way of the decay of a matrix and its bias, in words."""
    loop = begin()
    for _ in range(steps):
        loop.step()
    found = {}
    for row in audit(loop.step, loop.model):
        if row.name in ("0.weight", "0.bias") and "weight_decay" in row.what:
            way = row.what.partition(" of ")[2].partition(", ")[2]
            notes = re.sub("^(kernel|bias)(: usually exempt)?(; )?", "", row.verdict)
            notes = notes.removesuffix("the optimizer's default").removesuffix("; ")
            is_seen = row.factor != 0 and "not measured" not in notes
            found[row.name] = row.factor, "; ".join(filter(None, (way * is_seen, notes)))
    return found


def decay_cells(kind: type[Optimizer]) -> tuple[str, str]:
    """What a decay is, and what it is of a bias if that is another thing."""
    begin = loop_of(kind, settings_of(kind, lr=RATE, weight_decay=DECAY))
    try:
        first, later = decay_after(begin, 0), decay_after(begin, 8)
    except PenalizeError as error:
        return f"refused: {str(error).partition(';')[0]}", ""
    if not later:
        return "no decay", ""
    factor, says = later["0.weight"]
    begins = re.search(r"begins with step \d+", first["0.weight"][1])
    cell = says + (f"; {begins[0]}" if begins and "begins" not in says else "")
    other, bias = later.get("0.bias", (factor, says))
    is_other = (
        bias.partition(";")[0] != says.partition(";")[0] or abs(other - factor) > 0.01 * factor
    )
    return cell, bias if is_other else ""


def copy_cell(kind: type[Optimizer]) -> str:
    """What a new one undoes of what is done to the weights."""
    reason = why_not_edited(loop_of(kind, settings_of(kind, lr=0.01, weight_decay=0.0))().optimizer)
    if reason is None:
        return "none"
    undone = re.search(r"\d+%", reason)
    return f"{undone[0]} undone" if undone else f"not tried: {reason}"


def attached(begin: Callable[[], Loop], mode: str) -> Tensor:
    """The weights after ten steps with a plan."""
    loop = begin()
    regularize(loop.model, {everything: L1(STRENGTH)}).attach(loop.optimizer, mode=mode)
    for _ in range(10):
        loop.step()
    return loop.weights()


def by_hand(begin: Callable[[], Loop], mode: str) -> Tensor:
    """What the mode promises, with nothing of ours."""
    loop = begin()

    def penalty(model: nn.Module) -> Tensor | float:
        terms = [p.abs().sum() for p in model.parameters()]
        return STRENGTH * torch.stack(terms).sum() if mode == "gradient" else 0.0

    for _ in range(10):
        loop.backward(penalty)
        if mode == "decoupled":
            with torch.no_grad():
                for group in loop.optimizer.param_groups:
                    for p in group["params"]:
                        p.sub_(group["lr"] * (STRENGTH * p.sign()))
        loop.optimizer.step()
    return loop.weights()


def mode_cell(begin: Callable[[], Loop], mode: str) -> str:
    """How far a mode is from what it promises."""
    try:
        ours = attached(begin, mode)
    except PenalizeError as error:
        return f"refused: {short(str(error))}"
    except Exception as error:  # noqa: BLE001  # theirs
        return f"raises {type(error).__name__}"
    if mode == "proximal":
        return "acts"
    theirs = by_hand(begin, mode)
    if not torch.equal(theirs, by_hand(begin, mode)):
        return "differs each time"
    apart = float((ours - theirs).abs().max() / theirs.abs().max())
    if apart == 0:
        return "exact"
    return next(
        (f"< {bound:.0e}" for bound in (1e-6, 1e-5, 1e-4, 1e-3) if apart < bound),
        f"off by {apart:.0e}",
    )


SHORT = {
    "keep weights of its own": "its own weights",
    "is not known": "its step is not known",
    "of its lr": "its lr does not size its steps",
    "needs a learning rate": "no learning rate",
    "weight_decay=": "decays itself",
    "cannot be had again": "cannot be made anew",
    "could not be tried": "could not be tried",
    "not known": "cannot be made anew",
}


def short(message: str) -> str:
    """A refusal in few words."""
    return next((says for part, says in SHORT.items() if part in message), message[:80])


def row_of(name: str, kind: type[Optimizer]) -> list[str]:
    """The cells of an optimizer."""
    default = inspect.signature(kind.__init__).parameters.get("weight_decay")
    begin = loop_of(kind, settings_of(kind, lr=0.01, weight_decay=0.0))
    shown = "–" if default is None else str(default.default)
    modes = [mode_cell(begin, mode) for mode in ("gradient", "decoupled", "proximal")]
    return [name, shown, *decay_cells(kind), copy_cell(kind), *modes]


def measured(package: Package) -> Iterator[tuple[str, list[str]]]:
    """The rows of a package, and what failed. Runs where the package is installed."""
    warnings.simplefilter("ignore")
    places = [Path(place) for place in sys.path]
    for name in package.passed_over:
        stub = sys.modules[name] = types.ModuleType(name)
        found = (Path(place, *name.split(".")) for place in places)
        stub.__path__ = [str(next(place for place in found if place.is_dir()))]
    module = importlib.import_module(package.module)
    if package.passed_over:
        for each in pkgutil.iter_modules(module.__path__):
            with contextlib.suppress(ImportError):
                vars(module).update(vars(importlib.import_module(f"{package.module}.{each.name}")))
    for name, kind in classes(module):
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                cells = row_of(name, kind)
        except Exception as error:  # noqa: BLE001  # theirs
            says = (
                str(error)
                if isinstance(error, RuntimeError)
                else f"{type(error).__name__}: {error}"
            )
            yield "failed", [name, says.splitlines()[0][:120]]
        else:
            yield "rows", cells


# --- the page ----------------------------------------------------------------------------------

HEAD = """\
# Optimizers of other houses

What `weight_decay` is in them, and what `plan.attach(optimizer, mode=...)` does under them.
Measured with torch {torch} on a CPU by `make optimizers-elsewhere`, at the versions below, on two
layers with biases, or without where an optimizer takes matrices only. No test and no CI runs it.

- **default**: the weight decay of whoever sets none; – where there is no such argument.
- **decay**: what `audit` says of a matrix in the ninth step, with lr and weight_decay 0.1 (lr 1
  where that is the default); [audit.md](audit.md) has the words. **bias**: the same of a bias,
  where it is another thing.
- **own weights**: the largest part of a change to the weights that a new optimizer undid, in a
  trial as [optimizers.md](optimizers.md) has it.
- The modes, with an L1: **exact**, to the last bit, or **< 1e-06**, relative to the largest weight,
  after ten steps as by hand; in `gradient` that is the penalty as a loss term. Or what **refused**
  it.

{summary}
"""

COLUMNS = (
    "optimizer",
    "default",
    "decay",
    "bias",
    "own weights",
    "`gradient`",
    "`decoupled`",
    "`proximal`",
)


def section(package: Package, found: dict[str, list[Any]]) -> str:
    """The part of the page that tells of a package."""
    lines = [f"## {package.requirement.replace('==', ' ')}", ""]
    if found["rows"]:
        lines += [f"| {' | '.join(COLUMNS)} |", "| --- " * len(COLUMNS) + "|"]
        lines += [
            f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in found["rows"]
        ]
        lines.append("")
    if found["failed"]:
        lines += ["Not measured:", ""]
        lines += [f"- {name}: {says}" for name, says in found["failed"]]
        lines.append("")
    return "\n".join(lines)


def sections(page: str) -> dict[str, str]:
    """The sections of a page, by the name of the package."""
    parts = re.split(r"^(?=## )", page, flags=re.MULTILINE)[1:]
    return {part[3:].split()[0]: part.rstrip() + "\n" for part in parts}


def summary(parts: dict[str, str]) -> str:
    """How many there are of a kind."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for part in parts.values()
        for line in part.splitlines()
        if line.startswith("| ") and not line.startswith(("| optimizer", "| ---"))
    ]
    ways = Counter(row[2].partition(";")[0] for row in rows if row[2])
    defaults = sum(row[1] not in ("–", "0", "0.0", "None") for row in rows)
    table = [f"| {count} | {way} |" for way, count in ways.most_common() if count > 1]
    rest = sum(count for count in ways.values() if count == 1)
    kept = sum(row[6] == "exact" or row[6].startswith("<") for row in rows)
    return "\n".join(
        [
            f"{len(rows)} optimizers, of which {defaults} decay by default, and {kept} take a "
            "`decoupled` plan. Their decays:",
            "",
            "| | decay |",
            "| ---: | --- |",
            *table,
            f"| {rest} | others, one of each |",
        ]
    )


def page_of(parts: dict[str, str]) -> str:
    """The page with these sections."""
    ordered = {name: parts[name] for name in PACKAGES if name in parts}
    version = torch.__version__.partition("+")[0]
    head = HEAD.format(torch=version, summary=summary(ordered))
    return "\n".join([head, *ordered.values()])


def install_and_measure(package: Package) -> dict[str, list[Any]]:
    """What is measured where the package is installed."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = [package.requirement, *package.others]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder]
        subprocess.run([*pip, *wanted], check=True)
        # Nothing is compiled: it takes longer than what it would speed up.
        path = os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, "TORCHDYNAMO_DISABLE": "1"}
        name = next(name for name, each in PACKAGES.items() if each is package)
        command = [sys.executable, __file__, "--measure", name]
        found: dict[str, list[Any]] = {"rows": [], "failed": []}
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, text=True
        ) as running:
            assert running.stdout is not None
            for line in running.stdout:
                where, cells = json.loads(line)
                found[where].append(cells)
                print(cells[0], file=sys.stderr)
        return found


def main(arguments: list[str]) -> None:
    """All packages, or those that are named."""
    if arguments[:1] == ["--measure"]:
        for each in measured(PACKAGES[arguments[1]]):
            print(json.dumps(each), flush=True)
        return
    page = DOCUMENT.read_text(encoding="utf-8") if DOCUMENT.exists() else ""
    parts = sections(page)
    for name in arguments or PACKAGES:
        print(f"--- {name}", file=sys.stderr)
        parts[name] = section(PACKAGES[name], install_and_measure(PACKAGES[name]))
        DOCUMENT.write_text(page_of(parts), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
