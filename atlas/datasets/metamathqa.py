"""MetaMathQA (arXiv:2309.12284): augmented mathematics problems with worked solutions."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from atlas.datasets.base import Dataset, Example, Splits
from atlas.datasets.files import Row, only_file, read_rows
from atlas.datasets.hub import HubDataset, read_hub
from atlas.datasets.rows import BadRow, identity, read_examples, text
from atlas.datasets.splits import split
from atlas.spec import LocalPath

HUB_NAME = "meta-math/MetaMathQA"
ANSWER_MARK = "The answer is:"
TOLERATED_SHARE = 0.02
"""Share of unusable rows that are left out with a warning: the data were written by a model, not by the user."""


class MetaMathQA(HubDataset):
    """MetaMathQA (arXiv:2309.12284): GSM8K and MATH questions, reworded and reversed, with worked solutions.

    Columns `query`, `response` (ends with `The answer is: X`) and `original_question`, by which rows are split.
    """

    type: Literal["metamathqa"] = "metamathqa"
    path: LocalPath | None = None
    """Local file (.json, .jsonl, .parquet), or directory holding one, to read instead of the hub."""

    def load(self) -> Splits:
        if self.path is None:
            return split(metamath_examples(read_hub(HUB_NAME, "train", self.revision), self, HUB_NAME), self)
        file = only_file(Path(self.path))
        return split(metamath_examples(read_rows(file), self, file.name), self)


def metamath_examples(rows: Iterable[Row], dataset: Dataset, source: str) -> list[Example]:
    """The examples in rows of MetaMathQA's schema. Raises SpecError as `read_examples` does."""

    def example(row: Row) -> Example:
        query, response, original = (text(row, column) for column in ("query", "response", "original_question"))
        _, mark, answer = response.rpartition(ANSWER_MARK)
        if not mark or not answer.strip():
            raise BadRow(f"response: expected '{ANSWER_MARK} X' at its end, got {response[-60:]!r}")
        return Example(
            id=identity(query, response, original),
            group=original,
            messages=dataset.prompt([{"role": "user", "content": query}]),
            answer=answer.strip(),
            solution=response,
        )

    return read_examples(rows, example, source, TOLERATED_SHARE)
