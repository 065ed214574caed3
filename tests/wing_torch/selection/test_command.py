"""``penalize path``, on the data that it has and on files."""

import json
import re
import sys

import numpy as np
import pytest
import torch
from torch import nn

from penalize import L1, GroupLasso, ModelError, PathError, cli, kernels, write_rules
from penalize.torch.selection.command import made_for, measures, strengths
from penalize.torch.selection.data import EMBEDDED, read


class Small(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(30, 3), nn.ReLU(), nn.Linear(3, 1))


class Pair(nn.Linear):
    def forward(self, x):
        return super().forward(x), x


class Normed(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(10, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def exits():
    raise SystemExit(4)


def wide(inputs, outputs, hidden=8):
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs))


not_a_function = 3
HERE = __name__


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.setitem(sys.modules, HERE, sys.modules[__name__])


def run(*arguments):
    return cli.main(["path", *map(str, arguments)])


@pytest.mark.parametrize(
    ("factory", "data"),
    [
        ("torch.nn:Linear", "diabetes"),
        (f"{HERE}:wide", "digits"),
        (f"{HERE}:Small", "breast_cancer"),
        ("torch.nn:Linear", "breast_cancer"),
    ],
)
def test_every_embedded_set_has_a_path(factory, data, tmp_path, capsys):
    rules = tmp_path / "rules.toml"
    write_rules({kernels: GroupLasso(1.0, groups="inputs"), "**": L1(0.5)}, rules)
    options = ("--rules", rules, "--output", tmp_path / "out", "--strengths", 3)
    options += ("--epochs", 2, "--folds", 2, "--batch-size", 512)
    assert run(factory, "--data", data, *options) == 0
    out = capsys.readouterr().out
    assert "strength" in out
    assert "path.html are in" in out
    names = ["path.html", "path.json", "path.png", "path.sqlite"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == names
    rows = json.loads((tmp_path / "out" / "path.json").read_text())
    assert len(rows) == 9
    assert {row["how"] for row in rows} == {"stacked"}
    if data != "diabetes":
        assert all(0 <= row["score"] <= 1 for row in rows)
    # Given again it has nothing left to do, and prints the same.
    assert run(factory, "--data", data, *options) == 0
    assert json.loads((tmp_path / "out" / "path.json").read_text()) == rows


def test_a_file_of_arrays(tmp_path, capsys):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 4))
    np.savez(tmp_path / "data.npz", x=x, y=(x[:, 0] > 0).astype(int))
    options = ("--strengths", "0.1,0.001", "--epochs", 3, "--output", tmp_path / "out")
    assert run("torch.nn:Linear", "--data", tmp_path / "data.npz", *options) == 0
    assert "0.001" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["torch.nn:Linear", "--data", "iris"], "there is no data set or file 'iris'"),
        (["torch.nn.Linear", "--data", "digits"], "'torch.nn.Linear' is no MODULE:FACTORY"),
        (["torch.nn:Lineer", "--data", "digits"], "'torch.nn:Lineer' cannot be imported"),
        (["no_such:f", "--data", "digits"], "'no_such:f' cannot be imported"),
        ([f"{HERE}:not_a_function", "--data", "digits"], "is a int; name what makes a model"),
        (["torch:zeros", "--data", "digits"], "torch:zeros"),
        ([".x:Linear", "--data", "digits"], "'.x:Linear' cannot be imported .*no full name"),
        (["broken_module:f", "--data", "digits"], "ends in ZeroDivisionError: division by zero"),
        (["exiting_module:f", "--data", "digits"], "ends in SystemExit: 3"),
        ([f"{HERE}:exits", "--data", "digits"], r"exits\(\)' fails \(SystemExit: 4\)"),
        ([f"{HERE}:Pair", "--data", "diabetes"], "the model returns a tuple; make one that ret"),
        ([f"{HERE}:Normed", "--data", "diabetes", "--batch-size", "1"],
         r"training .*Normed fails \(ValueError: Expected more than 1 value.*the batch size"),
        (["torch.nn:Linear", "--data", "diabetes", "--learning-rate", "1e300"],
         r"training torch.nn:Linear fails \(.*the learning rate"),
        (["torch.nn:Linear", "--data", "diabetes", "--strengths", "1000000000"],
         "strengths=1000000000; expected a whole number from 1 to 10000"),
        (["torch.nn:MultiheadAttention", "--data", "diabetes"], "cannot take inputs|fails"),
        ([f"{HERE}:Small", "--data", "digits"], "cannot take inputs of shape"),
        (["torch.nn:Linear", "--data", "digits", "--strengths", "few"], "--strengths few"),
        (["torch.nn:Linear", "--data", "digits", "--rules", "none.toml"], "none.toml cannot"),
        (["torch.nn:Linear", "--data", "digits", "--folds", "5000"], "folds=5000 for 1797 samples"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line_with_exit_code_2(
    arguments, said, tmp_path, capsys, monkeypatch
):
    (tmp_path / "broken_module.py").write_text("1 / 0")
    (tmp_path / "exiting_module.py").write_text("raise SystemExit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    assert run(*arguments, "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.startswith("penalize path: ")
    assert error.count("\n") == 1
    assert re.search(said, error, re.IGNORECASE)


@pytest.mark.parametrize("rate", ["0", "-1", "nan", "inf", "fast"])
def test_a_learning_rate_that_is_none(rate, capsys):
    with pytest.raises(SystemExit) as caught:
        run("torch.nn:Linear", "--data", "digits", "--learning-rate", rate)
    assert caught.value.code == 2
    assert f"'{rate}' is no finite number > 0" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_to(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run("torch.nn:Linear", "--data", "digits", "--output", tmp_path / "file") == 2
    assert "penalize path cannot write to" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["path.json", "path.png", "path.html"])
def test_a_result_that_cannot_be_written_is_said_and_the_rows_are_kept(name, tmp_path, capsys):
    (tmp_path / name).mkdir()
    options = ("--strengths", "0.1", "--epochs", 1, "--folds", 2, "--output", tmp_path)
    assert run("torch.nn:Linear", "--data", "diabetes", *options) == 2
    error = capsys.readouterr().err
    assert re.search(rf"results are in 'path.sqlite', and '.*{name}' cannot be written", error)
    assert (tmp_path / "path.sqlite").stat().st_size


@pytest.mark.parametrize("seed", ["18446744073709551616", "9" * 5000, "1e23"])
def test_a_seed_that_torch_does_not_take(seed, capsys):
    with pytest.raises(SystemExit) as caught:
        run("torch.nn:Linear", "--data", "digits", "--seed", seed)
    assert caught.value.code == 2
    assert "is no integer from 0 to 18446744073709551615" in capsys.readouterr().err


def test_the_largest_seed(tmp_path):
    options = ("--strengths", "0.1", "--epochs", 1, "--folds", 2, "--output", tmp_path)
    assert run("torch.nn:Linear", "--data", "diabetes", "--seed", 2**64 - 1, *options) == 0


def test_missing_packages_are_named(monkeypatch, capsys):
    monkeypatch.setattr(cli, "_is_installed", lambda name: name not in ("torch", "sklearn"))
    assert run("torch.nn:Linear", "--data", "digits") == 2
    assert "penalize path needs torch, scikit-learn" in capsys.readouterr().err


def test_factories_are_called_with_sizes_or_with_nothing():
    data = read("diabetes")
    assert made_for("torch.nn:Linear", data).weight.shape == (1, 10)
    assert made_for(f"{HERE}:wide", data)[0].out_features == 8
    assert isinstance(made_for(f"{HERE}:Small", data), Small)
    with pytest.raises(ModelError, match="made a Tensor; it has to make an"):
        made_for(f"{HERE}:tensor", data)


def tensor():
    return torch.ones(3)


def test_losses_fit_the_data():
    digits, diabetes, cancer = (read(name) for name in ("digits", "diabetes", "breast_cancer"))
    assert measures(nn.Linear(64, 10), digits)[0] is nn.functional.cross_entropy
    assert measures(nn.Linear(10, 1), diabetes) == (nn.functional.mse_loss, None)
    loss, score = measures(nn.Linear(30, 1), cancer)
    output, target = torch.tensor([[2.0], [-1.0]]), torch.tensor([1, 1])
    bce = nn.functional.binary_cross_entropy_with_logits
    assert loss(output, target) == bce(output[:, 0], target.float())
    assert score(output, target) == 0.5
    with pytest.raises(PathError, match=r"outputs of shape \(3,\), and the data 10 classes"):
        measures(nn.Linear(64, 3), digits)
    with pytest.raises(PathError, match="make one with 1 outputs"):
        measures(nn.Linear(10, 3), diabetes)


def test_strengths_as_text():
    assert strengths("auto") == "auto"
    assert strengths("12") == 12
    assert strengths("0.5") == [0.5]
    assert strengths("1e-1,1e-2") == [0.1, 0.01]


def test_the_embedded_sets():
    sizes = {name: (read(name).inputs, read(name).outputs) for name in EMBEDDED}
    assert sizes == {"breast_cancer": (30, 2), "diabetes": (10, 1), "digits": (64, 10)}
    assert float(read("digits").x.max()) == 1
    assert read("diabetes").y.shape == (442, 1)


X, Y = np.arange(6.0).reshape(3, 2), np.array([0, 2, 1])


@pytest.mark.parametrize("dtype", [">f8", "<f4", ">f4", "f2", "longdouble", "u2", ">u4", "u8", "?"])
def test_arrays_of_every_real_type_are_read(dtype, tmp_path):
    np.savez_compressed(tmp_path / "data.npz", x=X.astype(dtype), y=Y.astype(dtype))
    found = read(str(tmp_path / "data.npz"))
    assert torch.equal(found.x, torch.tensor(X.astype(dtype).astype("f4")))
    assert found.x.dtype == torch.float32
    is_real = np.dtype(dtype).kind == "f"
    assert found.y.tolist() == ([[0.0], [2.0], [1.0]] if is_real else Y.astype(dtype).tolist())
    assert found.y.dtype == (torch.float32 if is_real else torch.int64)


def test_a_damaged_compressed_file_is_said_to_be_one(tmp_path):
    file = tmp_path / "data.npz"
    np.savez_compressed(file, x=np.arange(3000.0).reshape(-1, 3), y=np.arange(1000.0))
    data = file.read_bytes()
    refused = []
    for place in range(0, len(data), 41):
        file.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        try:
            read(str(file))
        except PathError as error:
            refused.append(str(error))
    assert all(re.search("cannot be read|has an? [xy]", each) for each in refused)
    assert len(refused) > 20


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": X, "y": np.array(1)}, r"a y of \(\)"),
        ({"x": X[:, :0], "y": Y}, "has an x of shape"),
        ({"x": X, "y": np.ones((3, 0))}, r"a y of \(3, 0\)"),
        ({"x": X * 1e300, "y": Y}, r"has x with numbers up to 5e\+300; scale them"),
        ({"x": X, "y": np.full(3, -1e39)}, r"has y with numbers up to 1e\+39"),
        ({"x": X, "y": np.full(3, 2**64 - 1, "u8")}, "to 18446744073709551615 as targets"),
        ({"x": np.ones((3, 2))}, "cannot be read"),
        ({"x": np.ones(3), "y": np.ones(3)}, "has an x of shape"),
        ({"x": np.ones((3, 2)), "y": np.ones(2)}, "has an x of shape"),
        ({"x": np.full((3, 2), np.nan), "y": np.ones(3)}, "expected finite numbers"),
        ({"x": np.ones((3, 2)), "y": np.array(["a", "b", "c"])}, "expected finite numbers"),
        ({"x": np.ones((3, 2)), "y": np.array([-1, 0, 1])}, "one class number, from 0"),
        ({"x": np.ones((3, 2)), "y": np.array([None] * 3)}, "cannot be read"),
    ],
)
def test_files_of_something_else(arrays, said, tmp_path):
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(PathError, match=said):
        read(str(tmp_path / "data.npz"))
    (tmp_path / "text.npz").write_text("x,y")
    (tmp_path / "empty.npz").touch()
    (tmp_path / "cut.npz").write_bytes((tmp_path / "data.npz").read_bytes()[:-20])
    for name in ("text", "empty", "cut"):
        with pytest.raises(PathError, match="cannot be read"):
            read(str(tmp_path / f"{name}.npz"))
