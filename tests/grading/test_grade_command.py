"""`atlas grade`: pairs of a JSON Lines file, graded as in a run."""

import json
import os
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from atlas.cli import app
from atlas.errors import AtlasError

PAIRS = [
    {"prediction": r"so \boxed{1,000}", "gold": "#### 1000", "equal": True},
    {"prediction": "I do not know.", "gold": "5", "equal": False},
    {"prediction": "The answer is 5 cents.", "gold": "$0.05", "equal": True},
    {"prediction": "5", "gold": "6", "equal": True, "source": "nowhere"},
]


def atlas_grade(*arguments: object, stdin: bytes | None = None, expect: int = 0) -> str:
    result = CliRunner().invoke(app, ["grade", *map(str, arguments)], input=stdin)
    if isinstance(result.exception, AtlasError):
        assert (result.exception.exit_code, result.stdout) == (expect, "")
        return str(result.exception)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == expect, result.stderr
    return result.stdout


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    return file


def test_each_pair_is_a_line_and_the_labels_are_counted_at_the_end(pairs: Path) -> None:
    lines = atlas_grade(pairs).splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [["right", "1"], ["wrong", "2"], ["wrong", "3"], ["wrong", "4"]]
    assert lines[0].endswith("1,000" + " " * 27 + "1000")
    assert "(no answer found)" in lines[1]
    assert len({line.rindex("  ") for line in lines[:4]}) == 1
    assert [int(line.split()[-1]) for line in lines if "positives " in line or "negatives " in line] == [1, 0, 1, 2]
    assert [line.split(": ")[0] for line in lines if "labelled equal, graded wrong" in line] == [
        f"{pairs}:3",
        f"{pairs}:4",
    ]


def test_json_is_one_object_a_line_with_what_was_compared(pairs: Path) -> None:
    records = [json.loads(line) for line in atlas_grade(pairs, "--json").splitlines()]
    assert records[0] == {"found": True, "equal": True, "prediction": "1,000", "gold": "1000", "expected": True}
    assert records[1] == {"found": False, "equal": False, "prediction": None, "gold": "5", "expected": False}
    assert len(records) == len(PAIRS)


def test_pairs_without_labels_have_none_in_the_output() -> None:
    pair = b'{"prediction": "x = 5", "gold": "5"}\n'
    assert json.loads(atlas_grade("-", "--json", stdin=pair)) == {
        "found": True,
        "equal": True,
        "prediction": "x = 5",
        "gold": "5",
    }
    assert len(atlas_grade("-", stdin=pair).splitlines()) == 1


@pytest.mark.parametrize(
    ("pair", "options", "equal"),
    [
        ((r"\boxed{10\%}", "0.1"), [], False),
        ((r"\boxed{10\%}", "0.1"), ["--percent", "fraction"], True),
        ((r"\boxed{10\%}", "10"), ["--percent", "unit"], True),
        (("1, 2", "2, 1"), [], True),
        (("1, 2", "2, 1"), ["--ordered-lists"], False),
    ],
)
def test_options_are_the_policy(pair: tuple[str, str], options: list[str], equal: bool) -> None:
    line = json.dumps({"prediction": pair[0], "gold": pair[1]}).encode()
    assert json.loads(atlas_grade("-", "--json", *options, stdin=line))["equal"] is equal


def test_unknown_percent_is_refused() -> None:
    assert atlas_grade("-", "--percent", "ratio", stdin=b"", expect=2) == (
        "--percent 'ratio': expected unit or fraction"
    )


GOOD = b'{"prediction": "5", "gold": "5"}\n'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "not JSON"),
        (b"[1]", "got a list; expected an object such as"),
        (b'{"gold": "5"}', "prediction is missing; it has: gold"),
        (b"{}", "gold is missing; it has: nothing"),
        (b'{"prediction": 5, "gold": "5"}', "prediction: expected a string, got a number"),
        (b'{"prediction": "5", "gold": null}', "gold: expected a string, got null"),
        (b'{"prediction": "5", "gold": "5", "equal": "yes"}', "equal: expected true or false, got a string"),
        (b'{"prediction": "5", "gold": "5", "equal": null}', "equal: expected true or false, got null"),
        (b'{"prediction": "\xff", "gold": "5"}', "not valid UTF-8: byte 16 of the line is 0xff"),
        (b"[" * 100_000, "not JSON that can be read"),
        (b'{"prediction": ' + b"9" * 5000 + b"}", "not JSON that can be read"),
    ],
)
def test_bad_line_is_named_and_nothing_is_graded(line: bytes, message: str) -> None:
    said = atlas_grade("-", stdin=GOOD + b"\n" + line + b"\n" + GOOD, expect=2)
    assert f"<stdin>:3: {message}" in said


def test_every_bad_line_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    file.write_bytes(b"no\n" * 50 + GOOD + b'{"prediction": 1, "gold": 2}')
    places = [line.split(": ")[0] for line in atlas_grade(file, expect=2).splitlines()]
    assert places == [f"{file}:{number}" for number in [*range(1, 51), 52, 52]]


def test_byte_order_mark_crlf_blank_lines_and_a_missing_newline_are_let_pass(tmp_path: Path) -> None:
    file = tmp_path / "windows.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.replace(b"\n", b"\r\n") + b"\r\n  \r\n" + GOOD.strip())
    assert [line.split()[1] for line in atlas_grade(file).splitlines()] == ["1", "4"]


def test_lines_of_megabytes_are_graded() -> None:
    row = json.dumps({"prediction": "so " * 2_000_000 + "it is 5", "gold": "5" * 1_000_000}).encode()
    record = json.loads(atlas_grade("-", "--json", stdin=row))
    assert (record["equal"], record["prediction"], record["gold"]) == (False, "5", "5" * 1000)


def test_control_characters_and_lone_surrogates_do_not_reach_the_terminal() -> None:
    row = json.dumps({"prediction": "\\boxed{\x1b[31m\n5\t\ud800}", "gold": "\x07"}).encode()
    (line,) = atlas_grade("-", stdin=row).splitlines()
    assert r"\x1b[31m\n5\t\xd800" in line and line.endswith(r"\x07")


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty; expected an object"), (b"\n\n", "is empty"), ("{}".encode("utf-16"), "is a UTF-16 file")],
)
def test_file_without_pairs_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_bytes(content)
    assert f"{file} {message}" in atlas_grade(file, expect=2)


def test_missing_file_and_directory_are_named(tmp_path: Path) -> None:
    assert "none.jsonl does not exist" in atlas_grade(tmp_path / "none.jsonl", expect=2)
    assert f"{tmp_path} is a directory" in atlas_grade(tmp_path, expect=2)
    assert "cannot be read" in atlas_grade("a\0b", expect=2)


def test_file_without_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("atlas.cli.grading.io.FileIO", refuse)
    assert "pairs.jsonl cannot be read: Permission denied" in atlas_grade(tmp_path / "pairs.jsonl", expect=2)


def test_pipe_that_can_be_read_only_once_is_graded(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(GOOD * 3), daemon=True)
    writer.start()
    assert len(atlas_grade(pipe).splitlines()) == 3
    writer.join(timeout=60)
