import shutil

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from atlas.errors import RunFailed
from atlas.spec import LoraSpec, ModelSpec, StudentSpec
from atlas.training.load import (
    check_vocabulary,
    load_model,
    load_tokenizer,
    lora_config,
    tokenizer_difference,
)

from .tiny import CHARACTERS, character_tokenizer, save, tiny_llama


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def half(tmp_path):
    tokenizer = character_tokenizer()
    return save(tmp_path / "half", tiny_llama(len(tokenizer)).bfloat16(), tokenizer)


def failure(caught):
    return caught.value.reason, str(caught.value)


def test_equal_tokenizers_do_not_differ():
    assert tokenizer_difference(character_tokenizer(), character_tokenizer(chat_template=None)) is None


def test_tokenizers_of_equal_size_are_told_apart_by_content():
    other = character_tokenizer(CHARACTERS[:5] + "*" + CHARACTERS[6:])
    said = tokenizer_difference(character_tokenizer(), other)
    assert said == "the first differing id is 9, '5' for the student and '*' for the teacher"


def test_an_extra_or_differently_special_token_differs():
    other = character_tokenizer()
    other.add_tokens(["<tool>"])
    assert "id is 47, none for the student and '<tool>'" in tokenizer_difference(character_tokenizer(), other)
    special = character_tokenizer()
    special.add_special_tokens({"additional_special_tokens": ["<tool>"]})
    assert "'<tool>' for the student and '<tool>' (special) for" in tokenizer_difference(other, special)


def test_a_tokenizer_with_more_ids_than_logits_does_not_belong_to_the_model():
    check_vocabulary(tiny_llama(64), character_tokenizer())
    with pytest.raises(RunFailed, match="ids up to 46 and the model only 40 logits"):
        check_vocabulary(tiny_llama(40), character_tokenizer())


def test_a_missing_directory_is_a_missing_file(cache):
    for load in (load_tokenizer, lambda spec, cache: load_model(spec, cache, trainable=False)):
        with pytest.raises(RunFailed, match="/nowhere is not a directory") as caught:
            load(ModelSpec(model="/nowhere"), cache)
        assert caught.value.reason == "missing_file"


def test_a_directory_without_weights_says_what_belongs_there(student, tmp_path, cache):
    bare = tmp_path / "bare"
    shutil.copytree(student, bare)
    (bare / "model.safetensors").unlink()
    torch.save({}, bare / "pytorch_model.bin")  # pickles are not read
    with pytest.raises(RunFailed, match=r"\*\.safetensors") as caught:
        load_model(ModelSpec(model=str(bare)), cache, trainable=False)
    assert caught.value.reason == "missing_file"


def test_an_unknown_kind_of_model_is_a_bad_model(student, tmp_path, cache):
    odd = tmp_path / "odd"
    shutil.copytree(student, odd)
    (odd / "config.json").write_text('{"model_type": "perpetuum"}')
    with pytest.raises(RunFailed, match="perpetuum") as caught:
        load_model(ModelSpec(model=str(odd)), cache, trainable=False)
    assert caught.value.reason == "bad_model"


@pytest.mark.parametrize(
    ("file", "keep"), [("model.safetensors", 0), ("model.safetensors", 4000), ("tokenizer.json", 100)]
)
def test_a_torn_file_is_a_bad_model(student, tmp_path, cache, file, keep):
    broken = tmp_path / "torn"
    shutil.copytree(student, broken)
    (broken / file).write_bytes((broken / file).read_bytes()[:keep])
    spec = StudentSpec(model=str(broken))
    with pytest.raises(RunFailed, match=r"torn cannot be loaded as a causal .*; copy the model again") as caught:
        load_tokenizer(spec, cache)
        load_model(spec, cache, trainable=True)
    assert caught.value.reason == "bad_model"


def test_a_config_of_the_wrong_type_is_a_bad_model(student, tmp_path, cache):
    broken = tmp_path / "broken"
    shutil.copytree(student, broken)
    config = (broken / "config.json").read_text()
    (broken / "config.json").write_text(config.replace('"vocab_size": ', '"vocab_size": "many", "was": '))
    with pytest.raises(RunFailed, match="'vocab_size' expected int, got str") as caught:
        load_model(StudentSpec(model=str(broken)), cache, trainable=True)
    assert caught.value.reason == "bad_model"


