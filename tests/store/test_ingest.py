"""What a worker writes arrives once, whole, and in spite of everything that can be wrong with a line."""

import json
import math
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atlas.run import CLOCKS
from atlas.store import Store, ingest, stream

SAMPLE = {
    "split": "test", "problem_id": "p1", "completion": "#### 4", "extracted": "4", "found": True, "correct": True,
    "tokens": 3, "clipped": False, "sample": 0,
}  # fmt: skip


def metric(step, clocks=None, **values):
    return {"step": step, "clocks": clocks or {}, "values": values}


def bad_lines(store, run):
    return [event.message for event in store.events(run.id) if event.kind == "ingest:bad_lines"]


def test_metrics_clocks_progress_and_events_arrive(store, running, append):
    run, run_dir = running
    clocks = {clock: float(number) for number, clock in enumerate(CLOCKS)}
    append(
        run_dir / "metrics.jsonl",
        {"progress": {"phase": "load", "step": None, "total": None}},
        metric(0, clocks, **{"eval/pass_rate": 0.25}),
        {"progress": {"phase": "train", "step": 1, "total": 40}},
        {"event": "checkpoint", "message": "step 1"},
        metric(1, clocks | {"wall_seconds": 9.0}, **{"train/loss": 2, "eval/pass_rate": 0.5}),
    )
    append(run_dir / "samples.jsonl", {"step": 0, **SAMPLE}, {"step": 1, **SAMPLE})
    assert store.ingest(run.id, run.fence) == 7
    assert store.metric_names(run.id) == ["eval/pass_rate", "train/loss"]
    assert store.metrics(run.id, "eval/pass_rate") == [(0, 0.25), (1, 0.5)]
    assert store.latest(run.id) == {"eval/pass_rate": 0.5, "train/loss": 2.0}
    assert store.clocks(run.id) == {0: clocks, 1: clocks | {"wall_seconds": 9.0}}
    assert [event.message for event in store.events(run.id) if event.kind == "worker:checkpoint"] == ["step 1"]
    now = store.run(run.id)
    assert (now.step, now.phase, now.progress_step, now.progress_total, now.planned_steps) == (1, "train", 1, 40, 40)
    assert [(sample.step, sample.completion, sample.found) for sample in store.samples(run.id)] == [
        (0, "#### 4", True), (1, "#### 4", True),
    ]  # fmt: skip
    assert store.ingest(run.id, run.fence) == 0


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("quote", ['"', ""], ids=["word", "token"])
def test_what_is_not_finite_stays_visible_and_does_not_stop_the_rest(store, running, append, word, quote):
    run, run_dir = running
    append(
        run_dir / "metrics.jsonl",
        f'{{"step": 5, "values": {{"loss": {quote}{word}{quote}, "n": 1}}}}\n',
        metric(6, n=2),
    )
    assert store.ingest(run.id) == 2
    [(step, value)] = store.metrics(run.id, "loss")
    assert step == 5
    assert str(value) == str(float(word))
    assert str(store.latest(run.id)["loss"]) == str(float(word))
    assert store.metrics(run.id, "n") == [(5, 1.0), (6, 2.0)]
    assert bad_lines(store, run) == []


def test_integers_beyond_64_bits_become_reals(store, running, append):
    run, run_dir = running
    append(run_dir / "metrics.jsonl", metric(1, n=10**30, small=-(2**63) - 1, huge=10**400, least=-(10**400)))
    store.ingest(run.id)
    assert store.latest(run.id) == {"n": 1e30, "small": -(2.0**63), "huge": math.inf, "least": -math.inf}


def test_the_last_value_of_a_step_wins(store, running, append):
    run, run_dir = running
    append(run_dir / "metrics.jsonl", metric(3, loss=1.0), metric(3, loss=1.5))
    store.ingest(run.id)
    assert store.metrics(run.id, "loss") == [(3, 1.5)]
    append(run_dir / "metrics.jsonl", metric(3, loss="NaN"), metric(2, loss=7.0), metric(3, loss=2.0))
    store.ingest(run.id)
    assert store.metrics(run.id, "loss") == [(2, 7.0), (3, 2.0)]
    assert store.latest(run.id) == {"loss": 2.0}


