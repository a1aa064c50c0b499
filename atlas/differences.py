"""Which fields of jobs differ."""

import json
from collections.abc import Mapping
from typing import Any

from atlas.job import JobSpec


def differences(before: JobSpec, now: JobSpec) -> dict[str, tuple[Any, Any]]:
    """Path of every field that differs -> (before, now). A field that one side lacks is None there."""
    found = between({"before": before, "now": now})
    return {path: (values["before"], values["now"]) for path, values in found.items()}


def between(jobs: Mapping[str, JobSpec]) -> dict[str, dict[str, Any]]:
    """Path of every field in which not all jobs are equal -> the value in each. A field that a job lacks is None."""
    flat = {name: _flat(job.model_dump(mode="json")) for name, job in jobs.items()}
    paths = sorted({path for fields in flat.values() for path in fields})
    found: dict[str, dict[str, Any]] = {}
    for path in paths:
        values = {name: fields.get(path) for name, fields in flat.items()}
        is_section = any(other.startswith(f"{path}.") for other in paths)  # absent in one job: its fields say so
        if not is_section and len({json.dumps(value) for value in values.values()}) > 1:
            found[path] = values
    return found


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
