"""Fixtures: a tiny student, a tiny teacher, and runs of them. What they are made of is in `tiny.py`."""

import gc
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atlas.job import JobSpec
from atlas.run import Run

from .tiny import Copying, character_tokenizer, save, tiny_llama


@pytest.fixture(scope="session", autouse=True)
def quick_garbage_collection() -> None:
    """Every training begins with a full collection; without the heap of the imports in it, it takes no time."""
    import atlas.training.gkd
    import atlas.training.gkd_reward
    import atlas.training.grpo
    import atlas.training.sft  # noqa: F401

    gc.freeze()


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = character_tokenizer()
    return save(tmp_path_factory.mktemp("student"), tiny_llama(len(tokenizer)), tokenizer)


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = character_tokenizer()
    return save(tmp_path_factory.mktemp("teacher"), tiny_llama(len(tokenizer), seed=1, hidden_size=48), tokenizer)


MakeRun = Callable[..., Run]


@pytest.fixture
def make_run(tmp_path: Path, student: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch) -> MakeRun:
    """`make_run(method, name="run", dataset={...}, **sections)`: a Run in a directory of that name.

    The same name twice is the same run, started again.
    """

    def make(method: dict[str, Any], name: str = "run", dataset: dict[str, Any] | None = None, **sections: Any) -> Run:
        directory = tmp_path / "home" / "runs" / name
        if not directory.exists():
            directory.mkdir(parents=True)
            job = {
                "name": "tiny",
                "student": {"model": str(student)},
                "method": method,
                # a dataset from the registry, which `Copying` stands in for
                "dataset": {"type": "arithmetic"},
                "evaluation": {"max_completion_length": 6, "batch_size": 3},
            }
            if method["type"] != "evaluate":
                job["training"] = {"max_steps": 4, "batch_size": 4, "learning_rate": 1e-3, "save_every_steps": 2}
            if method["type"] in ("gkd", "gkd_reward"):
                job["teacher"] = {"model": str(teacher)}
            if method["type"] in ("gkd", "grpo", "gkd_reward"):
                job["sampling"] = {"max_completion_length": 6}
            for section, content in sections.items():
                old = job.get(section)
                job[section] = old | content if isinstance(old, dict) and isinstance(content, dict) else content
            resolved = JobSpec.model_validate_json(json.dumps(job)).model_dump(mode="json")
            (directory / "spec.json").write_text(json.dumps({"run_id": name, "job": resolved}))
        run = Run(directory)
        object.__setattr__(run.job, "dataset", Copying(**dataset or {}))
        return run

    return make