def test_a_torn_last_line_waits_for_its_newline(store, running, append):
    run, run_dir = running
    line = json.dumps(metric(2, loss=0.5)) + "\n"
    append(run_dir / "metrics.jsonl", metric(1, loss=1.0))
    for cut in range(len(line)):
        append(run_dir / "metrics.jsonl", line[cut])
        store.ingest(run.id)
        assert store.metrics(run.id, "loss") == [(1, 1.0)] + [(2, 0.5)] * (cut == len(line) - 1)
    assert bad_lines(store, run) == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"step": 1, "values": {"loss": 1', "not JSON"),
        ('{"step": 1, "va{"step": 2, "values": {"loss": 1}}', "not JSON"),
        ("[1, 2]", "expected a JSON object, got [1, 2]"),
        ("[" * 100_000, "not JSON"),
        ("9" * 5000, "not JSON"),
        ('{"hello": 1}', 'got the keys ["hello"]'),
        ("{}", "got the keys []"),
        ('{"step": -1, "values": {"loss": 1}}', "step is negative: expected 0 or more, got -1"),
        ('{"step": 9223372036854775808, "values": {"loss": 1}}', "step is too large"),
        ('{"step": 1.5, "values": {"loss": 1}}', "step: expected a whole number, got 1.5"),
        ('{"step": true, "values": {"loss": 1}}', "step: expected a whole number, got true"),
        ('{"step": "3", "values": {"loss": 1}}', 'step: expected a whole number, got "3"'),
        ('{"values": {"loss": 1}}', "step: expected a whole number, got null"),
        ('{"step": 1, "values": [1]}', "values: expected a JSON object, got [1]"),
        ('{"step": 1, "values": {"": 1}}', "metric name is empty"),
        ('{"step": 1, "values": {" ": 1}}', "metric name is empty"),
        ('{"step": 1, "values": {"%s": 1}}' % ("a" * 201), "metric name is too long: expected at most 200 characters"),
        ('{"step": 1, "values": {"loss": "0.5"}}', 'one of NaN, Infinity, -Infinity, got "0.5"'),
        ('{"step": 1, "values": {"loss": null}}', "loss: expected a number"),
        ('{"step": 1, "values": {"loss": true}}', "loss: expected a number"),
        ('{"step": 1, "values": {"loss": [1]}}', "loss: expected a number"),
        ('{"step": 1, "values": {}, "clocks": {"wall_seconds": "noon"}}', "wall_seconds: expected a number"),
        ('{"step": 1, "values": {}, "clocks": 3}', "clocks: expected a JSON object"),
        ('{"rewind": -2}', "rewind is negative"),
        ('{"rewind": null}', "rewind: expected a whole number"),
        ('{"progress": "train"}', "progress: expected a JSON object"),
        ('{"progress": {"phase": 3}}', "phase: expected text"),
        ('{"event": 3}', "event: expected text"),
        ('{"event": "x", "message": {"a": "' + "y" * 999 + '"}}', "yyy..."),
        ("\udcff\udcfe", "not JSON"),
    ],
)  # fmt: skip
def test_a_bad_line_is_recorded_with_its_place_and_costs_only_itself(store, running, line, says):
    run, run_dir = running
    first = json.dumps(metric(1, good=1.0)) + "\n"
    text = first + line + "\n" + json.dumps(metric(2, good=2.0)) + "\n"
    (run_dir / "metrics.jsonl").write_bytes(text.encode("utf-8", "surrogateescape"))
    store.ingest(run.id)
    assert store.metrics(run.id, "good") == [(1, 1.0), (2, 2.0)]
    assert "loss" not in store.metric_names(run.id)
    [message] = bad_lines(store, run)
    assert message.startswith(f"metrics.jsonl, 1 bad: byte {len(first)}: ")
    assert says in message
    assert len(message) < 300


