"""One run: out of the store and its run directory.

E evaluations, P problems.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from atlas.comparison.model import FloatArray, RunResult
from atlas.errors import StoreError
from atlas.job import JobSpec
from atlas.run import CLOCKS
from atlas.store import RunRecord, Store


class _Measured(BaseModel):
    splits: dict[str, dict[str, Any]] = {}
    grader: dict[str, Any] = {}


class _Environment(BaseModel):
    atlas: dict[str, Any] = {}
    packages: dict[str, str] = {}
    gpus: list[dict[str, Any]] = []


class _Submitted(BaseModel):
    git: dict[str, Any] | None = None


class _Summary(BaseModel):
    revisions: dict[str, str | None] = {}


class _Result(BaseModel):
    summary: _Summary = _Summary()


def read_run(store: Store, record: RunRecord, job: JobSpec, arm: str) -> RunResult:
    """What is known of a run now. Files that are not there yet, or were not written by an older Atlas, are empty.

    Raises StoreError for a file that cannot be understood.
    """
    latest = store.latest(record.id)
    evaluations = store.metrics(record.id, "eval/pass_rate")
    steps_E = tuple(step for step, _ in evaluations)
    readings = store.clocks(record.id, "eval/pass_rate")
    unknown = dict.fromkeys(CLOCKS, np.nan)
    test_step = _test_step(record, job, latest, steps_E)
    test_problems_P, test_correct_P = _test_outcomes(store, record.id, test_step, latest)
    run_dir = Path(record.run_dir)
    measured = _document(run_dir / "splits.json", _Measured)
    return RunResult(
        id=record.id,
        arm=arm,
        seed=job.seed,
        state=record.state,
        failure=": ".join(part for part in (record.reason, record.message) if part)
        if record.state != "succeeded"
        else "",
        job=job,
        planned_steps=record.planned_steps,
        steps_E=steps_E,
        pass_rate_E=np.array([rate for _, rate in evaluations], dtype=np.float64),
        problems=int(latest.get("eval/problems", 0)),
        clocks_E={
            clock: np.array([readings.get(step, unknown)[clock] for step in steps_E], dtype=np.float64)
            for clock in CLOCKS
        },
        test_step=test_step,
        test_problems_P=test_problems_P,
        test_correct_P=test_correct_P,
        used=readings[max(readings)] if readings else {},
        phase_seconds=_phase_seconds(store, record.id, latest),
        reverse_kl=latest.get("train/reverse_kl"),
        splits=measured.get("splits", {}),
        grader=measured.get("grader", {}),
        environment=_last_line(run_dir / "environment.json", _Environment),
        git=_document(run_dir / "spec.json", _Submitted).get("git") or {},
        revisions=_document(run_dir / "result.json", _Result).get("summary", {}).get("revisions", {}),
        teacher_pass_rate=latest.get("eval/teacher_pass_rate"),
        step=record.step,
    )


def _test_step(record: RunRecord, job: JobSpec, latest: dict[str, float], steps_E: tuple[int, ...]) -> int | None:
    """With `split: test` nothing is chosen: the last evaluation of a run that has come to its end is the score."""
    if "test/step" in latest:
        return int(latest["test/step"])
    if job.evaluation.split == "test" and record.state == "succeeded" and steps_E:
        return steps_E[-1]
    return None


def _test_outcomes(
    store: Store, run_id: str, step: int | None, latest: dict[str, float]
) -> tuple[tuple[str, ...], FloatArray | None]:
    """The test problems, and the mean of `correct` for each; (), None until all of them are in the store."""
    outcomes = [] if step is None else store.outcomes(run_id, step, "test")
    scored = latest.get("test/problems", latest.get("eval/problems", len(outcomes)))
    if not outcomes or len(outcomes) < scored:
        return (), None
    return tuple(problem for problem, _ in outcomes), np.array([correct for _, correct in outcomes])


def _phase_seconds(store: Store, run_id: str, latest: dict[str, float]) -> dict[str, float]:
    names = [name for name in sorted(latest) if name.startswith("phase/") and name.endswith("_seconds")]
    totals = store.totals(run_id, names)
    return {name.removeprefix("phase/").removesuffix("_seconds"): totals[name] for name in names}


def _document(file: Path, shape: type[BaseModel]) -> dict[str, Any]:
    return _parsed(file, _read(file), shape)


def _last_line(file: Path, shape: type[BaseModel]) -> dict[str, Any]:
    """The newest whole line of a file that a worker may be writing."""
    lines = _read(file).rpartition(b"\n")[0].splitlines()
    return _parsed(file, lines[-1] if lines else b"", shape)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise StoreError(f"cannot read {file}: {error}; put it back or remove it") from error


def _parsed(file: Path, text: bytes, shape: type[BaseModel]) -> dict[str, Any]:
    """The JSON object, whose keys are as `shape` has them or others; {} for no text at all."""
    if not text:
        return {}
    try:
        document = json.loads(text)
        shape.model_validate(document)
    except ValidationError as error:
        found = error.errors()[0]
        where = ".".join(map(str, found["loc"]))
        got = f"got {found['input']!r:.60}"
        raise StoreError(f"{file}: {where or 'content'}: {found['msg']}, {got}; put it back or remove it") from error
    except ValueError as error:
        raise StoreError(f"cannot read {file}: {error}; expected a JSON object: put it back or remove it") from error
    assert isinstance(document, dict)
    return document
