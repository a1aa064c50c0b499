"""A job: student, teacher, method, dataset, and everything needed to run them again."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from atlas.datasets import AnyDataset
from atlas.datasets.base import Splits
from atlas.diagnosis import validate
from atlas.errors import Problem, SpecError
from atlas.executors import AnyExecutor, LocalExecutor
from atlas.methods import AnyMethod
from atlas.model_checks import check_model, check_pair
from atlas.models import config_of, context_length
from atlas.network import has_key
from atlas.provenance import gpus
from atlas.source import Source, read
from atlas.spec import (
    SPEC_VERSION,
    BudgetSpec,
    EvaluationSpec,
    ModelSpec,
    ResourcesSpec,
    SamplingSpec,
    Spec,
    StudentSpec,
    TrainingSpec,
    WandbSpec,
)


class JobSpec(Spec):
    """One run: a student learns from a dataset by a method, perhaps from a teacher."""

    version: int = Field(SPEC_VERSION, ge=1)
    """Version of this file format."""
    kind: Literal["job"] = "job"
    """What the file describes."""
    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$",
        json_schema_extra={
            "patternErrorMessage": "only a-z 0-9 - _ . (at most 100) and it must start with a letter or digit"
        },
    )
    """Name of the job: a-z 0-9 - _ . only. Runs of the same name are compared by `atlas plan`."""
    student: StudentSpec
    """The model that learns."""
    teacher: ModelSpec | None = None
    """The model that is learnt from, for methods that have one."""
    method: AnyMethod
    """The way of learning."""
    dataset: AnyDataset
    """The problems."""
    training: TrainingSpec | None = None
    """The optimizer's loop. Required by every method that trains."""
    budget: BudgetSpec | None = None
    """What training may use. Default: no limit but that of `training`."""
    sampling: SamplingSpec | None = None
    """How rollouts are written, for on-policy methods."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """How the pass rate is measured."""
    executor: AnyExecutor = LocalExecutor()
    """Where the job runs."""
    resources: ResourcesSpec = ResourcesSpec()
    """What the job needs."""
    wandb: WandbSpec | None = None
    """Stream to Weights & Biases as well."""
    seed: int = Field(0, ge=0, le=4294967295)
    """Seed of everything random in training."""
    tags: list[str] = Field(default_factory=list)
    """Words to find the run by."""
    notes: str = ""
    """What you want to remember about this run."""

    @model_validator(mode="after")
    def _resolve_sampling(self) -> "JobSpec":
        """Methods that write rollouts always have sampling settings, so that the stored job shows them."""
        if self.method.samples_rollouts and self.sampling is None:
            object.__setattr__(self, "sampling", SamplingSpec())
        return self

    def digest(self) -> str:
        """sha256 of everything that can change the outcome: two jobs with equal digests are the same job."""
        content = self.model_dump(mode="json", exclude={"tags", "notes", "wandb", "executor"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def load(path: Path | str, overrides: Sequence[str] = ()) -> JobSpec:
    """The job of a YAML file (`-`: standard input), with `a.b=c` overrides; see `atlas.source.read` for how they merge.

    Raises SpecError with every problem of the file, UsageError if it cannot be read. Looks at no other file than
    those it extends: `check` does.
    """
    return validate(read(path, overrides), JobSpec)


def checked(source: Source) -> JobSpec:
    """The job of a file that was read, if it can run on this machine. Raises SpecError as `load` and `check` do."""
    job = validate(source, JobSpec)
    check(job, source)
    return job


def check(job: JobSpec, source: Source | None = None) -> None:
    """Raises SpecError with everything that would keep the job from running on this machine. Needs no network.

    `source` adds the positions in the file to the problems.
    """
    problems = list(_problems(job))
    if problems:
        raise SpecError([source.locate(problem) for problem in problems] if source else problems)


def _problems(job: JobSpec) -> Iterator[Problem]:
    yield from _raised(lambda: job.method.check(job))
    yield from _data_problems(job)
    for role, model in (("student", job.student), ("teacher", job.teacher)):
        if model is not None:
            yield from check_model(model, role)
            yield from _quantization_problems(job, model, role)
    if job.teacher is not None and job.method.needs_teacher and not job.method.aligns_tokenizers:
        yield from check_pair(job.student, job.teacher)
    if job.student.from_scratch and job.method.type != "sft":
        yield Problem(
            f"random weights have nothing to say that {job.method.type} could use; train with sft first",
            "student.from_scratch",
        )
    yield from _vllm_problems(job)
    yield from _ranks_problems(job)
    yield from _context_problems(job)
    yield from _wandb_problems(job)


def _raised(check: Callable[[], None]) -> list[Problem]:
    try:
        check()
    except SpecError as error:
        return error.problems
    return []


def _data_problems(job: JobSpec) -> Iterator[Problem]:
    if job.dataset.test_size == 0:
        yield Problem("nothing to measure on: set dataset.test_size above 0", "evaluation.split")
    if job.evaluation.split == "dev" and job.dataset.dev_size == 0:
        yield Problem(
            "nothing to measure on: set dataset.dev_size above 0, or evaluation.split: test to measure test on the way "
            "and choose no checkpoint",
            "evaluation.split",
        )
    try:
        splits = job.dataset.check()
    except SpecError as error:
        yield from error.problems
        return
    if splits is None or job.training is None:
        return
    there, needed = len(splits.train), job.method.prompts_per_step(job.training.batch_size)
    if there < needed:
        message = f"the training split has {there} examples and one step needs {needed}; lower it or use more data"
        yield Problem(message, "training.batch_size")
    unsolved = next((example.id for example in splits.train if example.solution is None), None)
    if job.method.needs_solutions and unsolved is not None:
        yield Problem(
            f"{job.method.type} imitates worked solutions and example {unsolved} has none; "
            "use a dataset with solutions (of traces, outcome: passed), or method gkd with lmbda 1, or grpo",
            "dataset",
        )
    if job.method.needs_answers:
        yield from _raised(job.dataset.check_reward)
        yield from _unanswered_problems(job, splits)


def _unanswered_problems(job: JobSpec, splits: Splits) -> Iterator[Problem]:
    unanswered = [example.id for example in splits.train if not example.answer]
    if unanswered:
        yield Problem(
            f"{job.method.type} rewards right answers, and of {len(unanswered)} training examples nobody knows the "
            f"answer (the first is {unanswered[0]}); choose those whose answer is known, for traces with "
            "dataset.scorer, or learn with sft or gkd",
            "dataset",
        )


def _quantization_problems(job: JobSpec, model: ModelSpec, role: str) -> Iterator[Problem]:
    if model.quantization is None:
        return
    key = f"{role}.quantization"
    if role == "student" and job.method.trains:
        yield Problem("quantized weights cannot be trained; remove it, or quantize the teacher", key)
    stored = (config_of(model) or {}).get("quantization_config")
    if stored is not None:
        method = stored.get("quant_method", "unknown") if isinstance(stored, dict) else "unknown"
        yield Problem(f"the {role}'s weights are quantized already (quant_method {method!r}); remove this", key)
    if _lacks(job, "torchao"):
        yield Problem("needs torchao, which is not installed; pip install 'atlas[quantization]'", key)
    if model.quantization != "int4":
        return
    if model.dtype not in ("auto", "bfloat16"):
        yield Problem(f"int4 computes in bfloat16, so {model.dtype} would be ignored; remove it", f"{role}.dtype")
    if _without_gpu(job):
        yield Problem("int4 needs a GPU, and this job has none; use int8 or fp8", key)


def _vllm_problems(job: JobSpec) -> Iterator[Problem]:
    sampling = job.sampling
    if sampling is None or sampling.engine == "atlas":
        return
    otherwise, key = "or use engine: atlas", "sampling.engine"
    if _lacks(job, "vllm"):
        yield Problem(f"needs vLLM, which is not installed; pip install 'atlas[vllm]', {otherwise}", key)
    if _without_gpu(job):
        yield Problem("vLLM needs a GPU, and this job has none; use engine: atlas", key)
    if job.method.type == "gkd" and job.method.lmbda == 0:
        yield Problem("the student writes no rollouts (lmbda 0), so this would be ignored; remove it", key)
    message = f"vLLM would give log-probabilities after it, and the losses need those before; remove it, {otherwise}"
    for name in ("top_p", "top_k"):
        if getattr(sampling, name) != SamplingSpec.model_fields[name].default:
            yield Problem(message, f"sampling.{name}")
    if job.student.revision is not None:
        message = f"vLLM through TRL loads no revision; download it and name its directory, {otherwise}"
        yield Problem(message, "student.revision")


def _ranks_problems(job: JobSpec) -> Iterator[Problem]:
    gpus = job.resources.gpus or 1
    if gpus == 1:
        return
    if job.training is None:
        yield Problem(f"method {job.method.type} uses one GPU; set 1 or leave it out", "resources.gpus")
        return
    batch_size, micro_batch_size = job.training.batch_size, job.training.micro_batch_size
    prompts = job.method.prompts_per_step(batch_size)
    if prompts % gpus:
        yield Problem(
            f"the {prompts} prompts of a step cannot be shared equally by {gpus} GPUs; choose a multiple of "
            f"{batch_size // prompts * gpus}, or other resources.gpus",
            "training.batch_size",
        )
    elif (
        micro_batch_size
        and not job.method.samples_rollouts
        and batch_size // gpus % min(micro_batch_size, batch_size // gpus)
    ):
        yield Problem(
            f"must divide what one of {gpus} GPUs learns from in a step, {batch_size // gpus}",
            "training.micro_batch_size",
        )
    if job.sampling is not None and job.sampling.engine == "vllm":
        yield Problem("vLLM writes on one GPU; set resources.gpus: 1, or use engine: atlas", "sampling.engine")


def _lacks(job: JobSpec, package: str) -> bool:
    """Whether the job runs on this machine, as far as that is known, and the package is not there."""
    return isinstance(job.executor, LocalExecutor) and find_spec(package) is None


def _without_gpu(job: JobSpec) -> bool:
    return job.resources.gpus == 0 or (isinstance(job.executor, LocalExecutor) and not gpus())


def _context_problems(job: JobSpec) -> Iterator[Problem]:
    context = context_length(job.student)
    if context is None:
        return
    for section in ("sampling", "evaluation"):
        settings = getattr(job, section)
        if settings is not None and settings.max_completion_length >= context:
            yield Problem(
                f"{settings.max_completion_length} tokens and a prompt do not fit the student's context: "
                f"its max_position_embeddings is {context}",
                f"{section}.max_completion_length",
            )


_WANDB_KEY_LENGTH = 40


def _wandb_problems(job: JobSpec) -> Iterator[Problem]:
    if job.wandb is None or job.wandb.mode == "offline":
        return
    key = os.environ.get("WANDB_API_KEY", "")
    if key and len(key) < _WANDB_KEY_LENGTH:
        message = f"WANDB_API_KEY has {len(key)} characters; a W&B key has at least {_WANDB_KEY_LENGTH}: copy it again"
        yield Problem(message, "wandb")
    if job.wandb.mode == "online" and not has_key():
        yield Problem("WANDB_API_KEY is not set; export it, run `wandb login`, or set mode: auto", "wandb.mode")
