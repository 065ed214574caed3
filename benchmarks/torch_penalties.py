"""What a penalty costs in PyTorch on the CPU, against one pass over memory, and against the loops
that people write.

The floor of a gradient is one ``g.add_(w, alpha=…)`` over all weights laid end to end; that of a
proximal step is one ``w.mul_(…)``. Prints a page and writes it, with pictures, beside this file.
"""

from __future__ import annotations

import cProfile
import gc
import os
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
os.environ["KERAS_BACKEND"] = "torch"

import keras
import matplotlib.pyplot as plt
import proxtorch.operators
import torch
from timing import RESULTS, Work, interleaved, machine, ratios, shown, table, write
from torch import Tensor, nn
from torch.optim.optimizer import (
    _global_optimizer_post_hooks,
    _global_optimizer_pre_hooks,
)
from torch.profiler import ProfilerActivity, profile

from penalize import L1, L1L2, L2, GroupLasso, Regularizer, kernels, named
from penalize.torch import regularize
from penalize.torch.acting.attachment import Attachment
from penalize.torch.kernels import compiled, native, reference

TURNS, WHOLE, PLAIN = 15, 9, 5
REGULARIZERS: dict[str, Regularizer] = {
    "L2": L2(1e-4),
    "L1": L1(1e-4),
    "L1L2": L1L2(1e-4, 1e-4),
    "group lasso": GroupLasso(1e-4, groups="outputs"),
}
TARGETS = {"L2": 1.1, "L1": 1.1, "L1L2": 1.1, "group lasso": 1.4}
RESNET = [(64, 147), *[(64, 576)] * 4, (128, 576), *[(128, 1152)] * 3, (128, 64)]
RESNET += [(256, 1152), *[(256, 2304)] * 3, (512, 2304), *[(512, 4608)] * 3]
GPT2 = [(50257, 768), *[(2304, 768), (768, 768), (3072, 768), (768, 3072)] * 12]
SMALL = [(64, 64)] * 2000
MODELS = {"18 tensors": RESNET, "49 tensors": GPT2, "2,000 small tensors": SMALL}


class Weights(nn.Module):
    """Kernels of these shapes, each of a module of its own."""

    def __init__(self, shapes: list[tuple[int, int]]) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for rows, columns in shapes:
            layer = nn.Linear(columns, rows, bias=False, device="meta").to_empty(device="cpu")
            nn.init.normal_(layer.weight, std=0.02)
            self.layers.append(layer)

    def weights(self) -> list[nn.Parameter]:
        return list(self.parameters())


# --- what people write --------------------------------------------------------------------------

BY_HAND: dict[str, dict[str, Callable[[Tensor], Tensor]]] = {
    "L2": {
        "`sum(w.pow(2).sum())`": lambda w: 1e-4 * w.pow(2).sum(),
        "`sum(w.norm() ** 2)`": lambda w: 1e-4 * w.norm() ** 2,
        "Keras' `kernel_regularizer`": keras.regularizers.L2(1e-4),
    },
    "L1": {
        "`sum(w.abs().sum())`": lambda w: 1e-4 * w.abs().sum(),
        "Keras' `kernel_regularizer`": keras.regularizers.L1(1e-4),
    },
    "L1L2": {
        "`sum(w.abs().sum() + w.pow(2).sum())`": lambda w: (
            1e-4 * w.abs().sum() + 1e-4 * w.pow(2).sum()
        ),
        "Keras' `kernel_regularizer`": keras.regularizers.L1L2(1e-4, 1e-4),
    },
    "group lasso": {
        "`sum(w.norm(dim=1).sum())`": lambda w: 1e-4 * w.shape[1] ** 0.5 * w.norm(dim=1).sum()
    },
}


def in_the_loss(weights: list[nn.Parameter], term: Callable[[Tensor], Tensor]) -> Work:
    def work() -> None:
        sum((term(w) for w in weights), torch.zeros(())).backward()  # type: ignore[no-untyped-call]

    return Work(work)


