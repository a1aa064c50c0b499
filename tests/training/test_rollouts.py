"""Rollouts against `generate`, against full forwards, and against the probabilities they are drawn with."""

from dataclasses import replace

import pytest
import torch

from atlas.spec import SamplingSpec
from atlas.training import rollouts as module
from atlas.training.head import head_of
from atlas.training.rollouts import roll_out

from .test_packing import VOCABULARY, build
from .tiny import tiny_llama

PROMPTS = [[3, 4, 5, 6, 7, 8, 9, 10], [5], [7, 3], [9, 9, 9, 4], [11, 12, 13]]
MODELS = ["llama, grouped heads, tied", "qwen2, sliding window, untied", "mistral, sliding window"]
GREEDY = {"temperature": 1e-4}
EOS = 2


def model_of(name=MODELS[0]):
    return build(name).float()


def write(model, prompts=PROMPTS, num_generations=1, eos=(EOS,), seed=0, vocabulary=VOCABULARY, **sampling):
    settings = {"max_completion_length": 12, **sampling}
    return roll_out(
        model,
        head_of(model, vocabulary),
        prompts,
        num_generations,
        SamplingSpec(**settings),
        eos_token_ids=eos,
        seed=seed,
    )


def greedy(model, prompt, length, eos=(EOS,)):
    """By full forwards of the row alone, without a cache."""
    written = []
    while len(written) < length and (not written or written[-1] not in eos):
        with torch.no_grad():
            written.append(int(model(torch.tensor([prompt + written])).logits[0, -1].argmax()))
    return written


def ends_early(model):
    """An EOS by which greedy rollouts of PROMPTS end at different lengths, some at none."""
    tokens = [greedy(model, prompt, 12, eos=()) for prompt in PROMPTS]
    for eos in range(VOCABULARY):
        ends = {row.index(eos) if eos in row else None for row in tokens}
        if len(ends) > 2 and None in ends:
            return eos
    raise AssertionError("no token ends the rows at different lengths")


@pytest.mark.parametrize("name", MODELS)
def test_a_cold_rollout_is_the_greedy_one_of_each_row_alone(name):
    model = model_of(name)
    eos = (ends_early(model),)
    got = write(model, eos=eos, **GREEDY)
    assert [rollout.prompt_ids for rollout in got] == PROMPTS
    assert [rollout.completion_ids for rollout in got] == [greedy(model, prompt, 12, eos) for prompt in PROMPTS]
    assert len({len(rollout.completion_ids) for rollout in got}) > 2


def test_a_cold_rollout_is_what_generate_writes():
    model = model_of()
    eos = ends_early(model)
    width = max(map(len, PROMPTS))
    input_ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in PROMPTS])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in PROMPTS])
    output = model.generate(
        input_ids, attention_mask=mask, max_new_tokens=12, do_sample=False, eos_token_id=eos, pad_token_id=0
    )[:, width:].tolist()
    expected = [row[: row.index(eos) + 1] if eos in row else row for row in output]
    assert [rollout.completion_ids for rollout in write(model, eos=(eos,), **GREEDY)] == expected


def test_a_row_does_not_depend_on_the_others():
    model = model_of()
    eos = (ends_early(model),)
    together = write(model, eos=eos, **GREEDY)
    for prompt, rollout in zip(PROMPTS, together, strict=True):
        (alone,) = write(model, prompts=[prompt], eos=eos, **GREEDY)
        assert alone.completion_ids == rollout.completion_ids and alone.clipped == rollout.clipped


def test_finished_rows_leave_the_batch(monkeypatch):
    model = model_of()
    eos = (ends_early(model),)
    sizes = []
    forward = model.model.forward
    monkeypatch.setattr(
        model.model, "forward", lambda *a, input_ids, **k: sizes.append(input_ids.shape) or forward(*a, input_ids, **k)
    )
    got = write(model, eos=eos, **GREEDY)
    lengths = [len(rollout.completion_ids) for rollout in got]
    # one forward reads all prompts as one row; then one for each further token, of the rows that have one
    assert sizes[0] == (1, sum(map(len, PROMPTS)))
    assert sizes[1:] == [(sum(length > at for length in lengths), 1) for at in range(1, max(lengths))]


