"""How long a training step and an evaluation take, from the sizes of the models and a few numbers of the machine.

Everything is proportional to one of five rates of a `Machine`. What the formulas leave out (grading, checkpoints) takes
little; what they cannot know (which rows end when, groups without signal) errs on the long side.
"""

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from atlas.models import (
    ASSUMED_LENGTHS,
    Lengths,
    ModelSize,
    as_loaded,
    bytes_per_weight,
    describe,
    micro_batch_tokens,
    rollouts_of_a_prompt,
    trained_parameters,
)

if TYPE_CHECKING:
    from atlas.job import JobSpec

_OPERATIONS = 130
"""Calls of modules that a layer takes to decode one token, in transformers' Llama: 40 products and operations element
by element, and twice as many views."""
_KEPT_WRITTEN = 1.3
"""Bytes that a forward pass reads and writes element by element in new memory for each byte that it keeps, and a
backward pass twice as many; the rest is in the cache. As measured on a CPU."""
_CACHE_PASSES = 6
"""Times that the bytes of the KV cache are read or written for a token, with the scores, the softmax and the copies
when rows leave."""
_LOSS_BYTES = 40
"""Read and written for each logit of a loss, as probabilities, differences and gradients."""
_SAMPLING_BYTES = 80
"""Likewise of the logits from which a token is sampled: a random number each."""
_GRADIENT_BYTES = 2
"""Written and read for each byte of a gradient when a micro-batch adds its own to it."""
_ADAMW_BYTES = 32
"""Read and written for each trained parameter: weight, gradient and two moments, and the norm of the gradient."""


@dataclass(frozen=True)
class Machine:
    """What a device achieves, in whatever type the weights are computed in."""

    name: str
    flops_per_second: float
    """Of a wide matrix product."""
    weight_bytes_per_second: float
    """Of the weights of a product with few rows, besides what it computes: what decoding waits for."""
    memory_bytes_per_second: float
    """Read and written element by element, in place."""
    new_memory_bytes_per_second: float
    """Read and written element by element, with the result in memory that was not there before."""
    seconds_per_operation: float
    """Of calling a module that computes next to nothing."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of an optimizer step, by the phases that a run measures."""

    generate: float
    teacher: float
    forward_backward: float
    optimizer: float

    @property
    def total(self) -> float:
        return self.generate + self.teacher + self.forward_backward + self.optimizer


def step_time(
    job: "JobSpec", machine: Machine, lengths: Lengths = ASSUMED_LENGTHS, completion_tokens: float | None = None
) -> StepTime | None:
    """Estimates a step; None when nothing is trained or a model's config is not at hand.

    `completion_tokens` is the mean length of a rollout; by default the longest that is allowed, so that the estimate is
    an upper bound.

    With N parameters in linear layers: a forward pass takes 2 N a token, the gradients as much for the activations and
    again for the weights (none with LoRA), and the attention 4 queries layers for each key that a token sees
    (arXiv:2001.08361, table 1). The head takes 2 hidden vocabulary a product, for completion tokens only (sft: for
    all): three products to learn (without LoRA) and one for a teacher.
    """
    student, training = as_loaded(job, describe(job.student)), job.training
    teacher = as_loaded(job, describe(job.teacher)) if job.teacher else None
    if student is None or training is None or (job.teacher and teacher is None):
        return None
    costs = _Costs(machine, student, bytes_per_weight(job.student, student, trained=True))
    trained, trained_bytes = trained_parameters(job, student, costs.weight_bytes)
    optimizer = trained * _ADAMW_BYTES * trained_bytes / 4 / machine.memory_bytes_per_second
    gradients = trained * trained_bytes * _GRADIENT_BYTES / machine.new_memory_bytes_per_second
    of_weights = 0 if job.student.lora else 1
    again = 1 if training.gradient_checkpointing else 0
    passes, kept = 2 + of_weights + again, (3 + again) * costs.kept
    if job.sampling is None:
        rows = training.micro_batch_size or training.batch_size
        length = lengths.padded(rows)
        tokens = training.batch_size * length
        learning = costs.forward(tokens, length / 2, passes) + costs.elementwise(kept * tokens)
        learning += costs.head(tokens, 3 + of_weights, learns=True) + training.batch_size / rows * gradients
        return StepTime(0, 0, learning, optimizer)

    completion = min(completion_tokens or job.sampling.max_completion_length, job.sampling.max_completion_length)
    rows = training.batch_size
    prompts = rows // rollouts_of_a_prompt(job)
    on_policy = getattr(job.method, "lmbda", 1.0)
    by_teacher = getattr(job.method, "seq_kd", False)
    longest = min(2 * completion, job.sampling.max_completion_length)
    generate = on_policy * costs.generate(rows, prompts, lengths.prompt, completion, longest)
    teaching = 0.0
    if not by_teacher:
        completion = on_policy * completion + (1 - on_policy) * lengths.solution
    predicted = rows * completion
    micro_batches = _micro_batches(job, student, lengths.prompt, completion)
    tokens = max(prompts, micro_batches) * lengths.prompt + predicted  # each has the prompts of its own rollouts
    context = (lengths.prompt + completion) / 2
    if job.teacher and teacher:
        teachers = _Costs(machine, teacher, bytes_per_weight(job.teacher, teacher, trained=False))
        teaching = teachers.forward(tokens, context) + teachers.elementwise(teachers.kept * tokens)
        if by_teacher:
            generate += (1 - on_policy) * teachers.generate(rows, prompts, lengths.prompt, completion, longest)
    learning = costs.forward(tokens, context, passes) + costs.elementwise(kept * tokens)
    learning += costs.head(predicted, 2 + of_weights, learns=True)
    if teacher:
        learning += teachers.head(predicted, 1, learns=False)
    if getattr(job.method, "beta", 0) and job.teacher is None:  # the reference of grpo
        learning += costs.forward(tokens, context) + costs.elementwise(costs.kept * tokens)
        learning += costs.head(predicted, 1, learns=False)
    calls = 2 * student.layers * _OPERATIONS * machine.seconds_per_operation
    return StepTime(generate, teaching, learning + micro_batches * (gradients + calls), optimizer)


