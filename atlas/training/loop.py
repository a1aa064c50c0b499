"""The life of a training run inside the worker, the same for every method: prepare, fit, export."""

import json
import logging
from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig
from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, set_seed
from transformers.utils.logging import disable_progress_bar

from atlas.datasets.base import Example
from atlas.errors import RunFailed
from atlas.run import Run, Stopped
from atlas.spec import TrainingSpec
from atlas.training import checkpoints, load, ranks
from atlas.training.allocator import return_large_blocks
from atlas.training.budget import used_up
from atlas.training.chat_template import check_chat_template
from atlas.training.evaluation import Evaluator
from atlas.training.export import export, write_model_cards
from atlas.training.trainer import Measured, Recorder

if TYPE_CHECKING:
    from atlas.training.teacher import Teacher

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """What every method needs before it can build its trainer."""

    tokenizer: PreTrainedTokenizerBase
    student: PreTrainedModel
    lora: LoraConfig | None
    examples: list[Example]
    """The training split."""
    evaluator: Evaluator
    cache: Path


def prepare(run: Run) -> Prepared:
    """Loads data, tokenizer and student. Raises RunFailed with the reason if they do not fit together."""
    run.progress("load")
    return_large_blocks()
    disable_progress_bar()
    ranks.join()
    job, cache = run.job, run.directory.parents[1] / "cache"
    with ranks.first_goes_ahead():
        splits = job.dataset.load()
        run.record_splits(splits)
        tokenizer = load.load_tokenizer(job.student, cache)
        check_chat_template(tokenizer, splits.train[0].messages)
        set_seed(job.seed)  # the weights of a student from scratch
        student = load.load_model(job.student, cache, trainable=True)
    load.check_vocabulary(student, tokenizer)
    run.summary["revisions"] = {"student": load.resolved_revision(student)}
    evaluator = Evaluator(run, tokenizer, splits)
    evaluator.check_lengths(student)
    lora = load.lora_config(job.student.lora) if job.student.lora else None
    return Prepared(tokenizer, student, lora, list(splits.train), evaluator, cache)


def arguments(run: Run, config: type, prompts_per_step: int, examples: int, **method: Any) -> Any:
    """TRL's config of a method: everything that is common, and `method`'s own arguments.

    Atlas logs, evaluates and saves by itself, so all of transformers' own ways are off. Raises RunFailed(`bad_data`)
    if the training split is smaller than one step.
    """
    spec = _training(run)
    batch_size = spec.batch_size // ranks.size()
    micro_batch_size = min(batch_size, spec.micro_batch_size or batch_size)
    cuda = load.device().type == "cuda"
    return config(
        output_dir=str(run.checkpoints / checkpoints.STAGING),
        max_steps=planned_steps(spec, examples, prompts_per_step),
        per_device_train_batch_size=micro_batch_size,
        gradient_accumulation_steps=batch_size // micro_batch_size,
        learning_rate=spec.learning_rate,
        lr_scheduler_type=_scheduler(spec),
        warmup_steps=spec.warmup_steps,
        weight_decay=spec.weight_decay,
        max_grad_norm=spec.max_grad_norm,
        gradient_checkpointing=spec.gradient_checkpointing,
        bf16=cuda and torch.cuda.is_bf16_supported(),
        use_cpu=not cuda,
        dataloader_pin_memory=cuda,
        seed=run.job.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **method,
    )


