"""A path that is killed goes on where it was; a file of something else is left alone."""

import contextlib
import json
import math
import pickle
import random
import runpy
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import nn
from wing_torch.selection.problems import network, training

from penalize import L1, L2, PathError, ResultsError
from penalize.selection import walk
from penalize.selection.encoding import decoded, encoded
from penalize.selection.store import Key, Store
from penalize.torch import path, regularize
from penalize.torch.selection.tensors import TENSORS

DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64),
    *(torch.int64, torch.uint8, torch.bool, torch.float8_e4m3fn),
)
PROGRAM = Path(__file__).parents[1] / "programs" / "path_runs.py"


def run(file, log, how, kill_at):
    """In a process of its own where it is killed."""
    arguments = [str(PROGRAM), str(file), str(log), how, str(kill_at)]
    if kill_at:
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
        return
    with (
        patch.object(sys, "argv", arguments),
        patch.multiple(Store, add=Store.add, keep=Store.keep),
        patch.object(walk, "KEPT_EVERY", walk.KEPT_EVERY),
    ):
        runpy.run_path(str(PROGRAM), run_name="__main__")


def contents(file):
    """Everything in a results file, but the seconds that it took."""
    with sqlite3.connect(file) as connection:
        found = connection.execute("SELECT kind, name, place, data FROM record ORDER BY 1, 2, 3")
        records = {tuple(key): data for *key, data in found}
    connection.close()
    assert not [kind for kind, *_ in records if kind == "progress"]
    rows = {key: json.loads(data) for key, data in records.items() if key[0] == "row"}
    return records | {key: {**row, "seconds": None} for key, row in rows.items()}


@pytest.mark.parametrize(("how", "kills"), [("function", [4, -3]), ("stacked", [3, -2])])
def test_killed_twice_it_ends_as_one_that_was_not(how, kills, tmp_path):
    whole, cut = tmp_path / "whole.sqlite", tmp_path / "cut.sqlite"
    run(whole, tmp_path / "whole.log", how, 0)
    for kill_at in kills:
        run(cut, tmp_path / "cut.log", how, kill_at)
    run(cut, tmp_path / "cut.log", how, 0)
    assert contents(cut) == contents(whole)
    if how == "function":
        straight = (tmp_path / "whole.log").read_text().splitlines()
        resumed = (tmp_path / "cut.log").read_text().splitlines()
        assert len(set(straight)) == len(straight) == 12
        # What was under way when it was killed is begun anew, and nothing else.
        assert sorted(set(resumed)) == sorted(straight)
        assert len(resumed) - len(straight) == sum(k > 0 for k in kills)


def small(saved, strengths=(0.1, 0.01), rules=None, model=None, fit=None, **more):
    model = network() if model is None else model
    plan = regularize(model, L1(1.0) if rules is None else rules)
    fit = training(epochs=1) if fit is None else fit
    return path(fit, plan, list(strengths), 2, saved=saved, progress=False, **more)


def test_what_is_done_is_not_done_again(tmp_path, monkeypatch):
    file = tmp_path / "path.sqlite"
    first = small(file)
    monkeypatch.setattr("penalize.torch.selection.learner.train_together", None)
    again = small(file)
    assert again.rows == first.rows
    for name in first.penalized:
        assert torch.equal(again.weights(name), first.weights(name))
    assert small(str(file)).rows == first.rows


@pytest.mark.parametrize(
    ("changes", "different"),
    [
        ({"strengths": [0.1, 0.02]}, "strengths"),
        ({"rules": L2(1.0)}, "penalties"),
        ({"rules": {"0": L1(1.0)}}, "penalties"),
        (
            {"model": nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1)).double()},
            "model at",
        ),
        ({"fit": training(epochs=2)}, "fit"),
        ({"fit": training(epochs=1, y=torch.zeros(61, 1).double())}, "fit"),
        ({"seed": 3}, "folds"),
        ({"warm": True}, "warm"),
    ],
)
def test_results_of_something_else_are_refused_and_kept(changes, different, tmp_path):
    file = tmp_path / "path.sqlite"
    small(file)
    before = file.read_bytes()
    with pytest.raises(ResultsError, match=f"has the results of something else .*{different}"):
        small(file, **changes)
    assert file.read_bytes() == before


