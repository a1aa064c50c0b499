"""Where a session stands among those that are listed; knows nothing of Streamlit."""

import math
from dataclasses import dataclass, replace

from atlas.store.traces import SessionRow, TraceStore
from atlas.traces.filter import Filter


@dataclass(frozen=True)
class Place:
    """In a list with the newest session first. The session itself need not be in it: then `number` is None."""

    number: int | None
    """From 1."""
    before: str | None
    """Id of the session above it."""
    after: str | None
    """Id of the session below it."""


def place_of(store: TraceStore, filter: Filter, row: SessionRow) -> Place:
    """Found by the time at which the session began, so that a list of any length is not read."""
    just_later = math.nextafter(row.at_seconds, math.inf)
    since, until = filter.since_seconds, filter.until_seconds
    newer = store.count(replace(filter, since_seconds=max(just_later, just_later if since is None else since)))
    tied = store.count(
        replace(
            filter,
            since_seconds=max(row.at_seconds, row.at_seconds if since is None else since),
            until_seconds=min(just_later, just_later if until is None else until),
        )
    )
    first = max(0, newer - 1)
    around = [(other.at_seconds, other.id) for other in store.rows(filter, limit=tied + 2, offset=first)]
    here = (row.at_seconds, row.id)
    above = [other for other in around if other > here]
    below = [other for other in around if other < here]
    return Place(
        number=first + len(above) + 1 if here in around else None,
        before=above[-1][1] if above else None,
        after=below[0][1] if below else None,
    )
