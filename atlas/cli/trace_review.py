"""One session after another at the terminal."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from atlas.cli.tables import printable
from atlas.cli.trace_display import counted, timeline

if TYPE_CHECKING:
    from atlas.store.traces import TraceStore
    from atlas.traces.records import Status

_STATUSES: "dict[str, Status]" = {"a": "approved", "q": "quarantined"}


def review_sessions(store: "TraceStore", references: Sequence[str], by: str) -> None:
    """Shows each and asks. An answer is a key and, if wanted, the reason; the end of input is an x."""
    done = {"approved": 0, "quarantined": 0}
    for place, reference in enumerate(references, start=1):
        row = store.row(reference)  # before the session: of records that come between, the store refuses the review
        session = store.session(row.id)
        typer.echo(f"\n--- {place} of {len(references)} ---\n{timeline(session, store.reviews(session.id))}")
        key, reason = _answer()
        if key == "x":
            break
        if key in _STATUSES:
            status = _STATUSES[key]
            store.review([session.id], status, by, reason, {row.id: row.records})
            done[status] += 1
            typer.echo(f"{status}{f': {printable(reason)}' if reason else ''}")
    left = len(references) - sum(done.values())
    typer.echo(
        f"approved {done['approved']}, quarantined {done['quarantined']}; {counted(left, 'session')} left as they were"
    )


def _answer() -> tuple[str, str | None]:
    while True:
        typer.echo("[a]pprove, [q]uarantine, [s]kip, e[x]it, with a reason if you like: ", nl=False)
        line = sys.stdin.readline()
        if not line:
            typer.echo()
            return "x", None
        key, _, reason = line.strip().partition(" ")
        if key in ("a", "q", "s", "x"):
            return key, reason.strip() or None
        typer.echo(f"{key!r} is no key here; for example: a the answer is right")
