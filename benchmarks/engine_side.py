"""One measurement of `benchmarks/engine.py`, in this process alone: a training step of one trainer, or how well all
trainers agree about the loss and the gradient of the same rollouts.

    python benchmarks/engine_side.py '{"what": "atlas", "method": "gkd", "model": DIR, "gsm8k": DIR, ...}'

Prints one JSON object as its last line. A first step of a few tokens is not measured: it allocates the optimizer's
moments and warms up. Every completion has a length that depends on its prompt alone: EOS is forbidden before it and
forced there, so that all trainers do the same work on ragged rows.
"""

import json
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
)
from trl import DistillationConfig, DistillationTrainer, GRPOConfig, GRPOTrainer
from trl.experimental.gkd import GKDConfig, GKDTrainer

from atlas.datasets.base import Example
from atlas.job import JobSpec
from atlas.run import Run
from atlas.training import engine, rollouts
from atlas.training.gkd import GkdTrainer
from atlas.training.grpo import GrpoTrainer
from atlas.training.loop import prepare
from atlas.training.prompts import encode_prompts, render_prompt
from atlas.training.teacher import load_teacher

LENGTHS = (105, 20, 160, 45, 80, 32, 138, 60)
"""Tokens of the completions, EOS among them: mean 80. Rows take them in turns."""
LONGEST, WARM_UP = max(LENGTHS), 3
PROMPTS = {"gkd": 8, "grpo": 2}
GROUP = 8
SEED = 7
NOISE = 0.05
"""Relative noise in the teacher's weights, without which it would be the student and the loss zero."""


@dataclass(frozen=True)
class Request:
    what: str
    """`atlas`, a name of `TRL`, or `agreement`."""
    method: str
    model: str
    gsm8k: str
    micro_batch: int = 0
    """Rows of TRL's micro-batches. Atlas packs by tokens."""

    @property
    def group(self) -> int:
        return GROUP if self.method == "grpo" else 1

    @property
    def rows(self) -> int:
        return PROMPTS[self.method] * self.group

    def job(self) -> dict[str, Any]:
        job = {
            "name": "engine",
            "student": {"model": self.model, "dtype": "float32"},
            "method": {"type": self.method} | ({"num_generations": GROUP} if self.method == "grpo" else {}),
            "dataset": {
                "type": "gsm8k",
                "path": self.gsm8k,
                "train_size": PROMPTS[self.method],
                "dev_size": 8,
                "test_size": 8,
            },
            "training": {"max_steps": 2, "batch_size": self.rows, "learning_rate": 1e-6},
            "sampling": {"max_completion_length": LONGEST},
            "evaluation": {"max_completion_length": LONGEST},
            "seed": SEED,
        }
        return job | ({"teacher": {"model": self.model, "dtype": "float32"}} if self.method == "gkd" else {})


class Lengths:
    """How long the completion of each row is, known by its prompt."""

    def __init__(self, prompts: Sequence[Sequence[int]], group: int) -> None:
        self._first = {tuple(prompt): number * group for number, prompt in enumerate(prompts)}
        self.warming_up = True

    def of(self, prompts: Sequence[Sequence[int]]) -> list[int]:
        """Of rows with these prompts; those that share one stand in the order of their group."""
        seen: Counter[tuple[int, ...]] = Counter()
        lengths = []
        for prompt in map(tuple, prompts):
            row = self._first[prompt] + seen[prompt]
            seen[prompt] += 1
            lengths.append(WARM_UP if self.warming_up else LENGTHS[row % len(LENGTHS)])
        return lengths


def force(logits: torch.Tensor, row_ends: Sequence[bool], eos: int) -> torch.Tensor:
    """Logits by which the rows that end here write EOS, and the others do not."""
    forced = logits.clone()
    forced[:, eos] = -torch.inf
    ends = torch.tensor(row_ends)
    forced[ends] = -torch.inf
    forced[ends, eos] = 0
    return forced


class Forcing(LogitsProcessor):
    """For transformers' `generate`, on prompts padded on the left with `eos`, with which no prompt begins."""

    def __init__(self, lengths: Lengths, eos: int) -> None:
        self.lengths, self.eos = lengths, eos
        self.rows: list[int] = []
        self.start = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if not self.rows:
            self.start = input_ids.shape[1]
            prompts = [row[next(i for i, token in enumerate(row) if token != self.eos) :] for row in input_ids.tolist()]
            self.rows = self.lengths.of(prompts)
        written = input_ids.shape[1] - self.start + 1
        return force(scores, [written >= length for length in self.rows], self.eos)


def force_atlas(lengths: Lengths, eos: int) -> None:
    """Puts the same into Atlas' sampling, where the rows that ended are gone."""
    roll_out, sample = engine.roll_out, rollouts._sample
    alive: list[int] = []
    written = 0

    def forced_roll_out(model: Any, head: Any, prompts: Any, num_generations: int, *rest: Any, **options: Any) -> Any:
        nonlocal alive, written
        alive, written = lengths.of([prompt for prompt in prompts for _ in range(num_generations)]), 0
        return roll_out(model, head, prompts, num_generations, *rest, **options)

    def forced_sample(logits: torch.Tensor, *rest: Any) -> Any:
        nonlocal alive, written
        written += 1
        ends = [length == written for length in alive]
        alive = [length for length in alive if length > written]
        tokens, _ = sample(force(logits, ends, eos), *rest)
        return tokens, logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]  # as if they had not been forced

    engine.roll_out, rollouts._sample = forced_roll_out, forced_sample


