"""Distillation and outcome reward in one advantage.

N predicted tokens of a micro-batch, C of them in a chunk.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from atlas.methods.gkd_reward import GkdReward
from atlas.run import Run
from atlas.training.engine import require_ours
from atlas.training.grpo import Advantages, GrpoTrainer, check
from atlas.training.loop import Prepared, fit, prepare
from atlas.training.packing import Packed
from atlas.training.rollouts import Rollout
from atlas.training.teacher import Teacher, load_teacher, require_same_tokenizer


def train(run: Run, method: GkdReward) -> Path:
    """Runs the job and returns the directory of the trained model. See `loop.fit` for what is raised."""
    prepared = prepare(run)
    check(run, prepared)
    teacher = load_teacher(run, prepared)
    require_same_tokenizer(teacher)
    trainer = GkdRewardTrainer(run, prepared, method, teacher)
    return fit(run, trainer, prepared, teacher)


class GkdRewardTrainer(GrpoTrainer):
    """The advantage of a token is its group's and distillation_weight x (log teacher - log student), both at the
    sampling temperature."""

    def __init__(self, run: Run, prepared: Prepared, method: GkdReward, teacher: Teacher) -> None:
        super().__init__(run, prepared, method)
        require_ours(teacher.model, self.vocabulary, "teacher")
        self.weight, self.teacher = method.distillation_weight, teacher

    def learnt_from(self, rollouts: Sequence[Rollout]) -> list[int]:
        return self.counted(rollouts)

    def advantages(self, packed: Packed, rows: Sequence[int]) -> Advantages:
        of_group = super().advantages(packed, rows)
        with self.phase("teacher"), torch.no_grad():
            teacher_N = self.logprobs(self.teacher.model, packed)

        def advantages(logprobs_C: torch.Tensor, which: slice) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            outcome_C, reported = of_group(logprobs_C, which)
            teacher_C = teacher_N[which] - logprobs_C
            return outcome_C + self.weight * teacher_C, reported | {"reverse_kl": -teacher_C.sum()}

        return advantages
