import random

import pytest
import torch

from atlas.training import generation
from atlas.training.generation import generate
from atlas.training.prompts import encode_prompts

from .tiny import character_tokenizer, tiny_llama

PROMPTS = ["a", "copy abc?", "12+3=", "zz"]


@pytest.fixture(scope="module")
def tokenizer():
    return character_tokenizer(chat_template=None)


@pytest.fixture
def model(tokenizer):
    model = tiny_llama(len(tokenizer), tie_word_embeddings=False)
    for parameter in model.parameters():  # or greedy decoding would repeat one token for ever
        parameter.data *= 12 if parameter.dim() == 2 else 1
    return model


def one_by_one(model, tokenizer, prompt, limit):
    """Greedy decoding without batch, padding or cache."""
    ids, new = encode_prompts(tokenizer, [prompt])[0], []
    model.eval()
    while len(new) < limit and (not new or new[-1] != tokenizer.eos_token_id):
        with torch.no_grad():
            new.append(int(model(torch.tensor([ids + new]), use_cache=False).logits[0, -1].argmax()))
    return new


def test_greedy_batches_equal_decoding_one_by_one(model, tokenizer):
    for batch_size in (1, 3, 8):
        found = generate(model, tokenizer, PROMPTS, max_completion_length=9, batch_size=batch_size)
        expected = [one_by_one(model, tokenizer, prompt, 9) for prompt in PROMPTS]
        assert [c.token_ids for c in found] == expected
        assert max(len(set(row)) for row in expected) > 3


def test_every_declared_eos_ends_a_completion(model, tokenizer):
    free = generate(model, tokenizer, PROMPTS, max_completion_length=6, batch_size=4)
    assert all(c.clipped and len(c.token_ids) == 6 for c in free)
    end = free[1].token_ids[2]
    model.generation_config.eos_token_id = [2, end]
    ended = generate(model, tokenizer, PROMPTS, max_completion_length=6, batch_size=4)[1]
    assert not ended.clipped and ended.token_ids == free[1].token_ids[: free[1].token_ids.index(end) + 1]


def test_text_has_no_special_tokens(model, tokenizer):
    model.lm_head.weight.data[:] = 0  # all logits are equal: greedy takes the first id, <pad>
    completion = generate(model, tokenizer, ["a"], max_completion_length=3, batch_size=1)[0]
    assert completion.text == "" and completion.token_ids == [0, 0, 0]


def test_sampling_depends_on_its_seed_and_leaves_the_global_random_numbers_alone(model, tokenizer):
    def sample(seed):
        found = generate(model, tokenizer, PROMPTS, max_completion_length=8, temperature=1.0, batch_size=2, seed=seed)
        return [c.token_ids for c in found]

    torch.manual_seed(5)
    random.seed(5)
    expected = torch.rand(3), random.random()
    torch.manual_seed(5)
    random.seed(5)
    first, again, other = sample(1), sample(1), sample(2)
    assert first == again != other
    assert torch.equal(torch.rand(3), expected[0]) and random.random() == expected[1]


def test_decodes_with_the_cache_and_without_dropout_whatever_the_model_was_doing(model, tokenizer, monkeypatch):
    monkeypatch.setattr(generation, "why_not_ours", lambda *_: None)  # it has forwards of its own
    model.gradient_checkpointing_enable()
    model.config.use_cache = model.generation_config.use_cache = False
    model.train()
    widths, modes = [], []

    def spy(module, args, kwargs):
        widths.append(kwargs["input_ids"].shape[1])
        modes.append(module.training)

    model.model.register_forward_pre_hook(spy, with_kwargs=True)
    generate(model, tokenizer, PROMPTS, max_completion_length=5, batch_size=4)
    prompts = sum(map(len, encode_prompts(tokenizer, PROMPTS)))
    assert widths == [prompts, 1, 1, 1, 1] and not any(modes)
    assert model.training


def test_before_batch_sees_the_progress_and_can_stop(model, tokenizer):
    seen = []

    def before_batch(done, total):
        seen.append((done, total))
        if done == 2:
            raise KeyboardInterrupt

    model.train()
    with pytest.raises(KeyboardInterrupt):
        generate(model, tokenizer, PROMPTS, max_completion_length=2, batch_size=1, before_batch=before_batch)
    assert seen == [(0, 4), (1, 4), (2, 4)] and model.training