class Phases:
    """CPU and wall seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        before = _now()
        try:
            yield
        finally:
            self.add(name, before)

    def add(self, name: str, before: tuple[float, float]) -> None:
        sums = self.seconds.setdefault(name, [0.0, 0.0])
        for i, (then, now) in enumerate(zip(before, _now(), strict=True)):
            sums[i] += now - then

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.phase(name):
                return function(*args, **kwargs)

        return timed

    def finished(self) -> dict[str, list[float]]:
        """With what is left of the step as `forward_backward`."""
        inner = [sum(kind) for kind in zip(*(v for k, v in self.seconds.items() if k != "step"), strict=True)]
        rest = [step - other for step, other in zip(self.seconds["step"], inner, strict=True)]
        return self.seconds | {"forward_backward": rest}


class Stopwatch(TrainerCallback):
    """Measures the second step of a Trainer."""

    def __init__(self, phases: Phases, lengths: Lengths) -> None:
        self.phases, self.lengths = phases, lengths
        self.began = self.optimizing = _now()
        self.peak_bytes = 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 1:
            self.lengths.warming_up = False
            self.phases.seconds.clear()
            self.began = _now()

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.optimizing = _now()

    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.phases.add("optimizer", self.optimizing)

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.phases.add("step", self.began)
        self.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(request: Request, directory: Path) -> dict[str, Any]:
    build = _atlas if request.what == "atlas" else _trl
    trainer, phases, lengths = build(request, directory)
    teacher = getattr(trainer, "teacher_model", getattr(trainer, "teacher", None))
    teacher = getattr(teacher, "model", teacher) if request.what == "atlas" else teacher
    if teacher is not None:
        decoder = teacher.get_decoder()
        decoder.forward = phases.timed("teacher", decoder.forward)
    stopwatch = Stopwatch(phases, lengths)
    trainer.add_callback(stopwatch)
    trainer.train()
    tokens = sum(LENGTHS[row % len(LENGTHS)] for row in range(request.rows))
    return {"seconds": phases.finished(), "peak_bytes": stopwatch.peak_bytes, "tokens": tokens}


def agreement(request: Request, directory: Path) -> dict[str, Any]:
    """Largest relative difference to Atlas of the loss and of the gradient (as a vector), over TRL's trainers."""
    trainer, _, lengths = _atlas(request, directory)
    lengths.warming_up = False
    written = trainer.rollouts(range(PROMPTS[request.method]))
    examples = [example for example in trainer.examples for _ in range(request.group)]
    trainer.score(examples, written)
    trainer.model.train()
    loss, _ = trainer._backward(written)
    tokens = sum(len(row.completion_ids) for row in written)
    gradient = _gradient(trainer.model)
    found = {}
    for what in TRL[request.method]:
        if what.endswith("default"):
            continue
        request = Request(**asdict(request) | {"what": what, "micro_batch": request.rows})
        other, _, _ = _trl(request, directory)
        other.model.train()
        other.current_gradient_accumulation_steps = 1  # which `train` would set
        inputs = _padded(what, written, trainer, tokens)
        other_loss = other.compute_loss(other.model, inputs, num_items_in_batch=torch.tensor(tokens))
        other_loss.backward()
        other_gradient = _gradient(other.model)
        found[what] = {
            "loss": float(abs(other_loss - loss) / abs(loss)) if loss else float(abs(other_loss)),
            "gradient": float((other_gradient - gradient).norm() / gradient.norm()),
        }
    return {"agreement": found, "atlas_loss": float(loss)}


def _atlas(request: Request, directory: Path) -> tuple[Trainer, Phases, Lengths]:
    run = Run(_run_directory(request, directory))
    prepared = prepare(run)
    trainer: GkdTrainer | GrpoTrainer
    if request.method == "gkd":
        teacher = load_teacher(run, prepared)
        _disturb(teacher.model)
        trainer = GkdTrainer(run, prepared, run.job.method, teacher)  # type: ignore[arg-type]
    else:
        trainer = GrpoTrainer(run, prepared, run.job.method)  # type: ignore[arg-type]
        trainer.reward_functions = {"answer": lambda examples, texts, step: _rewards(len(texts))}
    lengths, phases = Lengths(trainer.prompts, request.group), Phases()
    force_atlas(lengths, prepared.tokenizer.eos_token_id)
    engine.roll_out = phases.timed("generate", engine.roll_out)
    return trainer, phases, lengths


