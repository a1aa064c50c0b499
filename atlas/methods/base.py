"""What a method of learning is."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from atlas.errors import SpecError
from atlas.spec import Spec

if TYPE_CHECKING:
    from atlas.job import JobSpec
    from atlas.run import Run


class Method(Spec, ABC):
    """A way of learning. The fields are its hyperparameters; the class is the algorithm.

    A subclass lives in its own file, has a literal `type`, and imports `atlas.training` only inside `train`.
    """

    needs_teacher: ClassVar[bool] = False
    """Whether the method learns from a teacher."""
    aligns_tokenizers: ClassVar[bool] = False
    """Whether student and teacher may tokenize differently."""
    trains: ClassVar[bool] = True
    """Whether the method changes the student's weights."""
    samples_rollouts: ClassVar[bool] = False
    """Whether the student writes completions during training."""

    def check(self, job: "JobSpec") -> None:
        """Raises SpecError if this job cannot work or says something that would be ignored."""
        name = self.type  # type: ignore[attr-defined]
        if self.needs_teacher and job.teacher is None:
            raise SpecError(f"method {name} learns from a teacher; add `teacher: {{model: ...}}`", "teacher")
        if not self.needs_teacher and job.teacher is not None:
            raise SpecError(f"method {name} has no use for a teacher, so it would be ignored; remove it", "teacher")
        if self.trains and job.training is None:
            raise SpecError(f"method {name} trains; add `training: {{max_steps: ...}}`", "training")
        if not self.trains and job.training is not None:
            raise SpecError(f"method {name} does not train, so this would be ignored; remove it", "training")
        if not self.samples_rollouts and job.sampling is not None:
            raise SpecError(f"method {name} samples no rollouts, so this would be ignored; remove it", "sampling")

        if not self.trains and job.budget is not None:
            raise SpecError(f"method {name} does not train, so this would be ignored; remove it", "budget")
        if not self.samples_rollouts and job.budget is not None and job.budget.rollouts is not None:
            raise SpecError(
                f"method {name} samples no rollouts, so this would be ignored; remove it", "budget.rollouts"
            )

    @property
    def needs_solutions(self) -> bool:
        """Whether the method imitates the dataset's worked solutions."""
        return False

    @property
    def needs_answers(self) -> bool:
        """Whether the method rewards right answers."""
        return False

    def prompts_per_step(self, batch_size: int) -> int:
        """Problems of the training split that one optimizer step takes."""
        return batch_size

    @abstractmethod
    def train(self, run: "Run") -> Path | None:
        """Runs the job inside the worker. Returns the final checkpoint, or None if nothing was trained."""
