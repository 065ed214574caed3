"""Loops as people write them: each declared penalty acts once per step, or the user is told."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import (
    SGD,
    Adam,
    Adamax,
    AdamW,
    NAdam,
    Optimizer,
    RAdam,
    RMSprop,
    adam,
    adamax,
    nadam,
    radam,
    rmsprop,
)
from torch.optim.swa_utils import AveragedModel

from penalize import L1, L2, GroupLasso, NeverAppliedWarning, OptimizerError, kernels
from penalize.torch import regularize
from penalize.torch.clock import OptimizerStep

each_mode = pytest.mark.parametrize("mode", ["gradient", "decoupled", "proximal"])
RULES = {kernels: L1(0.02) + L2(0.1)}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def batches(count: int = 6) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        yield (
            torch.randn(12, 6, generator=generator).double(),
            torch.randn(12, 3, generator=generator).double(),
        )


def train(model: nn.Module, *optimizers: Optimizer, penalty: Any = lambda: 0) -> None:
    for x, y in batches():
        for optimizer in optimizers:
            optimizer.zero_grad()
        (nn.functional.mse_loss(model(x), y) + penalty()).backward()
        for optimizer in optimizers:
            optimizer.step()


def expected(mode: str) -> dict[str, Tensor]:
    """The same training under one plain SGD; the reference of test_attachment holds that."""
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    regularize(model, RULES).attach(optimizer, mode)
    train(model, optimizer)
    return model.state_dict()


# --- several optimizers ---------------------------------------------------------------------


@each_mode
def test_several_optimizers_on_disjoint_parameters(mode: str) -> None:
    model = network()
    first, second = SGD(model[0].parameters(), lr=0.1), SGD(model[2].parameters(), lr=0.1)
    regularize(model, RULES).attach([first, second], mode)
    train(model, first, second)
    torch.testing.assert_close(model.state_dict(), expected(mode))


@each_mode
def test_optimizers_in_the_backward_pass(mode: str) -> None:
    """One optimizer per parameter, stepped and cleared as soon as its gradient is there."""
    model = network()
    optimizers = {p: SGD([p], lr=0.1) for p in model.parameters()}
    regularize(model, RULES).attach(list(optimizers.values()), mode)

    def step(parameter: nn.Parameter) -> None:
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(step)
    for x, y in batches():
        nn.functional.mse_loss(model(x), y).backward()
    torch.testing.assert_close(model.state_dict(), expected(mode))


@each_mode
def test_a_gan(mode: str) -> None:
    """The generator's loss leaves gradients in the discriminator, and neither steps the other."""

    def play(mode: str) -> tuple[nn.Module, nn.Module]:
        torch.manual_seed(0)
        generator = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 3)).double()
        critic = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
        g, d = (SGD(m.parameters(), lr=0.05, momentum=0.5) for m in (generator, critic))
        plans = regularize(generator, L2(0.05)), regularize(critic, RULES)
        by_hand = mode == "by hand"
        if not by_hand:
            plans[0].attach(g, mode)
            plans[1].attach(d, mode)
        for real in torch.randn(5, 8, 3).double():
            noise = torch.randn(8, 2).double()
            d.zero_grad()
            loss = critic(generator(noise).detach()).mean() - critic(real).mean()
            (loss + plans[1].penalty() if by_hand else loss).backward()
            d.step()
            g.zero_grad()
            loss = -critic(generator(noise)).mean()
            (loss + plans[0].penalty() if by_hand else loss).backward()
            g.step()
        return generator, critic

    reference = play("by hand")
    for found, wanted in zip(play(mode), reference, strict=True):
        same = [
            torch.allclose(a, b, rtol=1e-9)
            for a, b in zip(found.parameters(), wanted.parameters(), strict=True)
        ]
        assert all(same) == (mode == "gradient")


# --- parameters that come and go ------------------------------------------------------------


def test_parameters_added_later_are_not_passed_over_in_silence() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    plan = regularize(model, RULES)
    attachment = plan.attach(optimizer)
    model.append(nn.Linear(3, 2).double())
    optimizer.add_param_group({"params": model[3].parameters()})
    model(torch.ones(1, 6).double()).sum().backward()
    with pytest.warns(NeverAppliedWarning, match=r"'3.weight', '3.bias' came to the Sequential"):
        optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.zero_grad()
        optimizer.step()  # told once
        attachment.detach()
        regularize(model, RULES).attach(optimizer)
        before = model[3].weight.detach().clone()
        optimizer.zero_grad()
        optimizer.step()
    assert not torch.equal(before, model[3].weight)


