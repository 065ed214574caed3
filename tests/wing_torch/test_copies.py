"""Copies and pickles of what holds an attachment: a dead one is in them, with its state."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.optim as opt
from torch import nn

from penalize import L1, L2, LostAttachmentError, OptimizerError, toward, warmup
from penalize.torch import regularize


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()


def through_a_pickle(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


class Estimator:
    """What holds model, optimizer and attachment, as trainers do."""

    def __init__(self, mode: str) -> None:
        self.model = network()
        self.optimizer = opt.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        rules = {"0": L1(0.1) * warmup(4), "2": toward("start", L2(0.1))}
        self.attachment = regularize(self.model, rules).attach(self.optimizer, mode)

    def train(self, steps: int) -> None:
        for _ in range(steps):
            self.optimizer.zero_grad()
            self.model(torch.ones(3, 4).double()).square().sum().backward()
            self.optimizer.step()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, through_a_pickle])
@pytest.mark.parametrize("mode", ["gradient", "halfspace"])
def test_an_object_that_holds_an_attachment_is_copied_with_a_dead_one(
    copied: Any, mode: str
) -> None:
    whole = Estimator(mode)
    whole.train(2)
    again = Estimator.__new__(Estimator)
    vars(again).update(copied(vars(whole)))
    if copied is copy.copy:  # which copies nothing within
        assert again.attachment is whole.attachment
        again.attachment = copy.copy(whole.attachment)
    dead = again.attachment
    assert torch.equal(again.model[0].weight, whole.model[0].weight)
    assert (dead.alive, dead.mode, dead.optimizers, dead.penalty) == (False, mode, [], None)
    assert dead.steps == [2]
    dead.detach()
    assert repr(dead) == f"<CopiedAttachment: SGD, mode={mode!r}, acts nowhere>"
    with pytest.raises(OptimizerError, match=r"A copy of the attachment to SGD in mode .* was to "):
        dead.load_state_dict(whole.attachment.state_dict())
    assert whole.attachment.alive
    if copied is not copy.copy:
        _goes_on(again, whole, mode)


def _goes_on(again: Estimator, whole: Estimator, mode: str) -> None:
    """As soon as it is attached to, from where the copy was made."""
    with pytest.raises(LostAttachmentError, match="This SGD is a copy of one"):
        again.train(1)
    rules = {"0": L1(0.1) * warmup(4), "2": toward("start", L2(0.1))}
    copied = copy.deepcopy(through_a_pickle(again.attachment))  # as often as one likes
    attachment = regularize(again.model, rules).attach(again.optimizer, mode)
    attachment.load_state_dict(copied.state_dict())
    again.train(3)
    whole.train(3)
    for mine, its in zip(again.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(mine, its)


def test_where_a_copy_arrives_lost_attachments_are_looked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such as in a process of its own, in which no plan was made yet."""
    model = network()
    attachment = regularize(model, L2(0.1)).attach(opt.SGD(model.parameters()))
    watched = []
    monkeypatch.setattr("penalize.torch.doors.watch", lambda: watched.append(True))
    through_a_pickle(attachment)
    assert watched == [True]
