"""The same problems in several evaluations."""

import pytest
from lab import append, sample

from atlas.comparison.by_problem import Evaluation, Grade, common_steps, evaluations, problems_of
from atlas.errors import NotFoundError


def grade(outcome, unparsed=False, clipped=False):
    return Grade({"1": 1.0, "0": 0.0, "h": 0.5}[outcome], ("7",), unparsed, clipped, 3)


def evaluation(outcomes, run="a", **first):
    grades = {f"p{n}": grade(outcome, **(first if n == 0 else {})) for n, outcome in enumerate(outcomes)}
    return Evaluation(run, 5, grades)


@pytest.mark.parametrize(
    "kind, problems",
    [
        ("all", ["p0", "p1", "p2", "p3"]),
        ("gained", ["p1"]),
        ("lost", ["p2"]),
        ("right", ["p0", "p1", "p2"]),
        ("wrong", ["p1", "p2", "p3"]),
    ],
)
def test_problems_are_gained_and_lost_against_the_first_evaluation(kind, problems):
    assert problems_of([evaluation("1010"), evaluation("1100", "b")], kind) == problems


def test_with_several_columns_one_that_differs_is_enough():
    compared = [evaluation("10"), evaluation("10", "b"), evaluation("01", "c")]
    assert problems_of(compared, "gained") == ["p1"] and problems_of(compared, "lost") == ["p0"]


def test_half_right_is_neither_gained_nor_lost():
    for reference, other in (("h", "1"), ("h", "0"), ("1", "h"), ("0", "h")):
        compared = [evaluation(reference), evaluation(other, "b")]
        assert problems_of(compared, "gained") == problems_of(compared, "lost") == []


def test_a_problem_that_was_not_asked_everywhere_is_not_gained():
    compared = [evaluation("1"), evaluation("11", "b")]
    assert problems_of(compared) == ["p0", "p1"] and problems_of(compared, "gained") == []


@pytest.mark.parametrize("kind", ["unparsed", "clipped"])
def test_one_column_without_an_answer_or_an_end_is_enough(kind):
    assert problems_of([evaluation("11"), evaluation("11", "b", **{kind: True})], kind) == ["p0"]


def test_nothing_is_compared_where_nothing_was_evaluated():
    assert problems_of([], "gained") == []


def test_steps_are_numbers_or_the_one_scored_on_test_or_the_newest(lab):
    run = lab.run("gkd", dev=[0.1, 0.2, 0.3], test="10", test_step=10)
    add(lab, run, [sample(step, "p0", "1") | {"split": "dev"} for step in (0, 10, 20)])
    for steps, found in ((["test"], [10]), (["newest"], [20]), (["0", "20"], [0, 20]), (["newest", "20"], [20])):
        compared, missing = evaluations(lab.store, [run], steps, "dev")
        assert [each.step for each in compared] == found and not missing
    assert common_steps(lab.store, [run], "dev") == [0, 10, 20]
    assert common_steps(lab.store, [], "dev") == []


def test_a_run_without_a_test_score_is_shown_at_its_newest_evaluation(lab):
    run = lab.run("gkd", dev=[0.1, 0.2], test="10", eval_split="test")
    assert evaluations(lab.store, [run], ["test"], "test")[0][0].step == 10


def test_what_is_not_there_is_said(lab):
    run, empty = lab.run("gkd", dev=[0.1], test="10"), lab.run("grpo")
    compared, missing = evaluations(lab.store, [run, empty], ["7", "test"], "test")
    assert [each.run_id for each in compared] == [run]
    assert missing == [
        f"{run} was not evaluated on test at step 7; it was at 0",
        f"{empty} has no evaluated completions yet",
    ]
    assert evaluations(lab.store, [run], ["test"], "dev")[1] == [f"{run} has completions of test and none of dev"]
    with pytest.raises(NotFoundError):
        evaluations(lab.store, ["nope"], ["test"], "test")


def test_several_completions_of_a_problem_are_one_grade(lab):
    run = lab.run("gkd", dev=[0.1], test="1")
    add(lab, run, [sample(0, "p0", "0", 1) | {"extracted": "7", "found": True, "clipped": True}])
    add(lab, run, [sample(0, "p0", "0", 2) | {"found": False}])
    compared, _ = evaluations(lab.store, [run], ["test"], "test")
    assert compared[0].grades["p0"] == Grade(pytest.approx(1 / 3), (None, "7", None), True, True, 9)


def add(lab, run, samples):
    append(lab.store.home / "runs" / run / "samples.jsonl", samples)
    lab.store.ingest(run)
