"""Group relative policy optimization on TRL's GRPOTrainer."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from datasets import Dataset
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import add_fused_lm_head

from atlas.datasets.base import Example
from atlas.job import JobSpec
from atlas.methods.grpo import Grpo
from atlas.run import Run
from atlas.training.loop import arguments, fit, prepare
from atlas.training.prompts import check_lengths, render_prompt
from atlas.training.trainer import OnPolicy


def train(run: Run, method: Grpo) -> Path:
    """Runs the job and returns the directory of the trained model. See `loop.fit` for what is raised."""
    prepared = prepare(run)
    job, tokenizer, examples = run.job, prepared.tokenizer, prepared.examples
    assert job.training is not None and job.sampling is not None
    check_lengths(prepared.student, tokenizer, examples, [job.sampling.max_completion_length] * len(examples))

    functions = reward_functions(job, examples)
    weights = {name: weight for name, weight in method.rewards if weight}
    prompts_per_step = method.prompts_per_step(job.training.batch_size)
    trainer = GrpoTrainer(
        run,
        kl_weight=method.beta,
        model=prepared.student,
        reward_funcs=[functions[name] for name in weights],
        args=arguments(
            run,
            GRPOConfig,
            prompts_per_step,
            len(examples),
            num_generations=method.num_generations,
            reward_weights=list(weights.values()),
            # Completions live for one optimizer step, so that every checkpoint is at a boundary of generation.
            epsilon=method.epsilon,
            loss_type="dapo",
            scale_rewards="group" if method.scale_rewards else "none",
            max_completion_length=job.sampling.max_completion_length,
            temperature=job.sampling.temperature,
            top_p=job.sampling.top_p,
            top_k=job.sampling.top_k,
            generation_kwargs={"use_cache": True},
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
    return fit(run, trainer, prepared, prompts_per_step)


def reward_functions(job: JobSpec, examples: Sequence[Example]) -> dict[str, Callable[..., list[float]]]:
    """What each field of RewardWeights rewards, by its name: completions of one step in, their rewards out.

    TRL logs the mean of each under the function's name.
    """

    def answer(completions: list[str], index: list[int], **_: Any) -> list[float]:
        return [job.dataset.score(examples[i], text) for i, text in zip(index, completions, strict=True)]

    def format(completions: list[str], index: list[int], **_: Any) -> list[float]:
        return [float(job.dataset.grade(examples[i], text).found) for i, text in zip(index, completions, strict=True)]

    def random(completions: list[str], trainer_state: Any, **_: Any) -> list[float]:
        # A coin of its own for each place in the step: a resumed run throws the same ones.
        step = trainer_state.global_step
        return [float(Random(f"{job.seed} {step} {place}").getrandbits(1)) for place in range(len(completions))]

    return {function.__name__: function for function in (answer, format, random)}


class GrpoTrainer(OnPolicy, GRPOTrainer):
    """The reference model of the KL penalty is a copy of the student as it was loaded.

    TRL would load it again by name: another revision than the pinned one, and none at all for a student from scratch.
    With LoRA it is the student without its adapters.
    """

    def __init__(self, run: Run, kl_weight: float, model: Any, peft_config: Any, **kwargs: Any) -> None:
        reference = copy.deepcopy(model) if kl_weight and peft_config is None else None
        super().__init__(run, model=model, peft_config=peft_config, **kwargs)
        self.beta = kl_weight
        if reference is not None:
            reference.requires_grad_(False)
            add_fused_lm_head(reference, temperature=self.temperature)
            self.ref_model = self.accelerator.prepare_model(reference, evaluation_mode=True)

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
        with self.phase("reward"):
            return super()._calculate_rewards(*args, **kwargs)