def foreach_norm(weights: list[nn.Parameter]) -> Work:
    def work() -> None:
        total = torch.stack(torch._foreach_norm(weights)).square().sum()
        (1e-4 * total).backward()  # type: ignore[no-untyped-call]

    return Work(work)


Shrink = Callable[[Tensor], Tensor]
PROX_BY_HAND: dict[str, dict[str, Callable[[Tensor], Shrink]]] = {
    "L1": {
        "`w.sign() * relu(w.abs() - t)`": lambda _: lambda w: w.sign() * torch.relu(w.abs() - 1e-9),
        "ProxTorch": lambda _: (
            lambda w: proxtorch.operators.L1(1e-4).prox(w, 1e-5)  # type: ignore[no-any-return]
        ),
    },
    "group lasso": {
        "`w * relu(1 - t / w.norm(dim=1))`": lambda _: (
            lambda w: w * torch.relu(1 - 1e-9 / w.norm(dim=1, keepdim=True))
        ),
        "ProxTorch": lambda w: rows_by_proxtorch(len(w)),
    },
}


def rows_by_proxtorch(count: int) -> Shrink:
    operator = proxtorch.operators.GroupLasso(1e-4, [1] * count)
    return lambda w: operator.prox(w, 1e-5)  # type: ignore[no-any-return]


def shrunk(weights: list[nn.Parameter], shrink_of: Callable[[Tensor], Shrink]) -> Work:
    shrinks = [shrink_of(w) for w in weights]

    @torch.no_grad()
    def work() -> None:
        for w, shrink in zip(weights, shrinks, strict=True):
            w.copy_(shrink(w))

    return Work(work)


# --- ours ---------------------------------------------------------------------------------------


@contextmanager
def attached(
    model: nn.Module, rules: Any, mode: str = "gradient", *, values: bool = False
) -> Iterator[tuple[Work, Attachment]]:
    """All that hangs on a step: the checks of both hooks, and the penalty."""
    weights = list(model.parameters())
    optimizer = torch.optim.SGD(weights, lr=1e-9)
    attachment = regularize(model, rules).attach(optimizer, mode=mode, values=values)
    before = [*_global_optimizer_pre_hooks.values(), *optimizer._optimizer_step_pre_hooks.values()]
    after = [
        *optimizer._optimizer_step_post_hooks.values(),
        *_global_optimizer_post_hooks.values(),
    ]

    def new_gradients() -> None:
        for w in weights:  # what a step has left would be refused
            w.grad = w.grad.detach()  # type: ignore[union-attr]

    def work() -> None:
        for hook in (*before, *after):
            hook(optimizer, (optimizer,), {})

    yield Work(work, new_gradients), attachment
    attachment.detach()


def paths(attachment: Attachment) -> str:
    """The paths that the weights took."""
    return ", ".join(sorted({route.path for route in attachment.explain()}))


def uncompiled(work: Work) -> Work:
    """The same as where llvmlite is not installed."""

    def run() -> None:
        least, compiled.LEAST = compiled.LEAST, 2**62
        try:
            work.timed()
        finally:
            compiled.LEAST = least

    return Work(run, work.before)


def referred(work: Work) -> Work:
    """The same on the plain path."""

    def plain() -> None:
        with reference():
            work.timed()

    return Work(plain, work.before)


# --- the comparisons ----------------------------------------------------------------------------


def floor_of(model: nn.Module, *, prox: bool = False) -> Work:
    """One pass over as many bytes: two arrays are read and one written, or one read and written."""
    count = sum(p.numel() for p in model.parameters())
    w, g = torch.full((count,), 1e-3), torch.zeros(count)
    return Work((lambda: w.mul_(1.0)) if prox else (lambda: g.add_(w, alpha=1e-9)))


def with_gradients(shapes: list[tuple[int, int]]) -> Weights:
    model = Weights(shapes)
    for w in model.parameters():
        w.grad = torch.zeros_like(w)
    return model