def test_when_all_are_done_nothing_more_is_computed(monkeypatch):
    model = model_of()
    calls = []
    forward = model.model.forward
    monkeypatch.setattr(model.model, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    got = write(model, eos=range(VOCABULARY), max_completion_length=50)
    assert [len(rollout.completion_ids) for rollout in got] == [1] * 5 and len(calls) == 1
    assert not any(rollout.clipped for rollout in got)


def test_a_rollout_ends_with_any_eos_or_is_clipped():
    model = model_of()
    got = write(model, num_generations=20, eos=(2, 6))
    assert {rollout.clipped for rollout in got} == {True, False}
    for rollout in got:
        assert not {2, 6} & set(rollout.completion_ids[:-1])
        assert rollout.clipped == (rollout.completion_ids[-1] not in (2, 6))
        assert len(rollout.completion_ids) == 12 or not rollout.clipped
    assert {rollout.completion_ids[-1] for rollout in got if not rollout.clipped} == {2, 6}


def test_an_eos_at_the_last_place_is_no_clip():
    model = model_of()
    unending = write(model, eos=(), **GREEDY)[0]
    assert unending.clipped and len(unending.completion_ids) == 12
    last = unending.completion_ids[-1]
    length = unending.completion_ids.index(last) + 1
    (ended,) = write(model, PROMPTS[:1], eos=(last,), max_completion_length=length, **GREEDY)
    assert len(ended.completion_ids) == length and not ended.clipped


@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.0])
@pytest.mark.parametrize("name", MODELS)
def test_logprobs_are_those_of_a_full_forward(name, temperature):
    model = model_of(name)
    for rollout in write(model, num_generations=2, temperature=temperature, top_k=5, top_p=0.9):
        prompt, completion = rollout.row
        with torch.no_grad():
            logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
        expected = (logits / temperature).log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0]
        assert rollout.logprobs == pytest.approx(expected.tolist(), abs=2e-5)


def chi_square(counts, probabilities):
    expected = probabilities * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_tokens_come_as_often_as_the_model_says(temperature):
    model = tiny_llama(8, seed=3)
    with torch.no_grad():
        model.lm_head.weight *= 20  # away from uniform
    samples = 6000
    got = write(model, [[3, 4]], samples, eos=(), vocabulary=8, temperature=temperature, max_completion_length=2)

    def probabilities(context):
        with torch.no_grad():
            return (model(torch.tensor([context])).logits[0, -1].double() / temperature).softmax(-1)

    first = torch.bincount(torch.tensor([rollout.completion_ids[0] for rollout in got]), minlength=8)
    # a chi-square of 7 degrees of freedom is above 24.3 once in a thousand seeds
    assert chi_square(first, probabilities([3, 4])) < 24.3
    assert chi_square(first, torch.full((8,), 1 / 8, dtype=torch.float64)) > 100, "the test could not fail"
    common = int(first.argmax())
    after = [rollout.completion_ids[1] for rollout in got if rollout.completion_ids[0] == common]
    second = torch.bincount(torch.tensor(after), minlength=8)
    assert len(after) > 600 and chi_square(second, probabilities([3, 4, common])) < 24.3


def test_top_k_and_top_p_cut_the_tail():
    model = model_of()
    with torch.no_grad():
        probs = model(torch.tensor([PROMPTS[0]])).logits[0, -1].softmax(-1)
    order = probs.argsort(descending=True).tolist()

    def firsts(**sampling):
        rows = write(model, PROMPTS[:1], 500, max_completion_length=1, **sampling)
        return {rollout.completion_ids[0] for rollout in rows}

    assert firsts(top_k=3) == set(order[:3])
    nucleus = int((probs[order].cumsum(0) < 0.5).sum()) + 1
    assert 1 < nucleus < VOCABULARY and firsts(top_p=0.5) == set(order[:nucleus])


