import json
import os
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from atlas.datasets import Gsm8k, Jsonl, MetaMathQA
from atlas.datasets.files import read_rows
from atlas.errors import SpecError

ROWS = [{"prompt": f"What is {n}? ü", "answer": str(n)} for n in range(4)]


def parquet(path: Path, rows=ROWS) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def refused(path: Path) -> str:
    with pytest.raises(SpecError) as caught:
        Jsonl(path=str(path), dev_size=0, test_size=0).check()
    (problem,) = caught.value.problems
    assert problem.path == "dataset.path"
    assert str(path) in problem.message
    return problem.message


def test_json_lines_json_lists_and_parquet_hold_the_same_rows(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)
    files = {
        "a.jsonl": lines,
        "blank_lines.jsonl": lines.replace("\n", "\n\n\r\n") + "\n",
        "bom.jsonl": "\ufeff" + lines,
        "list.json": "\n" + json.dumps(ROWS, indent=1),
        "lines.json": lines,
        "no_suffix": lines,
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8", newline="")
        assert list(read_rows(tmp_path / name)) == ROWS, name
    assert list(read_rows(parquet(tmp_path / "a.parquet"))) == ROWS


def test_a_line_separator_inside_a_string_does_not_end_the_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "a\u2028b\x85c", "answer": 1}\n', encoding="utf-8")
    assert read_rows(path)[0]["prompt"] == "a\u2028b\x85c"


def test_messages_can_come_from_parquet(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "2?"}, {"role": "assistant", "content": "It is 2."}]
    path = parquet(tmp_path / "a.parquet", [{"messages": turns, "answer": 2}])
    (example,) = Jsonl(path=str(path), dev_size=0, test_size=0).load().train
    assert (example.solution, len(example.messages)) == ("It is 2.", 1)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b"\n \n", "is empty"),
        ("a.json", b"[]", "is empty"),
        ("a.jsonl", b'{"prompt": "q", "answer": 1}\n{"prompt": \n', "line 2: not JSON"),
        ("a.jsonl", b'{"prompt": "q", "answer": 1}\n"text"\n', "line 2: expected an object such as"),
        ("a.jsonl", b"[1]\n", 'line 1: expected an object such as {"prompt": ...}, got a list'),
        ("a.json", b'[{"prompt": "q"},\n{"prompt" 5}]', "line 2: not JSON"),
        ("a.json", b'[{"prompt": "q"}, 5]', "row 1: expected an object"),
        ("a.jsonl", b'{"a": ' + b"[" * 100_000, "line 1: not JSON that can be read"),
        ("a.jsonl", b'{"a": ' + b"1" * 5000 + b"}", "line 1: not JSON that can be read"),
        ("a.jsonl", b'{"prompt": "\xff\xfe"}', "not valid Unicode: b'\\xff' is not UTF-8"),
        ("a.parquet", b"", "truncated or not Parquet"),
        ("a.parquet", b'{"prompt": "q"}', "truncated or not Parquet"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert says in refused(tmp_path / name)


def test_a_cut_parquet_file_is_refused(tmp_path: Path) -> None:
    path = parquet(tmp_path / "train.parquet")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "train.parquet: truncated or not Parquet" in refused(path)


def test_a_parquet_file_without_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"prompt": pyarrow.array([], "string")}), path)
    assert "is empty" in refused(path)


def test_missing_files_and_directories_are_refused(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "nope.jsonl")
    assert "does not exist" in refused(tmp_path / "nope.parquet")
    assert "is a directory" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "is a directory or a device" in refused(tmp_path / "pipe.jsonl")


def test_every_dataset_with_a_path_says_that_it_does_not_exist(tmp_path: Path) -> None:
    for dataset in (Gsm8k, Jsonl, MetaMathQA):
        with pytest.raises(SpecError, match="data/nope: does not exist") as caught:
            dataset(path=str(tmp_path / "data/nope")).check()
        assert caught.value.problems[0].path == "dataset.path"


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(ROWS[0]))
    first = read_rows(path)
    assert read_rows(path) is first
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert list(read_rows(path)) == ROWS
