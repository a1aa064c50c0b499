"""The one rule of success: what was measured after the last attempt, by the newest outcome of each scorer."""

import random

import pytest
from recorded import Recorded

from atlas.traces.filter import Filter
from atlas.traces.records import ADAPTER
from atlas.traces.sessions import assemble


def session_of(recorded, shuffled_by=None):
    records = [ADAPTER.validate_python({"schema_version": 1} | line) for line in recorded.lines]
    if shuffled_by is not None:
        random.Random(shuffled_by).shuffle(records)
    (session,) = assemble(records)
    return session


def tried(*attempts):
    """Attempts, with their verdicts by the scorer `answer`, where one was given."""
    recorded = Recorded("7 doubled?")
    for verdict in attempts:
        recorded.attempt("It is 14.")
        if verdict is not None:
            recorded.outcome(verdict, "14", parent=recorded._last_attempt)
    return recorded


@pytest.mark.parametrize(
    ("verdicts", "passed"),
    [
        ([], None),
        ([None], None),
        ([True], True),
        ([False], False),
        ([False, True], True),
        ([True, False], False),
        ([True, None], None),
        ([False, None], None),
    ],
)
def test_a_session_passes_by_what_was_measured_of_its_last_attempt(verdicts, passed):
    assert session_of(tried(*verdicts)).passed() is passed


@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_lines_does_not_matter(seed):
    recorded = tried(False, True).intervene("Well done.", "critique").outcome(True, scorer="human")
    assert session_of(recorded, shuffled_by=seed) == session_of(recorded)


def test_of_one_scorer_the_newest_outcome_counts_and_of_several_all():
    recorded = tried(False)
    recorded.outcome(True, "14", parent=recorded._last_attempt)
    assert session_of(recorded).passed() is True
    recorded.outcome(False, scorer="style", parent=recorded._last_attempt)
    session = session_of(recorded)
    assert (session.passed(), session.passed("answer"), session.passed("style")) == (False, True, False)
    assert session.passed("nobody") is None


def test_a_score_without_a_verdict_is_neither_passed_nor_failed():
    assert session_of(tried(None).outcome(None, score=0.0)).passed() is None


def test_an_outcome_of_the_whole_session_counts_until_an_attempt_comes_after_it():
    recorded = tried(None).outcome(True, "14")
    assert session_of(recorded).passed() is True
    session = session_of(recorded.attempt("Or 15?"))
    assert session.passed() is None
    assert [outcome.reference for outcome in session.stale_outcomes] == ["14"]


def test_an_outcome_of_an_attempt_that_was_lost_says_nothing_of_the_others():
    recorded = tried(False).outcome(True, "14", parent="lost")
    session = session_of(recorded)
    assert session.passed() is False
    assert [outcome.parent for outcome in session.stale_outcomes] == ["lost"]
    assert session_of(Recorded("?").outcome(True, "14", parent="lost")).passed() is None


def test_interventions_are_with_the_attempt_that_they_answer():
    recorded = tried(False).intervene("No.").attempt("14").intervene("Yes.").intervene("Odd.", parent="lost")
    session = session_of(recorded)
    assert [[each.text for each in attempt.interventions] for attempt in session.attempts] == [["No."], ["Yes."]]
    assert [each.text for each in session.interventions] == ["Odd."]


def test_one_process_knows_its_order_better_than_the_clock():
    recorded = tried(False, True)
    for sequence, line in enumerate(recorded.lines):
        line |= {"process": "here:1:2", "sequence": sequence, "at_seconds": 100.0 - sequence}  # the clock was put back
    assert session_of(recorded).passed() is True


def test_records_without_their_session_are_left_out():
    assert assemble([ADAPTER.validate_python({"schema_version": 1} | line) for line in tried(True).lines[1:]]) == []


def test_a_filter_says_the_first_reason_why_not():
    session = session_of(tried(False))
    assert Filter().why_not(session) is None
    assert Filter(status=("approved",)).why_not(session) == "unreviewed"
    assert Filter(outcome="passed").why_not(session) == "failed"
    assert Filter(scorer="human").why_not(session) == "not scored by human after the last attempt"
    assert Filter(text="DOUBLED").why_not(session) is None
