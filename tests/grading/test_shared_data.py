"""The grader on answers that others collected."""

import json
from pathlib import Path

import pytest

from atlas.grading import grade


def test_shared_answer_cases_are_graded_as_labelled(shared: Path) -> None:
    rows = [json.loads(line) for line in (shared / "data/answer_cases.jsonl").read_text().splitlines()]
    assert len(rows) >= 110
    disagreements = [row for row in rows if grade(row["prediction"], row["gold"]).correct != row["equal"]]
    assert disagreements == []


@pytest.mark.parametrize("marker", ["#### ", "The answer is: ", "so he has $"])
def test_gsm8k_solutions_are_right_for_their_answer_and_wrong_for_the_next(shared: Path, marker: str) -> None:
    rows = [json.loads(line) for line in (shared / "data/gsm8k/test.jsonl").read_text().splitlines()]
    assert len(rows) == 1319
    for row in rows:
        work, answer = row["answer"].split("#### ")
        completion = f"{work}{marker}{answer}"
        assert grade(completion, answer).correct, completion
        assert not grade(completion, str(int(answer.replace(",", "")) + 1)).correct, completion
