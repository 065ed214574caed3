"""``penalize.log``: the numbers of a plan, and that they arrive in what loggers write."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from tensorboardX import SummaryWriter
from tensorboardX.proto import event_pb2
from torch import nn

import penalize
import penalize.jax
from penalize import (
    L1,
    L2,
    ExclusiveLasso,
    GroupLasso,
    LInf1,
    MaxNorm,
    ModelError,
    NoStepError,
    OptimizerError,
    Regularizer,
    SparseGroupLasso,
    biases,
    blocks,
    everything,
    kernels,
    named,
    of_type,
    toward,
    warmup,
)
from penalize.torch import declare, regularize, scope


def network() -> nn.Sequential:
    """Of 12 and 6 weights, and in the first a row and a column of zeros."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    with torch.no_grad():
        model[0].weight[0], model[0].weight[:, 1] = 0, 0
    return model


RULES: dict[Any, Regularizer] = {
    kernels: L2(0.5),
    "0/weight": GroupLasso(0.1, size_weighted=False),
    biases: L1(0.25),
}


def expected(model: nn.Sequential) -> dict[str, float]:
    first, second, *others = (
        w.detach().numpy() for w in (model[0].weight, model[2].weight, model[0].bias, model[2].bias)
    )
    parts = {
        "penalties/0.weight": 0.1 * np.linalg.norm(first, axis=1).sum(),
        "penalties/biases": 0.25 * sum(np.abs(b).sum() for b in others),
        "penalties/kernels": 0.5 * np.square(second).sum(),
    }
    return {"penalty": sum(parts.values()), **parts, "zeros": 6 / 23, "groups/0.weight": 2.0}


def test_the_numbers_in_pytorch() -> None:
    model = network()
    plan = regularize(model, RULES)
    found = penalize.log(plan)
    assert found == pytest.approx(expected(model), rel=1e-12)
    assert all(type(number) is float for number in found.values())
    assert (
        found["penalty"]
        == sum(plan.breakdown().values())
        == pytest.approx(float(plan.penalty().detach()))
    )


def test_the_numbers_in_jax() -> None:
    model = network()
    tree: dict[str, Any] = {"0": {}, "2": {}}
    for name, p in model.named_parameters():
        layer, _, own = name.partition(".")
        tree[layer][own] = jnp.asarray(p.detach().numpy())
    rules = {**RULES, "0/weight": GroupLasso(0.1, groups=0, size_weighted=False)}
    plan = penalize.jax.regularize(tree, rules)
    assert penalize.log(plan, tree) == pytest.approx(expected(model), rel=1e-12)
    plan = penalize.jax.regularize(tree, {"0.weight": L1(1.0) * warmup(4)})
    with pytest.raises(NoStepError):
        penalize.log(plan, tree)
    whole = float(abs(tree["0"]["weight"]).sum())
    assert penalize.log(plan, tree, at=2)["penalty"] == pytest.approx(whole / 2)
    message = "'0.weight' was asked for as a number where JAX traces.*return plan.penalty"
    with pytest.raises(ModelError, match=message):
        jax.jit(lambda params: penalize.log(plan, params, at=2))(tree)
    with pytest.raises(ModelError, match=message):
        jax.jit(lambda step: penalize.log(plan, tree, at=step))(2)


ONE_LEFT = {"groups/0": 1.0}


@pytest.mark.parametrize(
    ("regularizer", "left"),
    [
        (GroupLasso(1.0), {"groups/0": 2.0}),
        (GroupLasso(1.0, groups="inputs"), {"groups/0": 3.0}),
        (GroupLasso(1.0, groups=blocks("inputs", 2)), {"groups/0": 2.0}),
        (
            SparseGroupLasso(1.0, groups=[[0, 1, 2, 3, 5, 9], [4, 6, 7, 8, 10, 11]]),
            {"groups/0": 1.0},
        ),
        (LInf1(1.0), {"groups/0": 2.0}),
        (GroupLasso(1.0) * warmup(3) + L1(1.0), {"groups/0": 2.0}),
        (GroupLasso(1.0) + GroupLasso(1.0, groups="inputs"), {"groups/0": 2.0, "groups_1/0": 3.0}),
        (ExclusiveLasso(1.0), {}),  # in which the elements of a group compete
        (MaxNorm(1.0), {}),
        (toward("start", GroupLasso(1.0)), {}),  # whose groups come to rest elsewhere
        (L1(1.0), {}),
    ],
    ids=repr,
)
def test_the_groups_that_are_left(regularizer: Regularizer, left: dict[str, float]) -> None:
    found = penalize.log(regularize(network(), {"0": regularizer}))
    assert {key: n for key, n in found.items() if key.startswith("groups")} == left


def test_a_function_of_other_weights_too() -> None:
    """Its value has a gradient, and is read without one."""
    model = network()
    apart = penalize.Custom(lambda w: (w - 2 * model[2].weight[:1, :1]).square().sum())
    plan = regularize(model, {"0": apart})
    expected = {"0.weight": float(apart(model[0].weight).detach())}
    assert plan.breakdown() == pytest.approx(expected)
    assert penalize.log(plan)["penalty"] == plan.breakdown()["0.weight"]


def test_half_precision_is_counted_in_full() -> None:
    model = nn.Linear(3000, 1).bfloat16()  # bfloat16 counts to 256
    with torch.no_grad():
        model.weight[:, 700:] = 0
    assert penalize.log(regularize(model, L1(1.0)))["zeros"] == 2300 / 3000


