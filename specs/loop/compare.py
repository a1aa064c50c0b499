"""What an agent learnt, measured on tasks that it never learnt from: python specs/loop/compare.py BEFORE AFTER

BEFORE and AFTER are tags of sessions in the store of this home, on the same tasks.
"""

import argparse
from collections.abc import Iterable

import numpy as np

from atlas.analysis.intervals import wilson
from atlas.analysis.paired import difference, mcnemar
from atlas.datasets.splits import normalise
from atlas.store import home_from_environment
from atlas.store.traces import TraceStore
from atlas.traces.filter import Filter
from atlas.traces.sessions import Session

SCORERS = {"unaided": "right without help", "answer": "right in the end"}


def comparison(before: Iterable[Session], after: Iterable[Session], approved: Iterable[Session]) -> str:
    """Pass rates and what changed, as a table and in words. Raises ValueError for what cannot be compared: other tasks,
    tasks that may have been learnt from, sessions that nobody measured."""
    sides = _by_task(before), _by_task(after)
    approved_tasks = {normalise(session.text) for session in approved}
    tasks = sorted(sides[0])
    if not tasks or sides[0].keys() != sides[1].keys():
        raise ValueError(f"not the same tasks: {len(sides[0])} before, {len(sides[1])} after")
    if known := approved_tasks & sides[0].keys():
        raise ValueError(f"{len(known)} of {len(tasks)} tasks may have been learnt from, such as {min(known)!r}")
    lines = [
        f"{len(tasks)} fresh tasks; none is among those of the {len(approved_tasks)} that may be learnt from",
        "",
        f"{'':20}{'before':20}{'after':20}{'change':22}gained  lost",
    ]
    for scorer, meaning in SCORERS.items():
        passed = [np.array([_passed(side[task], scorer) for task in tasks], dtype=np.float64) for side in sides]
        rates = [_percent(p.mean(), *wilson(p.sum(), len(tasks))) for p in passed]
        changed, found = difference(passed[1][None], passed[0][None]), mcnemar(passed[0], passed[1])
        change = _percent(changed.value, changed.low, changed.high, "+")
        lines.append(f"{meaning:20}{rates[0]:20}{rates[1]:20}{change:22}{len(found.gained_G):6}{len(found.lost_L):6}")
        if scorer == "unaided":
            claim = _claim(changed.low, changed.high)
    return "\n".join(
        [
            *lines,
            "",
            "In %, with 95 % intervals over tasks: Wilson's of a rate, Student's t of the paired change.",
            f"Without help: {claim}",
            "This is about these two sets of weights: training again with another seed gives others.",
        ]
    )


def _by_task(sessions: Iterable[Session]) -> dict[str, Session]:
    found: dict[str, Session] = {}
    for session in sessions:
        task = normalise(session.text)
        if task in found:
            raise ValueError(f"a task was done twice: {task!r}")
        found[task] = session
    return found


def _passed(session: Session, scorer: str) -> bool:
    passed = session.passed(scorer)
    if passed is None:
        raise ValueError(f"session {session.id} has no verdict of {scorer} after its last attempt")
    return passed


def _percent(value: float, low: float, high: float, sign: str = "") -> str:
    return f"{100 * value:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def _claim(low: float, high: float) -> str:
    if low > 0:
        return "the agent got better; 0 is outside the interval of the change."
    if high < 0:
        return "the agent got worse; 0 is outside the interval of the change."
    return "no difference can be claimed; 0 is inside the interval of the change."


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare an agent before and after training.")
    parser.add_argument("before", help="tag of its sessions before training")
    parser.add_argument("after", help="tag of its sessions after training, on the same tasks")
    arguments = parser.parse_args()
    with TraceStore.open_read_only(home_from_environment()) as store:
        tagged = [store.sessions(Filter(tags=(tag,))) for tag in (arguments.before, arguments.after)]
        try:
            print(comparison(*tagged, store.sessions(Filter(status=("approved",)))))
        except ValueError as error:
            raise SystemExit(f"cannot be compared: {error}") from error
