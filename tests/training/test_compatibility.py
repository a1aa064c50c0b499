"""Which models are packed and decoded by us, and that the others still work where they can."""

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, MambaConfig, Qwen3Config

from atlas.errors import RunFailed
from atlas.training import generation
from atlas.training.compatibility import why_not_ours
from atlas.training.generation import generate

from .test_generation import PROMPTS, one_by_one
from .tiny import character_tokenizer, save, tiny_llama, train

SIZE = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 64}
GEMMA = Gemma2Config(**SIZE, num_key_value_heads=2, head_dim=8, attn_logit_softcapping=50.0, vocab_size=48)
MODELS = {
    "llama": lambda: tiny_llama(48),
    "qwen3": lambda: AutoModelForCausalLM.from_config(
        Qwen3Config(**SIZE, num_key_value_heads=2, head_dim=8, vocab_size=48)
    ),
    "gpt2": lambda: AutoModelForCausalLM.from_config(GPT2Config(n_layer=2, n_head=2, n_embd=32, vocab_size=48)),
    "gemma2": lambda: AutoModelForCausalLM.from_config(GEMMA),
    "mamba": lambda: AutoModelForCausalLM.from_config(
        MambaConfig(hidden_size=32, num_hidden_layers=2, state_size=4, vocab_size=48)
    ),
}
OURS = {"llama": None, "qwen3": None, "gemma2": "softcap", "mamba": ""}


@pytest.mark.parametrize("name", OURS)
def test_a_model_is_ours_exactly_if_its_numbers_are_the_same(name):
    torch.manual_seed(0)
    why = why_not_ours(MODELS[name](), 48)
    if OURS[name] is None:
        assert why is None
    else:
        assert why is not None and OURS[name] in why


@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_measured_rightly_whoever_decodes(name):
    torch.manual_seed(0)
    tokenizer, model = character_tokenizer(chat_template=None), MODELS[name]().eval()
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    found = generate(model, tokenizer, PROMPTS, max_completion_length=6, batch_size=3)
    assert [completion.token_ids for completion in found] == [one_by_one(model, tokenizer, p, 6) for p in PROMPTS]


def test_a_model_of_another_kind_is_refused_by_the_methods_that_need_rollouts(make_run, tmp_path):
    torch.manual_seed(0)
    path = save(tmp_path / "gemma2", MODELS["gemma2"](), character_tokenizer())
    with pytest.raises(RunFailed, match=r"cannot be trained with rollouts: .*softcap") as caught:
        train(make_run({"type": "grpo", "num_generations": 2}, student={"model": str(path)}))
    assert caught.value.reason == "bad_model"


def test_the_plain_way_of_decoding_is_taken_only_where_it_must_be(monkeypatch):
    taken = []
    plainly = generation._write_plainly
    monkeypatch.setattr(generation, "_write_plainly", lambda *args: taken.append(1) or plainly(*args))
    tokenizer = character_tokenizer(chat_template=None)
    for name in ("llama", "gemma2"):
        generate(MODELS[name](), tokenizer, PROMPTS, max_completion_length=2, batch_size=8)
    assert len(taken) == 1
