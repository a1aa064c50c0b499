"""What an agent records, and how it is linked."""

import asyncio
import contextvars
import threading
import warnings

import pytest
from written_traces import records_in, session_in, sessions_in

from atlas import sdk
from atlas.sdk import log
from atlas.sdk.capture import LOST
from atlas.sdk.log import Log

TASK = "What is 6 times 7?"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("ATLAS_TRACES", raising=False)
    monkeypatch.setattr(log, "_log", Log())
    sdk.configure(folder=tmp_path / "traces", agent="adder")
    yield tmp_path / "traces"
    sdk.configure()


@pytest.fixture
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def test_a_session_in_three_lines(folder):
    with sdk.session(task=TASK, tags=["sums"]) as s:
        s.attempt("41", model="tiny-1", input_tokens=9, output_tokens=1, cost_usd=0.5, duration_seconds=0.25)
        s.intervene("Count again.", by="teacher", kind="critique", name="big-1")
        s.attempt("42")
        s.outcome("answer", score=1.0, reference="42")
    made = session_in(folder)
    first, second = made.attempts
    assert made.text == TASK and made.record.agent == "adder" and made.record.tags == ["sums"]
    assert first.record.model == "tiny-1" and first.record.cost_usd == 0.5
    assert [said.text for said in first.interventions] == ["Count again."]
    assert second.record.parent == first.interventions[0].id and second.record.text == "42"
    assert made.passed() is True and made.end.answer == "42" and made.end.status == "completed"
    assert made.record.sdk_version and made.record.redaction.startswith("builtin 1")


def test_an_attempt_follows_from_the_newest_intervention_only(folder):
    with sdk.session(task=TASK) as s:
        s.attempt("a")
        s.intervene("one", by="human")
        newest = s.intervene("two", by="rule")
        s.attempt("b")
        s.attempt("c")
    a, b, c = session_in(folder).attempts
    assert [said.text for said in a.interventions] == ["one", "two"]
    assert b.record.parent == newest and a.record.parent is c.record.parent is None


def test_links_can_be_named(folder):
    with sdk.session(task=TASK) as s:
        first = s.attempt("a")
        s.attempt("b")
        s.intervene("about a", by="tool", kind="tool_result", answers=first)
        s.outcome("answer", 0.0, attempt=first)
    a, b = session_in(folder).attempts
    assert [said.text for said in a.interventions] == ["about a"] and [o.score for o in a.outcomes] == [0.0]
    assert not b.outcomes and session_in(folder).passed() is None


@pytest.mark.parametrize(
    ("given", "passed"),
    [
        ({"score": 1.0}, True),
        ({"score": 0}, False),
        ({"score": True}, True),
        ({"score": 0.5}, None),
        ({"score": None}, None),
        ({"score": 0.5, "passed": True}, True),
        ({"score": 1.0, "passed": False}, False),
    ],
)
def test_a_score_of_0_or_1_says_whether_it_passed(folder, given, passed):
    with sdk.session(task=TASK) as s:
        s.attempt("a")
        s.outcome("judge", **given)
    assert session_in(folder).passed() is passed


def test_the_answer_can_be_given(folder):
    with sdk.session(task=TASK) as s:
        s.attempt("thinking ... 42")
        s.answer("42")
    assert session_in(folder).end.answer == "42"


def test_an_exception_passes_through_and_ends_the_session_as_failed(folder):
    with pytest.raises(ZeroDivisionError), sdk.session(task=TASK) as s:
        s.attempt("a")
        1 / 0  # noqa: B018
    end = session_in(folder).end
    assert end.status == "failed" and end.error == "ZeroDivisionError: division by zero" and end.answer is None
    assert sdk.current() is None


def test_an_exception_without_text_is_named(folder):
    class Mute(Exception):
        def __str__(self):
            raise ValueError("no")

    with pytest.raises(Mute), sdk.session(task=TASK):
        raise Mute
    assert session_in(folder).end.error == "Mute: its text failed with ValueError"


def test_sessions_inside_a_session_are_its_parts(folder):
    with sdk.session(task="outer") as outer:
        with sdk.session(task="inner") as inner:
            assert sdk.current() is inner
        assert sdk.current() is outer
    assert sdk.current() is None
    made = {session.text: session.record for session in sessions_in(folder)}
    assert made["inner"].parent == made["outer"].id and made["outer"].parent is None


def test_tasks_of_asyncio_have_sessions_of_their_own(folder):
    async def one(number, ready):
        async with sdk.session(task=str(number)):
            await ready.wait()
            sdk.current().attempt(f"of {number}")

    async def run():
        with sdk.session(task="all") as around:
            ready = asyncio.Barrier(8)
            await asyncio.gather(*(one(number, ready) for number in range(8)))
            assert sdk.current() is around

    asyncio.run(run())
    made = {session.text: session for session in sessions_in(folder)}
    assert all(made[str(n)].attempts[0].record.text == f"of {n}" for n in range(8))
    assert {made[str(n)].record.parent for n in range(8)} == {made["all"].id}