def test_a_hub_that_does_not_answer_is_a_reason_of_its_own(cache, monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("We couldn't connect to 'https://huggingface.co' to load the files")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", unreachable)
    with pytest.raises(RunFailed, match="could not load org/model from the hub") as caught:
        load_tokenizer(ModelSpec(model="org/model"), cache)
    assert caught.value.reason == "hub_unreachable"


def test_code_from_a_repository_needs_the_operator_too(student, cache, monkeypatch):
    spec = ModelSpec(model=str(student), trust_remote_code=True)
    monkeypatch.delenv("ATLAS_TRUST_REMOTE_CODE", raising=False)
    with pytest.raises(RunFailed, match="export ATLAS_TRUST_REMOTE_CODE=1"):
        load_model(spec, cache, trainable=False)
    monkeypatch.setenv("ATLAS_TRUST_REMOTE_CODE", "1")
    load_model(spec, cache, trainable=False)


def test_padding_falls_back_on_eos_and_no_eos_is_refused(student, tmp_path, cache):
    tokenizer = character_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "no-pad")
    assert load_tokenizer(ModelSpec(model=str(tmp_path / "no-pad")), cache).pad_token_id == 2
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path / "no-eos")
    with pytest.raises(RunFailed, match="no EOS token") as caught:
        load_tokenizer(ModelSpec(model=str(tmp_path / "no-eos")), cache)
    assert caught.value.reason == "bad_model"


def test_auto_dtype_is_float32_where_training_or_the_cpu_needs_it(half, cache, monkeypatch):
    lora = StudentSpec(model=str(half), lora=LoraSpec())
    for spec, trainable in [(StudentSpec(model=str(half)), True), (ModelSpec(model=str(half)), False), (lora, True)]:
        assert load_model(spec, cache, trainable=trainable).dtype == torch.float32
    stored = ModelSpec(model=str(half), dtype="bfloat16")
    assert load_model(stored, cache, trainable=False).dtype == torch.bfloat16


def test_only_the_trained_model_has_gradients(student, cache):
    spec = StudentSpec(model=str(student))
    assert all(p.requires_grad for p in load_model(spec, cache, trainable=True).parameters())
    frozen = load_model(spec, cache, trainable=False)
    assert not frozen.training and not any(p.requires_grad for p in frozen.parameters())


def test_from_scratch_needs_no_weights_and_depends_on_the_seed(student, tmp_path, cache):
    shutil.copytree(student, tmp_path / "config")
    (tmp_path / "config" / "model.safetensors").unlink()
    spec = StudentSpec(model=str(tmp_path / "config"), from_scratch=True)

    def weights(seed):
        torch.manual_seed(seed)
        return load_model(spec, cache, trainable=True).lm_head.weight

    assert torch.equal(weights(1), weights(1)) and not torch.equal(weights(1), weights(2))


def test_left_padding_does_not_move_absolute_positions(tmp_path, cache):
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=47, n_embd=32, n_layer=2, n_head=4, n_positions=32)).save_pretrained(tmp_path)
    model = load_model(ModelSpec(model=str(tmp_path)), cache, trainable=False)
    ids = torch.tensor([[5, 6, 7, 8]])
    padded, mask = torch.tensor([[0, 0, 0, 5, 6, 7, 8]]), torch.tensor([[0, 0, 0, 1, 1, 1, 1]])
    alone, left = model(ids).logits[0, -1], model(padded, attention_mask=mask).logits[0, -1]
    assert torch.allclose(alone, left, atol=1e-5)


def test_adapters_on_the_head_are_refused():
    with pytest.raises(RunFailed, match="lm_head"):
        lora_config(LoraSpec(target_modules=["q_proj", "lm_head"]))
    assert lora_config(LoraSpec(r=4, alpha=8)).r == 4


def test_a_missing_gguf_file_lists_those_that_are_there(tmp_path, cache):
    (tmp_path / "model-q4.gguf").touch()
    with pytest.raises(RunFailed, match=r"no model-q8\.gguf in .*; GGUF files there: model-q4\.gguf") as caught:
        load_tokenizer(ModelSpec(model=str(tmp_path), gguf_file="model-q8.gguf"), cache)
    assert caught.value.reason == "missing_file"
