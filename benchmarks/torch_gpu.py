"""What a penalty costs in PyTorch on a GPU: one prepared run, well under ten minutes.

How near each form comes to the bandwidth of a copy, how many kernels a step launches, a step in a
graph, and whole steps of GPT-2 small. Prints a page and writes it beside this file.
Without a GPU it says so, and ends with an error; its parts run on a CPU in the tests.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from timing import Work, interleaved, machine, ratios, shown, table, write
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from penalize import L1, L1L2, L2, GroupLasso, Regularizer
from penalize.torch import Plan, regularize
from penalize.torch.acting.attachment import Attachment

TURNS, WHOLE = 15, 7
FORMS: dict[str, Regularizer] = {
    "L2": L2(1e-4),
    "L1": L1(1e-4),
    "L1L2": L1L2(1e-4, 1e-4),
    "group lasso": GroupLasso(1e-4, groups=0),
    "L1 + group lasso": L1(1e-4) + GroupLasso(1e-4, groups=0),
}
GPT2 = [(50257, 768), *[(2304, 768), (768, 768), (3072, 768), (768, 3072)] * 12]


class Job(NamedTuple):
    """One way to act, and how often it reads or writes an array of the weight's size."""

    mode: str
    optimizer: Callable[..., torch.optim.Optimizer]
    passes: int


JOBS = {
    "gradient": Job("gradient", torch.optim.SGD, 3),
    "decoupled": Job("decoupled", torch.optim.SGD, 2),
    "prox after SGD": Job("proximal", torch.optim.SGD, 2),
    "prox after Adam": Job("proximal", torch.optim.Adam, 3),
}


class Weights(nn.Module):
    """Kernels of these shapes, each of a module of its own, with gradients."""

    def __init__(self, shapes: Sequence[tuple[int, int]], device: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [nn.Linear(columns, rows, bias=False, device=device) for rows, columns in shapes]
        )
        for w in self.parameters():
            w.grad = torch.full_like(w, 1e-3)


def finish(device: str) -> None:
    """Wait until all that was launched is done."""
    if device == "cuda":
        torch.cuda.synchronize()


def finished(work: Callable[[], object], device: str) -> Callable[[], None]:
    """The same, until all of it is done."""

    def timed() -> None:
        work()
        finish(device)

    return timed


@contextmanager
def attached(model: nn.Module, regularizer: Regularizer, job: Job, device: str) -> Iterator[Work]:
    """All that hangs on a step, without the step: the checks of both hooks, and the penalty."""
    weights = list(model.parameters())
    optimizer = job.optimizer(weights, lr=1e-6)
    optimizer.step()
    attachment = regularize(model, regularizer).attach(optimizer, mode=job.mode)
    hooks = torch.optim.Optimizer.profile_hook_step(lambda _: None)  # around nothing

    def new_gradients() -> None:
        for w in weights:  # what a step has left would be refused
            w.grad = w.grad.detach()  # type: ignore[union-attr]
        finish(device)

    yield Work(finished(lambda: hooks(optimizer), device), new_gradients)
    attachment.detach()


# --- bandwidth ----------------------------------------------------------------------------------


def bandwidth(shapes: Sequence[tuple[int, int]], device: str, turns: int) -> list[str]:
    """Each form's share of the bandwidth of a copy."""
    model = Weights(shapes, device)
    count = sum(w.numel() for w in model.parameters())
    a, b = torch.zeros(count, device=device), torch.zeros(count, device=device)

    copy = Work(finished(lambda: b.copy_(a), device))
    rows = []
    for name, regularizer in FORMS.items():
        for title, job in JOBS.items():
            with attached(model, regularizer, job, device) as ours:
                taken = interleaved({"copy": copy, "ours": ours}, turns)
            shares = [
                100 * job.passes / 2 * ratio for ratio in ratios(taken["copy"], taken["ours"])
            ]
            milliseconds = f"{1e3 * statistics.median(taken['ours']):.2f}"
            rows.append([name, title, milliseconds, shown(shares, 0), "85"])
    return table(["penalty", "how", "ms", "% of a copy's bandwidth", "target"], rows)


# --- launches -----------------------------------------------------------------------------------


def launched(work: Work, device: str) -> int:
    """How many kernels ran on the GPU; on a CPU, how many operators."""
    work.before()
    kind = ProfilerActivity.CUDA if device == "cuda" else ProfilerActivity.CPU
    with profile(activities=[kind]) as found:
        work.timed()
    wanted = DeviceType.CUDA if device == "cuda" else DeviceType.CPU
    return sum(
        event.device_type == wanted and not event.name.startswith(("Memcpy", "Memset"))
        for event in found.events() or ()
    )


def launches(counts: Sequence[int], device: str) -> list[str]:
    """Kernels per step against the number of tensors: as many for all as for one."""
    rows = []
    for name, regularizer in FORMS.items():
        for title, job in JOBS.items():
            found = []
            for count in counts:
                model = Weights([(64, 64)] * count, device)
                with attached(model, regularizer, job, device) as ours:
                    ours.before()
                    ours.timed()  # compiles, and fills the tables of addresses
                    found.append(str(launched(ours, device)))
            rows.append([name, title, *found])
    return table(["penalty", "how", *(f"{count:,} tensors" for count in counts)], rows)


# --- a step in a graph --------------------------------------------------------------------------


WARM_UP = 3


