"""Makes the tiny models of the quickstart again: python specs/quickstart/make_models.py (about 20 minutes on 2 cores).

`tiny/` is a config and a character-level tokenizer; `teacher/` and `student/` are that model trained by
make_teacher.yaml and make_student.yaml, stored in float16.
"""

import json
import subprocess
import sys
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast

HERE = Path(__file__).parent
PAD, END, USER, ASSISTANT = "<pad>", "</s>", "<|user|>", "<|assistant|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}{{ message.content + '</s>' }}"
    "{% else %}{{ '<|user|>' + message.content }}{% endif %}"
    "{% if message.role == 'user' %}{{ '<|assistant|>' if add_generation_prompt or not loop.last }}{% endif %}"
    "{% endfor %}"
)


def character_tokenizer() -> PreTrainedTokenizerFast:
    """One token per printable ASCII character, and the four special tokens."""
    characters = ["\n", *map(chr, range(32, 127))]
    vocabulary = {token: number for number, token in enumerate([PAD, END, USER, ASSISTANT, *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        clean_up_tokenization_spaces=False,
        model_max_length=256,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def write_tiny(folder: Path) -> None:
    """A Llama of 0.87 M parameters, without weights."""
    tokenizer = character_tokenizer()
    tokenizer.save_pretrained(folder)
    LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    ).save_pretrained(folder)


def train_and_ship(role: str) -> None:
    """Runs make_<role>.yaml and stores its final checkpoint in float16 under <role>/."""
    command = [sys.executable, "-m", "atlas", "submit", str(HERE / f"make_{role}.yaml"), "--force", "--json"]
    run = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)[0]
    final = Path(run["run_dir"]) / "checkpoints" / "final"
    AutoModelForCausalLM.from_pretrained(final, dtype=torch.float16).save_pretrained(HERE / role)
    AutoTokenizer.from_pretrained(final).save_pretrained(HERE / role)


if __name__ == "__main__":
    write_tiny(HERE / "tiny")
    for role in ("teacher", "student"):
        train_and_ship(role)
