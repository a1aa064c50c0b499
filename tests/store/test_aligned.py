"""Completions as both sides read them, from alignment.jsonl."""

import json
import math

from lab import append

from atlas.store.aligned import AlignedCompletion, Chunk, aligned_completions, aligned_steps


def completion(student, teacher, divergence=(0.5, 1.5)):
    return AlignedCompletion(1, "p", tuple(student), tuple(teacher), tuple(divergence))


def record(step, **changes):
    return {
        "step": step,
        "prompt": "p",
        "student": [["ab", 0]],
        "teacher": [["a", 0], ["b", 0]],
        "divergence": [0.5],
    } | changes


def test_the_tokens_of_both_sides_stand_together_by_chunk():
    chunks = completion([("48", 0), (" x", 1)], [("4", 0), ("8", 0), (" x", 1)]).chunks()
    assert chunks == [Chunk(0, ("48",), ("4", "8"), 0.5), Chunk(1, (" x",), (" x",), 1.5)]


def test_what_is_in_no_chunk_stands_where_it_is_in_the_text():
    student = [("<s>", -1), ("a", 0), ("<hole>", -1), ("b", 1), ("c", -1), ("d", -1)]
    chunks = completion(student, [("a", 0), ("b", 1), ("t", -1)]).chunks()
    assert [(chunk.number, chunk.student, chunk.teacher) for chunk in chunks] == [
        (None, ("<s>",), ()),
        (0, ("a",), ("a",)),
        (None, ("<hole>",), ()),
        (1, ("b",), ("b",)),
        (None, ("c", "d"), ("t",)),
    ]
    assert chunks[0].divergence is None


def test_a_chunk_without_a_divergence_is_known_as_such():
    assert completion([("a", 0)], [("a", 0)], []).chunks()[0].divergence is None
    assert completion([], []).chunks() == []


def test_the_mean_is_over_what_is_a_number():
    assert completion([], [], [1.0, math.nan, 2.0, math.inf]).mean == 1.5
    assert math.isnan(completion([], [], [math.nan]).mean)


def test_steps_and_their_completions_are_read_from_the_file(tmp_path):
    append(tmp_path / "alignment.jsonl", [record(1), record(1, prompt="q"), record(2, divergence=[math.nan])])
    assert aligned_steps(tmp_path) == {1: 2, 2: 1}
    assert [found.prompt for found in aligned_completions(tmp_path, 1)] == ["p", "q"]
    assert math.isnan(aligned_completions(tmp_path, 2)[0].divergence[0])
    assert aligned_completions(tmp_path, 3) == []


def test_torn_and_foreign_lines_are_passed_over(tmp_path):
    lines = ["{", "[]", "null", '{"step": 1}', json.dumps(record("x")), json.dumps(record(1, student=[["a"]]))]
    lines += [json.dumps(record(1, divergence=["much"])), json.dumps(record(4)), json.dumps(record(8))[:40]]
    (tmp_path / "alignment.jsonl").write_text("\n".join(lines))
    assert aligned_steps(tmp_path) == {4: 1}
    (tmp_path / "alignment.jsonl").write_bytes(b"\xff\xfe\n" + json.dumps(record(4)).encode() + b"\n")
    assert aligned_steps(tmp_path) == {4: 1}


def test_a_run_without_the_file_kept_none(tmp_path):
    assert aligned_steps(tmp_path) == {} and aligned_completions(tmp_path, 1) == []
