"""No training: the pass rate of a model as it is."""

from typing import TYPE_CHECKING, ClassVar, Literal

from atlas.errors import SpecError
from atlas.methods.base import Method

if TYPE_CHECKING:
    from atlas.job import JobSpec
    from atlas.run import Run


class Evaluate(Method):
    """Measures `student` as it is, on dev and on test (`evaluation.split: dev`) or on test alone: a baseline, or the
    teacher on the same problems."""

    type: Literal["evaluate"] = "evaluate"
    trains: ClassVar[bool] = False

    def check(self, job: "JobSpec") -> None:
        super().check(job)
        for field in ("every_steps", "every_minutes"):
            if getattr(job.evaluation, field) is not None:
                raise SpecError(
                    "there are no steps to measure between, so it would be ignored; remove it", f"evaluation.{field}"
                )

    def train(self, run: "Run") -> None:
        from atlas.training.evaluation import evaluate_only

        evaluate_only(run)
