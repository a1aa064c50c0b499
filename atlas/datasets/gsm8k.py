"""GSM8K (arXiv:2110.14168): grade-school mathematics."""

from typing import Literal

from atlas.datasets.base import Dataset, Splits
from atlas.spec import LocalPath


class Gsm8k(Dataset):
    """GSM8K (arXiv:2110.14168): grade-school mathematics."""

    type: Literal["gsm8k"] = "gsm8k"
    path: LocalPath | None = None
    """Local file or directory to read instead of the hub."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""

    def check(self) -> None:
        raise NotImplementedError

    def load(self) -> Splits:
        raise NotImplementedError
