"""Plans of sharded models: what they read, and what else a loop does with such a model."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ranks import on_ranks
from shardings import (
    Net,
    assert_same_weights,
    data,
    fsdp,
    mesh_of,
    net,
    share,
    tensor_parallel,
    whole,
)
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.nn.utils import parametrizations, prune

from penalize import L1, L2, GroupLasso, biases, kernels, norms, of_type, where
from penalize.errors import AppliedTwiceError, ModelError, OptimizerError, ReplacedParameterError
from penalize.torch import Plan, compact, declare, regularize, scope

RULES: dict[Any, Any] = {kernels: L1(0.01) + L2(0.02), "last.weight": GroupLasso(0.1, "inputs")}


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def loss_of(model: nn.Module) -> Tensor:
    x, y = (share("fsdp", part) for part in data())
    return nn.functional.mse_loss(model(x), y)


def reference_step(rules: Any = RULES) -> Net:
    model = net()
    plan, optimizer = regularize(model, rules), sgd(model)
    x, y = data()
    (nn.functional.mse_loss(model(x), y) + plan.penalty()).backward()
    optimizer.step()
    return model


def reading(plan: Plan) -> list[tuple[object, ...]]:
    """What a plan says, less the lines where it was made."""
    return [(r.name, r.aliases, r.role, r.shape, r.regularizer) for r in plan.rows]


def reshard(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


# --- what a plan reads ----------------------------------------------------------------------


class Scale(nn.Module):
    """A norm by its name only."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(7))


class RootMeanNorm(Scale):
    pass


def declared() -> nn.Sequential:
    model = nn.Sequential()
    with scope({kernels: L2(0.1)}):
        model.append(nn.Linear(5, 7))
        with scope({of_type(nn.Conv1d): L1(0.3)}):
            model.append(nn.Conv1d(3, 5, 2))
    model.append(RootMeanNorm())
    model.append(nn.Embedding(5, 4))
    model.append(nn.ConvTranspose1d(3, 5, 2))
    declare(model[3].weight, GroupLasso(0.2, "inputs"))
    return model


RULES_OF_DECLARED = {
    of_type(nn.ConvTranspose1d) & kernels: GroupLasso(0.1, "outputs"),
    of_type(RootMeanNorm) & norms: L1(0.5),
    where(lambda p: p.shape == (7,)) & biases: L2(0.7),
}


@on_ranks(2)
def test_the_same_plan_before_and_after_sharding() -> None:
    model = declared()
    before = regularize(model, RULES_OF_DECLARED)
    expected, table = reading(before), penalties_of(str(before))
    for part in (model[0], model[2]):
        fully_shard(part)
    fully_shard(model)
    assert type(model[0]).__name__ == "FSDPLinear"
    assert all(isinstance(p, DTensor) for p in model.parameters())
    after = regularize(model, RULES_OF_DECLARED)
    for plan in (after, before):  # the plan from before reads through the modules
        assert reading(plan) == expected
        assert penalties_of(str(plan)) == table


def penalties_of(table: str) -> list[list[str]]:
    """The rows of a table, less the line where the plan was made."""
    return [[word for word in line.split() if ".py" not in word] for line in table.splitlines()]


@on_ranks(2)
def test_rows_of_a_norm_communicate_nothing() -> None:
    model = fsdp(net())
    with CommDebugMode() as mode:
        plan = regularize(model, {norms: L1(0.1)})
        assert len(plan.rows) == 6
    assert mode.get_total_counts() == 0


@on_ranks(2)
def test_a_weight_that_is_tied_counts_once() -> None:
    def tied() -> nn.Sequential:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 5, bias=False))
        model[1].weight = model[0].weight
        return model

    model, plain = tied(), tied()
    rules = {"1.weight": L2(0.5)}
    before = regularize(plain, rules)
    after = regularize(fully_shard(model), rules)
    assert reading(after) == reading(before)
    assert after.rows[0].aliases == ("1.weight",)
    words = torch.arange(5)
    for m, plan in ((plain, before), (model, after)):
        (0 * m(words).sum() + plan.penalty()).backward()
    torch.testing.assert_close(model[0].weight.grad.full_tensor(), plain[0].weight.grad)


