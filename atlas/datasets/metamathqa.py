"""MetaMathQA (arXiv:2309.12284): augmented mathematics problems with worked solutions."""

from typing import Literal

from atlas.datasets.base import Dataset, Splits
from atlas.spec import LocalPath


class MetaMathQA(Dataset):
    """MetaMathQA (arXiv:2309.12284): augmented mathematics problems with worked solutions."""

    type: Literal["metamathqa"] = "metamathqa"
    path: LocalPath | None = None
    """Local file or directory to read instead of the hub."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""

    def check(self) -> None:
        raise NotImplementedError

    def load(self) -> Splits:
        raise NotImplementedError
