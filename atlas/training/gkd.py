"""On-policy distillation on TRL's DistillationTrainer."""

import random
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedModel
from trl.trainer.distillation_config import DistillationConfig
from trl.trainer.distillation_trainer import DistillationTrainer

from atlas.datasets.base import Example
from atlas.methods.gkd import Gkd
from atlas.run import Run
from atlas.training import load
from atlas.training.loop import Prepared, arguments, fit, prepare
from atlas.training.prompts import check_lengths, encode_solution, render_prompt
from atlas.training.trainer import OnPolicy


def train(run: Run, method: Gkd) -> Path:
    """Runs the job and returns the directory of the trained model. See `loop.fit` for what is raised."""
    prepared = prepare(run)
    teacher = _teacher(run, prepared)
    job, tokenizer, examples = run.job, prepared.tokenizer, prepared.examples
    assert job.training is not None and job.sampling is not None
    check_lengths(prepared.student, tokenizer, examples, [job.sampling.max_completion_length] * len(examples))
    if method.lmbda < 1:
        solutions = [len(encode_solution(tokenizer, example)) for example in examples]
        check_lengths(prepared.student, tokenizer, examples, solutions)
    trainer = GkdTrainer(
        run,
        method=method,
        examples=examples,
        model=prepared.student,
        teacher_model=teacher,
        args=arguments(
            run,
            DistillationConfig,
            job.training.batch_size,
            len(examples),
            beta=method.beta,
            temperature=method.temperature,
            max_completion_length=job.sampling.max_completion_length,
            top_p=job.sampling.top_p,
            top_k=job.sampling.top_k,
            # TRL's own `temperature` is that of the loss, and would be that of the rollouts too.
            generation_kwargs={"temperature": job.sampling.temperature, "use_cache": True},
        ),
        train_dataset=Dataset.from_dict(
            {
                "prompt": [render_prompt(tokenizer, example.messages) for example in examples],
                "index": list(range(len(examples))),
            }
        ),
        processing_class=tokenizer,
        peft_config=prepared.lora,
    )
    return fit(run, trainer, prepared, job.training.batch_size, teacher)


def _teacher(run: Run, prepared: Prepared) -> PreTrainedModel:
    spec = run.job.teacher
    assert spec is not None, "Method.check lets no gkd job without a teacher pass"
    load.check_same_tokenizer(prepared.tokenizer, load.load_tokenizer(spec, prepared.cache))
    teacher = load.load_model(spec, prepared.cache, trainable=False)
    load.check_same_width(prepared.student, teacher)
    run.summary["revisions"]["teacher"] = load.resolved_revision(teacher)
    return teacher


class GkdTrainer(OnPolicy, DistillationTrainer):
    """With probability 1 - lmbda, a whole step learns from the dataset's solutions instead of rollouts.

    arXiv:2306.13649, algorithm 1. The coin depends on seed and step alone, so that a resumed run throws the same.
    """

    def __init__(self, run: Run, method: Gkd, examples: list[Example], **kwargs: Any) -> None:
        self.method, self.examples = method, examples
        self._solutions: list[list[int]] | None = None
        """What the batch at hand learns from, if not from rollouts."""
        super().__init__(run, **kwargs)

    def on_policy(self, step: int) -> bool:
        """Whether the step after `step` learns from rollouts."""
        return random.Random(f"{self.args.seed} {step}").random() < self.method.lmbda

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        on_policy = self.on_policy(self.state.global_step - 1)
        if self.method.lmbda < 1:
            logs["on_policy"] = float(on_policy)
        if on_policy and self.method.beta == 1 and self.method.temperature == 1 and "loss" in logs:
            logs["reverse_kl"] = logs["loss"]  # then, and only then, they are the same thing
        super().log(logs, *args, **kwargs)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Any:
        self._solutions = None
        if not self.on_policy(self.state.global_step):
            rows = [self.examples[row["index"]] for row in inputs]
            self._solutions = [encode_solution(self.processing_class, example) for example in rows]
        return super()._generate_and_score_completions(inputs)

    def _generate(self, prompts: list[str]) -> Any:
        if self._solutions is None:
            return super()._generate(prompts)
        prompt_ids, images, _ = self._tokenize_prompts(prompts)
        return prompt_ids, self._solutions, None, images, []

    def _get_last_hidden_state(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        if model is not self.accelerator.unwrap_model(self.teacher_model):
            return super()._get_last_hidden_state(model, *args, **kwargs)
        with self.phase("teacher"):
            return super()._get_last_hidden_state(model, *args, **kwargs)
