"""`atlas tokenizers`: what two tokenizers have in common, and what distillation between them would align."""

import json
import logging
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atlas.cli.options import Json
from atlas.errors import RunFailed, UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from atlas.spec import ModelSpec
    from atlas.training.alignment.byte_table import ByteTable
    from atlas.training.alignment.encoding import Encoder

_NUMBERS = ("7", "42", "125", "1234", "2024-11-22", "3.14")
_SHOWN = 5
"""Examples of tokens."""
_SAMPLE = (
    "The committee's report, published on 3 May 2021, found that 1,250 of the 4,000 households "
    "hadn't been counted; nobody could say why. “We'll look into it,” the mayor promised.",
    "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nNatalia sold 48+24 = <<48+24=72>>72 clips altogether.\n#### 72",
    "If $x^2 - 5x + 6 = 0$ then $x = \\frac{5 \\pm \\sqrt{25 - 24}}{2}$, so $x \\in \\{2, 3\\}$ and the "
    "sum is \\boxed{5}. Note that ∫₀¹ x² dx = 1/3 ≈ 0.333.",
    'def mean(values: list[float]) -> float:\n    """Of nothing it is 0."""\n    if not '
    "values:\n        return 0.0\n    return sum(values) / len(values)  # 1e-9 off at most\n",
    "for (int i = 0; i < n; ++i) {\n\tif (a[i] != 0x1F) count++;\n}\n",
    "Die Straße ist 12,5 km lang. ¿Cuánto cuesta? L'été dernier, naïve cafés.",
    "小明有12个苹果，他给了小红5个。東京は日本の首都です。한국어도 있다.",
    "Москва — столица России. مرحبا بالعالم. नमस्ते दुनिया. 👩\u200d🔬 🚀",
)
"""English, mathematics, code and other scripts, for a first look; one's own text says more."""
_OF_SAMPLE = "a built-in sample of English, mathematics, code and other scripts; --text FILE takes your own"

_Model = Annotated[str, typer.Argument(help="A directory (./, ../, / or ~) or a hub id.", show_default=False)]