def test_threads_take_the_session_with_a_copied_context(folder):
    seen = []
    with sdk.session(task=TASK) as s:
        context = contextvars.copy_context()
        inside = threading.Thread(target=context.run, args=(lambda: seen.append(sdk.current()),))
        without = threading.Thread(target=lambda: seen.append(sdk.current()))
        for thread in (inside, without):
            thread.start()
            thread.join()
    assert seen == [s, None]


def test_a_session_left_in_another_thread_has_its_end(folder):
    s = sdk.session(task=TASK)
    entering = threading.Thread(target=s.__enter__)
    entering.start()
    entering.join()
    s.__exit__(None, None, None)
    assert session_in(folder).end.status == "completed" and sdk.status()["dropped"] == {}


def test_a_session_that_was_not_entered_is_begun_by_its_first_event(folder):
    sdk.session(task=TASK).attempt("42")
    made = session_in(folder)
    assert made.attempts[0].record.text == "42" and made.end is None


def test_a_function_becomes_a_session(folder):
    @sdk.traced
    def solve(question, hint=None):
        """Solves."""
        sdk.current().attempt("41")
        return "42"

    assert solve(TASK, hint="x") == "42" and solve(question="another") == "42" and solve.__doc__ == "Solves."
    first, second = sessions_in(folder)
    assert first.text == TASK and second.text == "another" and first.end.answer == "42"


def test_a_coroutine_becomes_a_session(folder):
    @sdk.traced(task=lambda numbers: f"add {numbers}", agent="async", tags=["a"], metadata={"k": 1})
    async def add(numbers):
        await asyncio.sleep(0)
        sdk.current().attempt("6")
        return sum(numbers)

    assert asyncio.run(add([1, 2, 3])) == 6
    made = session_in(folder)
    assert made.text == "add [1, 2, 3]" and made.record.agent == "async" and made.end.answer == "6"
    assert made.record.tags == ["a"] and made.record.metadata == {"k": 1}


def test_a_method_takes_its_task_after_self(folder):
    class Agent:
        @sdk.traced
        def solve(self, question):
            return question

    Agent().solve(TASK)
    assert session_in(folder).text == TASK


def test_a_traced_function_raises_what_it_raises(folder):
    @sdk.traced
    def solve(question):
        raise KeyError(question)

    with pytest.raises(KeyError):
        solve(TASK)
    with pytest.raises(TypeError):
        solve()
    first, second = sessions_in(folder)
    assert first.end.status == second.end.status == "failed" and second.text == ""


def test_a_task_that_fails_is_said_and_not_raised(folder):
    @sdk.traced(task=lambda question: question["missing"])
    def solve(question):
        return "42"

    assert solve({}) == "42"
    assert session_in(folder).text == "unknown: `task` failed with KeyError"


def test_a_generator_is_left_alone(folder, quiet):
    @sdk.traced
    def count():
        yield 1

    assert list(count()) == [1] and not folder.exists()
    assert sdk.status()["dropped"] == {
        "traced cannot tell when a generator ends; use atlas.sdk.session inside it": 1
    }  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda s: s.attempt("x", tokens=1), "Session.attempt() got an unexpected keyword argument 'tokens'"),
        (lambda s: s.intervene("x"), "Session.intervene() missing 1 required keyword-only argument: 'by'"),
        (lambda s: s.intervene("x", by="me"), "intervention.by must be one of teacher, human, rule, tool"),
        (lambda s: s.outcome(""), "outcome.scorer must be a text that is not empty"),
    ],
)
def test_wrong_calls_are_counted_with_what_was_wrong(folder, quiet, wrong, said):
    with sdk.session(task=TASK) as s:
        s.attempt("a")
        assert isinstance(wrong(s), str)
    assert sdk.status()["dropped"] == {said: 1}
    assert session_in(folder).end.dropped == 1


def test_a_session_called_wrongly_records_nothing_and_runs(folder, quiet):
    with sdk.session(tsk=TASK) as s:
        s.attempt("a")
    assert s.id == LOST and not folder.exists()
    assert "session() got an unexpected keyword argument 'tsk'" in sdk.status()["dropped"]


def test_the_fields_of_every_record_are_written(folder):
    with sdk.session(task=[{"role": "user", "content": TASK}], model="m", prompt_version="p", metadata={"a": 1}) as s:
        call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        s.attempt(
            "", messages=[{"role": "user", "content": TASK}], tool_calls=[call], error="late", prompt_version="p2"
        )
        s.intervene("42", by="tool", kind="tool_result", name="f", error="none", duration_seconds=1, model="m2")
        s.outcome("judge", 0.5, note="half", metadata={"b": 2}, model="m3", output_tokens=7, cost_usd=0.1)
    begin, attempt, intervention, outcome, end = records_in(folder)
    assert begin.task[0].content == TASK and begin.model == "m" and begin.metadata == {"a": 1}
    assert attempt.tool_calls == [call] and attempt.messages[0].role == "user" and attempt.error == "late"
    assert intervention.name == "f" and intervention.duration_seconds == 1 and intervention.model == "m2"
    assert outcome.note == "half" and outcome.metadata == {"b": 2} and outcome.parent == attempt.id
    assert (outcome.model, outcome.output_tokens, outcome.cost_usd) == ("m3", 7, 0.1)
    assert end.answer == "" and end.dropped == 0
