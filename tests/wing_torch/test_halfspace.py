"""``mode="halfspace"`` in PyTorch: zeros on mini-batches, and every way in which a step can go.

That it is the rule under every optimizer is measured in ``test_optimizers.py``.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from optimizers.written_out import Lion
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Lasso
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import LBFGS, SGD, Adam, Optimizer

from penalize import (
    L1,
    L2,
    GroupLasso,
    ModeError,
    NeverAppliedWarning,
    NoKinkError,
    Regularizer,
    RoundedAwayWarning,
    StateError,
    kernels,
    warmup,
)
from penalize.torch import regularize

X, Y = load_diabetes(return_X_y=True)
X = (X - X.mean(0)) / X.std(0)
Y = (Y - Y.mean()) / Y.std()
STRENGTH = 0.1
LASSO = Lasso(alpha=STRENGTH, fit_intercept=False, tol=1e-14, max_iter=10**5).fit(X, Y).coef_


MAKE: dict[str, Callable[[Any], Optimizer]] = {
    "SGD": lambda p: SGD(p, 0.05),
    "momentum": lambda p: SGD(p, 0.01, momentum=0.9),
    "Adam": lambda p: Adam(p, 0.01),
    "Lion": lambda p: Lion(p, 0.003),
}


def on_batches(name: str, steps: int, **how: Any) -> tuple[float, np.ndarray]:
    """The share of the last steps with the zeros of scikit-learn, and the coefficients."""
    w = nn.Parameter(torch.zeros(10, dtype=torch.float64))
    model = nn.Module()
    model.w = w
    optimizer = MAKE[name]([w])
    regularize(model, {"w": L1(STRENGTH)}).attach(optimizer, **how)
    x, y = torch.tensor(X), torch.tensor(Y)
    rate, random = optimizer.param_groups[0]["lr"], torch.Generator().manual_seed(0)
    batches = torch.randint(0, len(X), (steps, 64), generator=random)
    right = 0
    for step, i in enumerate(batches):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        w.grad = (x[i] @ w.detach() - y[i]) @ x[i] / 64
        optimizer.step()
        if step >= steps - 200:
            right += np.array_equal(w.detach().numpy() == 0, LASSO == 0)
    return right / 200, w.detach().numpy()


@pytest.mark.parametrize("name", ["momentum", "Lion"])
def test_the_right_zeros_on_mini_batches(name: str) -> None:
    """All in the last steps; a proximal step on the same batches has them now and then."""
    right, w = on_batches(name, 900, mode="halfspace", average=0.99)
    assert right > 0.95
    np.testing.assert_allclose(w, LASSO, atol=0.02)
    if name == "momentum":
        naive, _ = on_batches(name, 900, mode="proximal")
        assert naive < 0.6
        held, w = on_batches(name, 900, mode="proximal", average=0.99)
        assert held > 0.95
        np.testing.assert_allclose(w, LASSO, atol=0.02)


# --- one step after another -------------------------------------------------------------------


def network(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)


PENALTY = L1(0.02) + GroupLasso(0.02)


def batch(i: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(i)).to(dtype)


def train(
    model: nn.Module,
    optimizer: Optimizer,
    steps: range = range(40),
    backward: Callable[[Tensor], Any] = Tensor.backward,
) -> Tensor:
    for i in steps:
        optimizer.zero_grad()
        backward(loss_of(model, i))
        optimizer.step()
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def loss_of(model: nn.Module, i: int) -> Tensor:
    x = batch(i)
    loss: Tensor = (model(x) - x[:, :2]).square().mean()
    return loss


def trained(
    make: Callable[[Any], Optimizer] = lambda p: SGD(p, 0.1, momentum=0.9),
    penalty: Regularizer = PENALTY,
    **how: Any,
) -> Tensor:
    model = network()
    optimizer = make(model.parameters())
    regularize(model, {kernels: penalty}).attach(optimizer, mode="halfspace", average=0.9)
    found = train(model, optimizer, **how)
    assert 0 < (found == 0).sum() < found.numel()
    return found


def test_maximizing_the_negative_is_the_same() -> None:
    found = trained(
        lambda p: SGD(p, 0.1, momentum=0.9, maximize=True), backward=lambda x: (-x).backward()
    )
    torch.testing.assert_close(found, trained())


class Twice(SGD):
    """It looks at the loss before it steps, as sharpness-aware optimizers do."""

    def step(self, closure: Any = None) -> Any:
        if closure is not None:
            closure()
        return super().step(closure)


@pytest.mark.parametrize("kind", [SGD, Twice])
def test_a_closure_that_is_evaluated_again_counts_once(kind: type[SGD]) -> None:
    model = network()
    optimizer = kind(model.parameters(), 0.1, momentum=0.9)
    regularize(model, {kernels: PENALTY}).attach(optimizer, mode="halfspace", average=0.9)
    for i in range(40):

        def closure(i: int = i) -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(model, i)
            loss.backward()
            return loss

        optimizer.step(closure)
    found = nn.utils.parameters_to_vector(model.parameters()).detach()
    torch.testing.assert_close(found, trained())


def test_accumulated_micro_batches_are_one_step() -> None:
    def in_two(loss: Tensor) -> None:
        (loss / 2).backward(retain_graph=True)
        (loss / 2).backward()

    torch.testing.assert_close(trained(backward=in_two), trained())


def test_a_penalty_in_its_warm_up_is_off() -> None:
    """At strength 0 nothing is replaced, and no sign is set back."""
    model = network()
    plain = train(model, SGD(model.parameters(), 0.1, momentum=0.9), range(5))
    model = network()
    optimizer = SGD(model.parameters(), 0.1, momentum=0.9)
    scheduled = PENALTY * (lambda step: 0.0 if step < 5 else 1.0)
    regularize(model, {kernels: scheduled}).attach(optimizer, mode="halfspace", average=0.9)
    assert torch.equal(train(model, optimizer, range(5)), plain)
    assert (train(model, optimizer, range(5, 40)) == 0).any()


@pytest.mark.parametrize("fused", [True, False])
def test_a_step_that_a_scaler_skips_is_none(fused: bool) -> None:
    def run(scale: float, bad: bool) -> Tensor:
        model = network()
        optimizer = Adam(model.parameters(), 0.02, fused=fused)
        plan = regularize(model, {kernels: PENALTY})
        plan.attach(optimizer, mode="halfspace", average=0.9)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
        for i in range(40):
            optimizer.zero_grad()
            scaler.scale(loss_of(model, i)).backward()
            scaler.step(optimizer)
            scaler.update(scale)
            if bad and i == 20:
                optimizer.zero_grad()
                scaler.scale(loss_of(model, 99) * torch.inf).backward()
                scaler.step(optimizer)
                scaler.update(scale)
        return nn.utils.parameters_to_vector(model.parameters()).detach()

    plain = run(1.0, False)
    assert 0 < (plain == 0).sum() < plain.numel()
    torch.testing.assert_close(run(1024.0, True), plain)


def test_what_is_clipped_before_is_what_is_averaged() -> None:
    def clipped(loss: Tensor, model: nn.Module) -> None:
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)

    model = network()
    optimizer = SGD(model.parameters(), 1.0)
    plan = regularize(model, {kernels: L1(0.001)})
    attachment = plan.attach(optimizer, mode="halfspace", average=0.9)
    train(model, optimizer, range(3), lambda loss: clipped(loss, model))
    for saved in attachment.state_dict()["averages"][0].values():
        assert saved["mean"].norm() < 0.01


def test_a_parameter_that_is_unfrozen_begins_anew() -> None:
    model = network()
    optimizer = SGD(model.parameters(), 0.1)
    plan = regularize(model, {kernels: PENALTY})
    attachment = plan.attach(optimizer, mode="halfspace", average=0.9)

    def masses() -> list[float]:
        (averages,) = attachment.state_dict()["averages"]
        return [round(saved["mass"], 6) for saved in averages.values()]

    train(model, optimizer, range(3))
    assert masses() == [0.271, 0.271]
    model[0].weight.requires_grad_(False)
    train(model, optimizer, range(3, 4))
    model[0].weight.requires_grad_(True)
    train(model, optimizer, range(4, 5))
    assert masses() == [0.1, 0.40951]


def test_weights_in_half_precision_have_averages_in_float32() -> None:
    model = network(dtype=torch.bfloat16)
    optimizer = SGD(model.parameters(), 0.5)
    plan = regularize(model, {kernels: L1(0.1)})
    attachment = plan.attach(optimizer, mode="halfspace")
    for i in range(3):
        optimizer.zero_grad()
        model(batch(i, torch.bfloat16)).float().square().mean().backward()
        optimizer.step()
    (averages,) = attachment.state_dict()["averages"]
    assert {saved["mean"].dtype for saved in averages.values()} == {torch.float32}
    small = SGD(network(dtype=torch.bfloat16).parameters(), 1e-6)
    model = network(dtype=torch.bfloat16)
    small = SGD(model.parameters(), 1e-6)
    with pytest.warns(RoundedAwayWarning):
        regularize(model, {kernels: L1(0.1)}).attach(small, mode="halfspace")


@pytest.mark.parametrize("mode", ["halfspace", "proximal"])
def test_going_on_from_a_file(mode: str) -> None:
    def started() -> tuple[nn.Module, Optimizer, Any]:
        model = network()
        optimizer = Adam(model.parameters(), 0.02)
        plan = regularize(model, {kernels: PENALTY})
        return model, optimizer, plan.attach(optimizer, mode=mode, average=0.95)

    model, optimizer, attachment = started()
    train(model, optimizer, range(15))
    file = io.BytesIO()
    torch.save([x.state_dict() for x in (model, optimizer, attachment)], file)
    expected = train(model, optimizer, range(15, 40))
    file.seek(0)
    model, optimizer, attachment = started()
    for x, state in zip(
        (model, optimizer, attachment), torch.load(file, weights_only=True), strict=True
    ):
        x.load_state_dict(state)
    assert attachment.state_dict()["averages"][0].keys() == {"0.weight", "2.weight"}
    found = train(model, optimizer, range(15, 40))
    assert (found == 0).any()
    assert torch.equal(found, expected)


def test_a_state_that_is_of_another_attachment() -> None:
    model = network()
    optimizer = SGD(model.parameters(), 0.1)
    plan = regularize(model, {kernels: PENALTY})
    attachment = plan.attach(optimizer, mode="halfspace", average=0.9)
    train(model, optimizer, range(2))
    state = attachment.state_dict()
    with pytest.raises(StateError, match=r"it has average=0.5, and here it is 0.9"):
        attachment.load_state_dict({**state, "average": 0.5})
    with pytest.raises(StateError, match="it has no averages for 1 optimizers"):
        attachment.load_state_dict({**state, "averages": []})
    with pytest.raises(StateError, match="its averages are no mapping"):
        attachment.load_state_dict({**state, "averages": [{"0.weight": 3}]})


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"mean": torch.zeros(2)}, r"of '2.weight' has the shape \(2,\), and \(2, 4\)"),
        ({"mean": None}, "of '2.weight' is to be a tensor of real numbers, not None"),
        ({"mean": "x"}, "is to be a tensor of real numbers, not 'x'"),
        ({"mean": torch.zeros(2, 4, dtype=torch.long)}, "is to be a tensor of real numbers"),
        ({"mass": "x"}, "of '2.weight' it has mass='x', and a finite number is expected"),
        ({"pulled": None}, "it has pulled=None"),
        ({"moved": float("nan")}, "it has moved=nan"),
    ],
)
def test_a_state_with_an_average_that_is_none(wrong: dict[str, Any], sentence: str) -> None:
    """It is said when it is loaded, and nothing is taken from it."""
    model = network()
    optimizers = [SGD(model[0].parameters(), 0.1), SGD(model[2].parameters(), 0.1)]
    plan = regularize(model, {kernels: PENALTY})
    attachment = plan.attach(optimizers, mode="halfspace", average=0.9)
    loss_of(model, 0).backward()
    for optimizer in optimizers:
        optimizer.step()
    state = attachment.state_dict()
    first, second = state["averages"]
    more = {**first["0.weight"], "mean": first["0.weight"]["mean"] + 1}
    for found, said in (
        ({"2.weight": {**second["2.weight"], **wrong}}, sentence),
        ({"3.weight": second["2.weight"]}, "an average of '3.weight', which is not stepped here"),
        ({"0.weight": more}, "an average of '0.weight', which is not stepped here"),
    ):
        averages = [{"0.weight": more}, found]
        with pytest.raises(StateError, match=said):
            attachment.load_state_dict({**state, "steps": [7, 7], "averages": averages})
        assert attachment.steps == [1, 1]
        kept = attachment.state_dict()["averages"][0]["0.weight"]["mean"]
        assert torch.equal(kept, first["0.weight"]["mean"])


def test_a_closure_that_is_never_called_changes_nothing() -> None:
    class Idle(SGD):
        def step(self, closure: Any = None) -> None:
            """Nothing."""

    model = network()
    optimizer = Idle(model.parameters(), 0.1)
    plan = regularize(model, {kernels: PENALTY})
    attachment = plan.attach(optimizer, mode="halfspace", values=True)
    with pytest.warns(NeverAppliedWarning):
        optimizer.step(lambda: loss_of(model, 0))
    assert attachment.state_dict()["averages"] == [{}]
    optimizer.zero_grad()
    loss_of(model, 0).backward()
    optimizer.step()
    assert attachment.penalty == pytest.approx(sum(plan.breakdown().values()))


def test_how_far_adams_first_step_from_a_zero_goes() -> None:
    """Its second moment has faded by then: (1 − β₁)/√(1 − β₂) rates, however little is left."""
    model = nn.ParameterList([nn.Parameter(torch.zeros(1, 1, dtype=torch.float64))])
    optimizer = Adam(model.parameters(), 0.01)
    regularize(model, {"0": L1(1.0)}).attach(optimizer, mode="halfspace", average=0.0)
    for gradient in (0.5, 1.001):
        model[0].grad = torch.full_like(model[0], gradient)
        optimizer.step()
        moved = abs(model[0].item())
        optimizer.state[model[0]]["step"].fill_(1e6)
        if gradient < 1:
            assert moved == 0
    assert moved == pytest.approx(0.01 * (1 - 0.9) / (1 - 0.999) ** 0.5, rel=1e-3)


def test_explain_tells_which_zeros_leave() -> None:
    model = network()
    optimizer = SGD(model.parameters(), 0.1)
    attachment = regularize(model, {kernels: PENALTY}).attach(optimizer, mode="halfspace")
    assert "zeros left" not in str(attachment.explain())
    train(model, optimizer, range(10))
    assert "zeros left" in str(attachment.explain())
    assert all(row.left >= 0 for row in attachment.explain() if row.left is not None)
    assert {row.path for row in attachment.explain()} == {"plain"}


# --- what is refused --------------------------------------------------------------------------


class Halved(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return w / 2


def test_what_it_cannot_do() -> None:
    def attach(penalty: Any, make: Any = lambda p: SGD(p, 0.1), **how: Any) -> Any:
        model = network()
        plan = regularize(model, penalty)
        return plan.attach(make(model.parameters()), mode="halfspace", **how)

    with pytest.raises(
        NoKinkError, match=r"on '0.weight'\) has no half-space step: it has no kink"
    ):
        attach(L2(0.1))
    attach({"0": L2(0.1), "2": L1(0.1)})  # what has none acts as in mode="gradient"
    with pytest.raises(ModeError, match="sets weights to 0 after the step of LBFGS, and its line"):
        attach(L1(0.1), LBFGS)
    with pytest.raises(ModeError, match='clip="with" adds the penalty at the end of the first'):
        attach(L1(0.1), clip="with")
    with pytest.raises(ModeError, match=r"average=1\.0; expected a number from 0"):
        attach(L1(0.1), average=1.0)
    model = network()
    parametrize.register_parametrization(model[0], "weight", Halved())
    with pytest.raises(ModeError, match="is computed from other parameters"):
        regularize(model, {kernels: L1(0.1)}).attach(SGD(model.parameters(), 0.1), mode="halfspace")
    model = network()
    plan = regularize(model, {kernels: L1(0.1) * warmup(5)})
    for mode in ("gradient", "decoupled"):
        with pytest.raises(
            ModeError, match=r"average=0\.9 tells zeros from what is not 0, and mode"
        ):
            plan.attach(SGD(model.parameters(), 0.1), mode=mode, average=0.9)
