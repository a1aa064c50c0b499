"""Supervised fine-tuning: next-token cross-entropy on the dataset's worked solutions."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from atlas.methods.base import Method

if TYPE_CHECKING:
    from atlas.run import Run


class Sft(Method):
    """Supervised fine-tuning on the dataset's worked solutions; the prompt is not in the loss."""

    type: Literal["sft"] = "sft"

    @property
    def needs_solutions(self) -> bool:
        return True

    def train(self, run: "Run") -> Path:
        from atlas.training.sft import train

        return train(run, self)