def planned_steps(spec: TrainingSpec, examples: int, prompts_per_step: int) -> int:
    """Optimizer steps of the whole run. An epoch leaves out what does not fill a step."""
    if examples < prompts_per_step:
        raise RunFailed(
            "bad_data",
            f"the training split has {examples} examples and one step needs {prompts_per_step}; "
            "lower training.batch_size or use more data",
        )
    if spec.max_steps is not None:
        return spec.max_steps
    assert spec.epochs is not None
    return max(1, ceil(spec.epochs * (examples // prompts_per_step)))


def fit(run: Run, trainer: Measured, prepared: Prepared, teacher: "Teacher | None" = None) -> Path:
    """Trains from the newest complete checkpoint, or from the start, to the planned step or the end of the budget,
    exports the model, and scores on test the checkpoint that was best on dev.

    Raises Stopped, after a checkpoint, if the run was asked to stop.
    """
    limit = run.job.budget.steps if run.job.budget else None
    planned = min(trainer.args.max_steps, limit or trainer.args.max_steps)
    run.progress("train", None, planned)
    checkpoint, reasons = ranks.agreed(lambda: checkpoints.resume_point(run.checkpoints))
    step = checkpoints.step_of(checkpoint) if checkpoint else 0
    _rewind(run, checkpoint, step)
    for reason in reasons:
        run.event("checkpoint_passed_over", reason)
    if step < planned and not ranks.agreed(lambda: used_up(run, step)):
        with ExitStack() as training:
            recorder = Recorder(run, prepared.evaluator, teacher, training)
            trainer.remove_callback(PrinterCallback)
            trainer.add_callback(recorder)
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if recorder.stopped:
            raise Stopped
    else:
        run.progress("train", step, step)
        trainer._load_from_checkpoint(str(checkpoint))
        # Training measures in mixed precision on a GPU, and so does what is measured without it.
        trainer.accelerator.prepare_model(trainer.model, evaluation_mode=True)
        if ranks.agreed(lambda: prepared.evaluator.due(step, last=True)):
            prepared.evaluator.student(trainer.model, step)
    exported = export(run, trainer.model, prepared.tokenizer)
    if prepared.evaluator.chooses:
        _score_test(run, trainer, prepared)
    if ranks.rank() == 0:
        write_model_cards(run)
    return exported


def _rewind(run: Run, checkpoint: Path | None, step: int) -> None:
    if checkpoint is None:
        if run.rank == 0 and '"values"' in (run.directory / "metrics.jsonl").read_text():
            run.rewind(-1)  # an earlier attempt ended before its first checkpoint
        return
    run.clock.restore(json.loads((checkpoint / checkpoints.CLOCKS).read_text()))
    run.summary.update(json.loads((checkpoint / checkpoints.SUMMARY).read_text()))
    run.rewind(step)
    run.event("resume", f"goes on after step {step}")


def _score_test(run: Run, trainer: Measured, prepared: Prepared) -> None:
    """Puts the weights that were best on dev into the model and scores them."""
    run.progress("load")
    best, last = run.summary["best"]["step"], run.step
    weights = checkpoints.best_weights(run.checkpoints, best)
    if weights.is_dir():
        run.summary["best_checkpoint"] = str(weights)
    with ExitStack() as without_adapter:
        if best == 0 and prepared.lora:
            without_adapter.enter_context(trainer.model.disable_adapter())
        elif best == 0:
            student = run.job.student
            revision = run.summary["revisions"]["student"] or student.revision  # a branch may have moved on
            set_seed(run.job.seed)
            load.load_again(trainer.model, student.model_copy(update={"revision": revision}), prepared.cache)
        elif best < last:
            _load_best(trainer, weights)
        prepared.evaluator.test(trainer.model, last)


def _load_best(trainer: Measured, weights: Path) -> None:
    try:
        trainer._load_from_checkpoint(str(weights))
    except (ValueError, SafetensorError) as error:  # not there, or torn
        raise RunFailed(
            "bad_checkpoint",
            f"the weights that were best on dev cannot be read, so test cannot be scored: {error}; put {weights} back "
            "and `atlas resume` the run, or start over with `atlas rerun`",
        ) from error


def _scheduler(spec: TrainingSpec) -> str:
    # transformers' "constant" ignores warmup_steps.
    constant = "constant_with_warmup" if spec.warmup_steps else "constant"
    return constant if spec.lr_scheduler_type == "constant" else spec.lr_scheduler_type


def _training(run: Run) -> TrainingSpec:
    assert run.job.training is not None, "Method.check lets no job without training pass"
    return run.job.training
