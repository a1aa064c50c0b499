"""Sessions as Arc's `arc-atlas` exports them: what maps, what is lost, and what is not taken for a measurement."""

import json

import pytest
from trace_lines import begin, write

from atlas.traces.arc import Counts, records_of
from atlas.traces.read import read_lines
from atlas.traces.sessions import assemble


def step(step_id=1, output="out", **fields):
    return {"step_id": step_id, "description": "Do it", "trace": "thinking", "output": output} | fields


def line(**fields):
    """The shape that the exporter writes (atlas/cli/jsonl_writer.py of Arc-Computer/atlas-sdk)."""
    metadata = {"session_id": 1, "status": "succeeded", "created_at": "2025-01-02T12:00:00+00:00"}
    return {
        "task": "Process paperwork",
        "final_answer": "Done",
        "plan": {"steps": [{"id": 1, "description": "Do it"}]},
        "steps": [step()],
        "session_metadata": metadata | {"completed_at": "2025-01-02T12:05:00+00:00", "learning_key": "k"},
        "review_status": "approved",
    } | fields


def task_end(step_id, text):
    """What the runtime logs at the end of each attempt."""
    payload = {"event_type": "TASK_END", "name": f"step_{step_id}", "data": {"output": {"output": text}}}
    return {"id": 5, "event": {"parent_id": "p", "payload": payload}, "created_at": "2025-01-02T12:01:00+00:00"}


@pytest.fixture
def taken(tmp_path):
    def taken(*documents):
        lines = list(read_lines(write(tmp_path / "arc.jsonl", *documents)))
        assert [found.problem for found in lines] == [None] * len(documents)
        counts = Counts()
        for found in lines:
            counts += found.arc or Counts()
        return assemble(record for found in lines for record in found.records), counts

    return taken


def reward(score=0.9, **fields):
    return {"score": score, "judges": [{"identifier": "process", "score": score}], "rationale": "solid"} | fields


def test_a_session_maps(taken):
    (session,), counts = taken(line(steps=[step(1, reward=reward()), step(2, "sum", reward=reward(0.5))]))
    assert (session.text, session.record.agent, session.record.at_seconds) == ("Process paperwork", "arc", 1735819200)
    assert [part.record.text for part in session.attempts] == ["out", "sum"]
    assert session.attempts[0].record.metadata["trace"] == "thinking"
    scores = [(part.outcomes[0].scorer, part.outcomes[0].score) for part in session.attempts]
    assert scores == [("arc_reward", 0.9), ("arc_reward", 0.5)]
    assert session.attempts[0].outcomes[0].note == "solid"
    assert (session.end.status, session.end.answer, session.end.at_seconds) == ("completed", "Done", 1735819500)
    assert session.end.metadata["session_metadata"]["learning_key"] == "k"
    assert counts.mapped["steps[] -> attempt"] == 2


def test_a_score_is_not_a_pass(taken):
    (session,), _ = taken(line(steps=[step(reward=reward(1.0))], session_reward=reward(1.0)))
    assert session.passed() is None
    assert session.outcomes[0].score == 1.0
    (session,), _ = taken(line(steps=[step(reward=reward(1.0, passed=True))]))
    assert session.passed() is True


PLACEHOLDER = {"score": 0.0, "judges": [], "rationale": "deferred", "raw": {"skipped": True, "reason": "deferred"}}


@pytest.mark.parametrize(
    "nothing",
    [
        {"score": 0.0, "judges": [], "rationale": None, "raw": {}},
        PLACEHOLDER,
        {"score": 0.0, "judges": [], "rationale": "deferred", "raw": PLACEHOLDER},
        {"score": None},
        {"process": 1.0},
        {"score": True},
        {"score": "high"},
        "deferred",
    ],
)
def test_a_placeholder_is_no_measurement(taken, nothing):
    (session,), counts = taken(line(steps=[step(reward=nothing)]))
    assert session.attempts[0].outcomes == ()
    assert counts.lost["steps[].reward (no measurement: a placeholder, or without a score)"] == 1


def test_a_score_of_zero_that_was_measured_is_one(taken):
    measured = reward(0.0) | {"raw": {"score": 0.0, "raw": {"judge": "said so"}}}
    (session,), _ = taken(line(steps=[step(reward=measured)]))
    assert session.attempts[0].outcomes[0].score == 0.0


@pytest.mark.parametrize(
    ("validation", "passed"),
    [
        ({"valid": False, "guidance": "Retry", "cached": False}, False),
        ({"valid": True, "guidance": None, "cached": False}, True),
        ({"valid": True, "guidance": None}, None),
        ({"valid": True, "guidance": None, "status": "ok"}, None),
        ({"valid": "yes"}, None),
        ({}, None),
    ],
)
def test_the_teachers_verdict_counts_and_a_default_does_not(taken, validation, passed):
    (session,), _ = taken(line(steps=[step(validation=validation)]))
    assert session.passed("arc_validation") is passed