def test_a_bad_name_or_value_costs_only_itself_within_its_line(store, running, append):
    run, run_dir = running
    append(run_dir / "metrics.jsonl", metric(1, {"wall_seconds": 3.0}, **{"": 1, "loss": 2, "note": "high"}))
    store.ingest(run.id)
    assert store.latest(run.id) == {"loss": 2.0}
    assert store.curve(run.id, "loss", "wall_seconds") == [(3.0, 2.0)]
    assert "2 bad" in bad_lines(store, run)[0]


def test_many_bad_lines_are_one_event(store, running, append):
    run, run_dir = running
    append(run_dir / "metrics.jsonl", *["garbage\n"] * 1000)
    store.ingest(run.id)
    [message] = bad_lines(store, run)
    assert "1000 bad" in message
    assert message.endswith("and 995 more")
    assert len(message) < 1000


@pytest.mark.parametrize(
    "changes",
    [
        {"step": -1}, {"split": None}, {"problem_id": 4}, {"completion": None}, {"found": 1}, {"correct": None},
        {"tokens": "3"}, {"tokens": 2**63}, {"clipped": "no"}, {"extracted": 4}, {"sample": -1},
    ],
)  # fmt: skip
def test_a_bad_sample_costs_only_itself(store, running, append, changes):
    run, run_dir = running
    good = {"step": 1, **SAMPLE}
    append(run_dir / "samples.jsonl", good | changes, good | {"extracted": None})
    store.ingest(run.id)
    assert [sample.extracted for sample in store.samples(run.id)] == [None]
    assert "samples.jsonl, 1 bad: byte 0" in bad_lines(store, run)[0]
    assert next(iter(changes)) in bad_lines(store, run)[0]


def test_text_that_sqlite_or_utf8_cannot_hold_is_kept(store, running, append):
    run, run_dir = running
    append(
        run_dir / "samples.jsonl", {"step": 1, **SAMPLE, "completion": "a\ud800b\x00c\U0001f600", "extracted": "\udfff"}
    )
    append(run_dir / "metrics.jsonl", metric(1, **{"odd\ud800\x00name": 1.0}), {"event": "x", "message": "\udc00\x00y"})
    store.ingest(run.id)
    [sample] = store.samples(run.id)
    assert (sample.completion, sample.extracted) == ("a\\ud800b\x00c\U0001f600", "\\udfff")
    assert store.metrics(run.id, "odd\\ud800\x00name") == [(1, 1.0)]
    assert store.events(run.id)[-1].message == "\\udc00\x00y"


def test_a_rewind_voids_what_came_after_it_in_the_order_of_the_lines(store, running, append):
    run, run_dir = running
    clocks = {"wall_seconds": 1.0}
    append(
        run_dir / "metrics.jsonl",
        *[metric(step, clocks, loss=step, late=step) for step in (10, 20, 30)],
        {"rewind": 10},
        metric(20, clocks, loss=0.2),
        metric(30, clocks, loss=0.3),
        {"rewind": 20},
    )
    append(
        run_dir / "samples.jsonl",
        *[{"step": step, **SAMPLE} for step in (10, 20, 30)],
        {"rewind": 10},
        {"step": 20, **SAMPLE, "completion": "again"},
    )
    store.ingest(run.id)
    assert store.metrics(run.id, "loss") == [(10, 10.0), (20, 0.2)]
    assert store.latest(run.id) == {"loss": 0.2, "late": 10.0}
    assert list(store.clocks(run.id)) == [10, 20]
    assert store.run(run.id).step == 20
    assert [(sample.step, sample.completion) for sample in store.samples(run.id)] == [(10, "#### 4"), (20, "again")]
    append(run_dir / "metrics.jsonl", {"rewind": 0})
    store.ingest(run.id)
    assert (store.latest(run.id), store.run(run.id).step) == ({}, None)


