"""How long the texts of a job are in tokens, from its data and its student's tokenizer, without torch."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from atlas.datasets.base import Splits
from atlas.models import Lengths, file_of
from atlas.spec import ModelSpec

if TYPE_CHECKING:
    from atlas.job import JobSpec

_SAMPLE = 256
"""Examples that are read: enough for a mean within a few percent."""
_SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")


def lengths_of(job: "JobSpec", splits: Splits | None) -> Lengths | None:
    """Measured on a sample of the training split; None without the data, a tokenizer.json, or the library to read it.

    A prompt is the chat template's, or where that cannot be rendered the contents of its messages.
    """
    encode = _encoder(job.student)
    if splits is None or not splits.train or encode is None:
        return None
    examples = random.Random(0).sample(splits.train, min(_SAMPLE, len(splits.train)))
    render = _renderer(job.student)
    prompts = [encode(render(example.messages)) for example in examples]
    solutions = [0 if example.solution is None else encode(example.solution) + 1 for example in examples]
    rows = map(sum, zip(prompts, solutions, strict=True))
    return Lengths(sum(prompts) / len(prompts), max(prompts), sum(solutions) / len(solutions), max(rows))


def _encoder(spec: ModelSpec) -> Callable[[str], int] | None:
    """Text to its number of tokens."""
    file = file_of(spec, "tokenizer.json")
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return None
    if file is None:
        return None
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception:  # tokenizers raises nothing narrower; whether the file is whole, `atlas check` says
        return None
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _renderer(spec: ModelSpec) -> Callable[[Sequence[Mapping[str, str]]], str]:
    """The chat template as transformers renders it."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def plain(messages: Sequence[Mapping[str, str]]) -> str:
        return "".join(message["content"] + "\n" for message in messages)

    def refuse(message: str) -> None:
        raise TemplateError(message)

    config = _config(spec)
    text = _template(spec, config)
    if text is None:
        return plain
    tokens = {name: _content(config[name]) for name in _SPECIAL_TOKENS if config.get(name)}
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    try:
        template = environment.from_string(text)
    except TemplateError:  # it has extensions of transformers'
        return plain

    def render(messages: Sequence[Mapping[str, str]]) -> str:
        try:
            return template.render(messages=messages, add_generation_prompt=True, **tokens)
        except Exception:  # whatever the code of a template may raise; the worker reports it
            return plain(messages)

    return render


def _config(spec: ModelSpec) -> dict[str, Any]:
    file = file_of(spec, "tokenizer_config.json")
    try:
        config = json.loads(file.read_text(encoding="utf-8")) if file else {}
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _template(spec: ModelSpec, config: Mapping[str, Any]) -> str | None:
    file = file_of(spec, "chat_template.jinja")
    text = file.read_text(encoding="utf-8", errors="replace") if file else config.get("chat_template")
    return text if isinstance(text, str) else None


def _content(token: Any) -> str:
    """A special token is written as its text, or as an object with it."""
    return str(token["content"]) if isinstance(token, dict) else str(token)
