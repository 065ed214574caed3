"""Scripts that the doctor runs, and what they may do to its process."""

from __future__ import annotations

import io
import sys
import threading
from pathlib import Path

import pytest

from penalize import cli
from penalize.scripts import streams_kept_open, threads_ended_by

TRAINS = """
import sys
import threading

import torch


def train():
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(10):
        optimizer.zero_grad()
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
"""
CLOSES = "sys.stdout.close()\nsys.stderr.close()\ntrain()\n"
IN_A_THREAD = """
thread = threading.Thread(target=train)
thread.start()
thread.join()
print("the script goes on")
"""


@pytest.mark.parametrize("ending", [CLOSES, IN_A_THREAD], ids=["closes", "in a thread"])
def test_the_doctor_reports_what_it_saw(
    ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It raised on the closed stream, and printed an exception of its own for the thread."""
    script = tmp_path / "train.py"
    script.write_text(TRAINS + ending)
    assert cli.main(["doctor", str(script)]) == 0
    out, err = capsys.readouterr()
    assert "penalize doctor: train.py, after 3 steps of SGD\nno weight decay" in out
    assert ("the script goes on" in out) == (ending is IN_A_THREAD)
    assert err == ""


def test_a_name_that_no_file_can_have(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "x" * 5000]) == 2
    assert capsys.readouterr().err.endswith("x: there is no such file\n")


def test_streams_are_closed_afterwards_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    with streams_kept_open():
        print("x")
        sys.stdout.close()
        print("y")
    assert stream.buffer.getvalue().split() == [b"x"]  # type: ignore[attr-defined]
    stream.close()
    assert stream.closed


def test_other_exceptions_of_threads_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr(threading, "excepthook", lambda args: shown.append(args.exc_type))
    before = threading.excepthook

    def run(error: BaseException) -> None:
        def target() -> None:
            raise error

        thread = threading.Thread(target=target)
        thread.start()
        thread.join()

    with threads_ended_by(ZeroDivisionError):
        run(ZeroDivisionError())
        run(KeyError())
    assert shown == [KeyError]
    assert threading.excepthook is before
