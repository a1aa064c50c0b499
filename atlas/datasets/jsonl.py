"""Your own problems in a JSON Lines file."""

from typing import Literal

from atlas.datasets.base import Dataset, Splits
from atlas.spec import LocalPath


class Jsonl(Dataset):
    """Your own problems, one JSON object a line: `prompt` or `messages`, and `answer`."""

    type: Literal["jsonl"] = "jsonl"
    path: LocalPath
    """The file."""

    def check(self) -> None:
        raise NotImplementedError

    def load(self) -> Splits:
        raise NotImplementedError
