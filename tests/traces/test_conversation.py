"""From a session to chat turns."""

import json

import pytest
from recorded import Recorded

from atlas.traces.conversation import task_turns, turns_before
from atlas.traces.records import ADAPTER
from atlas.traces.sessions import assemble

ROLES = {"guidance": "user", "critique": "user", "tool_result": "tool"}
CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}


def session_of(recorded: Recorded):
    (session,) = assemble([ADAPTER.validate_json(json.dumps(line)) for line in recorded.lines])
    return session


def before(recorded: Recorded, number: int = -1, roles=ROLES):
    session = session_of(recorded)
    return turns_before(session, session.attempts[number], roles)


def said(turns):
    return [(turn["role"], turn["content"]) for turn in turns]


def test_the_first_attempt_saw_the_task_alone():
    recorded = Recorded("1 + 2?").attempt("4").intervene("No.").attempt("3")
    assert before(recorded, 0) == [{"role": "user", "content": "1 + 2?"}]


def test_a_retry_saw_the_attempt_and_what_was_said_about_it():
    recorded = Recorded("1 + 2?").attempt("4").intervene("Too many.", "critique").attempt("3")
    assert said(before(recorded)) == [("user", "1 + 2?"), ("assistant", "4"), ("user", "Too many.")]


def test_each_kind_of_intervention_takes_the_role_it_was_given():
    recorded = Recorded("1 + 2?").attempt("4").intervene("no", "critique").intervene("3", "tool_result", "tool")
    turns = before(recorded.attempt("3"), roles=ROLES | {"critique": "system", "tool_result": "user"})
    assert said(turns)[2:] == [("system", "no"), ("user", "3")]


def test_neighbouring_turns_of_the_user_become_one_and_results_of_tools_stay_apart():
    recorded = Recorded("1 + 2?").attempt("4").intervene("No.").intervene("Count.", by="human")
    recorded.intervene("1", "tool_result", "tool", name="a").intervene("2", "tool_result", "tool", name="b")
    turns = before(recorded.attempt("3"))
    assert said(turns)[2:] == [("user", "No.\n\nCount."), ("tool", "1"), ("tool", "2")]
    assert [turn.get("name") for turn in turns[3:]] == ["a", "b"]


def test_an_attempt_that_nothing_answered_is_not_part_of_the_conversation():
    recorded = Recorded("1 + 2?").attempt("4").attempt("5").intervene("No.").attempt("3")
    assert said(before(recorded)) == [("user", "1 + 2?"), ("assistant", "5"), ("user", "No.")]


def test_guidance_that_came_late_follows_the_attempt_that_it_answers():
    recorded = Recorded("1 + 2?").attempt("4").attempt("5")
    recorded.intervene("Not 4.", parent=f"{recorded.id}-1").attempt("3")
    assert said(before(recorded)) == [("user", "1 + 2?"), ("assistant", "4"), ("user", "Not 4.")]
    assert said(before(recorded, 1)) == [("user", "1 + 2?")], "it had not been said yet"


def test_guidance_before_the_first_attempt_joins_the_task():
    recorded = Recorded("1 + 2?").intervene("Think.").attempt("3")
    assert said(before(recorded)) == [("user", "1 + 2?\n\nThink.")]


def test_recorded_messages_are_taken_as_they_were():
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+2"}]
    recorded = Recorded("1 + 2?").attempt("4").intervene("No.").attempt("3", messages=messages)
    assert before(recorded) == messages


def test_calls_of_tools_reach_the_template_with_their_arguments_as_an_object():
    recorded = (
        Recorded("1 + 2?").attempt("", tool_calls=[CALL]).intervene("3", "tool_result", "tool").attempt("It is 3")
    )
    (call,) = before(recorded)[1]["tool_calls"]
    assert call["function"] == {"name": "add", "arguments": {"a": 1, "b": 2}} and call["id"] == "c1"


@pytest.mark.parametrize("odd", [{"function": "x"}, {"function": {"arguments": "{"}}, {"id": "c"}])
def test_odd_calls_stay_as_they_are(odd):
    recorded = Recorded("1 + 2?").attempt("", tool_calls=[odd]).intervene("3", "tool_result", "tool").attempt("3")
    assert before(recorded)[1]["tool_calls"] == [odd]


def test_a_task_may_be_a_chat():
    chat = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}]
    assert task_turns(session_of(Recorded(chat).attempt("Hi"))) == chat