def test_a_million_and_more_are_counted() -> None:
    """One by one, float32 counts to 16,777,216."""
    model = nn.Linear(4100, 4100, bias=False)
    nn.init.zeros_(model.weight)
    assert penalize.log(regularize(model, L1(1.0)))["zeros"] == 1.0


class Scoped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with scope({"a": L2(1.0), everything: L1(1.0)}):
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)
        self.c = nn.Linear(2, 2)
        declare(self.c.weight, L1(3.0))


@pytest.mark.parametrize(
    ("rules", "keys"),
    [
        ({everything: L1(1.0)}, {"everything"}),
        ({kernels & ~named("2"): L1(1.0)}, {"kernels_named_2"}),
        ({"*.weight": L1(1.0)}, {"weight"}),
        ({"0/weight": L1(1.0), "2.weight": L1(1.0)}, {"0.weight", "2.weight"}),
        # Which would be called alike.
        ({"0.*": L1(1.0), "2*": L1(1.0), "0.**": None, "0": L1(1.0), "2": L1(1.0)}, {"0", "2"}),
        ({"0*": L1(1.0), "2.**.weight": L1(1.0)}, {"0", "2._.weight"}),
        ({named("0") & kernels: L1(1.0), "2": L1(1.0)}, {"named_0_kernels", "2"}),
        ([(of_type(nn.Linear), L1(1.0))], {"of_type_Linear"}),
    ],
)
def test_rules_have_names_that_loggers_take(rules: Any, keys: set[str]) -> None:
    found = penalize.log(regularize(network(), rules))
    assert {key.removeprefix("penalties/") for key in found if "/" in key} == keys


def test_scopes_and_declarations() -> None:
    found = penalize.log(regularize(Scoped()))
    assert [key for key in found if "/" in key] == ["penalties/scope", "penalties/c.weight"]


def test_frozen_weights_and_none_at_all() -> None:
    model = network().requires_grad_(False)
    assert penalize.log(regularize(model, RULES)) == {"penalty": 0.0}


def test_beside_the_data() -> None:
    model = network()
    plan = regularize(model, {**RULES, "2": MaxNorm(1.0)})
    model(torch.ones(5, 4).double()).square().sum().backward()
    rows = {row.name: row for row in plan.balance()}
    found = penalize.log(plan, balance=True)
    first = rows["0.weight"]
    assert found["balances/0.weight"] == pytest.approx(first.ratio)
    held = [row for row in rows.values() if row.name != "2.weight"]
    data, penalty = (
        np.sqrt(sum(getattr(row, f"{kind}_gradient") ** 2 for row in held))
        for kind in ("data", "penalty")
    )
    assert found["balance"] == pytest.approx(penalty / data)
    assert "balances/2" not in found  # a constraint has no gradient


def test_what_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^penalize\.log got a Sequential; pass the plan"):
        penalize.log(network())  # type: ignore[arg-type]
    params = {"w": jnp.ones((2, 2))}
    plan = penalize.jax.regularize(params, {"w": L1(1.0)})
    with pytest.raises(ModelError, match=r"no parameters; write penalize\.log\(plan, params\)"):
        penalize.log(plan)
    with pytest.raises(ModelError, match=r"reads its own; write penalize\.log\(plan\)"):
        penalize.log(regularize(network(), L1(1.0)), params)
    with pytest.raises(OptimizerError, match=r"a penalize\.jax\.plan\.Plan, which sees no grad"):
        penalize.log(plan, params, balance=True)
    with pytest.raises(OptimizerError, match="no penalized parameter has a gradient"):
        penalize.log(regularize(network(), L1(1.0)), balance=True)


# --- what loggers write -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def numbers() -> dict[str, float]:
    return penalize.log(regularize(network(), RULES))


def test_in_tensorboard(tmp_path: Path, numbers: dict[str, float]) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        for key, number in numbers.items():
            writer.add_scalar(key, number, 3)
    (file,) = tmp_path.iterdir()
    data, at, found = file.read_bytes(), 0, {}
    while at < len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        event = event_pb2.Event.FromString(data[at + 12 : at + 12 + size])
        found |= {value.tag: value.simple_value for value in event.summary.value}
        at += 16 + size
    assert found == pytest.approx(numbers, rel=1e-6)


def test_in_weights_and_biases(tmp_path: Path, numbers: dict[str, float]) -> None:
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    settings = wandb.Settings(console="off", silent=True, x_disable_stats=True)
    with wandb.init(mode="offline", project="p", dir=str(tmp_path), settings=settings) as run:
        run.log(numbers, step=3)
        file = Path(run.settings.sync_file)
    wandb.teardown()  # ends the process that writes the file
    found = {}
    for record in map(Record.FromString, _records(file.read_bytes())):
        for item in record.history.item:
            found[item.key or "/".join(item.nested_key)] = float(item.value_json)
    assert found.pop("_step") == 3
    assert {k: n for k, n in found.items() if k[0] != "_"} == pytest.approx(numbers)


def _records(data: bytes) -> Iterator[bytes]:
    """The records of a log in the format of LevelDB, behind a header of 7 bytes."""
    at, parts = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def test_in_mlflow(
    tmp_path: Path, numbers: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files: the key of one must not be the folder of another."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    client = MlflowClient(tmp_path.as_uri())
    run = client.create_run(client.create_experiment("penalties")).info.run_id
    for key, number in numbers.items():
        client.log_metric(run, key, number, step=3)
    assert client.get_run(run).data.metrics == pytest.approx(numbers)
    (file,) = tmp_path.glob(f"*/{run}/metrics/penalties/kernels")
    assert file.is_file()
