import json
import math
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atlas.run import CLOCKS
from atlas.store import Store, database, reindex
from atlas.store.blocks import BLOCK_STEPS
from atlas.store.migrations.versions import revision_0002

SLOW = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
VALUES = st.one_of(st.floats(), st.integers(-3, 3).map(float))
STEPS = st.one_of(st.integers(0, 3 * BLOCK_STEPS), st.sampled_from([63, 64, 127, 128, 2**63 - 1]))
LINES = st.one_of(
    st.tuples(st.just("metric"), STEPS, st.dictionaries(st.sampled_from("ab"), VALUES, max_size=2)),
    st.tuples(st.just("rewind"), st.one_of(STEPS, st.just(-1))),
)


def metric(step, values, **clocks):
    return {"step": step, "values": values, "clocks": clocks}


def write(append, run_dir, lines):
    documents = [metric(line[1], line[2]) if line[0] == "metric" else {"rewind": line[1]} for line in lines]
    append(run_dir / "metrics.jsonl", *documents)


def stored(store, run_id, name):
    with store.snapshot() as snapshot:
        found = snapshot.blocks(snapshot.marks([run_id])[run_id], name)
    return [tuple(row) for row in found.tolist()]


def summed(store, run_id, name):
    """The blocks of a metric as its rows say them, one at a time."""
    blocks = {}
    for step, value in store.metrics(run_id, name):
        blocks.setdefault(step // BLOCK_STEPS, []).append((step, value))
    summaries = []
    for block, points in sorted(blocks.items()):
        finite = [(value, step) for step, value in points if math.isfinite(value)]
        low = min(finite, default=(math.nan, -1))
        high = max(finite, key=lambda point: (point[0], -point[1]), default=(math.nan, -1))
        total = sum(value for value, _ in finite) if finite else math.nan
        summaries.append((block, len(finite), len(points) - len(finite), total, *low, *high))
    return summaries


def assert_blocks_say_what_the_rows_say(store, run_id):
    for name in "ab":
        found, expected = stored(store, run_id, name), summed(store, run_id, name)
        assert len(found) == len(expected)
        for block, reference in zip(found, expected, strict=True):
            assert block[:3] == reference[:3]
            np.testing.assert_array_equal(block[4:], reference[4:])
            largest = max(abs(reference[4]), abs(reference[6]))
            if largest * BLOCK_STEPS < 1e308:
                assert block[3] == pytest.approx(reference[3], rel=1e-9, abs=1e-12 * largest)


@SLOW
@given(chunks=st.lists(st.lists(LINES, max_size=8), max_size=4))
def test_blocks_say_what_the_rows_say_after_any_stream_in_any_portions(store, queue, append, chunks):
    run_dir = queue(f"run-{len(store.runs())}")
    for chunk in chunks:
        write(append, run_dir, chunk)
        store.ingest(run_dir.name)
        assert_blocks_say_what_the_rows_say(store, run_dir.name)


@SLOW
@given(chunks=st.lists(st.lists(LINES, min_size=1, max_size=5), min_size=1, max_size=5))
def test_reading_from_the_block_of_a_mark_on_misses_nothing_while_rewrites_stay(store, queue, append, chunks):
    run_dir = queue(f"run-{len(store.runs())}")
    known, rows, mark = [], [], None
    for chunk in chunks:
        write(append, run_dir, chunk)
        store.ingest(run_dir.name)
        with store.snapshot() as snapshot:
            now = snapshot.marks([run_dir.name])[run_dir.name]
            block = mark.block if mark and now.rewrites == mark.rewrites else 0
            known = [kept for kept in known if kept[0] < block] + snapshot.blocks(now, "a", block).tolist()
            rows = [row for row in rows if row[0] < block * BLOCK_STEPS] + snapshot.rows(now, "a", block).tolist()
        mark = now
        assert repr(known) == repr(stored(store, run_dir.name, "a"))
        assert repr(rows) == repr(store.metrics(run_dir.name, "a"))


def test_a_clock_that_was_set_again_far_behind_is_a_rewrite_and_a_near_one_is_not(store, running, append):
    run, run_dir = running
    file = run_dir / "metrics.jsonl"
    append(file, *[metric(step, {"a": 1.0}, wall_seconds=step) for step in (0, 70, 100)])
    store.ingest(run.id)
    assert store.run(run.id).metrics_rewrites == 0
    append(file, metric(70, {"b": 1.0}, wall_seconds=99))
    store.ingest(run.id)
    assert store.run(run.id).metrics_rewrites == 0
    append(file, metric(0, {}, wall_seconds=99))
    store.ingest(run.id)
    assert store.run(run.id).metrics_rewrites == 1


def test_a_file_that_is_read_again_from_its_start_is_a_rewrite_and_leaves_no_blocks(store, running, append):
    run, run_dir = running
    append(run_dir / "metrics.jsonl", *[metric(step, {"a": 1.0}) for step in range(100)])
    store.ingest(run.id)
    (run_dir / "metrics.jsonl").write_text(json.dumps(metric(0, {"b": 1.0})) + "\n")
    store.ingest(run.id)
    assert store.run(run.id).metrics_rewrites == 1
    assert stored(store, run.id, "a") == []
    assert_blocks_say_what_the_rows_say(store, run.id)


@SLOW
@given(lines=st.lists(LINES, max_size=12))
def test_a_database_from_before_the_blocks_gets_them_when_it_is_migrated(store, queue, append, lines):
    run_dir = queue(f"run-{len(store.runs())}")
    write(append, run_dir, lines)
    store.ingest(run_dir.name)
    with closing(database._connect(store.path, "rw")) as connection:
        connection.execute("DELETE FROM metric_block")
        connection.execute(revision_0002._FILL)
    assert_blocks_say_what_the_rows_say(store, run_dir.name)


def test_a_database_of_the_first_schema_is_opened_with_its_blocks_filled(home, store, queue, append):
    run_dir = queue()
    append(run_dir / "metrics.jsonl", *[metric(step, {"a": step}) for step in range(130)])
    store.ingest("a-1")
    expected = stored(store, "a-1", "a")
    store.close()
    with closing(sqlite3.connect(home / "atlas.db")) as connection, connection:
        connection.execute("DROP TABLE metric_block")
        connection.execute("ALTER TABLE run DROP COLUMN metrics_rewrites")
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    with Store.open(home) as migrated:
        assert stored(migrated, "a-1", "a") == expected and len(expected) == 3
        assert migrated.run("a-1").metrics_rewrites == 0


def test_clocks_are_read_at_the_steps_that_were_asked_for(store, running, append):
    run, run_dir = running
    append(
        run_dir / "metrics.jsonl",
        *[metric(step, {"a": 1.0}, wall_seconds=2.0 * step) for step in range(5)],
        metric(7, {"a": 1.0}),
    )
    store.ingest(run.id)
    with store.snapshot() as snapshot:
        mark = snapshot.marks([run.id])[run.id]
        clocks = snapshot.clocks(mark, np.array([1, 3, 7]))
        nothing = snapshot.clocks(mark, np.array([], dtype=np.int64))
    np.testing.assert_array_equal(clocks[CLOCKS.index("wall_seconds")], [2, 6, math.nan])
    assert np.isnan(clocks[CLOCKS.index("rollouts")]).all()
    assert nothing.shape == (len(CLOCKS), 0)


def test_a_snapshot_does_not_change_while_it_is_open(store, running, append):
    run, run_dir = running
    append(run_dir / "metrics.jsonl", metric(1, {"a": 1.0}))
    store.ingest(run.id)
    with store.snapshot() as snapshot:
        mark = snapshot.marks([run.id, "nope"])[run.id]
        append(run_dir / "metrics.jsonl", metric(2, {"a": 2.0}))
        store.ingest(run.id)
        assert snapshot.rows(mark, "a").tolist() == [(1, 1.0)]
        assert snapshot.marks([run.id]) == {run.id: mark}


@SLOW
@given(values=st.lists(st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf, -math.inf]), max_size=150))
def test_the_total_of_a_metric_is_the_sum_of_its_values(store, queue, append, values):
    run_dir = queue(f"run-{len(store.runs())}")
    append(run_dir / "metrics.jsonl", *[metric(step, {"a": value}) for step, value in enumerate(values)])
    store.ingest(run_dir.name)
    expected = {"a": pytest.approx(sum(values), rel=1e-9, abs=1e-6, nan_ok=True)} if values else {}
    assert store.totals(run_dir.name, ["a", "b"]) == expected


def test_a_rebuilt_database_has_the_same_blocks(home, store, append):
    run_dir = home / "runs" / "a-1"
    run_dir.mkdir(parents=True)
    job = {"name": "a", "method": {"type": "sft"}, "student": {"model": "s"}, "dataset": {"type": "d"}}
    document = {
        "run_id": "a-1",
        "digest": "d",
        "submitted_at_seconds": 1.0,
        "job": job | {"executor": {"type": "local"}},
    }
    (run_dir / "spec.json").write_text(json.dumps(document))
    append(run_dir / "metrics.jsonl", *[metric(step, {"a": step % 7}) for step in range(100)], {"rewind": 80})
    append(run_dir / "metrics.jsonl", metric(90, {"a": "NaN"}))
    store.close()
    assert reindex(home, lambda _: None) == 1
    with Store.open_read_only(home) as rebuilt:
        assert_blocks_say_what_the_rows_say(rebuilt, "a-1")
        assert [block[:3] for block in stored(rebuilt, "a-1", "a")] == [(0, 64, 0), (1, 17, 1)]
