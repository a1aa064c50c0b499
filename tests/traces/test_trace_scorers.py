"""Outcomes that can be measured again."""

import pytest

from atlas.grading import GradingSpec, grade
from atlas.traces.scorers import SCORERS, exact_match

ANY = GradingSpec()


@pytest.mark.parametrize(
    ("completion", "reference", "correct"),
    [
        ("Paris", "paris", True),
        (" new\n York ", "New York", True),
        ("It is Paris", "Paris", False),
        ("4.0", "4", False),
    ],
)
def test_exact_match_looks_at_the_text_but_not_at_case_and_spaces(completion, reference, correct):
    verdict = exact_match(completion, reference, ANY)
    assert (verdict.found, verdict.correct) == (True, correct)


@pytest.mark.parametrize("reference", ["", "x"])
def test_an_empty_completion_matches_nothing(reference):
    assert not exact_match(" \n", reference, ANY).found and not exact_match("", reference, ANY).correct


def test_answer_is_the_grader_of_all_other_datasets():
    assert SCORERS["answer"] is grade
