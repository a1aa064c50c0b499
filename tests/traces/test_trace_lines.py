"""What is read of a file, what is refused, and in which words."""

import json

import pytest
from trace_lines import attempt, begin, write

from atlas.traces import read
from atlas.traces.read import read_lines


def problem_of(tmp_path, line):
    """What is wrong with a line; the good one after it is always read."""
    found = list(read_lines(write(tmp_path / "t.jsonl", line, begin())))
    assert [line.number for line in found] == [1, 2]
    assert found[1].records[0].id == "s"
    assert not found[0].records
    return found[0].problem


def record_of(tmp_path, line):
    (found,) = read_lines(write(tmp_path / "t.jsonl", line))
    assert found.problem is None
    return found.records[0]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "not JSON"),
        ("[1]", "expected a JSON object, got list"),
        ("null", "expected a JSON object, got NoneType"),
        ({"type": "attempt"}, "id: Field required"),
        (attempt(type="span"), "type"),
        (attempt(at_seconds="now"), "at_seconds: Input should be a valid number"),
        (attempt(at_seconds="101"), "at_seconds: Input should be a valid number"),
        (attempt(at_seconds=None), "at_seconds"),
        (attempt(text=["x"]), "text: Input should be a valid string"),
        (attempt(colour="red"), "colour: Extra inputs are not permitted"),
        (attempt(id=""), "id: String should have at least 1 character"),
        (attempt(id="x" * 201), "id: String should have at most 200 characters"),
        (attempt(input_tokens=-1), "input_tokens: Input should be greater than or equal to 0"),
        (attempt(schema_version=2), "version 2 of the line schema, this Atlas reads version 1; upgrade Atlas"),
        (attempt(id="a", parent="a"), "span a is its own parent"),
        (begin("s") | {"session": "other"}, "expected s, the id of the session record itself, got other"),
        (b'{"type": "attempt", "text": "\xff"}', "not UTF-8: byte 30 of the line is 0xff"),
        ('{"type": "attempt", "score": NaN}', "NaN is no JSON"),
        ('{"type": "attempt", "score": -Infinity}', "-Infinity is no JSON"),
        ('{"id": "a", "id": "b"}', "key 'id' is there twice"),
        (json.dumps(attempt(metadata={"n": 2**63})), "a whole number is too large"),
        (json.dumps(attempt(metadata={"n": -(2**63)})), "a whole number is too large"),
        (json.dumps(attempt(metadata={"n": 10**400})), "a whole number is too large"),
        *(
            (json.dumps(attempt(metadata={"n": 0})).replace("0}", f"{number}}}"), "a number is too large")
            for number in ("1e999", "[-1.5E+400]", "1.0e0309", "9" * 400 + ".0", "0.1e400")
        ),
        ('{"metadata": {"n": ' + "9" * 5000 + "}}", "a whole number is too large"),
    ],
)
def test_a_bad_line_is_explained_and_the_next_one_read(tmp_path, line, says):
    assert says in problem_of(tmp_path, line)


@pytest.mark.parametrize("opening", ['{"a":', "["])
@pytest.mark.parametrize("depth", [201, 10_000, 1_000_000])
def test_deep_nesting_is_refused_without_recursion(tmp_path, opening, depth):
    assert problem_of(tmp_path, opening * depth) == "nested deeper than 200"


def test_a_text_without_an_end_is_looked_at_once(tmp_path):
    assert "not JSON" in problem_of(tmp_path, '{"a": ' + "[" * 150 + "{}" * 100 + '"' + '\\"' * 1_000_000)


def test_brackets_in_text_are_no_nesting(tmp_path):
    text = "[" * 1000 + '\\"{"'
    assert record_of(tmp_path, attempt(text=text)).text == text


def test_nesting_up_to_the_limit_is_read(tmp_path):
    value: object = 1
    for _ in range(read.DEEPEST - 2):
        value = [value]
    assert record_of(tmp_path, attempt(metadata={"a": value})).metadata["a"] == value


def test_a_line_that_is_too_long_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(read, "LONGEST_LINE_BYTES", 1 << 20)
    assert problem_of(tmp_path, attempt(text="x" * (3 << 20))) == "longer than 1 MiB"


def test_the_longest_line_is_read(tmp_path, monkeypatch):
    line = json.dumps(attempt(text="x" * 1000))
    monkeypatch.setattr(read, "LONGEST_LINE_BYTES", len(line))
    assert record_of(tmp_path, line).id == "a"


@pytest.mark.parametrize(
    ("written", "kept"),
    [("\\ud800", "\\ud800"), ("a\\u0000b", "a\\u0000b"), ("\\ud83d\\ude00", "😀"), ("\\u001b[2J", "\x1b[2J")],
)
def test_what_text_cannot_hold_is_escaped(tmp_path, written, kept):
    line = json.dumps(attempt(text="TEXT", metadata={"TEXT": ["TEXT"]})).replace("TEXT", written)
    record = record_of(tmp_path, line)
    assert (record.text, record.metadata) == (kept, {kept: [kept]})


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63) + 1, 1.5e300, "1" * 30])
def test_large_numbers_that_can_be_held_are_kept(tmp_path, value):
    assert record_of(tmp_path, attempt(metadata={"n": value})).metadata["n"] == value


def test_a_negative_duration_is_taken_and_flagged(tmp_path):
    (line,) = read_lines(write(tmp_path / "t.jsonl", attempt(duration_seconds=-1)))
    assert line.records[0].duration_seconds == -1
    assert line.doubts == ("negative duration of -1 s",)


def test_an_unfinished_line_waits_for_its_end(tmp_path):
    path = write(tmp_path / "t.jsonl", begin())
    whole = json.dumps(attempt())
    with path.open("a") as file:
        file.write(whole[:-5])
    (first,) = read_lines(path)
    with path.open("a") as file:
        file.write(whole[-5:] + "\n")
    (second,) = read_lines(path, first.end_bytes, first.newlines)
    assert (second.number, second.records[0].id) == (2, "a")


def test_a_whole_last_line_without_an_end_is_read(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(begin()) + "\n\n" + json.dumps(attempt()))
    *_, last = read_lines(path)
    assert (last.number, last.records[0].id, last.end_bytes) == (3, "a", path.stat().st_size)
    write(path, "", "{", mode="ab")
    (bad,) = read_lines(path, last.end_bytes, last.newlines)
    assert (bad.number, bad.problem.split(":")[0]) == (4, "not JSON")


def test_secrets_do_not_come_through(tmp_path):
    secret = "hf_" + "Q" * 30
    record = record_of(tmp_path, attempt(text=f"key {secret}", metadata={"a": [{"b": f"{secret}"}]}))
    assert secret not in record.model_dump_json()
    assert secret not in problem_of(tmp_path, attempt(**{secret: 1}))


def test_what_cannot_be_redacted_is_not_taken(tmp_path, monkeypatch):
    def fail(record):
        raise RuntimeError("private")

    monkeypatch.setattr(read._REDACTION, "record", fail)
    (line,) = read_lines(write(tmp_path / "t.jsonl", attempt()))
    assert (line.records, line.problem) == ((), "cannot be redacted: RuntimeError")
