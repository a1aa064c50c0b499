"""Errors a user can fix. Everything else is a bug and is an `assert`.

Each message says what is wrong, what was got, what was expected, and the next step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class AtlasError(Exception):
    """Base of all errors that the command line prints without a traceback and turns into `exit_code`."""

    exit_code = 1


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a spec: where it stands (1-based line and column) and what to do about it."""

    message: str
    path: str = ""
    file: Path | str | None = None
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)
        return ": ".join(part for part in (place, self.path, self.message) if part)


class SpecError(AtlasError):
    """A job that cannot be run as written. Carries every problem of the file at once."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem] | str, path: str = "") -> None:
        self.problems = [Problem(problems, path)] if isinstance(problems, str) else list(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class UsageError(AtlasError):
    """A command line that makes no sense: a missing file, options that exclude each other."""

    exit_code = 2


class NotFoundError(AtlasError):
    """No such run, or more than one run that the given prefix could mean."""

    exit_code = 102


class StoreError(AtlasError):
    """The database cannot be opened, is newer than this Atlas, or refuses a change of state."""

    exit_code = 2


class ExecutorError(AtlasError):
    """A job could not be started, and why."""


class RunFailed(AtlasError):
    """A failure inside a worker whose cause is known.

    `reason` is a word that programs can test: one of `REASONS`.
    """

    exit_code = 100

    def __init__(self, reason: str, message: str) -> None:
        assert reason in REASONS, reason
        self.reason = reason
        super().__init__(message)


REASONS = {
    "out_of_memory": "a device or the host ran out of memory",
    "non_finite_loss": "the loss or a gradient became NaN or infinite",
    "missing_file": "a file that the job names is not there",
    "hub_unreachable": "the Hugging Face hub could not be reached",
    "bad_data": "the dataset does not hold what the job needs",
    "bad_model": "the model or its tokenizer cannot be used for this job",
    "bad_checkpoint": "no checkpoint can be resumed from",
    "missing_package": "a Python package that the job needs is not installed",
    "disk_full": "no space left on the device",
    "killed": "the worker ended without a result",
    "launch_failed": "the executor could not start the worker",
    "error": "an unexpected error: the traceback says where",
}
"""Plain reasons of a failed run, with their meaning."""
