"""A filter means the same in SQL, which lists and counts, as in `Filter.why_not`, which training asks."""

import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_lines import attempt, begin, outcome, write

from atlas.store.traces import TraceStore
from atlas.traces.filter import Filter

TEXTS = st.sampled_from(["", "a", "ß", "SS", "İ", "%", "_", "a\0b", "\ud800", "x y", "Straße", "'", '"'])
NAMES = st.sampled_from(["a", "b", "A", "ß", "'; DROP TABLE session; --"])
TIMES = st.sampled_from([0.0, 1.0, 1.5, 2.0, -3.0])
OUTCOMES = st.lists(
    st.tuples(NAMES, st.sampled_from([True, False, None]), st.sampled_from(["first", "last", None]), TIMES), max_size=4
)
SESSIONS = st.lists(
    st.tuples(TEXTS, TIMES, st.none() | NAMES, st.lists(NAMES, max_size=3), st.integers(0, 2), OUTCOMES), max_size=8
)
STATUSES = ("unreviewed", "approved", "quarantined")
FILTERS = st.builds(
    Filter,
    status=st.lists(st.sampled_from(STATUSES), max_size=2, unique=True).map(tuple),
    scorer=st.none() | NAMES,
    outcome=st.sampled_from([None, "passed", "failed", "unscored"]),
    tags=st.lists(NAMES, max_size=2).map(tuple),
    agent=st.none() | NAMES,
    since_seconds=st.none() | TIMES,
    until_seconds=st.none() | TIMES,
    text=st.none() | TEXTS,
)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """An empty store at a time: making one takes longer than a test of it."""
    with TraceStore.open(tmp_path_factory.mktemp("home")) as store:

        def empty():
            with store._writing() as connection:
                connection.execute("DELETE FROM session")
            return store

        yield empty


def lines_of(sessions):
    for number, (task, at_seconds, agent, tags, _, outcomes) in enumerate(sessions):
        id = f"s{number}"
        yield begin(id, at_seconds, task=task, tags=tags) | ({"agent": agent} if agent else {})
        yield attempt(f"{id}-first", id, at_seconds + 1)
        yield attempt(f"{id}-last", id, at_seconds + 1.6)
        for place, (scorer, passed, parent, later) in enumerate(outcomes):
            fields = {"parent": f"{id}-{parent}"} if parent else {}
            yield outcome(f"{id}-{place}", id, at_seconds + later, scorer, passed=passed, **fields)


@settings(max_examples=150, deadline=None)
@given(sessions=SESSIONS, filters=st.lists(FILTERS, min_size=1, max_size=8))
def test_sql_and_why_not_mean_the_same(fresh, sessions, filters):
    store = fresh()
    with tempfile.TemporaryDirectory() as folder:
        report = store.import_file(write(Path(folder) / "t.jsonl", *lines_of(sessions)))
        assert report.bad == []
        for number, session in enumerate(sessions):
            store.review([f"s{number}"], STATUSES[session[4]], "me")
        everything = list(store.sessions())
        assert [session.id for session in everything] == sorted(
            (f"s{number}" for number in range(len(sessions))), key=lambda id: (sessions[int(id[1:])][1], id)
        )
        for filter in filters:
            meant = [session.id for session in everything if filter.why_not(session) is None]
            assert [session.id for session in store.sessions(filter)] == meant
            assert [row.id for row in store.rows(filter)] == meant[::-1]
            assert [row.id for row in store.rows(filter, limit=2, offset=1)] == meant[::-1][1:3]
            assert store.count(filter) == len(meant)
            exported = store.export(filter, Path(folder) / "out.jsonl")
            assert exported.sessions == len(meant)
            assert exported.left_out == Counter(why for session in everything if (why := filter.why_not(session)))


def test_rows_say_what_sessions_say(fresh, tmp_path):
    store = fresh()
    sessions = [
        ("a", 0.0, "x", ["t"], 0, [("s", passed, "last", 2.0), ("u", None, None, 2.0)]) for passed in (True, None)
    ]
    store.import_file(write(tmp_path / "t.jsonl", *lines_of(sessions)))
    for row in store.rows():
        session = store.session(row.id)
        assert row.outcomes == tuple((o.scorer, o.score, o.passed) for o in session.final_outcomes())
        assert row.passed == session.passed()
        assert (row.task, row.tags, row.agent) == (session.text, tuple(session.record.tags), session.record.agent)
