"""The Compare page of 100 runs with 100,000 points each: first paint, another clock, and memory.

    python benchmarks/dashboard_page.py [--json] [--folder FOLDER]

Two stores (`benchmarks/dashboard_store.py`): one metric of 100,000 steps, and 20 metrics of 5,000 steps. The page runs
as Streamlit runs it, in this process, through AppTest: all that the server does, with the messages to the browser made
and read, but no network and no drawing. `first paint` begins with nothing remembered and the store not open; the very
first one of a process is `with imports`. `another clock` is a visitor's choice on the page. `curves` is the data of one
chart, `a step on` when all runs have gone on. Each repeat also fetches the rows of that chart by a plain query, `SELECT
step, value`, run after run: the unit of the ratios. Prints CPU time and wall time as the median of the repeats, with
their range. `memory` is by how much the process grew (RSS) from the first to the last third of many choices of clock,
and what `dashboard/curves.py` keeps.

Stores are made in a temporary folder, or kept in FOLDER (1.1 GB) and used again.
"""

import argparse
import json
import logging
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st
from dashboard_store import HARD, MILD, Size, build, go_on
from streamlit.testing.v1 import AppTest

from atlas.comparison.collect import collect
from atlas.store import Store
from dashboard import curves
from dashboard.clocks import CLOCKS

REPEATS = 7
INTERACTIONS = 30
METRIC = "train/loss"
Seconds = tuple[float, float]
"""CPU, wall."""


def main() -> None:
    logging.disable(logging.WARNING)  # Streamlit warns at every choice that there is no browser.
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        results = [_measured(folder, size) for size in (MILD, HARD)]
    if arguments.json:
        print(json.dumps(results, indent=2))
        return
    for result in results:
        _show(result)


def _measured(folder: Path, size: Size) -> dict[str, Any]:
    home = folder / size.name.replace(" ", "-").replace(",", "")
    run_ids = _ids(home) if home.is_dir() else build(home, size)
    os.environ["ATLAS_HOME"] = str(home)
    measured: dict[str, list[Seconds]] = {}

    def timed(name: str, what: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        cpu, wall = time.process_time(), time.perf_counter()
        result = what(*arguments, **options)
        measured.setdefault(name, []).append((time.process_time() - cpu, time.perf_counter() - wall))
        return result

    timed("with imports", _painted, run_ids)
    for _ in range(REPEATS):
        with Store.open_read_only(home) as store:
            timed("plain query", _fetch, store, run_ids)
            timed("curves", curves.curves, store, run_ids, METRIC, "train_seconds")
            timed("curves, another clock", curves.curves, store, run_ids, METRIC, "step")
            go_on(home, size)
            timed("curves, a step on", curves.curves, store, run_ids, METRIC, "step")
            timed("collect", collect, store, run_ids, force=True)
        page = timed("first paint", _painted, run_ids)
        timed("another clock", _choose, page, "step")
    growth = _growth(page)
    return {
        "store": size.name,
        "runs": size.runs,
        "rows": size.rows,
        "database_bytes": (home / "atlas.db").stat().st_size,
        "repeats": REPEATS,
        "cpu_seconds": {name: [cpu for cpu, _ in times] for name, times in measured.items()},
        "wall_seconds": {name: [wall for _, wall in times] for name, times in measured.items()},
        "interactions": INTERACTIONS,
        "growth_bytes": growth,
        "kept_bytes": sum(cache.bytes for cache in curves._CACHES.values()),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _painted(run_ids: list[str]) -> AppTest:
    """The page as a first visitor gets it."""
    st.cache_resource.clear()
    st.cache_data.clear()
    page = AppTest.from_string("from dashboard.pages.compare import page\npage()\n", default_timeout=300)
    page.query_params["run"] = run_ids
    return _checked(page)


def _choose(page: AppTest, clock: str) -> AppTest:
    page.session_state["clock"] = clock
    return _checked(page)


def _checked(page: AppTest) -> AppTest:
    page.run()
    assert not page.exception, page.exception
    return page


def _growth(page: AppTest) -> int:
    names = list(CLOCKS)
    grown = []
    for number in range(INTERACTIONS):
        _choose(page, names[number % len(names)])
        grown.append(_rss_bytes())
    third = INTERACTIONS // 3
    return int(statistics.median(grown[-third:]) - statistics.median(grown[:third]))


def _rss_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _fetch(store: Store, run_ids: list[str]) -> None:
    with store.snapshot() as snapshot:
        query = "SELECT step, value FROM metric WHERE run = ? AND key_id = (SELECT id FROM metric_key WHERE name = ?)"
        for mark in snapshot.marks(run_ids).values():
            snapshot._connection.execute(query, (mark.number, METRIC)).fetchall()


def _ids(home: Path) -> list[str]:
    with Store.open_read_only(home) as store:
        return [run.id for run in store.runs()][::-1]


def _show(result: dict[str, Any]) -> None:
    megabytes = result["database_bytes"] / 1e6
    print(f"{result['runs']} runs, {result['store']}: {result['rows']:,} metric rows, {megabytes:,.0f} MB")
    plain = statistics.median(result["cpu_seconds"]["plain query"])
    for name, cpu in result["cpu_seconds"].items():
        wall = result["wall_seconds"][name]
        print(f"  {name:<22} CPU {_range(cpu)}   wall {_range(wall)}   {statistics.median(cpu) / plain:7.3f} of plain")
    print(
        f"  memory                 {result['growth_bytes'] / 1e6:+.1f} MB over {result['interactions']} choices, "
        f"{result['kept_bytes'] / 1e6:.1f} MB kept, peak {result['peak_rss_bytes'] / 1e6:.0f} MB"
    )


def _range(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):6.3f} s ({min(seconds):.3f} to {max(seconds):.3f})"


if __name__ == "__main__":
    main()
