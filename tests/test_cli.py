"""The command: what it says, and how it ends."""

import importlib.metadata
import subprocess
import sys

import pytest

import penalize
from penalize import cli


def refuse(argv, capsys):
    """What argparse says to arguments that it refuses with exit code 2."""
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"penalize {penalize.__version__}\n"
    assert importlib.metadata.version("penalize") == penalize.__version__


def test_the_command_is_installed_under_its_name():
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="penalize")
    assert entry.load() is cli.main


def test_help_names_the_demo_and_its_defaults(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["demo", "--help"])
    assert caught.value.code == 0
    says = " ".join(capsys.readouterr().out.split())
    for part in ("--output DIR", "(default: penalize-demo)", "(default: 100)", "(default: 0)"):
        assert part in says


def test_help_names_the_doctor_and_its_exit_codes(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["doctor", "--help"])
    assert caught.value.code == 0
    says = " ".join(capsys.readouterr().out.split())
    for part in ("--steps N", "(default: 3)", "SCRIPT", "Exit code: 0 nothing is wrong, 1"):
        assert part in says


@pytest.mark.parametrize("argv", [[], ["train"], ["demo", "--rate", "1"], ["doctor"]])
def test_what_is_no_command_is_refused(argv, capsys):
    assert refuse(argv, capsys).startswith("usage: penalize")


@pytest.mark.parametrize(
    ("option", "value", "bounds"),
    [
        ("--epochs", "0", "≥ 1"),
        ("--epochs", "ten", "≥ 1"),
        *(("--seed", s, f"from 0 to {2**64 - 1}") for s in ("-1", "0.5", "1e23", str(10**23))),
    ],
)
def test_numbers_out_of_range_are_refused(option, value, bounds, capsys):
    says = refuse(["demo", f"{option}={value}"], capsys)
    assert f"argument {option}: {value!r} is no integer {bounds}" in says


@pytest.mark.parametrize(
    ("module", "known_as"),
    [
        ("torch", "torch"),
        ("numpy", "numpy"),
        ("sklearn", "scikit-learn"),
        ("matplotlib", "matplotlib"),
        ("rich", "rich"),
    ],
)
def test_a_missing_dependency_is_one_line(module, known_as, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, module, None)
    assert cli.main(["demo", "--output", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        f"penalize demo needs {known_as}; install it with: pip install 'penalize[demo]'\n"
    )
    assert not (tmp_path / "out").exists()


def test_several_missing_dependencies_are_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "rich", None)
    assert cli.main(["demo", "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == (
        "penalize demo needs matplotlib, rich; install them with: pip install 'penalize[demo]'\n"
    )


def test_a_place_that_cannot_be_written_is_one_line(capsys, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("")
    assert cli.main(["demo", "--output", str(taken)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    # The reason is the operating system's own words.
    assert captured.err.startswith(f"penalize demo cannot write to {taken}: ")
    assert captured.err.count("\n") == 1


def test_a_file_that_cannot_be_written_is_one_line(monkeypatch, capsys, tmp_path):
    import penalize.demo as demo

    def run(output, **settings):
        (output / "digits.md").write_text("")

    monkeypatch.setattr(demo, "run", run)
    (tmp_path / "digits.md").mkdir()
    assert cli.main(["demo", "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"penalize demo cannot write {tmp_path / 'digits.md'}: ")


def test_the_arguments_reach_the_demo(monkeypatch, tmp_path):
    import penalize.demo as demo

    calls = []
    monkeypatch.setattr(demo, "run", lambda *args, **kwargs: calls.append((args, kwargs)))
    output = tmp_path / "a" / "b"
    assert cli.main(["demo", "--output", str(output), "--epochs", "7", "--seed", "3"]) == 0
    assert calls == [((output,), {"epochs": 7, "seed": 3})]
    assert output.is_dir()


def test_the_command_imports_nothing_heavy():
    check = (
        "import sys, penalize.cli; "
        "print(*{'torch', 'numpy', 'sklearn', 'matplotlib', 'rich'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")
