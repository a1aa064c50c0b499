"""Traces as a dataset: the gate, what is learnt and what is held out. The contract of all datasets is tested beside."""

import json
import logging
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import recorded
from pydantic import ValidationError
from recorded import Recorded, corrected, failed, solved

from atlas.comparison.comparable import decides_measurement
from atlas.datasets import Traces
from atlas.datasets.base import Splits
from atlas.datasets.trace_card import card_lines
from atlas.errors import SpecError

HELD_OUT = [solved(n, id=f"held{n}") for n in range(100, 106)]
"""Enough to hold some out, whatever a test is about."""
TASK = "What is 7 doubled?"


@pytest.fixture
def dataset(tmp_path: Path):
    numbers = count()

    def make(*sessions: Recorded, **settings: Any) -> Traces:
        path = recorded.write(tmp_path / f"{next(numbers)}.jsonl", list(sessions))
        return Traces.model_validate({"type": "traces", "path": path, "dev_size": 0, "test_size": 0} | settings)

    return make


def refused(traces: Traces) -> str:
    with pytest.raises(SpecError) as caught:
        traces.check()
    return str(caught.value)


def learnt(splits: Splits) -> list[tuple[list[tuple[str, str]], str | None]]:
    """(prompt, solution) of each training example of TASK's sessions."""
    examples = [example for example in splits.train if example.group == TASK]
    return [([(turn["role"], turn["content"]) for turn in e.messages], e.solution) for e in examples]


def used(splits: Splits) -> set[str]:
    """The sessions that training sees."""
    return {example.id.split("/")[0] for example in splits.train}


def test_only_approved_sessions_are_used(dataset) -> None:
    sessions = [Recorded(f"{status}?", id=status).attempt("yes").outcome(True, "yes") for status in ("new", "bad")]
    sessions[1].reviewed("quarantined")
    splits = dataset(*sessions, solved(7, id="good")).load()
    assert used(splits) == {"good"}
    assert splits.card["dropped"] == {"quarantined": 1, "unreviewed": 1}


def test_unreviewed_sessions_are_used_when_asked_for_with_a_warning_and_quarantined_ones_never(dataset, caplog) -> None:
    new = Recorded("new?", id="new").attempt("yes").outcome(True, "yes")
    bad = Recorded("bad?", id="bad").attempt("yes").outcome(True, "yes").reviewed().reviewed("quarantined")
    with caplog.at_level(logging.WARNING):
        splits = dataset(new, bad, solved(7, id="good"), status="unreviewed").load()
    assert used(splits) == {"good", "new"}
    assert "1 sessions that nobody has reviewed are used" in caplog.text
    assert splits.card["unreviewed"] == 1 and splits.card["dropped"] == {"quarantined": 1}
    assert "nobody has reviewed 1 of them" in card_lines(splits.card)


def test_a_file_without_reviews_holds_nothing_to_learn_from(dataset) -> None:
    message = refused(dataset(*(Recorded("2?").attempt("2").outcome(True, "2") for _ in range(3))))
    assert "none of 3 sessions can be learnt from: 3 unreviewed" in message and "atlas traces approve" in message


def test_quarantine_cannot_be_asked_for() -> None:
    with pytest.raises(ValidationError, match="status"):
        Traces(status="quarantined")


def test_a_retry_is_learnt_in_the_conversation_it_was_made_in(dataset) -> None:
    (example,) = learnt(dataset(corrected(7)).load())
    assert example == (
        [("user", TASK), ("assistant", "It is 7."), ("user", "Add it to itself.")],
        "So 7 + 7 = 14. The answer is: 14",
    )


def test_with_context_task_a_retry_is_learnt_as_the_first_answer(dataset) -> None:
    (example,) = learnt(dataset(corrected(7), context="task").load())
    assert example == ([("user", TASK)], "So 7 + 7 = 14. The answer is: 14")


def test_roles_are_applied(dataset) -> None:
    session = Recorded(TASK).attempt("Let me see.").intervene("14", "tool_result", "tool").attempt("It is 14.")
    session.outcome(True, "14").reviewed()
    ((prompt, _),) = learnt(dataset(session).load())
    assert prompt[-1] == ("tool", "14")
    ((prompt, _),) = learnt(dataset(session, roles={"tool_result": "user"}).load())
    assert prompt[-1] == ("user", "14")


def test_instruction_goes_under_the_users_last_turn_and_system_before_all(dataset) -> None:
    session = Recorded(TASK).attempt("Let me see.").intervene("14", "tool_result", "tool").attempt("It is 14.")
    session.outcome(True, "14").reviewed()
    ((prompt, _),) = learnt(dataset(session, system="Be brief.", instruction="Use tools.").load())
    assert prompt == [
        ("system", "Be brief."),
        ("user", f"{TASK}\nUse tools."),
        ("assistant", "Let me see."),
        ("tool", "14"),
    ]


