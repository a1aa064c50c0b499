"""Group relative policy optimization.

N predicted tokens of a micro-batch, C of them in a chunk, V token ids; R rollouts of a step.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from atlas.datasets.base import Example
from atlas.methods.grpo import Grpo
from atlas.run import Run
from atlas.training import ranks
from atlas.training.distributions import entropy, log_softmax, sampled_logprobs, tempered
from atlas.training.engine import OnPolicyTrainer, frozen_hidden_states
from atlas.training.head import head_of
from atlas.training.linear_loss import ChunkLoss
from atlas.training.loop import Prepared, fit, prepare
from atlas.training.packing import Packed
from atlas.training.prompts import check_lengths
from atlas.training.rewards import reward_functions
from atlas.training.rollouts import Rollout

Advantages = Callable[[torch.Tensor, slice], tuple[torch.Tensor, dict[str, torch.Tensor]]]
"""(the student's logprobs_C without gradient, which of the N) -> (advantages_C, sums to report)."""
_EPSILON = 1e-4
"""Added to the spread of a group before dividing by it."""


def train(run: Run, method: Grpo) -> Path:
    """Runs the job and returns the directory of the trained model. See `loop.fit` for what is raised."""
    prepared = prepare(run)
    check(run, prepared)
    trainer = GrpoTrainer(run, prepared, method)
    return fit(run, trainer, prepared)


def check(run: Run, prepared: Prepared) -> None:
    """Raises RunFailed(`bad_data`) if a prompt and the longest rollout do not fit into the student's context."""
    assert run.job.sampling is not None
    lengths = [run.job.sampling.max_completion_length] * len(prepared.examples)
    check_lengths(prepared.student, prepared.tokenizer, prepared.examples, lengths)


class GrpoTrainer(OnPolicyTrainer):
    """The loss of a token is -min(r A, clip(r, 1 - epsilon, 1 + epsilon_high) A) + beta KL, averaged over the
    completion tokens of the step (arXiv:2402.03300, eq. 3; token mean as in arXiv:2503.14476, eq. 8).

    A is the reward less the mean of its group. r is the probability of the token over that at which it was written:
    each rollout is learnt from once, so it differs from 1 by rounding alone, and clipping is a guard against rollouts
    that were written in another precision. KL is (exp(d) - d - 1) r with d = log reference - log student: eq. 4 times
    r, without which its gradient would not be that of the KL. The reference is the student as it was loaded; with LoRA,
    without its adapters.
    """

    def __init__(self, run: Run, prepared: Prepared, method: Grpo) -> None:
        assert run.job.training is not None
        reference = copy.deepcopy(prepared.student) if method.beta and prepared.lora is None else None
        prompts_per_step = method.prompts_per_step(run.job.training.batch_size)
        super().__init__(run, prepared, prompts_per_step, method.num_generations)
        self.method = method
        self.reference = reference and reference.requires_grad_(False).eval()
        self.weights = {name: weight for name, weight in method.rewards if weight}
        self.reward_functions = reward_functions(run.job.dataset, run.job.seed, ranks.rank())
        self.advantages_R = torch.empty(0)
        self.dead_R: list[bool] = []
        self.old_logprobs: list[list[float]] = []

    def score(self, examples: Sequence[Example], rollouts: Sequence[Rollout]) -> Mapping[str, float]:
        texts = [self.tokenizer.decode(rollout.completion_ids, skip_special_tokens=True) for rollout in rollouts]
        with self.phase("reward"):
            rewards = {
                name: self.reward_functions[name](examples, texts, self.state.global_step) for name in self.weights
            }
        total_R = sum(weight * torch.tensor(rewards[name]) for name, weight in self.weights.items())
        assert isinstance(total_R, torch.Tensor)
        groups_GR = total_R.view(-1, self.num_generations)
        self.advantages_R = (groups_GR - groups_GR.mean(1, keepdim=True)).flatten()
        spread_G = groups_GR.std(1)
        self.dead_R = (spread_G == 0).repeat_interleave(self.num_generations).tolist()
        if self.method.scale_rewards:
            self.advantages_R /= spread_G.repeat_interleave(self.num_generations) + _EPSILON
        self.old_logprobs = [rollout.logprobs for rollout in rollouts]
        return {
            "reward": float(total_R.mean()),
            "reward_std": float(spread_G.mean()),
            "frac_reward_zero_std": float((spread_G == 0).float().mean()),
            **{f"rewards/{name}/mean": sum(values) / len(values) for name, values in rewards.items()},
        }

    def learnt_from(self, rollouts: Sequence[Rollout]) -> list[int]:
        """A group whose rewards are all equal has no advantage and, without a KL penalty, no gradient."""
        counted = super().learnt_from(rollouts)
        if self.method.beta:
            return counted
        return [i for i in counted if self.advantages_R[i]]

    def counted(self, rollouts: Sequence[Rollout]) -> list[int]:
        """Whose tokens the mean is over."""
        masks, drops = self.method.mask_truncated_completions, self.method.zero_variance_groups == "drop"
        return [
            i
            for i, rollout in enumerate(rollouts)
            if not (masks and rollout.clipped) and not (drops and self.dead_R[i])
        ]

    def token_loss(self, packed: Packed, rows: Sequence[int]) -> ChunkLoss:
        device, method = packed.row_N.device, self.method
        advantages = self.advantages(packed, rows)
        old_N = torch.tensor([logprob for row in rows for logprob in self.old_logprobs[row]], device=device)
        reference_N = self._reference_logprobs(packed) if method.beta else None
        epsilon_high = method.epsilon if method.epsilon_high is None else method.epsilon_high

        def loss(logits_CV: torch.Tensor, which: slice) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            logits_CV = tempered(logits_CV, self.sampling.temperature)
            logprobs_C = sampled_logprobs(logits_CV, packed.target_ids_N[which])
            advantages_C, of_advantages = advantages(logprobs_C.detach(), which)
            ratio_C = (logprobs_C - old_N[which]).exp()
            clipped_C = ratio_C.clamp(1 - method.epsilon, 1 + epsilon_high)
            loss_C = -torch.minimum(ratio_C * advantages_C, clipped_C * advantages_C)
            low_C = (ratio_C < 1 - method.epsilon) & (advantages_C < 0)
            high_C = (ratio_C > 1 + epsilon_high) & (advantages_C > 0)
            reported = {
                "entropy": entropy(log_softmax(logits_CV.detach())),
                "clip_ratio/low_mean": low_C.sum(),
                "clip_ratio/high_mean": high_C.sum(),
                **of_advantages,
            }
            if reference_N is not None:
                away_C = reference_N[which] - logprobs_C
                kl_C = away_C.exp() - away_C - 1
                loss_C = loss_C + method.beta * kl_C * ratio_C
                reported["kl"] = kl_C.sum()
            return loss_C.sum(), reported

        return loss

    def advantages(self, packed: Packed, rows: Sequence[int]) -> Advantages:
        """Of the predicted tokens of a micro-batch, by chunks: the same for all tokens of a rollout."""
        advantages_N = self.advantages_R[list(rows)].to(packed.row_N.device)[packed.row_N]
        return lambda logprobs_C, which: (advantages_N[which], {})

    @torch.no_grad()
    def _reference_logprobs(self, packed: Packed) -> torch.Tensor:
        """Of the tokens that were written: [N]."""
        if self.reference is not None:
            return self.logprobs(self.reference, packed)
        model = self.accelerator.unwrap_model(self.model)
        with model.disable_adapter():
            return self.logprobs(self.student, packed)

    def logprobs(self, model: PreTrainedModel, packed: Packed) -> torch.Tensor:
        """Of the tokens that were written, by another model, at the sampling temperature: [N]."""
        hidden_ND, head = frozen_hidden_states(model, packed), head_of(model, self.vocabulary)
        chunks = zip(hidden_ND.split(1024), packed.target_ids_N.split(1024), strict=True)
        temperature = self.sampling.temperature
        return torch.cat([sampled_logprobs(head.logits(hidden) / temperature, targets) for hidden, targets in chunks])
