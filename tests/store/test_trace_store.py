"""The store of traces: its file, reviews and exports."""

import hashlib
import os
import sqlite3
import stat
from contextlib import closing

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from trace_lines import attempt, begin, whole, write

from atlas.errors import NotFoundError, StoreError
from atlas.store import Store, models
from atlas.store.traces import TraceStore
from atlas.store.traces.models import METADATA
from atlas.traces.filter import Filter


@pytest.fixture
def traces(tmp_path):
    with TraceStore.open(tmp_path / "home") as store:
        store.import_file(
            write(
                tmp_path / "t.jsonl",
                *whole("passed-1", 1, True, tags=["x"]),
                *whole("passed-2", 2, True),
                *whole("failed-1", 3, False, tags=["x"]),
                *whole("unscored", 4, None),
            )
        )
        yield store


def statuses(store):
    return {row.id: row.status for row in store.rows()}


def test_models_and_migrations_say_the_same(traces, tmp_path):
    migrated = sqlalchemy.create_engine(f"sqlite:///{traces.path}")
    with migrated.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), METADATA) == []
    created = tmp_path / "created.db"
    METADATA.create_all(sqlalchemy.create_engine(f"sqlite:///{created}"))
    found = []
    for path in (traces.path, created):
        with closing(sqlite3.connect(path)) as connection:
            names = "SELECT name FROM sqlite_master WHERE name != 'alembic_version' ORDER BY name"
            found.append([name for (name,) in connection.execute(names) if "alembic" not in name])
    assert found[0] == found[1]


def test_runs_and_traces_have_no_table_in_common():
    assert not METADATA.tables.keys() & models.METADATA.tables.keys()


def test_only_the_owner_can_read_any_file(tmp_path):
    previous = os.umask(0)
    try:
        with TraceStore.open(tmp_path / "home") as store:
            store.import_file(write(tmp_path / "t.jsonl", begin()))
            store.export(Filter(), tmp_path / "home" / "out.jsonl")
            files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "home").iterdir()}
    finally:
        os.umask(previous)
    assert {"traces.db", "traces.db-wal", "out.jsonl"} <= files.keys()
    assert set(files.values()) == {0o600}


def test_runs_are_in_another_file(traces, tmp_path):
    with Store.open(tmp_path / "home") as store:
        assert store.runs() == []
    assert traces.count() == 4


