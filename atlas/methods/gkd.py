"""On-policy distillation: the student writes, the teacher scores every token."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from atlas.methods.base import Method

if TYPE_CHECKING:
    from atlas.run import Run


class Gkd(Method):
    """Generalized knowledge distillation (arXiv:2306.13649), fully on-policy by default.

    The loss is the mean over completion tokens of the generalized Jensen-Shannon divergence (eq. 1) between the
    teacher's and the student's next-token distributions, on the student's own rollouts.
    """

    type: Literal["gkd"] = "gkd"
    needs_teacher: ClassVar[bool] = True
    samples_rollouts: ClassVar[bool] = True

    lmbda: float = Field(1.0, ge=0, le=1)
    """Share of batches on the student's own rollouts; the rest use the dataset's solutions."""
    beta: float = Field(1.0, ge=0, le=1)
    """The divergence: 0 is forward KL(teacher || student), 1 is reverse KL(student || teacher), between is JSD."""
    temperature: float = Field(1.0, gt=0, le=10)
    """Softmax temperature of both models inside the loss. (`sampling.temperature` is that of the rollouts.)"""

    @property
    def needs_solutions(self) -> bool:
        return self.lmbda < 1

    def train(self, run: "Run") -> Path:
        from atlas.training.gkd import train

        return train(run, self)
