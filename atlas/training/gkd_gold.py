"""The baselines of distillation across tokenizers: TRL's losses in place of ours, and nothing else.

S tokens of the student and T of the teacher in a micro-batch, D size of a hidden state, V token ids of a side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch.utils.checkpoint import checkpoint

from atlas.datasets.base import Example
from atlas.methods.gkd import Gkd
from atlas.run import Run
from atlas.training.alignment.align import Alignment
from atlas.training.distributions import entropy, log_softmax
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

    TRL takes the mean over a micro-batch of what is a mean over each completion; so this is what TRL computes of a
    whole step at once, and no number depends on the micro-batch. Probabilities are over the tokenizers' ids, as
    everywhere in Atlas. The figures of our alignment are measured on the same completions.
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
        self.readings: list[tuple[Reading, Reading] | None] = []

    def score(self, examples: Sequence[Example], rollouts: Sequence[Rollout]) -> Mapping[str, float]:
        with self.phase("align"):
            self.readings = [self.gold_loss.readings(rollout.completion_ids) for rollout in rollouts]
        unread = self.readings.count(None)
        if unread:
            message = f"step {self.state.global_step + 1}: TRL finds no byte offsets for {unread} completions"
            self.run.event("alignment", f"{message}, and they are not learnt from")
        return super().score(examples, rollouts)

    def terms(self, rollouts: Sequence[Rollout], row: int) -> int:
        return 1 if self.alignment.teacher_ids[row] else 0

    def packed_loss(self, packed: Packed, rows: Sequence[int]) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        teacher_rows = [(self.prompts_at_hand[row], self.alignment.teacher_ids[row]) for row in rows]
        with self.phase("teacher"):
            teacher_hidden_TD = frozen_hidden_states(self.teacher.model, pack(teacher_rows, self.args.device))
        hidden_SD, head = hidden_states(self.student, packed), head_of(self.student, self.vocabulary)
        of_row = zip(
            rows,
            hidden_SD.split([len(self.at_hand[row].completion_ids) for row in rows]),
            teacher_hidden_TD.split([len(ids) for _, ids in teacher_rows]),
            strict=True,
        )
        # Computed again for the gradient, so that the logits of one completion are there at a time.
        results = [checkpoint(self._of_completion, head, *each, use_reentrant=False) for each in of_row]
        loss, entropy_sum, nats = (torch.stack(each).sum() for each in zip(*results, strict=True))
        return loss, {"entropy": entropy_sum, "nats_student": nats}

    def _of_completion(
        self, head: Head, row: int, hidden_SD: torch.Tensor, teacher_hidden_TD: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The loss of a rollout of the step; the student's mean entropy; and the nats of its tokens in a chunk."""
        readings = self.readings[row]
        assert readings is not None, "not learnt from"
        logits_SV = head.logits(hidden_SD)
        with torch.no_grad():
            teacher_logits_TV = self.teacher.head.logits(teacher_hidden_TD)
        loss = self.gold_loss(*readings, logits_SV, teacher_logits_TV)
        with torch.no_grad():
            logprobs_SV = log_softmax(logits_SV)
            chunk_S = torch.from_numpy(self.alignment.student_chunk[row]).to(logits_SV.device)
            ids_S = torch.tensor(readings[0].ids, device=logits_SV.device)
            nats = -logprobs_SV.gather(1, ids_S[:, None])[chunk_S >= 0].sum()
            return loss, entropy(logprobs_SV) / len(ids_S), nats

    def _within_context(self, alignment: Alignment) -> Alignment:
        """The teacher reads TRL's tokens of the text instead of ours, and nothing of what has none."""
        read = [[] if both is None else both[1].ids for both in self.readings]
        return super()._within_context(replace(alignment, teacher_ids=read))

    def _keep_chunks(self) -> None:
        """TRL's losses are none of our chunks'."""
