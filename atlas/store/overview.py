"""Many runs at a glance: what a list of runs shows of each, in a few queries whatever their number."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from atlas.store.experiments import ExperimentRecord
from atlas.store.models import RunRecord
from atlas.store.queries import Queries

_RATES = [f"{split}/{name}" for split in ("eval", "test") for name in ("pass_rate", "pass_rate_low", "pass_rate_high")]


@dataclass(frozen=True)
class Score:
    """A pass rate with its 95 % interval."""

    split: str
    """`dev` or `test`."""
    step: int | None
    """Whose weights were scored; None if that was not recorded."""
    pass_rate: float
    low: float
    high: float
    """NaN where an older Atlas recorded none."""


@dataclass(frozen=True)
class Overview:
    """One run in a list."""

    run: RunRecord
    seed: int | None
    experiment: str | None
    """Id of the newest experiment that the run is of."""
    arm: str | None
    """In that experiment; a baseline is `baseline student` or `baseline teacher`."""
    score: Score | None
    """On test where that was scored, else the newest evaluation. None before the first."""
    evaluations: tuple[tuple[int, float], ...]
    """(step, pass rate) of the evaluations during training, by step."""
    device_seconds: float | None
    """Training time times devices; None before the first metric."""

    @property
    def on_gpu(self) -> bool:
        """Whether `device_seconds` are those of GPUs."""
        return bool(self.run.gpus)


def overviews(store: Queries, runs: Sequence[RunRecord], experiments: Sequence[ExperimentRecord]) -> list[Overview]:
    """These runs in their order; `experiments`, newest first, say what they are of."""
    ids = [run.id for run in runs]
    latest = store.latest_of(ids, [*_RATES, "test/step"])
    evaluations, facts, members = _evaluations(store, runs), _facts(store, runs), _memberships(experiments)
    found = []
    for run in runs:
        assert run.number is not None
        seed, split, device_seconds = facts[run.number]
        experiment, arm = members.get(run.id, (None, None))
        points = evaluations.get(run.number, ())
        score = _score(latest[run.id], split, points)
        found.append(Overview(run, seed, experiment, arm, score, points, device_seconds))
    return found


def _score(latest: Mapping[str, float], split: str | None, evaluations: Sequence[tuple[int, float]]) -> Score | None:
    name = next((name for name in ("test", "eval") if f"{name}/pass_rate" in latest), None)
    if name is None:
        return None
    rate, low, high = (latest.get(f"{name}/pass_rate{end}", math.nan) for end in ("", "_low", "_high"))
    if name == "test":
        step = latest.get("test/step", math.nan)
        return Score("test", int(step) if math.isfinite(step) else None, rate, low, high)
    return Score(split or "dev", evaluations[-1][0] if evaluations else None, rate, low, high)


def _evaluations(store: Queries, runs: Sequence[RunRecord]) -> dict[int, tuple[tuple[int, float], ...]]:
    query = (
        "SELECT run, step, coalesce(value, nonfinite) FROM metric "
        "WHERE run IN (SELECT value FROM json_each(:runs)) "
        "AND key_id = (SELECT id FROM metric_key WHERE name = 'eval/pass_rate') ORDER BY run, step"
    )
    points: dict[int, list[tuple[int, float]]] = {}
    for number, step, value in _rows(store, query, runs):
        points.setdefault(number, []).append((step, float(value)))
    return {number: tuple(of_run) for number, of_run in points.items()}


def _facts(store: Queries, runs: Sequence[RunRecord]) -> dict[int, tuple[int | None, str | None, float | None]]:
    """Number of the run -> seed, split of its evaluations, device seconds so far."""
    query = (
        "SELECT number, json_extract(job, '$.seed'), json_extract(job, '$.evaluation.split'), seconds FROM ("
        "SELECT number, CASE WHEN json_valid(text) THEN text ELSE '{}' END AS job, "
        "(SELECT gpu_seconds FROM clock WHERE clock.run = run.number ORDER BY step DESC LIMIT 1) AS seconds "
        "FROM run JOIN spec_snapshot ON spec_snapshot.digest = run.spec_digest "
        "WHERE number IN (SELECT value FROM json_each(:runs)))"
    )
    return {number: (seed, split, seconds) for number, seed, split, seconds in _rows(store, query, runs)}


def _memberships(experiments: Sequence[ExperimentRecord]) -> dict[str, tuple[str, str]]:
    """Run id -> its newest experiment, and its arm there."""
    found: dict[str, tuple[str, str]] = {}
    for record in experiments:
        for member in record.runs:
            found.setdefault(member.run_id, (record.id, member.arm))
        for role, run_id in record.baselines.items():
            found.setdefault(run_id, (record.id, f"baseline {role}"))
    return found


def _rows(store: Queries, query: str, runs: Sequence[RunRecord]) -> Sequence[Any]:
    with store._reading() as session:
        return session.connection().execute(text(query), {"runs": json.dumps([run.number for run in runs])}).all()
