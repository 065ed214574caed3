"""Paths with penalties on outputs, schedules of the learning rate, and several inputs."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    OneCycleLR,
    ReduceLROnPlateau,
)
from wing_torch.selection.problems import X, Y, network, training

from penalize import L1, L2, AuditError, NeverAppliedWarning, PathError, ResultsError, of_type
from penalize.torch import Training, path, regularize, strength_max

quiet = partial(path, progress=False)
FOLDS = [(range(0, 40), range(40, 61))]
ACTIVE = {of_type(nn.Tanh): L1(1.0)}


def assert_same(found, model, strength, tolerance=1e-12):
    place = found.strengths.index(strength)
    for name, p in model.named_parameters():
        torch.testing.assert_close(found.weights(name)[place], p.data, rtol=0, atol=tolerance)


# --- penalties on outputs -----------------------------------------------------------------------


@pytest.mark.parametrize("rules", [L1(0.5), None])
def test_outputs_are_penalized_at_each_strength(rules):
    """As in a loop by hand, the penalties written out."""
    plan = regularize(network(), rules, activities=ACTIVE)
    settings = {"epochs": 6, "batch_size": None, "mode": "gradient"}
    optimizer = partial(torch.optim.SGD, lr=0.1)
    found = quiet(training(optimizer=optimizer, **settings), plan, [0.3, 0.02], FOLDS, warm=False)
    assert found.reason == "outputs of modules are penalized"
    for strength in (0.3, 0.02):
        model = network()
        by_hand = optimizer(model.parameters())
        for _ in range(6):
            by_hand.zero_grad()
            middle = model[1](model[0](X))
            loss = nn.functional.mse_loss(model[2](middle), Y)
            loss = loss + strength * middle.abs().sum() / len(X)
            if rules is not None:
                loss = loss + strength * 0.5 * sum(model[i].weight.abs().sum() for i in (0, 2))
            loss.backward()
            by_hand.step()
        assert_same(found, model, strength)
    assert ("%" in str(found).splitlines()[2]) == (rules is not None)


def test_the_plan_penalizes_outputs_as_before_when_the_path_is_over():
    model = network()
    plan = regularize(model, activities=ACTIVE)
    model(X)
    waiting = plan.activity_penalty().item()
    found = quiet(training(epochs=1), plan, [0.3], FOLDS)
    assert plan.activity_penalty().item() == waiting > 0
    assert len(model[1]._forward_hooks) == 1  # those of the runs are gone
    plan.activity_penalty().backward()
    at = found.plan(0.3)
    model(X)
    assert at.activity_penalty().item() == pytest.approx(0.3 * waiting, rel=1e-12)
    assert plan.activity_penalty().item() == pytest.approx(waiting, rel=1e-12)


def fit(plan, train, valid, *, outputs):
    optimizer = torch.optim.SGD(plan.model.parameters(), lr=0.1)
    plan.attach(optimizer)
    loss = nn.functional.mse_loss(plan.model(X[train]), Y[train])
    (loss + plan.activity_penalty() if outputs else loss).backward()
    optimizer.step()
    return 0.0


def test_a_function_has_to_apply_the_penalties_on_outputs_too():
    plan = regularize(network(), L1(1.0), activities=ACTIVE)
    assert quiet(partial(fit, outputs=True), plan, [0.1], FOLDS).rows
    said = r"output of 1 .*(\n.*)*plan.activity_penalty\(\) in the loss"
    with pytest.raises(AuditError, match=said), pytest.warns(NeverAppliedWarning):
        quiet(partial(fit, outputs=False), plan, [0.1], FOLDS)


def test_no_strength_is_the_largest_for_outputs():
    plan = regularize(network(), L1(1.0), activities=ACTIVE)
    with pytest.raises(
        PathError, match="no strength is known from which on all of them are 0; giv"
    ):
        quiet(training(), plan)
    with pytest.raises(PathError, match="The plan penalizes outputs"):
        strength_max(lambda: training().data_loss(plan.model), plan)


# --- schedules ----------------------------------------------------------------------------------

SCHEDULES = {
    "epoch": partial(CosineAnnealingLR, T_max=5),
    "step": partial(ExponentialLR, gamma=0.8),
}


def by_hand(strength, every, **changes):
    """A loop with a scheduler, as users write it."""
    settings = training(**changes)
    model = network()
    plan = regularize(model, L1(strength))
    optimizer = settings.optimizer(model.parameters())
    plan.attach(optimizer, mode="proximal")
    scheduler = SCHEDULES[every](optimizer)
    for epoch in range(settings.epochs):
        for rows in settings.batches(torch.arange(len(X)), epoch):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(X[rows]), Y[rows]).backward()
            optimizer.step()
            if every == "step":
                scheduler.step()
        if every == "epoch":
            scheduler.step()
    return model


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("every", SCHEDULES)
def test_a_schedule_is_that_of_a_loop_by_hand(every, stacked):
    scheduled = training(scheduler=SCHEDULES[every], scheduler_every=every)
    plan = regularize(network(), L1(1.0))
    found = quiet(scheduled, plan, [0.03, 0.01], FOLDS, stacked=stacked, warm=False)
    for strength in (0.03, 0.01):
        assert_same(found, by_hand(strength, every), strength, 1e-9)


def test_warm_runs_begin_the_schedule_anew():
    plan = regularize(network(), L1(1.0))
    rates = []

    def noted(optimizer):
        rates.append(optimizer.param_groups[0]["lr"])
        return LambdaLR(optimizer, lambda epoch: 0.5**epoch)

    warm = training(scheduler=noted)
    quiet(warm, plan, [0.03, 0.01], None, stacked=False)
    assert set(rates) == {0.02}
    assert len(rates) >= 2


def test_a_schedule_is_in_the_results_file_and_resumed(tmp_path, monkeypatch):
    """A stack that ends on its way goes on at the learning rate that it had come to."""
    from penalize.selection import walk
    from penalize.torch.selection import stacking

    monkeypatch.setattr(walk, "KEPT_EVERY", 0.0)
    plan = regularize(network(), L1(1.0))
    scheduled = training(scheduler=SCHEDULES["epoch"])
    args = scheduled, plan, [0.03, 0.01], FOLDS
    whole = quiet(*args)
    file = tmp_path / "path.sqlite"
    with monkeypatch.context() as patch:
        state, made = stacking._state, []

        def killed(*args):
            made.append(args)
            if len(made) == 3:
                raise KeyboardInterrupt
            return state(*args)

        patch.setattr(stacking, "_state", killed)
        with pytest.raises(KeyboardInterrupt):
            quiet(*args, saved=file)
    resumed = quiet(*args, saved=file)
    assert torch.equal(resumed.weights("0.weight"), whole.weights("0.weight"))
    with pytest.raises(ResultsError, match="has the results of something else"):
        quiet(training(), *args[1:], saved=file)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"scheduler": ExponentialLR(torch.optim.SGD([nn.Parameter(X[0])], lr=0.1), 0.9)},
            r"Training got the scheduler ExponentialLR, and each run needs its own; expected a fun",
        ),
        ({"scheduler": 0.9}, "Training got the scheduler float"),
        ({"scheduler": LambdaLR, "scheduler_every": "batch"}, "scheduler_every='batch'; expected"),
    ],
)
def test_what_is_no_schedule_is_refused(changes, said):
    with pytest.raises(PathError, match=said):
        training(**changes)


@pytest.mark.parametrize(
    ("scheduler", "said"),
    [
        (ReduceLROnPlateau, "makes a ReduceLROnPlateau, which goes by a loss; give one that"),
        (lambda optimizer: optimizer, "makes a Adam, which is none"),
    ],
)
def test_what_makes_no_schedule_is_refused(scheduler, said):
    with pytest.raises(PathError, match=said):
        quiet(training(scheduler=scheduler), regularize(network(), L1(1.0)), [0.1], FOLDS)


def test_a_schedule_of_momentum_and_rate_is_stacked_as_one_by_one():
    scheduler = partial(OneCycleLR, max_lr=0.05, total_steps=16)
    scheduled = training(scheduler=scheduler, scheduler_every="step")
    plan = regularize(network(), L2(1.0))
    found = [
        quiet(scheduled, plan, [0.1, 0.01], None, stacked=stacked, warm=False)
        for stacked in (True, False)
    ]
    torch.testing.assert_close(*(f.weights("0.weight") for f in found), rtol=0, atol=1e-9)


# --- several inputs -----------------------------------------------------------------------------


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right = (nn.Linear(3, 1).double() for _ in range(2))

    def forward(self, left, right):
        return self.left(left) + self.right(right).tanh()


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("named", [True, False])
def test_several_inputs_by_place_and_by_name(named, stacked):
    parts = {"right": X[:, 3:], "left": X[:, :3]} if named else (X[:, :3], X[:, 3:])
    settings = {"epochs": 5, "optimizer": partial(torch.optim.SGD, lr=0.1), "batch_size": None}
    plan = regularize(Two(), L1(1.0))
    found = quiet(
        training(x=parts, **settings), plan, [0.2, 0.02], FOLDS, stacked=stacked, warm=False
    )
    model = Two()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    regularize(model, L1(0.02)).attach(optimizer, mode="proximal")
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(X[:, :3], X[:, 3:]), Y).backward()
        optimizer.step()
    assert_same(found, model, 0.02)
    held_out = next(row for row in found.rows if row.fold == "all" and row.strength == 0.02)
    wanted = nn.functional.mse_loss(model(X[:, :3], X[:, 3:]), Y).item()
    assert held_out.loss == pytest.approx(wanted, rel=1e-9)


def test_a_grid_for_several_inputs():
    plan = regularize(Two(), L1(1.0))
    several = training(x=(X[:, :3], X[:, 3:]), epochs=1)
    assert quiet(several, plan, 2, None).strengths[0] == pytest.approx(
        strength_max(lambda: several.data_loss(plan.model), plan), rel=2e-5
    )


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (
            X.numpy(),
            r"Training got x that is no tensor, but a ndarray; use torch.as_tensor; several",
        ),
        ((X, [1.0]), r"Training got x\[1\] that is no tensor, but a list"),
        (
            {"a": X, "b": X[:5]},
            r"an x\['a'\] of shape \(61, 6\) and an x\['b'\] of shape \(5, 6\) and a y of shape",
        ),
        ((), r"Training got a y of shape \(61, 1\); expected as many samples in each"),
        ({1: X}, r"Training got an x with the keys \[1\]; name the arguments of forward"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(x, said):
    with pytest.raises(PathError, match=said):
        Training(x=x, y=Y, loss=nn.MSELoss(), optimizer=torch.optim.SGD)
