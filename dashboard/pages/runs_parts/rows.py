"""Which runs the page shows, in which order and groups; knows nothing of Streamlit."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from atlas.store.overview import Overview


@dataclass(frozen=True)
class Row:
    """A run as it is now."""

    of: Overview
    state: str
    """As observed: `lost` where the worker is dead."""

    @property
    def id(self) -> str:
        return self.of.run.id

    @property
    def share_done(self) -> float | None:
        """Of the planned steps; None if these are not known."""
        run = self.of.run
        if run.planned_steps is None or run.step is None:
            return None
        return 1.0 if run.planned_steps == 0 else min(1.0, run.step / run.planned_steps)


@dataclass(frozen=True)
class Asked:
    """What the visitor wants to see."""

    words: str = ""
    """All of them must be in the id, the tags, the notes, the method or the models."""
    states: Sequence[str] = ()
    experiments: Sequence[str] = ()
    sort: str = "newest"
    group: str = "none"


SORTS: dict[str, Callable[[Row], tuple[float, str]]] = {
    "newest": lambda row: (-row.of.run.created_seconds, ""),
    "oldest": lambda row: (row.of.run.created_seconds, ""),
    "pass rate": lambda row: (-_number(row.of.score.pass_rate if row.of.score else None), ""),
    "device time": lambda row: (-_number(row.of.device_seconds), ""),
    "name": lambda row: (0, row.id),
    "state": lambda row: (0, row.state),
    "method": lambda row: (0, row.of.run.method),
    "student": lambda row: (0, row.of.run.student),
}
GROUPS: dict[str, Callable[[Row], str]] = {
    "none": lambda row: "",
    "experiment": lambda row: row.of.experiment or "no experiment",
    "method": lambda row: row.of.run.method,
    "state": lambda row: row.state,
    "student": lambda row: row.of.run.student,
}


def shown(rows: Sequence[Row], asked: Asked) -> list[tuple[str, list[Row]]]:
    """(group, its rows), in the order asked for; the groups in the order of their first rows."""
    kept = [row for row in rows if _wanted(row, asked)]
    groups: dict[str, list[Row]] = {}
    for row in sorted(kept, key=SORTS[asked.sort]):
        groups.setdefault(GROUPS[asked.group](row), []).append(row)
    return list(groups.items())


def _wanted(row: Row, asked: Asked) -> bool:
    run = row.of.run
    if asked.states and row.state not in asked.states:
        return False
    if asked.experiments and row.of.experiment not in asked.experiments:
        return False
    text = "\n".join([run.id, run.name, run.method, run.student, run.teacher or "", run.notes, *run.tags]).lower()
    return all(word in text for word in asked.words.lower().split())


def _number(value: float | None) -> float:
    """To sort by: what is not known, and NaN, come last."""
    return value if value is not None and math.isfinite(value) else -math.inf
