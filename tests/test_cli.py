"""The command line without a worker: what it prints, what it refuses, and with which exit code."""

import errno
import io
import json
import shutil
from pathlib import Path

import pytest
from command_line import atlas
from rich.console import Console
from typer.testing import CliRunner

from atlas import scheduler
from atlas.cli import app
from atlas.cli.tables import exit_code, print_comparison, printable, run_table
from atlas.duration import duration
from atlas.store import RunRecord, Store

SPEC = """
name: job
student: {model: org/student}
method: {type: sft}
dataset: {type: arithmetic, size: 400, dev_size: 4, test_size: 8}
training: {max_steps: 10}
resources: {gpus: 0}
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ATLAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scheduler, "_start_what_fits", lambda store, gpus: None)
    (tmp_path / "job.yaml").write_text(SPEC)
    return tmp_path / "home"


def queued(home):
    atlas("submit", "job.yaml", "--detach")
    (run,) = Store.open(home).runs(name="job")
    return run


def test_check_accepts_a_good_file_and_says_so(home):
    assert "job.yaml: ok" in atlas("check", "job.yaml")


def test_check_shows_every_problem_of_every_file_with_its_place(home):
    Path("bad.yaml").write_text(SPEC.replace("max_steps", "max_stepz").replace("sft", "sfft"))
    output = atlas("check", "job.yaml", "bad.yaml", expect=2)
    assert "job.yaml: ok" in output
    assert "bad.yaml:6:12: training.max_stepz: unknown key; did you mean 'max_steps'?" in output
    assert "did you mean 'sft'" in output
    report = json.loads(CliRunner().invoke(app, ["check", "bad.yaml", "--json"]).stdout)
    assert report[0]["ok"] is False and len(report[0]["problems"]) >= 2


def test_check_goes_on_after_a_file_that_cannot_be_read(home):
    assert "job.yaml: ok" in atlas("check", "nope.yaml", "job.yaml", expect=2)
    report = json.loads(CliRunner().invoke(app, ["check", "nope.yaml", "job.yaml", "--json"]).stdout)
    assert [entry["ok"] for entry in report] == [False, True]
    assert report[0]["problems"][0]["message"] == "nope.yaml does not exist; expected a YAML file"
    assert report[0]["problems"][0]["file"] is None


def test_nothing_is_queued_when_one_of_several_specs_is_bad(home):
    Path("bad.yaml").write_text(SPEC.replace("org/student", "./nowhere"))
    assert "does not exist" in atlas("submit", "job.yaml", "bad.yaml", expect=2)
    assert not home.exists()


def test_a_missing_spec_file_and_an_empty_stdin_are_usage_errors(home):
    assert "missing.yaml" in atlas("submit", "missing.yaml", expect=2)
    assert "spec is empty" in atlas("submit", "-", expect=2, stdin="")


def test_a_spec_can_come_from_stdin(home):
    atlas("submit", "-", "--detach", stdin=SPEC)
    run = Store.open(home).run("job")
    assert json.loads((Path(run.run_dir) / "spec.json").read_text())["spec_text"] == SPEC


def test_more_gpus_than_the_machine_has_are_refused_before_anything_is_queued(home, monkeypatch):
    monkeypatch.setattr("atlas.submission.gpus", list)
    output = atlas("submit", "job.yaml", "--set", "resources.gpus=1", expect=2)
    assert "asks for 1 GPU, this machine has 0" in output


def test_the_run_directory_says_where_the_job_came_from(home, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/atlas", "submit", "job.yaml", "--detach"])
    document = json.loads((Path(queued(home).run_dir) / "spec.json").read_text())
    assert document["spec_text"] == SPEC
    assert document["job"]["training"]["learning_rate"] == 1e-5, "defaults are resolved"
    assert document["atlas_version"] and document["command"] == "atlas submit job.yaml --detach"


def test_show_prints_the_spec_as_it_was_submitted_not_as_it_is_now(home):
    run = queued(home)
    Path("job.yaml").write_text(SPEC.replace("10", "99"))
    output = atlas("show", run.id, "--spec")
    assert "job as submitted, sha256" in output and "max_steps: 10" in output and "max_steps: 99" not in output


def test_plan_shows_the_resolved_job_and_the_difference_to_the_last_run(home):
    assert "last run  none of this name" in atlas("plan", "job.yaml")
    queued(home)
    output = atlas("plan", "job.yaml", "--set", "training.max_steps=20")
    assert "training.max_steps: 10 -> 20" in output
    assert "learning_rate: 1.0e-05" in output
    assert "this job is the same" in atlas("plan", "job.yaml")
    document = json.loads(atlas("plan", "job.yaml", "--json"))
    assert document["job"]["name"] == "job" and document["last_run"]["differences"] == {}


def test_an_equal_queued_job_is_not_queued_twice_but_force_does(home):
    queued(home)
    assert "already queued as job-" in atlas("submit", "job.yaml", "--detach")
    assert len(Store.open(home).runs()) == 1
    atlas("submit", "job.yaml", "--detach", "--force")
    assert len(Store.open(home).runs()) == 2


def test_a_changed_data_file_makes_a_changed_job(home):
    row = '{{"prompt": "q{0}", "answer": "{0}", "solution": "{0}"}}\n'
    Path("rows.jsonl").write_text("".join(row.format(n) for n in range(60)))
    Path("job.yaml").write_text(SPEC.replace("type: arithmetic, size: 400", "type: jsonl, path: rows.jsonl"))
    first = queued(home).digest
    with open("rows.jsonl", "a") as file:
        file.write(row.format(60))
    atlas("submit", "job.yaml", "--detach")
    assert {run.digest for run in Store.open(home).runs()} > {first}


def test_ls_is_empty_with_advice_and_lists_newest_first(home):
    assert "atlas submit" in atlas("ls")
    assert json.loads(atlas("ls", "--json")) == []
    queued(home)
    atlas("submit", "job.yaml", "--set", "name=later", "--detach")
    assert [run["name"] for run in json.loads(atlas("ls", "--json"))] == ["later", "job"]
    assert "later-" in atlas("ls", "--state", "queued")
    assert json.loads(atlas("ls", "--state", "failed", "--json")) == []


def test_show_logs_and_cancel_of_a_queued_run(home):
    run = queued(home)
    assert "queued" in atlas("show", "job")
    assert "no output yet (queued)" in atlas("logs", run.id)
    assert "cancelled" in atlas("cancel", run.id)
    assert "is cancelled" in atlas("cancel", run.id)


def test_an_unknown_run_is_exit_code_102(home):
    queued(home)
    for command in ("show", "logs", "cancel", "rerun", "resume"):
        assert "nonsense" in atlas(command, "nonsense", expect=102)


def test_rerun_queues_the_same_job_under_a_new_id(home):
    run = queued(home)
    atlas("rerun", run.id, "--detach")
    first, second = Store.open(home).runs(name="job")
    assert first.id != second.id
    assert Store.open(home).spec(first.id) == Store.open(home).spec(second.id)


def test_explain_schema_and_doctor_answer_in_text_and_json(home):
    assert "learning rate" in atlas("explain", "training.learning_rate")
    assert json.loads(atlas("explain", "method.gkd", "--json"))["path"] == "method.gkd"
    assert "did you mean" in atlas("explain", "training.learnin_rate", expect=2)
    assert json.loads(atlas("schema"))["type"] == "object"
    assert {"name", "status", "message", "next_step"} <= json.loads(atlas("doctor", "--json"))[0].keys()


def test_reindex_finds_the_runs_again(home):
    run = queued(home)
    for file in home.glob("atlas.db*"):
        file.unlink()
    assert "1 run" in atlas("reindex")
    assert Store.open(home).run(run.id).name == "job"


@pytest.mark.parametrize(
    ("state", "reason", "code"),
    [
        ("succeeded", None, 0),
        ("failed", "error", 100),
        ("running", None, 101),
        ("queued", None, 101),
        ("cancelled", None, 103),
        ("lost", None, 104),
        ("failed", "out_of_memory", 105),
    ],
)
def test_exit_codes(state, reason, code):
    assert exit_code(RunRecord(state=state, reason=reason)) == code


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.4, "59s"), (60, "1m 00s"), (3725, "1h 02m"), (180000, "2d 02h"), (float("inf"), "?")],
)
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text


def test_control_characters_never_reach_the_terminal():
    assert printable("\x1b]0;pwned\x07\x1b[2Jfine\n") == "\\x1b]0;pwned\\x07\\x1b[2Jfine\n"


def test_a_disk_without_room_for_the_checkpoints_is_refused(home, monkeypatch):
    monkeypatch.setattr("atlas.submission.checkpoint_bytes", lambda job: 2_000_000_000)
    monkeypatch.setattr("atlas.submission.shutil.disk_usage", lambda home: type("Usage", (), {"free": 50_000_000}))
    output = atlas("submit", "job.yaml", expect=2)
    assert "0.05 GB are free" in output and "2.00 GB are needed" in output


def test_a_list_that_nobody_wraps_holds_whole_ids(home, monkeypatch):
    monkeypatch.delenv("COLUMNS")
    Path("job.yaml").write_text(SPEC.replace("name: job", f"name: {'long-name-' * 5}").replace("org", "org" * 20))
    atlas("submit", "job.yaml", "--detach")
    (run,) = Store.open(home).runs()
    (line,) = [line for line in atlas("ls").splitlines() if run.id in line]
    assert line.split()[:3] == [run.id, "queued", "sft"]


def test_a_narrow_terminal_cuts_models_before_ids():
    runs = [RunRecord(id="case-study-gkd-seed-1-0a1b2c", state="running")]
    table = run_table(runs)
    table.add_column("student", overflow="ellipsis")
    table.add_row(runs[0].id, "a-very-long-model-name" * 3)
    console = Console(file=io.StringIO(), width=40)
    console.print(table)
    assert runs[0].id in console.file.getvalue()


def test_an_unknown_state_is_refused_with_the_known_ones(home):
    assert "queued, claimed, running" in atlas("ls", "--state", "runing", expect=2)


def test_nothing_waits_for_a_lost_run(home):
    run = queued(home)
    Store.open(home).claim("test", run.id)
    shutil.rmtree(run.run_dir)
    atlas("logs", "-f", run.id, expect=104)
    assert "nothing to stop" in atlas("cancel", run.id)


def test_a_run_without_its_directory_cannot_be_resumed_but_rerun(home):
    run = queued(home)
    atlas("cancel", run.id)
    shutil.rmtree(run.run_dir)
    assert f"`atlas rerun {run.id}`" in atlas("resume", run.id, expect=2)


def test_ctrl_c_leaves_the_job_and_says_that_it_is_not_finished(home, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("atlas.cli.follow._print_news", interrupt)
    output = atlas("submit", "job.yaml", expect=101)
    assert "come back with `atlas logs -f job-" in output


def test_a_home_that_cannot_be_written_is_one_line_and_exit_code_2(home):
    queued(home)
    (home / "scheduler.lock").unlink()
    (home / "scheduler.lock").mkdir()
    assert "set ATLAS_HOME" in atlas("up", expect=2)


def test_reindexing_where_nothing_can_be_written_is_one_line_and_exit_code_2(home):
    queued(home)
    (home / "atlas.db.reindex").mkdir()
    assert "set ATLAS_HOME" in atlas("reindex", expect=2)


def test_the_end_of_a_submit_and_show_say_that_wandb_is_offline(home, capsys):
    run = queued(home)
    status = {"mode": "offline", "note": "offline: no API key", "url": None}
    (Path(run.run_dir) / "wandb.json").write_text(json.dumps(status))
    print_comparison(Store.open(home), [run])
    assert f"{run.id}: W&B offline: no API key\n" in capsys.readouterr().out
    assert "wandb      offline: no API key\n" in atlas("show", run.id)


def test_a_disk_that_fills_while_a_job_is_written_is_one_line_and_queues_nothing(home, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("atlas.submission.json.dump", full)
    assert "free some space" in atlas("submit", "job.yaml", expect=2)
    assert Store.open(home).runs() == []
