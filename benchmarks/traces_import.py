"""How fast traces come into the store, and how fast lists of it are.

    python benchmarks/traces_import.py [SESSIONS]

Makes a file of SESSIONS (10,000) sessions with 20 records each, of the length of texts in GSM8K, imports it into a new
store REPEATS times, and again as it is and as a copy. Prints wall and CPU seconds as the median of the repeats, with
their range: the CPU seconds do not depend on what else the machine does.
"""

import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from atlas.store.traces import TraceStore
from atlas.traces.filter import Filter

REPEATS = 3
LOOKS = 20
TASK = "Natalia sold clips to {} of her friends in April, and then she sold half as many clips in May. How many clips?"
TEXT = (
    "Natalia sold {0}/2 clips in May, which is half of {0}. Altogether she sold the sum of both months. #### {0}\n" * 3
)
FILTERS = {
    "all": Filter(),
    "unreviewed": Filter(status=("unreviewed",)),
    "scorer and outcome": Filter(scorer="answer", outcome="passed"),
    "tag, outcome and time": Filter(tags=("part-3",), outcome="failed", since_seconds=1_700_000_500),
    "text of the task": Filter(text="TO 77 OF HER"),
}


def main() -> None:
    sessions = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "traces.jsonl"
        records = make(file, sessions)
        print(f"{sessions} sessions, {records} records, {file.stat().st_size / 2**20:.0f} MiB")
        shutil.copy(file, folder / "copy.jsonl")
        times: dict[str, list[tuple[float, float]]] = {"import": [], "import again": [], "import of a copy": []}
        for repeat in range(REPEATS):
            home = folder / f"home-{repeat}"
            with TraceStore.open(home) as store:
                times["import"].append(timed(lambda: check(store.import_file(file).new, records)))
                times["import again"].append(timed(lambda: check(store.import_file(file).new, 0)))
                times["import of a copy"].append(
                    timed(lambda: check(store.import_file(folder / "copy.jsonl").known, records))
                )
        for what, found in times.items():
            show(what, found, "s", 1)
        with TraceStore.open(home) as store:
            for what, filter in FILTERS.items():
                show(f"count: {what}", [timed(partial(store.count, filter)) for _ in range(LOOKS)], "ms", 1000)
                show(f"ls:    {what}", [timed(partial(store.rows, filter, 50)) for _ in range(LOOKS)], "ms", 1000)
            rule = FILTERS["scorer and outcome"]
            show("approve by rule", [timed(lambda: store.review_all(rule, "approved", "rule:benchmark"))], "ms", 1000)
            approved = Filter(status=("approved",))
            show("export of these", [timed(lambda: store.export(approved, folder / "out.jsonl"))], "s", 1)


def make(file: Path, sessions: int) -> int:
    """Writes the sessions; returns the number of records. Ids are random, as those of the SDK."""
    chance = random.Random(0)
    count = 0

    def id() -> str:
        return f"{chance.getrandbits(128):032x}"

    with file.open("w") as out:
        for number in range(sessions):
            session, passed = id(), number % 2 == 0
            at_seconds = 1_700_000_000 + number
            attempts = [id() for _ in range(6)]
            lines: list[dict[str, Any]] = [
                {"type": "session", "task": TASK.format(number), "agent": "solver", "tags": [f"part-{number % 5}"]}
            ]
            for attempt in attempts:
                lines += [
                    {"type": "attempt", "id": attempt, "text": TEXT.format(number), "model": "student-1",
                     "input_tokens": 120, "output_tokens": 80, "duration_seconds": 0.5},
                    {"type": "intervention", "parent": attempt, "kind": "guidance", "by": "teacher",
                     "text": "Check the sum of both months again."},
                    {"type": "outcome", "parent": attempt, "scorer": "answer", "score": float(passed),
                     "passed": passed, "reference": str(number)},
                ]  # fmt: skip
            lines.append({"type": "end", "status": "completed", "answer": str(number)})
            for sequence, line in enumerate(lines):
                first = {"schema_version": 1, "id": session if sequence == 0 else id(), "session": session}
                clock = {"at_seconds": at_seconds + sequence / 50, "monotonic_seconds": sequence / 50}
                out.write(
                    json.dumps(first | clock | {"process": "host:1:2", "sequence": count + sequence} | line) + "\n"
                )
            count += len(lines)
    return count


def timed(what: Callable[[], object]) -> tuple[float, float]:
    """(wall, CPU) seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    what()
    return time.perf_counter() - wall, time.process_time() - cpu


def check(found: int, expected: int) -> None:
    assert found == expected, f"{found} records, expected {expected}"


def show(what: str, found: list[tuple[float, float]], unit: str, scale: float) -> None:
    walls, cpus = ([scale * value for value in values] for values in zip(*found, strict=True))
    wall, cpu = statistics.median(walls), statistics.median(cpus)
    print(
        f"{what:28} {wall:8.2f} {unit} ({min(walls):.2f} to {max(walls):.2f}),"
        f" CPU {cpu:.2f} {unit} ({min(cpus):.2f} to {max(cpus):.2f})"
    )


if __name__ == "__main__":
    main()
