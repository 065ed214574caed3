"""Attaching a plan: the three modes, what is refused, and that nothing is half attached."""

from __future__ import annotations

import copy
import gc
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from weakref import ref

import numpy as np
import pytest
import torch
import torch.optim as opt
from torch import Tensor, nn

from penalize import (
    L1,
    L1L2,
    L2,
    AppliedTwiceError,
    ArrayError,
    GroupLasso,
    ModeError,
    NeverAppliedWarning,
    NoProximalOperatorError,
    OptimizerError,
    Regularizer,
    ReplacedParameterError,
    RoundedAwayWarning,
    biases,
    kernels,
)
from penalize.backends import torch as xp
from penalize.steps import Step, bounded
from penalize.torch import regularize


def network(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)


def batches(count: int, dtype: torch.dtype = torch.float64) -> Iterator[tuple[Tensor, Tensor]]:
    rng = np.random.default_rng(0)
    for _ in range(count):
        x, y = rng.normal(size=(16, 6)), rng.normal(size=(16, 3))
        yield torch.tensor(x, dtype=dtype), torch.tensor(y, dtype=dtype)


def train(
    model: nn.Module,
    optimizer: opt.Optimizer,
    steps: int = 20,
    penalty: Callable[[], Tensor | float] = lambda: 0.0,
    closure: bool = False,
) -> list[Tensor]:
    def evaluate(x: Tensor, y: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y) + penalty()
        loss.backward()
        return loss

    for x, y in batches(steps, next(model.parameters()).dtype):
        if closure:
            optimizer.step(lambda x=x, y=y: evaluate(x, y))
        else:
            evaluate(x, y)
            optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


class OwnSGD(opt.Optimizer):
    def step(self, closure: Any = None) -> None:
        raise NotImplementedError


RULES: dict[str, Any] = {
    "l2": L2(0.05),
    "l1": L1(0.01),
    "elastic net, biases too": {kernels: L1L2(0.01, 0.02), biases: L2(0.1)},
    "groups": {"0": GroupLasso(0.02, groups="inputs"), "2": L1(0.01) + GroupLasso(0.01)},
}
OPTIMIZERS: dict[str, Callable[[Any], opt.Optimizer]] = {
    "SGD": lambda p: opt.SGD(p, lr=0.1),
    "momentum": lambda p: opt.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "Adam": lambda p: opt.Adam(p, lr=0.01),
    "AdamW": lambda p: opt.AdamW(p, lr=0.01, weight_decay=0.0),
    "RMSprop": lambda p: opt.RMSprop(p, lr=0.01),
    "Adagrad": lambda p: opt.Adagrad(p, lr=0.05),
}
each_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
each_rules = pytest.mark.parametrize("rules", RULES.values(), ids=RULES)


# --- mode="gradient" ------------------------------------------------------------------------