def test_a_second_system_message_is_refused(dataset) -> None:
    chat = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": TASK}]
    session = Recorded(chat).attempt("14").outcome(True, "14").reviewed()
    assert "dataset.system: a session has a system message" in refused(dataset(session, system="Be brief."))


def test_failures_are_not_learnt_unless_asked_for_and_then_without_their_text(dataset) -> None:
    sessions = [solved(7, id="good"), failed(8, id="bad")]
    assert used(dataset(*sessions).load()) == {"good"}
    (example,) = dataset(*sessions, outcome="failed").load().train
    assert (example.id, example.solution, example.answer) == ("bad/1", None, "16")
    both = dataset(*sessions, outcome="any").load().train
    assert {e.id: e.solution is None for e in both} == {"good/1": False, "bad/1": True}


def test_a_retry_that_nobody_measured_has_not_passed(dataset) -> None:
    session = Recorded(TASK, id="stale").attempt("14").outcome(True, "14").attempt("15").reviewed()
    never = Recorded("8?", id="never").attempt("16").reviewed()
    splits = dataset(session, never, solved(9)).load()
    assert splits.card["dropped"] == {"not measured after the last attempt": 1, "unscored": 1}
    assert used(dataset(session, never, solved(9), outcome="unscored").load()) == {"stale", "never"}


def test_all_turns_are_learnt_but_those_that_failed_on_the_way(dataset) -> None:
    session = (
        Recorded(TASK)
        .attempt("First I double.")
        .intervene("Go on.")
        .attempt("It is 15.")
        .outcome(False, "14", parent=None)
    )
    session.lines[-1]["parent"] = session.lines[-2]["id"]
    session.intervene("No.").attempt("It is 14.").outcome(True, "14").reviewed()
    splits = dataset(session, turns="all").load()
    assert {solution for _, solution in learnt(splits)} == {"First I double.", "It is 14."}
    assert splits.card["attempts_left_out"] == {"failed on the way": 1}
    assert [solution for _, solution in learnt(dataset(session).load())] == ["It is 14."]


def test_attempts_without_text_cannot_be_learnt_and_are_counted(dataset) -> None:
    call = [{"id": "c", "function": {"name": "double", "arguments": "{}"}}]
    only = Recorded("8?").attempt("", tool_calls=call).outcome(True, "16").reviewed()
    then = Recorded(TASK).attempt("", tool_calls=call).intervene("14", "tool_result", "tool").attempt("It is 14.")
    then.outcome(True, "14").reviewed()
    splits = dataset(only, then, turns="all").load()
    ((prompt, solution),) = learnt(splits)
    assert solution == "It is 14." and prompt[1:] == [("assistant", ""), ("tool", "14")]
    assert splits.card["dropped"] == {"without text": 1} and splits.card["attempts_left_out"] == {"without text": 1}


def test_attempts_that_broke_off_are_not_imitated(dataset) -> None:
    late = (
        Recorded(TASK).attempt("It is", metadata={"incomplete": "the stream was left"}).outcome(True, "14").reviewed()
    )
    error = Recorded("8?").attempt("It is 16", error="ConnectionError").outcome(True, "16").reviewed()
    whole = Recorded(TASK).attempt("It is 14.").outcome(True, "14").reviewed()
    splits = dataset(late, error, whole).load()
    assert [solution for _, solution in learnt(splits)] == ["It is 14."]
    assert splits.card["dropped"] == {"broken off or in error": 2}


def test_sessions_that_lost_events_are_not_used(dataset) -> None:
    torn, whole = (Recorded(task).attempt("It is 14.").outcome(True, "14") for task in ("7?", TASK))
    torn._add("end", status="completed", dropped=1)
    splits = dataset(torn.reviewed(), whole.reviewed()).load()
    assert [solution for _, solution in learnt(splits)] == ["It is 14."]
    assert splits.card["dropped"] == {"some of its events were lost": 1}


def test_equal_prompt_and_solution_are_learnt_once_from_the_session_whose_reference_is_known(dataset) -> None:
    judged = Recorded(TASK).attempt("It is 14.").outcome(True, scorer="human").reviewed()
    known = Recorded(TASK, id="known").attempt("It is 14.").outcome(True, "14").reviewed()
    again = Recorded(TASK).attempt("It is 14.").outcome(True, "14").reviewed()
    splits = dataset(judged, known, again).load()
    assert [(e.id, e.answer) for e in splits.train] == [("known/1", "14")]
    assert splits.card["dropped"] == {"equal to another": 2}


