"""The one on-policy loop that distillation and reinforcement learning share, on transformers' Trainer.

An optimizer step is: rollouts of all its prompts -> scores -> packed micro-batches -> a loss on the head's logits,
summed over all completion tokens of the step and divided by their number. What a step computes is a function of the
weights, the seed and the step alone, so that every checkpoint lies between two steps and a resumed run goes on exactly.

N predicted tokens of a micro-batch.
"""

import json
import random
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from peft import LoraConfig, get_peft_model
from torch.utils.data import Dataset, SequentialSampler
from transformers import PreTrainedModel, Trainer, TrainingArguments

from atlas.datasets.base import Example
from atlas.errors import RunFailed
from atlas.job import JobSpec
from atlas.models import (
    MICRO_BATCH_TOKENS,
    activation_bytes_per_token,
    describe,
    estimate_peak_bytes,
    micro_batch_tokens,
)
from atlas.private import open_private
from atlas.run import Run
from atlas.training import ranks
from atlas.training.attention import own_attention
from atlas.training.compatibility import why_not_ours
from atlas.training.generation import causal_model, eos_token_ids
from atlas.training.head import head_of, hidden_states
from atlas.training.linear_loss import ChunkLoss, linear_loss
from atlas.training.load import vocabulary_size
from atlas.training.loop import Prepared, arguments
from atlas.training.order import Order
from atlas.training.packing import Packed, micro_batches, pack
from atlas.training.prompts import encode_prompts, render_prompt
from atlas.training.rollouts import Rollout, Writer, roll_out
from atlas.training.trainer import Measured
from atlas.training.vllm import Vllm

_LEAST_TOKENS, _MOST_TOKENS = 64, 65536
"""Bounds of the tokens of a packed micro-batch, whatever a GPU's memory allows."""
_SHARE = 0.5
"""Of the free memory, what the activations of a micro-batch may take by estimate."""
T = TypeVar("T")