def gradients() -> list[str]:
    rows = []
    for title, shapes in MODELS.items():
        model = with_gradients(shapes)
        for name in REGULARIZERS:
            target = 2.0 if shapes is SMALL else TARGETS[name]
            rows.append([title, name, *gradient_of(model, name, target)])
        del model
        gc.collect()
    header = ["weights", "penalty", "floor, ms", "penalize", "target"]
    more = ["with the value, target 1.8", "not compiled", "plain path", "by hand", "path"]
    return table([*header, *more], rows)


def gradient_of(model: Weights, name: str, target: float) -> list[str]:
    weights = list(model.parameters())
    by_hand = {key: in_the_loss(weights, term) for key, term in BY_HAND[name].items()}
    if name == "L2":
        by_hand["`torch._foreach_norm`"] = foreach_norm(weights)
    with attached(model, REGULARIZERS[name], values=True) as (ours, _):
        valued = interleaved({"floor": floor_of(model), "ours": ours}, TURNS)
    with attached(model, REGULARIZERS[name]) as (ours, attachment):
        works = {"floor": floor_of(model), "ours": ours, **by_hand}
        taken = interleaved(works, TURNS)
        path = paths(attachment)
        # Each with an attachment of its own: one that changes its path decides anew.
    with attached(model, REGULARIZERS[name]) as (ours, _):
        slow_works = {"floor": works["floor"], "not compiled": uncompiled(ours)}
        others_taken = interleaved(slow_works, PLAIN)
    with attached(model, REGULARIZERS[name]) as (ours, _):
        plain = interleaved({"floor": works["floor"], "plain": referred(ours)}, PLAIN)
    before = ratios(others_taken["not compiled"], others_taken["floor"])
    floor = f"{1e3 * statistics.median(taken['floor']):.1f}"
    others = [
        f"{key}: {statistics.median(ratios(taken[key], taken['floor'])):.0f}" for key in by_hand
    ]
    slow = f"{statistics.median(ratios(plain['plain'], plain['floor'])):.1f}"
    ratio = shown(ratios(taken["ours"], taken["floor"]))
    value = shown(ratios(valued["ours"], valued["floor"]))
    hand = "; ".join(others)
    return [
        floor,
        ratio,
        f"{target:g}",
        value,
        f"{statistics.median(before):.1f}",
        slow,
        hand,
        path,
    ]


def proximal() -> list[str]:
    model = with_gradients(GPT2[1:])
    weights = list(model.parameters())
    rows = []
    for name, spellings in PROX_BY_HAND.items():
        by_hand = {key: shrunk(weights, of) for key, of in spellings.items()}
        with attached(model, REGULARIZERS[name], "proximal") as (ours, attachment):
            works = {"floor": floor_of(model, prox=True), "ours": ours}
            taken = interleaved(works, TURNS)
            path = paths(attachment)
            slow = {"plain": referred(ours), **by_hand}
            others = interleaved({"floor": works["floor"], **slow}, PLAIN)
        medians = {key: statistics.median(ratios(others[key], others["floor"])) for key in slow}
        hand = "; ".join(f"{key}: {medians[key]:.0f}" for key in by_hand)
        ratio = shown(ratios(taken["ours"], taken["floor"]))
        target = "1.1" if name == "L1" else "1.5"
        rows.append([name, ratio, target, f"{medians['plain']:.1f}", hand, path])
    return table(["penalty", "penalize", "target", "plain path", "by hand", "path"], rows)


IN_HALF_SPACES = {
    "L1": (L1(1e-4), 3),
    "group lasso by rows": (GroupLasso(1e-4, groups=0), 4),
    "group lasso by columns": (GroupLasso(1e-4, groups=1), 4),
    "L1 + group lasso": (L1(1e-4) + GroupLasso(1e-4, groups=0), 4),
}
"""Each with its target, in passes over memory."""