@each_optimizer
@each_rules
@pytest.mark.parametrize("closure", [False, True])
def test_gradient_equals_the_loss_term(make: Any, rules: Any, closure: bool) -> None:
    by_hand, attached = network(), network()
    plan = regularize(by_hand, rules)
    expected = train(by_hand, make(by_hand.parameters()), penalty=plan.penalty, closure=closure)
    optimizer = make(attached.parameters())
    regularize(attached, rules).attach(optimizer)
    for a, b in zip(train(attached, optimizer, closure=closure), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
    without = network()
    unpenalized = train(without, make(without.parameters()))
    assert not torch.allclose(unpenalized[0], expected[0], atol=1e-3)


def test_gradient_matches_in_float32_to_1e_6() -> None:
    by_hand, attached = network(torch.float32), network(torch.float32)
    plan = regularize(by_hand, L1(0.01))
    expected = train(by_hand, opt.Adam(by_hand.parameters(), lr=0.01), penalty=plan.penalty)
    optimizer = opt.Adam(attached.parameters(), lr=0.01)
    regularize(attached, L1(0.01)).attach(optimizer)
    for a, b in zip(train(attached, optimizer), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_the_penalty_is_what_a_user_would_write() -> None:
    """plan.penalty() is the reference of the test above; here it meets plain PyTorch."""
    model = network()
    plan = regularize(model, {"0": L2(0.1), "2.weight": L1(0.2)})
    expected = 0.1 * model[0].weight.pow(2).sum() + 0.2 * model[2].weight.abs().sum()
    torch.testing.assert_close(plan.penalty(), expected)
    assert plan.breakdown() == pytest.approx(
        {
            "0.weight": 0.1 * float(model[0].weight.detach().pow(2).sum()),
            "2.weight": 0.2 * float(model[2].weight.detach().abs().sum()),
        }
    )


def test_lbfgs_with_line_search_sees_the_penalized_objective() -> None:
    def make(parameters: Any) -> opt.Optimizer:
        return opt.LBFGS(parameters, max_iter=8, line_search_fn="strong_wolfe")

    by_hand, attached = network(), network()
    plan = regularize(by_hand, L2(0.05))
    expected = train(by_hand, make(by_hand.parameters()), 3, plan.penalty, closure=True)
    optimizer = make(attached.parameters())
    regularize(attached, L2(0.05)).attach(optimizer)
    for a, b in zip(train(attached, optimizer, 3, closure=True), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_a_closure_keeps_its_return_value() -> None:
    """Data loss and penalty stay apart: only a line search needs their sum."""
    model = network()
    optimizer = opt.SGD(model.parameters(), lr=0.1)
    regularize(model, L2(10.0)).attach(optimizer)
    x, y = next(batches(1))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        return loss

    data_loss = nn.functional.mse_loss(model(x), y).item()
    assert optimizer.step(closure).item() == data_loss
    assert optimizer.step(closure=closure).item() != data_loss
    assert optimizer.step(closure=optimizer.zero_grad) is None


def test_maximize_subtracts() -> None:
    model = network()
    optimizer = opt.SGD(model.parameters(), lr=0.1, maximize=True)
    regularize(model, L2(0.5)).attach(optimizer)
    before = model[0].weight.detach().clone()
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    torch.testing.assert_close(model[0].weight.detach(), before - 0.1 * before)


# --- mode="decoupled" -----------------------------------------------------------------------


@pytest.mark.parametrize("closure", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_decoupled_l2_is_adamw_bit_for_bit(dtype: torch.dtype, closure: bool) -> None:
    decay = 0.1
    theirs, ours = network(dtype), network(dtype)
    groups = [{"params": [p], "weight_decay": decay * (p.ndim > 1)} for p in theirs.parameters()]
    expected = train(theirs, opt.AdamW(groups, lr=0.01), closure=closure)
    optimizer = opt.AdamW(ours.parameters(), lr=0.01, weight_decay=0.0)
    regularize(ours, L2.from_weight_decay(decay)).attach(optimizer, mode="decoupled")
    found = train(ours, optimizer, closure=closure)
    assert all(map(torch.equal, found, expected))


@each_rules
def test_decoupled_is_its_formula(rules: Any) -> None:
    """w ← w − lr·∇Ω(w), then the update, for any Ω and a schedule of learning rates."""
    by_hand, attached = network(), network()
    optimizers = [opt.Adam(m.parameters(), lr=0.01) for m in (by_hand, attached)]
    schedules = [opt.lr_scheduler.ExponentialLR(o, 0.8) for o in optimizers]
    plan = regularize(by_hand, rules)
    regularize(attached, rules).attach(optimizers[1], mode="decoupled")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NeverAppliedWarning)  # by hand, below
        for x, y in batches(10):
            for model, optimizer, schedule in zip(
                (by_hand, attached), optimizers, schedules, strict=True
            ):
                optimizer.zero_grad()
                nn.functional.mse_loss(model(x), y).backward()
                if model is by_hand:
                    for target in plan.targets():
                        (w,) = target.binding.parameters()
                        gradient = torch.autograd.grad(target.regularizer(w), w)[0]
                        w.data -= optimizer.param_groups[0]["lr"] * gradient
                optimizer.step()
                schedule.step()
    for a, b in zip(attached.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


# --- mode="proximal" ------------------------------------------------------------------------


@each_rules
def test_proximal_sgd_is_its_formula(rules: Any) -> None:
    model = network()
    optimizer = opt.SGD(model.parameters(), lr=0.1)
    plan = regularize(model, rules)
    plan.attach(optimizer, mode="proximal")
    for x, y in batches(5):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x), y).backward()
        expected = {}
        for target in plan.targets():
            (w,) = target.binding.parameters()
            assert w.grad is not None
            expected[target.name] = target.regularizer.prox((w - 0.1 * w.grad).detach(), 0.1)
        optimizer.step()
        for target in plan.targets():
            torch.testing.assert_close(target.binding.read().detach(), expected[target.name])


# --- what is refused ------------------------------------------------------------------------


def assert_no_hooks(*optimizers: opt.Optimizer) -> None:
    for optimizer in optimizers:
        assert not getattr(optimizer, "_optimizer_step_pre_hooks", None)
        assert not getattr(optimizer, "_optimizer_step_post_hooks", None)


class Wrapper(opt.Optimizer):
    """Passes for an optimizer, as some launchers' wrappers do, without being initialised as one."""

    def __init__(self, inner: opt.Optimizer) -> None:
        self.inner = inner
        self.param_groups = inner.param_groups


class PassesOn(opt.Optimizer):
    """What accelerate and Lightning wrap optimizers in: nothing of its own."""

    def __init__(self, inner: opt.Optimizer) -> None:
        self.optimizer = inner

    param_groups = property(lambda self: self.optimizer.param_groups)  # type: ignore[assignment]
    state = property(lambda self: self.optimizer.state)  # type: ignore[assignment]
    defaults = property(lambda self: self.optimizer.defaults)  # type: ignore[assignment]

    def step(self, closure: Any = None) -> Any:
        return self.optimizer.step(closure)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.optimizer.zero_grad(set_to_none)


class Lookahead(PassesOn):
    """What goes back half of the way now and then, past the penalty."""

    def __init__(self, inner: opt.Optimizer) -> None:
        super().__init__(inner)
        self.slow: dict[Any, Any] = {}

    state = property(lambda self: self.slow)  # type: ignore[assignment]


def of_fastai(model: nn.Module) -> Any:
    kind = type("Optimizer", (), {"__module__": "fastai.optimizer"})
    return kind()


REFUSED: dict[str, tuple[Regularizer, Callable[[Any], Any], str, type[Exception], str]] = {
    "unknown mode": (
        L2(1.0),
        lambda m: opt.SGD(m.parameters()),
        "prox",
        ModeError,
        "there is no mode 'prox'; expected one of gradient, decoupled, proximal",
    ),
    "foreign optimizer": (
        L2(1.0),
        lambda m: opt.SGD(network().parameters()),
        "gradient",
        OptimizerError,
        "holds none of the plan's 2 penalized parameters",
    ),
    "some parameters": (
        L2(1.0),
        lambda m: opt.SGD(m[0].parameters()),
        "gradient",
        OptimizerError,
        "does not hold '2.weight'",
    ),
    "no optimizer": (
        L2(1.0),
        lambda m: m,
        "gradient",
        OptimizerError,
        "attach got Sequential; pass a torch.optim.Optimizer",
    ),
    "empty list": (L2(1.0), lambda m: [], "gradient", OptimizerError, "attach got list"),
    "weight decay": (
        L2(0.5),
        lambda m: opt.AdamW(m.parameters()),
        "decoupled",
        AppliedTwiceError,
        "by L2(0.5) of the plan, and by weight_decay=0.01 of AdamW. Set weight_decay=0",
    ),
    "weight decay, elastic net": (
        L1(1.0) + L1L2(0.1, 0.1),
        lambda m: opt.SGD(m.parameters(), weight_decay=0.1),
        "proximal",
        AppliedTwiceError,
        "weight_decay=0.1 of SGD",
    ),
    "groups that overlap": (
        GroupLasso(1.0) + GroupLasso(1.0, groups="inputs"),
        lambda m: opt.Adam(m.parameters()),
        "proximal",
        NoProximalOperatorError,
        "(on '0.weight' under Adam)",
    ),
    "prox of an unknown optimizer": (
        L1(1.0),
        lambda m: opt.Rprop(m.parameters()),
        "proximal",
        ModeError,
        "that of Rprop is not known; use one of SGD, Adam",
    ),
    "what else has zeros": (
        L1(1.0),
        lambda m: opt.Rprop(m.parameters()),
        "proximal",
        ModeError,
        'RMSprop, or mode="halfspace", which needs no step, or mode="gradient"',
    ),
    "decoupled LBFGS": (
        L1(1.0),
        lambda m: opt.LBFGS(m.parameters()),
        "decoupled",
        ModeError,
        "LBFGS has none",
    ),
    "decoupled, an optimizer of one's own": (
        L1(1.0),
        lambda m: OwnSGD(m.parameters(), {"lr": 0.1}),
        "decoupled",
        ModeError,
        "this OwnSGD: a new one could not be tried (NotImplementedError: )",
    ),
    "momentum without end": (
        L1(1.0),
        lambda m: opt.SGD(m.parameters(), momentum=1.0),
        "proximal",
        ModeError,
        "momentum=1.0 adds up gradients without end",
    ),
    "a wrapper without hooks": (
        L1(1.0),
        lambda m: Wrapper(opt.SGD(m.parameters())),
        "gradient",
        OptimizerError,
        "attach to the optimizer that it wraps",
    ),
    "a wrapper that moves weights itself": (
        L1(1.0),
        lambda m: Lookahead(opt.SGD(m.parameters())),
        "gradient",
        OptimizerError,
        "Lookahead never called Optimizer.__init__",
    ),
    "fastai's optimizer": (
        L1(1.0),
        of_fastai,
        "gradient",
        OptimizerError,
        "attach got a fastai.optimizer.Optimizer, which runs no hooks of PyTorch; make the Learner "
        "with opt_func=partial(OptimWrapper, opt=torch.optim.Adam), and attach to learn.opt.opt",
    ),
    "one of two is none": (
        L1(1.0),
        lambda m: [opt.SGD(m.parameters()), m],
        "gradient",
        OptimizerError,
        "attach got Sequential; pass",
    ),
    "differentiable": (
        L1(1.0),
        lambda m: opt.SGD(m.parameters(), differentiable=True),
        "gradient",
        OptimizerError,
        "has differentiable=True",
    ),
}


@pytest.mark.parametrize(
    ("regularizer", "make", "mode", "error", "message"), REFUSED.values(), ids=REFUSED
)
def test_refused(regularizer: Any, make: Any, mode: str, error: type, message: str) -> None:
    model = network()
    plan = regularize(model, regularizer)
    optimizer = make(model)
    with pytest.raises(error) as caught:
        plan.attach(optimizer, mode=mode)
    assert message.lower() in str(caught.value).lower()
    assert_no_hooks(*[optimizer] if isinstance(optimizer, opt.Optimizer) else [])
    plan.attach(opt.SGD(model.parameters())).detach()


def test_wrappers_that_only_pass_steps_on_are_looked_through() -> None:
    model, twin = network(), network()
    inner = opt.SGD(model.parameters(), lr=0.1)
    attachment = regularize(model, L2(0.1)).attach([PassesOn(PassesOn(inner))])
    assert attachment.optimizers == [inner]
    direct = opt.SGD(twin.parameters(), lr=0.1)
    regularize(twin, L2(0.1)).attach(direct)
    for found, expected in zip(train(model, PassesOn(inner)), train(twin, direct), strict=True):
        assert torch.equal(found, expected)
    with pytest.raises(AppliedTwiceError, match="the attachment to SGD"):
        regularize(model, L2(0.1)).attach(inner)


def test_several_optimizers_are_attached_together_or_not_at_all() -> None:
    model = network()
    parts = [opt.SGD(model[0].parameters()), opt.AdamW(model[2].parameters())]
    with pytest.raises(AppliedTwiceError, match="of AdamW"):
        regularize(model, L2(0.1)).attach(parts)
    assert_no_hooks(*parts)


def test_a_second_attach_is_refused_until_the_first_is_detached() -> None:
    model = network()
    plan = regularize(model, L2(0.1))
    first, second = opt.SGD(model.parameters()), opt.Adam(model.parameters())
    attachment = plan.attach(first)
    for optimizer in (first, second):
        with pytest.raises(AppliedTwiceError) as caught:
            plan.attach(optimizer, mode="proximal")
        assert "attachment to SGD in mode 'gradient'" in str(caught.value)
        assert "detach()" in str(caught.value)
    assert_no_hooks(second)
    assert attachment.alive
    attachment.detach()
    attachment.detach()
    assert not attachment.alive
    assert "detached" in repr(attachment)
    assert plan.attach(second, mode="proximal").mode == "proximal"


def test_detaching_a_dead_attachment_leaves_a_live_one_its_claims() -> None:
    model = network()
    plan = regularize(model, L2(0.1))
    first = plan.attach(opt.SGD(model.parameters()))
    gc.collect()
    optimizer = opt.SGD(model.parameters())
    plan.attach(optimizer)
    first.detach()
    with pytest.raises(AppliedTwiceError):
        plan.attach(optimizer)


def test_two_plans_may_share_a_parameter_but_not_a_penalty() -> None:
    model = network()
    optimizer = opt.SGD(model.parameters())
    regularize(model, L2(0.1)).attach(optimizer, mode="decoupled")
    regularize(model, L1(0.1)).attach(optimizer, mode="proximal")
    with pytest.raises(AppliedTwiceError, match=r"'0\.weight'"):
        regularize(model, {"0": L2(0.1)}).attach(optimizer)


def test_the_loss_term_beside_an_attachment() -> None:
    model = network()
    optimizer = opt.SGD(model.parameters())
    plan = regularize(model, L2(0.1))
    attachment = plan.attach(optimizer)
    plan.penalty().item()  # looking is free
    plan.breakdown()
    with pytest.raises(AppliedTwiceError, match=r"by plan.penalty\(\) in the loss"):
        (model(torch.ones(1, 6, dtype=torch.float64)).sum() + plan.penalty()).backward()
    with pytest.raises(AppliedTwiceError):  # another plan, the same penalty
        regularize(model, L2(0.1)).penalty().backward()
    attachment.detach()
    plan.penalty().backward()


def test_a_compiled_loss_term_beside_an_attachment() -> None:
    model = network()
    optimizer = opt.SGD(model.parameters())
    plan = regularize(model, L2(0.1))
    loss = torch.compile(lambda x: model(x).sum() + plan.penalty(), backend="eager", fullgraph=True)
    x = torch.ones(1, 6, dtype=torch.float64)
    loss(x).backward()
    optimizer.zero_grad()
    plan.attach(optimizer)
    optimizer.step()
    loss(x).backward()
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(AppliedTwiceError, match="in a compiled function"):
        optimizer.step()
    assert all(map(torch.equal, before, model.parameters()))


def test_an_optimizer_made_anew_leaves_no_trace() -> None:
    """As in a notebook cell that is run again."""
    model = network()
    plan = regularize(model, L2(0.1))
    for _ in range(3):
        optimizer = opt.SGD(model.parameters(), lr=0.5)
        attachment = plan.attach(optimizer)
    assert attachment.alive
    del optimizer
    gc.collect()
    assert not attachment.alive


def test_a_step_that_raises_keeps_nothing_alive() -> None:
    model = network()
    optimizer = opt.SGD(model.parameters(), lr=0.5)
    regularize(model, L2(0.1)).attach(optimizer)
    with pytest.raises(ZeroDivisionError):
        optimizer.step(lambda: 1 / 0)
    held = ref(optimizer)
    del model, optimizer
    gc.collect()
    assert held() is None


# --- life after attaching -------------------------------------------------------------------


def test_several_optimizers_share_a_plan() -> None:
    by_hand, attached = network(), network()
    plan = regularize(by_hand, L2(0.1))
    expected = train(by_hand, opt.SGD(by_hand.parameters(), lr=0.1), penalty=plan.penalty)
    parts = [opt.SGD(attached[0].parameters(), lr=0.1), opt.SGD(attached[2].parameters(), lr=0.1)]
    attachment = regularize(attached, L2(0.1)).attach(parts)
    assert "SGD and SGD" in str(attachment)
    for x, y in batches(20):
        attached.zero_grad()
        nn.functional.mse_loss(attached(x), y).backward()
        for optimizer in parts:
            optimizer.step()
    for a, b in zip(attached.parameters(), expected, strict=True):
        torch.testing.assert_close(a.detach(), b)


@pytest.mark.parametrize("mode", ["decoupled", "proximal"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_learning_rate_may_be_a_tensor(mode: str, momentum: float) -> None:
    results = []
    for lr in (0.1, torch.tensor(0.1, dtype=torch.float64)):
        model = network()
        optimizer = opt.SGD(model.parameters(), lr=lr, momentum=momentum)
        regularize(model, L1(0.01) + GroupLasso(0.02)).attach(optimizer, mode=mode)
        results.append(train(model, optimizer, 5))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_a_model_without_rules_or_penalties_has_an_empty_plan() -> None:
    model = network()
    plan = regularize(model, {})
    assert plan.penalty().item() == 0
    assert plan.breakdown() == {}
    plan.attach(opt.SGD(model.parameters())).detach()
    assert "0 of 4 parameters penalized" in str(plan)


def test_penalties_compose_with_torch_func() -> None:
    model = network()
    plan = regularize(model, L1(0.1))

    class Objective(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x).sum() + plan.penalty()

    x = torch.zeros(1, 6, dtype=torch.float64)
    parameters = {n: p.detach() for n, p in Objective().named_parameters()}
    gradient = torch.func.grad(
        lambda p: torch.func.functional_call(Objective(), p, (x,)).reshape(())
    )(parameters)
    expected = 0.1 * model[0].weight.detach().sign()
    torch.testing.assert_close(gradient["inner.0.weight"], expected)


def test_a_complex_parameter_is_refused_at_the_declaration() -> None:
    model = nn.ParameterDict({"w": nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))})
    with pytest.raises(ArrayError, match=r"'w' of dtype torch\.complex64"):
        regularize(model, L2(0.1))
    assert regularize(model, {kernels: None}).penalty().item() == 0


def test_detach_restores_the_plain_loop() -> None:
    plain, detached = network(), network()
    expected = train(plain, opt.Adam(plain.parameters()))
    optimizer = opt.Adam(detached.parameters())
    regularize(detached, L1(0.1)).attach(optimizer, mode="proximal").detach()
    assert all(map(torch.equal, train(detached, optimizer), expected))
    assert_no_hooks(optimizer)


def test_weight_decay_that_appears_later_is_noticed() -> None:
    """load_state_dict brings the param groups of the checkpoint, weight_decay included."""
    model = network()
    optimizer = opt.AdamW(model.parameters(), weight_decay=0.0)
    regularize(model, L2(0.1)).attach(optimizer)
    checkpoint = opt.AdamW(network().parameters(), weight_decay=0.3).state_dict()
    optimizer.load_state_dict(checkpoint)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(AppliedTwiceError, match=r"weight_decay=0\.3"):
        train(model, optimizer, 1)
    assert all(map(torch.equal, before, model.parameters()))


@pytest.mark.parametrize("mode", ["gradient", "decoupled", "proximal"])
def test_a_replaced_parameter_is_noticed_at_the_next_step(mode: str) -> None:
    model = network()
    optimizer = opt.SGD(model.parameters(), lr=0.1)
    plan = regularize(model, L1(0.1))
    attachment = plan.attach(optimizer, mode=mode)
    model[2].load_state_dict(copy.deepcopy(model[2].state_dict()), assign=True)
    with pytest.raises(ReplacedParameterError, match=r"'2\.weight': no longer what the optimizer"):
        train(model, optimizer, 1)
    attachment.detach()
    plan.attach(opt.SGD(model.parameters(), lr=0.1), mode=mode)


def test_freezing_and_unfreezing_is_followed() -> None:
    model = network()
    model[0].weight.requires_grad_(False)
    plan = regularize(model, L2(0.5))
    optimizer = opt.SGD(model.parameters(), lr=0.1)
    plan.attach(optimizer, mode="decoupled")
    assert list(plan.breakdown()) == ["2.weight"]
    assert plan.rows[0].regularizer is None
    assert "frozen" in plan.rows[0].note
    before = model[0].weight.detach().clone()
    optimizer.step()
    assert torch.equal(before, model[0].weight)
    model[0].weight.requires_grad_(True)
    assert plan.rows[0].regularizer == L2(0.5)
    assert list(plan.breakdown()) == ["0.weight", "2.weight"]
    optimizer.step()
    torch.testing.assert_close(model[0].weight.detach(), 0.9 * before)


def test_a_frozen_parameter_may_join_the_optimizer_when_it_is_unfrozen() -> None:
    model = network()
    model[0].requires_grad_(False)
    optimizer = opt.SGD(model[2].parameters(), lr=0.1)
    regularize(model, L2(0.5)).attach(optimizer, mode="decoupled")
    model[0].requires_grad_(True)
    before = model[0].weight.detach().clone()
    optimizer.step()  # unfrozen, but nobody steps it
    assert torch.equal(before, model[0].weight)
    optimizer.add_param_group({"params": model[0].parameters()})
    optimizer.step()
    torch.testing.assert_close(model[0].weight.detach(), 0.9 * before)


@pytest.mark.parametrize("patched_first", [False, True])
def test_a_subclass_that_calls_its_parents_step_acts_once(patched_first: bool) -> None:
    class Parent(opt.SGD):
        def step(self, closure: Any = None) -> Any:
            return super().step(closure)

    class Child(Parent):
        def step(self, closure: Any = None) -> Any:
            return super().step(closure)

    if patched_first:  # torch hooks a class when the first instance of it is made
        Parent(network().parameters())
    for closure in (False, True):
        plain, nested = network(), network()
        optimizer = opt.SGD(plain.parameters(), lr=0.1)
        regularize(plain, L2(0.1)).attach(optimizer)
        expected = train(plain, optimizer)
        optimizer = Child(nested.parameters(), lr=0.1)
        regularize(nested, L2(0.1)).attach(optimizer)
        assert all(map(torch.equal, train(nested, optimizer, closure=closure), expected))


def test_a_step_that_raised_does_not_silence_the_next() -> None:
    model = network()
    optimizer = opt.SGD(model.parameters(), lr=0.1)
    regularize(model, L2(0.5)).attach(optimizer, mode="decoupled")

    def fails() -> Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(fails)
    before = model[0].weight.detach().clone()
    optimizer.step()
    torch.testing.assert_close(model[0].weight.detach(), 0.9 * before)


def test_unfused_under_a_grad_scaler_gets_unscaled_gradients() -> None:
    expected, scaled = network(torch.float32), network(torch.float32)
    for model, scaler in ((expected, None), (scaled, torch.amp.GradScaler("cpu"))):
        optimizer = opt.SGD(model.parameters(), lr=0.1)
        regularize(model, L2(0.5)).attach(optimizer)
        loss = model(torch.ones(1, 6)).sum()
        if scaler is None:
            loss.backward()
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
    for a, b in zip(scaled.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_step_may_be_compiled() -> None:
    plain, compiled = network(), network()
    expected_optimizer = opt.SGD(plain.parameters(), lr=0.1)
    regularize(plain, L2(0.1)).attach(expected_optimizer)
    expected = train(plain, expected_optimizer, 3)
    optimizer = opt.SGD(compiled.parameters(), lr=0.1)
    regularize(compiled, L2(0.1)).attach(optimizer)
    step = torch.compile(optimizer.step, backend="eager")
    for x, y in batches(3):
        optimizer.zero_grad()
        nn.functional.mse_loss(compiled(x), y).backward()
        step()
    for a, b in zip(compiled.parameters(), expected, strict=True):
        torch.testing.assert_close(a.detach(), b)


# --- a plan that is applied nowhere ---------------------------------------------------------


def test_a_plan_that_is_never_applied_warns_once() -> None:
    model = network()
    optimizer = opt.SGD(model.parameters())
    plan = regularize(model, L2(0.1))
    with pytest.warns(NeverAppliedWarning, match=r"SGD is stepping '0\.weight', '2\.weight'"):
        train(model, optimizer, 1)
    train(model, optimizer, 1)  # a second warning would be an error here
    plan.attach(optimizer)


@pytest.mark.parametrize("closure", [False, True])
def test_an_applied_plan_does_not_warn(closure: bool) -> None:
    model = network()
    plan = regularize(model, L2(0.1))
    train(model, opt.SGD(model.parameters()), 2, plan.penalty, closure)
    other = network()
    regularize(other, L2(0.1))  # only looked at, and dropped
    regularize(network(), L2(0.1)).breakdown()
    train(other, opt.SGD(other.parameters()), 1)


def test_a_loss_term_meets_weight_decay() -> None:
    model = network()
    plan = regularize(model, L2(0.1))
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(AppliedTwiceError, match=r"weight_decay=0\.01 of AdamW"):
        train(model, opt.AdamW(model.parameters()), 1, plan.penalty)
    assert all(map(torch.equal, before, model.parameters()))


def test_weight_decay_of_a_later_optimizer_is_noticed() -> None:
    model, other = network(), network()
    plan = regularize(model, L2(0.1))
    plan.penalty().backward()
    opt.SGD(other.parameters()).step()
    with pytest.raises(AppliedTwiceError, match="of AdamW"):
        opt.AdamW(model.parameters()).step()


def test_a_loss_phase_that_is_over_accuses_no_later_optimizer() -> None:
    model = network()
    plan = regularize(model, L2(0.1))
    train(model, opt.SGD(model.parameters()), 2, plan.penalty)
    train(model, opt.AdamW(model.parameters()), 2)


def test_attaching_between_backward_and_step_is_refused() -> None:
    model = network()
    plan = regularize(model, L2(0.1))
    optimizer = opt.SGD(model.parameters())
    plan.penalty().backward()
    with pytest.raises(AppliedTwiceError, match="waiting for a step"):
        plan.attach(optimizer)
    assert_no_hooks(optimizer)
    optimizer.zero_grad()
    plan.attach(optimizer)


def test_a_new_optimizer_without_an_attachment_warns() -> None:
    model = network()
    plan = regularize(model, L2(0.1))
    first = opt.SGD(model.parameters())
    plan.attach(first)
    train(model, first, 1)
    with pytest.warns(NeverAppliedWarning, match="is not applied to it"):
        train(model, opt.SGD(model.parameters()), 1)


def test_a_deliberate_detach_does_not_warn() -> None:
    model = network()
    optimizer = opt.SGD(model.parameters())
    plan = regularize(model, L2(0.1))
    plan.attach(optimizer).detach()
    train(model, optimizer, 1)
    assert plan.applied.detached


def test_a_step_that_moves_nothing_does_not_warn() -> None:
    model = network()
    plan = regularize(model, L2(0.1))
    optimizer = opt.SGD(model.parameters())
    optimizer.zero_grad()
    optimizer.step()  # before a scheduler's first step, as its warning asks for
    plan.attach(optimizer)


def test_an_optimizer_in_a_cycle_leaves_no_trace() -> None:
    """A scheduler makes one: the old optimizer of a cell that is run again is not yet collected."""
    model = network()
    plan = regularize(model, L2(0.1))
    gc.disable()
    try:
        for _ in range(3):
            optimizer = opt.SGD(model.parameters(), lr=0.5)
            schedule = opt.lr_scheduler.StepLR(optimizer, 1)
            plan.attach(optimizer)
    finally:
        gc.enable()
    assert schedule.optimizer is optimizer


def test_another_strength_on_the_same_optimizer_is_the_same_penalty() -> None:
    model = network()
    optimizer = opt.SGD(model.parameters())
    regularize(model, L1(0.1) + GroupLasso(0.2)).attach(optimizer)
    with pytest.raises(AppliedTwiceError):
        regularize(model, L1(0.3) + GroupLasso(0.4)).attach(optimizer)
    with pytest.raises(AppliedTwiceError):  # part by part
        regularize(model, L1(0.3) + GroupLasso(0.4, groups="inputs")).attach(optimizer)
    regularize(model, GroupLasso(0.4, groups="inputs")).attach(optimizer)


def test_a_frozen_parameter_may_stand_in_a_group_that_decays() -> None:
    model = network()
    model[0].requires_grad_(False)
    head = {"params": model[2].parameters(), "weight_decay": 0}
    optimizer = opt.AdamW([{"params": model[0].parameters()}, head])
    regularize(model, L2(0.1)).attach(optimizer)
    train(model, optimizer, 1)
    model[0].requires_grad_(True)
    with pytest.raises(AppliedTwiceError, match=r"'0\.weight'.*weight_decay=0\.01"):
        train(model, optimizer, 1)


def test_a_frozen_parameter_may_join_any_of_several_optimizers() -> None:
    model = network()
    model[0].requires_grad_(False)
    parts = [opt.SGD([model[2].weight], lr=0.1), opt.SGD([model[2].bias], lr=0.1)]
    regularize(model, L2(0.5)).attach(parts, mode="decoupled")
    model[0].requires_grad_(True)
    parts[1].add_param_group({"params": model[0].parameters()})
    before = model[0].weight.detach().clone()
    parts[1].step()
    torch.testing.assert_close(model[0].weight.detach(), 0.9 * before)


# --- gradients, closures and copies ---------------------------------------------------------


def test_a_gradient_that_has_the_penalty_already_is_not_stepped_again() -> None:
    """The penalty stays in .grad, as that of a loss term does; a second one must not join it."""
    model = network()
    optimizer = opt.SGD(model.parameters(), lr=0.1)
    regularize(model, L2(0.1)).attach(optimizer)
    model(torch.ones(2, 6).double()).sum().backward()
    optimizer.step()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(OptimizerError, match=r"'0\.weight' is stepped again.*zero_grad\(\)"):
        optimizer.step()
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    optimizer.zero_grad(set_to_none=False)
    optimizer.step()


@pytest.mark.parametrize("how", ["another", "through .data"])
def test_nor_is_one_that_the_optimizer_has_changed(how: str) -> None:
    """Neither another tensor of the same version, nor a change that no version tells of."""

    class Scaling(opt.SGD):
        def step(self, closure: Any = None) -> None:
            for p in self.param_groups[0]["params"]:
                if how == "another":
                    p.grad = torch.zeros_like(p).add_(p.grad)
                else:
                    p.grad.data.mul_(0.5)
            opt.SGD.step(self)

    model = network()
    optimizer = Scaling(model.parameters(), lr=0.1)
    regularize(model, L2(0.1)).attach(optimizer)
    model(torch.ones(2, 6).double()).sum().backward()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NeverAppliedWarning)
        optimizer.step()
    with pytest.raises(OptimizerError, match=r"'0\.weight' is stepped again"):
        optimizer.step()


@pytest.mark.parametrize("mode", ["gradient", "proximal"])
def test_a_parameter_without_a_gradient_has_none_afterwards(mode: str) -> None:
    model = network()
    optimizer = opt.SGD(model.parameters(), lr=0.1)
    regularize(model, L2(0.1)).attach(optimizer, mode)
    before = model[0].weight.detach().clone()
    for _ in range(3):
        optimizer.step()
    assert not torch.equal(model[0].weight, before)
    assert all(p.grad is None for p in model.parameters())


def test_a_step_that_takes_something_else_than_a_closure() -> None:
    class Scaled(opt.SGD):
        def step(self, scale: float) -> None:  # type: ignore[override]
            assert scale == 0.5
            opt.SGD.step(self)

    model = network()
    optimizer = Scaled(model.parameters(), lr=0.1)
    regularize(model, L2(0.1)).attach(optimizer)
    before = model[0].weight.detach().clone()
    optimizer.step(0.5)
    torch.testing.assert_close(model[0].weight.detach(), before - 0.1 * 0.2 * before)


def test_a_step_that_never_calls_its_closure_is_warned_of() -> None:
    class Careless(opt.SGD):
        def step(self, closure: Any = None) -> None:
            opt.SGD.step(self)

    model = network()
    optimizer = Careless(model.parameters(), lr=0.1)
    regularize(model, L2(0.1)).attach(optimizer)
    with pytest.warns(NeverAppliedWarning, match="Careless never called its closure"):
        optimizer.step(lambda: None)


def test_detach_within_a_step() -> None:
    model = network()
    optimizer = opt.SGD(model.parameters(), lr=0.1)
    attachment = regularize(model, L2(0.1)).attach(optimizer)
    before = model[0].weight.detach().clone()
    optimizer.step(attachment.detach)
    assert torch.equal(model[0].weight, before)


def test_one_parameter_in_two_of_the_optimizers() -> None:
    model = network()
    optimizers = [opt.SGD(model.parameters(), lr=0.1) for _ in range(2)]
    with pytest.raises(OptimizerError, match=r"'0\.weight', '2\.weight' would be stepped, and pen"):
        regularize(model, L2(0.1)).attach(optimizers)


def test_a_compiled_loss_of_another_plan() -> None:
    model = network()
    optimizer = opt.SGD(model.parameters(), lr=0.1)
    regularize(model, L2(0.1)).attach(optimizer)
    other = regularize(model, L2(0.3))
    compiled = torch.compile(lambda: other.penalty(), backend="eager", fullgraph=True)
    compiled().backward()
    with pytest.raises(AppliedTwiceError, match="in a compiled function"):
        optimizer.step()


def test_parameters_can_still_be_swapped() -> None:
    """As model.to(...) does with sharded ones; PyTorch cannot if there are weak references."""
    model = network()
    optimizer = opt.SGD(model.parameters(), lr=0.1)
    regularize(model, L2(0.1)).attach(optimizer)
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model.float()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    optimizer.step()


def test_a_wrapper_whose_own_step_is_never_called() -> None:
    class Wrapper(opt.Optimizer):
        def __init__(self, inner: opt.Optimizer) -> None:
            super().__init__(inner.param_groups, {})
            self.param_groups = inner.param_groups

        def step(self, closure: Any = None) -> None:
            raise NotImplementedError

    model = network()
    inner = opt.SGD(model.parameters(), lr=0.1)
    wrapper = Wrapper(inner)
    regularize(model, L2(0.1)).attach(wrapper)
    model(torch.ones(2, 6).double()).sum().backward()
    with pytest.warns(NeverAppliedWarning, match="SGD is stepping"):
        inner.step()


@pytest.mark.parametrize("regularizer", [L1(1e-4), L2(1e-4)], ids=repr)
def test_a_proximal_step_that_half_precision_rounds_away(regularizer: Regularizer) -> None:
    model = network(torch.bfloat16)
    with pytest.warns(RoundedAwayWarning, match="mode='proximal'"):
        regularize(model, regularizer).attach(opt.SGD(model.parameters(), lr=0.01), "proximal")


def test_a_step_of_zero_over_a_denominator_of_zero() -> None:
    model = network()
    nn.init.zeros_(model[0].weight)
    optimizer = opt.Adam(model.parameters(), lr=0.0, eps=0.0)
    regularize(model, L1(0.1)).attach(optimizer, "proximal")
    optimizer.step()
    assert bounded(Step(0.0, torch.zeros(2)), torch.zeros(2), xp).tolist() == [0.0, 0.0]
