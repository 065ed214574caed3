"""Penalties on the outputs of modules: the numbers of a loss that is written by hand, each once."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import ref

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from penalize import (
    L1,
    L2,
    ActivityError,
    AppliedTwiceError,
    ArrayError,
    ConflictError,
    Elementwise,
    GroupLasso,
    GroupsError,
    ModelError,
    NeverAppliedWarning,
    NoGradientError,
    NoMatchError,
    RulesError,
    SelectorError,
    StateError,
    biases,
    everything,
    kernels,
    linear,
    named,
    of_type,
    where,
)
from penalize.torch import Plan, audit, regularize

torch.set_default_dtype(torch.float32)
X = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).double()
Y = torch.randn(6, 3, generator=torch.Generator().manual_seed(1)).double()
RELU = {of_type(nn.ReLU): L1(0.3)}


def network() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)).double()


def data_loss(out: Tensor, y: Tensor = Y) -> Tensor:
    return ((out - y) ** 2).mean()


def by_hand(model: nn.Sequential, x: Tensor = X, strength: float = 0.3) -> tuple[Tensor, Tensor]:
    """The output, and λ Σ|ReLU| / batch."""
    hidden = model[1](model[0](x))
    return model[2](hidden), strength * hidden.abs().sum() / x.shape[0]


def gradients(model: nn.Module) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


def same(first: nn.Module, second: nn.Module) -> None:
    for a, b in zip(gradients(first), gradients(second), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def weights_same(first: nn.Module, second: nn.Module) -> None:
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


# --- the numbers ----------------------------------------------------------------------------


def test_value_gradients_and_a_step_are_those_of_a_loss_by_hand() -> None:
    ours, theirs = network(), network()
    plan = regularize(ours, {kernels: L2(0.01)}, activities=RELU)
    first, second = (torch.optim.Adam(m.parameters(), lr=0.1) for m in (ours, theirs))
    for _ in range(3):
        first.zero_grad()
        second.zero_grad()
        loss = data_loss(ours(X)) + plan.penalty()
        out, term = by_hand(theirs)
        squares = sum((0.01 * (m.weight**2).sum() for m in (theirs[0], theirs[2])), torch.zeros(()))
        expected = data_loss(out) + squares + term
        torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
        loss.backward()
        expected.backward()
        same(ours, theirs)
        first.step()
        second.step()
        weights_same(ours, theirs)
    assert plan.activity_penalty().item() == 0
    assert plan.steps == 3


def test_beside_an_attachment() -> None:
    ours, theirs = network(), network()
    plan = regularize(ours, {kernels: L2(0.01)}, activities=RELU)
    first, second = (torch.optim.SGD(m.parameters(), lr=0.1) for m in (ours, theirs))
    plan.attach(first)
    (data_loss(ours(X)) + plan.activity_penalty()).backward()
    first.step()
    out, term = by_hand(theirs)
    (data_loss(out) + regularize(theirs, L2(0.01)).penalty() + term).backward()
    second.step()
    weights_same(ours, theirs)


def test_penalty_beside_an_attachment_says_what_to_write() -> None:
    model = network()
    plan = regularize(model, {kernels: L2(0.01)}, activities=RELU)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plan.attach(optimizer)
    loss = data_loss(model(X)) + plan.penalty()
    with pytest.raises(AppliedTwiceError, match=r"Write plan\.activity_penalty\(\) in the loss"):
        loss.backward()


def test_reading_uses_nothing_up() -> None:
    model = network()
    plan = regularize(model, activities=RELU)
    model(X)
    with torch.no_grad():
        logged = plan.penalty().item()
    values = [logged, plan.activity_penalty().item(), plan.penalty().item()]
    assert values == pytest.approx([by_hand_twice(model).item()] * 3, rel=1e-12)
    plan.penalty().backward()
    assert plan.penalty().item() == 0


def test_every_floating_tensor_of_an_output_counts() -> None:
    class Many(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return {"a": (x, [2 * x[:2]]), "n": torch.arange(3), "none": None}

    model = nn.Sequential(nn.Linear(4, 4).double(), Many())
    plan = regularize(model, activities={"1": L2(0.5)})
    model(X)
    x = model[0](X)
    expected = 0.5 * ((x**2).sum() / 6 + (4 * x[:2] ** 2).sum() / 2)
    torch.testing.assert_close(plan.activity_penalty(), expected)


def test_an_lstm_has_its_output_penalized_and_no_states() -> None:
    model = nn.ModuleDict({"rnn": nn.LSTM(4, 3, batch_first=True)})
    plan = regularize(model, activities={"rnn": L1(1.0)})
    out, _ = model["rnn"](X[None].float().expand(5, 6, 4))
    torch.testing.assert_close(plan.activity_penalty(), out.abs().sum() / 5)


def test_an_empty_batch_has_no_penalty() -> None:
    model = network()
    plan = regularize(model, activities=RELU)
    model(X[:0])
    assert plan.penalty().item() == 0


def test_half_precision_is_reduced_in_float32() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).to(torch.bfloat16)
    plan = regularize(model, activities=RELU)
    model(X.to(torch.bfloat16))
    assert plan.activity_penalty().dtype == torch.float32


def test_groups_by_an_axis() -> None:
    model = network()
    plan = regularize(model, activities={"1": GroupLasso(0.1, groups=1)})
    model(X)
    hidden = model[1](model[0](X))
    expected = 0.1 * (6**0.5) * hidden.norm(dim=0).sum() / 6
    model.zero_grad()
    plan.remove_activities()
    plan = regularize(model, activities={"1": GroupLasso(0.1, groups=1)})
    model(X)
    torch.testing.assert_close(plan.activity_penalty(), expected)


def test_an_output_without_a_gradient_counts_in_the_value() -> None:
    model = network()
    for p in model[0].parameters():
        p.requires_grad_(False)
    plan = regularize(model, activities=RELU)
    for _ in range(2):
        loss = data_loss(model(X)) + plan.penalty()
        torch.testing.assert_close(loss, data_loss(by_hand_out(model)) + expected_term(model))
        loss.backward()
        assert plan.penalty().item() == 0


def by_hand_out(model: nn.Sequential) -> Tensor:
    with torch.no_grad():
        return by_hand(model)[0]


def expected_term(model: nn.Sequential) -> Tensor:
    with torch.no_grad():
        return by_hand(model)[1]


def test_a_schedule_follows_the_steps_of_the_plan() -> None:
    model = network()
    plan = regularize(model, activities={of_type(nn.ReLU): L1(0.3) * linear(0.0, 1.0, 2)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    for factor in (0.0, 0.5, 1.0):
        optimizer.zero_grad()
        out = model(X)
        assert plan.penalty().item() == pytest.approx(factor * float(expected_term(model)))
        (data_loss(out) + plan.penalty()).backward()
        optimizer.step()


# --- how often ------------------------------------------------------------------------------


def test_a_shared_module_counts_at_each_call() -> None:
    torch.manual_seed(0)
    relu = nn.ReLU()
    model = nn.Sequential(nn.Linear(4, 4), relu, nn.Linear(4, 4), relu).double()
    plan = regularize(model, activities={"1": L1(0.3)})
    (row,) = plan.activities
    assert (row.name, row.aliases, row.regularizer) == ("1", ("3",), L1(0.3))
    model(X)
    first = relu.forward(model[0](X))
    second = relu.forward(model[2](first))
    expected = 0.3 * (first.sum() + second.sum()) / 6
    torch.testing.assert_close(plan.penalty(), expected)
    assert "1 = 3" in str(plan)


@pytest.mark.parametrize("attached", [False, True])
def test_accumulation_has_each_term_once(attached: bool) -> None:
    ours, theirs = network(), network()
    plan = regularize(ours, activities=RELU)
    optimizer = torch.optim.SGD(ours.parameters(), lr=0.1)
    if attached:
        plan.attach(optimizer)
    for x, y in zip(X.split(2), Y.split(2), strict=True):
        (data_loss(ours(x), y) + plan.activity_penalty()).backward()
        out, term = by_hand(theirs, x)
        (data_loss(out, y) + term).backward()
    same(ours, theirs)
    optimizer.step()


def test_one_backward_of_two_forwards() -> None:
    ours, theirs = network(), network()
    plan = regularize(ours, activities=RELU)
    (data_loss(ours(X)) - data_loss(ours(2 * X)) + plan.penalty()).backward()
    (real, first), (fake, second) = by_hand(theirs), by_hand(theirs, 2 * X)
    (data_loss(real) - data_loss(fake) + first + second).backward()
    same(ours, theirs)


def test_a_gan_trains_as_one_by_hand() -> None:
    """The generator's loss goes through the discriminator, and its terms are not of it."""
    results = []
    for with_plan in (True, False):
        critic = network()
        torch.manual_seed(5)
        generator = nn.Linear(4, 4).double()
        plan = regularize(critic, activities=RELU) if with_plan else None
        of_critic = torch.optim.SGD(critic.parameters(), lr=0.1)
        of_generator = torch.optim.SGD(generator.parameters(), lr=0.1)
        for _ in range(3):
            of_critic.zero_grad()
            fake = generator(X).detach()
            if plan is not None:
                loss = critic(fake).mean() - critic(X).mean() + plan.penalty()
            else:
                (a, first), (b, second) = by_hand(critic, fake), by_hand(critic)
                loss = a.mean() - b.mean() + first + second
            loss.backward()
            of_critic.step()
            of_generator.zero_grad()
            (-critic(generator(X)).mean()).backward()
            of_generator.step()
        results.append((critic, generator))
    for first_net, second_net in zip(*results, strict=True):
        weights_same(first_net, second_net)