def half_spaces() -> list[str]:
    """Both hooks of a half-space step, on 85 M weights in GPT-2's shapes."""
    model = with_gradients(GPT2[1:])
    rows = []
    for name, (regularizer, target) in IN_HALF_SPACES.items():
        with attached(model, regularizer, "halfspace") as (ours, attachment):
            taken = interleaved({"floor": floor_of(model), "ours": ours}, TURNS)
            path = paths(attachment)
        with attached(model, regularizer, "halfspace") as (ours, _):
            plain = interleaved({"floor": floor_of(model), "plain": referred(ours)}, 3)
        slow = statistics.median(ratios(plain["plain"], plain["floor"]))
        ratio = shown(ratios(taken["ours"], taken["floor"]))
        rows.append([name, ratio, f"{target:g}", f"{slow:.0f}", path])
    return table(["penalty", "penalize", "target", "plain path", "path"], rows)


UNDER_ADAM: dict[str, tuple[Regularizer, float, float]] = {
    "L1": (L1(1e-4), 0.5, 2),
    "group lasso by rows": (GroupLasso(1e-4, groups=0), 1, 8),
    "group lasso by columns": (GroupLasso(1e-4, groups=1), 1, 10),
    "L1 + group lasso": (L1(1e-4) + GroupLasso(1e-4, groups=0), 1, 9),
}
"""Each with its targets: in steps of PyTorch's default Adam, and in floors of a gradient."""


def under_adam() -> list[str]:
    """The proximal step with a step per element, on 85 M weights in GPT-2's shapes."""
    model = with_gradients(GPT2[1:])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-6)
    for w in model.parameters():
        w.grad = 1e-3 * torch.randn_like(w)
    rows = []
    for name, (regularizer, in_steps, in_floors) in UNDER_ADAM.items():
        optimizer.step()
        attachment = regularize(model, regularizer).attach(optimizer, mode="proximal")
        after = [
            *optimizer._optimizer_step_post_hooks.values(),
            *_global_optimizer_post_hooks.values(),
        ]
        before = [
            *_global_optimizer_pre_hooks.values(),
            *optimizer._optimizer_step_pre_hooks.values(),
        ]

        def hooks(before: Any = before, after: Any = after) -> None:
            for hook in (*before, *after):
                hook(optimizer, (optimizer,), {})

        works = {"floor": floor_of(model), "ours": Work(hooks)}
        works["step"] = Work(optimizer.step)  # with the penalty
        taken = interleaved(works, PLAIN)
        path = paths(attachment)
        attachment.detach()
        own = [a - b for a, b in zip(taken["step"], taken["ours"], strict=True)]
        found = [shown(ratios(taken["ours"], against)) for against in (own, taken["floor"])]
        cells = [found[0], f"{in_steps:g}", found[1], f"{in_floors:g}"]
        rows.append([name, *cells, shown(ratios(own, taken["floor"]), 1), path])
    header = ["penalty", "in Adam's own steps", "target", "in floors", "target"]
    return table([*header, "Adam's own step, in floors", "path"], rows)


def first_steps() -> list[str]:
    """What a kernel costs before it runs: compiled, and read from disk."""
    rows = []
    for name, (regularizer, *_) in UNDER_ADAM.items():
        weights = [torch.randn(1024, 1024)]
        model = Weights([(1024, 1024)])
        model.weights()[0].grad = weights[0]
        cells = []
        with tempfile.TemporaryDirectory() as folder:
            os.environ[native.FOLDER] = folder
            for _ in range(2):
                native._made.clear()
                with attached(model, regularizer) as (work, _):
                    work.before()
                    start = time.perf_counter()
                    work.timed()
                    cells.append(f"{1e3 * (time.perf_counter() - start):.0f}")
            del os.environ[native.FOLDER]
        rows.append([name, *cells])
    return table(["gradient of", "first step, ms", "in a second process, ms"], rows)


# --- a whole step -------------------------------------------------------------------------------


def language_model() -> tuple[nn.Module, Callable[[], Tensor]]:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config())
    tokens = torch.randint(0, 50257, (1, 256))
    return model, lambda: model(tokens, labels=tokens).loss


