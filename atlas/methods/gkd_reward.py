"""Distillation and outcome reward in one advantage."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from atlas.methods.grpo import Grpo

if TYPE_CHECKING:
    from atlas.run import Run


class GkdReward(Grpo):
    """GRPO whose advantage at every token is the outcome's plus the teacher's word on that token:
    A = (reward - mean of the group) + distillation_weight x (log teacher - log student).

    With rewards that never differ it is gkd with `loss: policy_gradient`; with weight 0 it is grpo. The sparse reward
    says which completions were right, the dense one where (compare arXiv:2605.12483, which does the one after the
    other).
    """

    type: Literal["gkd_reward"] = "gkd_reward"  # type: ignore[assignment]
    needs_teacher: ClassVar[bool] = True

    distillation_weight: float = Field(1.0, gt=0)
    """Weight of the teacher's advantage, in nats, against the reward's."""

    def train(self, run: "Run") -> Path:
        from atlas.training.gkd_reward import train

        return train(run, self)
