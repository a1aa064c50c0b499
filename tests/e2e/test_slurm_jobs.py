"""Real jobs on a real Slurm cluster of one node: started again by Slurm, cancelled."""

import json

import pytest
import yaml
from jobs import SPEC, Atlas

pytestmark = pytest.mark.slow


@pytest.fixture
def atlas(slurm, tmp_path):
    commands = Atlas(tmp_path)
    commands.spec.write_text(SPEC + yaml.safe_dump({"executor": {"type": "slurm"}}))
    yield commands
    slurm.ask("scancel", "--user=root")


def test_a_job_that_slurm_starts_again_goes_on_from_its_checkpoint_without_atlas_doing_anything(atlas, slurm):
    atlas("submit", atlas.spec, "--set", "training.max_steps=40", "--detach")
    atlas.wait_for_checkpoint()
    handle = atlas.the_run()["handle"]
    slurm.start_again(handle)
    assert atlas.the_run()["state"] == "running"
    atlas.wait_for("the end", lambda: atlas.the_run()["state"] != "running")
    run = atlas.the_run()
    assert (run["state"], run["step"], run["executor"]) == ("succeeded", 40, "slurm")
    assert run["handle"] == handle, "it was the same attempt"
    workers = (atlas.run_dir() / "environment.json").read_text().splitlines()
    assert len(workers) == 2 and json.loads(workers[1])
    assert '"rewind"' in (atlas.run_dir() / "metrics.jsonl").read_text()


def test_a_cancelled_job_leaves_a_checkpoint(atlas, slurm):
    atlas.cancel_in_the_middle()
    assert list((atlas.run_dir() / "checkpoints").glob("step-*")), "it could have gone on from here"
    assert not slurm.ask("squeue", "--noheader")