class Block(nn.Module):
    """Two convolutions and what they are added to."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)])
        same = inputs == outputs
        self.skip = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norms[0](self.first(x)))
        return torch.relu(self.norms[1](self.second(y)) + self.skip(x))


def image_model() -> tuple[nn.Module, Callable[[], Tensor]]:
    """Of ResNet-18's size: 11 M weights."""
    torch.manual_seed(0)
    widths = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2)]
    widths += [(256, 256, 1), (256, 512, 2), (512, 512, 1)]
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2)]
    blocks = [Block(*width) for width in widths]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000)]
    model = nn.Sequential(*stem, *blocks, *head)
    x, y = torch.randn(8, 3, 224, 224), torch.randint(0, 1000, (8,))
    return model, lambda: nn.functional.cross_entropy(model(x), y)


def whole_steps() -> list[str]:
    rows = []
    makers = {"GPT-2 small, 256 tokens": language_model, "ResNet-18's size, 8 images": image_model}
    for title, make in makers.items():
        model, loss = make()
        names = ("L2", "L1", "group lasso")
        rows.extend([title, name, *whole_step(model, loss, name)] for name in names)
        del model, loss
        gc.collect()
    header = ["step of AdamW", "penalty", "without, s", "penalize, % more", "target"]
    return table([*header, "by hand, % more"], rows)


