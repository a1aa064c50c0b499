"""The collected wrong specs and command lines, in this schema's names: each is refused with the words it must say."""

import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atlas.errors import AtlasError, SpecError
from atlas.experiment import load_checked

NOT_HERE = {
    "V46": "there is no container executor yet",
    "V49": "there is no container executor yet",
    "V50": "there is no container executor yet",
    "V68": "no executor takes environment variables",
    "V34": "there is no limit on the run time",
    "V35": "there are no retries",
    "V61": "the datasets name their columns themselves: tests/datasets",
    "V23": "GRPO's generation is not spread over several steps",
    "V41": "needs two models: tests/test_model_checks.py",
    "V42": "needs two models: tests/test_model_checks.py",
}
KEYS = [
    (r"^apiVersion: atlas/v1", "version: 1"),
    (r"^model: \{id:", "student: {model:"),
    (r"^model: \{", "student: {"),
    (r"^teacher: \{id:", "teacher: {model:"),
    (r"^data: \{path: (.*?), split: train, columns:.*", r"dataset: {type: jsonl, path: \1, dev_size: 2, test_size: 2}"),
    (r"^data:", "dataset:"),
    (r"^train:", "training:"),
    (r"^  seed:", "seed:"),
    (r"^  save_every:", "  save_every_steps:"),
    (r"^tracking: \{wandb: (.*)\}$", r"wandb: \1"),
    (r"^executor: \{type: local, gpus: (.*)\}", r"resources: {gpus: \1}"),
]
METHOD_KEYS = ("lmbda", "num_generations", "steps_per_generation")
SAMPLING_KEYS = ("temperature", "max_completion_length")
WORDS = [
    (r"^unknown field '(.*)'$", r"\1: unknown key"),
    (r"^did you mean (.+)$", r"did you mean '\1'"),
    (r"^tracking\.", ""),
    (r"train\.(lmbda|num_generations)", r"method.\1"),
    (r"train\.seed", "seed"),
    (r"train\.", "training."),
    (r"model\.id", "student.model"),
    (r"data\.path", "dataset.path"),
    (r"GDKJob", "gdk"),
    (r"GKDJob", "gkd"),
    (r"^kind$", "method.type"),
    (r"num_epochs", "epochs"),
    (r"^secret reference$", "environment"),
    (r"executor\.gpus", "resources.gpus"),
]


def translated(text: str) -> str:
    """The spec in this schema's names. Lines keep their numbers as far as the first key that belongs elsewhere."""
    lines, method, sampling = [], [], []
    for line in text.splitlines():
        key = line.strip().split(":")[0]
        if line.startswith("  ") and key in METHOD_KEYS:
            method += [line.strip()] if key != "steps_per_generation" else []
        elif line.startswith("  ") and key in SAMPLING_KEYS:
            sampling.append(line.strip())
        else:
            for pattern, replacement in KEYS:
                line = re.sub(pattern, replacement, line)
            lines.append(line.replace("num_epochs", "epochs"))
    kind = next((line for line in lines if line.startswith("kind: ")), None)
    if kind is not None:
        name = kind.removeprefix("kind: ").removesuffix("Job").lower()
        lines[lines.index(kind)] = "method: {" + ", ".join([f"type: {name}", *method]) + "}"
    if sampling:
        lines.append("sampling: {" + ", ".join(sampling) + "}")
    return "\n".join(line.replace("kind: GKDJob", "method: {type: gkd}") for line in lines) + "\n"


def our_word(word: str) -> str:
    for pattern, replacement in WORDS:
        word = re.sub(pattern, replacement, word)
    return word


def rows(shared: Path, kind: str) -> Iterator[dict[str, Any]]:
    for line in (shared / "data/bad_inputs.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["kind"] == kind and row["id"] not in NOT_HERE:
            yield row


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the data and, in the hub's cache, the models that the specs name."""
    from huggingface_hub import constants

    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_API_KEY", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    problems = [{"prompt": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(20)]
    (tmp_path / "data/train.jsonl").write_text("".join(json.dumps(problem) + "\n" for problem in problems))
    for name, revision in (
        ("0.6B", "c1899de289a04d12100db370d81485cdf75e47ca"),
        ("4B", "1cfa9a7208912126459214e8b04321603b3df60c"),
    ):
        snapshot = tmp_path / f"cache/models--Qwen--Qwen3-{name}/snapshots/{revision}"
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text(
            '{"model_type": "qwen3", "vocab_size": 151936, "max_position_embeddings": 40960}'
        )
    return tmp_path


def refusal(path: str, *overrides: str) -> str:
    with pytest.raises(AtlasError) as error:
        load_checked(path, overrides)
    assert error.value.exit_code == 2
    return str(error.value)


def assert_says(said: str, row: dict[str, Any]) -> None:
    missing = [word for word in map(our_word, row["expect"]["says"]) if word not in said]
    leaked = [word for word in row["expect"].get("never", ()) if word in said]
    assert not missing and not leaked, f"{row['id']}: {said!r} lacks {missing}, shows {leaked}"


def test_the_spec_that_the_wrong_ones_vary_is_accepted(shared: Path, project: Path) -> None:
    row = next(row for row in rows(shared, "spec") if row["id"] == "V01")
    (project / "a.yaml").write_text(translated(row["input"]))
    job = load_checked("a.yaml")
    assert job.training is not None and job.training.learning_rate == 1e-5 and job.method.type == "gkd"


def test_every_wrong_spec_is_refused_in_the_right_words(shared: Path, project: Path) -> None:
    count = 0
    for row in rows(shared, "spec"):
        if row["expect"]["outcome"] != "reject":
            continue
        given = row["input"]
        data = bytes.fromhex(given["bytes_hex"]) if isinstance(given, dict) else translated(given).encode()
        (project / "a.yaml").write_bytes(data)
        assert_says(refusal("a.yaml"), row)
        count += 1
    assert count >= 30


GOOD = """\
name: demo-run
student: {model: Qwen/Qwen3-0.6B}
teacher: {model: Qwen/Qwen3-4B}
method: {type: gkd}
dataset: {type: jsonl, path: data/train.jsonl, dev_size: 2, test_size: 2}
training: {max_steps: 10, batch_size: 8}
"""


@pytest.mark.parametrize(
    ("id_", "overrides", "environment"),
    [
        ("C12", ["training.learning_rate=abc"], {}),
        ("C13", ["training.lr=1"], {}),
        ("C25", [], {"HF_HUB_OFFLINE": "1"}),
        ("C26", ["wandb={project: p, mode: online}"], {}),
        ("C29", ["wandb={project: p}"], {"WANDB_API_KEY": "short"}),
    ],
)
def test_wrong_command_lines_are_refused_in_the_right_words(
    shared: Path,
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    id_: str,
    overrides: list[str],
    environment: dict[str, str],
) -> None:
    row = next(row for row in rows(shared, "cli") if row["id"] == id_)
    (project / "a.yaml").write_text(GOOD)
    load_checked("a.yaml")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert_says(refusal("a.yaml", *overrides), row)


def test_a_missing_file_and_an_empty_input(shared: Path, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_id = {row["id"]: row for row in rows(shared, "cli")}
    assert_says(refusal("missing.yaml"), by_id["C03"])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(SpecError) as error:
        load_checked("-")
    assert_says(str(error.value), by_id["C22"])


def test_a_spec_can_come_from_the_standard_input(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(GOOD.encode())))
    assert load_checked("-").name == "demo-run"