def _trl(request: Request, directory: Path) -> tuple[Trainer, Phases, Lengths]:
    tokenizer = AutoTokenizer.from_pretrained(request.model)
    model = AutoModelForCausalLM.from_pretrained(request.model, dtype=torch.float32)
    job = JobSpec.model_validate(request.job())
    examples = list(job.dataset.load().train)
    prompts = encode_prompts(tokenizer, [render_prompt(tokenizer, example.messages) for example in examples])
    lengths, phases = Lengths(prompts, request.group), Phases()
    common = {
        "output_dir": str(directory),
        "max_steps": 2,
        "learning_rate": 1e-6,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": request.micro_batch,
        "gradient_accumulation_steps": request.rows // request.micro_batch,
        "bf16": False,
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": SEED,
    }
    trainer = TRL[request.method][request.what](request, common, model, tokenizer, examples)
    plain = model.generate

    def generate(*args: Any, **kwargs: Any) -> Any:
        forcing = LogitsProcessorList([Forcing(lengths, tokenizer.eos_token_id)])
        with phases.phase("generate"):
            return plain(*args, logits_processor=forcing, **kwargs)

    model.generate = generate
    return trainer, phases, lengths


def _distillation(request: Request, common: dict[str, Any], model: Any, tokenizer: Any, examples: Any) -> Trainer:
    config = DistillationConfig(**common, gradient_checkpointing=False, max_completion_length=LONGEST, beta=1.0)
    data = Dataset.from_list([{"prompt": list(example.messages)} for example in examples])
    return DistillationTrainer(model, _teacher(request.model), config, data, processing_class=tokenizer)


def _gkd(
    request: Request, common: dict[str, Any], model: Any, tokenizer: Any, examples: Any, **options: Any
) -> Trainer:
    config = GKDConfig(**common, **options, max_new_tokens=LONGEST, lmbda=1.0, beta=1.0, temperature=1.0)
    data = Dataset.from_list([{"messages": _with_solution(example)} for example in examples])
    teacher = _teacher(request.model)
    return GKDTrainer(model, teacher, config, train_dataset=data, processing_class=tokenizer)


def _gkd_plain(*args: Any) -> Trainer:
    return _gkd(*args, gradient_checkpointing=False)


def _grpo(request: Request, common: dict[str, Any], model: Any, tokenizer: Any, examples: Any) -> Trainer:
    config = GRPOConfig(
        **common,
        gradient_checkpointing=False,
        max_completion_length=LONGEST,
        num_generations=GROUP,
        scale_rewards=False,
    )
    data = Dataset.from_list([{"prompt": list(example.messages)} for example in examples])
    reward = lambda prompts, **columns: _rewards(len(prompts))  # noqa: E731
    return GRPOTrainer(model, reward, config, data, processing_class=tokenizer)


TRL: dict[str, dict[str, Callable[..., Trainer]]] = {
    "gkd": {"distillation": _distillation, "gkd": _gkd_plain, "gkd_default": _gkd},
    "grpo": {"grpo": _grpo},
}


def _padded(what: str, written: Sequence[rollouts.Rollout], trainer: Any, tokens: int) -> dict[str, Any]:
    """Rollouts as TRL's trainer wants them."""
    left, right = max(len(row.prompt_ids) for row in written), max(len(row.completion_ids) for row in written)
    ids, mask = torch.full((len(written), left + right), 2), torch.zeros(len(written), left + right).long()
    for number, row in enumerate(written):
        span = slice(left - len(row.prompt_ids), left + len(row.completion_ids))
        ids[number, span], mask[number, span] = torch.tensor(row.prompt_ids + row.completion_ids), 1
    if what == "gkd":
        labels = ids.masked_fill(mask == 0, -100)
        labels[:, :left] = -100
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}
    halves = {"prompt_ids": ids[:, :left], "completion_ids": ids[:, left:]}
    halves |= {"prompt_mask": mask[:, :left], "completion_mask": mask[:, left:]}
    if what == "grpo":
        halves["advantages"] = trainer.advantages_R
    return halves | {"num_items_in_batch": torch.tensor(tokens)}


def _teacher(model: str) -> PreTrainedModel:
    teacher = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).requires_grad_(False).eval()
    _disturb(teacher)
    return teacher


@torch.no_grad()
def _disturb(model: PreTrainedModel) -> None:
    generator = torch.Generator().manual_seed(SEED)
    for parameter in model.parameters():
        parameter *= 1 + NOISE * torch.randn(parameter.shape, generator=generator)


def _rewards(rows: int) -> list[float]:
    """Of every group, half: no group is without signal."""
    return [float(row % 2) for row in range(rows)]


def _with_solution(example: Example) -> list[dict[str, str]]:
    assert example.solution is not None
    return [*example.messages, {"role": "assistant", "content": example.solution}]


def _gradient(model: torch.nn.Module) -> torch.Tensor:
    gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    return torch.cat(gradients)


def _run_directory(request: Request, home: Path) -> Path:
    directory = home / "runs" / "engine"
    directory.mkdir(parents=True)
    resolved = JobSpec.model_validate(request.job()).model_dump(mode="json")
    (directory / "spec.json").write_text(json.dumps({"run_id": "engine", "job": resolved}))
    return directory


def _now() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def main() -> None:
    request = Request(**json.loads(sys.argv[1]))
    with tempfile.TemporaryDirectory() as directory:
        result = (agreement if request.what == "agreement" else measure)(request, Path(directory))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