def test_reading_needs_a_database_and_makes_none(tmp_path):
    with pytest.raises(StoreError, match=r"there is no database .*traces\.db; `atlas traces import FILE` makes it"):
        TraceStore.open_read_only(tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_a_damaged_database_is_explained(tmp_path):
    (tmp_path / "traces.db").write_text("my shopping list\n" * 500)
    with pytest.raises(StoreError, match=r"not an intact SQLite database.*put a backup in its place"):
        TraceStore.open(tmp_path)


def test_a_read_only_store_changes_nothing(traces, tmp_path):
    with TraceStore.open_read_only(tmp_path / "home") as store:
        assert store.count() == 4
        for change in (
            lambda: store.review(["unscored"], "approved", "me"),
            lambda: store.review_all(Filter(), "approved", "me"),
            lambda: store.import_file(tmp_path / "t.jsonl"),
        ):
            with pytest.raises(StoreError, match="opened for reading only"):
                change()


def test_a_session_is_found_by_the_start_of_its_id(traces):
    assert traces.session("f").id == "failed-1"
    assert traces.session("passed-1").id == "passed-1"
    with pytest.raises(NotFoundError, match=r"'passed' could be several sessions, such as 'passed-1', 'passed-2'"):
        traces.session("passed")
    for reference in ("", "passed-3", "%", "pass_d-1"):
        with pytest.raises(NotFoundError, match="no session"):
            traces.session(reference)


def test_an_id_that_starts_another_is_itself(traces, tmp_path):
    traces.import_file(write(tmp_path / "u.jsonl", begin("fail"), begin("fail-2")))
    assert traces.session("fail").id == "fail"


def test_reviews_are_a_history(traces):
    assert traces.reviews("unscored") == []
    assert traces.session("unscored").review is None
    assert traces.review(["unscored"], "approved", "rule:x") == 1
    assert traces.review(["unscored", "passed-1"], "approved", "me") == 1
    assert traces.review(["unscored"], "quarantined", "me", "on second thought") == 1
    assert [(r.status, r.by, r.reason) for r in traces.reviews("unscored")] == [
        ("approved", "rule:x", None),
        ("quarantined", "me", "on second thought"),
    ]
    assert traces.session("unscored").review == traces.reviews("unscored")[-1]
    row = traces.row("unscored")
    assert (row.status, row.reviewed_by) == ("quarantined", "me")
    assert row.reviewed_seconds == traces.reviews("unscored")[-1].at_seconds


def test_reviews_are_all_or_nothing(traces):
    with pytest.raises(NotFoundError):
        traces.review(["unscored", "nobody"], "approved", "me")
    assert set(statuses(traces).values()) == {"unreviewed"}


def test_a_filter_reviews_what_it_means(traces):
    assert traces.review_all(Filter(scorer="answer", outcome="passed"), "approved", "rule:passed", "it passed") == 2
    assert statuses(traces) == {
        "passed-1": "approved",
        "passed-2": "approved",
        "failed-1": "unreviewed",
        "unscored": "unreviewed",
    }
    assert traces.review_all(Filter(tags=("x",)), "approved", "me") == 1
    assert [r.by for r in traces.reviews("passed-1")] == ["rule:passed"]


def test_a_review_of_less_than_there_is_is_refused(traces, tmp_path):
    seen = {"unscored": traces.row("unscored").records}
    traces.import_file(write(tmp_path / "u.jsonl", attempt("late", "unscored", 50)))
    with pytest.raises(StoreError, match="session 'unscored' has 1 more records than were shown; look at it again"):
        traces.review(["unscored"], "approved", "me", seen=seen)
    assert statuses(traces)["unscored"] == "unreviewed"
    traces.review(["unscored"], "approved", "me", seen={"unscored": traces.row("unscored").records})
    assert statuses(traces)["unscored"] == "approved"


def test_an_export_can_be_imported_and_says_the_same(traces, tmp_path):
    traces.review_all(Filter(outcome="passed"), "approved", "me")
    report = traces.export(Filter(status=("approved",)), tmp_path / "out.jsonl")
    assert (report.sessions, report.records, report.left_out) == (2, 8, {"unreviewed": 2})
    assert (tmp_path / "out.jsonl").read_text().count('"type":"review"') == 2
    with TraceStore.open(tmp_path / "other") as other:
        back = other.import_file(tmp_path / "out.jsonl")
        assert (back.new, back.bad, back.reviews_ignored) == (8, [], 2)
        assert set(statuses(other).values()) == {"unreviewed"}
        for session in traces.sessions(Filter(status=("approved",))):
            assert other.session(session.id).attempts == session.attempts


def test_equal_sessions_make_equal_bytes(traces, tmp_path):
    digests = set()
    for number, lines in enumerate([[*whole("a", 1), *whole("b", 1)], [*whole("b", 1), *whole("a", 1)]]):
        with TraceStore.open(tmp_path / str(number)) as store:
            store.import_file(write(tmp_path / f"{number}.jsonl", *lines))
            for _ in range(2):
                store.export(Filter(), tmp_path / "out.jsonl")
                digests.add(hashlib.sha256((tmp_path / "out.jsonl").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_an_export_that_fails_leaves_what_was_there(traces, tmp_path, monkeypatch):
    path = write(tmp_path / "out.jsonl", "mine")

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match=r"cannot write .*out\.jsonl.*No space left"):
        traces.export(Filter(), path)
    assert path.read_text() == "mine\n"
    assert not list(tmp_path.glob(".out*"))
    with pytest.raises(StoreError, match="name a file in a folder that you can write to"):
        traces.export(Filter(), tmp_path / "none" / "out.jsonl")
