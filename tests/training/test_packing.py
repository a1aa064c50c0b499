"""A packed row computes what each of its rows computes alone."""

from itertools import pairwise

import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from atlas.errors import RunFailed
from atlas.training.head import head_of, hidden_states
from atlas.training.packing import micro_batches, pack

from .tiny import tiny_llama

VOCABULARY = 23
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def qwen2():
    # a window of 5 in one layer and none in the other, as in Qwen2 with `use_sliding_window`
    layer_types = ["full_attention", "sliding_attention"]
    return Qwen2ForCausalLM(Qwen2Config(**SMALL, use_sliding_window=True, sliding_window=5, layer_types=layer_types))


MODELS = {
    "llama, grouped heads, tied": lambda: tiny_llama(VOCABULARY),
    "llama, one head of keys, untied": lambda: tiny_llama(VOCABULARY, num_key_value_heads=1, tie_word_embeddings=False),
    "qwen2, sliding window, untied": qwen2,
    "mistral, sliding window": lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=4)),
    "gpt2, absolute positions": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCABULARY, n_embd=16, n_layer=2, n_head=2, n_positions=64)
    ),
}

# shared prompts, as of a group; prompts longer than the windows; completions of one token; a prompt of one token
ROWS = [
    ([3, 4, 5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 16, 2]),
    ([3, 4, 5, 6, 7, 8, 9, 10], [2]),
    ([3, 4, 5, 6, 7, 8, 9, 10], [12, 11, 2]),
    ([5], [9, 9, 9, 9, 9, 9, 9, 9, 2]),
    ([7, 3], [4]),
    ([7, 3], [5]),
]


def build(name):
    torch.manual_seed(0)
    model = MODELS[name]().double().eval()
    for parameter in model.parameters():  # the initial ones are so small that attention would be nearly uniform
        parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def alone(model, rows):
    """The plain forward of each row by itself, without our attention."""
    states = []
    for prompt, completion in rows:
        output = model.base_model(torch.tensor([[*prompt, *completion]])).last_hidden_state[0]
        states.append(output[len(prompt) - 1 : -1])
    return torch.cat(states)


def gradients(model, states, directions):
    model.zero_grad()
    (states * directions).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", MODELS)
def test_packed_states_and_gradients_are_those_of_each_row_alone(name):
    model = build(name)
    expected = alone(model, ROWS)
    packed_states = hidden_states(model, pack(ROWS))
    assert (packed_states - expected).norm() < 1e-6 * expected.norm()  # the norms of a Llama are in float32
    directions = torch.randn_like(expected)
    wanted, got = (gradients(model, states, directions) for states in (expected, packed_states))
    assert wanted.keys() == got.keys() and len(wanted) > 10
    for parameter in wanted:
        assert (got[parameter] - wanted[parameter]).norm() < 1e-5 * wanted[parameter].norm(), parameter


@pytest.mark.parametrize("name", MODELS)
def test_the_cut_head_makes_the_models_own_logits(name):
    model = build(name)
    packed = pack(ROWS[:1])
    prompt, completion = ROWS[0]
    logits = model(torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1]
    got = head_of(model, 17).logits(hidden_states(model, packed))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, logits[:, :17].float(), rtol=1e-5, atol=1e-5)


def test_a_row_does_not_see_its_neighbours():
    model = build("qwen2, sliding window, untied")
    with torch.no_grad():
        first = hidden_states(model, pack(ROWS))
        others = hidden_states(model, pack([ROWS[0], ([8, 8], [8, 8, 8]), *ROWS[2:]]))
    torch.testing.assert_close(others[:7], first[:7])
    torch.testing.assert_close(others[-2:], first[-2:])


def test_the_model_keeps_its_own_attention():
    model = build("llama, grouped heads, tied")
    before = model.config._attn_implementation
    plain = model(torch.tensor([[3, 4, 5]])).logits
    hidden_states(model, pack(ROWS))
    assert model.config._attn_implementation == before != "atlas"
    assert torch.equal(model(torch.tensor([[3, 4, 5]])).logits, plain)