@pytest.mark.parametrize("sampling", [{"top_k": 1}, {"top_p": 1e-6}])
def test_one_candidate_is_greedy_at_any_temperature(sampling):
    model = model_of()
    got = write(model, temperature=3.0, **sampling)
    assert [rollout.completion_ids for rollout in got] == [greedy(model, prompt, 12) for prompt in PROMPTS]


def test_the_cache_grows_past_its_room(monkeypatch):
    model = model_of()
    expected = write(model, eos=(), max_completion_length=40, **GREEDY)
    growths = []
    with_room = module._with_room
    monkeypatch.setattr(module, "_with_room", lambda states: growths.append(states.shape[2]) or with_room(states))
    monkeypatch.setattr(module, "_MIN_GROWTH", 3)
    got = write(model, eos=(), max_completion_length=40, **GREEDY)
    assert max(growths) > max(map(len, PROMPTS)) + 20 and len(set(growths)) > 4
    assert [rollout.completion_ids for rollout in got] == [rollout.completion_ids for rollout in expected]
    assert expected[0].completion_ids == greedy(model, PROMPTS[0], 40, eos=())


def test_equal_seeds_are_equal_rollouts_and_others_are_not():
    model = model_of()
    first, same, other = (write(model, num_generations=3, seed=seed) for seed in (1, 1, 2))
    assert first == same != other


def test_the_rollouts_of_a_group_are_next_to_each_other_and_differ():
    got = write(model_of(), num_generations=4)
    assert [rollout.prompt_ids for rollout in got] == [prompt for prompt in PROMPTS for _ in range(4)]
    assert len({tuple(rollout.completion_ids) for rollout in got[:4]}) == 4


def test_a_group_is_greedy_too():
    model = model_of()
    got = write(model, num_generations=3, **GREEDY)
    wanted = [greedy(model, prompt, 12) for prompt in PROMPTS for _ in range(3)]
    assert [rollout.completion_ids for rollout in got] == wanted


@pytest.mark.parametrize("num_generations", [1, 2])
def test_prompts_may_come_twice(num_generations):
    model = model_of()
    prompts = [PROMPTS[0], PROMPTS[2], PROMPTS[2], PROMPTS[0]]
    got = write(model, prompts, num_generations, **GREEDY)
    wanted = [greedy(model, prompt, 12) for prompt in prompts for _ in range(num_generations)]
    assert [rollout.completion_ids for rollout in got] == wanted


def test_a_column_beyond_the_vocabulary_is_never_written():
    model = model_of()
    with torch.no_grad():
        beyond = model(torch.tensor([PROMPTS[0]])).logits[0, -1].softmax(-1)[17:].sum()
    assert beyond > 0.1
    got = write(model, num_generations=40, eos=(), vocabulary=17)
    assert {token for rollout in got for token in rollout.completion_ids} == set(range(17))
    # and what is left adds up to one: of the tokens that are, each is as likely as before among them
    prompt, completion = got[0].row
    with torch.no_grad():
        logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1, :17]
    expected = logits.log_softmax(-1).gather(1, torch.tensor(completion)[:, None])[:, 0]
    assert got[0].logprobs == pytest.approx(expected.tolist(), abs=2e-5)


@pytest.mark.parametrize("training", [True, False])
def test_global_state_and_mode_are_left_alone_and_dropout_is_off(training):
    model = tiny_llama(VOCABULARY, attention_dropout=0.5).train(training)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    got = write(model)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training == training and model.model.layers[0].training == training
    assert got == write(model.eval())


def test_a_failure_leaves_the_mode_alone_too(monkeypatch):
    model = model_of().train()

    def fail(*args):
        raise KeyError

    monkeypatch.setattr(module, "_sample", fail)
    with pytest.raises(KeyError):
        write(model)
    assert model.training and model.config._attn_implementation != "atlas"


def test_rollouts_are_plain_numbers():
    rollout = write(model_of())[0]
    assert all(type(token) is int for token in rollout.completion_ids)
    assert all(type(logprob) is float and logprob <= 0 for logprob in rollout.logprobs)
    assert len(rollout.logprobs) == len(rollout.completion_ids)
    assert replace(rollout) == rollout and rollout.row == (rollout.prompt_ids, rollout.completion_ids)
