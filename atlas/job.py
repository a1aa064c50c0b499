"""A job: student, teacher, method, dataset, and everything needed to run them again."""

import hashlib
import json
from typing import Literal

from pydantic import Field, model_validator

from atlas.datasets import AnyDataset
from atlas.executors import AnyExecutor, LocalExecutor
from atlas.methods import AnyMethod
from atlas.spec import (
    SPEC_VERSION,
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
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")
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
    tags: list[str] = []
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
