"""`atlas alignment`: two strips of tokens in a terminal."""

import json
import math

import pytest
from command_line import atlas
from lab import append

from atlas.errors import NotFoundError


@pytest.fixture
def run(lab, monkeypatch):
    monkeypatch.setenv("ATLAS_HOME", str(lab.store.home))
    run = lab.run("gkd", dev=[0.1])
    student, teacher = [["48", 0], [" x\n", 1], ["y", 2], ["z", -1]], [["4", 0], ["8", 0], [" x\n", 1], ["y", 2]]
    common = {"prompt": "p", "student": student, "teacher": teacher}
    append(
        lab.store.home / "runs" / run / "alignment.jsonl",
        [common | {"step": 1, "divergence": [0.5, 0.001, math.nan]}, common | {"step": 4, "divergence": []}],
    )
    return run


def test_the_student_stands_over_the_teacher_by_chunk(run):
    lines = atlas("alignment", run, "--step", "1").splitlines()
    assert lines == [
        f"{run}, step 1, sample 1: mean divergence 0.251 nats a chunk",
        "student 48   ␣x↵",
        "teacher 4|8  ␣x↵",
        "nats    0.50 .",
        "",
        "student y   (z)",
        "teacher y   ()",
        "nats    nan",
        "",
        "a column is a chunk; .: below 0.01 nats; ( ): in no chunk, not learnt from; kept steps: 1, 4",
    ]


def test_the_newest_step_is_shown_and_what_was_not_recorded(run):
    shown = atlas("alignment", run)
    assert "step 4, sample 1: mean divergence nan" in shown and "nats    ?" in shown


def test_json_has_every_chunk(run):
    (completion,) = json.loads(atlas("alignment", run, "--step", "1", "--json"))
    assert completion["chunks"][0] == {"chunk": 0, "student": ["48"], "teacher": ["4", "8"], "divergence": 0.5}
    assert completion["chunks"][2]["divergence"] == "nan" and completion["chunks"][3]["chunk"] is None


def test_a_long_completion_is_wrapped_and_control_characters_are_escaped(lab, run):
    tokens = [["\x1b[2Jword字", n] for n in range(40)]
    record = {"step": 8, "prompt": "p", "student": tokens, "teacher": tokens, "divergence": [0.1] * 40}
    append(lab.store.home / "runs" / run / "alignment.jsonl", [record])
    shown = atlas("alignment", run)
    assert "\x1b" not in shown and max(map(len, shown.splitlines())) <= 100
    assert shown.count("\\x1b[2Jword字") == 80


def test_what_is_not_there_is_said(lab, run):
    assert "it has 1, 4" in atlas("alignment", run, "--step", "2", expect=NotFoundError.exit_code)
    other = lab.run("grpo")
    assert "only gkd" in atlas("alignment", other, expect=NotFoundError.exit_code)
