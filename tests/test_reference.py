"""The documentation of job files says what the code does, and its generated copies are current."""

import json
from pathlib import Path

import pytest

from atlas.errors import SpecError
from atlas.fields import walk
from atlas.job import JobSpec
from atlas.reference import explain, json_schema, markdown

ROOT = Path(__file__).parents[1]


def test_the_committed_schema_is_current() -> None:
    committed = json.loads((ROOT / "specs/schema.json").read_text())
    assert committed == json_schema(), "run: atlas schema > specs/schema.json"


def test_the_committed_reference_is_current() -> None:
    command = "python -c 'from atlas.reference import markdown; print(markdown(), end=\"\")' > docs/spec-reference.md"
    assert (ROOT / "docs/spec-reference.md").read_text() == markdown(), f"run: {command}"


def test_every_field_is_documented() -> None:
    assert [field.path for field in walk(JobSpec) if field.keys[-1] != "type" and not field.info.description] == []


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("training.learning_rate", ["number more than 0 and at most 1", "default: `1e-05`", "Peak learning rate"]),
        ("method.gkd.beta", ["between 0 and 1", "reverse KL"]),
        ("method.gkd", ["arXiv:2306.13649", "lmbda", "temperature"]),
        ("method", ["sft, gkd, grpo, gkd_reward, evaluate", "required", "method.grpo (type: grpo)", "num_generations"]),
        ("student.lora", ["optional", "Rank of the update matrices", "between 1 and 1024"]),
        ("student.dtype", ["`auto` or `float32` or `bfloat16` or `float16`"]),
        ("student.model", ["required", "${env:NAME}"]),
        ("extends", ["relative to this one"]),
        ("", ["student", "seed", "extends"]),
    ],
)
def test_explain_says_type_range_default_and_meaning(path: str, said: list[str]) -> None:
    text = explain(path)
    assert all(words in text for words in said), text


def test_a_field_of_several_types_is_explained_for_each() -> None:
    text = explain("method.beta")
    assert "method.gkd.beta" in text and "method.grpo.beta" in text
    assert "method.grpo.beta" not in explain("method.gkd.beta")


@pytest.mark.parametrize(
    ("path", "guess"),
    [
        ("training.lerning_rate", "training.learning_rate"),
        ("learning_rate", "training.learning_rate"),
        ("lr", "training.learning_rate"),
        ("metod", "method"),
    ],
)
def test_an_unknown_path_gets_the_nearest(path: str, guess: str) -> None:
    with pytest.raises(SpecError, match=f"no such field: '{path}'; did you mean '{guess}'"):
        explain(path)


@pytest.mark.parametrize("path", [field.path for field in walk(JobSpec)])
def test_everything_can_be_explained(path: str) -> None:
    assert path.rsplit(".", 1)[-1] in explain(path)


JOB = {
    "name": "a",
    "student": {"model": "${env:STUDENT}"},
    "method": {"type": "sft"},
    "dataset": {"type": "arithmetic"},
    "training": {"max_steps": 10},
}


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({}, True),
        ({"dataset": {"type": "jsonl", "path": "${env:DATA}/a.jsonl"}}, True),
        ({"teacher": None}, True),
        ({"student": {}}, False),
        ({"studnt": {}}, False),
        ({"method": {}}, False),
        ({"method": {"type": "gkd", "beta": 2}}, False),
        ({"method": {"type": "gkd", "num_generations": 2}}, False),
        ({"training": {"max_steps": "10"}}, False),
        ({"name": "-x"}, False),
        ({"extends": "b.yaml", "student": {"lora": {"r": 4}}, "method": {"beta": 0.5}, "training": None}, True),
        ({"extends": "b.yaml", "studnt": {}}, False),
        ({"extends": 3}, False),
    ],
)
def test_the_schema_accepts_what_the_loader_accepts(change: dict[str, object], valid: bool) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(json_schema())
    assert validator.is_valid(JOB | change) is valid


def test_a_file_that_extends_needs_nothing_else() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    assert jsonschema.Draft202012Validator(json_schema()).is_valid({"extends": "b.yaml"})
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid({"name": "a"})


def test_the_schema_itself_is_valid_and_documents_every_field() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert "Peak learning rate" in json.dumps(schema)
