"""What reached each parameter, and the sentences that are made of it."""

from __future__ import annotations

import math
from typing import Any

import pytest

from penalize.parameters import Role
from penalize.report import Level, Report
from penalize.torch.auditing.verdicts import AuditedWeight, Decay, Entered, findings

KERNEL = AuditedWeight("fc.weight", Role.KERNEL, held_by=("Adam",))


def weight(name: str, role: Role = Role.KERNEL, **facts: Any) -> AuditedWeight:
    return AuditedWeight(name, role, **{"held_by": ("Adam",), **facts})


def decay(amount: float = 0.01, optimizer: str = "Adam", **facts: Any) -> Decay:
    return Decay(optimizer, amount, **facts)


ONE: dict[str, tuple[AuditedWeight, list[tuple[Level, str, str]]]] = {
    "nothing": (weight("w"), []),
    "no decay": (weight("w", decays=(decay(0.0),)), []),
    "a kernel is decayed": (
        weight("w", decays=(decay(kind="decoupled"),)),
        [(Level.FACT, "weight_decay=0.01 of Adam, decoupled", "kernel")],
    ),
    "by default": (
        weight("w", decays=(decay(is_default=True),)),
        [(Level.FACT, "weight_decay=0.01 of Adam", "kernel; the optimizer's default")],
    ),
    "tied": (
        weight("w", Role.EMBEDDING, aliases=("head.weight",), decays=(decay(),)),
        [(Level.FACT, "weight_decay=0.01 of Adam", "embedding; tied with head.weight")],
    ),
    "not measured": (
        weight("w", decays=(decay(note="never applied: no gradient came"),)),
        [(Level.FACT, "weight_decay=0.01 of Adam", "kernel; never applied: no gradient came")],
    ),
    "a bias": (
        weight("b", Role.BIAS, decays=(decay(),)),
        [(Level.LOOK, "weight_decay=0.01 of Adam", "bias: usually exempt")],
    ),
    "a norm": (
        weight("b", Role.NORM, decays=(decay(is_default=True),)),
        [
            (
                Level.LOOK,
                "weight_decay=0.01 of Adam",
                "norm: usually exempt; the optimizer's default",
            )
        ],
    ),
    "a table of biases": (
        weight("relative_position_bias_table", Role.BIAS, decays=(decay(),)),
        [(Level.FACT, "weight_decay=0.01 of Adam", "bias")],
    ),
    "a bias that no gradient came to": (
        weight("b", Role.BIAS, decays=(decay(note="no gradient came"),), was_stepped=False),
        [(Level.FACT, "weight_decay=0.01 of Adam", "bias; no gradient came")],
    ),
    "a weight of two optimizers that no gradient came to": (
        weight("w", decays=(decay(0.0), decay(0.0, "SGD")), was_stepped=False),
        [(Level.LOOK, "", "stepped by several optimizers, Adam and SGD")],
    ),
    "an L2 of the loss": (
        weight("w", entered=(Entered("L2", 0.1),)),
        [(Level.FACT, "L2(0.1) in the loss", "")],
    ),
    "a norm of the loss": (
        weight("w", entered=(Entered("norm", 0.25),)),
        [(Level.FACT, "a norm in the loss, with gradient 0.25·w", "")],
    ),
    "a share in each micro-batch": (
        weight("w", entered=(Entered("L1", 0.1, times=4),)),
        [(Level.FACT, "L1(0.1) in the loss", "summed over 4 backward passes")],
    ),
    "all of it in each micro-batch": (
        weight("w", entered=(Entered("L1", 0.1, times=4, repeated=Level.WRONG),)),
        [
            (
                Level.WRONG,
                "L1(0.1) in the loss",
                "4 times too large, unless its strength was divided by hand: added in each of 4 "
                "backward passes, over which the data loss is averaged",
            )
        ],
    ),
    "all of it in each micro-batch, or what was divided by hand": (
        weight("w", entered=(Entered("L1", 0.1, times=4, repeated=Level.LOOK),)),
        [
            (
                Level.LOOK,
                "L1(0.1) in the loss",
                "4 times too large, unless its strength was divided by hand: added in each of 4 "
                "backward passes, over which the data loss is averaged",
            )
        ],
    ),
    "decay and an L2": (
        weight("w", decays=(decay(),), entered=(Entered("L2", 0.1),)),
        [
            (
                Level.WRONG,
                "weight_decay=0.01 of Adam",
                "penalized twice: also by L2(0.1) in the loss",
            ),
            (
                Level.WRONG,
                "L2(0.1) in the loss",
                "penalized twice: also by weight_decay=0.01 of Adam",
            ),
        ],
    ),
    "decay and an L1 are an elastic net": (
        weight("w", decays=(decay(),), entered=(Entered("L1", 0.1),)),
        [
            (Level.FACT, "weight_decay=0.01 of Adam", "kernel"),
            (Level.FACT, "L1(0.1) in the loss", ""),
        ],
    ),
    "declared and written": (
        weight("w", entered=(Entered("L2", 0.1),), declared="L2(0.5) of a plan"),
        [
            (
                Level.WRONG,
                "L2(0.1) in the loss",
                "penalized twice: also by L2(0.5) of a plan",
            )
        ],
    ),
    "missing": (
        weight("w", held_by=()),
        [
            (
                Level.WRONG,
                "",
                "no optimizer holds it, though it gets a gradient: give it to one, or freeze it",
            )
        ],
    ),
    "missing, and unused": (weight("w", held_by=(), got_gradient=False), []),
    "frozen": (weight("w", held_by=(), is_trainable=False), []),
    "frozen, with an old gradient": (
        weight("w", is_trainable=False),
        [(Level.LOOK, "", "frozen, but Adam steps it by a gradient that is left")],
    ),
    "two optimizers": (
        weight("w", decays=(decay(0.0), decay(0.0, "SGD"))),
        [(Level.LOOK, "", "stepped by several optimizers, Adam and SGD")],
    ),
    "two optimizers that decay": (
        weight("w", held_by=("Adam", "SGD"), decays=(decay(), decay(optimizer="SGD", amount=0.02))),
        [
            (Level.FACT, "weight_decay=0.01 of Adam", "kernel"),
            (Level.FACT, "weight_decay=0.02 of SGD", "kernel"),
            (Level.WRONG, "", "stepped by several optimizers, Adam and SGD, which decay it again"),
        ],
    ),
}


