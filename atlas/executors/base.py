"""What an executor is: the thing that starts a worker somewhere."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from atlas.spec import Spec

HANDLE, GPUS, CPUS = "ATLAS_HANDLE", "ATLAS_GPUS", "ATLAS_CPUS"
"""Environment variables that tell a worker its handle, its GPUs and its CPU cores (`0,1`, or nothing): the machine's
numbers, not a container's."""


THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Variables that say how many threads a worker's libraries start: as many as it has cores, or what the user has set."""
BY_NAME = ("HF_TOKEN", "WANDB_API_KEY", *THREADS)
"""Variables of the user that a worker gets wherever it runs, if they are set."""

Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
"""Name of an environment variable."""


class Executor(Spec, ABC):
    """Starts `python -m atlas.worker RUN_DIR` where the run directory can be seen. Stateless: what it must
    remember is in the handle, a string that the store keeps."""

    places_itself: ClassVar[bool] = False
    """Whether the job's GPUs and cores are found by another queue, such as a cluster's, and not among this machine's:
    then `launch` is given no indices and reads from spec.json what the job asks for."""

    def check(self) -> None:
        """Raises ExecutorError if no job can be started here, before one is queued."""

    @abstractmethod
    def command(
        self, run_dir: Path, document: Mapping[str, Any], gpus: Sequence[int], cpus: Sequence[int]
    ) -> list[str]:
        """The command line that `launch` runs. `document`: the run's spec.json; no secret is in what is returned."""

    @abstractmethod
    def launch(self, run_dir: Path, gpus: Sequence[int], cpus: Sequence[int]) -> str:
        """Starts the worker on these GPU indices (empty: CPU) and these CPU cores alone (empty: whatever the system
        gives it) and returns its handle at once. Raises ExecutorError with the reason if it cannot be started."""

    @abstractmethod
    def alive(self, handle: str) -> bool:
        """Whether the worker still runs. A recycled process id is not alive. Raises ExecutorError where it cannot be
        known now."""

    def overdue(self, handle: str, waited_seconds: float) -> str | None:
        """Why a worker that has not begun this long after `launch` is not waited for any more: what was asked for and
        what there is. None while it may still come, and once it has begun."""
        return None

    def cause_of_end(self, handle: str) -> tuple[str, str] | None:
        """Why a worker that has left no result ended, where more is known here than in its log: one of
        `errors.REASONS`, and a message. Raises ExecutorError where it cannot be known now."""
        return None

    @abstractmethod
    def cpus(self, handle: str) -> list[int]:
        """The CPU cores that the worker was started on; empty if it was given none of its own, or is gone."""

    @abstractmethod
    def terminate(self, handle: str, force: bool = False) -> None:
        """Asks the worker's whole process tree to checkpoint and stop; with `force`, kills it. Idempotent."""