def test_guidance_answers_the_attempt_before_it(taken):
    events = [task_end(1, "first"), task_end(2, "other step"), task_end(1, "second")]
    (session,), counts = taken(
        line(steps=[step(output="second!", attempts=2, guidance=["try again"])], trajectory_events=events)
    )
    first, second = session.attempts
    assert (first.record.text, second.record.text) == ("first", "second!")
    (note,) = first.interventions
    assert (note.text, note.by, note.kind) == ("try again", "teacher", "guidance")
    assert second.record.parent == note.id
    assert not [path for path in counts.lost if path.startswith("steps[].attempts")]


def test_attempts_whose_text_is_nowhere_are_counted(taken):
    (session,), counts = taken(line(steps=[step(attempts=3, guidance=["a", "b"])]))
    assert [part.record.text for part in session.attempts] == ["out"]
    assert [note.text for note in session.interventions] == ["a", "b"]
    assert session.attempts[0].record.parent == session.interventions[-1].id
    assert counts.lost["steps[].attempts (texts of attempts before the last)"] == 2


def test_attempts_that_hold_their_text_are_attempts(taken):
    (session,), _ = taken(
        line(steps=[step(output="3", attempts=[{"output": "1"}, "2", {"text": "3"}], guidance=["x"])])
    )
    assert [part.record.text for part in session.attempts] == ["1", "2", "3"]


def test_what_is_lost_is_counted_by_path(taken):
    events = [{"event": {"payload": {"event_type": "LLM_END"}}}, {"event": {"payload": "odd"}}, "odd"]
    _, counts = taken(
        line(
            steps=[step(context={"prior_results": {}}, runtime={})], trajectory_events=events, reward_audit=[], drift={}
        )
    )
    assert {"steps[].context", "steps[].runtime", "trajectory_events[LLM_END]", "reward_audit", "drift"} <= {
        *counts.lost
    }
    assert counts.lost["trajectory_events[unknown]"] == 2
    assert counts.review_status == {"approved": 1}


@pytest.mark.parametrize(
    "odd",
    [
        {"steps": None},
        {"steps": [None, 1, "x", []]},
        {"steps": [step(trace={"a": 1}, output=None)]},
        {"steps": [step(output={"status": "ok"})]},
        {"steps": [step(guidance="one note", attempts="2", reward=[], metadata=1)]},
        {"steps": [step(attempts=10**18)]},
        {"session_metadata": None, "plan": None, "final_answer": None},
        {"session_metadata": {"created_at": "yesterday", "status": 5}},
        {"trajectory_events": {"a": 1}, "task": {"text": "x"}, "final_answer": ["x"]},
        {"task": None},
    ],
)
def test_variants_are_read(taken, odd):
    (session,), _ = taken(line(**odd))
    assert session.id.startswith("arc-")


def test_the_example_of_arcs_repository_is_read(taken):
    """atlas/data/sample_traces.jsonl there: no output, and a reward of another shape."""
    example = {"session_id": 1, "task": "Task", "steps": [{"description": "Do something", "reward": {"process": 1.0}}]}
    (session,), counts = taken(example)
    assert session.record.at_seconds == 0
    assert counts.lost["session_metadata.created_at (missing: the session has the time 0)"] == 1


def test_a_session_without_an_end_has_none(taken):
    running = {"session_id": 1, "status": "running", "created_at": "2025-01-02T12:00:00+00:00"}
    (session,), _ = taken(line(session_metadata=running))
    assert session.end is None
    (session,), _ = taken(line(session_metadata=running | {"status": "failed"}))
    assert session.end.status == "failed"


def test_ids_follow_from_what_is_said(taken):
    first, second = records_of(line())[0], records_of(json.loads(json.dumps(line())))[0]
    assert first == second
    ids = [record["id"] for record in first]
    assert len({*ids}) == len(ids)
    assert records_of(line(task="Other"))[0][0]["id"] != first[0]["id"]
    later = {record["id"] for record in records_of(line(session_reward=reward(), review_status="pending"))[0]}
    assert {*ids} < later  # rewarded meanwhile: the same session, one record more


def test_equal_steps_are_different_attempts(taken):
    (session,), _ = taken(line(steps=[step(), step()]))
    assert len(session.attempts) == 2


def test_lines_of_both_kinds_can_be_in_one_file(taken):
    sessions, _ = taken(begin(), line())
    assert len(sessions) == 2
