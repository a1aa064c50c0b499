"""Files of trace lines come into the store: once, whatever happens in between."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import pytest
from trace_lines import attempt, begin, end, guidance, outcome, whole, write

from atlas.errors import NotFoundError, StoreError
from atlas.store.traces import TraceStore, importing


@pytest.fixture
def traces(tmp_path):
    with TraceStore.open(tmp_path / "home") as store:
        yield store


@pytest.fixture
def take(traces, tmp_path):
    """Imports these lines, as a file of their own."""

    def take(*lines, name="t.jsonl"):
        return traces.import_file(write(tmp_path / name, *lines))

    return take


def content(store):
    """Every row that lists, filters and sessions are made of, without the numbers of rows."""
    with closing(sqlite3.connect(store.path)) as connection:
        return {
            "session": connection.execute(
                'SELECT id, at_seconds, status, agent, passed, ended_seconds, "end", records, attempts, interventions,'
                " input_tokens, output_tokens, cost_usd, parent, tags, models, outcomes, task FROM session ORDER BY id"
            ).fetchall(),
            "record": connection.execute("SELECT id, line FROM record ORDER BY id").fetchall(),
            "tag": connection.execute(
                "SELECT id, tag FROM tag JOIN session ON session.number = session ORDER BY 1, 2"
            ).fetchall(),
            "outcome": connection.execute(
                "SELECT id, scorer, outcome.passed FROM outcome JOIN session ON session.number = session ORDER BY 1, 2"
            ).fetchall(),
        }


def test_a_session_comes_back_as_it_was(traces, take):
    report = take(
        begin(agent="solver", tags=["easy", "sums"]),
        attempt(model="m1", input_tokens=10, output_tokens=2, cost_usd=0.5),
        guidance(parent="a", model="big", output_tokens=3),
        attempt("b", at_seconds=103, text="4", parent="g"),
        outcome(at_seconds=104, parent="b", score=1.0, passed=True, reference="4"),
        end(at_seconds=105, answer="4"),
    )
    assert (report.new, report.begun, report.changed, report.bad) == (6, 1, 0, [])
    session = traces.session("s")
    assert [part.record.text for part in session.attempts] == ["5", "4"]
    assert session.attempts[0].interventions[0].text == "No."
    assert session.passed() is True
    (row,) = traces.rows()
    assert (row.records, row.attempts, row.interventions, row.end, row.ended_seconds) == (6, 2, 1, "completed", 105)
    assert (row.models, row.input_tokens, row.output_tokens, row.cost_usd) == (("big", "m1"), 10, 5, 0.5)
    assert row.outcomes == (("answer", 1.0, True),)
    assert (row.passed, row.agent, row.tags, row.status) == (True, "solver", ("easy", "sums"), "unreviewed")
    assert traces.row("s") == row
    assert (traces.tags(), traces.scorers(), traces.agents()) == (["easy", "sums"], ["answer"], ["solver"])


def test_importing_twice_adds_nothing(traces, take, tmp_path):
    take(*whole("s"), *whole("t"))
    before = content(traces)
    again = traces.import_file(tmp_path / "t.jsonl")
    assert (again.new, again.known, again.changed) == (0, 0, 0)
    copy = take(*whole("s"), *whole("t"), name="copy.jsonl")
    assert (copy.new, copy.known, copy.bad, copy.changed, copy.begun) == (0, 8, [], 0, 0)
    assert content(traces) == before


def test_an_import_goes_on_where_the_last_one_stopped(traces, take, tmp_path):
    take(*whole("s")[:2])
    assert traces.rows()[0].passed is None
    write(tmp_path / "t.jsonl", *whole("s")[2:], mode="ab")
    report = traces.import_file(tmp_path / "t.jsonl")
    assert (report.new, report.known, report.begun, report.changed, report.restarted) == (2, 0, 0, 1, False)
    assert traces.rows()[0].passed is True


def test_bad_lines_are_counted_and_kept_with_their_numbers(traces, take, tmp_path):
    report = take(begin(), "{", attempt(), attempt("b", text=1), attempt("c", duration_seconds=-2))
    assert report.new == 3
    assert [(problem.line, problem.taken) for problem in report.bad] == [(2, False), (4, False)]
    assert [(problem.line, problem.what) for problem in report.odd] == [(5, "negative duration of -2 s")]
    assert traces.problems(tmp_path / "t.jsonl") == [*report.bad, *report.odd]


def test_an_id_is_taken_by_the_first_record(traces, take):
    report = take(begin(), attempt(text="first"), attempt(text="second"), attempt(text="first"))
    assert [(problem.line, problem.what) for problem in report.bad] == [(3, "id a is taken by another record")]
    assert report.known == 1
    later = take(attempt(text="third"), name="u.jsonl")
    assert [problem.what for problem in later.bad] == ["id a is taken by another record"]
    assert [part.record.text for part in traces.session("s").attempts] == ["first"]


def test_the_order_of_keys_does_not_make_another_record(traces, take):
    take(begin(), attempt())
    report = take(dict(reversed(attempt().items())), attempt(model=None), name="u.jsonl")
    assert (report.known, report.bad) == (2, [])


def test_a_record_may_come_before_its_session(traces, take):
    first = take(attempt(), outcome(parent="a", passed=True), name="1.jsonl")
    assert (first.new, first.begun, first.waiting) == (2, 0, 2)
    assert traces.rows() == []
    assert traces.count() == 0
    with pytest.raises(NotFoundError, match="no session 's'"):
        traces.session("s")
    with pytest.raises(NotFoundError):
        traces.review(["s"], "approved", "me")
    second = take(begin(), name="2.jsonl")
    assert (second.begun, second.waiting) == (1, 0)
    (row,) = traces.rows()
    assert (row.records, row.attempts, row.passed) == (3, 1, True)


def test_any_order_of_lines_gives_the_same_store(traces, take, tmp_path):
    lines = [line for number in range(6) for line in whole(f"s{number}", 100 + number, number % 2 == 0, tags=["x"])]
    take(*lines)
    for seed in range(5):
        shuffled = random.Random(seed).sample(lines, len(lines))
        with TraceStore.open(tmp_path / str(seed)) as other:
            for part in range(3):
                other.import_file(write(tmp_path / f"{seed}-{part}.jsonl", *shuffled[part::3]))
            assert content(other) == content(traces)


def test_small_batches_give_the_same_store(traces, take, tmp_path, monkeypatch):
    lines = [line for number in range(6) for line in whole(f"s{number}", 100 + number, number % 2 == 0, tags=["x"])]
    take(*lines)
    monkeypatch.setattr(importing, "BATCH_BYTES", 1)
    with TraceStore.open(tmp_path / "other") as other:
        report = other.import_file(tmp_path / "t.jsonl")
        assert (report.new, report.begun, report.changed) == (24, 6, 18)
        assert content(other) == content(traces)


@pytest.mark.parametrize("keep", [0, 40, 4])
def test_a_file_that_was_replaced_is_read_again(traces, take, tmp_path, keep):
    """Shorter, or of another beginning, or of the same size with other lines."""
    old = [*whole("s"), "{"]
    take(*old)
    report = take(*([begin("new", task="x" * 40)] if keep == 0 else whole("t", at_seconds=200 + keep) * 10))
    assert report.restarted
    assert report.new == (1 if keep == 0 else 4)
    assert traces.problems(tmp_path / "t.jsonl") == []
    assert traces.count() == 2


def test_a_new_record_sets_an_approval_back(traces, take):
    take(*whole("s"), *whole("t"))
    traces.review(["s", "t"], "approved", "me", "fine")
    report = take(attempt("late", "s", 200), guidance("later", "s", 201), name="u.jsonl")
    assert report.set_back == 1
    assert {row.id: row.status for row in traces.rows()} == {"s": "unreviewed", "t": "approved"}
    first, second = traces.reviews("s")
    assert (first.status, first.by, first.reason) == ("approved", "me", "fine")
    assert (second.status, second.by) == ("unreviewed", "atlas traces import")
    assert second.reason == "2 new records after the approval"
    assert traces.session("s").review == second


def test_a_known_record_sets_nothing_back(traces, take):
    take(*whole("s"))
    traces.review(["s"], "approved", "me")
    take(*whole("s"), name="copy.jsonl")
    assert traces.rows()[0].status == "approved"


def test_an_agent_cannot_lift_a_quarantine(traces, take):
    take(*whole("s"))
    traces.review(["s"], "quarantined", "me")
    report = take(attempt("late", "s", 200), {"type": "review", "id": "r", "session": "s", "at_seconds": 300,
                  "status": "approved", "by": "agent"}, name="u.jsonl")  # fmt: skip
    assert (report.new, report.set_back, report.reviews_ignored) == (1, 0, 1)
    assert traces.rows()[0].status == "quarantined"


def test_parents_do_not_form_a_cycle(traces, take):
    report = take(begin(), attempt("a", parent="g"), guidance("g", parent="b"), attempt("b", parent="a"))
    assert [(problem.line, problem.what) for problem in report.bad] == [
        (4, "the parents form a cycle: b -> a -> g -> b")
    ]
    later = take(attempt("b", parent="g"), attempt("c", parent="b"), name="u.jsonl")
    assert [problem.line for problem in later.bad] == [1]
    assert later.new == 1


def test_sessions_do_not_surround_each_other(traces, take):
    take(begin("s", parent="t"), name="1.jsonl")
    report = take(begin("t", parent="u"), begin("u", parent="s"), name="2.jsonl")
    assert [problem.what for problem in report.bad] == ["the parents form a cycle: u -> s -> t -> u"]


def test_what_an_older_atlas_did_not_redact_is_the_same_record(traces, take, monkeypatch):
    secret = "hf_" + "Q" * 30
    with monkeypatch.context() as older:
        older.setattr("atlas.traces.read._REDACTION.record", lambda record: record)
        take(begin(), attempt(text=secret))
    report = take(begin(), attempt(text=secret), name="copy.jsonl")
    assert (report.known, report.bad) == (2, [])


def test_two_importers_of_one_file_add_it_once(traces, take, tmp_path, monkeypatch):
    monkeypatch.setattr(importing, "BATCH_BYTES", 2000)
    lines = [line for number in range(200) for line in whole(f"s{number}", number)]
    path = write(tmp_path / "t.jsonl", *lines)
    reports = []
    threads = [threading.Thread(target=lambda: reports.append(traces.import_file(path))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(report.new for report in reports) == len(lines)
    assert [report.bad for report in reports] == [[], [], []]
    assert traces.count() == 200


IMPORTER = """
import sys
from pathlib import Path
from atlas.store.traces import TraceStore, importing
importing.BATCH_BYTES = 3000
print("ready", flush=True)
print(TraceStore.open(Path(sys.argv[1])).import_file(Path(sys.argv[2])).new)
"""


def test_an_import_that_is_killed_goes_on(traces, take, tmp_path):
    lines = [line for number in range(1500) for line in [*whole(f"s{number}", number, tags=["x"]), "{"]]
    path = write(tmp_path / "big.jsonl", *lines)
    chance = random.Random(7)
    killed = 0
    for _ in range(4):
        child = subprocess.Popen([sys.executable, "-c", IMPORTER, str(tmp_path / "killed"), str(path)], stdout=-1)
        assert child.stdout.readline() == b"ready\n"
        try:
            child.wait(chance.uniform(0.02, 0.25))
        except subprocess.TimeoutExpired:
            os.kill(child.pid, signal.SIGKILL)
            killed += 1
        child.communicate()
    assert killed
    with TraceStore.open(tmp_path / "killed") as other:
        report = other.import_file(path)
        assert report.known == 0
        traces.import_file(path)
        assert content(other) == content(traces)
        assert other.problems(path) == traces.problems(path)
        assert len(other.problems(path)) == 1500


def test_a_crash_inside_a_transaction_leaves_nothing_of_it(traces, take, tmp_path, monkeypatch):
    monkeypatch.setattr(importing, "BATCH_BYTES", 1)
    path = write(tmp_path / "t.jsonl", *whole("s"))
    calls = []

    def fail(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise RuntimeError("half way")
        return summarise(*arguments)

    summarise = importing.summarise
    monkeypatch.setattr(importing, "summarise", fail)
    with pytest.raises(RuntimeError):
        traces.import_file(path)
    assert [id for id, _ in content(traces)["record"]] == ["s", "s-a"]
    report = traces.import_file(path)
    assert (report.new, report.known) == (2, 0)
    assert traces.rows()[0].passed is True


def test_a_file_that_cannot_be_read_is_explained(traces, tmp_path):
    with pytest.raises(StoreError, match=r"cannot read traces from .*none\.jsonl.*name a file that you may read"):
        traces.import_file(tmp_path / "none.jsonl")


def test_nothing_that_is_stored_holds_a_secret(traces, take, tmp_path):
    secret = "hf_" + "Q" * 30
    take(
        begin(task=[{"role": "user", "content": secret}], tags=[secret], agent=secret, metadata={secret: secret}),
        attempt(text=secret, error=secret, messages=[{"role": "user", "content": secret}]),
        outcome(scorer=secret, note=secret, reference=secret),
        {secret: 1},
        json.dumps(attempt("z", text=1, metadata={secret: secret})),
        {"task": secret, "steps": [{"output": secret, "guidance": [secret]}], "session_metadata": {"k": secret}},
    )
    traces.close()
    files = [file.read_bytes() for file in (tmp_path / "home").iterdir()]
    assert any(b"redacted" in data for data in files)
    assert not any(secret.encode() in data for data in files)
