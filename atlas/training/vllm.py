"""Rollouts by vLLM, in the worker's own process, through TRL's `VLLMGeneration`.

Never run for real by us: the tests stand in for vLLM itself, and run TRL's class as it is.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from atlas.errors import RunFailed
from atlas.job import JobSpec
from atlas.models import estimate_peak_bytes
from atlas.training.generation import eos_token_ids
from atlas.training.load import device, logit_width, vocabulary_size
from atlas.training.rollouts import Rollout

_SHARE = 0.8
"""Of the memory that is free beside the models and the optimizer's moments, what vLLM may take while it writes. It
gives all of it back between steps."""
_NEVER = -100.0
"""Added to a logit, it leaves no chance to be drawn: vLLM's own limit."""


class Vllm:
    """Writes the rollouts of a student. The same seed and weights give the same rollouts as far as vLLM computes the
    same numbers twice, which it does not promise.

    vLLM loads the student's files once more, in the dtype of their config and the precision of its own kernels, so the
    log-probabilities of rollouts differ a little from the trainer's.
    """

    def __init__(
        self,
        job: JobSpec,
        student: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        accelerator: Accelerator,
        longest_prompt: int,
    ) -> None:
        """`longest_prompt`: tokens of the longest one that is to come. Raises RunFailed: `missing_package`, or
        `bad_model` without a GPU and for a student that vLLM cannot run."""
        assert job.sampling is not None
        self.eos_token_ids, self.vocabulary = eos_token_ids(student, tokenizer), vocabulary_size(tokenizer)
        share = _share_of_memory(job)
        try:
            from trl.generation import VLLMGeneration
        except ImportError as error:
            raise RunFailed(
                "missing_package",
                f"sampling.engine vllm needs vLLM ({error}); pip install 'atlas[vllm]', or use sampling.engine: atlas",
            ) from error
        beyond = range(self.vocabulary, logit_width(student))  # columns of a wider head, which no token has
        try:
            self._vllm = VLLMGeneration(
                model=_Merged(student),
                accelerator=accelerator,
                processing_class=tokenizer,
                mode="colocate",
                gpu_memory_utilization=share,
                max_model_length=longest_prompt + job.sampling.max_completion_length,
                enable_sleep_mode=True,
                trust_remote_code=job.student.trust_remote_code,
                temperature=job.sampling.temperature,
                max_completion_length=job.sampling.max_completion_length,
                logprobs=0,  # of the token that was written alone
                generation_kwargs={
                    "stop_token_ids": self.eos_token_ids,
                    "logit_bias": dict.fromkeys(beyond, _NEVER) or None,
                },
            )
        except ValueError as error:
            raise RunFailed("bad_model", f"vLLM cannot run the student: {error}; use sampling.engine: atlas") from error

    @torch.no_grad()
    def roll_out(self, prompts: Sequence[list[int]], num_generations: int, *, seed: int) -> list[Rollout]:
        """`num_generations` rollouts of each prompt, in the order of the prompts, by the weights as they are now.

        Changes the global random state.
        """
        rows = [prompt for prompt in prompts for _ in range(num_generations)]
        with torch.autocast(device().type, enabled=False):
            self._vllm.sync_weights()
            # Not vLLM's `seed`: requests that share one draw alike, so all rollouts of a prompt would be the same.
            set_seed(seed % 2**32)
            _, completions, logprobs, _ = self._vllm.generate(rows, images=None, num_generations=num_generations)
        written = zip(rows, completions, logprobs, strict=True)
        return [self._rollout(row, list(ids), of_ids) for row, ids, of_ids in written]

    def _rollout(self, prompt: list[int], ids: list[int], logprobs: list[list[float | None]]) -> Rollout:
        sampled = [logprob for (logprob,) in logprobs if logprob is not None]
        if len(sampled) < len(ids):
            raise RunFailed(
                "non_finite_loss",
                "the logits of the model are NaN while vLLM writes; lower training.learning_rate, add "
                "training.warmup_steps, or use sampling.engine: atlas",
            )
        if max(ids) >= self.vocabulary:
            raise RunFailed(
                "bad_model",
                f"vLLM wrote token {max(ids)}, and the tokenizer has ids below {self.vocabulary}; "
                "use sampling.engine: atlas",
            )
        return Rollout(prompt, ids, sampled, clipped=ids[-1] not in self.eos_token_ids)


class _Merged(torch.nn.Module):
    """What `VLLMGeneration` reads of a model, with adapters added to the weights as these are read. Its own way is to
    merge them into the student and take them out again, which leaves rounding errors there at every step."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model, self.name_or_path = model, model.name_or_path

    def named_parameters(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, Any]]:
        """The student's own names and shapes."""
        adapted = {name: module for name, module in self.model.named_modules() if isinstance(module, LoraLayer)}
        for name, weight in self.model.named_parameters():
            layer, of_base, own_name = name.partition(".base_layer.")
            if of_base:
                yield f"{layer}.{own_name}", _with_adapters(adapted[layer], weight) if own_name == "weight" else weight
            elif not any(name.startswith(f"{layer}.") for layer in adapted):
                yield name, weight


def _with_adapters(layer: Any, weight: torch.Tensor) -> torch.Tensor:
    for adapter in layer.active_adapters:
        weight = weight + layer.get_delta_weight(adapter)
    return weight


def _share_of_memory(job: JobSpec) -> float:
    """Of the whole memory of the GPU, what vLLM may take."""
    if device().type != "cuda":
        raise RunFailed(
            "bad_model", "sampling.engine vllm needs a GPU and this worker has none; use sampling.engine: atlas"
        )
    free_bytes, total_bytes = torch.cuda.mem_get_info()
    estimate = estimate_peak_bytes(job)
    coming_bytes = estimate.optimizer_bytes if estimate else 0
    return max(0.0, _SHARE * (free_bytes - coming_bytes) / total_bytes)