def test_a_layer_that_took_the_place_of_another_is_noticed_by_its_identity() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    regularize(model, RULES).attach(optimizer)
    model[2] = nn.Linear(5, 3).double()
    optimizer.add_param_group({"params": model[2].parameters()})
    with pytest.warns(NeverAppliedWarning, match=r"'2.weight', '2.bias' came to"):
        optimizer.step()


def test_a_plan_that_is_older_than_the_model_is_noticed_when_attached() -> None:
    model = network()
    plan = regularize(model, RULES)
    model.append(nn.Linear(3, 2).double())
    with pytest.warns(NeverAppliedWarning, match=r"'3.weight', '3.bias' came to") as caught:
        plan.attach(SGD(model.parameters(), lr=0.1))
    assert caught[0].filename == __file__


@each_mode
def test_frozen_and_unfrozen_by_turns(mode: str) -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    plan = regularize(model, RULES)
    plan.attach(optimizer, mode)
    for frozen in (True, False, True):
        model[0].requires_grad_(not frozen)
        before = model[0].weight.detach().clone()
        optimizer.zero_grad()
        train(model, optimizer)
        assert torch.equal(before, model[0].weight) == frozen
        assert ("0.weight" in plan.breakdown()) != frozen


class Lora(nn.Module):
    """W + BA, as adapters add it to a frozen layer."""

    def __init__(self, base: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_a = nn.Parameter(torch.randn(rank, base.in_features).double())
        self.lora_b = nn.Parameter(torch.zeros(base.out_features, rank).double())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x) + x @ self.lora_a.T @ self.lora_b.T
        return out


def test_lora_is_penalized_on_its_factors_and_says_so() -> None:
    """The sum W + BA is nobody's parameter: the plan shows the factors, and W as frozen."""
    model = network()
    model[0] = Lora(model[0])
    plan = regularize(model, RULES)
    rows = {row.name: row for row in plan.rows}
    assert rows["0.base.weight"].regularizer is None
    assert "frozen" in rows["0.base.weight"].note
    assert set(plan.breakdown()) == {"0.lora_a", "0.lora_b", "2.weight"}


