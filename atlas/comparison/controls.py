"""Which differences between arms are what is compared, and which break the comparison."""

from collections.abc import Mapping
from typing import Any

from atlas.comparison.comparable import OF_THE_RUN, decides_measurement
from atlas.comparison.model import Comparison
from atlas.differences import between
from atlas.experiment import COMPARED


def all_differences(comparison: Comparison) -> dict[str, Mapping[str, Any]]:
    """Path -> arm -> value: what the comparison knows, after what differs between runs of an experiment although
    its record does not say so."""
    jobs = {arm.name: arm.runs[0].job for arm in comparison.arms if arm.runs}
    found = {} if comparison.experiment is None else between(jobs)
    undeclared = {
        path: values
        for path, values in found.items()
        if path not in comparison.differences and path.split(".")[0] not in OF_THE_RUN
    }
    return {**undeclared, **comparison.differences}


def why_it_breaks(comparison: Comparison, path: str, values: Mapping[str, Any]) -> str | None:
    """Why a difference in the field `path` keeps the arms from being compared; None for what is compared, or allowed.

    The rule is that of an experiment's file, which Atlas checks when it is submitted; runs that are named singly were
    checked by nobody.
    """
    if comparison.mismatches and decides_measurement(path):
        return "measured in another way"
    if comparison.experiment is not None and path not in comparison.differences:
        return "not in the experiment's record"
    section = path.split(".")[0]
    if section in COMPARED or any(f"{path}.".startswith(f"{allowed}.") for allowed in _allowed(comparison)):
        return None
    if section == "sampling" and not _differs_where_there_is_one(comparison, values):
        return None
    return "outside what is compared: method, teacher, training"


def _allowed(comparison: Comparison) -> list[str]:
    record = comparison.experiment
    return list(record.spec.get("allow_differences") or []) if record else []


def _differs_where_there_is_one(comparison: Comparison, values: Mapping[str, Any]) -> bool:
    """Methods that write nothing have no sampling."""
    there = [values.get(arm.name) for arm in comparison.arms if arm.runs and arm.runs[0].job.sampling is not None]
    return any(value != there[0] for value in there)
