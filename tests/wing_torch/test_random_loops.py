"""Random models, rules and loops: every update equals one that is written out by hand.

The reference knows nothing of penalize. It has the formulas of the penalties' gradients and
proximal operators, and puts them where the mode says.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call, grad
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, Adam, Optimizer

from penalize import (
    L1,
    L2,
    GroupLasso,
    NeverAppliedWarning,
    Regularizer,
    SoftOrthogonal,
    biases,
    kernels,
    named,
)
from penalize.torch import Plan, regularize

MAX_NORM = 0.4


@dataclass(frozen=True)
class Penalty:
    """l1·Σ|w| + l2·Σw² + group·Σ over rows √n‖row‖ + soft·‖wwᵀ − I‖²."""

    l1: float = 0.0
    l2: float = 0.0
    group: float = 0.0
    soft: float = 0.0

    def regularizer(self) -> Regularizer | None:
        parts = [
            kind(value)
            for kind, value in (
                (L1, self.l1),
                (L2, self.l2),
                (_by_row, self.group),
                (SoftOrthogonal, self.soft),
            )
            if value
        ]
        return sum(parts[1:], parts[0]) if parts else None

    def gradient(self, w: Tensor) -> Tensor:
        found = self.l1 * w.sign() + 2 * self.l2 * w
        if self.group:
            found = found + self.group * w.shape[1] ** 0.5 * w / w.norm(dim=1, keepdim=True)
        if self.soft:
            found = found + 4 * self.soft * (w @ w.T - torch.eye(len(w)).to(w)) @ w
        return found

    def prox(self, w: Tensor, step: float) -> Tensor:
        w, step = w / (1 + 2 * step * self.l2), step / (1 + 2 * step * self.l2)
        w = w.sign() * (w.abs() - step * self.l1).clamp(min=0)
        if self.group:
            norms = w.norm(dim=1, keepdim=True)
            threshold = step * self.group * w.shape[1] ** 0.5
            w = w * (1 - threshold / norms.clamp(min=1e-300)).clamp(min=0)
        return w


def _by_row(strength: float) -> Regularizer:
    return GroupLasso(strength, groups="outputs")


@dataclass(frozen=True)
class Case:
    widths: list[int]
    tied: bool
    rules: list[tuple[str, Penalty]]
    """Layer number, "kernels" or "biases", and what is declared for it; later rows win."""

    optimizer: str
    mode: str
    clip: str
    micro: int
    clipped: bool
    events: dict[int, str] = field(default_factory=dict)
    """Before which step something happens: a layer is frozen, unfrozen, replaced or tied to another
    one, training resumed, a step interrupted, or the penalty asked for at other weights. "autocast"
    is a step within it, the backward pass too."""

    @property
    def tolerance(self) -> dict[str, float]:
        """Autocast leaves float64 alone, so ours is then in float32; the reference never is."""
        if "autocast" in self.events.values():
            return {"rtol": 1e-4, "atol": 1e-5, "check_dtype": False}
        return {"rtol": 1e-8, "atol": 1e-11}


EVENTS = [
    *("freeze", "unfreeze", "resume", "tie", "interrupt", "functional"),
    *("replace", "autocast"),
]
strengths = st.sampled_from([0.0, 0.01, 0.1])
without_groups = st.builds(Penalty, strengths, strengths)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    widths = draw(st.lists(st.integers(1, 4), min_size=2, max_size=4))
    tied = draw(st.booleans())
    if tied:
        widths = [3] * len(widths)
    events = draw(st.dictionaries(st.integers(1, 3), st.sampled_from(EVENTS)))
    mode = draw(st.sampled_from(["gradient", "decoupled", "proximal", "loss"]))
    matrices = "autocast" in events.values() and mode != "proximal"  # a product is what it narrows
    penalties = st.builds(Penalty, strengths, strengths, strengths, st.just(float(matrices)))
    rules = [("kernels", draw(penalties)), ("biases", draw(without_groups))]
    named_layers = draw(st.sets(st.integers(0, len(widths) - 2)))
    rules += [(str(2 * layer), draw(penalties)) for layer in sorted(named_layers)]
    optimizers = ["SGD", "momentum"] if mode == "proximal" else ["SGD", "momentum", "Adam"]
    return Case(
        widths,
        tied,
        draw(st.permutations(rules)),
        draw(st.sampled_from(optimizers)),
        mode,
        draw(st.sampled_from(["with", "without"])) if mode == "gradient" else "without",
        draw(st.sampled_from([1, 2, 4])),
        draw(st.booleans()),
        events,
    )


class Penalized(nn.Module):
    """A model whose output is its penalty."""

    def __init__(self, net: nn.Module, plan: Plan) -> None:
        super().__init__()
        self.net, self.plan = net, plan

    def forward(self) -> Tensor:
        return self.plan.penalty()


class Training:
    """One model and optimizer; ``hooks`` says whether penalize acts or the formulas do."""

    def __init__(self, case: Case, by_hand: bool) -> None:
        self.case = case
        self.by_hand = by_hand
        narrow = not by_hand and "autocast" in case.events.values()
        self.dtype = torch.float32 if narrow else torch.float64
        self.replaced: set[nn.Parameter] = set()
        """What came into the model after it was planned."""

        self.begin()

    def begin(self) -> None:
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for inputs, outputs in zip(self.case.widths, self.case.widths[1:], strict=False):
            layers += [nn.Linear(inputs, outputs), nn.Tanh()]
        if self.case.tied and len(layers) > 2:
            layers[2].weight = layers[0].weight  # type: ignore[assignment]
        self.model = nn.Sequential(*layers).to(self.dtype)
        self.optimizer = self._optimizer()
        self.plan: Plan | None = None
        self.attachment = None
        if not self.by_hand:
            self.plan = regularize(self.model, self._rules())
            if self.case.mode != "loss":
                self.attachment = self.plan.attach(
                    self.optimizer, self.case.mode, clip=self.case.clip
                )

    def _optimizer(self) -> Optimizer:
        if self.case.optimizer == "Adam":
            return Adam(self.model.parameters(), lr=0.05)
        momentum = 0.8 if self.case.optimizer == "momentum" else 0.0
        return SGD(self.model.parameters(), lr=0.05, momentum=momentum)

    def _rules(self) -> list[tuple[Any, Regularizer | None]]:
        words = {"kernels": kernels, "biases": biases}
        rules = [
            (words.get(key, named(key) & kernels), penalty.regularizer())
            for key, penalty in self.case.rules
        ]
        if self.case.tied and len(self.case.widths) > 2:
            # Both names of a tied weight at once: otherwise its rules would disagree.
            rules.append((named("0.weight") | named("2.weight"), L2(0.05)))
        return rules

    def penalties(self) -> list[tuple[nn.Parameter, Penalty]]:
        found: dict[nn.Parameter, Penalty] = {}
        for name, parameter in self.model.named_parameters():
            layer, kind = name.split(".")
            keys = {"weight": {"kernels", layer}, "bias": {"biases"}}[kind]
            for key, penalty in self.case.rules:
                if key in keys:
                    found[parameter] = penalty
        if self.case.tied and len(self.case.widths) > 2:
            found[self.model[2].weight] = Penalty(l2=0.05)
        return [
            (p, penalty)
            for p, penalty in found.items()
            if p.requires_grad and p not in self.replaced
        ]

    def step(self, number: int) -> bool:
        """Whether anything was there to be stepped."""
        event = self.case.events.get(number, "")
        self._event(event, number)
        if not any(p.requires_grad for p in self.model.parameters()):
            return False
        with torch.autocast("cpu", torch.bfloat16, enabled=event == "autocast"):
            self._backward(number)
            if event == "interrupt":
                self._interrupted()
                self._backward(number)
            if self.by_hand:
                self._by_hand(self._is_early())
            else:
                self.optimizer.step()
        return True

    def _is_early(self) -> bool:
        """Whether what is clipped has the penalty in it."""
        return self.case.mode == "loss" or self.case.clip == "with"

    def _backward(self, number: int) -> None:
        self.optimizer.zero_grad()
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(8, self.case.widths[0], generator=generator).to(self.dtype)
        for part in x.chunk(self.case.micro):
            loss = self._data_loss(part)
            if self.plan is not None and self.case.mode == "loss":
                loss = loss + self.plan.penalty() / self.case.micro
            loss.backward()
        if self.by_hand and self._is_early():
            self._add_gradients()
        if self.case.clipped:
            clip_grad_norm_(self.model.parameters(), MAX_NORM)

    def _data_loss(self, part: Tensor) -> Tensor:
        """That of a part of the data; under autocast one with the gradient that it has without."""
        is_narrowed = torch.is_autocast_enabled("cpu")
        with torch.autocast("cpu", enabled=False):
            loss: Tensor = self.model(part).square().sum() / 8
            if not is_narrowed:
                return loss
            held = [p for p in self.model.parameters() if p.requires_grad]
            gradients = torch.autograd.grad(loss, held)
        return torch.stack([(p * g).sum() for p, g in zip(held, gradients, strict=True)]).sum()

    def _interrupted(self) -> None:
        """A hook after ours raises; only a decoupled penalty has moved the weights by then."""
        if self.by_hand:
            if self.case.mode == "decoupled":
                self._decay()
            return

        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        hook = self.optimizer.register_step_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            self.optimizer.step()
        hook.remove()

    @torch.no_grad()
    def _add_gradients(self) -> None:
        for p, penalty in self.penalties():
            p.grad = (0 if p.grad is None else p.grad) + penalty.gradient(p)

    @torch.no_grad()
    def _by_hand(self, early: bool) -> None:
        lr = self.optimizer.param_groups[0]["lr"]
        if self.case.mode == "gradient" and not early:
            self._add_gradients()
        if self.case.mode == "decoupled":
            self._decay()
        self.optimizer.step()
        if self.case.mode == "proximal":
            momentum = self.optimizer.param_groups[0]["momentum"]
            for p, penalty in self.penalties():
                p.copy_(penalty.prox(p, lr / (1 - momentum)))

    @torch.no_grad()
    def _decay(self) -> None:
        for p, penalty in self.penalties():
            p.sub_(self.optimizer.param_groups[0]["lr"] * penalty.gradient(p))

    def _tie(self) -> None:
        """Layers of one shape and one penalty are tied, after they were planned."""
        layers: list[Any] = [layer for layer in self.model if isinstance(layer, nn.Linear)]
        found = dict(self.penalties())
        for layer in layers[1:2]:
            first, second = layers[0].weight, layer.weight
            if first.shape == second.shape and found.get(first) == found.get(second) is not None:
                layer.weight = first

    def _at_other_weights(self) -> None:
        """The penalty is of what stands in the place of the parameters."""
        frozen = not all(p.requires_grad for p in self.model.parameters())
        if self.plan is None or self.attachment is not None or frozen:
            return
        penalized = Penalized(self.model, self.plan)
        twice = {f"net.{name}": 2 * p.detach() for name, p in self.model.named_parameters()}
        found = grad(lambda values: functional_call(penalized, values, ()))(twice)
        names = {p: f"net.{name}" for name, p in self.model.named_parameters()}
        for p, penalty in self.penalties():
            wanted = penalty.gradient(twice[names[p]])
            torch.testing.assert_close(found[names[p]], wanted, **self.case.tolerance)

    def _replace(self, number: int) -> None:
        """The first layer is another one, which the optimizer is given and no rule reaches."""
        torch.manual_seed(number)
        new = nn.Linear(*self.case.widths[:2]).to(self.dtype)
        self.model[0] = new
        self.optimizer.param_groups[0]["params"] += list(new.parameters())
        self.replaced |= set(new.parameters())

    def _event(self, event: str, number: int) -> None:
        first: Any = self.model[0]
        if event == "replace":
            self._replace(number)
        if event == "tie":
            self._tie()
        if event == "functional":
            self._at_other_weights()
        if event in ("freeze", "unfreeze"):
            first.requires_grad_(event == "unfreeze")
        if event == "resume" and not self.replaced:
            frozen = not first.weight.requires_grad
            file = io.BytesIO()
            parts = (self.model, self.optimizer, self.attachment)
            torch.save([part.state_dict() if part is not None else {} for part in parts], file)
            file.seek(0)
            states = torch.load(file, weights_only=True)
            self.begin()
            for part, state in zip(
                (self.model, self.optimizer, self.attachment), states, strict=True
            ):
                if part is not None:
                    part.load_state_dict(state)
            self.model[0].requires_grad_(not frozen)


@pytest.mark.filterwarnings("ignore:an earlier step of")  # of a decoupled one
@settings(max_examples=100, deadline=None)
@given(cases())
def test_every_update_equals_the_one_by_hand(case: Case) -> None:
    ours, by_hand = Training(case, by_hand=False), Training(case, by_hand=True)
    is_told = False  # once is enough
    for number in range(4):
        with warnings.catch_warnings(record=True) as said:
            warnings.filterwarnings("always", ".* came to the", NeverAppliedWarning)
            stepped = ours.step(number)
        by_hand.step(number)
        is_told = is_told or bool(said)
        is_new = case.events.get(number) == "replace" and stepped
        assert ours.plan is not None
        if is_new and (case.mode != "loss" or ours.plan.applied.by_loss):
            assert is_told
        for (name, found), wanted in zip(
            ours.model.named_parameters(), by_hand.model.parameters(), strict=True
        ):
            torch.testing.assert_close(
                found,
                wanted,
                **case.tolerance,
                msg=lambda text, name=name: f"{name}: {text}",
            )
