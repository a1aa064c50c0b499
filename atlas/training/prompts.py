"""From an example to token ids: the one place, so that training and evaluation see the same prompts."""

from collections.abc import Iterable, Sequence

import jinja2
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from atlas.datasets.base import Example, Turn
from atlas.errors import RunFailed

_BATCH = 1000
_MARK = "atlas-was-here"


def render_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Turn]) -> str:
    """The text that a completion follows: the chat template's, or the contents, one a line, if there is no template.

    Raises RunFailed(`bad_model`) if the template refuses the messages.
    """
    if not tokenizer.chat_template:
        return "".join(message["content"] + "\n" for message in messages)
    try:
        return tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
    except jinja2.TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise RunFailed(
            "bad_model",
            f"the chat template refuses messages of the roles {roles}: {error}; see dataset.system, and for traces "
            "dataset.roles",
        ) from error


def encode_prompts(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str]) -> list[list[int]]:
    """Token ids of rendered prompts. BOS comes once: from the chat template, or else from the tokenizer."""
    if tokenizer.chat_template:
        return tokenizer(list(prompts), add_special_tokens=False)["input_ids"]
    rows = tokenizer(list(prompts))["input_ids"]
    return [row[:-1] if row and row[-1] == tokenizer.eos_token_id else row for row in rows]


def encode_solution(tokenizer: PreTrainedTokenizerBase, example: Example) -> list[int]:
    """Token ids of the worked solution as a completion, with EOS. Raises RunFailed(`bad_data`) if there is none."""
    if example.solution is None:
        raise RunFailed(
            "bad_data",
            f"example {example.id} has no worked solution to learn from; use a dataset with solutions, "
            "or method gkd with lmbda 1, or grpo",
        )
    return [*tokenizer(example.solution, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]


def check_lengths(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    completion_lengths: Iterable[int],
) -> None:
    """Raises RunFailed(`bad_data`) naming the first example whose prompt and completion exceed the model's context, and
    RunFailed(`bad_model`) if the chat template leaves turns out."""
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    lengths = zip(examples, _prompt_lengths(tokenizer, examples), completion_lengths, strict=True)
    for example, prompt, completion in lengths:
        if prompt == 0:
            raise RunFailed("bad_data", f"the prompt of example {example.id} has no tokens; remove the example")
        if context is not None and prompt + completion > context:
            raise RunFailed(
                "bad_data",
                f"the prompt of example {example.id} has {prompt} tokens, which with {completion} for the completion "
                f"exceeds the model's context of {context}; shorten max_completion_length or remove the example",
            )
    _check_roles(tokenizer, examples)


def _check_roles(tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]) -> None:
    """Many chat templates pass over the turns of a role that they do not know, such as `tool`, in silence."""
    first = {message["role"]: example.messages for example in reversed(examples) for message in example.messages}
    for role, messages in first.items():
        marked = [message | {"content": _MARK} if message["role"] == role else message for message in messages]
        if _MARK not in render_prompt(tokenizer, marked):
            raise RunFailed(
                "bad_model",
                f"the chat template leaves out what the role {role} says; give it another role (dataset.roles of "
                "traces), leave it out, or choose a model whose template knows it",
            )


def _prompt_lengths(tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example]) -> Iterable[int]:
    for start in range(0, len(examples), _BATCH):
        prompts = [render_prompt(tokenizer, example.messages) for example in examples[start : start + _BATCH]]
        yield from map(len, encode_prompts(tokenizer, prompts))
