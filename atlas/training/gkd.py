"""On-policy distillation: the student writes, the teacher scores every token.

N predicted tokens of a micro-batch, C of them in a chunk, V token ids.
"""

import random
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from atlas.datasets.base import Example
from atlas.errors import RunFailed
from atlas.methods.gkd import Gkd
from atlas.run import Run
from atlas.training.distributions import entropy, log_softmax, sampled_logprobs
from atlas.training.divergence import divergence, top_k_divergence
from atlas.training.engine import OnPolicyTrainer, frozen_hidden_states, require_ours
from atlas.training.head import Head
from atlas.training.linear_loss import ChunkLoss
from atlas.training.loop import Prepared, fit, prepare
from atlas.training.packing import Packed
from atlas.training.prompts import check_lengths, encode_solution
from atlas.training.rollouts import Rollout
from atlas.training.teacher import Teacher, load_teacher


def train(run: Run, method: Gkd) -> Path:
    """Runs the job and returns the directory of the trained model. See `loop.fit` for what is raised."""
    prepared = prepare(run)
    teacher = load_teacher(run, prepared)
    job, tokenizer, examples = run.job, prepared.tokenizer, prepared.examples
    assert job.training is not None and job.sampling is not None
    check_lengths(prepared.student, tokenizer, examples, [job.sampling.max_completion_length] * len(examples))
    if method.needs_solutions:
        solutions = [len(encode_solution(tokenizer, example)) for example in examples]
        check_lengths(prepared.student, tokenizer, examples, solutions)
    trainer = _trainer(teacher, method)(run, prepared, method, teacher)
    return fit(run, trainer, prepared, teacher)


def _trainer(teacher: Teacher, method: Gkd) -> "type[GkdTrainer]":
    """Raises RunFailed(`bad_model`) for a setting that would be ignored."""
    if teacher.difference is not None and method.top_k is not None:
        raise RunFailed(
            "bad_model",
            "method.top_k is for a student and a teacher that tokenize alike, and these do not "
            f"({teacher.difference}), so it would be ignored; remove it",
        )
    if teacher.difference is not None and method.alignment == "push_forward":
        from atlas.training.gkd_aligned import AlignedGkdTrainer  # builds on the trainer below

        return AlignedGkdTrainer
    if teacher.difference is not None:
        from atlas.training.gkd_gold import GoldTrainer

        return GoldTrainer
    if method.alignment != "push_forward":
        raise RunFailed(
            "bad_model",
            f"method.alignment {method.alignment} is for a student and a teacher that tokenize differently, and these "
            "tokenize alike, so it would be ignored; remove it",
        )
    return GkdTrainer


class GkdTrainer(OnPolicyTrainer):
    """With probability 1 - lmbda, a whole step learns from the dataset's solutions instead of rollouts.

    arXiv:2306.13649, algorithm 1. The coin depends on seed and step alone, so that a resumed run throws the same.
    """

    def __init__(self, run: Run, prepared: Prepared, method: Gkd, teacher: Teacher) -> None:
        assert run.job.training is not None
        super().__init__(run, prepared, run.job.training.batch_size, num_generations=1)
        require_ours(teacher.model, teacher.vocabulary, "teacher")
        self.method, self.teacher = method, teacher

    def on_policy(self, step: int) -> bool:
        """Whether the step after `step` learns from rollouts."""
        return random.Random(f"{self.args.seed} {step}").random() < self.method.lmbda

    def rollouts(self, prompts: Sequence[int]) -> list[Rollout]:
        if self.on_policy(self.state.global_step):
            return super().rollouts(prompts)
        if self.method.seq_kd:
            with self.phase("teacher"):
                return self.written_by_teacher(prompts)
        solutions = [(self.prompts[i], encode_solution(self.tokenizer, self.examples[i])) for i in prompts]
        return [Rollout(prompt, solution, [], clipped=False) for prompt, solution in solutions]

    def written_by_teacher(self, prompts: Sequence[int]) -> list[Rollout]:
        """The teacher's own completions of these examples, in the student's tokens."""
        return self.written_by(self.teacher.writer(self.prompts), prompts)

    def score(self, examples: Sequence[Example], rollouts: Sequence[Rollout]) -> Mapping[str, float]:
        return {"on_policy": float(self.on_policy(self.state.global_step))} if self.method.lmbda < 1 else {}

    def token_loss(self, packed: Packed, rows: Sequence[int]) -> ChunkLoss:
        """The divergence at every token; reports the student's entropy and, on its own rollouts, the reverse KL to the
        teacher, both at temperature 1."""
        on_policy = self.on_policy(self.state.global_step)
        with self.phase("teacher"):
            teacher_ND = frozen_hidden_states(self.teacher.model, packed)
        head, temperature = self.teacher.head, self.method.temperature
        if self.method.loss == "policy_gradient":
            return self._policy_gradient(packed, teacher_ND, head)
        measure = divergence if self.method.top_k is None else partial(top_k_divergence, spec=self.method.top_k)

        def loss(logits_CV: torch.Tensor, which: slice) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            with torch.no_grad():
                teacher_logits_CV = head.logits(teacher_ND[which])
                teacher_CV = log_softmax(teacher_logits_CV, temperature)
            student_CV = log_softmax(logits_CV, temperature)
            divergence_C = measure(student_CV, teacher_CV, self.method.beta)
            with torch.no_grad():
                plain_CV = student_CV if temperature == 1 else log_softmax(logits_CV)
                reported = {"entropy": entropy(plain_CV)}
                if on_policy:
                    plain_teacher_CV = teacher_CV if temperature == 1 else log_softmax(teacher_logits_CV)
                    reported["reverse_kl"] = divergence(plain_CV, plain_teacher_CV, beta=1).sum()
            return divergence_C.sum(), reported

        return loss

    def _policy_gradient(self, packed: Packed, teacher_ND: torch.Tensor, head: Head) -> ChunkLoss:
        """-r A with A = log teacher - log student of the token that was written, at temperature 1, and r its
        probability over what it is now: the gradient of the reverse KL, estimated from one sample."""

        def loss(logits_CV: torch.Tensor, which: slice) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            targets_C = packed.target_ids_N[which]
            logprobs_C = sampled_logprobs(logits_CV, targets_C)
            with torch.no_grad():
                advantages_C = sampled_logprobs(head.logits(teacher_ND[which]), targets_C) - logprobs_C
            loss_C = -(logprobs_C - logprobs_C.detach()).exp() * advantages_C
            plain_CV = log_softmax(logits_CV.detach())
            return loss_C.sum(), {"reverse_kl": -advantages_C.sum(), "entropy": entropy(plain_CV)}

        return loss