def test_a_graph_that_is_kept_keeps_its_terms() -> None:
    ours, theirs = network(), network()
    plan = regularize(ours, activities=RELU)
    data_loss(ours(X)).backward(retain_graph=True)
    plan.penalty().backward()
    out, term = by_hand(theirs)
    (data_loss(out) + term).backward()
    same(ours, theirs)


def test_a_gradient_penalty_through_autograd_grad() -> None:
    ours, theirs = network(), network()
    plan = regularize(ours, activities={"2": L2(0.3)})

    def with_slope(out: Tensor, x: Tensor) -> Tensor:
        (slope,) = torch.autograd.grad(out.sum(), x, create_graph=True)
        return data_loss(out) + (slope**2).sum()

    first, second = X.clone().requires_grad_(), X.clone().requires_grad_()
    (with_slope(ours(first), first) + plan.penalty()).backward()
    out = theirs(second)
    (with_slope(out, second) + 0.3 * (out**2).sum() / 6).backward()
    same(ours, theirs)


def test_off_in_evaluation_unless_asked_for() -> None:
    model = network().eval()
    plan = regularize(model, activities=RELU)
    model(X)
    assert plan.penalty().item() == 0
    assert plan.activity_breakdown() == {}
    plan.remove_activities()
    plan = regularize(model, activities=RELU, activities_in_eval=True)
    model(X)
    torch.testing.assert_close(plan.penalty(), by_hand_twice(model))


