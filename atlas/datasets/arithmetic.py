"""Generated word problems, so that everything can be tried without a download."""

from typing import Literal

from atlas.datasets.base import Dataset, Splits


class Arithmetic(Dataset):
    """Generated word problems with worked solutions, in MetaMathQA's schema. The same seed gives the same problems."""

    type: Literal["arithmetic"] = "arithmetic"

    def check(self) -> None:
        raise NotImplementedError

    def load(self) -> Splits:
        raise NotImplementedError
