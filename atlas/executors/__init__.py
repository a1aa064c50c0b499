"""The places a job can run, named under `executor:`. To add one: a file here, and a name in this union."""

from typing import Annotated

from pydantic import Field

from atlas.executors.container import ContainerExecutor
from atlas.executors.local import LocalExecutor
from atlas.executors.ray import RayExecutor
from atlas.executors.slurm import SlurmExecutor

AnyExecutor = Annotated[LocalExecutor | ContainerExecutor | RayExecutor | SlurmExecutor, Field(discriminator="type")]

__all__ = ["AnyExecutor", "ContainerExecutor", "LocalExecutor", "RayExecutor", "SlurmExecutor"]
