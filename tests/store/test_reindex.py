import json
import os
import sqlite3
from contextlib import closing

import pytest

from atlas.errors import StoreError
from atlas.store import Store, enqueue_arguments, reindex

RELIVED = {"number", "state", "fence", "claimed_by", "handle", "gpus", "claimed_seconds", "started_seconds",
           "ended_seconds", "exit_code", "run_dir"}  # fmt: skip
"""What only the database knew, or what reindexing does itself."""


def document(run_id, submitted_seconds, **job):
    return {
        "run_id": run_id,
        "digest": f"digest of {run_id}",
        "submitted_at_seconds": submitted_seconds,
        "job": {
            "name": "a",
            "method": {"type": "gkd", "lmbda": 1.0},
            "student": {"model": "org/student"},
            "teacher": {"model": "org/teacher"},
            "dataset": {"type": "gsm8k"},
            "executor": {"type": "local"},
            "training": {"max_steps": 20},
            "resources": {"gpus": None},
            "tags": ["t"],
            "notes": "n",
        }
        | job,
    }


def nobody(run_dir):
    """No worker is at work."""


@pytest.fixture
def write(home, append):
    """Writes a run directory as a worker leaves it."""

    def write(run_id, submitted_seconds=1.0, result=None, **job):
        run_dir = home / "runs" / run_id
        run_dir.mkdir(parents=True)
        spec = document(run_id, submitted_seconds, **job)
        (run_dir / "spec.json").write_text(json.dumps(spec))
        clocks = {"wall_seconds": 1.0}
        append(
            run_dir / "metrics.jsonl",
            {"step": 10, "values": {"loss": 1.0}, "clocks": clocks},
            {"step": 20, "values": {"loss": 9.0}, "clocks": clocks},
            {"rewind": 10},
            {"event": "checkpoint", "message": "passed over"},
            {"progress": {"phase": "train", "step": 20, "total": 20}},
            {"step": 20, "values": {"loss": "NaN", "eval/pass_rate": 0.5}, "clocks": clocks},
            "torn\n",
        )
        sample = {"split": "test", "problem_id": "p", "completion": run_id, "found": False, "correct": False,
                  "tokens": 1, "clipped": False}  # fmt: skip
        append(run_dir / "samples.jsonl", {"step": 20, **sample})
        if result:
            (run_dir / "result.json").write_text(json.dumps({"step": 20, "planned_step": 20} | result))
            os.utime(run_dir / "result.json", (5000, 5000))
        return run_dir, spec

    return write


def measurements(store, run_id):
    """All that was measured in a run, without the numbers that the database chose itself."""
    return repr(
        (
            [(name, store.metrics(run_id, name)) for name in store.metric_names(run_id)],
            store.latest(run_id),
            store.clocks(run_id),
            [sample.model_dump(exclude={"number", "run"}) for sample in store.samples(run_id)],
            [(e.kind, e.message) for e in store.events(run_id) if e.kind.startswith(("worker:", "ingest:"))],
            json.loads(store.spec(run_id)),
            store.run(run_id).model_dump(exclude=RELIVED),
        )
    )


def test_a_rebuilt_database_holds_what_the_original_held(home, write):
    with Store.open(home) as store:
        for number, run_id in enumerate(("b-2", "a-1")):
            run_dir, spec = write(run_id, number, {"state": "succeeded"})
            store.enqueue(**enqueue_arguments(spec), run_dir=run_dir)
            fence = store.claim("s").fence
            store.started(run_id, fence, "1:2", [])
            store.ingest(run_id)
            store.finish(run_id, fence, "succeeded")
        original = {run.id: measurements(store, run.id) for run in store.runs()}
    assert reindex(home, nobody) == 2
    with Store.open_read_only(home) as store:
        assert {run.id: measurements(store, run.id) for run in store.runs()} == original
        assert [run.id for run in store.runs(states=("succeeded",))] == ["a-1", "b-2"]