def foreign(file):
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE mine (a)")
    connection.close()


def cut_short(file):
    small(file)
    file.write_bytes(file.read_bytes()[:-4096])


def overwritten(file):
    small(file)
    data = bytearray(file.read_bytes())
    data[4096 : 3 * 4096] = b"\xff" * (2 * 4096)
    file.write_bytes(data)


def of_version(number):
    def make(file):
        small(file)
        with sqlite3.connect(file) as connection:
            connection.execute(f"PRAGMA user_version = {number}")
        connection.close()

    return make


def changed(command):
    """A file that SQLite finds nothing wrong with."""

    def make(file):
        small(file)
        with sqlite3.connect(file) as connection:
            assert connection.execute(command).rowcount == 1
        connection.close()

    return make


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda file: file.write_text("strength,loss\n"), "is no results file"),
        (lambda file: file.write_bytes(b"SQLite format 3\0"), "is a database of something else"),
        (foreign, "is a database of something else"),
        (cut_short, "is damaged"),
        (overwritten, "is damaged"),
        (lambda file: file.mkdir(), "cannot be read"),
        (of_version(3), "was written by a newer penalize .*version is 3, and 2 is"),
        # Version 1 had none: rows without checksums, and weights as pickles.
        (of_version(0), "was written by an older penalize .*version is 1, and 2 is"),
        (
            changed(
                "UPDATE record SET data = CAST(replace(data, '1', '2') AS BLOB) "
                "WHERE kind = 'row' AND name = '0' AND place = 0"
            ),
            r"is damaged \('row 0 0' has another checksum\)",
        ),
        (
            changed("UPDATE record SET place = 7 WHERE kind = 'row' AND name = '0' AND place = 0"),
            r"is damaged \('row 0 7' has another checksum\)",
        ),
        (
            changed("DELETE FROM record WHERE kind = 'weights' AND place = 1"),
            r"is damaged \(a record is missing\)",
        ),
        (changed("DELETE FROM seal"), "is damaged"),
    ],
    ids=[
        *("text", "head alone", "foreign", "cut short", "overwritten", "a folder"),
        *("newer", "older", "a digit", "another place", "without weights", "without seal"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_and_kept(make, said, tmp_path):
    file = tmp_path / "path.sqlite"
    make(file)
    before = file.read_bytes() if file.is_file() else None
    way_out = "; (name another file, or move|update penalize, or name|end it with that, or name)"
    with pytest.raises(ResultsError, match=f"path.sqlite {said}.*was left as it is{way_out}"):
        small(file)
    assert (file.read_bytes() if file.is_file() else None) == before
    assert [p.name for p in tmp_path.iterdir()] == ["path.sqlite"]


def filled(file):
    """A results file with a bit of everything."""
    store = Store(file, {"fit": "mine"}, TENSORS)
    for place in range(2):
        state = {"w": torch.arange(3.0) + place, "b": torch.ones((), dtype=torch.bfloat16)}
        store.add(
            [(place, fold, {"loss": 0.5 + place}, state) for fold in ("0", "all")], keep_all="all"
        )
    store.keep("on the way", lambda: {"epoch": 3, "betas": (0.9, 0.99), 0: torch.ones(2)}, 0.0)
    store.close()
    return file.read_bytes()


def read(file):
    store = Store(file, {"fit": "mine"}, TENSORS)
    with contextlib.closing(store):
        kept = [store.weights("0"), store.weights("all", 0), store.weights("all", 1)]
        return repr((store.rows(), kept, store.progress("on the way")))


def test_a_flipped_bit_is_found_or_harmless_wherever_it_is(tmp_path):
    """Without checksums 22 of these 400 flips give other numbers without a word."""
    file = tmp_path / "path.sqlite"
    data = filled(file)
    whole = read(file)
    draw, harmless = random.Random(0), 0
    used = [i for i, byte in enumerate(data) if byte]  # the rest is room for more records
    for _ in range(400):
        flipped = bytearray(data)
        flipped[draw.choice(used)] ^= 1 << draw.randrange(8)
        file.write_bytes(flipped)
        try:
            assert read(file) == whole
            harmless += 1
        except ResultsError:
            assert file.read_bytes() == flipped
    assert 0 < harmless < 200
    assert [p.name for p in tmp_path.iterdir()] == ["path.sqlite"]


def test_a_file_that_another_process_has_locked_is_said_so(tmp_path, monkeypatch):
    monkeypatch.setattr("penalize.selection.store.PATIENCE", 0.01)
    file = tmp_path / "path.sqlite"
    before = filled(file)
    other = sqlite3.connect(file, isolation_level=None)
    open_before = Store(file, {"fit": "mine"}, TENSORS)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ResultsError, match=r"sqlite is locked by another process .*; wait until"):
        Store(file, {"fit": "mine"}, TENSORS)
    with pytest.raises(ResultsError, match="is locked by another process"):
        open_before.add([(5, "0", {"loss": 1.0}, None)])
    with pytest.raises(ResultsError, match="is locked by another process"):
        open_before.rows()
    open_before.close()
    other.close()
    assert file.read_bytes() == before
    assert read(file)


class Trap:
    def __reduce__(self):
        return pytest.fail, ("a pickle was run",)


@pytest.mark.parametrize("make", [pickle.dumps, lambda trap: pickle.dumps({"w": trap})])
def test_weights_are_no_pickles(make, tmp_path):
    file = tmp_path / "path.sqlite"
    store = Store(file, {}, TENSORS)
    with contextlib.closing(store), store._transaction():
        store._put(Key("weights", "0", 0), make(Trap()))
    store = Store(file, {}, TENSORS)
    with contextlib.closing(store), pytest.raises(ResultsError, match="is damaged"):
        store.weights("0")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_states_are_encoded_as_they_are(dtype):
    draws = torch.randint(0, 256, (2 * 3 * dtype.itemsize,), dtype=torch.uint8)
    tensor = draws.view(dtype).reshape(2, 3) if dtype != torch.bool else draws.reshape(2, 3) > 99
    state = {
        "w": tensor,
        "part": tensor.t(),
        "number": tensor[0, 0],
        "nothing": tensor[:0],
        3: [1, 2.5, math.inf, None, True, "text", (1, (2,)), {}],
    }
    found = decoded(encoded(state, TENSORS), TENSORS)
    for name in ("w", "part", "number", "nothing"):
        old, new = state.pop(name), found.pop(name)
        assert (new.dtype, new.shape) == (old.dtype, old.shape)
        bits = [t.contiguous().reshape(-1).view(torch.uint8) for t in (old, new)]
        assert torch.equal(*bits)
    assert found == state


def test_what_cannot_be_encoded_is_refused():
    with pytest.raises(PathError, match="A state to be kept has a set; leave saved away"):
        encoded({"w": {1, 2}}, TENSORS)


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(ResultsError, match="is in a folder that does not exist"):
        small(tmp_path / "none" / "path.sqlite")


def test_a_file_that_cannot_be_written_is_said_so_and_keeps_what_it_has(tmp_path):
    """Another path that works at the same file has written a row first."""
    one, other = (Store(tmp_path / "path.sqlite", {}, TENSORS) for _ in range(2))
    weights = {"w": torch.ones(2)}
    one.add([(0, "0", {"loss": 1.0}, weights)])
    with pytest.raises(ResultsError, match=r"path.sqlite cannot be written \(UNIQUE.*another path"):
        other.add([(1, "0", {"loss": 3.0}, None), (0, "0", {"loss": 2.0}, None)])
    assert other.rows() == {(0, "0"): {"loss": 1.0}}
    assert torch.equal(other.weights("0")["w"], weights["w"])
    one.close()
    other.close()


def test_an_empty_file_is_begun(tmp_path):
    file = tmp_path / "path.sqlite"
    file.touch()
    assert len(small(file).rows) == 6


def test_a_copied_file_goes_on_elsewhere(tmp_path):
    """What a path is of is in the file: no name of a machine or a folder."""
    first = small(tmp_path / "path.sqlite")
    (tmp_path / "elsewhere").mkdir()
    copied = shutil.copy(tmp_path / "path.sqlite", tmp_path / "elsewhere")
    assert small(copied).rows == first.rows


def test_nothing_is_kept_on_the_way_without_a_file():
    store = Store(None, {}, TENSORS)
    store.keep("key", lambda: pytest.fail("asked for the state"), 0.0)
    assert store.progress("key") is None
    assert store.rows() == {}
    store.close()
