"""Supervised fine-tuning on TRL's SFTTrainer."""

from pathlib import Path
from typing import Any

from datasets import Dataset
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from atlas.methods.sft import Sft
from atlas.run import Run
from atlas.training import ranks
from atlas.training.loop import arguments, fit, prepare
from atlas.training.order import Order
from atlas.training.prompts import check_lengths, encode_prompts, encode_solution, render_prompt
from atlas.training.trainer import Measured


def train(run: Run, method: Sft) -> Path:
    """Runs the job and returns the directory of the trained model. See `loop.fit` for what is raised."""
    prepared = prepare(run)
    tokenizer, examples = prepared.tokenizer, prepared.examples
    solutions = [encode_solution(tokenizer, example) for example in examples]
    check_lengths(prepared.student, tokenizer, examples, map(len, solutions))
    prompts = encode_prompts(tokenizer, [render_prompt(tokenizer, example.messages) for example in examples])
    rows = {
        "input_ids": [prompt + solution for prompt, solution in zip(prompts, solutions, strict=True)],
        "labels": [[-100] * len(prompt) + solution for prompt, solution in zip(prompts, solutions, strict=True)],
    }
    assert run.job.training is not None
    batch_size = run.job.training.batch_size
    trainer = SftTrainer(
        run,
        model=prepared.student,
        args=arguments(run, SFTConfig, batch_size, len(examples), max_length=None),
        train_dataset=Dataset.from_dict(rows),
        processing_class=tokenizer,
        peft_config=prepared.lora,
    )
    return fit(run, trainer, prepared)


class SftTrainer(Measured, SFTTrainer):
    """Takes whole batches only, in the order in which the on-policy trainers take the same examples."""

    def _get_train_sampler(self, dataset: Any = None) -> Order:
        args = self.args
        of_rank = args.per_device_train_batch_size * args.gradient_accumulation_steps
        return Order(args.max_steps, len(self.train_dataset), of_rank * ranks.size(), args.seed, ranks.share)
