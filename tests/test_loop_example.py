"""The shipped loop: its agent, its comparison, and all of it in small."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from recorded import Recorded, write

from atlas.traces.read import read_lines
from atlas.traces.sessions import assemble

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "specs" / "loop"


def script(name):
    spec = importlib.util.spec_from_file_location(f"loop_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def compare():
    return script("compare")


@pytest.fixture
def sessions(tmp_path):
    """From task numbers: sessions that were right without help where `unaided` says so, and all right in the end."""

    def made(tasks, unaided=()):
        recorded = [
            Recorded(f"What is {n} doubled?").attempt("...").outcome(True).outcome(n in unaided, scorer="unaided")
            for n in tasks
        ]
        path = Path(write(tmp_path / "sessions.jsonl", recorded))
        return assemble([record for line in read_lines(path) for record in line.records])

    return made


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("22 + 2 = 34. The answer is: 34", "22 + 2 = 24."),
        ("32 - 19 = 10. The answer is: 10", "32 - 19 = 13."),
        ("22 + 2 = 24. The answer is: 34", None),
        ("The answer is: 34", None),
    ],
)
def test_the_calculator_corrects_what_was_computed_and_nothing_else(written, said):
    assert script("agent").corrected(written) == said


def test_fresh_tasks_have_calculations_that_are_in_no_other_file(tmp_path):
    script("tasks").write_tasks(tmp_path, practice=200, fresh=200)
    read = {
        name: [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        for name in ("practice", "choosing", "fresh")
    }
    assert {name: len(tasks) for name, tasks in read.items()} == {"practice": 200, "choosing": 1000, "fresh": 200}
    # The first number of a story is added to or taken from: with the answer it says which calculation it is.
    calculations = {
        name: {(*re.findall(r"\d+", task["task"]), task["reference"]) for task in tasks} for name, tasks in read.items()
    }
    assert {name: len(found) for name, found in calculations.items()} == {name: len(read[name]) for name in read}
    assert all(len(calculation) == 3 for calculation in calculations["fresh"])
    assert not calculations["fresh"] & (calculations["practice"] | calculations["choosing"])


def test_more_tasks_than_there_are_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="200 fresh tasks"):
        script("tasks").write_tasks(tmp_path, practice=10, fresh=201)


def test_rates_and_change_are_those_of_the_sessions(compare, sessions):
    table = compare.comparison(
        sessions(range(40), unaided=range(10)), sessions(range(40), unaided=range(5, 30)), sessions(range(50, 60))
    )
    row = next(line for line in table.splitlines() if line.startswith("right without help"))
    assert "25.0 [14.2, 40.2]" in row and "62.5 [47.0, 75.8]" in row and "+37.5 [+15.0, +60.0]" in row
    assert row.split()[-2:] == ["20", "5"]
    assert "40 fresh tasks; none is among those of the 10 " in table
    assert "the agent got better" in table


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (range(20), range(3), "the agent got worse"),
        (range(3), range(20), "the agent got better"),
        (range(10), range(2, 12), "no difference can be claimed"),
        ((), (), "no difference can be claimed"),
    ],
)
def test_a_difference_is_claimed_only_beyond_chance(compare, sessions, before, after, said):
    table = compare.comparison(sessions(range(40), before), sessions(range(40), after), [])
    assert [line for line in table.splitlines() if line.startswith("Without help:") and said in line]


@pytest.mark.parametrize(
    ("before", "after", "approved", "why"),
    [
        (range(5), range(6), range(0), "not the same tasks: 5 before, 6 after"),
        (range(0), range(0), range(0), "not the same tasks: 0 before, 0 after"),
        (range(5), range(5), range(4, 9), "1 of 5 tasks may have been learnt from"),
        ([1, 2, 1], [1, 2], range(0), "done twice"),
    ],
)
def test_what_cannot_be_compared_is_an_error(compare, sessions, before, after, approved, why):
    with pytest.raises(ValueError, match=why):
        compare.comparison(sessions(before), sessions(after), sessions(approved))


def test_an_unscored_session_is_neither_right_nor_wrong(compare, tmp_path):
    unscored = Recorded("What is 3 doubled?").attempt("...").outcome(True, scorer="unaided").attempt("again")
    path = Path(write(tmp_path / "unscored.jsonl", [unscored]))
    last = assemble([record for line in read_lines(path) for record in line.records])
    with pytest.raises(ValueError, match="no verdict of unaided"):
        compare.comparison(last, last, [])


@pytest.mark.slow
def test_the_loop_closes(tmp_path):
    small = {"training.max_steps": 1, "training.batch_size": 8, "dataset.test_size": 4}
    command = ["sh", str(FOLDER / "loop.sh"), str(tmp_path / "loop"), "specs/loop/sft.yaml"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ATLAS_")} | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PRACTICE_TASKS": "30",
        "FRESH_TASKS": "5",
    }
    sets = [part for path, value in small.items() for part in ("--set", f"{path}={value}")]
    done = subprocess.run([*command, *sets], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 fresh tasks; none is among those of the 30 that may be learnt from" in done.stdout
    assert "quarantined 10 sessions" in done.stdout
    assert "not written: none" in done.stdout and "Without help: " in done.stdout
    (run,) = (tmp_path / "loop" / "home" / "runs").iterdir()
    trained = json.loads((run / "splits.json").read_text())["splits"]
    assert trained["train"]["examples"] > 0 and trained["test"]["examples"] == 4

    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30)
    assert again.returncode == 2 and "name a new one" in again.stderr
