import pytest
from tokenizers import processors

from atlas.datasets.base import Example
from atlas.errors import RunFailed
from atlas.training.prompts import check_lengths, encode_prompts, encode_solution, render_prompt

from .tiny import character_tokenizer, tiny_llama

MESSAGES = ({"role": "system", "content": "be brief"}, {"role": "user", "content": "1+1?"})


def example(text="1+1?", solution=None):
    return Example("row-7", "row-7", ({"role": "user", "content": text},), "2", solution)


def with_specials(tokenizer):
    """As Llama's tokenizers do, and T5's: the tokenizer itself puts BOS before and EOS after every text."""
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    return tokenizer


def test_the_chat_template_renders_the_prompt_up_to_the_answer():
    assert render_prompt(character_tokenizer(), MESSAGES) == "<bos>s:be brief\nu:1+1?\na:"


def test_without_a_chat_template_the_contents_are_lines():
    assert render_prompt(character_tokenizer(chat_template=None), MESSAGES) == "be brief\n1+1?\n"


def test_bos_comes_once_and_eos_never():
    chat, plain = with_specials(character_tokenizer()), with_specials(character_tokenizer(chat_template=None))
    for tokenizer in (chat, plain):
        [ids] = encode_prompts(tokenizer, [render_prompt(tokenizer, MESSAGES)])
        assert ids.count(1) == 1 and ids[0] == 1 and 2 not in ids


def test_a_solution_ends_with_eos_once_and_has_no_bos():
    tokenizer = with_specials(character_tokenizer())
    ids = encode_solution(tokenizer, example(solution="it is 2."))
    assert tokenizer.decode(ids) == "it is 2.<eos>"


def test_a_missing_solution_is_named():
    with pytest.raises(RunFailed, match="example row-7 has no worked solution") as caught:
        encode_solution(character_tokenizer(), example())
    assert caught.value.reason == "bad_data"


def test_a_template_that_refuses_a_role_says_so():
    tokenizer = character_tokenizer(chat_template="{{ raise_exception('no system role') }}")
    with pytest.raises(RunFailed, match="roles system, user: no system role") as caught:
        render_prompt(tokenizer, MESSAGES)
    assert caught.value.reason == "bad_model"


def test_a_prompt_that_leaves_no_room_is_named_before_training():
    tokenizer = character_tokenizer()
    model = tiny_llama(len(tokenizer), max_position_embeddings=64)
    fits = example("x" * (64 - 8 - 6))  # the template adds 6 tokens
    check_lengths(model, tokenizer, [fits], [8])
    with pytest.raises(RunFailed, match=r"example row-7 has 56 tokens, which with 9 .* context of 64") as caught:
        check_lengths(model, tokenizer, [example(), fits], [8, 9])
    assert caught.value.reason == "bad_data"


def test_an_empty_prompt_is_named():
    tokenizer = character_tokenizer(chat_template="{% for m in messages %}{% endfor %}")
    with pytest.raises(RunFailed, match="prompt of example row-7 has no tokens"):
        check_lengths(tiny_llama(len(tokenizer)), tokenizer, [example()], [1])
