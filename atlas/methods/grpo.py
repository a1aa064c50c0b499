"""Group relative policy optimization with a binary answer reward."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from atlas.errors import SpecError
from atlas.methods.base import Method
from atlas.spec import Spec

if TYPE_CHECKING:
    from atlas.job import JobSpec
    from atlas.run import Run


class RewardWeights(Spec):
    """The reward of a completion is the weighted sum of these, each in [0, 1]; `train/rewards/*` shows them apart."""

    answer: float = Field(1.0, ge=0)
    """1 for a right answer by the dataset's own grader, else 0."""
    format: float = Field(0.0, ge=0)
    """1 if any answer can be read out of the completion, right or wrong, else 0."""
    random: float = Field(0.0, ge=0)
    """1 with probability 1/2, whatever the completion: a control, by which Qwen2.5 models gain (arXiv:2506.10947)."""

    @model_validator(mode="after")
    def _rewards_something(self) -> "RewardWeights":
        if not any(vars(self).values()):
            raise ValueError("every weight is 0, so no completion is better than another; set answer above 0")
        return self


class Grpo(Method):
    """GRPO (arXiv:2402.03300): by default the reward is the dataset's own grader, 1 for a right answer, else 0. No
    teacher.

    The loss is averaged over all completion tokens of a step (DAPO, arXiv:2503.14476, eq. 8).
    """

    type: Literal["grpo"] = "grpo"
    samples_rollouts: ClassVar[bool] = True

    num_generations: int = Field(8, ge=2)
    """Completions per prompt, G. A group whose rewards are all equal teaches nothing."""
    rewards: RewardWeights = RewardWeights()
    """What is rewarded, and by how much."""
    beta: float = Field(0.0, ge=0)
    """Weight of the KL penalty against the initial student. 0 keeps no reference model in memory."""
    epsilon: float = Field(0.2, gt=0, lt=1)
    """The probability ratio to when the token was written is clipped to 1 - epsilon from below."""
    epsilon_high: float | None = Field(None, gt=0)
    """And to 1 + epsilon_high from above. Default: epsilon."""
    mask_truncated_completions: bool = False
    """Leave completions that were cut at the length limit out of the loss; their rewards still count in the group."""
    zero_variance_groups: Literal["count", "drop"] = "count"
    """Groups whose rewards are all equal have no gradient. `count`: their tokens are part of the mean all the same, so
    that a step with little signal is a small one. `drop`: the mean is over the tokens of the others."""
    scale_rewards: bool = False
    """Divide advantages by the group's standard deviation; off as in Dr. GRPO (arXiv:2503.20783)."""

    def check(self, job: "JobSpec") -> None:
        super().check(job)
        assert job.training is not None
        if job.training.batch_size % self.num_generations:
            raise SpecError(
                f"batch_size counts rollouts and must be a multiple of num_generations ({self.num_generations}), "
                f"got {job.training.batch_size}",
                "training.batch_size",
            )

    @property
    def needs_answers(self) -> bool:
        return self.rewards.answer > 0

    def prompts_per_step(self, batch_size: int) -> int:
        return batch_size // self.num_generations

    def train(self, run: "Run") -> Path:
        from atlas.training.grpo import train

        return train(run, self)