def captured(step: Callable[[], None], device: str) -> Callable[[], None]:
    """The step as a graph that is replayed, after some that warm up; on a CPU, the step itself."""
    if device != "cuda":
        for _ in range(WARM_UP):
            step()
        return step
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def graphs(shapes: Sequence[tuple[int, int]], device: str, turns: int) -> list[str]:
    """A step of Adam in a graph, with and without; and how far it is from the step itself."""
    rows = []
    for name, regularizer in FORMS.items():
        for mode in ("gradient", "decoupled", "proximal"):
            bare = Step.of(shapes, device, None, mode)
            ours, eager = (Step.of(shapes, device, 100 * regularizer, mode) for _ in range(2))
            for _ in range(WARM_UP):
                eager.take()
            works = {
                "bare": Work(finished(captured(bare.take, device), device)),
                "ours": Work(finished(captured(ours.take, device), device)),
                "eager": Work(finished(eager.take, device)),
            }
            taken = interleaved(works, turns)
            more = [100 * (ratio - 1) for ratio in ratios(taken["ours"], taken["bare"])]
            slower = ratios(taken["eager"], taken["ours"])
            apart = max(
                float((w - v).detach().abs().max())
                for w, v in zip(ours.weights, eager.weights, strict=True)
            )
            rows.append([name, mode, shown(more, 1), shown(slower, 1), f"{apart:.0e}"])
    header = ["penalty", "mode", "replay, % more than without", "eager, in replays"]
    return table([*header, "apart from eager steps"], rows)


class Step(NamedTuple):
    """A step of Adam whose gradients are the same each time."""

    take: Callable[[], None]
    weights: list[nn.Parameter]

    @classmethod
    def of(
        cls,
        shapes: Sequence[tuple[int, int]],
        device: str,
        regularizer: Regularizer | None,
        mode: str,
    ) -> Step:
        torch.manual_seed(0)
        model = Weights(shapes, device)
        weights = list(model.parameters())
        data = [1e-3 * torch.randn_like(w) for w in weights]
        optimizer = torch.optim.Adam(weights, lr=1e-4, capturable=device == "cuda")
        if regularizer is not None:
            regularize(model, regularizer).attach(optimizer, mode=mode)

        def take() -> None:
            for w, slopes in zip(weights, data, strict=True):
                assert w.grad is not None
                w.grad.copy_(slopes)
            optimizer.step()

        return cls(take, weights)


# --- whole steps --------------------------------------------------------------------------------


def language_model(device: str, **config: int) -> tuple[nn.Module, Callable[[], Tensor]]:
    """GPT-2, small by default, with random weights; and its loss."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    settings = GPT2Config(**config)
    model = GPT2LMHeadModel(settings).to(device)
    tokens = torch.randint(0, settings.vocab_size, (4, settings.n_positions), device=device)
    return model, lambda: model(tokens, labels=tokens).loss


def whole_steps(model: nn.Module, loss: Callable[[], Tensor], device: str, turns: int) -> list[str]:
    """A whole step of AdamW with a penalty, against the same without."""
    rows = []
    for name, regularizer in FORMS.items():
        for mode in ("gradient", "proximal"):
            taken = whole_step(regularize(model, regularizer), loss, mode, device, turns)
            more = [100 * (ratio - 1) for ratio in ratios(taken["ours"], taken["none"])]
            milliseconds = f"{1e3 * statistics.median(taken['none']):.1f}"
            rows.append([name, mode, milliseconds, shown(more, 1), "1"])
    return table(["penalty", "mode", "without, ms", "penalize, % more", "target"], rows)


def whole_step(
    plan: Plan, loss: Callable[[], Tensor], mode: str, device: str, turns: int
) -> dict[str, list[float]]:
    optimizer = torch.optim.AdamW(plan.model.parameters(), lr=1e-6, weight_decay=0.0)
    held: list[Attachment] = []

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def attach() -> None:
        if not held:
            held.append(plan.attach(optimizer, mode=mode))

    def detach() -> None:
        while held:
            held.pop().detach()

    timed = finished(step, device)
    taken = interleaved({"none": Work(timed, detach), "ours": Work(timed, attach)}, turns)
    detach()
    return taken


def why_not_here() -> str:
    """Why nothing can be timed on this machine; empty where it can."""
    if not torch.cuda.is_available():
        return "There is no GPU that PyTorch can use, so nothing was measured and nothing written."
    return ""


def main() -> None:
    reason = why_not_here()
    if reason:
        sys.exit(reason)
    model, loss = language_model("cuda")
    lines = [
        "# Penalties on a GPU",
        "",
        f"Medians and quartiles of {TURNS} turns within one process, {WHOLE} of whole steps.",
        "Written by `make bench-gpu`.",
        "",
        "## Bandwidth: GPT-2's matrices",
        "",
        *bandwidth(GPT2, "cuda", TURNS),
        "",
        "## Kernels per step",
        "",
        *launches((1, 10, 100, 1000), "cuda"),
        "",
        "## A step of Adam, captured in a graph",
        "",
        *graphs([(768, 768)] * 48, "cuda", TURNS),
        "",
        "## A whole step of AdamW: GPT-2 small, 4 times 1,024 tokens",
        "",
        *whole_steps(model, loss, "cuda", WHOLE),
        "",
        f"{torch.cuda.get_device_name()}, {machine()}, PyTorch {torch.__version__}.",
    ]
    write("torch_gpu.md", lines)


if __name__ == "__main__":
    main()
