"""A world small enough to train in seconds: a Llama of 30 k parameters that reads characters, and copying problems."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from atlas.datasets.base import Dataset, Example, Splits
from atlas.grading import Verdict
from atlas.run import Run
from atlas.training import engine
from atlas.training.packing import Row
from atlas.training.rollouts import Rollout

CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyz+=?.:\n "
CHAT_TEMPLATE = "<bos>{% for m in messages %}{{ m['role'][0] }}:{{ m['content'] }}\n{% endfor %}a:"

torch.set_num_threads(1)


def character_tokenizer(
    characters: str = CHARACTERS, chat_template: str | None = CHAT_TEMPLATE
) -> PreTrainedTokenizerFast:
    """One token per character: the recipe of the smallest honest tokenizer."""
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<bos>", "<eos>", "<unk>", *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        chat_template=chat_template,
    )


def tiny_llama(vocabulary: int, seed: int = 0, **config: Any) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    settings = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": True,
    }
    return LlamaForCausalLM(LlamaConfig(**settings | config))


def save(directory: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Path:
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


class Copying(Dataset):
    """A few rows, all in memory. Any vowel is right, so that a model that knows nothing is right half the time."""

    rows: int = 8
    solutions: bool = True

    def check(self) -> None:
        pass

    def load(self) -> Splits:
        letters = "abcdefghijklmnopqrstuvwxyz"
        examples = [self._example(i, letters[i % 26] * (1 + i % 3)) for i in range(4 + self.rows + 3)]
        return Splits(dev=examples[:4], train=examples[4:-3], test=examples[-3:])

    def _example(self, i: int, text: str) -> Example:
        messages = ({"role": "user", "content": f"copy {text}?"},)
        return Example(f"row-{i}", f"row-{i}", messages, text[0], f"{text}." if self.solutions else None)

    def grade(self, example: Example, completion: str) -> Verdict:
        return Verdict(
            found=bool(completion), correct=any(c in "aeiou" for c in completion), extracted=completion[:1] or None
        )


def lines(run: Run, file: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.directory / file).read_text().splitlines()]


def series(run: Run, name: str) -> dict[int, float]:
    """The values of a metric by step, as the store would keep them: a rewind voids what came after it."""
    values: dict[int, float] = {}
    for line in lines(run):
        if "rewind" in line:
            values = {step: value for step, value in values.items() if step <= line["rewind"]}
        if name in line.get("values", {}):
            values[line["step"]] = line["values"][name]
    return values


def train(run: Run) -> Path | None:
    path: Path | None = run.job.method.train(run)
    return path


def names(run: Run) -> Sequence[str]:
    return sorted({name for line in lines(run) for name in line.get("values", {})})


@dataclass
class Step:
    """What an optimizer step of an on-policy method learnt from."""

    rollouts: list[Rollout]
    micro_batches: list[list[Row]] = field(default_factory=list)
    """The rows that a loss was computed of, as they were packed together."""
    advantages: list[float] = field(default_factory=list)
    """Of the rollouts, for methods that have them."""

    @property
    def learnt(self) -> list[Row]:
        return [row for batch in self.micro_batches for row in batch]

    @property
    def tokens_learnt(self) -> int:
        return sum(len(completion) for _, completion in self.learnt)


def watch_steps(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """Everything that reaches a loss of gkd and grpo, in order."""
    seen: list[Step] = []
    backward, pack = engine.OnPolicyTrainer._backward, engine.pack

    def see_rollouts(self: Any, rollouts: Sequence[Rollout]) -> Any:
        advantages = self.advantages_R.tolist() if hasattr(self, "advantages_R") else []
        seen.append(Step(list(rollouts), advantages=advantages))
        return backward(self, rollouts)

    def see_rows(rows: Sequence[Row], device: Any) -> Any:
        seen[-1].micro_batches.append(list(rows))
        return pack(rows, device)

    monkeypatch.setattr(engine.OnPolicyTrainer, "_backward", see_rollouts)
    monkeypatch.setattr(engine, "pack", see_rows)
    return seen
