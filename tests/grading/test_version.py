"""The verdicts of this version of the grader, and what it gets wrong.

Each row of `verdicts_v<VERSION>.jsonl` holds a prediction, a gold answer, whether they are `equal` in truth, and how
they are `graded` under three policies: the default, `percent: fraction` and `ordered_lists: true`.
"""

import json
from pathlib import Path

import pytest

from atlas.grading import VERSION, GradingSpec, grade

POLICIES = (GradingSpec(), GradingSpec(percent="fraction"), GradingSpec(ordered_lists=True))
FILE = Path(__file__).with_name(f"verdicts_v{VERSION}.jsonl")


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    assert FILE.exists(), f"write the verdicts of atlas.grading.VERSION {VERSION} to {FILE.name}"
    return [json.loads(line) for line in FILE.read_text().splitlines()]


def test_verdicts_are_those_of_this_version(rows: list[dict]) -> None:
    def graded(row: dict) -> list[bool]:
        return [grade(row["prediction"], row["gold"], policy).correct for policy in POLICIES]

    changed = [(row, graded(row)) for row in rows if graded(row) != row["graded"]]
    assert not changed, f"verdicts changed; if they are meant to, raise atlas.grading.VERSION: {changed}"


def test_nothing_is_graded_right_that_is_wrong(rows: list[dict]) -> None:
    assert len(rows) > 500
    assert [row for row in rows if row["graded"][0] and not row["equal"]] == []


def test_no_wrong_answer_is_right_when_the_two_texts_change_places(rows: list[dict]) -> None:
    wrong = [row for row in rows if not row["equal"]]
    assert [row for row in wrong if grade(row["gold"], row["prediction"]).correct] == []