def tokenizers(
    student: _Model,
    teacher: _Model,
    text: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="UTF-8 text to align, blank lines between texts. Default: a small sample."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what two tokenizers share, and what distillation across them would align."""
    texts = _SAMPLE if text is None else _texts(text)
    compared = _compared(student, teacher, texts) | {"source": None if text is None else str(text)}
    if as_json:
        typer.echo(json.dumps(compared, indent=2))
    else:
        _show(compared)


def _texts(file: Path) -> Sequence[str]:
    try:
        texts = re.split(r"(?:[ \t]*\r?\n){2,}", file.read_bytes().decode("utf-8-sig").strip())
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not valid UTF-8 at byte {error.start}; save it as UTF-8 text") from error
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}; expected a text file") from error
    if texts == [""]:
        raise UsageError(f"{file} is empty; expected text to align")
    return texts


def _compared(student: str, teacher: str, texts: Sequence[str]) -> dict[str, Any]:
    """All that is shown, as JSON. Shares are of 1."""
    for noisy in ("torchao", "torch.utils._pytree"):  # transformers imports them, and they speak of GPU kernels
        logging.getLogger(noisy).setLevel(logging.ERROR)
    from atlas.store import home_from_environment
    from atlas.training import load
    from atlas.training.alignment.align import Aligner
    from atlas.training.alignment.byte_table import byte_table
    from atlas.training.alignment.encoding import Encoder
    from atlas.training.alignment.vocabulary import vocabulary_map

    cache = home_from_environment() / "cache"
    try:
        specs = _spec(student, "STUDENT"), _spec(teacher, "TEACHER")
        pair = [load.load_tokenizer(spec, cache) for spec in specs]
        tables = [byte_table(tokenizer) for tokenizer in pair]
    except RunFailed as error:
        raise UsageError(str(error)) from error
    encoders = [Encoder(tokenizer, table) for tokenizer, table in zip(pair, tables, strict=True)]
    vocabulary = vocabulary_map(pair[0], pair[1], tables[0], tables[1], cache)

    text_bytes = [text.encode() for text in texts]
    written = encoders[0](text_bytes)
    alignment = Aligner(tables[0], tables[1], pair[0], pair[1])(written)
    chunks = sum(map(len, alignment.canonical))
    sides = {}
    for this, other, role, rows in ((0, 1, "student", written), (1, 0, "teacher", alignment.teacher_ids)):
        tokens = sum(map(len, rows))
        sides[role] = _of_tokenizer(pair[this], tables[this], encoders[this]) | {
            "overlap_bytes": vocabulary.figures[f"vocab_overlap_bytes_{role}"],
            "overlap_strings": vocabulary.figures[f"vocab_overlap_strings_{role}"],
            "other_cannot_write": _unwritten(tables[this], tables[other], encoders[other]),
            "text_tokens": tokens,
            "shared_boundaries": chunks / tokens if tokens else 1.0,
            "tokens_per_chunk": alignment.figures[f"chunk_len_{role}"],
        }
    return {
        "student": {"model": student} | sides["student"],
        "teacher": {"model": teacher} | sides["teacher"],
        "difference": load.tokenizer_difference(*pair),
        "roots": vocabulary.roots,
        "digits_differ": vocabulary.digits_differ,
        "texts": len(texts),
        "bytes": sum(map(len, text_bytes)),
        "bytes_written": sum(int(tables[0].lengths[row].sum()) for row in written),
        "chunks": chunks,
        "one_to_one": alignment.figures["one_to_one"],
        "coverage": alignment.figures["coverage"],
    }


def _spec(model: str, role: str) -> "ModelSpec":
    from pydantic import ValidationError

    from atlas.spec import ModelSpec

    try:
        return ModelSpec(model=model)
    except ValidationError as error:
        raise UsageError(f"{role}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error


def _of_tokenizer(tokenizer: "PreTrainedTokenizerBase", table: "ByteTable", encode: "Encoder") -> dict[str, Any]:
    """What one tokenizer does by itself."""
    end = [] if table.end_of_turn is None else [table.end_of_turn]
    single = encode([bytes([byte]) for byte in range(256)])
    return {
        "tokens": sum(token is not None for token in table.bytes_V),
        "numbers": {
            number: [_text(table.bytes_V[i]) for i in ids]
            for number, ids in zip(_NUMBERS, encode([number.encode() for number in _NUMBERS]), strict=True)
        },
        "turn_ends": tokenizer.convert_ids_to_tokens(end + sorted(table.eot - {*end})),
        "bytes_without_token": [byte for byte, ids in enumerate(single) if not ids],
    }


def _unwritten(own: "ByteTable", other: "ByteTable", encode: "Encoder") -> list[str]:
    """Tokens whose bytes the other tokenizer, whose table and encoder these are, has no tokens for."""
    theirs = {token for token in other.bytes_V if token}
    tokens = [token for token in own.bytes_V if token and token not in theirs]
    return [
        _text(token)
        for token, ids in zip(tokens, encode(tokens), strict=True)
        if int(other.lengths[ids].sum()) < len(token)
    ]


def _text(token: bytes | None) -> str:
    return (token or b"").decode("utf-8", "backslashreplace")


_ROWS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("tokens of text", lambda side: f"{side['tokens']:,}"),
    ("  both have, by bytes", lambda side: _percent(side["overlap_bytes"])),
    ("  both have, by strings", lambda side: _percent(side["overlap_strings"])),
    ("  the other cannot write", lambda side: _counted(side["other_cannot_write"])),
    ("bytes without a token", lambda side: _counted([f"0x{byte:02X}" for byte in side["bytes_without_token"]])),
    ("ends a turn", lambda side: " ".join(side["turn_ends"]) or "nothing"),
    *((number, lambda side, number=number: " | ".join(side["numbers"][number])) for number in _NUMBERS),
    ("tokens of the sample", lambda side: f"{side['text_tokens']:,}"),
    ("  boundaries both have", lambda side: _percent(side["shared_boundaries"])),
    ("  tokens of a chunk", lambda side: f"{side['tokens_per_chunk']:.3f}"),
)
"""Name and cell of a side."""


def _show(compared: Mapping[str, Any]) -> None:
    from rich.text import Text

    from atlas.cli.tables import console_for, named_table, printable

    table = named_table("", [name for name, _ in _ROWS])
    for role in ("student", "teacher"):
        table.add_column(Text(f"{role}\n{compared[role]['model']}"), overflow="fold")
    for name, cell in _ROWS:
        table.add_row(name, *(Text(printable(cell(compared[role]))) for role in ("student", "teacher")))
    console = console_for(sys.stdout)
    console.print(table)
    for line in _sentences(compared):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _sentences(compared: Mapping[str, Any]) -> Iterator[str]:
    size = f"{compared['texts']:,} texts of {compared['bytes']:,} bytes"
    yield f"The sample is {compared['source'] or _OF_SAMPLE}: {size}."
    if compared["difference"] is None:
        yield "They tokenize alike: gkd compares token by token, and nothing is aligned."
        return
    yield (
        f"Of {compared['chunks']:,} chunks {_percent(compared['one_to_one'])} are one token on both sides; "
        f"{_percent(compared['coverage'])} of the student's tokens are in a chunk. Both vocabularies have the same "
        f"{compared['roots']:,} roots."
    )
    if compared["digits_differ"]:
        yield "They split numbers differently: the loss closes every number, so that 1 and 12 are told apart."
    if compared["bytes_written"] < compared["bytes"]:
        share = _percent(compared["bytes_written"] / compared["bytes"])
        yield f"The student writes {share} of the sample's bytes: each text up to a byte that it has no token for."
    for side, consequence in (("student", "it never stops by itself"), ("teacher", "stopping is not learnt")):
        if not compared[side]["turn_ends"]:
            yield f"The {side} has no token that ends a turn: {consequence}."


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _counted(examples: Sequence[str]) -> str:
    """`21: 0xC0 0xC1 ...`"""
    if not examples:
        return "none"
    more = [] if len(examples) <= _SHOWN else ["..."]
    return f"{len(examples):,}: {' '.join([*examples[:_SHOWN], *more])}"
