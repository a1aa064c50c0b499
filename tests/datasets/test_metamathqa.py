import logging
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from atlas.datasets import MetaMathQA
from atlas.datasets.base import Splits
from atlas.errors import SpecError

ROW = {
    "query": "2 + 2?",
    "response": "2 + 2 = 4\n#### 4\nThe answer is: 4",
    "type": "GSM_AnsAug",
    "original_question": "2+2",
}


def load(path: str, **settings) -> Splits:
    return MetaMathQA(path=path, **{"dev_size": 0, "test_size": 0, **settings}).load()


def test_the_answer_follows_the_last_mark(write) -> None:
    response = "Not 'The answer is: 3'. Half of it is\n\\frac{1}{2}\nThe answer is: \\frac{1}{2}"
    (example,) = load(write("a.jsonl", [ROW | {"response": response}])).train
    assert example.answer == "\\frac{1}{2}"
    assert example.solution == response
    assert example.messages == ({"role": "user", "content": "2 + 2?"},)
    assert example.group == "2+2"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"response": "It is 4."}, "response: expected 'The answer is: X' at its end, got 'It is 4.'"),
        ({"response": "The answer is: "}, "response: expected 'The answer is: X' at its end"),
        ({"response": "The answer is: \\frac{1}{"}, "answer cannot be parsed"),
        ({"response": None}, "response: expected a string, got null"),
        ({"query": ["2"]}, "query: expected a string, got a list"),
        ({"query": f"Shorten: {ROW['response']}"}, "the prompt holds the solution"),
        ({"original_question": ""}, "original_question is empty"),
    ],
)
def test_rows_of_another_shape_are_refused(write, change, says: str) -> None:
    with pytest.raises(SpecError) as caught:
        load(write("a.jsonl", [ROW, ROW | change]))
    (problem,) = caught.value.problems
    assert problem.path == "dataset.path"
    assert problem.message.startswith("a.jsonl: row 1: ") and says in problem.message


@pytest.mark.parametrize("column", ["query", "response", "original_question"])
def test_a_missing_column_is_named_with_those_there_are(write, column: str) -> None:
    row = {name: value for name, value in ROW.items() if name != column}
    with pytest.raises(SpecError, match=f"row 0: column '{column}' missing; it has: {', '.join(row)}"):
        MetaMathQA(path=write("a.jsonl", [row])).check()


def test_a_few_bad_rows_among_many_are_left_out_and_counted(write, caplog) -> None:
    rows = [ROW | {"query": f"{n} + 2?"} for n in range(200)]
    rows[7] |= {"response": "I do not know."}
    rows[9] |= {"response": "The answer is: \\frac{1}{"}
    with caplog.at_level(logging.WARNING):
        examples = load(write("a.jsonl", rows)).train
    assert len(examples) == 199
    assert "left out 1 of 200 rows" in caplog.text
    assert "row 7: response" in caplog.text and "row 9: answer cannot be parsed" in caplog.text


def test_only_the_first_rows_are_tried_on_the_grader_and_judged_by_their_own_number(write, monkeypatch) -> None:
    monkeypatch.setattr("atlas.datasets.rows.PARSED", 10)
    rows = [ROW | {"query": f"{n} + 2?"} for n in range(200)]
    unreadable = {"response": "The answer is: \\frac{1}{"}
    assert len(load(write("late.jsonl", [*rows, *[ROW | unreadable] * 100])).train) == 300
    with pytest.raises(SpecError, match="row 3: answer cannot be parsed"):
        load(write("early.jsonl", [*rows[:3], ROW | unreadable, *rows[3:]]))


def test_a_directory_with_one_file_is_read(write, tmp_path: Path) -> None:
    write("data/MetaMathQA-395K.jsonl", [ROW])
    (tmp_path / "data/README.md").write_text("hello")
    assert len(load(str(tmp_path / "data")).train) == 1


def test_a_directory_with_two_files_or_none_is_refused(write, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(SpecError, match="found: none"):
        load(str(tmp_path / "data"))
    for name in ("data/a.jsonl", "data/b.jsonl"):
        write(name, [ROW])
    with pytest.raises(SpecError, match=r"found: a\.jsonl, b\.jsonl; name the file"):
        load(str(tmp_path / "data"))


def test_parquet_is_read(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROW]), tmp_path / "a.parquet")
    assert load(str(tmp_path / "a.parquet")).train[0].answer == "4"


def test_a_revision_of_a_local_file_is_refused(write) -> None:
    with pytest.raises(SpecError, match=r"dataset\.revision: a local path has no revision"):
        MetaMathQA(path=write("a.jsonl", [ROW]), revision="main").check()
