"""The baselines of distillation across tokenizers: TRL's losses in place of ours, and nothing else.

S tokens of the student and T of the teacher in a micro-batch, D size of a hidden state, V token ids of a side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from atlas.methods.gkd import Gkd
from atlas.run import Run
from atlas.training.aligned_loss import Result, aligned_loss
from atlas.training.alignment.aligned_rows import AlignedRows
from atlas.training.alignment.byte_table import ByteTable
from atlas.training.engine import frozen_hidden_states
from atlas.training.experimental import GoldLoss, Reading
from atlas.training.gkd_aligned import AlignedGkdTrainer
from atlas.training.head import Head, head_of, hidden_states
from atlas.training.loop import Prepared
from atlas.training.packing import Packed, pack
from atlas.training.rollouts import Rollout
from atlas.training.teacher import Teacher


class GoldTrainer(AlignedGkdTrainer):
    """The step's loss is the mean over its completions of `GoldLoss` of each.

    TRL takes the mean over a micro-batch of what is a mean within each completion; so this is what TRL computes of a
    whole step at once, and no number depends on the micro-batch. The teacher reads our lossless tokens of the bytes,
    and probabilities are over the tokenizers' ids, as everywhere in Atlas; which tokens face which, and what their
    distance is, are TRL's.

    What is reported, and kept in `alignment.jsonl`, is our divergence (at beta 1 and temperature 1) of the same step,
    measured off the training clock, so that it can be compared with a run that learns by it.
    """

    def __init__(self, run: Run, prepared: Prepared, method: Gkd, teacher: Teacher) -> None:
        super().__init__(run, prepared, method, teacher)
        self.gold_loss = GoldLoss(
            self.tokenizer,
            teacher.tokenizer,
            extended=method.alignment == "gold",
            beta=method.beta,
            temperature=method.temperature,
            device=self.args.device,
        )

    def terms(self, rollouts: Sequence[Rollout], row: int) -> int:
        return min(1, super().terms(rollouts, row))

    def means(self, sums: Mapping[str, float], terms: int) -> Mapping[str, float]:
        return super().means(sums, sum(len(self.alignment.canonical[row]) for row in self.learnt_from(self.at_hand)))

    def aligned_loss(self, packed: Packed, rows: Sequence[int]) -> Result:
        student_ids = [self.at_hand[row].completion_ids for row in rows]
        teacher_ids = [self._ended(self.alignment.teacher_ids[row]) for row in rows]
        teacher_rows = [(self.prompts_at_hand[row], ids) for row, ids in zip(rows, teacher_ids, strict=True)]
        with self.phase("teacher"):
            teacher_hidden_TD = frozen_hidden_states(self.teacher.model, pack(teacher_rows, self.args.device))
        with self.phase("forward_backward"):
            hidden_SD, head = hidden_states(self.student, packed), head_of(self.student, self.vocabulary)
            readings = [_reading(ids, self.student_table) for ids in student_ids]
            of_teacher = [_reading(ids, self.teacher_table) for ids in teacher_ids]
            each = zip(
                readings,
                of_teacher,
                hidden_SD.split([len(ids) for ids in student_ids]),
                teacher_hidden_TD.split([len(ids) for ids in teacher_ids]),
                strict=True,
            )
            # Computed again for the gradient, so that only one completion's logits are there at a time.
            losses = [checkpoint(self._of_completion, head, *one, use_reentrant=False) for one in each]
            total = torch.stack(losses).sum()
        with self.run.clock.phase("measure", training=False):
            reported, divergence_C = self._measured(rows, student_ids, teacher_ids, hidden_SD, head, teacher_hidden_TD)
        return total, reported, divergence_C

    def _of_completion(
        self,
        head: Head,
        student: Reading,
        teacher: Reading,
        hidden_SD: torch.Tensor,
        teacher_hidden_TD: torch.Tensor,
    ) -> torch.Tensor:
        with torch.no_grad():
            teacher_logits_TV = self.teacher.head.logits(teacher_hidden_TD)
        return self.gold_loss(student, teacher, head.logits(hidden_SD), teacher_logits_TV)

    def _measured(
        self,
        rows: Sequence[int],
        student_ids: Sequence[Sequence[int]],
        teacher_ids: Sequence[Sequence[int]],
        hidden_SD: torch.Tensor,
        head: Head,
        teacher_hidden_TD: torch.Tensor,
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        alignment = self.alignment
        chunks = [
            np.pad(alignment.teacher_chunk[row], (0, len(ids) - len(alignment.teacher_ids[row])), constant_values=-1)
            for row, ids in zip(rows, teacher_ids, strict=True)
        ]
        aligned = AlignedRows.of(
            student_ids,
            teacher_ids,
            [alignment.student_chunk[row] for row in rows],
            chunks,
            [alignment.canonical[row] for row in rows],
            [alignment.closes_number[row] for row in rows],
            self.args.device,
        )
        # Detached, or the gradient would be made although nobody asks for it.
        student = hidden_SD.detach(), replace(head, weight_VD=head.weight_VD.detach())
        both = (*student, teacher_hidden_TD, self.teacher.head, aligned, self.roots)
        _, sums, divergence_C = aligned_loss(*both, beta=1, temperature=1)
        # To the host, so that this phase and not the next waits for the device.
        return {name: value.cpu() for name, value in sums.items() if not name.startswith("loss/")}, divergence_C.cpu()

    def _ended(self, ids: list[int]) -> list[int]:
        """TRL ends every text of the teacher, and leaves its last token out."""
        end = self.teacher_table.end_of_turn
        return ids if end is None or ids[-1] in self.teacher_table.eot else [*ids, end]


def _reading(ids: Sequence[int], table: ByteTable) -> Reading:
    return Reading(ids, table.lengths[np.array(ids)].cumsum().tolist())
