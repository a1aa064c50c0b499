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


def test_completions_of_a_real_model_are_read_as_their_author_read_them(shared: Path) -> None:
    rows = [json.loads(line) for line in (shared / "data/gsm8k_backward/test.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "inv_question_pred_answer" in row]
    assert len(rows) > 600
    for row in rows:
        by_author = grade(row["pred_inv_answer_cleaned"], row["answer"]).correct
        assert grade(row["inv_question_pred_answer"], row["answer"]).correct == by_author, row