VALUES = st.one_of(st.floats(), st.integers(-(2**70), 2**70))
LINES = st.one_of(
    st.tuples(st.just("metric"), st.integers(0, 8), st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3)),
    st.tuples(st.just("rewind"), st.integers(0, 8)),
    st.tuples(st.just("bad")),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chunks=st.lists(st.lists(LINES, max_size=6), max_size=4))
def test_any_stream_in_any_portions_equals_reading_it_slowly(store, queue, append, chunks):
    number = len(store.runs())
    run_dir = queue(f"run-{number}")
    expected: dict[str, dict[int, float]] = {}
    for chunk in chunks:
        for line in chunk:
            if line[0] == "metric":
                append(run_dir / "metrics.jsonl", metric(line[1], **line[2]))
                for name, value in line[2].items():
                    expected.setdefault(name, {})[line[1]] = float(value)
            elif line[0] == "rewind":
                append(run_dir / "metrics.jsonl", {"rewind": line[1]})
                expected = {
                    name: {step: value for step, value in points.items() if step <= line[1]}
                    for name, points in expected.items()
                }
            else:
                append(run_dir / "metrics.jsonl", "{torn\n")
        store.ingest(run_dir.name)
    for name, points in expected.items():
        assert repr(store.metrics(run_dir.name, name)) == repr(sorted(points.items()))
    latest = {name: points[max(points)] for name, points in expected.items() if points}
    assert repr(sorted(store.latest(run_dir.name).items())) == repr(sorted(latest.items()))


def test_a_long_stream_is_read_in_stretches(store, running, append, monkeypatch):
    monkeypatch.setattr(stream, "STRETCH_BYTES", 100)
    run, run_dir = running
    append(run_dir / "metrics.jsonl", *[metric(step, loss=step) for step in range(50)], metric(50, **{"x" * 500: 1}))
    assert store.ingest(run.id) == 51
    assert store.metrics(run.id, "loss") == [(step, float(step)) for step in range(50)]
    assert store.run(run.id).metrics_offset_bytes == (run_dir / "metrics.jsonl").stat().st_size


def test_a_file_that_shrank_is_read_again(store, running, append):
    run, run_dir = running
    append(run_dir / "metrics.jsonl", metric(1, loss=1.0), metric(2, loss=2.0), {"event": "old", "message": ""})
    append(run_dir / "samples.jsonl", {"step": 1, **SAMPLE})
    store.ingest(run.id)
    (run_dir / "metrics.jsonl").write_text(json.dumps(metric(1, other=5.0)) + "\n")
    store.ingest(run.id)
    assert store.latest(run.id) == {"other": 5.0}
    assert store.metrics(run.id, "loss") == []
    assert len(store.samples(run.id)) == 1
    kinds = [event.kind for event in store.events(run.id)]
    assert "ingest:start_over" in kinds
    assert "worker:old" not in kinds


def test_a_file_of_other_lines_is_read_again_though_it_is_longer(store, running, append):
    run, run_dir = running
    append(run_dir / "metrics.jsonl", metric(1, loss=1.0))
    store.ingest(run.id)
    (run_dir / "metrics.jsonl").write_text(json.dumps(metric(1, other=5.0, another=6.0)) + "\n")
    store.ingest(run.id)
    assert store.latest(run.id) == {"other": 5.0, "another": 6.0}


def test_a_missing_file_keeps_what_was_measured(store, running, append):
    run, run_dir = running
    append(run_dir / "metrics.jsonl", metric(1, loss=1.0))
    store.ingest(run.id)
    (run_dir / "metrics.jsonl").unlink()
    assert store.ingest(run.id) == 0
    assert store.latest(run.id) == {"loss": 1.0}


def test_a_crash_before_the_commit_stores_neither_rows_nor_offset(store, running, append, monkeypatch):
    run, run_dir = running
    append(run_dir / "metrics.jsonl", metric(1, loss=1.0), "bad\n")

    def crash(connection, run, stretch):
        ingest.store_stretch(connection, run, stretch)
        assert connection.execute("SELECT count(*) FROM metric").fetchone() == (1,)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("atlas.store.store.store_stretch", crash)
        store.ingest(run.id)
    assert (store.latest(run.id), store.run(run.id).metrics_offset_bytes, bad_lines(store, run)) == ({}, 0, [])
    store.ingest(run.id)
    assert (store.latest(run.id), len(bad_lines(store, run))) == ({"loss": 1.0}, 1)


