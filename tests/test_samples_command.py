"""`atlas samples`: the same problem across runs and steps, in a terminal."""

import csv
import io
import json

import pytest
from command_line import atlas
from lab import append, sample

from atlas.errors import NotFoundError


@pytest.fixture
def pair(lab, monkeypatch):
    """Two runs: p1 is gained and p2 lost by the second."""
    monkeypatch.setenv("ATLAS_HOME", str(lab.store.home))
    return lab.run("gkd", dev=[0.1], test="1010"), lab.run("grpo", dev=[0.1], test="1100")


def add(lab, run, *samples):
    append(lab.store.home / "runs" / run / "samples.jsonl", samples)
    lab.store.ingest(run)


def record(lab, run, name, text, answer):
    message = {"role": "user", "content": text}
    document = {"split": "test", "problem_id": name, "messages": [message], "answer": answer}
    append(lab.store.home / "runs" / run / "problems.jsonl", [document])


def test_problems_are_listed_with_the_verdict_of_each_run(pair):
    lines = atlas("samples", *pair).splitlines()
    assert [line.split() for line in lines if line.startswith("p")][1:] == [
        ["p0", "right:", "none", "right:", "none"],
        ["p1", "wrong:", "none", "right:", "none"],
        ["p2", "right:", "none", "wrong:", "none"],
        ["p3", "wrong:", "none", "wrong:", "none"],
    ]
    assert lines[-1] == "4 problems"


def test_gained_and_lost_are_against_the_first_run(pair):
    gained = json.loads(atlas("samples", *pair, "--filter", "gained", "--json"))
    assert [problem["problem_id"] for problem in gained["problems"]] == ["p1"]
    assert gained["evaluations"] == [{"run": run, "step": 0} for run in pair]
    assert f"1 problems, lost against {pair[0]} step 0" in atlas("samples", *pair, "--filter", "lost")
    assert "p1" in atlas("samples", *reversed(pair), "--filter", "lost")


def test_a_line_for_each_problem_of_each_run(pair, lab):
    add(lab, pair[0], sample(0, "p0", "0", 1) | {"extracted": "a,b", "clipped": True})
    record(lab, pair[0], "p0", "Why?", "7")
    rows = list(csv.DictReader(io.StringIO(atlas("samples", *pair, "--csv"))))
    assert len(rows) == 8
    assert rows[0] == {
        "problem_id": "p0",
        "split": "test",
        "run": pair[0],
        "step": "0",
        "gold": "7",
        "correct": "0.5",
        "unparsed": "False",
        "clipped": "True",
        "tokens": "6",
        "extracted": "a,b",
    }


def test_one_problem_is_shown_with_what_was_asked_and_written(pair, lab):
    add(lab, pair[1], sample(0, "p9", "0") | {"completion": "six\n\x1b[31m[bold]", "extracted": "6", "clipped": True})
    record(lab, pair[1], "p9", "What is 2 + 4?", "six")
    shown = atlas("samples", *pair, "--problem", "p9")
    assert "asked\n  What is 2 + 4?\ngold answer\n  six\n" in shown
    assert f"{pair[1]} step 0: wrong, answer 6, 3 tokens, cut at the token limit\n  six\n  \\x1b[31m[bold]" in shown
    document = json.loads(atlas("samples", *pair, "--problem", "p9", "--json"))
    assert document["answer"] == "six" and document["completions"][0]["completion"] == "six\n\x1b[31m[bold]"


def test_a_run_without_recorded_problems_says_so(pair):
    assert "what was asked is not known" in atlas("samples", *pair, "--problem", "p1")
    assert json.loads(atlas("samples", *pair, "--problem", "p1", "--json"))["messages"] is None


def test_steps_and_split_can_be_chosen(pair, lab):
    add(lab, pair[0], *(sample(step, "d0", "1") | {"split": "dev"} for step in (0, 10)))
    shown = json.loads(atlas("samples", pair[0], "--split", "dev", "--step", "0", "--step", "newest", "--json"))
    assert [place["step"] for place in shown["evaluations"]] == [0, 10]
    said = atlas("samples", pair[0], "--split", "dev", "--step", "7")
    assert f"{pair[0]} was not evaluated on dev at step 7; it was at 0, 10" in said and "0 problems" in said


def test_a_run_that_was_evaluated_on_dev_alone_is_shown_there(lab, monkeypatch):
    monkeypatch.setenv("ATLAS_HOME", str(lab.store.home))
    run = lab.run("gkd", state="running")
    assert "has no evaluated completions yet" in atlas("samples", run)
    add(lab, run, sample(0, "d0", "1") | {"split": "dev"})
    assert json.loads(atlas("samples", run, "--json"))["split"] == "dev"


def test_an_experiment_stands_for_its_runs(pair, lab):
    lab.experiment([("gkd", 0, pair[0]), ("grpo", 0, pair[1])])
    shown = json.loads(atlas("samples", "study", pair[0], "--json"))
    assert [place["run"] for place in shown["evaluations"]] == list(pair)


@pytest.mark.parametrize(
    "options, code, says",
    [
        (["--filter", "gaind"], 2, "all, gained, lost"),
        (["--json", "--csv"], 2, "exclude each other"),
        (["--problem", "nope"], NotFoundError.exit_code, "without --problem all are listed"),
    ],
)
def test_what_cannot_be_shown_is_said(pair, options, code, says):
    assert says in atlas("samples", *pair, *options, expect=code)


def test_brackets_and_control_characters_of_a_model_reach_no_terminal(pair, lab):
    add(lab, pair[0], sample(0, "[red]\x1b]0;x\x07", "0") | {"extracted": "[link=http://h]\x1b[2J"})
    for options in ([], ["--csv"]):
        shown = atlas("samples", pair[0], *options)
        assert "\x1b" not in shown and "[red]\\x1b" in shown and "[link=http://h]" in shown
