"""A tiny job, and the real command line in a project folder of its own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

TINY = Path(__file__).parents[1] / "specs" / "quickstart" / "tiny"
SPEC = f"""
name: tiny
student: {{model: {TINY}, from_scratch: true}}
method: {{type: sft}}
dataset: {{type: arithmetic, size: 400, max_operand: 30, dev_size: 4, test_size: 8}}
training: {{max_steps: 6, batch_size: 8, learning_rate: 1e-3, save_every_steps: 2}}
evaluation: {{every_steps: 3, max_completion_length: 8}}
resources: {{gpus: 0}}
"""
LONG = ("--set", "training.max_steps=100000")
PATIENCE_SECONDS = 180


class Atlas:
    """The command line, in a project folder of its own."""

    def __init__(self, folder):
        self.home = folder / ".atlas"
        self.spec = folder / "tiny.yaml"
        self.spec.write_text(SPEC)
        self.folder = folder
        self.environment = os.environ | {"ATLAS_HOME": str(self.home), "COLUMNS": "200", "OMP_NUM_THREADS": "1"}

    def __call__(self, *arguments, expect=0):
        done = subprocess.run(
            [sys.executable, "-m", "atlas", *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        assert done.returncode == expect, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments, expect=0):
        return json.loads(self(*arguments, "--json", expect=expect).stdout)

    def the_run(self):
        (run,) = self.json("ls")
        return run

    def run_dir(self):
        (folder,) = (self.home / "runs").iterdir()
        return folder

    def wait_for(self, what, condition):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            time.sleep(0.1)

    def cancel_in_the_middle(self):
        """Submits a long run that saves nothing by itself, and cancels it once it has made a step."""
        self("submit", self.spec, *LONG, "--set", "training.save_every_steps=100000", "--detach")
        metrics = self.run_dir() / "metrics.jsonl"
        self.wait_for("a step", lambda: metrics.exists() and '"train/loss"' in metrics.read_text())
        self("cancel", "tiny")
        self.wait_for("the end", lambda: self.the_run()["state"] == "cancelled")

    def wait_for_checkpoint(self):
        self.wait_for("a checkpoint", lambda: list((self.run_dir() / "checkpoints").glob("step-*")))


def losses(run_dir):
    """step -> loss, as the store reads it: after a rewind the later value counts."""
    values = {}
    for line in (run_dir / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if "rewind" in record:
            values = {step: loss for step, loss in values.items() if step <= record["rewind"]}
        elif "train/loss" in record.get("values", {}):
            values[record["step"]] = record["values"]["train/loss"]
    return values