@pytest.mark.parametrize(
    ("result", "state", "reason"),
    [
        (None, "lost", None),
        ({"state": "succeeded"}, "succeeded", None),
        ({"state": "succeeded", "step": 7}, "failed", "error"),
        ({"state": "failed", "reason": "out_of_memory", "message": "m"}, "failed", "out_of_memory"),
        ({"state": "stopped", "step": 7}, "cancelled", None),
        ({"state": "from the future"}, "lost", None),
    ],
)
def test_a_run_gets_the_state_that_its_result_proves(home, write, result, state, reason):
    write("a-1", 1.0, result)
    assert reindex(home, nobody) == 1
    with Store.open(home) as store:
        run = store.run("a-1")
        assert (run.state, run.reason) == (state, reason)
        assert run.ended_seconds == 5000 or state == "lost"
        assert (run.created_seconds, run.planned_steps) == (1.0, 20)
        if state != "succeeded":
            store.resume("a-1")
            assert store.claim("s").id == "a-1"


def test_a_damaged_database_is_replaced_and_kept_aside(home, write, caplog):
    write("a-1")
    (home / "atlas.db").write_text("not a database" * 1000)
    (home / "atlas.db-wal").write_bytes(b"an old log")
    assert reindex(home, nobody) == 1
    assert "is damaged" in caplog.text
    assert (home / "atlas.db.bak-reindex").read_text().startswith("not a database")
    with Store.open(home) as store:
        assert store.run("a-1").state == "lost"
    assert list(home.glob("atlas.db.reindex*")) == []


def test_what_the_old_log_held_does_not_leak_into_the_new_database(home, write, store, queue):
    """A write-ahead log that is left beside a replaced database is replayed into it."""
    queue("only-in-the-database")
    store.close()
    with closing(sqlite3.connect(home / "atlas.db")) as killed:
        killed.execute("PRAGMA wal_autocheckpoint = 0")
        killed.execute("UPDATE run SET notes = 'in the log'")
        killed.commit()
        log = (home / "atlas.db-wal").read_bytes()
    (home / "atlas.db-wal").write_bytes(log)
    write("a-1")
    assert reindex(home, nobody) == 1
    with Store.open(home) as rebuilt, closing(sqlite3.connect(home / "atlas.db.bak-reindex")) as backup:
        assert [run.id for run in rebuilt.runs()] == ["a-1"]
        assert backup.execute("SELECT id, notes FROM run").fetchall() == [("only-in-the-database", "in the log")]


def test_a_database_in_use_is_not_pulled_away(home, write, store):
    write("a-1")
    store.counts()
    with pytest.raises(StoreError, match="is in use"):
        reindex(home, nobody)
    assert store.runs() == []


def test_a_directory_that_is_no_run_is_passed_over_with_a_warning(home, write, caplog):
    write("a-1")
    for name, text in (("torn", '{"run_id": "x"'), ("other", "[1]"), ("old", '{"run_id": "x", "job": {}}')):
        (home / "runs" / name).mkdir()
        (home / "runs" / name / "spec.json").write_text(text)
    (home / "runs" / "empty").mkdir()
    copy = home / "runs" / "copy"
    copy.mkdir()
    (copy / "spec.json").write_text((home / "runs" / "a-1" / "spec.json").read_text())
    assert reindex(home, nobody) == 1
    for name in ("torn", "other", "old", "empty"):
        assert f"passed over {home / 'runs' / name}" in caplog.text
    assert "there is a run a-1 already" in caplog.text


def test_reindexing_nothing_makes_an_empty_database(home):
    assert reindex(home, nobody) == 0
    with Store.open_read_only(home) as store:
        assert store.runs() == []


def test_a_run_that_is_being_worked_on_goes_on_running(home, write):
    write("a-1")
    assert reindex(home, lambda run_dir: ("12:34", [1])) == 1
    with Store.open(home) as store:
        run = store.run("a-1")
    assert (run.state, run.handle, run.gpus) == ("running", "12:34", [1])
