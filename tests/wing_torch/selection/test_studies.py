"""Studies that several processes work at, in a real PostgreSQL: one is killed; what is refused."""

import contextlib
import multiprocessing
import signal
import sqlite3
import sys
import threading
import warnings
from collections import Counter

import optuna
import postgres
import pytest
import sqlalchemy
import torch
from wing_torch.programs import study_runs
from wing_torch.programs.study_runs import TRIALS, Booked, work

from penalize import MissingPackageError, PathError, ResultsError
from penalize.torch.selection import databases, studies

optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(scope="module")
def server():
    with postgres.running() as found:
        yield found


def test_four_processes_one_of_which_is_killed(server, tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([study_runs.__name__, "psycopg"])
    all_four = context.Barrier(4)
    workers = [
        context.Process(target=study_runs.process, args=(all_four, server.url, tmp_path, is_killed))
        for is_killed in (True, False, False, False)
    ]
    for worker in workers:
        worker.start()
    workers[0].join()
    assert workers[0].exitcode == -signal.SIGKILL
    strength = float((tmp_path / f"{workers[0].pid}-1").read_text())
    # Its last sign of life was long ago: nobody waits a minute here.
    storage = optuna.storages.RDBStorage(server.url)
    with storage.engine.begin() as connection:
        past = sqlalchemy.text(
            "UPDATE trial_heartbeats SET heartbeat = heartbeat - interval '1 day' WHERE trial_id = "
            "(SELECT trial_id FROM trial_params WHERE param_value = :strength)"
        )
        assert connection.execute(past, {"strength": strength}).rowcount == 1
    for worker in workers[1:]:
        worker.join()
        assert worker.exitcode == 0
    trials = optuna.load_study(study_name="penalize", storage=storage).trials
    storage.engine.dispose()
    ended = [t for t in trials if t.state.name == "COMPLETE"]
    (dead,) = (t for t in trials if t.state.name == "FAIL")
    # As many as asked for; those that are asked for at one moment may be a few more.
    assert TRIALS <= len(ended) <= TRIALS + 2
    assert len(trials) == len(ended) + 1
    # Nothing is lost: what was in flight is there; and nothing else was run twice.
    drawn = Counter(t.params["kernels: L1.strength"] for t in trials)
    assert drawn.pop(strength) == 2
    assert set(drawn.values()) == {1}
    assert dead.params in [t.params for t in ended]
    runs = Counter(float(book.read_text()) for book in tmp_path.iterdir())
    assert runs == Counter({**drawn, strength: 2})
    # What a process drew does not depend on which one it was.
    alone = work(None, Booked(tmp_path), trials=3).study.trials
    assert [t.params for t in alone] == [t.params for t in trials[:3]]


# --- one process --------------------------------------------------------------------------------


def quick(plan, train, valid):
    """A fit that takes no time."""
    plan.attach(torch.optim.SGD(plan.model.parameters()))
    return plan.rows[0].regularizer.strength


def params(tuned):
    return [trial.params for trial in tuned.study.trials]


def states(tuned):
    return [trial.state.name for trial in tuned.study.trials]


def test_a_study_that_goes_on_draws_what_it_would_have_drawn(tmp_path):
    """A sampler that is seeded once begins again with what it began with."""
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    work(storage, quick, 2)
    whole = params(work(None, quick, 4))
    assert params(work(storage, quick, 4)) == whole
    once = optuna.samplers.TPESampler(seed=0)
    work(storage, quick, 2, name="once", sampler=once)
    again = optuna.samplers.TPESampler(seed=0)
    naive = params(work(storage, quick, 4, name="once", sampler=again))
    assert naive[2:] == naive[:2]


@pytest.fixture
def storage(tmp_path):
    """One whose trials show that they are alive."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        found = optuna.storages.RDBStorage(
            f"sqlite:///{tmp_path / 'study.db'}",
            heartbeat_interval=databases.HEARTBEAT,
            grace_period=databases.GRACE,
            heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(1),
        )
    yield found
    found.engine.dispose()


def dead(storage):
    """Whatever runs has been silent for a day."""
    with storage.engine.begin() as connection:
        past = "UPDATE trial_heartbeats SET heartbeat = datetime(heartbeat, '-1 day')"
        connection.execute(sqlalchemy.text(past))


def test_a_trial_whose_process_has_died_is_begun_again(storage):
    work(storage, quick, 1)

    def died(plan, train, valid):
        raise SystemExit

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studies.Shared, "tell", lambda *_: None)  # as after kill -9
        with pytest.raises(SystemExit):
            work(storage, renamed(died, quick), 2)
    dead(storage)
    found = work(storage, quick, 3)
    assert states(found) == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert params(found)[1] == params(found)[2]
    assert states(work(storage, quick, 3)) == states(found)  # the dead one counts once


def renamed(fit, other):
    fit.__module__, fit.__qualname__ = other.__module__, other.__qualname__
    return fit


def test_a_trial_that_another_process_works_at_is_waited_for(storage, monkeypatch):
    work(storage, quick, 1)
    study = optuna.load_study(study_name="penalize", storage=storage)
    with pytest.warns(UserWarning, match="supposed to be used"):
        other = study.ask()
    storage.record_heartbeat(other._trial_id)
    monkeypatch.setattr(studies.time, "sleep", lambda _: study.tell(other, 0.5))
    assert states(work(storage, quick, 2)) == ["COMPLETE"] * 2
    with pytest.warns(UserWarning, match="supposed to be used"):
        study.ask()  # which has never said that it is alive: nobody waits for it
    assert states(work(storage, quick, 3)) == ["COMPLETE"] * 2 + ["RUNNING", "COMPLETE"]


def test_a_trial_that_was_taken_for_dead_is_not_told_twice(storage):
    """A laptop that slept, say."""
    slept = []

    def sleeps(plan, train, valid):
        if not slept:
            slept.append(True)
            dead(storage)
            study = optuna.load_study(study_name="penalize", storage=storage)
            with pytest.warns(optuna.exceptions.ExperimentalWarning):
                optuna.storages.fail_stale_trials(study)
        return quick(plan, train, valid)

    found = work(storage, sleeps, 2)
    assert states(found) == ["FAIL", "COMPLETE", "COMPLETE"]
    assert params(found)[0] == params(found)[1]


def test_signs_of_life_go_on_while_it_trains(storage, monkeypatch):
    told = threading.Event()
    monkeypatch.setattr(storage, "heartbeat_interval", 0.01)
    record, calls = storage.record_heartbeat, []

    def recorded(trial_id):
        calls.append(trial_id)
        record(trial_id)
        if len(calls) == 3:
            told.set()
            raise sqlalchemy.exc.OperationalError(
                "", {}, Exception("away")
            )  # the next may get there
        if len(calls) > 3:
            told_again.set()

    told_again = threading.Event()
    monkeypatch.setattr(storage, "record_heartbeat", recorded)

    def waits(plan, train, valid):
        assert told.wait(60)
        assert told_again.wait(60)
        return quick(plan, train, valid)

    assert states(work(storage, waits, 1)) == ["COMPLETE"]


# --- what cannot be -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("storage", "error", "said"),
    [
        (
            "postgresql+psycopg://me:hush@127.0.0.1:1/lab",
            ResultsError,
            r"The study 'penalize' in postgresql\+psycopg://me:\*\*\*@127.0.0.1:1/lab "
            r"cannot be opened \(.*refused.*\), and was left as it is; see whether the server "
            "runs, and that host, port, database, user and password are right",
        ),
        (
            "postgresql+psycopg://me@127.0.0.1:1/lab?password=hush",
            ResultsError,
            r"me@127.0.0.1:1/lab\?password=\*\*\* cannot be opened \(",
        ),
        (
            "sqlite:////nowhere/x.db",
            ResultsError,
            r"cannot be opened \(unable to open database fil",
        ),
        ("nonsense", PathError, r"storage='nonsense' is no URL of a database; write \"sqlite:///"),
        ("none+such://me:hush@h/d", PathError, r"storage='none\+such://me:\*\*\*@h/d' is no URL"),
        ("mysql+pymysql://me:hush@h/d", MissingPackageError, r"me:\*\*\*@h/d needs pymysql, which"),
    ],
)
def test_a_database_that_is_not_there(storage, error, said):
    with pytest.raises(error, match=said) as raised:
        work(storage, quick, 1)
    assert "hush" not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert raised.value.__suppress_context__  # SQLAlchemy's sixty lines


def test_without_a_driver(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingPackageError, match=r"needs psycopg.*its extra \[postgresql\]"):
        work("postgresql+psycopg://me:hush@h/d", quick, 1)


def test_a_full_disk(tmp_path):
    """SQLite may not take another page; what has ended is there, and goes on when there is room."""
    full = []
    file = tmp_path / "study.db"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.executescript("PRAGMA page_size = 512; VACUUM")  # full after a few trials
    storage = optuna.storages.RDBStorage(f"sqlite:///{file}", {"poolclass": sqlalchemy.NullPool})

    @sqlalchemy.event.listens_for(storage.engine, "connect")
    def connect(connection, _):
        connection.execute("PRAGMA synchronous = OFF")
        if full:
            connection.execute("PRAGMA max_page_count = 1")  # not below what it has

    work(storage, quick, 1)
    full.append(True)
    with pytest.raises(
        ResultsError, match=r"'penalize' in sqlite.*study.db is full \(.*disk is full"
    ):
        work(storage, quick, 50)
    kept = [t.params for t in optuna.load_study(study_name="penalize", storage=storage).trials]
    full.clear()
    found = work(storage, quick, len(kept) + 1)
    assert params(found)[: len(kept)] == kept
    assert states(found).count("COMPLETE") == len(kept) + 1


def test_a_full_server(server):
    """PostgreSQL says so for each row of a trial that ends."""
    quota = (
        "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION "
        "'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$",
        "CREATE TRIGGER no_room BEFORE INSERT ON trial_values EXECUTE FUNCTION no_room()",
    )
    work(server.url, quick, 2, name="full")
    execute(server, *quota)
    with pytest.raises(
        ResultsError, match=r"penalize:\*\*\*@.*is full \(.*No space.*make room, and"
    ):
        work(server.url, quick, 3, name="full")
    execute(server, "DROP TRIGGER no_room ON trial_values")
    execute(server, "UPDATE trial_heartbeats SET heartbeat = heartbeat - interval '1 day'")
    found = work(server.url, quick, 3, name="full")
    assert states(found) == ["COMPLETE"] * 2 + ["FAIL", "COMPLETE"]
    close(found)


def test_a_server_that_is_started_anew(server, monkeypatch):
    """While a trial runs, and while the study waits for it."""
    calls = []

    def restarts(plan, train, valid):
        calls.append("run")
        if len(calls) == 2:
            server.stop()
        return quick(plan, train, valid)

    def sleep(seconds):
        calls.append(seconds)
        server.start()

    monkeypatch.setattr(databases.time, "sleep", sleep)
    found = work(server.url, restarts, 3, name="anew")
    assert calls == ["run", "run", 1, "run"]
    assert states(found) == ["COMPLETE"] * 3
    close(found)


def test_a_database_that_the_server_does_not_have(server):
    url = server.url.replace("/postgres?", "/nowhere?")
    with pytest.raises(ResultsError, match=r'opened \(.*database "nowhere" does not exist\), and'):
        work(url, quick, 1)


def execute(server, *statements):
    engine = sqlalchemy.create_engine(server.url)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sqlalchemy.text(statement))
    engine.dispose()


def close(tuned):
    """The study was asked after its end, which has opened its storage again."""
    tuned.study._storage._backend.engine.dispose()