def test_an_attention_that_is_not_ours_is_refused():
    model = Gemma2ForCausalLM(Gemma2Config(**SMALL, head_dim=4, attn_logit_softcapping=50.0))
    with pytest.raises(RunFailed, match="Gemma2Attention has softcap") as caught:
        hidden_states(model, pack(ROWS))
    assert caught.value.reason == "bad_model"


def test_a_shared_prompt_is_there_once_and_every_completion_token_is_predicted_once():
    packed = pack(ROWS)
    completions = [completion for _, completion in ROWS]
    assert packed.target_ids_N.tolist() == [token for completion in completions for token in completion]
    assert packed.row_N.tolist() == [i for i, completion in enumerate(completions) for _ in completion]
    # three prompts, and of every completion all but its last token, which predicts nothing
    assert len(packed.input_ids_T) == (8 + 1 + 2) + sum(len(completion) - 1 for completion in completions)
    for row, (prompt, completion) in enumerate(ROWS):
        predicting = packed.predicting_N[packed.row_N == row]
        assert packed.input_ids_T[predicting].tolist() == [prompt[-1], *completion[:-1]]
        assert packed.position_ids_T[predicting].tolist() == list(
            range(len(prompt) - 1, len(prompt) + len(completion) - 1)
        )


def test_the_segments_cover_the_packed_row_in_order():
    packed = pack(ROWS)
    assert packed.segments[0].start == 0 and packed.segments[-1].end == len(packed.input_ids_T)
    for before, after in pairwise(packed.segments):
        assert before.end == after.start


@pytest.mark.parametrize("row", [([], [1]), ([1], [])])
def test_nothing_to_predict_from_or_to_predict_is_an_error(row):
    with pytest.raises(AssertionError, match="empty"):
        pack([row])


def packed_tokens(rows):
    return len(pack(rows).input_ids_T)


def many_rows():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 12, (40, 2), generator=generator).tolist()
    rows = [([i] * prompt, [1] * completion) for i, (prompt, completion) in enumerate(lengths)]
    # groups of three, not next to each other
    return [(rows[i % 20][0], rows[i][1]) for i in range(40)] + [(rows[i][0], [2] * 5) for i in range(20)]


@pytest.mark.parametrize("max_rows", [None, 1, 3])
@pytest.mark.parametrize("max_tokens", [1, 15, 40, 10_000])
def test_micro_batches_cover_every_row_once_within_the_limits(max_rows, max_tokens):
    rows = many_rows()
    batches = list(micro_batches(rows, max_rows, max_tokens))
    assert sorted(i for batch in batches for i in batch) == list(range(len(rows)))
    for batch in batches:
        assert max_rows is None or len(batch) <= max_rows
        assert packed_tokens([rows[i] for i in batch]) <= max_tokens or len(batch) == 1
    if max_rows is None and max_tokens == 10_000:
        assert len(batches) == 1


@pytest.mark.parametrize("max_rows", [None, 4])
def test_micro_batches_are_as_full_as_they_can_be_in_their_order(max_rows):
    rows = many_rows()
    batches = list(micro_batches(rows, max_rows, 40))
    for batch, following in pairwise(batches):
        assert len(batch) == max_rows or packed_tokens([rows[i] for i in [*batch, following[0]]]) > 40


def test_a_row_over_the_limit_is_alone():
    rows = [([1] * 3, [2] * 2), ([3] * 90, [4] * 20), ([5] * 3, [6] * 2)]
    assert sorted(map(sorted, micro_batches(rows, None, 50))) == [[0, 2], [1]]


def test_rows_with_equal_prompts_come_together_and_the_longest_first():
    rows = [([1, 2], [3]), ([9] * 8, [3]), ([1, 2], [4] * 4), ([9] * 8, [5] * 3), ([7, 7], [3])]
    (batch,) = micro_batches(rows, None, 1000)
    assert batch[:2] == [3, 1]
    assert packed_tokens([rows[i] for i in batch]) == (8 + 2 + 2) + (2 + 3)


def test_no_rows_are_no_batches():
    assert list(micro_batches([], 4, 100)) == []
