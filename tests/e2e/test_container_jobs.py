"""Real jobs in real containers: to the end, killed and resumed, cancelled."""

import json
import subprocess

import pytest
import yaml
from jobs import SPEC, Atlas, losses

pytestmark = pytest.mark.slow


@pytest.fixture
def atlas(podman, tmp_path):
    commands = Atlas(tmp_path)
    executor = podman.model_dump(mode="json")
    commands.spec.write_text(SPEC + yaml.safe_dump({"executor": executor}))
    yield commands
    for name in containers():
        subprocess.run(["podman", "kill", name], capture_output=True)


def containers():
    """Names of the running containers of Atlas."""
    running = ["podman", "ps", "--filter", "label=atlas.run", "--format", "{{.Names}}"]
    return subprocess.run(running, capture_output=True, text=True, check=True).stdout.split()


def test_a_job_in_a_container_is_recorded_as_a_local_one_is(atlas, tmp_path):
    atlas("submit", atlas.spec)
    run = atlas.the_run()
    assert (run["state"], run["step"], run["executor"]) == ("succeeded", 6, "container")
    environment = json.loads((atlas.run_dir() / "environment.json").read_text())
    assert environment["image"].startswith("atlas-test") or "sha256:" in environment["image"]
    assert environment["packages"]["torch"]
    assert not containers()

    (tmp_path / "here").mkdir()
    here = Atlas(tmp_path / "here")
    here("submit", here.spec)
    assert losses(atlas.run_dir()) == losses(here.run_dir()), "where it runs changes nothing"
    assert run["digest"] == here.the_run()["digest"]


def test_a_killed_container_fails_with_its_reason_and_resumes(atlas):
    atlas("submit", atlas.spec, "--set", "training.max_steps=40", "--detach")
    atlas.wait_for_checkpoint()
    assert containers() == [atlas.the_run()["handle"]]
    subprocess.run(["podman", "kill", "--signal", "KILL", atlas.the_run()["handle"]], check=True, capture_output=True)
    atlas.wait_for("the end", lambda: atlas.the_run()["state"] != "running")
    run = atlas.the_run()
    assert (run["state"], run["reason"]) == ("failed", "killed")
    resumed = atlas.json("resume", run["id"])[0]
    assert (resumed["state"], resumed["step"]) == ("succeeded", 40)


def test_a_cancelled_container_leaves_a_checkpoint(atlas):
    atlas.cancel_in_the_middle()
    assert list((atlas.run_dir() / "checkpoints").glob("step-*")), "it could have gone on from here"
    assert not containers()
