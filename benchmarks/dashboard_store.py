"""Stores as large as the dashboard must bear, for `benchmarks/dashboard_page.py`.

The rows are written straight into the database, not by `Store.ingest` from run directories, which saves some minutes.
The runs themselves are made through the store's public API, and the blocks by the SQL of the migration.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atlas.job import JobSpec
from atlas.run import CLOCKS
from atlas.store import Store, enqueue_arguments
from atlas.store.ingest import store_stretch
from atlas.store.migrations.versions.revision_0002 import _FILL
from atlas.store.stream import MetricsStretch

ARMS = 5
EVALUATIONS = 50
PROBLEMS = 100
PHASES = ("generate", "teacher", "forward_backward", "optimizer", "evaluate")


@dataclass(frozen=True)
class Size:
    """Each run logs every metric at every step."""

    name: str
    runs: int
    steps: int
    metrics: tuple[str, ...]

    @property
    def rows(self) -> int:
        return self.runs * self.steps * len(self.metrics)


HARD = Size("one metric of 100,000 steps", 100, 100_000, ("train/loss",))
MILD = Size(
    "20 metrics of 5,000 steps",
    100,
    5_000,
    (
        "train/loss",
        "train/reverse_kl",
        "train/reward",
        "train/entropy",
        "train/completions/mean_length",
        "train/completions/clipped_ratio",
        "train/frac_reward_zero_std",
        *(f"phase/{phase}_seconds" for phase in PHASES),
        *(f"train/metric_{n}" for n in range(8)),
    ),
)


def build(home: Path, size: Size) -> list[str]:
    """Makes the store in `home`; returns the ids of its runs, which have ended: seeds of ARMS arms."""
    with Store.open(home) as store:
        run_ids = [_run(store, number, size) for number in range(size.runs)]
        numbers = [store.run(run_id).number for run_id in run_ids]
    with closing(sqlite3.connect(home / "atlas.db", isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        names = [*size.metrics, "eval/pass_rate", "eval/problems", "test/step", "test/problems", "test/pass_rate"]
        connection.executemany("INSERT INTO metric_key (id, name) VALUES (?, ?)", enumerate(names, start=1))
        connection.execute("BEGIN")
        for number in numbers:
            assert number is not None
            _measure(connection, number, size, names)
        connection.execute(_FILL)
        newest = "SELECT max(step) FROM metric WHERE run = last.run AND key_id = last.key_id"
        connection.execute(
            "INSERT INTO latest SELECT run, key_id, step, value, nonfinite FROM "
            "(SELECT number AS run, metric_key.id AS key_id FROM run JOIN metric_key) AS last "
            "JOIN metric USING (run, key_id) "
            f"WHERE step = ({newest})"
        )
        connection.execute(
            "UPDATE run SET metrics_offset_bytes = 1, step = (SELECT max(step) FROM latest WHERE run = number)"
        )
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("ANALYZE")
    return run_ids


def go_on(home: Path, size: Size) -> None:
    """One step more in every run, as ingesting stores it."""
    with closing(sqlite3.connect(home / "atlas.db", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        runs = connection.execute("SELECT number, step, metrics_offset_bytes FROM run").fetchall()
        for number, step, offset in runs:
            stretch = MetricsStretch(offset, offset + 1)
            stretch.points = [(name, step + 1, 0.5, None) for name in size.metrics]
            stretch.clocks = list(_clocks(range(step + 1, step + 2), 1 + number / size.runs))
            store_stretch(connection, number, stretch)
        connection.execute("COMMIT")


def _run(store: Store, number: int, size: Size) -> str:
    """An ended run without measurements, and the files that a comparison reads."""
    arm, seed = number % ARMS, number // ARMS
    job = JobSpec.model_validate(
        {
            "name": f"arm{arm}-s{seed}",
            "seed": seed,
            "method": {"type": "sft"},
            "student": {"model": "org/student"},
            "dataset": {"type": "gsm8k", "dev_size": PROBLEMS, "test_size": PROBLEMS},
            "training": {"max_steps": size.steps, "learning_rate": 10.0 ** -(arm + 2)},
        }
    ).model_dump(mode="json")
    run_id = f"arm{arm}-s{seed}-{number:06x}"
    document = {
        "run_id": run_id,
        "digest": run_id,
        "submitted_at_seconds": float(number),
        "git": {"commit": "c0ffee", "dirty": False},
        "job": job,
    }
    run_dir = store.home / "runs" / run_id
    run_dir.mkdir(parents=True)
    splits = {name: {"examples": PROBLEMS, "sha256": name * 16} for name in ("dev", "test")}
    (run_dir / "spec.json").write_text(json.dumps(document))
    (run_dir / "splits.json").write_text(json.dumps({"splits": splits, "grader": {"version": 1}}))
    (run_dir / "environment.json").write_text(json.dumps({"packages": {"torch": "2.8.0"}, "gpus": []}) + "\n")
    store.enqueue(**enqueue_arguments(document), run_dir=run_dir)
    run = store.claim("benchmark", run_id)
    assert run is not None
    store.started(run_id, run.fence, "1:2", [])
    store.finish(run_id, run.fence, "succeeded")
    return run_id


def _measure(connection: sqlite3.Connection, run: int, size: Size, names: Sequence[str]) -> None:
    random = np.random.default_rng(run)
    last = size.steps - 1
    insert = f"INSERT INTO metric (run, key_id, step, value) VALUES ({run}, ?, ?, ?)"
    for key_id, name in enumerate(size.metrics, start=1):
        values = np.exp(-np.arange(size.steps) * 3 / size.steps) + random.normal(0, 0.1, size.steps)
        values = np.abs(values) if name.startswith("phase/") else values
        connection.executemany(insert, zip([key_id] * size.steps, range(size.steps), values.tolist(), strict=True))
    evaluations = [*range(0, last, size.steps // EVALUATIONS), last]
    key = {name: key_id for key_id, name in enumerate(names, start=1)}
    rates = np.clip(np.linspace(0.1, 0.4, len(evaluations)) + random.normal(0, 0.02, len(evaluations)), 0, 1)
    for step, rate in zip(evaluations, rates.tolist(), strict=True):
        connection.executemany(insert, [(key["eval/pass_rate"], step, rate), (key["eval/problems"], step, PROBLEMS)])
    connection.executemany(
        insert,
        [(key["test/step"], last, last), (key["test/problems"], last, PROBLEMS), (key["test/pass_rate"], last, 0.4)],
    )
    connection.executemany(
        f"INSERT INTO clock (run, step, {', '.join(CLOCKS)}) VALUES ({run}, ?, ?, ?, ?, ?, ?, ?)",
        _clocks(range(size.steps), seconds_per_step=1 + run / size.runs),
    )
    connection.executemany(
        "INSERT INTO sample (run, step, split, problem_id, sample, completion, found, correct, tokens, clipped) "
        f"VALUES ({run}, {last}, 'test', ?, 0, '#### 4', 1, ?, 3, 0)",
        [(f"p{number}", int(random.random() < 0.4)) for number in range(PROBLEMS)],
    )


def _clocks(steps: Iterable[int], seconds_per_step: float) -> Iterator[tuple[int, *tuple[float, ...]]]:
    for step in steps:
        seconds = step * seconds_per_step
        yield step, 1.5 * seconds, seconds, seconds, 512.0 * step, 256.0 * step, 8.0 * step