class OnPolicyTrainer(Measured, Trainer):
    """What is common to the methods that learn from rollouts. A method says how they are scored and what the loss of
    a token is."""

    def __init__(self, run: Run, prepared: Prepared, prompts_per_step: int, num_generations: int) -> None:
        job = run.job
        assert job.sampling is not None and job.training is not None
        self.sampling, self.num_generations = job.sampling, num_generations
        self.examples, self.tokenizer = prepared.examples, prepared.tokenizer
        rendered = [render_prompt(self.tokenizer, example.messages) for example in self.examples]
        self.prompts = encode_prompts(self.tokenizer, rendered)
        self.vocabulary = vocabulary_size(self.tokenizer)
        require_ours(prepared.student, self.vocabulary, "student")
        model = _with_adapters(prepared.student, prepared.lora)
        args = arguments(run, TrainingArguments, prompts_per_step, len(self.examples), remove_unused_columns=False)
        args.per_device_train_batch_size, self.max_rows = 1, job.training.micro_batch_size
        args.gradient_accumulation_steps = 1  # a step's micro-batches are ours
        super().__init__(
            run,
            model=model,
            args=args,
            train_dataset=_Steps(Order(args.max_steps, len(self.examples), prompts_per_step, job.seed)),
            data_collator=lambda steps: steps[0],
            processing_class=self.tokenizer,
        )
        self.step_metrics: dict[str, float] = {}
        self.at_hand: Sequence[Rollout] = []
        """What the step learns from."""
        self.max_tokens = 0
        """Tokens of a packed micro-batch; 0 before the first step."""
        self.max_prompts = prompts_per_step // ranks.size()
        """Prompts whose rollouts are written at once."""
        self._last_readings: Mapping[str, float] = {}
        self.vllm: Vllm | None = None
        """What writes the student's rollouts, if it is not us."""
        if self.sampling.engine == "vllm":
            self.vllm = Vllm(job, self.student, self.tokenizer, self.accelerator, max(map(len, self.prompts)))

    @abstractmethod
    def score(self, examples: Sequence[Example], rollouts: Sequence[Rollout]) -> Mapping[str, float]:
        """Judges the rollouts of a step, before any loss; returns metrics. `examples` has one for each rollout."""

    @abstractmethod
    def token_loss(self, packed: Packed, rows: Sequence[int]) -> ChunkLoss:
        """The loss of the predicted tokens of a micro-batch of these rollouts of the step, by chunks."""

    def packed_loss(self, packed: Packed, rows: Sequence[int]) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        """The sum of the loss over a micro-batch, differentiable, and sums to report."""
        chunk_loss = self.token_loss(packed, rows)
        return linear_loss(hidden_states(self.student, packed), head_of(self.student, self.vocabulary), chunk_loss)

    def terms(self, rollouts: Sequence[Rollout], row: int) -> int:
        """How many terms a rollout has in the loss, which is the mean over all of them."""
        return len(rollouts[row].completion_ids)

    def means(self, sums: Mapping[str, float], terms: int) -> Mapping[str, float]:
        """Metrics of a step from the sums that `packed_loss` reports and the number of their terms."""
        return {name: value / max(1, terms) for name, value in sums.items()}

    def counted(self, rollouts: Sequence[Rollout]) -> list[int]:
        """Which rollouts' terms the loss is the mean over."""
        return list(range(len(rollouts)))

    def learnt_from(self, rollouts: Sequence[Rollout]) -> list[int]:
        """Which of these have a gradient. The others are left out of every forward."""
        return self.counted(rollouts)

    @property
    def student(self) -> PreTrainedModel:
        """The causal language model, inside whatever accelerate and peft have put around it."""
        return causal_model(self.accelerator.unwrap_model(self.model))

    def training_step(self, model: Any, inputs: Sequence[int], num_items_in_batch: Any = None) -> torch.Tensor:
        """One optimizer step's gradient, from its prompts. Returns the loss."""
        self.max_tokens = self.max_tokens or _affordable_tokens(self.run.job, self.args.device)
        inputs = ranks.share(inputs)
        self.step_metrics = {}
        rollouts = self.at_hand = self.rollouts(inputs)
        rows_of = [self.examples[i] for i in inputs for _ in range(self.num_generations)]
        self.step_metrics |= ranks.means(self.score(rows_of, rollouts))
        model.train()
        with self.phase("forward_backward"):
            loss, sums = self._backing_off("max_tokens", lambda: self._backward(rollouts))
        kept = self.learnt_from(rollouts)
        self.run.clock.tokens_trained += int(ranks.sum_of(sum(len(rollouts[i].completion_ids) for i in kept)))
        self.step_metrics |= self.means(sums, int(ranks.sum_of(sum(self.terms(rollouts, i) for i in kept))))
        self.step_metrics["loss"] = float(loss)
        self._check_finite("loss", loss)
        return loss

    def rollouts(self, prompts: Sequence[int]) -> list[Rollout]:
        """What the student writes for these examples, all at once."""
        eos = eos_token_ids(self.student, self.tokenizer)
        student = Writer(self.student, self.vocabulary, self.prompts, eos)
        written = self.written_by(student, prompts)
        self.run.clock.rollouts += len(written) * ranks.size()
        self.step_metrics |= _lengths(ranks.gather([(len(each.completion_ids), each.clipped) for each in written]))
        return written

    def written_by(self, writer: Writer, prompts: Sequence[int]) -> list[Rollout]:
        """Completions of these examples, in the writer's tokens."""
        with self.phase("generate"), self.compute_loss_context_manager(), ranks.whole(self.model):
            written = self._backing_off("max_prompts", lambda: self._write(writer, prompts))
            tokens = ranks.sum_of(sum(len(rollout.completion_ids) for rollout in written))
        self.run.clock.tokens_generated += int(tokens)
        return written

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            logs = logs | self.step_metrics | self._speed()  # the loss among them: transformers rounds it
        super().log(logs, *args, **kwargs)

    def _write(self, writer: Writer, prompts: Sequence[int]) -> list[Rollout]:
        if self.vllm is not None and writer.model is self.student:
            seed = _seed_of(self.args.seed, self.state.global_step, "rollouts")
            return self.vllm.roll_out([self.prompts[i] for i in prompts], self.num_generations, seed=seed)
        written: list[Rollout] = []
        first = ranks.rank() * len(prompts)
        for start in range(0, len(prompts), self.max_prompts):
            written += roll_out(
                writer.model,
                writer.head,
                [writer.prompts[i] for i in prompts[start : start + self.max_prompts]],
                self.num_generations,
                self.sampling,
                eos_token_ids=writer.eos_token_ids,
                seed=_seed_of(self.args.seed, self.state.global_step, f"rollouts {first + start}"),
            )
        return written

    def _backward(self, rollouts: Sequence[Rollout]) -> tuple[torch.Tensor, dict[str, float]]:
        """Makes the gradients of all micro-batches. Returns the loss and sums of what the losses report."""
        self.model.zero_grad()  # of an attempt that ran out of memory
        dropout = f"dropout {ranks.rank()}" if ranks.rank() else "dropout"
        torch.manual_seed(_seed_of(self.args.seed, self.state.global_step, dropout))
        kept = self.learnt_from(rollouts)
        rows = [rollouts[i].row for i in kept]
        denominator = max(1, int(ranks.sum_of(sum(self.terms(rollouts, i) for i in self.counted(rollouts)))))
        total = torch.zeros((), device=self.args.device)
        sums: Counter[str] = Counter()
        batches = list(micro_batches(rows, self.max_rows, self.max_tokens))
        for number in range(max(ranks.gather(len(batches)))):
            chosen = batches[number] if number < len(batches) else []
            loss, reported = self._micro_batch_loss(rollouts, [kept[i] for i in chosen])
            loss = loss / denominator
            with own_attention(self.student):  # gradient checkpointing computes the layers again
                self.accelerator.backward(loss)
            total += loss.detach()
            sums.update({name: float(value) for name, value in reported.items()})
        return ranks.total(total), ranks.sums(sums)

    def _micro_batch_loss(
        self, rollouts: Sequence[Rollout], rows: Sequence[int]
    ) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        """`packed_loss` of these rollouts. Without any, something whose gradient is zero: where the weights are split,
        no process can go through the model alone."""
        packed = pack([rollouts[i].row for i in rows or [0]], self.args.device)

        def loss() -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
            if rows:
                return self.packed_loss(packed, rows)
            return hidden_states(self.student, packed).sum() * 0, {}

        with self.compute_loss_context_manager():
            return ranks.through(self.model, loss)

    def _backing_off(self, limit: str, work: Callable[[], T]) -> T:
        """Does the work; whenever the device runs out of memory, again with half of `limit`."""
        least = {"max_tokens": _LEAST_TOKENS, "max_prompts": 1}[limit]
        while True:
            try:
                return work()
            except torch.OutOfMemoryError:
                together = limit == "max_tokens" and ranks.size() > 1  # the others are in the middle of it
                if together or getattr(self, limit) <= least:
                    raise
            setattr(self, limit, max(least, getattr(self, limit) // 2))
            torch.cuda.empty_cache()
            what = {"max_tokens": "tokens of a micro-batch", "max_prompts": "prompts that are answered at once"}[limit]
            self.run.event("out_of_memory", f"step {self.state.global_step + 1}: {what} are now {getattr(self, limit)}")

    def _speed(self) -> dict[str, float]:
        """Tokens and rollouts a second of training time since the last step."""
        now, before = self.run.clock.readings(), self._last_readings
        self._last_readings = now
        seconds = now["train_seconds"] - before.get("train_seconds", now["train_seconds"])
        if not before or seconds <= 0:
            return {}
        return {
            "tokens_per_second": (now["tokens_trained"] - before["tokens_trained"]) / seconds,
            "rollouts_per_second": (now["rollouts"] - before["rollouts"]) / seconds,
        }

    def _check_finite(self, what: str, value: Any) -> None:
        try:
            super()._check_finite(what, value)
        except RunFailed:
            self._keep_batch()
            raise

    def _keep_batch(self) -> None:
        """Writes the rollouts of a step that went wrong to `failed_batch.jsonl` of the run directory."""
        with open_private(self.run.directory / "failed_batch.jsonl", "w") as file:
            for rollout in self.at_hand:
                text = self.tokenizer.decode(rollout.completion_ids)
                file.write(json.dumps({**vars(rollout), "completion": text}) + "\n")

    def _get_train_sampler(self, dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


class _Steps(Dataset[list[int]]):
    """Item i: the examples of step i."""

    def __init__(self, order: Order) -> None:
        self.order = order

    def __len__(self) -> int:
        return self.order.steps

    def __getitem__(self, step: int) -> list[int]:
        return self.order.of_step(step)


def require_ours(model: PreTrainedModel, vocabulary: int, role: str) -> None:
    """Raises RunFailed(`bad_model`) if the engine does not compute what the model computes by itself."""
    why = why_not_ours(model, vocabulary)
    if why is not None:
        raise RunFailed(
            "bad_model",
            f"the {role} ({type(model).__name__}) cannot be trained with rollouts: {why}; choose another architecture, "
            "or use method sft",
        )


@torch.no_grad()
def frozen_hidden_states(model: PreTrainedModel, packed: Packed) -> torch.Tensor:
    """`hidden_states` of a model that does not learn."""
    return hidden_states(model, packed)


def _with_adapters(model: PreTrainedModel, lora: LoraConfig | None) -> Any:
    return model if lora is None else get_peft_model(model, lora)


def _lengths(of_ranks: Sequence[Sequence[tuple[int, bool]]]) -> dict[str, float]:
    """Of completions: their lengths, and whether they were clipped."""
    completions = [completion for of_rank in of_ranks for completion in of_rank]
    lengths = [length for length, _ in completions]
    terminated = [length for length, clipped in completions if not clipped]
    return {
        "completions/mean_length": sum(lengths) / len(lengths),
        "completions/min_length": min(lengths),
        "completions/max_length": max(lengths),
        "completions/mean_terminated_length": sum(terminated) / len(terminated) if terminated else 0.0,
        "completions/clipped_ratio": sum(clipped for _, clipped in completions) / len(completions),
    }


def _affordable_tokens(job: JobSpec, device: torch.device) -> int:
    """Tokens of a micro-batch whose activations fit into a share of the memory that is free now, beside the gradients
    and the optimizer's moments that are still to come."""
    size = describe(job.student)
    if size is None:
        return MICRO_BATCH_TOKENS[1]
    if device.type != "cuda":
        return micro_batch_tokens(job, size)
    estimate = estimate_peak_bytes(job)
    coming_bytes = (estimate.gradients_bytes + estimate.optimizer_bytes) // ranks.size() if estimate else 0
    free_bytes, _ = torch.cuda.mem_get_info(device)
    affordable = int(_SHARE * (free_bytes - coming_bytes) / activation_bytes_per_token(job, size))
    return min(_MOST_TOKENS, max(_LEAST_TOKENS, affordable))


def _seed_of(seed: int, step: int, purpose: str) -> int:
    return random.Random(f"{seed} {purpose} {step}").getrandbits(63)
