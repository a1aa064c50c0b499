"""Many processes on one store: nothing is claimed twice, nothing that was acknowledged is lost."""

import multiprocessing
import sqlite3
import subprocess
import sys

import pytest

from atlas.errors import StoreError
from atlas.store import StaleFence, Store

FORK = multiprocessing.get_context("fork")


def _in_processes(number, target, *arguments):
    start, results = FORK.Barrier(number), FORK.Queue()
    processes = [FORK.Process(target=target, args=(index, start, results, *arguments)) for index in range(number)]
    for process in processes:
        process.start()
    answers = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    return answers


def _claim_all(index, start, results, home):
    with Store.open(home) as store:
        start.wait()
        claimed = []
        while run := store.claim(f"scheduler-{index}"):
            store.started(run.id, run.fence, f"{index}:0", [])
            claimed.append(run.id)
        results.put(claimed)


def _add_events(index, start, results, home):
    with Store.open(home) as store:
        start.wait()
        for number in range(50):
            store.event("a-1", "count", f"{index}.{number}")
        results.put(50)


def _open(index, start, results, home):
    start.wait()
    with Store.open(home) as store:
        results.put(store.counts()["queued"])


def test_four_schedulers_never_claim_a_run_twice(store, home, queue):
    expected = [queue(f"run-{number:02d}").name for number in range(60)]
    claims = [run_id for claimed in _in_processes(4, _claim_all, home) for run_id in claimed]
    assert sorted(claims) == expected
    assert {run.fence for run in store.runs()} == {1}
    assert store.counts()["running"] == 60


def test_no_acknowledged_write_of_four_processes_is_lost(store, home, queue):
    queue()
    _in_processes(4, _add_events, home)
    messages = {event.message for event in store.events("a-1") if event.kind == "count"}
    assert messages == {f"{index}.{number}" for index in range(4) for number in range(50)}


def test_processes_that_create_the_store_at_once_share_one(home):
    assert _in_processes(4, _open, home) == [0, 0, 0, 0]


def test_the_oldest_queued_run_is_claimed_first(store, queue):
    queue("b-2", created_seconds=2.0)
    queue("a-1", created_seconds=3.0)
    queue("c-3", created_seconds=1.0)
    assert [store.claim("s").id for _ in range(3)] == ["c-3", "b-2", "a-1"]
    assert store.claim("s") is None


def test_a_named_run_is_claimed_only_while_it_is_queued(store, queue):
    queue("a-1")
    queue("b-2")
    claimed = store.claim("s", "b-2")
    assert (claimed.id, claimed.state, claimed.claimed_by) == ("b-2", "claimed", "s")
    assert store.claim("s", "b-2") is None
    assert store.run("a-1").state == "queued"


def test_who_lost_the_run_cannot_write_to_it(store, running, append):
    run, run_dir = running
    store.finish(run.id, run.fence, "lost")
    store.requeue(run.id, run.fence, "its process is gone")
    again = store.claim("other")
    store.started(again.id, again.fence, "7:8", [])
    append(run_dir / "metrics.jsonl", {"step": 1, "values": {"loss": 1.0}})
    for write in (
        lambda: store.started(run.id, run.fence, "1:2", []),
        lambda: store.requeue(run.id, run.fence, "late"),
        lambda: store.finish(run.id, run.fence, "succeeded"),
        lambda: store.note_terminated(run.id, run.fence, 1.0),
        lambda: store.ingest(run.id, run.fence),
    ):
        with pytest.raises(StaleFence, match=f"fence {again.fence}, this is fence {run.fence}"):
            write()
    now = store.run(run.id)
    assert (now.state, now.handle, now.metrics_offset_bytes) == ("running", "7:8", 0)


def test_a_read_only_store_cannot_write(store, home, queue):
    queue()
    with Store.open_read_only(home) as reader:
        assert reader.run("a-1").state == "queued"
        for write in (
            lambda: reader.claim("s"),
            lambda: reader.event("a-1", "x"),
            lambda: reader.request_cancel("a-1"),
        ):
            with pytest.raises(StoreError, match="reading only"):
                write()
        with reader._reading() as session, pytest.raises(Exception, match="readonly"):
            session.connection().exec_driver_sql("DELETE FROM run")
    assert store.run("a-1").state == "queued"


def test_a_reader_does_not_wait_for_a_writer(store, home, queue):
    queue()
    connection = sqlite3.connect(home / "atlas.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE run SET notes = 'half done'")
    with Store.open_read_only(home) as reader:
        assert reader.run("a-1").notes == ""
    connection.execute("ROLLBACK")
    connection.close()


def test_a_database_that_stays_locked_is_explained(store, home, queue, monkeypatch):
    queue()
    monkeypatch.setattr("atlas.store.database._BUSY_TIMEOUT_SECONDS", 0)
    connection = sqlite3.connect(home / "atlas.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    with Store.open(home) as impatient, pytest.raises(StoreError, match="another process has held it"):
        impatient.event("a-1", "x")
    connection.close()


def test_a_scheduler_killed_in_the_middle_of_a_claim_leaves_the_run_queued(store, home, queue):
    queue()
    script = (
        "import os, signal, sys; from pathlib import Path; import atlas.store.store as module\n"
        "module._note = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "module.Store.open(Path(sys.argv[1])).claim('doomed')"
    )
    assert subprocess.run([sys.executable, "-c", script, str(home)], timeout=60).returncode == -9
    run = store.run("a-1")
    assert (run.state, run.fence) == ("queued", 0)
    assert store.claim("next").fence == 1
