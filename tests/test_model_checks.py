"""A model that cannot be used is refused before anything is queued."""

import json
from pathlib import Path

import pytest

from atlas.model_checks import check_model, check_pair
from atlas.spec import ModelSpec, StudentSpec


def directory(path: Path, vocabulary: object = None, **changes: object) -> Path:
    """A model directory that passes every check."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 8} | changes))
    (path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary or {"a": 0, "b": 1}}}))
    (path / "model.safetensors").write_bytes(b"")
    return path


def said(spec: ModelSpec) -> str:
    return "\n".join(map(str, check_model(spec, "student")))


def model(path: Path, **fields: object) -> StudentSpec:
    return StudentSpec.model_validate({"model": str(path), **fields})


def test_a_good_directory_and_an_unknown_hub_model_have_no_problems(tmp_path: Path) -> None:
    assert said(model(directory(tmp_path / "m"))) == ""
    assert said(StudentSpec(model="a/b")) == ""


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    assert "student.model: " in said(model(tmp_path / "nope")) and "does not exist" in said(model(tmp_path / "nope"))
    (tmp_path / "file").write_text("")
    assert "is a file; expected the directory" in said(model(tmp_path / "file"))


def test_a_revision_of_a_local_directory_would_be_ignored(tmp_path: Path) -> None:
    assert "student.revision: " in said(model(directory(tmp_path / "m"), revision="main"))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (None, "config.json does not exist"),
        ("{", "is not the config of a model: JSONDecodeError"),
        ("[]", "is not the config of a model"),
        ("{}", "expected a model_type"),
        ('{"model_type": "lama"}', "unknown model_type 'lama'; did you mean 'llama'?"),
        ('{"model_type": "zzzzzzzz"}', "unknown model_type 'zzzzzzzz'; upgrade transformers"),
        ('{"model_type": ["x"]}', "expected a model_type"),
    ],
)
def test_a_bad_config(tmp_path: Path, config: str | None, words: str) -> None:
    path = directory(tmp_path / "m")
    (path / "config.json").unlink()
    if config is not None:
        (path / "config.json").write_text(config)
    assert words in said(model(path))


def test_a_missing_tokenizer(tmp_path: Path) -> None:
    path = directory(tmp_path / "m")
    (path / "tokenizer.json").unlink()
    assert "holds no tokenizer" in said(model(path))


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    path = directory(tmp_path / "m")
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    assert "pickle (pytorch_model.bin)" in said(model(path)) and "model.safetensors" in said(model(path))
    assert said(model(path, from_scratch=True)) == ""


def test_missing_weights_and_shards(tmp_path: Path) -> None:
    path = directory(tmp_path / "m")
    (path / "model.safetensors").unlink()
    assert "holds no weights" in said(model(path))
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    (path / "model-1.safetensors").write_bytes(b"")
    assert "1 of 2 weight files are missing" in said(model(path)) and "model-2.safetensors" in said(model(path))
    (path / "model-2.safetensors").write_bytes(b"")
    assert said(model(path)) == ""
    (path / "model.safetensors.index.json").write_text("[]")
    assert "is not an index of weights" in said(model(path))


def test_a_gguf_file_replaces_config_and_weights(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"")
    assert said(model(tmp_path, gguf_file="a.gguf")) == ""
    assert "the directory holds a.gguf" in said(model(tmp_path, gguf_file="b.gguf"))
    assert "set gguf_file: a.gguf" in said(model(tmp_path))
    assert "student.gguf_file: " in said(model(tmp_path, gguf_file="a.gguf", from_scratch=True))


def test_adapters_go_to_modules_that_the_model_has(tmp_path: Path) -> None:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    path = directory(tmp_path / "m", **sizes)
    assert said(model(path, lora={"target_modules": ["q_proj", "layers.0.mlp.up_proj"]})) == ""
    assert "student.lora.target_modules: the model has no module 'query'; expected some of: q_proj" in said(
        model(path, lora={"target_modules": ["query"]})
    )
    assert said(model(directory(tmp_path / "unknown", model_type="mamba"), lora={"target_modules": ["query"]})) == ""


def test_remote_code_needs_the_operator_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATLAS_TRUST_REMOTE_CODE", raising=False)
    assert "student.trust_remote_code: " in said(StudentSpec(model="a/b", trust_remote_code=True))
    monkeypatch.setenv("ATLAS_TRUST_REMOTE_CODE", "1")
    assert said(StudentSpec(model="a/b", trust_remote_code=True)) == ""


def pair(student: Path, teacher: Path) -> str:
    return "\n".join(map(str, check_pair(model(student), model(teacher))))


def test_equal_tokenizers_make_a_pair(tmp_path: Path) -> None:
    student = directory(tmp_path / "s")
    assert pair(student, directory(tmp_path / "t", vocabulary={"b": 1, "a": 0})) == ""
    assert pair(student, directory(tmp_path / "list", vocabulary=[["a", -1.0], ["b", -2.0]])) == ""


def test_two_swapped_ids_are_found_although_the_sizes_are_equal(tmp_path: Path) -> None:
    student = directory(tmp_path / "s", vocabulary={"a": 0, "b": 1, "c": 2})
    said = pair(student, directory(tmp_path / "t", vocabulary={"a": 0, "b": 2, "c": 1}))
    assert said.startswith(
        "teacher.model: the tokenizers differ: the first differing id is 1, 'b' for the student and 'c'"
    )


def test_an_added_token_counts(tmp_path: Path) -> None:
    student, teacher = directory(tmp_path / "s"), directory(tmp_path / "t")
    document = json.loads((teacher / "tokenizer.json").read_text())
    (teacher / "tokenizer.json").write_text(json.dumps(document | {"added_tokens": [{"id": 2, "content": "<x>"}]}))
    assert "the first differing id is 2, None for the student and '<x>'" in pair(student, teacher)


def test_heads_of_different_widths_make_a_pair(tmp_path: Path) -> None:
    assert pair(directory(tmp_path / "s", vocab_size=151936), directory(tmp_path / "t", vocab_size=152064)) == ""


def test_a_pair_that_is_not_at_hand_is_not_judged(tmp_path: Path) -> None:
    broken = directory(tmp_path / "broken")
    (broken / "tokenizer.json").write_text("[]")
    assert check_pair(model(broken), model(directory(tmp_path / "m"))) == []
    assert check_pair(ModelSpec(model="a/b"), ModelSpec(model="a/c")) == []


def test_real_tokenizers_of_different_families_differ(shared: Path) -> None:
    said = pair(shared / "tokenizers/qwen2.5", shared / "tokenizers/llama-3.2")
    assert "the tokenizers differ" in said
    assert pair(shared / "tokenizers/qwen2.5", shared / "tokenizers/qwen2.5") == ""