@on_ranks(2)
def test_a_model_that_is_built_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = Net().double()
    first = regularize(model, RULES)
    fsdp(model)
    second = regularize(model, RULES)
    model.to_empty(device="cpu")
    expected = net()
    with torch.no_grad():
        for p, q in zip(model.parameters(), expected.parameters(), strict=True):
            p.copy_(torch.distributed.tensor.distribute_tensor(q, p.device_mesh, p.placements))
    third = regularize(model, RULES)
    wanted = regularize(expected, RULES)
    for plan in (first, second, third):
        assert reading(plan) == reading(wanted)
        torch.testing.assert_close(plan.penalty(), wanted.penalty())


def test_nothing_of_it_is_loaded_for_a_model_that_is_not_sharded() -> None:
    """Making an optimizer loads it; what is shown here is that penalize does not."""
    code = """
import sys, torch
from penalize import L1, L2, GroupLasso
from penalize.torch import regularize
model = torch.nn.Linear(3, 2)
plan = regularize(model, L1(0.1) + GroupLasso(0.1))
(model(torch.ones(1, 3)).sum() + plan.penalty()).backward()
plan.breakdown(), str(plan)
print([name for name in sys.modules if name.startswith("torch.distributed.tensor")])
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


# --- what fully_shard shows, and what lasts ---------------------------------------------------


@on_ranks(2)
def test_the_penalty_is_of_what_is_sharded_also_while_it_is_gathered() -> None:
    """The outermost module stays gathered until its backward pass."""
    model = fsdp(net())
    plan = regularize(model, RULES)
    expected = regularize(net(), RULES).penalty()
    before = plan.penalty()
    loss = loss_of(model)
    assert not isinstance(model.last.weight, DTensor)
    with CommDebugMode() as mode:
        gathered = plan.penalty()
    assert mode.get_total_counts() == 3  # L1, L2, and groups that cross the shards
    (loss + gathered).backward()
    for value in (before, gathered, plan.penalty()):
        torch.testing.assert_close(value.detach(), expected.detach())


def when_asked_before(model: nn.Module, plan: Plan) -> Tensor:
    return plan.penalty() + loss_of(model)


def when_asked_after(model: nn.Module, plan: Plan) -> Tensor:
    return loss_of(model) + plan.penalty()


def when_asked_inside(model: nn.Module, plan: Plan) -> Tensor:
    asked: list[Tensor] = []
    hook = model.norm.register_forward_hook(lambda *_: asked.append(plan.penalty()))
    loss = loss_of(model)
    hook.remove()
    return loss + asked[0]


@pytest.mark.parametrize("ask", [when_asked_before, when_asked_after, when_asked_inside])
@on_ranks(2)
def test_the_loss_term(ask: Callable[[nn.Module, Plan], Tensor]) -> None:
    model = fsdp(net())
    plan, optimizer = regularize(model, RULES), sgd(model)
    ask(model, plan).backward()
    optimizer.step()
    assert_same_weights(model, reference_step())


@pytest.mark.parametrize("mode", ["loss", "gradient"])
@on_ranks(2)
def test_a_plan_that_was_made_before_sharding(mode: str) -> None:
    model = net()
    plan = regularize(model, RULES)
    optimizer = sgd(fsdp(model))
    if mode == "gradient":
        plan.attach(optimizer)
    loss = loss_of(model)
    (loss + plan.penalty() if mode == "loss" else loss).backward()
    optimizer.step()
    assert_same_weights(model, reference_step())


@on_ranks(2)
def test_attached_after_an_evaluation() -> None:
    """After it the outermost module shows gathered parameters, which no optimizer has."""
    model = fsdp(net())
    optimizer = sgd(model)
    with torch.no_grad():
        loss_of(model)
    assert not isinstance(model.last.weight, DTensor)
    plan = regularize(model, RULES)
    plan.attach(optimizer)
    loss_of(model).backward()
    with torch.no_grad():
        loss_of(model)
    optimizer.step()
    reshard(model)  # what it shows is from before the step
    assert_same_weights(model, reference_step())


@on_ranks(2)
def test_a_loss_beside_an_attachment_is_refused() -> None:
    for way in (fsdp, tensor_parallel):
        model = way(net())
        plan = regularize(model, RULES)
        optimizer = sgd(model)
        plan.attach(optimizer)
        with pytest.raises(AppliedTwiceError, match=r"'first\.weight'"):
            (loss_of(model) + plan.penalty()).backward()


@on_ranks(2)
def test_attached_before_sharding() -> None:
    model = net()
    plan, optimizer = regularize(model, RULES), sgd(model)
    attachment = plan.attach(optimizer)
    fsdp(model)
    loss_of(model).backward()
    with pytest.raises(ReplacedParameterError, match=r"no longer what the optimizer steps \(to_em"):
        optimizer.step()
    attachment.detach()


@on_ranks(2)
def test_an_optimizer_of_the_model_before_it_was_sharded() -> None:
    model = net()
    optimizer = sgd(model)
    plan = regularize(fsdp(model), RULES)
    with pytest.raises(OptimizerError, match="after the model was moved, wrapped or sharded"):
        plan.attach(optimizer)


# --- what a loop does -----------------------------------------------------------------------


@pytest.mark.parametrize("keep_gathered", [False, True])
@pytest.mark.parametrize("door", ["loss", "gradient"])
@on_ranks(2)
def test_accumulation(door: str, keep_gathered: bool) -> None:
    model = fsdp(net())
    plan, optimizer = regularize(model, RULES), sgd(model)
    if door == "gradient":
        plan.attach(optimizer)
    x, y = (share("fsdp", part) for part in data())
    for last, (a, b) in enumerate(zip(x.chunk(2), y.chunk(2), strict=True)):
        model.set_requires_gradient_sync(bool(last))
        model.set_reshard_after_backward(bool(last) and not keep_gathered)
        loss = nn.functional.mse_loss(model(a), b)
        ((loss + plan.penalty() if door == "loss" else loss) / 2).backward()
    assert isinstance(model.first.weight, DTensor) is not keep_gathered
    optimizer.step()
    reshard(model)
    assert_same_weights(model, reference_step())


@pytest.mark.parametrize("clip", ["without", "with"])
@on_ranks(2)
def test_clipping(clip: str) -> None:
    models = net(), fsdp(net())
    for model, parts in zip(models, (data(), [share("fsdp", p) for p in data()]), strict=True):
        optimizer = sgd(model)
        regularize(model, {kernels: L1(0.1), "last.weight": GroupLasso(0.5, "inputs")}).attach(
            optimizer, clip=clip
        )
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(parts[0]), parts[1]).backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.2)
            assert whole(norm) > 0.2
            optimizer.step()
    assert_same_weights(models[1], models[0])


@on_ranks(2)
def test_mixed_precision_penalizes_the_weights_that_last() -> None:
    model = net().float()
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    expected = regularize(net().float(), RULES)
    for part in (model.first, model):
        fully_shard(part, mp_policy=policy)
    plan = regularize(model, RULES)
    output = model(data()[0].float())
    assert model.last.weight.dtype == torch.bfloat16
    (output.sum() * 0 + plan.penalty()).backward()
    torch.testing.assert_close(plan.penalty(), expected.penalty())
    expected.penalty().backward()
    for name, p in expected.model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(model.get_parameter(name).grad.full_tensor(), p.grad)


@on_ranks(2)
def test_another_division_of_the_gradient_is_not_of_the_penalty() -> None:
    model = fsdp(net())
    for part in (model.first, model):
        part.set_gradient_divide_factor(8.0)
    plan = regularize(model, {kernels: L2(0.5)})
    (0 * loss_of(model) + plan.penalty()).backward()
    for layer in (model.first, model.last):
        torch.testing.assert_close(layer.weight.grad.full_tensor(), layer.weight.full_tensor())


def weight_normed(model: Net) -> None:
    parametrizations.weight_norm(model.first)


def pruned(model: Net) -> None:
    prune.l1_unstructured(model.first, "weight", amount=10)


@pytest.mark.parametrize("mode", ["loss", "gradient"])
@pytest.mark.parametrize("reparametrize", [weight_normed, pruned])
@on_ranks(2)
def test_an_effective_weight(reparametrize: Callable[[Net], None], mode: str) -> None:
    rules = {"first.weight": GroupLasso(0.3, "inputs") + L1(0.1)}
    models = net(), net()
    for model in models:
        reparametrize(model)
    fsdp(models[1])
    if distributed.get_rank() == 0:  # nothing is communicated: the other rank does not take part
        assert reading(regularize(models[0], rules)) == reading(regularize(models[1], rules))
    plans = [regularize(model, rules) for model in models]
    for model, plan, parts in zip(
        models, plans, (data(), [share("fsdp", p) for p in data()]), strict=True
    ):
        optimizer = sgd(model)
        if mode == "gradient":
            plan.attach(optimizer)
        for _ in range(3):
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(parts[0]), parts[1])
            (loss + plan.penalty() if mode == "loss" else loss).backward()
            optimizer.step()
    assert_same_weights(models[1], models[0])


@on_ranks(2)
def test_the_older_sharding_is_refused() -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel

    model = FullyShardedDataParallel(net(), device_id=torch.device("cpu"))
    with pytest.raises(ModelError, match=r"shard it with torch.distributed.fsdp.fully_shard inst"):
        regularize(model, RULES)


@on_ranks(2)
def test_compact_takes_the_model_itself() -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.nn.parallel import DistributedDataParallel

    x, model = data()[0], fsdp(net()).eval()
    for sharded in (model, FullyShardedDataParallel(net(), device_id=torch.device("cpu")).eval()):
        with pytest.raises(ModelError, match="are sharded, and compact looks at whole ones; load"):
            compact(sharded, x)
    with pytest.raises(ModelError, match=r"a DistributedDataParallel, .* compact model\.module in"):
        compact(DistributedDataParallel(net()).eval(), x)


@on_ranks(4)
def test_resharded_to_fewer_ranks_after_the_forward_pass() -> None:
    """What it shows then is sharded, and still not what the optimizer has."""
    model = net()
    fully_shard(model.first, mesh=mesh_of(4), reshard_after_forward=2)
    fully_shard(model, mesh=mesh_of(4))
    plan, optimizer = regularize(model, RULES), sgd(model)
    lasting = model.first.weight
    loss = loss_of(model)
    assert isinstance(model.first.weight, DTensor)
    assert model.first.weight is not lasting
    (loss + plan.penalty()).backward()
    optimizer.step()
    assert_same_weights(model, reference_step())


@on_ranks(2)
def test_a_scaler_that_skips_a_step_of_a_fused_optimizer() -> None:
    models = net().float(), fsdp(net().float())
    for model, parts in zip(models, (data(), [share("fsdp", p) for p in data()]), strict=True):
        x, y = (part.float() for part in parts)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05, fused=True)
        regularize(model, {kernels: L1(0.01) + L2(0.1)}).attach(optimizer, mode="proximal")
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        for factor in (1.0, float("inf"), 1.0):
            optimizer.zero_grad()
            scaler.scale(factor * nn.functional.mse_loss(model(x), y)).backward()
            scaler.step(optimizer)
            scaler.update()
    assert_same_weights(models[1], models[0], 1e-6)


@on_ranks(2)
def test_a_compiled_penalty() -> None:
    model = fsdp(net())
    plan = regularize(model, RULES)
    value = torch.compile(plan.penalty, backend="eager", fullgraph=True)()
    value.backward()
    expected = regularize(net(), RULES)
    expected.penalty().backward()
    torch.testing.assert_close(value, expected.penalty())
    gradient = expected.model.last.weight.grad
    torch.testing.assert_close(model.last.weight.grad.full_tensor(), gradient)


@on_ranks(2)
def test_every_rank_has_the_same_penalty() -> None:
    model = fsdp(net())
    plan = regularize(model, RULES)
    value = plan.penalty()
    assert type(value) is Tensor
    seen = [torch.zeros_like(value) for _ in range(2)]
    distributed.all_gather(seen, value.detach())
    assert seen[0] == seen[1]
