"""Makes the tiny models of this experiment again: python specs/cross_tokenizer/make_models.py

`tiny/` is a config and a tokenizer that reads digits in groups of up to three; `student/` is that model trained by
make_student.yaml. `teacher/` is the quickstart's, which reads characters, trained on by make_teacher.yaml and then
given the bytes that are no character of its. Both are stored in float16.
"""

import json
import subprocess
import sys
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, PreTrainedModel, PreTrainedTokenizerFast

from atlas.job import load

HERE = Path(__file__).parent
BEGIN, PAD, TURN, END = "<|begin|>", "<|pad|>", "<|turn|>", "<|end|>"
CHAT_TEMPLATE = (
    "<|begin|>{% for message in messages %}"
    "{{ '<|turn|>' + message.role + '\n' + message.content + '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|turn|>assistant\n' }}{% endif %}"
)
SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|[^\s\p{L}\p{N}]+|\s"
"""As Llama 3 splits text: words with the space before them, digits in threes from the left."""
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def digit_grouping_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE, learnt on the problems and solutions that the student is trained on."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(SPLIT), "isolated"), BYTES])
    tokenizer.decoder = decoders.ByteLevel()
    examples = load(HERE / "make_student.yaml").dataset.load().train
    texts = [f"user\n{example.messages[-1]['content']}\nassistant\n{example.solution}" for example in examples]
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        min_frequency=10,
        special_tokens=[BEGIN, PAD, TURN, END],
        initial_alphabet=BYTES.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[TURN],
        clean_up_tokenization_spaces=False,
        model_max_length=128,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def write_tiny(folder: Path) -> None:
    """A Llama of 0.93 M parameters, without weights."""
    tokenizer = digit_grouping_tokenizer()
    tokenizer.save_pretrained(folder)
    LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    ).save_pretrained(folder)


def trained(role: str) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Runs make_<role>.yaml; its final checkpoint in float16."""
    command = [sys.executable, "-m", "atlas", "submit", str(HERE / f"make_{role}.yaml"), "--force", "--json"]
    run = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)[0]
    final = Path(run["run_dir"]) / "checkpoints" / "final"
    return AutoModelForCausalLM.from_pretrained(final, dtype=torch.float16), AutoTokenizer.from_pretrained(final)


def bytewise(characters: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The same ids for the same characters, and one more for every other byte: GOLD wants a byte-level tokenizer."""
    special = set(characters.all_special_tokens)
    ordered = sorted(characters.get_vocab(), key=characters.get_vocab().get)
    tokens = [token if token in special else BYTES.pre_tokenize_str(token)[0][0] for token in ordered]
    tokens += sorted(set(BYTES.alphabet()) - set(tokens))
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = BYTES, decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=characters.eos_token,
        pad_token=characters.pad_token,
        additional_special_tokens=sorted(special - {characters.eos_token, characters.pad_token}),
        clean_up_tokenization_spaces=False,
        model_max_length=characters.model_max_length,
    )
    fast.chat_template = characters.chat_template
    return fast


def widen(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, like: str) -> None:
    """Makes every new token of `tokenizer` exactly as likely as `like`, one that the model has."""
    known = model.config.vocab_size
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    rows = model.get_input_embeddings().weight.data
    rows[known:] = rows[tokenizer.convert_tokens_to_ids(like)]


def ship(role: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    model.save_pretrained(HERE / role)
    tokenizer.save_pretrained(HERE / role)


if __name__ == "__main__":
    write_tiny(HERE / "tiny")
    ship("student", *trained("student"))
    teacher, characters = trained("teacher")
    tokenizer = bytewise(characters)
    widen(teacher, tokenizer, like="~")  # which no problem and no solution has
    ship("teacher", teacher, tokenizer)
