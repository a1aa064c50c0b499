"""GSM8K (arXiv:2110.14168): grade-school mathematics."""

import re
from pathlib import Path
from typing import Literal

from atlas.datasets.base import Example, Splits
from atlas.datasets.files import SUFFIXES, Row, read_rows, reading, unusable
from atlas.datasets.hub import HubDataset, read_hub
from atlas.datasets.rows import BadRow, identity, read_examples, text
from atlas.datasets.splits import split
from atlas.spec import LocalPath

HUB_NAME = "openai/gsm8k"

_CALCULATION = re.compile(r"<<[^<>]*>>")
"""What the calculator of the paper was fed with: `<<48/2=24>>`."""


class Gsm8k(HubDataset):
    """GSM8K (arXiv:2110.14168): grade-school word problems; solutions end with `#### X`.

    Test problems come from the official test split, train and dev from the official train split.
    """

    type: Literal["gsm8k"] = "gsm8k"
    path: LocalPath | None = None
    """Local directory with train and test files (.jsonl, .json or .parquet) to read instead of the hub."""

    def load(self) -> Splits:
        return split(self._examples("train"), self, official_test=self._examples("test"))

    def _examples(self, part: str) -> list[Example]:
        if self.path is None:
            rows = read_hub(HUB_NAME, part, self.revision, config="main")
            return read_examples(rows, self._example, f"{HUB_NAME} {part}")
        return [
            example
            for file in _files(Path(self.path), part)
            for example in read_examples(read_rows(file), self._example, file.name)
        ]

    def _example(self, row: Row) -> Example:
        question, worked = text(row, "question"), text(row, "answer")
        solution = _CALCULATION.sub("", worked).strip()
        _, mark, answer = solution.rpartition("####")
        if not mark or not answer.strip():
            raise BadRow(f"answer: expected '#### X' at its end, got {worked[-60:]!r}")
        return Example(
            id=identity(question, worked),
            group=question,
            messages=self.prompt([{"role": "user", "content": question}]),
            answer=answer.strip().replace(",", ""),
            solution=solution,
        )


def _files(directory: Path, part: str) -> list[Path]:
    """`train.jsonl`, or the hub's own layout: `main/train-00000-of-00001.parquet`."""
    with reading(directory):
        if directory.is_file():
            raise unusable(directory, "is a file; expected the directory that holds the train and test files")
        names = sorted(file.name for file in directory.iterdir())
        whole = [directory / name for name in names if name in {part + suffix for suffix in SUFFIXES}]
        shards = sorted([*directory.glob(f"{part}-*.parquet"), *directory.glob(f"main/{part}-*.parquet")])
    if len(whole) + bool(shards) == 1:
        return whole or shards
    found = ", ".join(names) or "nothing"
    raise unusable(directory, f"expected one {part} file, such as {part}.jsonl; the directory holds: {found}")