def test_a_kill_in_the_middle_of_ingesting_loses_and_doubles_nothing(store, running, append):
    run, run_dir = running
    append(run_dir / "metrics.jsonl", *[metric(step, loss=step) for step in range(3000)], {"event": "end"})
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "import atlas.store.store as module, atlas.store.stream as stream\n"
        "stream.STRETCH_BYTES, original, calls = 20_000, module.store_stretch, []\n"
        "def store_then_die(*arguments):\n"
        "    original(*arguments); calls.append(1)\n"
        "    if len(calls) == 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        "module.store_stretch = store_then_die\n"
        "module.Store.open(Path(sys.argv[1])).ingest('a-1')"
    )
    assert subprocess.run([sys.executable, "-c", script, str(store.home)], timeout=60).returncode == -9
    stored = store.metrics(run.id, "loss")
    lines = (run_dir / "metrics.jsonl").read_bytes()[: store.run(run.id).metrics_offset_bytes].splitlines()
    assert 0 < len(stored) == len(lines) < 3000
    store.ingest(run.id)
    assert store.metrics(run.id, "loss") == [(step, float(step)) for step in range(3000)]
    assert [event.kind for event in store.events(run.id)].count("worker:end") == 1


def test_two_readers_of_one_stream_store_each_line_once(store, running, append, monkeypatch):
    run, run_dir = running
    append(run_dir / "metrics.jsonl", metric(1, loss=1.0), {"event": "once"})

    def read_while_another_ingests(file, start):
        stretch = stream.read_metrics(file, start)
        if start == 0:
            with Store.open(store.home) as other, monkeypatch.context() as patch:
                patch.setitem(stream.READERS, "metrics", stream.read_metrics)
                other.ingest(run.id)
        return stretch

    monkeypatch.setitem(stream.READERS, "metrics", read_while_another_ingests)
    assert store.ingest(run.id) == 0
    assert [event.kind for event in store.events(run.id)].count("worker:once") == 1


def test_unreadable_measurements_are_explained(store, running):
    run, run_dir = running
    (run_dir / "metrics.jsonl").mkdir()
    with pytest.raises(Exception, match=r"cannot read what run a-1 has measured: .*metrics\.jsonl"):
        store.ingest(run.id)


def test_the_metric_rows_of_the_shared_bad_inputs(store, running, append, shared):
    run, run_dir = running
    rows = [json.loads(line) for line in (shared / "data" / "bad_inputs.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["kind"] == "metric"]
    assert rows
    for row in rows:
        point = row["input"]
        append(run_dir / "metrics.jsonl", metric(point["step"], **{point["name"]: point["value"]}))
        before, good = bad_lines(store, run), store.ingest(run.id)
        if row["expect"]["outcome"] == "accept":
            assert good == 1
            stored = dict(store.metrics(run.id, point["name"]))
            assert str(stored[point["step"]]) == str(float(point["value"])), row
        else:
            [message] = bad_lines(store, run)[len(before) :]
            assert all(word in message for word in row["expect"]["says"]), (row, message)


def test_a_rewind_to_before_step_0_voids_everything(store, running, append):
    run, run_dir = running
    append(run_dir / "metrics.jsonl", metric(0, loss=1), metric(1, loss=2), {"rewind": -1})
    append(run_dir / "samples.jsonl", {"step": 0, **SAMPLE}, {"rewind": -1})
    store.ingest(run.id)
    assert store.metrics(run.id, "loss") == []
    assert store.latest(run.id) == {} and store.clocks(run.id) == {} and store.samples(run.id) == []
    assert store.run(run.id).step is None
    append(run_dir / "metrics.jsonl", metric(0, loss=3))
    store.ingest(run.id)
    assert store.metrics(run.id, "loss") == [(0, 3.0)]