def whole_step(model: nn.Module, loss: Callable[[], Tensor], name: str) -> list[str]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.0)
    regularizer = GroupLasso(1e-4, groups=0) if name == "group lasso" else REGULARIZERS[name]
    plan = regularize(model, regularizer)
    penalized = [target.parameters[0] for target in plan.targets()]
    term = next(iter(BY_HAND[name].values()))
    held: list[Attachment] = []

    def detach() -> None:
        while held:
            held.pop().detach()

    def by_hand() -> Tensor:
        return sum((term(w.flatten(1)) for w in penalized), torch.zeros(()))

    def step(penalty: Callable[[], Tensor | float] = lambda: 0.0) -> None:
        optimizer.zero_grad()
        (loss() + penalty()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    works = {
        "none": Work(step, detach),
        "ours": Work(step, lambda: held.append(plan.attach(optimizer)) if not held else None),
        "hand": Work(lambda: step(by_hand), detach),
    }
    taken = interleaved(works, WHOLE)
    detach()
    seconds = f"{statistics.median(taken['none']):.2f}"
    more = [[100 * (r - 1) for r in ratios(taken[key], taken["none"])] for key in ("ours", "hand")]
    return [seconds, shown(more[0], 1), "1", shown(more[1], 1)]


FLOOR = "one pass over memory"


# --- memory, plans, laws ------------------------------------------------------------------------


def memory() -> list[str]:
    """The most that a first step holds beside the weights and gradients, buffers included."""
    model = with_gradients(GPT2)
    weights = list(model.parameters())
    rows = []
    for name, regularizer in REGULARIZERS.items():
        cells = []
        for mode in ("gradient", "proximal"):
            with attached(model, regularizer, mode) as (work, _):
                cells.append(f"{_most(work):.1f}")
                plain = f"{_most(referred(work)):.0f}"
        term = next(iter(BY_HAND[name].values()))
        rows.append([name, *cells, "2", plain, f"{_most(in_the_loss(weights, term)):.0f}"])
    return table(["MiB", "gradient", "proximal", "target", "plain path", "by hand"], rows)


def _most(work: Work) -> float:
    """The most MiB that it had allocated at once, as PyTorch's allocator reports."""
    work.before()
    gc.collect()  # what is freed meanwhile would be subtracted
    with profile(profile_memory=True, activities=[ProfilerActivity.CPU]) as profiler:
        work.timed()
    events: list[Any] = profiler.profiler.kineto_results.events()  # type: ignore[union-attr]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most / 2**20


def resolving() -> list[str]:
    rows = []
    for count in (100, 1000, 10_000):
        with torch.device("meta"):
            model = nn.ModuleList([nn.Linear(4, 4) for _ in range(count // 2)])
        rules = {kernels: L2(1e-4), named("0"): L1(1e-5)}
        work = Work(lambda model=model, rules=rules: regularize(model, rules))
        seconds = interleaved({"": work}, TURNS)[""]
        milliseconds = shown([1e3 * x for x in seconds], 1)
        rows.append([f"{count:,}", milliseconds, "100" if count == 10_000 else "–"])
    return table(["parameters", "ms", "target"], rows)


def laws() -> None:
    """The picture: seconds against weights, tensors and rules."""
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    sizes = [10**5, 10**6, 10**7, 10**8]
    settings: list[tuple[str, list[int], Callable[[int], tuple[list[tuple[int, int]], int]]]] = [
        ("weights", sizes, lambda n: ([(n // 10_000, 1000)] * 10, 1)),
        (
            "tensors, 8 M weights together",
            [1, 10, 100, 1000],
            lambda n: ([(8000 // n, 1000)] * n, 1),
        ),
        (
            "rules, 100 tensors, 8 M weights",
            [1, 10, 100],
            lambda n: ([(80, 1000)] * 100, n),
        ),
    ]
    for ax, (title, xs, make) in zip(axes, settings, strict=True):
        curves: dict[str, list[float]] = {}
        for x in xs:
            shapes, count = make(x)
            model = with_gradients(shapes)
            for name, kind in (("L2", L2), ("L1", L1)):
                rules: dict[Any, Any] = {kernels: kind(1e-4)}
                rules |= {f"layers.{i}": kind(1e-4 * (2 + i)) for i in range(count - 1)}
                with attached(model, rules) as (work, _):
                    taken = interleaved({FLOOR: floor_of(model), name: work}, 9)
                for key, seconds in taken.items():
                    if name == "L2" or key != FLOOR:
                        curves.setdefault(key, []).append(1e3 * statistics.median(seconds))
        for name, ys in curves.items():
            ax.plot(xs, ys, "k--" if name == FLOOR else "o-", label=name)
        ax.set(xscale="log", yscale="log", xlabel=title, ylabel="ms per step")
        if title != "weights":
            ax.set_ylim(0.3, 100)
    axes[0].legend()
    figure.savefig(RESULTS / "torch_laws.png", dpi=110)


# --- where the time goes ------------------------------------------------------------------------


def profiles() -> list[str]:
    """What each work that misses its target waits for, by PyTorch's profiler."""
    rows = []
    works = [("49 tensors", name, "gradient") for name in ("L1", "L1L2", "group lasso")]
    works += [("2,000 small tensors", name, "gradient") for name in ("L2", "L1")]
    works += [("49 tensors", name, "proximal") for name in ("L1", "group lasso")]
    for title, name, mode in works:
        model = with_gradients(MODELS[title])
        with attached(model, REGULARIZERS[name], mode) as (work, _):
            rows.append([f"{name}, {mode}", title, *profile_of(work)])
        del model
        gc.collect()
    return table(["work", "weights", "ms per step", "time spent in (calls)"], rows)


def profile_of(work: Work, steps: int = 5) -> list[str]:
    for _ in range(2):
        work.before()
        work.timed()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        seconds = 0.0
        for _ in range(steps):
            work.before()
            start = time.perf_counter()
            work.timed()
            seconds += time.perf_counter() - start
    events = sorted(
        (e for e in profiler.key_averages() if e.key.startswith("aten::")),
        key=lambda e: -e.self_cpu_time_total,
    )
    whole = 1e6 * seconds
    shares = [
        f"`{e.key.removeprefix('aten::')}` {100 * e.self_cpu_time_total / whole:.0f} %"
        f" ({e.count // steps})"
        for e in events[:4]
    ]
    rest = whole - sum(e.self_cpu_time_total for e in events)
    shares.append(f"Python and the profiler {100 * rest / whole:.0f} %")
    return [f"{1e3 * seconds / steps:.0f}", ", ".join(shares)]


def plan_profile() -> list[str]:
    """The functions that making a plan of 10,000 parameters spends its time in."""
    with torch.device("meta"):
        model = nn.ModuleList([nn.Linear(4, 4) for _ in range(5000)])
    profiler = cProfile.Profile()
    profiler.runcall(regularize, model, {kernels: L2(1e-4), named("0"): L1(1e-5)})
    stats = pstats.Stats(profiler)
    entries = sorted(stats.stats.items(), key=lambda item: -item[1][2])  # type: ignore[attr-defined]
    total = stats.total_tt  # type: ignore[attr-defined]
    rows = [
        [f"`{Path(file).name}: {name}`", f"{calls:,}", f"{100 * own / total:.0f}"]
        for (file, _, name), (_, calls, own, *_) in entries[:8]
    ]
    return table(["function", "calls", "% of the time"], rows)


WHY = """\
## What misses its target, and why

- **Group lasso** reads a row twice while it is in the cache, for its sum and its norm, and once
  more to change it. Where memory is fast, that is what is waited for.
- **Half-space steps of groups** pass over the weights twice after the update: how far all of them
  moved decides which groups are 0. Columns are read line by line of the cache, five times.
- **2,000 small tensors.** A few looks at each tensor remain in Python: a parameter keeps its
  identity when its type, shape or memory change. After the loops by hand, which take turns with
  it, they are no longer in the caches of the processor, as after a backward pass; the columns of
  the value, and of what is not compiled, are without that.
- **Under Adam** an element costs a root and two divisions before its group's root is looked for,
  and a division in each turn of that.
- **18 tensors** are passed over in a few milliseconds: what is left is Python, whose objects such
  a pass puts out of the caches.
- **A whole step** differs by more than 1 % from turn to turn: see the quartiles.
- **A plan** of 10,000 parameters is as many records, rows and targets, made one by one in Python.
"""


def main() -> None:
    torch.manual_seed(0)
    lines = [
        "# Penalties in PyTorch, on the CPU",
        "",
        "All of it is what hangs on a step: the hooks, their checks and the penalty. Written by",
        f"`make bench`; medians and quartiles of {TURNS} turns ({WHOLE} of whole steps, {PLAIN} of",
        "the plain path), each against the floor of the same turn, in one process.",
        "",
        "## Gradients",
        "",
        "In multiples of one pass over memory, `g.add_(w, alpha=…)` over all weights end to end.",
        "By hand: the term in the loss, and its backward pass.",
        "",
        *gradients(),
        "",
        "## Proximal steps",
        "",
        "In multiples of one pass that reads and writes as many weights; 85 M of them.",
        "",
        *proximal(),
        "",
        "## Proximal steps under Adam",
        "",
        "In multiples of the step of PyTorch's default Adam, without the penalty, and of one pass",
        "over memory, `g.add_(w, alpha=…)`.",
        "",
        *under_adam(),
        "",
        "## Half-space steps",
        "",
        "In multiples of one pass over memory, `g.add_(w, alpha=…)`, of 12 bytes per weight. What",
        "is read and written is 30 bytes for L1, and 52 for groups; 5 or 8 more are read where",
        "lines of the cache are filled that are only written.",
        "",
        *half_spaces(),
        "",
        "## The first step",
        "",
        "One weight of a million, with an empty cache of kernels and with one that has the kernel.",
        "",
        *first_steps(),
        "",
        "## A whole training step",
        "",
        *whole_steps(),
        "",
        *WHY.splitlines(),
        "",
        "Where the time goes, by PyTorch's profiler (which itself costs a few µs per call):",
        "",
        *profiles(),
        "",
        "## Memory",
        "",
        "The most that a first step allocates, in MiB, beside 124 M weights (471 MiB) and their",
        "gradients. After it a buffer of 2 MiB stays, and is used again.",
        "",
        *memory(),
        "",
        "## Making a plan",
        "",
        *resolving(),
        "",
        "Where it goes, by Python's profiler:",
        "",
        *plan_profile(),
        "",
        "## How it grows",
        "",
        "![Time against weights, tensors and rules](torch_laws.png)",
        "",
        f"{machine()}, PyTorch {torch.__version__}, {torch.get_num_threads()} threads.",
    ]
    laws()
    write("torch_penalties.md", lines)


if __name__ == "__main__":
    main()
