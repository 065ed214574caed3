"""``penalize doctor``: scripts as their users write them, run for a few steps and told."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from penalize import cli

SCRIPTS = Path(__file__).parent.parent / "doctor_scripts"
FUNCTIONS = torch.autograd.backward, torch.autograd.grad, torch.amp.GradScaler.scale


class Told(NamedTuple):
    code: int
    head: str
    """Of which script, and after what."""

    lines: list[str]
    """The report."""

    out: str
    err: str

    def rows(self, level: str) -> list[str]:
        return [line for line in self.lines if line.startswith(level)]


Doctor = Callable[..., Told]


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str]) -> Doctor:
    def run(script: Path, *arguments: str, steps: int | None = None) -> Told:
        before = sys.argv, list(sys.path), sys.modules["__main__"]
        options = [] if steps is None else [f"--steps={steps}"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a script's own affair
            code = cli.main(["doctor", *options, str(script), *arguments])
        assert (sys.argv, sys.path, sys.modules["__main__"]) == before
        assert (torch.autograd.backward, torch.autograd.grad, torch.amp.GradScaler.scale) == (
            FUNCTIONS
        )
        out, err = capsys.readouterr()
        own, _, report = out.partition("\npenalize doctor: ")
        head, *lines = report.splitlines() or [""]
        return Told(code, head, lines, own, err)

    return run


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "train.py"
        path.write_text(text, encoding="utf-8")
        return path

    return write


# --- three scripts, each with faults that were planted, and without -----------------------------


def test_digits_with_an_l2_beside_weight_decay(doctor: Doctor) -> None:
    told = doctor(SCRIPTS / "digits.py")
    assert told.code == 1
    by_hand, by_optimizer = sorted(told.rows("wrong"))
    for line in (by_hand, by_optimizer):
        assert "conv1.weight, conv1.bias, bn1.weight and 7 more" in line
        assert "penalized twice: also by" in line
        assert "weight_decay=0.0005 of Adam" in line
        assert "L2(0.0001) in the loss" in line
    assert told.rows("look") == []
    assert told.lines[-1] == "10 parameters have a fault"
    assert told.out.startswith("Train Epoch: 1 [0/24]")


def test_digits_without(doctor: Doctor) -> None:
    told = doctor(SCRIPTS / "digits.py", "--l2", "0")
    assert (told.code, told.rows("wrong"), told.lines[-1]) == (0, [], "nothing is wrong")
    biases, norms = told.rows("look")
    assert "conv1.bias, conv2.bias, fc1.bias and 1 more" in biases
    assert "bn1.weight, bn1.bias" in norms
    told = doctor(SCRIPTS / "digits.py", "--weight-decay", "0")
    assert (told.code, told.rows("wrong"), told.rows("look")) == (0, [], [])
    assert any("L2(0.0001) in the loss" in line for line in told.lines)
    told = doctor(SCRIPTS / "digits.py", "--weight-decay", "0", "--l2", "0")
    assert (told.code, told.lines) == (0, ["no weight decay, L1 or L2 was seen"])


def test_accumulation_under_amp(doctor: Doctor) -> None:
    told = doctor(SCRIPTS / "accumulate.py")
    assert told.code == 1
    missing, repeated = sorted(told.rows("wrong"))
    assert "encoder.gate " in missing
    assert missing.endswith(
        "no optimizer holds it, though it gets a gradient: give it to one, or freeze it"
    )
    assert "encoder.layers.0.weight, encoder.layers.3.weight" in repeated
    assert "L2(0.004) in the loss" in repeated
    assert (
        "4 times too large, unless its strength was divided by hand: added in each of 4" in repeated
    )
    assert told.lines[-1] == "4 parameters have a fault"


def test_accumulation_under_amp_that_is_right(doctor: Doctor) -> None:
    told = doctor(SCRIPTS / "accumulate.py", "--clean")
    assert (told.code, told.rows("wrong"), told.rows("look")) == (0, [], [])
    (row,) = told.rows("encoder")
    assert "L2(0.001) in the loss" in row


def test_a_gpt_that_decays_a_bias_and_forgets_its_plan(doctor: Doctor) -> None:
    told = doctor(SCRIPTS / "gpt.py")
    assert told.code == 1
    never, bias = told.rows("wrong")
    assert "transformer.wte.weight" in never
    assert "L1(1e-05) of a plan" in never
    assert never.endswith("never applied")
    assert "transformer.h.0.attn.attn_bias" in bias
    assert bias.endswith("bias: others that AdamW holds are exempt")
    assert told.lines[-1] == "3 parameters have a fault"
    assert told.rows("look") == []


def test_a_gpt_by_the_recipe(doctor: Doctor) -> None:
    told = doctor(SCRIPTS / "gpt.py", "--clean")
    assert (told.code, told.rows("wrong"), told.rows("look")) == (0, [], [])
    assert any(line.endswith("embedding; tied with lm_head.weight") for line in told.lines)
    assert "1 of 1 applied exactly once" in told.lines


def test_the_command_in_a_process_of_its_own() -> None:
    """The script's output stands as it is, before the report; the exit code says the rest."""
    command = [sys.executable, "-c", "import sys; from penalize.cli import main; sys.exit(main())"]
    done = subprocess.run(
        [*command, "doctor", "--steps=1", str(SCRIPTS / "accumulate.py"), "--penalty=0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "\npenalize doctor: accumulate.py, after 1 steps of SGD\n" in done.stdout


# --- loops --------------------------------------------------------------------------------------

SETUP = """
import sys
import torch
from torch import nn
import torch.nn.functional as F
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
x, y = torch.randn(16, 4), torch.arange(16) % 2
opt = torch.optim.SGD(model.parameters(), lr=0.1)
"""

LOOPS = {
    "a loop": """
for i in range(100):
    opt.zero_grad()
    F.cross_entropy(model(x), y).backward()
    opt.step()
print("end")
""",
    "whose errors are swallowed": """
for i in range(100):
    try:
        opt.zero_grad()
        F.cross_entropy(model(x), y).backward()
        opt.step()
    except Exception:
        print("swallowed")
print("end")
""",
    "with a closure": """
opt = torch.optim.LBFGS(model.parameters(), max_iter=5, line_search_fn="strong_wolfe")
def closure():
    opt.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    return loss
for i in range(100):
    opt.step(closure)
print("end")
""",
    "an optimizer that calls super": """
class Mine(torch.optim.Adam):
    def step(self, closure=None):
        return super().step(closure)
opt = Mine(model.parameters())
for i in range(100):
    opt.zero_grad()
    F.cross_entropy(model(x), y).backward()
    opt.step()
print("end")
""",
    "two networks against each other": """
class Net(nn.Sequential): pass
critic = Net(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
generator = Net(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4))
d, g = torch.optim.Adam(critic.parameters()), torch.optim.Adam(generator.parameters())
del opt, model
for i in range(100):
    d.zero_grad()
    fake = generator(torch.randn(16, 3))
    (critic(fake).mean() - critic(x).mean()).backward()
    d.step()
    if i % 2:
        g.zero_grad()
        (-critic(generator(torch.randn(16, 3))).mean()).backward()
        g.step()
print("end")
""",
    "a critic that is frozen in its generator's steps": """
generator = nn.Linear(3, 4)
g = torch.optim.SGD(generator.parameters(), lr=0.1)
for i in range(100):
    for step, net in ((opt, None), (g, generator)):
        model.requires_grad_(net is None)
        step.zero_grad()
        data = x if net is None else net(torch.randn(16, 3))
        nn.functional.cross_entropy(model(data), y).backward()
        step.step()
print("end")
""",
    "a gradient penalty and a checkpoint": """
from torch.utils.checkpoint import checkpoint
for i in range(100):
    opt.zero_grad()
    x.requires_grad_(True)
    h = checkpoint(model[0], x, use_reentrant=True)
    out = model[2](torch.tanh(h))
    (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    (F.cross_entropy(out, y) + ((slope.norm(dim=1) - 1) ** 2).mean()).backward()
    opt.step()
print("end")
""",
    "an optimizer for each parameter, in backward": """
opts = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}
def hook(p):
    opts[p].step()
    opts[p].zero_grad()
for p in model.parameters():
    p.register_post_accumulate_grad_hook(hook)
del opt
for i in range(100):
    F.cross_entropy(model(x), y).backward()
print("end")
""",
    "adversarial examples": """
for i in range(100):
    x.requires_grad_(True)
    x.grad = None
    F.cross_entropy(model(x), y).backward()
    moved = (x + 0.1 * x.grad.sign()).detach()
    opt.zero_grad()
    F.cross_entropy(model(moved), y).backward()
    opt.step()
print("end")
""",
    "frozen, then thawed": """
model[0].requires_grad_(False)
for i in range(100):
    if i == 1:
        model[0].requires_grad_(True)
    opt.zero_grad()
    F.cross_entropy(model(x), y).backward()
    opt.step()
print("end")
""",
    "a compiled model": """
torch._dynamo.reset()
compiled = torch.compile(model, backend="aot_eager")
for i in range(100):
    opt.zero_grad()
    F.cross_entropy(compiled(x), y).backward()
    opt.step()
print("end")
""",
    "an optimizer that was made anew": """
schedule = torch.optim.lr_scheduler.StepLR(opt, 1)  # keeps the old one
opt = torch.optim.Adam(model.parameters())
for i in range(100):
    opt.zero_grad()
    F.cross_entropy(model(x), y).backward()
    opt.step()
print("end")
""",
    "an average of the weights": """
ema = torch.optim.swa_utils.AveragedModel(model)
for i in range(100):
    opt.zero_grad()
    F.cross_entropy(model(x), y).backward()
    opt.step()
    ema.update_parameters(model)
print("end")
""",
}


@pytest.mark.parametrize("loop", LOOPS.values(), ids=LOOPS)
def test_loops_without_a_fault(loop: str, doctor: Doctor, script: Callable[[str], Path]) -> None:
    told = doctor(script(SETUP + loop))
    assert (told.code, told.lines, told.out, told.err) == (
        0,
        ["no weight decay, L1 or L2 was seen"],
        "",
        "",
    )


PENALIZED = """
class F:
    def cross_entropy(out, y):
        return nn.functional.cross_entropy(out, y) + 0.1 * model[0].weight.pow(2).sum()
"""
# A step within the backward pass comes before the pass is understood.
SEEN = [loop for loop in LOOPS.values() if "F." in loop and "post_accumulate" not in loop]


@pytest.mark.parametrize("loop", SEEN)
def test_an_l2_in_these_loops_is_found(
    loop: str, doctor: Doctor, script: Callable[[str], Path]
) -> None:
    told = doctor(script(SETUP + PENALIZED + loop))
    assert (told.code, told.err) == (0, "")
    assert told.lines[2:] == ["0.weight   L2(0.1) in the loss  1", "nothing is wrong"]


STEPS = (
    SETUP
    + """
for i in range(5):
    print(i, *sys.argv[1:])
    opt.zero_grad()
    F.cross_entropy(model(x), y).backward()
    opt.step()
"""
)


@pytest.mark.parametrize(("steps", "seen"), [(None, 3), (1, 1), (4, 4), (9, 5)])
def test_how_many_steps(
    steps: int | None, seen: int, doctor: Doctor, script: Callable[[str], Path]
) -> None:
    told = doctor(script(STEPS), "--steps", "7", "-x", steps=steps)
    assert told.out == "".join(f"{i} --steps 7 -x\n" for i in range(seen))
    assert told.code == 0


def test_a_script_finds_what_lies_beside_it(
    doctor: Doctor, script: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = script("from beside_the_script import model" + STEPS)
    path.with_name("beside_the_script.py").write_text("model = None")
    monkeypatch.chdir(path.parent.parent)
    assert doctor(path).code == 0
    sys.modules.pop("beside_the_script")


def test_a_model_that_is_gone_when_the_script_ends(
    doctor: Doctor, script: Callable[[str], Path]
) -> None:
    body = STEPS.replace("lr=0.1", "lr=0.1, weight_decay=0.1").replace("range(5)", "range(2)")
    indented = "\n".join(f"    {line}" for line in body.splitlines())
    told = doctor(script(f"def main():\n{indented}\nmain()\n"))
    assert told.code == 0
    assert any("0.weight, 2.weight" in line for line in told.lines)


def test_parameters_without_a_module(doctor: Doctor, script: Callable[[str], Path]) -> None:
    told = doctor(
        script(
            SETUP
            + """
w = torch.randn(4, requires_grad=True)
opt = torch.optim.Adam([w], weight_decay=0.1)
for i in range(9):
    opt.zero_grad()
    (((x @ w - y) ** 2).mean() + 0.1 * w.pow(2).sum()).backward()
    opt.step()
"""
        )
    )
    assert told.code == 1
    assert [" parameter 0 of Adam  " in line for line in told.rows("wrong")] == [True, True]


def test_names_in_several_models(doctor: Doctor, script: Callable[[str], Path]) -> None:
    told = doctor(
        script(
            SETUP
            + """
head = nn.Linear(2, 2)
parts = nn.ModuleList([model[0], model[2]])  # no model of its own
opt = torch.optim.SGD([*model.parameters(), *head.parameters()], lr=0.1, weight_decay=0.1)
for i in range(9):
    opt.zero_grad()
    F.cross_entropy(head(model(x)), y).backward()
    opt.step()
"""
        )
    )
    kernels, biases = sorted(line for line in told.lines if "weight_decay" in line)
    assert "Sequential.0.weight, Sequential.2.weight, Linear.weight" in kernels
    assert "Sequential.0.bias, Sequential.2.bias, Linear.bias" in biases


def test_a_plan_that_is_applied_as_it_should(doctor: Doctor, script: Callable[[str], Path]) -> None:
    for door, data in {
        "plan.attach(opt)": "F.cross_entropy(model(x), y)",
        "": "F.cross_entropy(model(x), y) + plan.penalty()",
    }.items():
        told = doctor(
            script(
                SETUP
                + "from penalize import L2\nfrom penalize.torch import regularize\n"
                + f"plan = regularize(model, L2(0.1))\n{door}\n"
                + "for i in range(9):\n    opt.zero_grad()\n"
                + f"    ({data}).backward()\n    opt.step()\n"
            )
        )
        assert (told.code, told.rows("wrong")) == (0, [])
        assert "2 of 2 applied exactly once" in told.lines


PLANNED = (
    SETUP
    + """
from penalize import L2
from penalize.torch import regularize
plan = regularize(model, L2(0.1))
"""
)


def test_a_plan_that_was_detached_is_no_fault(
    doctor: Doctor, script: Callable[[str], Path]
) -> None:
    told = doctor(script(PLANNED + "plan.attach(opt).detach()\n" + LOOPS["a loop"]))
    assert told.code == 0
    assert told.lines[2].endswith("L2(0.1) of a plan  detached")


def test_a_plan_in_a_compiled_loss_is_not_accused(
    doctor: Doctor, script: Callable[[str], Path]
) -> None:
    told = doctor(
        script(
            PLANNED
            + """
torch._dynamo.reset()
@torch.compile(backend="aot_eager")
def loss():
    return F.cross_entropy(model(x), y) + plan.penalty()
for i in range(9):
    opt.zero_grad()
    loss().backward()
    opt.step()
"""
        )
    )
    assert (told.code, told.rows("wrong")) == (0, [])


@pytest.mark.parametrize(("factor", "says"), [("0.01", "by 0.01"), ("2", "applied 2 times")])
def test_a_plan_whose_penalty_is_multiplied(
    factor: str, says: str, doctor: Doctor, script: Callable[[str], Path]
) -> None:
    told = doctor(
        script(
            SETUP
            + "from penalize import L2\nfrom penalize.torch import regularize\n"
            + "plan = regularize(model, L2(0.1))\n"
            + "for i in range(9):\n    opt.zero_grad()\n"
            + f"    (F.cross_entropy(model(x), y) + {factor} * plan.penalty()).backward()\n"
            + "    opt.step()\n"
        )
    )
    assert told.code == 1
    assert [line.endswith(says) for line in told.lines[2:4]] == [True, True]


def test_an_overflow_is_no_micro_batch(doctor: Doctor, script: Callable[[str], Path]) -> None:
    """The scaler skips the step, and the loop clears the gradient: nothing was accumulated."""
    told = doctor(
        script(
            SETUP
            + """
scaler = torch.amp.GradScaler("cpu", init_scale=1e38)
for i in range(100):
    opt.zero_grad()
    loss = 100 * F.cross_entropy(model(x), y) + 10 * model[0].weight.pow(2).sum()
    scaler.scale(loss).backward()
    scaler.step(opt)
    scaler.update()
    print(scaler.get_scale())
"""
        )
    )
    assert told.out.count("\n") > 3
    assert told.code == 0
    assert any("L2(10) in the loss" in line for line in told.lines)
    assert not any("backward passes" in line for line in told.lines)


# --- who steps what -----------------------------------------------------------------------------

WRAPPERS = {
    "SAM": """
class SAM(torch.optim.Optimizer):
    def __init__(self, params, base, **kwargs):
        super().__init__(params, kwargs)
        self.base = base(self.param_groups, **kwargs)
        self.param_groups = self.base.param_groups
    def step(self, closure):
        with torch.no_grad():
            for p in model.parameters():
                self.state[p]["old"] = p.clone()
                p.add_(0.01 * p.grad)
        self.zero_grad()
        closure()
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(self.state[p]["old"])
        self.base.step()
opt = SAM(model.parameters(), torch.optim.SGD, lr=0.1, weight_decay=0.1)
""",
    "Lookahead": """
class Lookahead(torch.optim.Optimizer):
    def __init__(self, base):
        super().__init__([dict(group) for group in base.param_groups], {})
        self.base = base
    def step(self, closure):
        return self.base.step()
opt = Lookahead(torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1))
""",
}


@pytest.mark.parametrize("wrapper", WRAPPERS.values(), ids=WRAPPERS)
def test_an_optimizer_that_wraps_another_one(
    wrapper: str, doctor: Doctor, script: Callable[[str], Path]
) -> None:
    told = doctor(
        script(
            SETUP
            + "del opt\n"
            + wrapper
            + """
def closure():
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    return loss
for i in range(9):
    opt.zero_grad()
    closure()
    opt.step(closure)
"""
        )
    )
    assert (told.code, told.rows("wrong")) == (0, [])
    assert not any("several" in line for line in told.lines)
    assert any("0.weight, 2.weight  weight_decay=0.1 of SGD" in line for line in told.lines)


def test_an_optimizer_that_starts_late_is_waited_for(
    doctor: Doctor, script: Callable[[str], Path]
) -> None:
    text = """
G = nn.Linear(3, 4)
g = torch.optim.SGD([G.weight], lr=0.1)
for i in range(100):
    opt.zero_grad()
    model(G(torch.randn(16, 3)).detach()).mean().backward()
    opt.step()
    if i % 5 == 4 and {trains}:
        g.zero_grad()
        model(G(torch.randn(16, 3))).mean().backward()
        g.step()
        print("generator")
"""
    told = doctor(script(SETUP + text.format(trains=True)))
    assert told.out == "generator\n" * 2  # the third ended it
    assert (told.code, len(told.rows("wrong"))) == (1, 1)
    assert " Linear.bias  no optimizer holds it" in told.rows("wrong")[0]
    told = doctor(script(SETUP + text.format(trains=False)))
    assert (told.code, told.head) == (0, "train.py, after 16 steps of SGD 1, none of SGD 2")


def test_a_model_that_was_forgotten(doctor: Doctor, script: Callable[[str], Path]) -> None:
    told = doctor(
        script(
            SETUP
            + """
class Decoder(nn.Linear): pass
decoder, frozen = Decoder(2, 4), Decoder(4, 4).requires_grad_(False)
for i in range(9):
    opt.zero_grad()
    (frozen(decoder(model(x))) - x).pow(2).mean().backward()
    opt.step()
"""
        )
    )
    assert (told.code, told.rows("wrong")) == (0, [])
    (row,) = told.rows("look")
    assert row.split()[1] == "Decoder"
    assert row.endswith(
        " gets gradients, and no optimizer holds any of it: give it to one, or freeze it"
    )


def test_what_is_frozen_is_no_habit(doctor: Doctor, script: Callable[[str], Path]) -> None:
    told = doctor(
        script(
            SETUP
            + """
model[0].requires_grad_(False)
body, head = model[0], model[2]
opt = torch.optim.AdamW([
    {"params": body.parameters()},
    {"params": [head.weight], "weight_decay": 0.1},
    {"params": [head.bias], "weight_decay": 0.0},
])
"""
            + LOOPS["a loop"]
        )
    )
    assert (told.code, told.rows("wrong"), told.rows("look")) == (0, [], [])
    assert any("bias; no gradient came" in line for line in told.lines)


MICRO = """
for i in range(40):
    data, l2 = {data}, sum(p.pow(2).sum() for p in model.parameters() if p.ndim > 1)
    ({loss}).backward()
    if i % 4 == 3:
        opt.step()
        opt.zero_grad()
"""
MEAN = "F.cross_entropy(model(x), y)"


@pytest.mark.parametrize(
    ("data", "loss", "level"),
    [
        (MEAN, "data / 4 + 1e-3 * l2", "wrong"),
        (MEAN, "data / 4 + 1e-3 * l2 / 4", "look"),
        (MEAN, "data / 4 + 1e-3 / 4 * l2", "look"),
        (MEAN, "(data + 1e-3 * l2) / 4", ""),
        (MEAN, "data + 1e-3 * l2", ""),
        ("F.cross_entropy(model(x), y, reduction='none').sum() / 64", "data + 1e-3 * l2", "look"),
        ("F.cross_entropy(model(x), y, reduction='sum') / 64", "data + 1e-3 * l2", "look"),
    ],
)
def test_a_strength_that_may_be_divided_by_hand(
    data: str, loss: str, level: str, doctor: Doctor, script: Callable[[str], Path]
) -> None:
    told = doctor(script(SETUP + MICRO.format(data=data, loss=loss)))
    assert told.code == (level == "wrong")
    rows = {each: told.rows(each) for each in ("wrong", "look")}
    assert {each: len(found) for each, found in rows.items()} == {
        each: int(each == level) for each in rows
    }


@pytest.mark.parametrize(
    ("factor", "code", "says"),
    [
        (0.25, 0, "2 of 2 applied exactly once"),
        (1.0, 1, "applied 4 times"),
        (0.9, 0, "rescaled: by their number, or by clipping?"),
    ],
)
def test_gradients_that_are_rescaled_after_the_passes(
    factor: float, code: int, says: str, doctor: Doctor, script: Callable[[str], Path]
) -> None:
    text = PLANNED + MICRO.format(data=MEAN, loss="data + plan.penalty()")
    rescale = f"[p.grad.mul_({factor}) for p in model.parameters()]"
    told = doctor(script(text.replace("opt.step()", f"{rescale}; opt.step()")))
    assert told.code == code
    assert any(line.endswith(says) for line in told.lines)


def test_a_loss_that_is_a_subclass(doctor: Doctor, script: Callable[[str], Path]) -> None:
    told = doctor(
        script(
            SETUP
            + "class T(torch.Tensor): pass\nx = x.as_subclass(T)\n"
            + LOOPS["a loop"]
            .replace("y)", "y) + 0.1 * model[0].weight.pow(2).sum()", 1)
            .replace(").backward", ").backward")
            .replace("F.cross_entropy", "(F.cross_entropy")
            .replace(".sum().backward", ".sum()).backward")
        )
    )
    assert (told.code, told.err) == (0, "")
    assert any("L2(0.1) in the loss" in line for line in told.lines)


def test_steps_without_a_pass(doctor: Doctor, script: Callable[[str], Path]) -> None:
    told = doctor(
        script(
            SETUP
            + """
for i in range(9):
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    opt.step()
"""
        )
    )
    assert told.head.endswith("3 steps of SGD, and no backward pass that could be looked at")


# --- ways to end --------------------------------------------------------------------------------


def test_a_bare_except_cannot_keep_it(script: Callable[[str], Path]) -> None:
    path = script(
        SETUP + LOOPS["whose errors are swallowed"].replace("except Exception:", "except:")
    )
    command = [sys.executable, "-c", "import sys; from penalize.cli import main; sys.exit(main())"]
    done = subprocess.run(
        [*command, "doctor", str(path)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("swallowed\n\npenalize doctor: train.py, after ")
    assert done.stdout.endswith("\nno weight decay, L1 or L2 was seen\n")


def test_an_interrupt_is_told_of(doctor: Doctor, script: Callable[[str], Path]) -> None:
    text = STEPS.replace("lr=0.1", "lr=0.1, weight_decay=1") + "\nraise KeyboardInterrupt\n"
    told = doctor(script(text), steps=9)
    assert (told.code, told.err) == (130, "")
    assert any("weight_decay=1 of SGD" in line for line in told.lines)
    assert doctor(script("raise KeyboardInterrupt")).code == 130


# --- what cannot be run -------------------------------------------------------------------------


def test_no_such_script(doctor: Doctor, tmp_path: Path) -> None:
    told = doctor(tmp_path / "none.py")
    assert (told.code, told.out) == (2, "")
    assert told.err == f"penalize doctor cannot run {tmp_path / 'none.py'}: there is no such file\n"
    assert doctor(tmp_path).err == (
        f"penalize doctor cannot run {tmp_path}: it is a directory; pass the script in it\n"
    )


def test_without_torch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli, "_is_installed", lambda module: module != "torch")
    assert cli.main(["doctor", "train.py"]) == 2
    assert capsys.readouterr().err == (
        "penalize doctor needs torch; install it with: pip install 'penalize[torch]'\n"
    )


def test_a_script_that_fails_shows_its_own_traceback(
    doctor: Doctor, script: Callable[[str], Path]
) -> None:
    path = script("def main():\n    raise RuntimeError('mine')\n\nmain()\n")
    told = doctor(path)
    assert (told.code, told.lines) == (2, [])
    assert told.err.splitlines()[:2] == [
        "Traceback (most recent call last):",
        f'  File "{path}", line 4, in <module>',
    ]
    assert told.err.endswith("RuntimeError: mine\n")
    assert "runpy" not in told.err
    assert "made no step" not in told.err


def test_a_script_with_a_syntax_error(doctor: Doctor, script: Callable[[str], Path]) -> None:
    told = doctor(script("def main(:\n"))
    assert told.code == 2
    assert "SyntaxError: " in told.err
    assert "runpy" not in told.err


def test_a_script_that_fails_after_a_step_is_told_of(
    doctor: Doctor, script: Callable[[str], Path]
) -> None:
    told = doctor(script(STEPS.replace("lr=0.1", "lr=0.1, weight_decay=1") + "\n1 / 0\n"), steps=9)
    assert told.code == 2
    assert told.err.endswith("ZeroDivisionError: division by zero\n")
    assert any("weight_decay=1 of SGD" in line for line in told.lines)


def test_penalize_s_own_refusals_are_shown(doctor: Doctor, script: Callable[[str], Path]) -> None:
    told = doctor(
        script(
            STEPS.replace("lr=0.1", "lr=0.1, weight_decay=0.1").replace(
                "for i",
                "from penalize import L2\nfrom penalize.torch import regularize\n"
                "plan = regularize(model, L2(0.1))\nplan.attach(opt)\nfor i",
            )
        )
    )
    assert (told.code, told.lines) == (2, [])
    assert "AppliedTwiceError: The penalty on '0.weight' would be applied twice" in told.err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("print('hello')", "made no step of a torch.optim.Optimizer in this process; pass the"),
        ("import sys; sys.exit(0)", "made no step of a torch.optim.Optimizer"),
        ("import sys; sys.exit('no data here')", "no data here\n"),
        ("import argparse\np = argparse.ArgumentParser()\np.parse_args(['--x'])", "usage:"),
    ],
)
def test_a_script_that_makes_no_step(
    text: str, says: str, doctor: Doctor, script: Callable[[str], Path]
) -> None:
    told = doctor(script(text))
    assert (told.code, told.lines) == (2, [])
    assert says in told.err
