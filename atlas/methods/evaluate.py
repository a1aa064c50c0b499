"""No training: the pass rate of a model as it is."""

from typing import TYPE_CHECKING, ClassVar, Literal

from atlas.methods.base import Method

if TYPE_CHECKING:
    from atlas.run import Run


class Evaluate(Method):
    """Measures `student` on the held-out split: a baseline, or the teacher on the same problems."""

    type: Literal["evaluate"] = "evaluate"
    trains: ClassVar[bool] = False

    def train(self, run: "Run") -> None:
        from atlas.training.evaluation import evaluate_only

        evaluate_only(run)
