"""What is remembered of an experiment: which runs belong to it, and what was controlled. The runs know nothing of it.

One JSON file for each submission that changed anything, `experiments/<id>.json` of the home, written once.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from atlas.errors import NotFoundError, StoreError
from atlas.private import open_private

_FOLDER = "experiments"


class Membership(BaseModel):
    """The run of one arm and seed."""

    model_config = ConfigDict(frozen=True)

    arm: str
    seed: int
    run_id: str


class ExperimentRecord(BaseModel):
    """An experiment as it was submitted."""

    model_config = ConfigDict(frozen=True)

    id: str
    """`<name>-<6 hex digits>`."""
    name: str
    submitted_at_seconds: float
    atlas_version: str
    command: str
    spec_file: str | None
    spec_text: str | None
    git: dict[str, Any] | None
    spec: dict[str, Any]
    """The experiment's own fields, resolved; the jobs are with the runs."""
    differences: dict[str, dict[str, Any]]
    """Path of every field in which the arms differ -> arm -> value."""
    runs: list[Membership]
    """By arm in the file's order, then by seed."""
    baselines: dict[str, str]
    """`student`, `teacher` -> run id."""

    @property
    def run_ids(self) -> list[str]:
        """Of all runs, baselines first."""
        return [*self.baselines.values(), *(run.run_id for run in self.runs)]


def write(home: Path, record: ExperimentRecord) -> None:
    """Writes the record of a new experiment, atomically. Raises OSError if it cannot."""
    folder = home / _FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    staged = folder / f"{record.id}.json.part"
    with open_private(staged, "w") as file:
        file.write(record.model_dump_json(indent=2))
        file.flush()
        os.fsync(file.fileno())
    staged.replace(folder / f"{record.id}.json")


def read_all(home: Path) -> list[ExperimentRecord]:
    """All experiments, newest first. Raises StoreError for a file that is none."""
    records = [_read(file) for file in (home / _FOLDER).glob("*.json")]
    return sorted(records, key=lambda record: record.submitted_at_seconds, reverse=True)


def named(records: Sequence[ExperimentRecord], reference: str) -> ExperimentRecord:
    """Of these, newest first: the one of this id, the newest of this name, or the only one whose id starts so.

    Raises NotFoundError if there is none, or if several ids start so.
    """
    for record in records:
        if reference in (record.id, record.name):
            return record
    begun = [record for record in records if reference and record.id.startswith(reference)]
    if len(begun) == 1:
        return begun[0]
    which = f"; {', '.join(record.id for record in begun)} start so" if begun else ""
    raise NotFoundError(f"no experiment {reference!r}{which}; `atlas ls --experiments` shows all")


def _read(file: Path) -> ExperimentRecord:
    try:
        return ExperimentRecord.model_validate(json.loads(file.read_text()))
    except (OSError, ValueError, ValidationError) as error:
        raise StoreError(f"{file} is no record of an experiment: {error}; remove it or put it back") from error