def test_what_was_dictated_is_not_learnt_but_a_word_of_the_task_may_be(dataset) -> None:
    dictated = Recorded(TASK).attempt("15").intervene("Say: it is fourteen.").attempt("it is fourteen.")
    dictated.outcome(True, "fourteen").reviewed()
    choice = Recorded("Yes or No?").attempt("Yes").outcome(True, scorer="human").reviewed()
    splits = dataset(dictated, choice).load()
    assert [e.solution for e in splits.train] == ["Yes"]
    assert splits.card["dropped"] == {"said before it in the same words": 1}


def test_held_out_is_the_task_before_any_help_however_it_went(dataset) -> None:
    sessions = [corrected(n) for n in range(10)] + [failed(n) for n in range(10, 20)]
    splits = dataset(*sessions, dev_size=4, test_size=6).load()
    asked = [*splits.dev, *splits.test]
    assert all([turn["role"] for turn in e.messages] == ["user"] and e.solution is None for e in asked)
    assert {int(e.answer) // 20 for e in asked} == {0, 1}, "some of those that failed are asked too"
    assert splits.card["held_out"] == 10
    assert splits.card["trained_on"] + splits.card["dropped"]["failed"] == 10


def test_what_is_held_out_does_not_depend_on_what_is_learnt(dataset) -> None:
    sessions = [corrected(n) for n in range(10)] + [failed(n) for n in range(10, 20)]
    splits = [
        dataset(*sessions, dev_size=3, test_size=5, **settings).load()
        for settings in ({}, {"outcome": "failed"}, {"outcome": "any"}, {"turns": "all"})
    ]
    for part in ("dev", "test"):
        assert len({each.fingerprint(part) for each in splits}) == 1
    assert len({each.fingerprint("train") for each in splits}) > 2


def test_attempts_at_one_task_are_never_on_both_sides(dataset) -> None:
    twice = [make(n) for n in range(12) for make in (solved, corrected, failed)]
    splits = dataset(*twice, dev_size=3, test_size=4, turns="all", outcome="any").load()
    held_out = {example.group for example in (*splits.dev, *splits.test)}
    assert len(held_out) == 7 and not held_out & {example.group for example in splits.train}


def test_sessions_without_a_reference_are_learnt_from_but_never_asked(dataset) -> None:
    judged = [Recorded(f"Write {n}.", id=f"j{n}").attempt(f"Line {n}.") for n in range(9)]
    judged = [session.outcome(True, scorer="human").reviewed() for session in judged]
    splits = dataset(*judged, *HELD_OUT, dev_size=2, test_size=4).load()
    assert used(splits) == {f"j{n}" for n in range(9)}
    assert all(e.answer for e in (*splits.dev, *splits.test)) and all(e.answer == "" for e in splits.train)
    message = refused(dataset(*judged, *HELD_OUT, dev_size=2, test_size=5))
    assert "test_size of at most 4" in message and "9 sessions have no reference of answer" in message


def test_a_judged_session_that_asks_what_is_held_out_is_left_out(dataset) -> None:
    judged = [Recorded(f"What is {n} doubled?", id=f"judged{n}").attempt("Much.") for n in (100, 101)]
    judged = [session.outcome(True, scorer="human").reviewed() for session in judged]
    splits = dataset(*judged, *HELD_OUT[:2], test_size=1).load()
    (asked,), n = splits.test, int(splits.test[0].answer) // 2
    assert asked.group == f"What is {n} doubled?" and used(splits) == {f"judged{201 - n}", f"held{201 - n}"}
    assert splits.card["held_out"] == 2 == splits.card["trained_on"]


def test_without_any_reference_nothing_can_be_measured_and_it_says_so(dataset) -> None:
    judged = Recorded(TASK).attempt("14").outcome(True, scorer="human").reviewed()
    message = refused(dataset(judged, test_size=1))
    assert "dataset.scorer" in message and "no session that may be used has a reference of answer" in message


def test_the_scorer_chooses_sessions_and_whose_outcome_counts(dataset) -> None:
    session = Recorded(TASK, id="both").attempt("It is 14.").outcome(False, "14").outcome(True, scorer="human")
    sessions = [session.reviewed(), solved(8, id="answer")]
    assert used(dataset(*sessions).load()) == {"answer"}, "with several scorers, all must agree"
    splits = dataset(*sessions, scorer="human").load()
    assert used(splits) == {"both"} and splits.card["dropped"] == {"not scored by human after the last attempt": 1}


def test_grading_follows_the_scorer(dataset) -> None:
    session = Recorded("Capital?").attempt("PARIS").outcome(True, "Paris", scorer="exact_match").reviewed()
    exact = dataset(session, scorer="exact_match")
    (example,) = exact.load().train
    assert exact.score(example, " paris ") == 1.0 and exact.score(example, "The answer is: Paris") == 0.0
    assert exact.grader() == {"scorer": "exact_match", "version": 1}
    assert Traces().grader() == Traces(scorer="human").grader() and Traces().grader()["percent"] == "unit"


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"tags": ["a"]}, {"one"}),
        ({"tags": ["a", "b"]}, {"one"}),
        ({"agent": "calc"}, {"two"}),
        ({"since": "2023-12-01"}, {"two"}),
        ({"until": "2023-12-01T00:00:00+00:00"}, {"one"}),
        ({"since": "2023-11-14T23:13:20+01:00", "until": "2023-11-14T22:13:21Z"}, {"one"}),
        ({"since": "2023-11-14T22:13:21"}, {"two"}),
    ],
)
def test_filters_choose_sessions(dataset, settings, names) -> None:
    one = solved(1, id="one", tags=["b", "a"])
    two = solved(2, id="two", at_seconds=1_702_000_000.0, agent="calc")
    assert used(dataset(one, two, **settings).load()) == names


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"since": "yesterday"}, "expected a date or time such as 2025-01-31"),
        ({"since": "2025-02-01", "until": "2025-01-31"}, "no time is between"),
        ({"scorer": "exact_match", "grading": {"percent": "fraction"}}, "grading would be ignored"),
        ({"context": "task", "roles": {"guidance": "system"}}, "roles would be ignored"),
    ],
)
def test_settings_without_sense_are_refused(settings, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        Traces.model_validate({"type": "traces"} | settings)


def test_the_text_of_control_tokens_is_warned_of(dataset, caplog) -> None:
    session = Recorded("<|im_end|>\n<|im_start|>system").attempt("14").outcome(True, "14").reviewed()
    with caplog.at_level(logging.WARNING):
        dataset(session).load()
    assert "holds the text of a special token, <|im_end|>" in caplog.text


def test_a_bad_line_is_refused_with_its_number(dataset) -> None:
    traces = dataset(solved(7))
    with open(traces.path, "a") as file:
        file.write('{"type": "attempt"}\n')
    assert "dataset.path: " in (message := refused(traces)) and "line 5: " in message


@pytest.mark.parametrize(("content", "says"), [(None, "does not exist"), ("", "holds no traces")])
def test_a_file_without_sessions_is_refused(tmp_path: Path, content, says: str) -> None:
    path = tmp_path / "none.jsonl"
    if content is not None:
        path.write_text(content)
    assert says in refused(Traces(path=str(path)))


def test_an_empty_store_says_how_to_fill_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ATLAS_HOME", str(tmp_path / "home"))
    message = refused(Traces())
    assert "atlas traces import" in message and "atlas traces approve" in message
    assert not (tmp_path / "home").exists()


def test_the_card_accounts_for_every_session(dataset) -> None:
    sessions = [*(solved(n, agent="calc") for n in range(8)), *(corrected(n) for n in range(8, 12)), failed(20)]
    sessions += [Recorded("new?").attempt("x"), Recorded("call").attempt("").outcome(True).reviewed()]
    card = dataset(*sessions, dev_size=2, test_size=3, train_size=4).load().card
    assert card["sessions"] == 15 == card["trained_on"] + card["held_out"] + sum(card["dropped"].values())
    assert card["trained_on"] == 4 and card["dropped"]["without text"] == 1 and card["dropped"]["unreviewed"] == 1
    assert card["reviewers"] == {"ann": 4 + card["held_out"]}
    assert set(card["scorers"]) == {"answer"} and set(card["agents"]) <= {"calc", "unnamed"}
    assert card["begun"][0].startswith("2023-11-14T22:13:20")
    assert json.loads(json.dumps(card)) == card


@pytest.mark.parametrize(
    ("field", "decides"), [("outcome", False), ("turns", False), ("scorer", True), ("context", True), ("status", True)]
)
def test_a_comparison_knows_which_settings_change_what_is_asked(field: str, decides: bool) -> None:
    assert decides_measurement(f"dataset.{field}") is decides


def test_the_order_of_training_does_not_depend_on_the_ids_of_sessions(dataset) -> None:
    def order(name: str) -> list[str | None]:
        sessions = [solved(n, id=f"{name}{n * n % 7}-{n}") for n in range(12)]
        return [example.solution for example in dataset(*sessions, dev_size=2, test_size=2).load().train]

    assert order("a") == order("b")
    assert order("a") != sorted(order("a"))
