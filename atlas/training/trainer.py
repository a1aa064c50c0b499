"""What Atlas adds to every TRL trainer: clocks, honest failure, exact prompts, and checkpoints at step boundaries."""

import logging
import math
import resource
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from atlas.errors import RunFailed
from atlas.resources import Meter
from atlas.run import Run, Stopped
from atlas.training import checkpoints, ranks
from atlas.training.budget import used_up
from atlas.training.evaluation import Evaluator

if TYPE_CHECKING:
    from transformers import Trainer as _Trainer

    from atlas.training.teacher import Teacher
else:
    _Trainer = object

logger = logging.getLogger(__name__)

_NOT_LOGGED = (
    "num_tokens",
    "step_time",
    "epoch",
)
"""What TRL says that our clocks say exactly (its counts restart when a run resumes), or that it says twice."""


class Measured(_Trainer):
    """To be put before a trainer: `class Sft(Measured, SFTTrainer)`."""

    def __init__(self, run: Run, **kwargs: Any) -> None:
        self.run = run
        super().__init__(**kwargs)
        ranks.shard(self.model)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        with self.phase("forward_backward"):
            loss = ranks.total(super().training_step(*args, **kwargs))
        self._check_finite("loss", loss)
        return loss

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        self.run.clock.tokens_trained += int(ranks.sum_of(int((inputs["labels"][:, 1:] != -100).sum())))
        return super().compute_loss(model, inputs, *args, **kwargs)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """With the number of the step's tokens in all processes, which the loss is the mean over."""
        batches, tokens = super().get_batch_samples(*args, **kwargs)
        return batches, tokens if tokens is None else ranks.total(torch.as_tensor(tokens))

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        super().log(ranks.means(logs), *args, **kwargs)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Times a block. The GPU is waited for, or its work would be billed to whoever waits next."""
        with self.run.clock.phase(name):
            yield
            if self.args.device.type == "cuda":
                torch.cuda.synchronize()

    def _clip_grad_norm(self, model: Any) -> Any:
        norm = torch.tensor(ranks.number(super()._clip_grad_norm(model)))
        self._check_finite("norm of the gradient", norm)
        return norm

    def _check_finite(self, what: str, value: Any) -> None:
        """Before the optimizer steps, so that the last checkpoint is the last healthy state."""
        number = ranks.number(value)
        if not math.isfinite(number):
            raise RunFailed(
                "non_finite_loss",
                f"the {what} at step {self.state.global_step + 1} is {number}; lower training.learning_rate, "
                "add training.warmup_steps, or use dtype float32",
            )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        run, step = self.run, self.state.global_step
        with run.clock.phase("checkpoint", training=False):
            run.flush()  # before the checkpoint exists, or a crash could lose metrics that are never computed again
            staged = Path(self.args.output_dir) / f"checkpoint-{step}"
            if ranks.rank():
                self._save(str(staged))
                self._save_optimizer_and_scheduler(str(staged))
                return
            super()._save_checkpoint(model, trial)
            (staged / "training_args.bin").unlink()  # a pickle that nobody reads
            saved = checkpoints.commit(staged, run.checkpoints, step, run.clock.readings(), run.summary)
            checkpoints.rotate(run.checkpoints, run.job.training.keep_checkpoints)  # type: ignore[union-attr]
            checkpoints.rotate_best(run.checkpoints, run.summary["best"]["step"])
        run.event("checkpoint", saved.name)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if ranks.size() > 1:
            state_dict = ranks.full_state(self.model)
        if ranks.rank() == 0:
            super()._save(output_dir, state_dict)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if ranks.size() == 1:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        state = ranks.full_optimizer_state(self.optimizer.state_dict())
        if ranks.rank() == 0:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if ranks.size() == 1 or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        state = torch.load(Path(checkpoint) / OPTIMIZER_NAME, map_location="cpu", weights_only=True)
        self.optimizer.load_state_dict(ranks.split_optimizer_state(state, self.optimizer))
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if ranks.size() == 1:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            ranks.load_weights(self.model, Path(resume_from_checkpoint))

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: a run directory explains itself."""

    def _send_telemetry(self) -> None:
        """None: Atlas talks to nobody unless the spec says so."""


class Recorder(TrainerCallback):
    """Logs every step, evaluates and saves when due, and stops when asked to."""

    def __init__(self, run: Run, evaluator: Evaluator, teacher: "Teacher | None", training: ExitStack) -> None:
        """Starts the training clock when all is set up; the clock stops when the caller leaves `training`."""
        self.run, self.evaluator, self.teacher, self._training = run, evaluator, teacher, training
        self.stopped = False
        """Whether training ended early, at a checkpoint, because the run was asked to stop."""
        self._optimizer_phase = ExitStack()
        self._meter = Meter()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        step = state.global_step
        if step == 0 and self.teacher is not None and self.run.job.evaluation.teacher:
            self.evaluator.teacher(self.teacher.model, self.teacher.tokenizer)
        if ranks.agreed(lambda: self.evaluator.due(step, last=False)):
            self.evaluator.student(model, step)
        self.run.progress("train", step, self.run.planned_step)
        self._training.enter_context(self.run.clock.training())

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self._optimizer_phase.enter_context(self.run.clock.phase("optimizer"))

    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self._optimizer_phase.close()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        step = state.global_step
        last = ranks.agreed(lambda: used_up(self.run, step) or step == self.run.planned_step)
        assert self.run.job.training is not None
        control.should_training_stop = last
        control.should_save = last or step % self.run.job.training.save_every_steps == 0
        try:
            if ranks.agreed(lambda: self.run.stop_requested) and not last:
                raise Stopped
            if ranks.agreed(lambda: self.evaluator.due(step, last)):
                self.evaluator.student(model, step)
        except Stopped:
            self.stopped = control.should_save = control.should_training_stop = True
        self.run.progress("train", step, step if last else self.run.planned_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        state.log_history.clear()  # or every checkpoint would repeat the whole of metrics.jsonl
        if logs is None or "train_runtime" in logs:
            return
        values = {_full_name(name): value for name, value in logs.items() if name not in _NOT_LOGGED}
        values |= self.run.clock.take_phases()
        values["memory/peak_bytes"] = _peak_memory_bytes()
        values |= self._meter.reading()
        self.run.log(values, state.global_step)


def _full_name(name: str) -> str:
    return name if name.startswith("alignment/") else f"train/{name}"


def _peak_memory_bytes() -> int:
    """Of the GPU if there is one, otherwise of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