def by_hand_twice(model: nn.Sequential) -> Tensor:
    hidden = torch.relu(nn.functional.linear(X, model[0].weight, model[0].bias))
    return 0.3 * hidden.sum() / 6


def test_off_without_gradients() -> None:
    model = network()
    plan = regularize(model, activities=RELU, activities_in_eval=True)
    with torch.no_grad():
        model(X)
    with torch.inference_mode():
        model(X)
    assert plan.penalty().item() == 0


def test_a_closure_that_is_called_again() -> None:
    ours, theirs = network(), network()
    plan = regularize(ours, activities=RELU)
    first = torch.optim.LBFGS(ours.parameters(), max_iter=4)
    second = torch.optim.LBFGS(theirs.parameters(), max_iter=4)

    def closure() -> Tensor:
        first.zero_grad()
        loss = data_loss(ours(X)) + plan.penalty()
        loss.backward()
        return loss

    def closure_by_hand() -> Tensor:
        second.zero_grad()
        out, term = by_hand(theirs)
        loss = data_loss(out) + term
        loss.backward()
        return loss

    first.step(closure)
    second.step(closure_by_hand)
    weights_same(ours, theirs)


# --- forgetting -----------------------------------------------------------------------------


def test_forgetting_is_warned_of_once() -> None:
    model = network()
    plan = regularize(model, activities=RELU)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        data_loss(model(X)).backward()
        optimizer.step()

    with pytest.warns(NeverAppliedWarning) as caught:
        step()
    (message,) = [str(w.message) for w in caught]
    assert "SGD has stepped the plan's parameters" in message
    assert "the penalty on the output of '1' was in no loss" in message
    assert "+ plan.activity_penalty()" in message
    step()
    assert plan.penalty().item() == 0


