"""Real jobs through the real command line: submit, follow, kill, cancel, resume."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from jobs import LONG, PATIENCE_SECONDS, SPEC, TINY, Atlas, losses

pytestmark = pytest.mark.slow


@pytest.fixture
def atlas(tmp_path):
    commands = Atlas(tmp_path)
    yield commands
    for worker in (commands.home / "runs").glob("*/worker.json"):
        try:
            os.killpg(int(json.loads(worker.read_text())["handle"].split(":")[0]), signal.SIGKILL)
        except ProcessLookupError:
            continue


def test_a_job_is_submitted_followed_recorded_and_not_repeated(atlas):
    done = atlas("submit", atlas.spec)
    assert "step 0" in done.stdout and "sft" in done.stdout, "the table is printed"
    run = atlas.the_run()
    assert (run["state"], run["step"]) == ("succeeded", 6)
    shown = atlas.json("show", run["id"])
    assert [event["kind"] for event in shown["events"] if ":" not in event["kind"]] == [
        "queued",
        "claimed",
        "running",
        "succeeded",
    ]
    assert {"train/loss", "eval/pass_rate", "eval/pass_rate_low", "eval/pass_rate_high"} <= shown["latest"].keys()
    assert shown["summary"]["first"]["step"] == 0 and shown["summary"]["last"]["step"] == 6
    assert {"test/pass_rate", "test/pass_rate_low", "test/pass_rate_high", "test/step"} <= shown["latest"].keys()
    assert "tiny.yaml" in atlas("show", run["id"], "--spec").stdout
    assert atlas.json("logs", run["id"])["state"] == "succeeded"
    result = json.loads((atlas.run_dir() / "result.json").read_text())
    assert (Path(result["checkpoint"]) / "model.safetensors").exists()
    best, test = result["summary"]["best"], result["summary"]["test"]
    assert test["step"] == best["step"] and shown["latest"]["test/problems"] == 8
    splits = json.loads((atlas.run_dir() / "splits.json").read_text())["splits"]
    assert (splits["dev"]["examples"], splits["test"]["examples"]) == (4, 8)
    environment = json.loads((atlas.run_dir() / "environment.json").read_text().splitlines()[0])
    assert environment["packages"]["torch"]
    assert oct((atlas.run_dir() / "spec.json").stat().st_mode)[-3:] == "600"

    again = atlas("submit", atlas.spec)
    assert "nothing changed" in again.stderr and "--force" in again.stderr
    assert len(atlas.json("ls")) == 1

    atlas("reindex")
    rebuilt = atlas.the_run()
    for field in ("id", "state", "step", "latest", "summary", "digest", "tags"):
        assert rebuilt[field] == run[field]


def test_a_killed_run_fails_with_its_reason_and_resumes_to_the_same_curve(atlas, tmp_path):
    atlas("submit", atlas.spec, "--set", "training.max_steps=40", "--detach")
    atlas.wait_for_checkpoint()
    os.kill(int(atlas.the_run()["handle"].split(":")[0]), signal.SIGKILL)
    atlas.wait_for("the end", lambda: atlas.the_run()["state"] != "running")
    run = atlas.the_run()
    assert (run["state"], run["reason"]) == ("failed", "killed")
    assert f"atlas resume {run['id']}" in run["message"]
    assert run["step"] < 40

    resumed = atlas.json("resume", run["id"])[0]
    assert (resumed["state"], resumed["step"]) == ("succeeded", 40)
    (tmp_path / "unbroken").mkdir()
    whole = Atlas(tmp_path / "unbroken")
    whole("submit", whole.spec, "--set", "training.max_steps=40")
    assert losses(atlas.run_dir()) == losses(whole.run_dir())


def test_a_budget_ends_a_run_and_it_succeeds(atlas):
    atlas("submit", atlas.spec, *LONG, "--set", "budget={steps: 4}")
    run = atlas.the_run()
    assert (run["state"], run["step"]) == ("succeeded", 4)
    shown = atlas.json("show", run["id"])
    assert [event["message"] for event in shown["events"] if event["kind"] == "worker:budget"] == [
        "training ended after step 4: budget.steps is 4, used 4"
    ]
    assert json.loads((atlas.run_dir() / "result.json").read_text())["summary"]["ended_by"] == "budget.steps"


def test_cancel_writes_a_checkpoint_and_the_run_can_go_on(atlas):
    atlas.cancel_in_the_middle()
    assert list((atlas.run_dir() / "checkpoints").glob("step-*")), "it could have gone on from here"
    assert atlas("logs", "-f", "tiny", expect=103)
    atlas("resume", "tiny", "--detach")
    assert atlas.the_run()["state"] == "running"


def test_ctrl_c_detaches_and_the_job_goes_on(atlas):
    follower = subprocess.Popen(
        [sys.executable, "-m", "atlas", "submit", str(atlas.spec), *LONG],
        cwd=atlas.folder,
        env=atlas.environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    atlas.wait_for("the worker", lambda: atlas.home.exists() and list(atlas.home.glob("runs/*/worker.json")))
    os.killpg(follower.pid, signal.SIGINT)
    _, errors = follower.communicate(timeout=PATIENCE_SECONDS)
    run = atlas.the_run()
    assert run["state"] == "running"
    assert f"atlas logs -f {run['id']}" in errors
    assert follower.returncode == 101, "not finished"


def test_a_failure_has_a_plain_reason_and_exit_code_100(atlas):
    student = atlas.folder / "student"
    student.mkdir()
    for file in TINY.iterdir():
        (student / file.name).write_bytes(file.read_bytes())
    (student / "model.safetensors").write_bytes(b"not a tensor file")
    atlas.spec.write_text(SPEC.replace(f"model: {TINY}, from_scratch: true", f"model: {student}"))
    failed = atlas("submit", atlas.spec, expect=100)
    run = atlas.the_run()
    assert run["state"] == "failed"
    assert run["reason"] in failed.stdout
    result = json.loads((atlas.run_dir() / "result.json").read_text())
    assert "Traceback" in result["traceback"] and result["log_tail"]


def test_two_jobs_on_a_cpu_run_one_after_the_other_under_up(atlas):
    atlas("submit", atlas.spec, "--detach")
    atlas("submit", atlas.spec, "--set", "seed=1", "--detach")
    atlas("up", "--until-empty")
    second, first = atlas.json("ls")
    assert (first["state"], second["state"]) == ("succeeded", "succeeded")
    assert first["ended_seconds"] <= second["started_seconds"]