class LowRank(nn.Module):
    """W + BA as a parametrization of W."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.randn(2, inputs).double())
        self.b = nn.Parameter(torch.randn(outputs, 2).double())

    def forward(self, w: Tensor) -> Tensor:
        return w + self.b @ self.a


def test_a_parametrization_is_penalized_as_the_effective_weight() -> None:
    model, by_hand = network(), network()
    for m in (model, by_hand):
        torch.manual_seed(1)
        parametrize.register_parametrization(m[0], "weight", LowRank(5, 6))
        m[0].parametrizations.weight.original.requires_grad_(False)
    optimizers = [SGD(m.parameters(), lr=0.01) for m in (model, by_hand)]
    regularize(model, {"0.weight": L2(0.1)}).attach(optimizers[0])
    train(model, optimizers[0])
    train(by_hand, optimizers[1], penalty=lambda: 0.1 * by_hand[0].weight.square().sum())
    torch.testing.assert_close(model.state_dict(), by_hand.state_dict())


@pytest.mark.parametrize("attached", [False, True], ids=["in the loss", "attached"])
def test_a_parametrization_is_not_computed_under_the_autocast_of_the_loop(attached: bool) -> None:
    """A product of two factors would be rounded to half precision, and its derivative as well."""

    def trained(autocast: bool) -> dict[str, Tensor]:
        model = network().float()
        torch.manual_seed(1)
        parametrize.register_parametrization(model[0], "weight", LowRank(5, 6).float())
        optimizer = SGD(model.parameters(), lr=0.01)
        plan = regularize(model, {"0.weight": L2(0.1)})
        if attached:
            plan.attach(optimizer)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            (plan.penalty() if not attached else 0.0 * model[2].weight.sum()).backward()
            optimizer.step()
        return model.state_dict()

    torch.testing.assert_close(trained(True), trained(False))


# --- precision, compilers, devices ----------------------------------------------------------


def test_under_autocast_a_penalty_is_reduced_in_float32() -> None:
    model = nn.Linear(64, 64)
    nn.init.constant_(model.weight, 1.0 + 1 / 512)  # bfloat16 would make it 1
    plan = regularize(model, L2(1.0) + GroupLasso(1.0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = plan.penalty()
        assert plan.breakdown()["weight"] == inside.item()
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, plan.penalty(), rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(inside, [model.weight])
    torch.testing.assert_close(gradient, torch.autograd.grad(plan.penalty(), [model.weight])[0])


@each_mode
def test_a_compiled_model_and_step(mode: str) -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    compiled = torch.compile(model, backend="eager")
    regularize(compiled, RULES).attach(optimizer, mode)
    step = torch.compile(optimizer.step, backend="eager")
    for x, y in batches():
        optimizer.zero_grad()
        nn.functional.mse_loss(compiled(x), y).backward()
        step()
    torch.testing.assert_close(model.state_dict(), expected(mode))


def test_an_average_of_the_weights_is_not_penalized_itself() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    regularize(model, RULES).attach(optimizer)
    average = AveragedModel(model)
    seen = []
    for x, y in batches():
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
        average.update_parameters(model)
        seen.append(model[0].weight.detach().clone())
    torch.testing.assert_close(model.state_dict(), expected("gradient"))
    torch.testing.assert_close(average.module[0].weight.detach(), torch.stack(seen).mean(0))


ON_DEVICE: dict[str, Any] = {
    "SGD": lambda p: SGD(p, lr=0.1, momentum=0.9),
    "Adam": lambda p: Adam(p, capturable=True),
    "AdamW, amsgrad": lambda p: AdamW(p, amsgrad=True, weight_decay=0.0, capturable=True),
    "NAdam": lambda p: NAdam(p, capturable=True),
    "RAdam": lambda p: RAdam(p, capturable=True),
    "Adamax": lambda p: Adamax(p, capturable=True),
    "RMSprop": lambda p: RMSprop(p, capturable=True),
}


# A meta tensor has no value to wait for: every .item(), bool() or copy to the host of one raises.


@pytest.mark.parametrize("make", ON_DEVICE.values(), ids=ON_DEVICE)
@pytest.mark.parametrize(
    ("mode", "clip"),
    [
        ("gradient", "without"),
        ("gradient", "with"),
        ("decoupled", "without"),
        ("proximal", "without"),
    ],
)
def test_no_step_waits_for_the_device(
    make: Any, mode: str, clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a step can be captured in a CUDA graph."""
    for module in (adam, adamax, nadam, radam, rmsprop):
        monkeypatch.setattr(module, "_get_capturable_supported_devices", lambda **_: ["meta"])
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)).to("meta")
    optimizer = make(list(model.parameters()))
    if isinstance(optimizer, Adam):
        optimizer.param_groups[0]["lr"] = torch.tensor(0.1, device="meta")
    rules = {kernels: L1(0.1) + L2(0.1), "0": L1(0.1) + GroupLasso(0.1)}
    regularize(model, rules).attach(optimizer, mode, clip=clip)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(1, 4, device="meta")).sum().backward()
        optimizer.step()
    counts = [state["step"].device.type for state in optimizer.state.values() if "step" in state]
    assert set(counts) <= {"meta"}
    with pytest.raises(RuntimeError):
        model[0].weight.sum().item()


def test_what_a_scaler_leaves_does_not_wait_for_the_device_either() -> None:
    model = nn.Linear(4, 3, device="meta")
    optimizer: Any = SGD(model.parameters())
    optimizer.grad_scale = optimizer.found_inf = torch.zeros((), device="meta")
    step = OptimizerStep(optimizer, None, None)
    assert step.scale is not None
    assert step.scale.is_meta
    with torch.no_grad():
        step.assign(model.weight, 2 * model.weight)


# --- when --------------------------------------------------------------------------------------


def test_attach_in_the_middle_of_a_step() -> None:
    model = network()
    optimizer = SGD(model.parameters(), lr=0.1)
    plan = regularize(model, RULES)
    before = copy.deepcopy(model.state_dict())

    def closure() -> Tensor:
        plan.attach(optimizer)
        return torch.zeros(())

    with pytest.raises(OptimizerError, match="in the middle of a step of SGD"):
        optimizer.step(closure)
    assert plan.attachments() == []
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    plan.attach(optimizer)
