"""Real jobs on a real Ray cluster: to the end, cancelled, killed and resumed, never started."""

import json

import psutil
import pytest
import yaml
from jobs import SPEC, Atlas, losses

pytestmark = pytest.mark.slow


@pytest.fixture
def atlas(ray_cluster, tmp_path):
    commands = Atlas(tmp_path)
    commands.spec.write_text(SPEC + yaml.safe_dump({"executor": ray_cluster.executor.model_dump(mode="json")}))
    yield commands
    for run in commands.json("ls"):
        if run["state"] == "running":
            ray_cluster.executor.terminate(run["handle"], force=True)


def test_a_job_on_a_cluster_is_recorded_as_a_local_one_is(atlas, tmp_path):
    atlas("submit", atlas.spec)
    run = atlas.the_run()
    assert (run["state"], run["step"], run["executor"]) == ("succeeded", 6, "ray")
    assert not [*atlas.run_dir().glob("*.ticket"), *atlas.run_dir().glob("*.lease")]

    (tmp_path / "here").mkdir()
    here = Atlas(tmp_path / "here")
    here("submit", here.spec)
    assert losses(atlas.run_dir()) == losses(here.run_dir()), "where it runs changes nothing"
    assert run["digest"] == here.the_run()["digest"]


def test_a_cancelled_job_leaves_a_checkpoint(atlas):
    atlas.cancel_in_the_middle()
    assert list((atlas.run_dir() / "checkpoints").glob("step-*")), "it could have gone on from here"


def test_a_killed_worker_fails_with_its_reason_and_resumes(atlas):
    atlas("submit", atlas.spec, "--set", "training.max_steps=40", "--detach")
    atlas.wait_for_checkpoint()
    command = ["-m", "atlas.worker", str(atlas.run_dir())]
    (worker,) = [each for each in psutil.process_iter(["cmdline"]) if (each.info["cmdline"] or [])[-3:] == command]
    worker.kill()
    atlas.wait_for("the end", lambda: atlas.the_run()["state"] != "running")
    run = atlas.the_run()
    assert (run["state"], run["reason"]) == ("failed", "killed")
    resumed = atlas.json("resume", run["id"])[0]
    assert (resumed["state"], resumed["step"]) == ("succeeded", 40)


def test_a_job_that_the_cluster_cannot_hold_fails_with_what_it_has(atlas):
    impossible = ("--set", "executor.entrypoint_resources={moon: 1}", "--set", "executor.start_timeout_seconds=1")
    atlas("submit", atlas.spec, *impossible, expect=100)
    run = atlas.the_run()
    assert (run["state"], run["reason"]) == ("failed", "launch_failed")
    assert "asked for 1 CPU, 1 moon; it has" in run["message"]


def test_a_job_for_two_gpus_trains_in_two_processes_with_the_losses_of_one(atlas, tmp_path):
    atlas("submit", atlas.spec, "--set", "resources={gpus: 2}")
    run = atlas.the_run()
    assert (run["state"], run["step"]) == ("succeeded", 6)
    (tmp_path / "here").mkdir()
    here = Atlas(tmp_path / "here")
    here("submit", here.spec)
    assert losses(atlas.run_dir()) == pytest.approx(losses(here.run_dir()), abs=1e-4)
    clocks = json.loads((atlas.run_dir() / "result.json").read_text())["clocks"]
    assert clocks["gpu_seconds"] == pytest.approx(2 * clocks["train_seconds"])
