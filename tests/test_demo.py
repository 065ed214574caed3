"""The demo, run for a few epochs; every figure is counted again from the models."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from rich.console import Console

from penalize import L1
from penalize.demo import run
from penalize.demo.contenders import CONTENDERS
from penalize.demo.data import digits
from penalize.demo.report import percent, sentence
from penalize.demo.smaller import SmallerRow, smaller
from penalize.demo.training import train

EPOCHS, SEEDS = 12, (2**64 - 1, 0, 1)
NAMES = ["no penalty", "L2", "L1 as a gradient", "L1 proximal", "group lasso"]


class Ran:
    """One run, and what it left."""

    def __init__(self, folder):
        self.folder = folder
        console = Console(file=io.StringIO(), width=80)
        self.random_state = torch.get_rng_state()
        self.threads = torch.get_num_threads()
        runs = run(folder, epochs=EPOCHS, seed=SEEDS[0], runs=len(SEEDS), console=console)
        self.printed = console.file.getvalue()
        self.all_runs = dict(zip(NAMES, runs, strict=True))
        self.runs = {name: of_name[0] for name, of_name in self.all_runs.items()}
        self.data = json.loads((folder / "digits.json").read_text(encoding="utf-8"))
        self.rows = {row["model"]: row["runs"] for row in self.data["models"]}
        self.models = {name: rows[0] for name, rows in self.rows.items()}
        text = (folder / "digits.md").read_text(encoding="utf-8")
        table, self.sentence = text.split("\n\n")
        self.table = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()
        ]


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    return Ran(tmp_path_factory.mktemp("demo"))


def kernels(trained):
    state = trained.model.state_dict()
    return state["hidden.weight"].numpy(), state["out.weight"].numpy()


def test_it_writes_three_files_and_says_so(ran):
    files = sorted(path.name for path in ran.folder.iterdir())
    assert files == ["digits.json", "digits.md", "digits.png"]
    for name in files:
        assert f"wrote {ran.folder / name}\n" in ran.printed


def test_it_leaves_the_process_as_it_was(ran):
    assert torch.equal(torch.get_rng_state(), ran.random_state)
    assert torch.get_num_threads() == ran.threads


def test_it_prints_the_plan_unbroken(ran):
    assert str(ran.runs["group lasso"].plan) in ran.printed


def test_it_prints_every_row_of_the_table_on_one_line(ran):
    for row in ran.table[2:]:
        name, _, _, *figures = [cell.partition(" (")[0] for cell in row]
        lines = [line for line in ran.printed.splitlines() if "%" in line and "━" not in line]
        (line,) = [line for line in lines if line.strip().startswith(f"{name} ")]
        assert line.split() == [*name.split(), *figures]


def test_the_picture_is_a_picture(ran):
    pixels = imread(ran.folder / "digits.png")
    height, width, _ = pixels.shape
    assert (width, height) == (1800, 1297)
    vermilion = np.all(np.abs(pixels[..., :3] - np.array([0xD5, 0x5E, 0x00]) / 255) < 0.01, axis=2)
    columns = np.nonzero(vermilion.any(axis=0))[0]
    # What marks exact zeros stands in the two columns on the right, and nowhere else.
    assert len(columns) > 100
    assert columns.min() > 0.6 * width
    assert (ran.folder / "digits.png").stat().st_size < 300_000


@pytest.mark.parametrize("name", NAMES)
def test_zeros_pixels_and_units_are_those_of_the_model(ran, name):
    hidden, out = kernels(ran.runs[name])
    row = ran.models[name]
    assert row["zeros"] == np.sum(hidden == 0) + np.sum(out == 0)
    assert row["weights"] == 64 * 64 + 10 * 64
    assert row["zeros_percent"] == pytest.approx(100 * row["zeros"] / row["weights"])
    assert row["pixels"] == sum(bool(np.any(hidden[:, pixel])) for pixel in range(64))
    assert row["units"] == sum(
        bool(np.any(hidden[unit]) and np.any(out[:, unit])) for unit in range(64)
    )
    assert row["pixels_in_all"] == row["units_in_all"] == 64


@pytest.mark.parametrize("name", NAMES)
def test_accuracy_and_losses_are_those_of_the_model(ran, name):
    data, row, trained = digits(), ran.models[name], ran.runs[name]
    with torch.no_grad():
        right = trained.model(data.test_images).argmax(dim=1) == data.test_labels
        scores = trained.model(data.train_images).double()
        loss = torch.nn.functional.cross_entropy(scores, data.train_labels)
    assert row["accuracy"] == int(right.sum()) / len(right)
    assert row["data_loss"] == pytest.approx(float(loss), rel=1e-5)
    assert row["penalty"] == sum(trained.plan.breakdown().values())
    for curve, last in (("data_loss", row["data_loss"]), ("penalty", row["penalty"])):
        assert len(row["curves"][curve]) == EPOCHS + 1
        assert row["curves"][curve][-1] == last


def test_a_run_is_watched_as_it_goes_on(ran):
    """Beside each bar stand its numbers; at the end, those of the last seed."""
    for name, runs in ran.all_runs.items():
        curves, seen = runs[-1].curves, ran.rows[name][-1]
        zeros = seen["zeros"] / seen["weights"]
        assert curves.zeros[-1] == pytest.approx(zeros)
        assert len(curves.zeros) == EPOCHS + 1
        (line,) = (line for line in ran.printed.splitlines() if line.startswith(f"{name:<16} ━"))
        assert f"loss {seen['data_loss']:.4f} penalty {seen['penalty']:.4f}" in line
        assert f"zeros {zeros:4.0%} " in line


def test_the_penalties_are_the_formulas(ran):
    penalty = {name: ran.models[name]["penalty"] for name in NAMES}
    w = {name: [kernel.astype(np.float64) for kernel in kernels(ran.runs[name])] for name in NAMES}
    assert penalty["no penalty"] == 0
    assert penalty["L2"] == pytest.approx(3e-4 * sum(np.sum(k**2) for k in w["L2"]))
    for name in ("L1 as a gradient", "L1 proximal"):
        assert penalty[name] == pytest.approx(3e-4 * sum(np.sum(np.abs(k)) for k in w[name]))
    hidden, out = (np.linalg.norm(kernel, axis=0).sum() for kernel in w["group lasso"])
    expected = 3e-4 * np.sqrt(64) * hidden + 1e-3 * np.sqrt(10) * out
    assert penalty["group lasso"] == pytest.approx(expected)


def told(runs, key, text=str, factor=1):
    """The median in words, and where they differ, the least and the most of the runs."""
    least, median, most = (text(x) for x in sorted(factor * run[key] for run in runs))
    return median if least == most else f"{median} ({least.strip('%')}–{most.strip('%')})"


def test_the_table_says_what_the_data_say(ran):
    header, rule, *rows = ran.table
    assert [len(row) for row in ran.table] == [len(header)] * 7
    assert set("".join(rule)) == {"-", ":", ""} - {""}
    for cells, (name, runs) in zip(rows, ran.rows.items(), strict=True):
        row = dict(zip(header, cells, strict=True))
        assert row["model"] == name
        assert row["mode"] == (runs[0]["mode"] or "–")
        assert row["λ"] == (runs[0]["strengths"] or "–")
        assert row["test accuracy"] == told(runs, "accuracy", percent, 100)
        assert row["data loss"] == told(runs, "data_loss", "{:.4f}".format)
        wanted = told(runs, "penalty", "{:.4f}".format) if runs[0]["rules"] else "–"
        assert row["penalty"] == wanted
        assert row["exact zeros"] == told(runs, "zeros_percent", percent)
        assert row["pixels left"] == told(runs, "pixels")
        assert row["hidden units left"] == told(runs, "units")
    assert "medians of 3 seeds; digits.md has their spread" in ran.printed


def test_the_group_lassos_network_compacted_has_the_units_that_are_left(ran):
    rows = ran.data["compacted"]["runs"]
    assert ran.data["compacted"]["model"] == NAMES[-1]
    for row, before in zip(rows, ran.rows["group lasso"], strict=True):
        units = row["units"]
        assert units == before["units"] < row["units_in_all"] == 64
        assert row["parameters"] == 64 * units + units + units * 10 + 10
        assert row["parameters_in_all"] == 64 * 64 + 64 + 64 * 10 + 10
        assert row["time"] > 0
        assert row["changed"] == 0
    assert ran.sentence.strip() == (
        f"Compacted, the network of the group lasso has {told(rows, 'units')} of 64 hidden units "
        f"and {told(rows, 'parameters', '{:,}'.format)} of 4,810 parameters, takes "
        f"{told(rows, 'time', '{:.2f}'.format)} of the time for a batch of 450 images, and "
        "predicts the same digits."
    )
    assert (
        ran.sentence.split()
        == ran.printed[ran.printed.index("Compacted,") :].split()[: len(ran.sentence.split())]
    )


def test_a_network_without_dead_units_is_told_as_it_is():
    data = digits()
    row = smaller(train(CONTENDERS[0], data, epochs=0, seed=0), data)
    assert (row.units, row.parameters) == (64, row.parameters_in_all) == (64, 4810)


def test_digits_that_change_are_counted():
    row = SmallerRow(64, 64, 100, 100, 1.0, changed=0)
    assert "predicts the same digits" in sentence("L1", [row], 9)
    assert "predicts up to 2 other digits" in sentence("L1", [row, replace(row, changed=2)], 9)


def test_every_run_is_what_its_seed_gives(ran):
    assert ran.data["settings"]["seeds"] == list(SEEDS)
    data = digits()
    for name, contender in zip(NAMES, CONTENDERS, strict=True):
        assert [row["seed"] for row in ran.rows[name]] == list(SEEDS)
        losses = [row["data_loss"] for row in ran.rows[name]]
        assert len(set(losses)) == 3
        if name == "L1 proximal":
            again = train(contender, data, epochs=EPOCHS, seed=1)
            assert again.curves.data_loss[-1] == losses[2]


def test_only_proximal_steps_give_exact_zeros(ran):
    zeros = {name: ran.models[name]["zeros"] for name in NAMES}
    assert zeros["no penalty"] == zeros["L2"] == zeros["L1 as a gradient"] == 0
    assert zeros["L1 proximal"] > 0


def test_the_group_lasso_leaves_whole_pixels_or_none(ran):
    hidden, out = kernels(ran.runs["group lasso"])
    for kernel in (hidden, out):
        zeros = np.sum(kernel == 0, axis=0)
        assert set(zeros) <= {0, kernel.shape[0]}
    assert ran.models["group lasso"]["pixels"] < 64


def test_the_contenders_differ_in_the_penalty_alone(ran):
    assert [contender.name for contender in CONTENDERS] == NAMES
    starts = [[row["curves"]["data_loss"][0] for row in ran.rows[name]] for name in NAMES]
    assert starts == [starts[0]] * 5
    assert len(set(starts[0])) == 3
    by_name = {contender.name: contender for contender in CONTENDERS}
    as_gradient, proximal = by_name["L1 as a gradient"], by_name["L1 proximal"]
    assert isinstance(as_gradient.rules, L1)
    assert as_gradient.rules == proximal.rules
    assert (as_gradient.mode, proximal.mode) == ("gradient", "proximal")


def test_a_seed_says_it_all():
    data, contender = digits(), CONTENDERS[3]

    def weights(seed):
        return kernels(train(contender, data, epochs=1, seed=seed))

    first, again, other = weights(0), weights(0), weights(1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_the_split_is_stratified_and_scaled():
    data = digits()
    assert (len(data.train_labels), len(data.test_labels)) == (1347, 450)
    train, test = (data.train_images, data.train_labels), (data.test_images, data.test_labels)
    for images, labels in (train, test):
        assert images.dtype == torch.float32
        assert (float(images.min()), float(images.max())) == (0, 1)
        share = np.bincount(labels.numpy()) / len(labels)
        assert np.all(np.abs(share - 0.1) < 0.005)


@pytest.mark.parametrize(
    ("value", "says"),
    [(0, "0%"), (0.01, "0.1%"), (64.26, "64.3%"), (99.99, "99.9%"), (100, "100%")],
)
def test_nothing_and_everything_are_said_of_nothing_else(value, says):
    assert percent(value) == says