def evaluation_seconds(
    job: "JobSpec",
    machine: Machine,
    problems: int,
    lengths: Lengths = ASSUMED_LENGTHS,
    completion_tokens: float | None = None,
    by_teacher: bool = False,
) -> float | None:
    """Estimates one evaluation of so many problems; None when the model's config is not at hand."""
    spec = job.teacher if by_teacher else job.student
    size = as_loaded(job, describe(spec)) if spec else None
    if spec is None or size is None:
        return None
    evaluation = job.evaluation
    costs = _Costs(machine, size, bytes_per_weight(spec, size, trained=not by_teacher and job.training is not None))
    completion = min(completion_tokens or evaluation.max_completion_length, evaluation.max_completion_length)
    longest = min(2 * completion, evaluation.max_completion_length)
    left, seconds = problems * evaluation.num_samples, 0.0
    while left > 0:
        rows = min(left, evaluation.batch_size)
        prompts = ceil(rows / evaluation.num_samples)
        seconds += costs.generate(rows, prompts, lengths.prompt, completion, longest, evaluation.temperature > 0)
        left -= rows
    return seconds


@dataclass(frozen=True)
class _Costs:
    """Seconds of what a model does."""

    machine: Machine
    size: ModelSize
    weight_bytes: int

    @property
    def kept(self) -> int:
        """Bytes of activations of a token, in a model that does not learn: made, and let go."""
        size = self.size
        layer = 8 * size.hidden + 4 * size.intermediate + 2 * (size.queries + 2 * size.keys)
        return size.layers * layer * self.weight_bytes

    @property
    def in_layers(self) -> int:
        """Weights of all linear layers."""
        return self.size.layers * sum(inputs * outputs for inputs, outputs in self.size.linears.values())

    @property
    def in_head(self) -> int:
        return self.size.hidden * self.size.vocabulary

    def forward(self, tokens: float, context: float, passes: float = 1) -> float:
        """Products of the layers; with `passes` that many times, as gradients take them."""
        attention = 2 * context * self.size.queries * self.size.layers
        return passes * tokens * 2 * (self.in_layers + attention) / self.machine.flops_per_second

    def elementwise(self, kept_bytes: float) -> float:
        return _KEPT_WRITTEN * kept_bytes / self.machine.new_memory_bytes_per_second

    def head(self, tokens: float, products: float, learns: bool) -> float:
        of_loss = tokens * self.size.vocabulary * (_LOSS_BYTES if learns else 0)
        return (
            products * 2 * tokens * self.in_head / self.machine.flops_per_second
            + of_loss / self.machine.new_memory_bytes_per_second
        )

    def generate(
        self, rows: int, prompts: int, prompt: float, completion: float, longest: float, sampled: bool = True
    ) -> float:
        """Reading the prompts, then a step for each token of the longest completion.

        Every step reads all weights, and computes with those rows that still go on.
        """
        size, machine = self.size, self.machine
        reading = self.forward(prompts * prompt, prompt / 2) + self.elementwise(self.kept * prompts * prompt)
        weights = (self.in_layers + self.in_head) * self.weight_bytes / machine.weight_bytes_per_second
        calls = size.layers * _OPERATIONS * machine.seconds_per_operation
        tokens = rows * completion
        context = prompt + completion / 2
        products = self.forward(tokens, context) + self.head(tokens, 1, learns=False)
        cache = _CACHE_PASSES * tokens * context * 2 * size.layers * size.keys * self.weight_bytes
        sampling = tokens * size.vocabulary * (_SAMPLING_BYTES if sampled else _SAMPLING_BYTES / 4)
        return (
            reading
            + longest * (weights + calls)
            + products
            + cache / machine.memory_bytes_per_second
            + sampling / machine.new_memory_bytes_per_second
        )


def _micro_batches(job: "JobSpec", student: ModelSize, prompt: float, completion: float) -> int:
    """Of a step, in the mean: rows of one prompt share it within a micro-batch. On a GPU there are fewer."""
    assert job.training is not None
    rows, group, most = job.training.batch_size, rollouts_of_a_prompt(job), micro_batch_tokens(job, student)
    together = (most - prompt) / completion  # of one prompt
    if together > group:
        together = group * most / (prompt + group * completion)
    return ceil(rows / max(1.0, min(together, job.training.micro_batch_size or rows)))
