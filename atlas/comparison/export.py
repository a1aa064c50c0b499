"""A comparison for other programs: strict JSON, or one line for each run. Numbers are not rounded."""

import csv
import io
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel

from atlas.analysis.curves import peak
from atlas.analysis.seeds import pooled
from atlas.comparison.model import Comparison, RunResult
from atlas.run import CLOCKS

_COLUMNS = [
    "role",
    "arm",
    "seed",
    "run",
    "state",
    "failure",
    "step",
    "planned_steps",
    "split",
    "problems",
    "step0",
    "peak",
    "peak_step",
    "peak_train_seconds",
    "test",
    "test_low",
    "test_high",
    "test_problems",
    "test_step",
    "reverse_kl",
]


def document(comparison: Comparison) -> dict[str, Any]:
    """The whole comparison as JSON has it; NaN and infinities are null."""
    plain = _plain(comparison)
    assert isinstance(plain, dict)
    return plain


def as_csv(comparison: Comparison) -> str:
    """A header and one line for each run: where it started, its peak, its test score, and its clocks at the end.

    `role` is `arm` or `baseline`; what is not known is empty.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, [*_COLUMNS, *CLOCKS], lineterminator="\n")
    writer.writeheader()
    for arm in comparison.arms:
        writer.writerows(_row(run, "arm") for run in arm.runs)
    writer.writerows(_row(run, "baseline") for run in comparison.baselines.values())
    return text.getvalue()


def _row(run: RunResult, role: str) -> dict[str, Any]:
    highest, at = peak(run.pass_rate_E)
    test = None if run.test_correct_P is None else pooled(run.test_correct_P[None, :])
    seconds_E = run.clocks_E["train_seconds"]
    row = {
        "role": role,
        "arm": run.arm,
        "seed": run.seed,
        "run": run.id,
        "state": run.state,
        "failure": run.failure,
        "step": run.step,
        "planned_steps": run.planned_steps,
        "split": run.job.evaluation.split,
        "problems": run.problems,
        "step0": run.pass_rate_E[0] if run.steps_E[:1] == (0,) else None,
        "peak": highest,
        "peak_step": run.steps_E[at] if at >= 0 else None,
        "peak_train_seconds": seconds_E[at] if at >= 0 else None,
        "test": test and test.pass_rate,
        "test_low": test and test.low,
        "test_high": test and test.high,
        "test_problems": test and test.problems,
        "test_step": run.test_step,
        "reverse_kl": run.reverse_kl,
        **{clock: run.used.get(clock) for clock in CLOCKS},
    }
    return {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _plain(value.model_dump(mode="json"))
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(entry) for name, entry in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value
