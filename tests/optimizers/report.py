"""docs/optimizers.md, written from what was measured."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from optimizers.references import REGULARIZERS
from optimizers.rows import ROWS, Row
from optimizers.verdicts import MODES, verdict
from penalize import L2

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "optimizers.md"

TEXT = """\
# Optimizers

What `plan.attach(optimizer, mode=...)` does under every optimizer of PyTorch, in the configurations
that PyTorch tests its optimizers with, and under some of other houses. Each is trained in float64,
with an L1 and with an L2, beside what a user would write by hand:

| mode | compared with |
| --- | --- |
| `"gradient"` | ten steps with the penalty as a term of the loss |
| `"decoupled"` | ten steps with `w -= lr * gradient_of_the_penalty` before each update |
| `"proximal"` | the prox by hand, with the step that the optimizer takes without a penalty |
| `"halfspace"` | ten steps with the rule as a plain loop, with the L1: an L2 makes no zeros |

**exact**, in the mode whose reference computes in the same order, is equal to the last bit;
**< 1e-09** bounds the largest difference of a weight, relative
to the largest weight (1e-06 where settings are float32 tensors). What is **refused** raises an
error that says what to do instead. An L2 beside `weight_decay` is refused in every mode, because it
would act twice: the rows with `weight_decay` (AdamW and Muon have one by default) tell of the L1. A
capturable optimizer steps on a GPU only; the tests measure it where there is one.

A `"decoupled"` L2(λ) is PyTorch's own `weight_decay=2λ` to the last bit under AdamW, Muon and
`decoupled_weight_decay=True`. Adafactor scales its update by the norm that the weights had before
its own decay; a decoupled L2 stands before that, and shrinks the update by 1 − 2λ·lr too.

An optimizer that is not PyTorch's is tried when a plan is attached: a new one of its class and
settings takes 20 steps on small weights, beside which these are edited twice. Then 20 + 2k, with a
third edit, where a whole number k among its settings, from 8 to 500, may be a period; and 1020
where it keeps copies of its weights. A setting above 500 is 5 in one more trial of 20 steps: what
is undone then every 5 steps, it undoes every k. `"decoupled"` and `"halfspace"` are refused if the
edits do not stay, the first also if the steps are no 10,000th of the learning rate. What puts its
own weights in place more seldom than every 500 steps, and has no setting of its own for that, is
not found out.

**Sharpness-aware optimizers** (SAM) take their gradient at weights that they moved. Where
`step(closure)` does both, `mode="gradient"` is the penalty as a loss term: a gradient of before the
step, by which weights are moved, has the penalty in it until the closure is called. `"decoupled"`
is refused in a step with a closure if a trial with one undoes it. `first_step` and `second_step`
are no steps of SAM's: an attachment to it never acts, and warns. Attach to the optimizer that they
step within (`sam.base_optimizer`), in any mode: the penalty acts on the update alone, at the
weights that were put back. Where gradients are differentiated again (AdaHessian,
`backward(create_graph=True)`), the penalty belongs in the loss; the modes refuse it.

`make optimizers` writes this page; a test fails when it is out of date.
"""


EVERY = "every one here"


def document() -> str:
    """The page."""
    head = f"| optimizer | settings | implementation | {' | '.join(f'`{m}`' for m in MODES)} |"
    lines = [head, "|" + " --- |" * (3 + len(MODES)), *_lines(ROWS)]
    return f"{TEXT}\n" + "\n".join(lines) + "\n"


def _lines(rows: Iterable[Row]) -> list[str]:
    """One line for all settings and implementations of an optimizer that fare alike."""
    implementations: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for row in rows:
        of_settings = implementations[row.optimizer, row.settings, *measured(row)]
        if row.implementation not in of_settings:
            of_settings.append(row.implementation)
    settings: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for (optimizer, setting, *cells), found in implementations.items():
        settings[optimizer, ", ".join(found), *cells].append(f"`{setting}`")
    return [
        f"| {' | '.join([optimizer, _listed(found, optimizer, ran), ran, *cells])} |"
        for (optimizer, ran, *cells), found in settings.items()
    ]


def told(row: Row, page: str) -> list[str]:
    """What the page says of a row, mode by mode."""
    for line in page.splitlines():
        if line.startswith(f"| {row.optimizer} | "):
            _, settings, ran, *cells = line.strip("| ").split(" | ")
            here = settings == EVERY or f"`{row.settings}`" in settings.split("<br>")
            if here and row.implementation in ran.split(", "):
                return cells
    return []


def _listed(settings: list[str], optimizer: str, implementations: str) -> str:
    every = {
        row.settings
        for row in ROWS
        if row.optimizer == optimizer and row.implementation in implementations.split(", ")
    }
    return EVERY if 1 < len(every) == len(settings) else "<br>".join(settings)


def measured(row: Row) -> list[str]:
    """What was measured of a row, mode by mode."""
    if row.needs_cuda:
        return ["needs a GPU"] * len(MODES)
    return [_cell(row, mode) for mode in MODES]


def _cell(row: Row, mode: str) -> str:
    one = row.decays or mode == "halfspace"
    told = [r for r in REGULARIZERS if not (one and isinstance(r, L2))]
    return " / ".join(dict.fromkeys(verdict(row, r, mode) for r in told))
