"""What was asked, read from a run directory."""

import json

from lab import append

from atlas.store.problems import problem_of, problems

TURN = {"role": "user", "content": "2 + 2?"}


def record(split, name, messages=(TURN,)):
    return {"split": split, "problem_id": name, "messages": list(messages), "answer": "4"}


def test_the_problems_of_a_split_are_read_in_its_order(tmp_path):
    system = {"role": "system", "content": "Be brief."}
    append(tmp_path / "problems.jsonl", [record("dev", "b"), record("test", "a"), record("dev", "a", [system, TURN])])
    assert [problem.id for problem in problems(tmp_path, "dev")] == ["b", "a"]
    problem = problem_of(tmp_path, "dev", "a")
    assert problem.answer == "4" and problem.text == "[system]\nBe brief.\n\n[user]\n2 + 2?"
    assert problem_of(tmp_path, "test", "a").text == "2 + 2?"
    assert problem_of(tmp_path, "test", "b") is None


def test_lines_that_are_no_problem_are_passed_over(tmp_path):
    for line in ("{", "3", "null", '{"split": "dev"}', '{"split": "dev", "problem_id": 1, "messages": 3, "answer": 1}'):
        with open(tmp_path / "problems.jsonl", "a") as file:
            file.write(line + "\n")
    append(tmp_path / "problems.jsonl", [record("dev", "a")])
    with open(tmp_path / "problems.jsonl", "ab") as file:
        file.write(b'\xff\xfe{"split": "dev", "prob' + json.dumps(record("dev", "torn")).encode()[:30])
    assert [problem.id for problem in problems(tmp_path, "dev")] == ["a"]


def test_a_run_without_the_file_has_none(tmp_path):
    assert list(problems(tmp_path / "gone", "dev")) == []
