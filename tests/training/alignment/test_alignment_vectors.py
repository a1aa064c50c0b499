"""Alignments made independently of Atlas, on real tokenizers: `alignment_vectors.jsonl`."""

import json

import pytest
from alignment_reference import real_tokenizer

from atlas.training.alignment.align import align

IDS = [
    *["gsm8k-0", "gsm8k-2", "digits-7", "digits-rev", "zh", "emoji-zwj", "lit-special-teacher", "nfd", "trunc-utf8"],
    *["noncanon-digits", "hole-special", "u2581"],
]
GEMMA = {"gsm8k-2", "u2581"}
NAMES = {"llama3_2": "llama-3.2", "qwen2_5": "qwen2.5", "smollm2": "smollm2", "gemma3": "gemma-3"}

pytestmark = pytest.mark.real


@pytest.mark.parametrize("name", [pytest.param(i, marks=pytest.mark.slow if i in GEMMA else ()) for i in IDS])
def test_shared_vector_comes_out_as_made(name, shared):
    file = shared / "data" / "alignment_vectors.jsonl"
    if not file.is_file():
        pytest.skip(f"no {file}")
    vectors = {vector["id"]: vector for vector in map(json.loads, file.read_text().splitlines())}
    assert vectors.keys() == set(IDS)
    vector = vectors[name]
    student, teacher = (real_tokenizer(NAMES[vector[side]], shared) for side in ("student", "teacher"))

    aligned = align([vector["student_ids"]], student, teacher)

    assert aligned.teacher_ids == [vector["teacher_ids"]]
    for side, found in (("s", aligned.student_chunk), ("t", aligned.teacher_chunk)):
        tokens = vector["student_ids" if side == "s" else "teacher_ids"]
        expected = [-1] * len(tokens)
        for c, chunk in enumerate(vector["chunks"]):
            for i in chunk[side]:
                expected[i] = c
        assert found[0].tolist() == expected
    assert aligned.figures["one_to_one"] == pytest.approx(vector["n_one_to_one"] / vector["n_chunks"])
    assert aligned.figures["coverage"] == pytest.approx(vector["covered_student_tokens"] / len(vector["student_ids"]))
    assert aligned.figures["holes"] == vector["student_kind"].count("hole")
