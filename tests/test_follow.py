"""What a person sees while runs go on: a table that fits the terminal, and how to come back to it."""

import io

import pytest
from command_line import atlas
from rich.console import Console
from trial import EXPERIMENT, JOB

from atlas import scheduler
from atlas.cli import follow
from atlas.store import Store


@pytest.fixture
def trial(tmp_path, monkeypatch):
    """The store of an experiment of six runs: the first two run, the others wait."""
    monkeypatch.setenv("ATLAS_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scheduler, "_start_what_fits", lambda store, gpus: None)
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "trial.yaml").write_text(EXPERIMENT)
    atlas("submit", "trial.yaml", "--detach")
    store = Store.open(tmp_path / "home")
    for run_id in store.experiment("trial").run_ids[:2]:
        start(store, run_id)
    return store


def start(store, run_id):
    run = store.claim("test", run_id)
    store.started(run_id, run.fence, "1:1", [])
    return run


def drawn(store, width, height):
    run_ids = store.experiment("trial").run_ids
    console = Console(file=io.StringIO(), width=width)
    console.print(follow._table(store, run_ids, {}, width, height))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_what_a_narrow_terminal_has_no_room_for_is_left_out_whole(trial):
    assert drawn(trial, 200, 24)[0].split() == ["run", "now", "step", "pass", "rate", "ETA", "loss", "rate"]
    narrow = drawn(trial, 50, 24)
    assert narrow[0].split() == ["run", "now", "step"]
    assert not any("…" in line for line in narrow)


def test_a_terminal_with_few_lines_shows_what_runs_and_counts_the_rest(trial):
    lines = drawn(trial, 80, 5)
    assert [line.split()[1] for line in lines[1:-1]] == ["starting", "starting"]
    assert lines[-1] == "and 4 queued" and len(lines) < 5


def test_a_failure_is_told_once_with_its_reason(trial):
    run_id = trial.experiment("trial").run_ids[0]
    trial.finish(run_id, trial.run(run_id).fence, "failed", reason="disk_full", message="no \x1b space")
    console, told = Console(file=io.StringIO(), width=20), set()
    for _ in range(2):
        follow._tell_failures(trial, [run_id], told, console)
    assert console.file.getvalue() == f"{run_id}: failed (disk_full): no \\x1b space\n"


def test_detaching_from_an_experiment_counts_its_runs_and_names_those_that_run(trial):
    run_ids = trial.experiment("trial").run_ids
    lines = follow.how_to_come_back([trial.run(run_id) for run_id in run_ids]).splitlines()
    assert lines[0].strip() == "2 running, 4 queued"
    assert [line.split("-f ")[1] for line in lines if "logs -f" in line] == [f"{run_id}`" for run_id in run_ids[:2]]
    assert any("`atlas up`" in line for line in lines)
