"""``penalize compact``: what it writes, and what it says."""

import re
import sys
import types

import pytest
import torch
from torch import nn

from penalize import MissingPackageError, ModelError, cli
from penalize.torch import compact

HERE = __name__
GIVEN = ("--model", f"{HERE}:Small", "--input", "2,4")


class Small(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 8, bias=False), nn.Sigmoid(), nn.Linear(8, 3, bias=False))


class Unsaved(Small):
    def __init__(self):
        super().__init__()
        self.scale = lambda x: x


def twice(model):
    wrapped = Small().eval()
    wrapped[2] = nn.Sequential(*model, Doubled())
    wrapped[0] = wrapped[1] = nn.Identity()
    return wrapped


class Doubled(nn.Module):
    def forward(self, x):
        return x * 2


def needs(size):
    return nn.Linear(size, size)


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.setitem(sys.modules, HERE, sys.modules[__name__])


def sparse():
    torch.manual_seed(0)
    model = Small().eval()
    with torch.no_grad():
        model[0].weight[[1, 4]] = 0.0  # a half behind the sigmoid
        model[2].weight[:, 6] = 0.0
    return model


def run(*arguments):
    return cli.main(["compact", *map(str, arguments)])


@pytest.mark.parametrize(("options", "left"), [((), 7), (("--biases",), 5)])
def test_the_smaller_module_is_written_and_its_table_printed(options, left, tmp_path, capsys):
    model, file, to = sparse(), tmp_path / "weights.pt", tmp_path / "small.pt"
    torch.save({"epoch": 3, "weights": model.state_dict()}, file)
    assert run(file, *GIVEN, "--key", "weights", "--output", to, *options) == 0
    out = capsys.readouterr().out
    assert f"0.weight  8      {left}" in out
    assert out.endswith(f"wrote {to}: torch.load({str(to)!r}, weights_only=False)\n")
    found = torch.load(to, weights_only=False)
    assert found[0].out_features == left
    x = torch.randn(5, 4)
    torch.testing.assert_close(found(x), model(x))


def test_the_smaller_module_is_exported_for_any_batch(tmp_path, capsys):
    import onnxruntime

    model, file, to = sparse(), tmp_path / "weights.pt", tmp_path / "small.onnx"
    torch.save(model.state_dict(), file)
    assert run(file, *GIVEN, "--onnx", to, "--biases") == 0
    assert capsys.readouterr().out.endswith(
        f"wrote {to}, which ONNX Runtime runs with the same outputs\n"
    )
    assert sorted(tmp_path.iterdir()) == [to, file]
    session = onnxruntime.InferenceSession(str(to), providers=["CPUExecutionProvider"])
    x = torch.randn(7, 4)
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), model(x))


def test_what_onnx_runtime_answers_otherwise_is_not_written(tmp_path, monkeypatch):
    found = compact(sparse(), torch.randn(2, 4))
    exported = torch.onnx.export
    monkeypatch.setattr(
        torch.onnx, "export", lambda model, *a, **k: exported(twice(model), *a, **k)
    )
    with pytest.raises(
        ModelError, match=r"ONNX Runtime does not answer as the Small does: outputs"
    ):
        found.to_onnx(tmp_path / "small.onnx")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_what_an_export_needs_is_named_where_it_is_missing(package, tmp_path, monkeypatch):
    found = compact(sparse(), torch.randn(2, 4))
    for each in ("onnx", "onnxscript", "onnxruntime"):
        stands_for = None if each == package else types.ModuleType(each)
        monkeypatch.setitem(sys.modules, each, stands_for)
    with pytest.raises(MissingPackageError, match=rf"ONNX needs {package}, .* extra \[onnx\]"):
        found.to_onnx(tmp_path / "small.onnx")


def test_where_to_write_has_to_be_said(capsys):
    assert run("weights.pt", *GIVEN) == 2
    assert "is not told where to write; give --output, --onnx or both" in capsys.readouterr().err


def test_nothing_to_cut_is_exit_code_1_and_writes_nothing(tmp_path, capsys):
    torch.save(Small().state_dict(), tmp_path / "weights.pt")
    assert run(tmp_path / "weights.pt", *GIVEN, "--output", tmp_path / "small.pt") == 1
    printed = capsys.readouterr()
    assert "0.weight  8      8" in printed.out
    assert printed.err.startswith(
        "penalize compact: nothing is written: the Small has no dead unit to cut"
    )
    assert not (tmp_path / "small.pt").exists()


class Runs:
    """What a file of more than weights may do."""

    def __reduce__(self):
        return exec, ("raise SystemExit(7)",)


@pytest.mark.parametrize(
    ("content", "arguments", "said"),
    [
        (Runs(), GIVEN, "is no file of weights alone, .* might run code when it is read; save mod"),
        (sparse(), GIVEN, r"is no file of weights alone, .* save model.state_dict\(\) there"),
        (None, GIVEN, r"weights.pt cannot be read \(No such file or directory\)"),
        (b"text", GIVEN, "is no file of weights alone"),
        ([1, 2], GIVEN, "weights.pt has no weights by name; say under which key"),
        ({"epoch": 3, "net": {}}, GIVEN, "no weights by name, but the keys epoch, net; .* --key"),
        ({"net": 3}, (*GIVEN, "--key", "model"), "no weights by name under 'model'"),
        ({"0.weight": torch.ones(8, 4)}, GIVEN,
         r"do not fit .*:Small \(Missing key.*2.weight.*\); name what made the model"),
        (sparse().state_dict(), ("--model", "small", "--input", "1"), "'small' is no MODULE:FACT"),
        (sparse().state_dict(), ("--model", f"{HERE}:needs", "--input", "1"),
         r"needs\(\)' fails \(TypeError: .*\); name what takes no arguments"),
        (sparse().state_dict(), (*GIVEN[:2], "--input", "2,5"), "torch.export cannot follow a Sm"),
        (sparse().state_dict(), ("--model", f"{HERE}:Unsaved", "--input", "2,4"),
         r"The smaller model cannot be saved \(.*pickle.*<lambda>.*\); a module's class"),
        (sparse().state_dict(), (*GIVEN, "--output", "."), r"\. cannot be written \(Is a direct"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line_with_exit_code_2(
    content, arguments, said, tmp_path, capsys
):
    file = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        torch.save(content, file)
    assert run(file, "--output", tmp_path / "small.pt", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("penalize compact: ")
    assert error.count("\n") == 1
    assert re.search(said, error), error
    assert not (tmp_path / "small.pt").exists()


@pytest.mark.parametrize("shape", ["", "3,", "3x3", "0,2", "-1"])
def test_shapes_that_are_none(shape, capsys):
    with pytest.raises(SystemExit) as caught:
        run("weights.pt", *GIVEN[:2], f"--input={shape}", "--output", "small.pt")
    assert caught.value.code == 2
    assert f"{shape!r} is no shape such as 1,3,32,32" in capsys.readouterr().err


def test_torch_is_named_where_it_is_missing(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(cli, "_is_installed", lambda _: False)
    assert run("weights.pt", *GIVEN, "--output", "small.pt") == 2
    assert capsys.readouterr().err.startswith("penalize compact needs torch; install it with")