def test_an_attached_plan_is_warned_of_as_well() -> None:
    model = network()
    plan = regularize(model, {kernels: L2(0.01)}, activities=RELU)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plan.attach(optimizer)
    data_loss(model(X)).backward()
    with pytest.warns(NeverAppliedWarning, match=r"plan\.activity_penalty\(\)"):
        optimizer.step()


def test_terms_of_no_backward_are_dropped_by_the_step() -> None:
    model = network()
    plan = regularize(model, activities=RELU)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    (data_loss(model(X)) + plan.penalty()).backward()
    model(X)  # its output is looked at, under no loss
    with pytest.warns(NeverAppliedWarning, match="'1' was in no loss"):
        optimizer.step()
    assert plan.penalty().item() == 0


def test_a_forgotten_penalty_of_weights_is_warned_of_first() -> None:
    model = network()
    plan = regularize(model, L2(0.01), activities=RELU)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data_loss(model(X)).backward()
    with pytest.warns(NeverAppliedWarning, match=r"Call plan\.attach") as caught:
        optimizer.step()
    assert len(caught) == 1
    assert plan.activity_penalty().item() == 0


def test_a_module_that_is_never_called_is_warned_of() -> None:
    """Attention reads the weights of its projection, and does not call it."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(4, 2)})
    plan = regularize(model, activities={"attention.out_proj": L1(0.1), "attention": L1(0.1)})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = X.float()

    def step() -> None:
        (model["attention"](x, x, x)[0].sum() + plan.penalty()).backward()
        optimizer.step()

    with pytest.warns(NeverAppliedWarning, match=r"no forward has called 'attention.out_proj'"):
        step()
    step()


def test_another_model_is_none_of_its_business() -> None:
    model, other = network(), network()
    plan = regularize(model, activities=RELU)
    model(X)
    data_loss(other(X)).backward()
    torch.optim.SGD(other.parameters(), lr=0.1).step()
    torch.testing.assert_close(plan.penalty(), by_hand_twice(model))


# --- checkpointing --------------------------------------------------------------------------


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.inner = network()
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)  # type: ignore[no-any-return]


def test_checkpointing_computes_again_and_counts_once() -> None:
    ours, theirs = Checkpointed(False), network()
    plan = regularize(ours, activities={"inner.0": L2(0.2), "inner.1": L1(0.3)})
    for _ in range(2):
        (data_loss(ours(X)) + plan.penalty()).backward()
        out, term = by_hand(theirs)
        (data_loss(out) + term + 0.2 * (theirs[0](X) ** 2).sum() / 6).backward()
    same(ours, theirs)
    assert plan.penalty().item() == 0


def test_reentrant_checkpointing_is_refused() -> None:
    model = Checkpointed(True)
    plan = regularize(model, activities={"inner.1": L1(0.3)})
    x = X.clone().requires_grad_()
    loss = data_loss(model(x)) + plan.penalty()
    assert plan.penalty().item() == 0  # which would be silent
    with pytest.raises(ActivityError, match="use_reentrant=False") as caught:
        loss.backward()
    assert "'inner.1', whose output is penalized, ran without gradients" in str(caught.value)


# --- torch.compile --------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_model_has_the_same_numbers(backend: str) -> None:
    torch._dynamo.reset()
    ours, theirs = network(), network()
    plan = regularize(ours, {kernels: L2(0.01)}, activities=RELU)
    compiled = torch.compile(ours, backend=backend, fullgraph=True)
    first, second = (torch.optim.SGD(m.parameters(), lr=0.1) for m in (ours, theirs))
    for _ in range(3):
        first.zero_grad()
        second.zero_grad()
        loss = data_loss(compiled(X)) + data_loss(compiled(2 * X)) + plan.penalty()
        loss.backward()
        (a, s), (b, t) = by_hand(theirs), by_hand(theirs, 2 * X)
        weights = regularize(theirs, L2(0.01)).penalty()
        expected = data_loss(a) + data_loss(b) + weights + s + t
        expected.backward()
        torch.testing.assert_close(loss, expected)
        same(ours, theirs)
        assert plan.activity_penalty().item() == 0
        first.step()
        second.step()
    assert plan.activity_breakdown()["1"] > 0


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_loss_that_is_compiled_has_the_same_numbers(backend: str) -> None:
    torch._dynamo.reset()
    ours, theirs = network(), network()
    plan = regularize(ours, activities={of_type(nn.ReLU): L1(0.3) * linear(0.0, 1.0, 2)})
    first, second = (torch.optim.SGD(m.parameters(), lr=0.1) for m in (ours, theirs))

    @torch.compile(backend=backend, fullgraph=True)
    def loss_of(x: Tensor) -> Tensor:
        return data_loss(ours(x)) + plan.penalty()

    for factor in (0.0, 0.5, 1.0):
        first.zero_grad()
        second.zero_grad()
        for x in (X, 2 * X):
            loss_of(x).backward()
            out, term = by_hand(theirs, x, 0.3 * factor)
            (data_loss(out) + term).backward()
        for a, b in zip(gradients(ours), gradients(theirs), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)  # traced steps are float32
        first.step()
        second.step()


def test_a_compiled_model_is_traced_again_when_the_penalties_end() -> None:
    torch._dynamo.reset()
    model = network()
    plan = regularize(model, activities=RELU)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    compiled(X)
    plan.remove_activities()
    compiled(X)
    assert plan.penalty().item() == 0


def test_a_model_that_was_compiled_before_is_warned_of() -> None:
    torch._dynamo.reset()
    model = network()
    compiled = torch.compile(model, backend="eager")
    compiled(X)
    plan = regularize(model, activities=RELU)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    (data_loss(compiled(X)) + plan.penalty()).backward()
    with pytest.warns(NeverAppliedWarning, match="compiled and run before is not traced again"):
        optimizer.step()


def test_checkpointing_in_a_compiled_model() -> None:
    torch._dynamo.reset()
    ours, theirs = Checkpointed(False), network()
    plan = regularize(ours, activities={"inner.1": L1(0.3)})
    compiled = torch.compile(ours, backend="aot_eager")
    (data_loss(compiled(X)) + plan.penalty()).backward()
    out, term = by_hand(theirs)
    (data_loss(out) + term).backward()
    same(ours, theirs)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # the compiler's own
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_checkpointing_around_a_compiled_part(backend: str) -> None:
    torch._dynamo.reset()
    ours, theirs = Checkpointed(False), network()
    plan = regularize(ours, activities={"inner.0": L2(0.2), "inner.1": L1(0.3)})
    ours.inner.compile(backend=backend)
    for x in (X, 2 * X):
        (data_loss(ours(x)) + plan.penalty()).backward()
        assert plan.penalty().item() == 0
        out, term = by_hand(theirs, x)
        (data_loss(out) + term + 0.2 * (theirs[0](x) ** 2).sum() / 6).backward()
    same(ours, theirs)


# --- copies ---------------------------------------------------------------------------------


def through_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def through_save(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, through_pickle, through_save])
def test_a_copy_of_the_model_writes_nothing(copied: Callable[[Any], Any]) -> None:
    model = network()
    plan = regularize(model, activities=RELU)
    other = copied(model)
    data_loss(other(X)).backward()
    torch.optim.SGD(other.parameters(), lr=0.1).step()
    assert plan.penalty().item() == 0
    again = regularize(other, activities=RELU)
    other(X)
    torch.testing.assert_close(again.penalty(), by_hand_twice(other))
    assert plan.penalty().item() == 0


@pytest.mark.parametrize("copied", [copy.deepcopy, through_pickle])
@pytest.mark.parametrize("inside", [False, True])
def test_a_copy_of_the_plan_is_that_of_the_copied_model(
    copied: Callable[[Any], Any], inside: bool
) -> None:
    model: Any = network()
    plan = regularize(model, activities=RELU)
    model(X)
    if inside:
        model.plan = plan
        other = copied(model).plan
    else:
        other = copied(plan)
    assert other.activities == plan.activities
    assert other.penalty().item() == 0
    other.model(2 * X)
    torch.testing.assert_close(plan.penalty(), by_hand_twice(model))
    other_term = 0.3 * torch.relu(model[0](2 * X)).sum() / 6
    torch.testing.assert_close(other.penalty(), other_term)


def test_a_shallow_copy_is_a_second_plan() -> None:
    model = network()
    plan = regularize(model, activities=RELU)
    other = copy.copy(plan)
    model(X)
    torch.testing.assert_close(plan.penalty(), other.penalty())
    del other
    gc.collect()
    assert len(model[1]._forward_hooks) == 1


def test_hooks_go_with_the_plan() -> None:
    model: Any = network()
    plan = regularize(model, activities=RELU)
    model.plan = plan  # a cycle
    (data_loss(model(X)) + plan.penalty()).backward()
    assert len(model[1]._forward_hooks) == 1
    gone = ref(plan)
    del model.plan, plan
    gc.collect()
    assert gone() is None
    assert len(model[1]._forward_hooks) == 0


def test_a_forward_whose_loss_is_dropped_leaves_nothing_alive() -> None:
    model: Any = network()
    plan = regularize(model, activities=RELU)
    model(X)
    (term,) = plan._activities.waiting()
    gone = ref(term), ref(term.value)
    model.plan = plan
    del plan, model, term
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


def test_they_can_be_ended() -> None:
    model = network()
    plan = regularize(model, activities=RELU)
    model(X)
    plan.remove_activities()
    model(X)
    assert plan.penalty().item() == 0
    assert plan.activities == ()
    assert len(model[1]._forward_hooks) == 0
    assert "output of" not in str(plan)


# --- which modules --------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = network()
        self.head = nn.Sequential(nn.Linear(3, 3), nn.ReLU()).double()
        self.parts = nn.ModuleList([nn.Linear(3, 3).double()])

    def forward(self, x: Tensor) -> Tensor:
        out = self.parts[0](self.head(self.encoder(x)))
        assert isinstance(out, Tensor)
        return out


class Selected(NamedTuple):
    rules: Any
    names: list[str]


@pytest.mark.parametrize(
    "case",
    [
        Selected({of_type(nn.ReLU): L1(1.0)}, ["encoder.1", "head.1"]),
        Selected({"encoder": L1(1.0)}, ["encoder"]),
        Selected({"encoder/1": L1(1.0)}, ["encoder.1"]),
        Selected({"*.1": L1(1.0)}, ["encoder.1", "head.1"]),
        Selected({"**": L1(1.0), of_type(nn.Linear): None, "encoder": None, "head": None},
                 ["encoder.1", "head.1"]),
        Selected({of_type(nn.ReLU) & "head.*": L1(1.0)}, ["head.1"]),
        Selected({of_type(nn.ReLU) & ~named("head.1"): L1(1.0)}, ["encoder.1"]),
        Selected({named("parts.0") | "head.0": L1(1.0)}, ["head.0", "parts.0"]),
        Selected({of_type(Net): L1(1.0)}, ["Net"]),
        Selected([("head.1", L1(1.0)), (of_type(nn.ReLU), None)], []),
        Selected([("head.*", L1(1.0)), ("head.0", L2(1.0))], ["head.0", "head.1"]),
    ],
)  # fmt: skip
def test_selectors_mean_the_modules_themselves(case: Selected) -> None:
    plan = regularize(Net(), activities=case.rules)
    assert [row.name for row in plan.activities] == case.names


def test_wrappers_are_looked_through() -> None:
    model = torch.optim.swa_utils.AveragedModel(torch.compile(network(), backend="eager"))
    plan = regularize(model, activities={"1": L1(1.0)})
    assert [row.name for row in plan.activities] == ["1"]
    inner = nn.Sequential(torch.compile(nn.Linear(4, 4).double(), backend="eager"))
    plan = regularize(inner, activities={"0": L1(1.0)})
    inner(X)
    assert plan.penalty().item() == pytest.approx(inner(X).abs().sum().item() / 6)


@pytest.mark.parametrize(
    ("rules", "error", "message"),
    [
        (L1(0.1), RulesError, r"is L1\(0.1\), for no module.*Name the modules: activities={of_ty"),
        (0.1, RulesError, "activities is 0.1, a float; expected a mapping or list of pairs from"),
        ("encoder", RulesError, "activities is 'encoder', a str"),
        ([L1(0.1)], RulesError, r"A row of activities is L1\(0.1\), a L1"),
        ({"encoder": 0.1}, RulesError, "The activity of 'encoder' is 0.1, a float"),
        ({nn.ReLU: L1(0.1)}, SelectorError, r"write of_type\(ReLU\)"),
        ({kernels: L1(0.1)}, SelectorError, "kernels selects parameters, and activities= takes mo"),
        ({"head" & biases: L1(0.1)}, SelectorError, "biases selects parameters"),
        ({everything: L1(0.1)}, SelectorError, "everything selects parameters"),
        ({where(lambda p: True): L1(0.1)}, SelectorError, r"where\(.*selects parameters"),
        ({"encoder.7": L1(0.1)}, NoMatchError, "matches no module. The nearest modules are 'encod"),
        ({"zzzz": L1(0.1)}, NoMatchError, "The modules are 'encoder', 'encoder.0'"),
        ({"*": L1(0.1), "parts": L1(0.1)}, NoMatchError, "It is a ModuleList, which is never call"),
        ({of_type(nn.GELU): L1(0.1)}, NoMatchError, "types of modules are Linear, Net, ReLU, Sequ"),
        ({of_type(nn.ReLU) & "head": L1(0.1)}, NoMatchError, "no module matches them all"),
        ({~of_type(nn.Module): L1(0.1)}, NoMatchError, "The modules are 'encoder'"),
        ({"head": GroupLasso(0.1)}, GroupsError, "on 'head': no single axis holds.*name an axis"),
    ],
)
def test_malformed_rules_are_refused(rules: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        regularize(Net(), activities=rules)


def test_where_they_were_declared_is_said() -> None:
    with pytest.raises(NoMatchError, match=r"\(in activity 'zz' \(test_activities.py:\d+\)\)"):
        regularize(Net(), activities={"zz": L1(0.1)})


def test_two_rows_that_disagree_on_a_shared_module() -> None:
    relu = nn.ReLU()
    model = nn.Sequential(nn.Linear(4, 4), relu, nn.Linear(4, 4), relu)
    with pytest.raises(ConflictError, match="'1' and '3' are one shared module, and two"):
        regularize(model, activities={"1": L1(0.1), "3": L1(0.2)})
    (row,) = regularize(model, activities={"1": L1(0.1), "3": L1(0.1)}).activities
    assert row.aliases == ("3",)
    (row,) = regularize(model, activities={"1": L1(0.1), of_type(nn.ReLU): L2(1.0)}).activities
    assert row.regularizer == L2(1.0)


class Counting(Elementwise):
    differentiable = False
    strengths = ()

    def _value(self, w: Any, xp: Any) -> Any:
        return xp.sum(w != 0)


def test_what_has_no_gradient_is_refused() -> None:
    with pytest.raises(NoGradientError, match=r"the output of 'head'.*needs a regularizer that h"):
        regularize(Net(), activities={"head": Counting()})


def test_a_scripted_module_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripting is deprecated
        scripted = torch.jit.script(nn.ReLU())
    model = nn.Sequential(nn.Linear(4, 4), scripted)
    with pytest.raises(ModelError, match="'1' was scripted or traced, so no hook"):
        regularize(model, activities={"1": L1(0.1)})


def test_a_refusal_leaves_no_hook() -> None:
    model = network()
    with pytest.raises(GroupsError):
        regularize(model, activities={"1": L1(0.1), "2": GroupLasso(0.1)})
    assert not any(m._forward_hooks for m in model.modules())


# --- outputs that cannot be penalized -------------------------------------------------------


class Returns(nn.Module):
    def __init__(self, what: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(4))
        self.what = what

    def forward(self, x: Tensor) -> Any:
        return self.what(self.w * x)


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        (lambda x: x.sum(), ActivityError, "'Returns' returned a tensor without axes, and"),
        (lambda x: [x, x.mean()], ActivityError, "divided by its batch, the first axis; name"),
        (lambda x: None, ActivityError, "returned no floating-point tensor.*it is a NoneType"),
        (lambda x: (x > 0,), ActivityError, "looked for in tuples, lists and dicts"),
        (lambda x: torch.complex(x, x), ArrayError, "complex"),
    ],
)
def test_outputs_that_cannot_be_penalized(
    what: Callable[[Tensor], Any], error: type[Exception], message: str
) -> None:
    model = Returns(what)
    plan = regularize(model, activities={of_type(Returns): L1(0.1)})
    with pytest.raises(error, match=message):
        model(X)
    assert len(plan.activities) == 1


def test_replicas_are_refused() -> None:
    model = network()
    plan = regularize(model, activities=RELU)
    replica = model[1]._replicate_for_data_parallel()
    with pytest.raises(ActivityError, match=r"nn\.DataParallel calls its replicas"):
        replica(X)
    assert plan.penalty().item() == 0


# --- what is shown and saved ----------------------------------------------------------------


def test_the_plan_shows_them() -> None:
    model = Net()
    plan = regularize(model, L2(0.1), activities={"encoder.1": L1(0.3), "head": L2(1.0)})
    before = str(plan).split("\n\n")[1].splitlines()
    assert before[0].split("  ")[0] == "output of"
    assert "last penalty" not in before[0]
    model.head.eval()
    model(X)
    table = str(plan).split("\n\n")[1].splitlines()
    value = plan.activity_breakdown()["encoder.1"]
    assert table[2].split()[:3] == ["encoder.1", "L1(0.3)", f"{value:.4g}"]
    assert "activity 'encoder.1' (test_activities.py:" in table[2]
    assert "head" not in plan.activity_breakdown()
    assert set(plan.breakdown()) == {row.name for row in plan.rows if row.regularizer}
    assert "output of" not in str(regularize(model, L2(0.1)))


def test_a_state_of_other_activities_is_refused() -> None:
    def plan_of(activities: Any) -> tuple[nn.Module, Plan]:
        model = Net()
        return model, regularize(model, L2(0.1), activities=activities)

    _, plan = plan_of({"head": L1(0.3)})
    state = plan.state_dict()
    plan.load_state_dict(state)
    for rules, message in (
        ({"head": L1(0.4)}, "the output of 'head' has .*0.3.* there and .*0.4.* here"),
        (None, "the output of 'head' is penalized there only"),
        ({"head": L1(0.3), "encoder": L1(0.3)}, "the output of 'encoder' is penalized here only"),
    ):
        model, other = plan_of(rules)
        with pytest.raises(StateError, match=message):
            other.load_state_dict(state)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        attached = other.attach(optimizer)
        if rules is not None:
            assert attached.state_dict()["activities"] == other.state_dict()["activities"]
    with pytest.raises(StateError, match="its activities are no mapping"):
        plan.load_state_dict({**state, "activities": 3})


def test_an_audit_measures_the_weights_beside_them() -> None:
    model = network()
    plan = regularize(model, L2(0.1), activities=RELU)
    report = audit(lambda: data_loss(model(X)) + plan.penalty(), plan)
    assert [row.factor for row in report.rows[:2]] == [pytest.approx(1.0)] * 2
    assert plan.activity_penalty().item() == 0