@pytest.mark.parametrize(("facts", "expected"), ONE.values(), ids=ONE)
def test_one_parameter(facts: AuditedWeight, expected: list[tuple[Level, str, str]]) -> None:
    found = findings([facts])
    assert [(row.level, row.what, row.verdict) for row in found] == expected
    assert {row.name for row in found} <= {facts.name}
    assert all(row.ok == (row.level is not Level.WRONG) for row in found)


def decayed(role: Role, amount: float, optimizer: str = "Adam") -> AuditedWeight:
    return weight(role.value, role, decays=(decay(amount, optimizer),))


GROUPS: dict[str, tuple[list[AuditedWeight], dict[str, str]]] = {
    "everything": (
        [decayed(Role.KERNEL, 0.1), decayed(Role.BIAS, 0.1), decayed(Role.NORM, 0.1)],
        {},
    ),
    "by role": (
        [decayed(Role.KERNEL, 0.1), decayed(Role.BIAS, 0.0), decayed(Role.NORM, 0.0)],
        {},
    ),
    "by role, and one was missed": (
        [decayed(Role.KERNEL, 0.1), decayed(Role.BIAS, 0.1), decayed(Role.NORM, 0.0)],
        {"bias": "bias: others that Adam holds are exempt"},
    ),
    "by role, and embeddings are exempt": (
        [decayed(Role.KERNEL, 0.1), decayed(Role.EMBEDDING, 0.0), decayed(Role.NORM, 0.0)],
        {},
    ),
    "the wrong way round": (
        [decayed(Role.KERNEL, 0.0), decayed(Role.BIAS, 0.1), decayed(Role.NORM, 0.1)],
        {
            "bias": "bias: decayed, while the kernels are exempt",
            "norm": "norm: decayed, while the kernels are exempt",
        },
    ),
    "a backbone that is not decayed, and a head that is": (
        [
            decayed(Role.KERNEL, 0.0),
            decayed(Role.BIAS, 0.0),
            weight("head.weight", decays=(decay(0.1),)),
            weight("head.bias", Role.BIAS, decays=(decay(0.1),)),
        ],
        {},
    ),
    "those that no gradient came to": (
        [
            weight("frozen.bias", Role.BIAS, decays=(decay(),), was_stepped=False),
            weight("frozen.norm", Role.NORM, decays=(decay(0.0),), was_stepped=False),
            decayed(Role.KERNEL, 0.1),
            decayed(Role.BIAS, 0.1),
        ],
        {},
    ),
    "a table of biases, as large as a kernel": (
        [
            weight("bias_table", Role.BIAS, decays=(decay(),)),
            decayed(Role.KERNEL, 0.1),
            decayed(Role.NORM, 0.0),
        ],
        {},
    ),
    "another optimizer's habits": (
        [decayed(Role.KERNEL, 0.1), decayed(Role.BIAS, 0.1), decayed(Role.NORM, 0.0, "SGD")],
        {},
    ),
}


@pytest.mark.parametrize(("facts", "expected"), GROUPS.values(), ids=GROUPS)
def test_param_groups(facts: list[AuditedWeight], expected: dict[str, str]) -> None:
    wrong = {row.name: row.verdict for row in findings(facts) if not row.ok}
    assert wrong == expected


def test_the_table() -> None:
    """What is wrong stands first; parameters of which the same is said share a line."""
    names = [f"blocks.{i}.weight" for i in range(12)]
    facts = [weight(name, decays=(decay(factor=1.0),)) for name in names]
    facts += [decayed(Role.NORM, 0.01), weight("gate", held_by=())]
    report = Report(findings(facts))
    header, rule, *lines, end = str(report).splitlines()
    assert header.split() == ["parameter", "regularization", "factor", "verdict"]
    assert set(rule) == {"-", " "}
    assert [line.split("  ")[0] for line in lines] == ["wrong", "look", ""]
    assert " blocks.0.weight, blocks.1.weight, blocks.2.weight and 9 more  " in lines[2]
    assert end == "1 parameter has a fault"
    assert [row.name for row in report.wrong] == ["gate"]
    assert math.isnan(report.wrong[0].factor)
    assert not report.ok
    assert Report(findings(facts[:-1])).ok
