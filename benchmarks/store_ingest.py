"""What a metric point costs: `Store.ingest` against an ORM add and commit, as a user would write it without Atlas.

    python benchmarks/store_ingest.py

Both write the same points into databases of the same schema and settings, in turns; reading and parsing metrics.jsonl
is part of ingesting. Prints the microseconds per point as the median of the repeats, with their range, and the ratio.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from sqlmodel import Session

from atlas.run import CLOCKS
from atlas.store import Store
from atlas.store.models import ClockRow, Metric, MetricKey

REPEATS = 7
VALUES_PER_LINE = 12
INGESTED_LINES = 5000
ORM_LINES = 25
NAMES = [f"train/metric_{number}" for number in range(VALUES_PER_LINE)]


def main() -> None:
    ingest, orm = [], []
    for _ in range(REPEATS):
        ingest.append(_microseconds_per_point_of_ingest())
        orm.append(_microseconds_per_point_of_orm())
    _show("Store.ingest", ingest, INGESTED_LINES)
    _show("ORM add + commit", orm, ORM_LINES)
    ratios = [slow / fast for slow, fast in zip(orm, ingest, strict=True)]
    print(f"ratio            {statistics.median(ratios):8.0f}    ({min(ratios):.0f} to {max(ratios):.0f})")


def _microseconds_per_point_of_ingest() -> float:
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder)) as store:
        run_dir = _queue(store)
        with (run_dir / "metrics.jsonl").open("w") as file:
            for step in range(INGESTED_LINES):
                values = {name: step / 7 + number for number, name in enumerate(NAMES)}
                clocks = {clock: step * 1.5 for clock in CLOCKS}
                file.write(json.dumps({"step": step, "clocks": clocks, "values": values}) + "\n")
        start = time.perf_counter()
        assert store.ingest("run") == INGESTED_LINES
        elapsed_seconds = time.perf_counter() - start
        assert len(store.metrics("run", NAMES[-1])) == INGESTED_LINES
    return elapsed_seconds * 1e6 / (INGESTED_LINES * VALUES_PER_LINE)


def _microseconds_per_point_of_orm() -> float:
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder)) as store:
        _queue(store)
        number = store.run("run").number
        assert number is not None
        with Session(store._writer) as session:
            for key_id, name in enumerate(NAMES, start=1):
                session.add(MetricKey(id=key_id, name=name))
            session.commit()
        start = time.perf_counter()
        for step in range(ORM_LINES):
            with Session(store._writer) as session:
                session.add(ClockRow(run=number, step=step, **{clock: step * 1.5 for clock in CLOCKS}))
                session.commit()
                for key_id in range(1, VALUES_PER_LINE + 1):
                    session.add(Metric(run=number, key_id=key_id, step=step, value=step / 7 + key_id))
                    session.commit()
        elapsed_seconds = time.perf_counter() - start
    return elapsed_seconds * 1e6 / (ORM_LINES * VALUES_PER_LINE)


def _queue(store: Store) -> Path:
    run_dir = store.home / "runs" / "run"
    run_dir.mkdir(parents=True)
    store.enqueue(
        id="run", name="run", method="sft", student="s", teacher=None, dataset="d", executor="local", digest="d",
        spec="{}", run_dir=run_dir,
    )  # fmt: skip
    return run_dir


def _show(name: str, microseconds: Sequence[float], lines: int) -> None:
    points = lines * VALUES_PER_LINE
    print(
        f"{name:16s} {statistics.median(microseconds):8.1f} µs ({min(microseconds):.1f} to {max(microseconds):.1f}), "
        f"{len(microseconds)} repeats of {points} points"
    )


if __name__ == "__main__":
    main()
