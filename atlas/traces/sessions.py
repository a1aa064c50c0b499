"""Sessions, put together from records."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from atlas.traces.records import (
    AnyRecord,
    AttemptRecord,
    EndRecord,
    InterventionRecord,
    OutcomeRecord,
    ReviewRecord,
    SessionRecord,
)

Event = AttemptRecord | InterventionRecord | OutcomeRecord


@dataclass(frozen=True)
class Attempt:
    """An attempt with what was said about it and what it measured."""

    record: AttemptRecord
    interventions: tuple[InterventionRecord, ...] = ()
    outcomes: tuple[OutcomeRecord, ...] = ()


@dataclass(frozen=True)
class Session:
    """One task, from request to final answer. `attempts` are in the order they were made."""

    record: SessionRecord
    attempts: tuple[Attempt, ...] = ()
    interventions: tuple[InterventionRecord, ...] = ()
    """Those that answer no known attempt."""
    outcomes: tuple[OutcomeRecord, ...] = ()
    """Those of the session as a whole that were measured after its last attempt."""
    stale_outcomes: tuple[OutcomeRecord, ...] = ()
    """Those of the session as a whole that an attempt came after, and those of attempts that are not there: what they
    measure is not final, or not known."""
    end: EndRecord | None = None
    """None: the agent is still at it, or was killed."""
    review: ReviewRecord | None = None

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def status(self) -> str:
        return self.review.status if self.review else "unreviewed"

    @property
    def text(self) -> str:
        """The task as one text."""
        return task_text(self.record)

    def final_outcomes(self) -> tuple[OutcomeRecord, ...]:
        """What was measured after the last attempt, the newest of each scorer."""
        last = self.attempts[-1].outcomes if self.attempts else ()
        newest = {outcome.scorer: outcome for outcome in (*last, *self.outcomes)}
        return tuple(newest.values())

    def passed(self, scorer: str | None = None) -> bool | None:
        """Whether the last attempt passed, by the newest outcome of this scorer; without a name, by all scorers
        together. None: not scored, which is neither. A retry that nobody measured has not passed."""
        verdicts = [o.passed for o in self.final_outcomes() if scorer in (None, o.scorer) and o.passed is not None]
        return all(verdicts) if verdicts else None


def task_text(record: SessionRecord) -> str:
    """The task as one text."""
    if isinstance(record.task, str):
        return record.task
    return "\n".join(message.content for message in record.task)


def assemble(records: Iterable[AnyRecord]) -> list[Session]:
    """The sessions of these records, in the order of their beginning. Records whose session is not among them are left
    out: the caller knows which those are."""
    parts: dict[str, _Parts] = {}
    for record in records:
        parts.setdefault(record.session, _Parts()).add(record)
    sessions = [part.session() for part in parts.values() if part.begin is not None]
    return sorted(sessions, key=lambda session: (session.record.at_seconds, session.id))


@dataclass
class _Parts:
    """What belongs to one session."""

    begin: SessionRecord | None = None
    end: EndRecord | None = None
    review: ReviewRecord | None = None
    others: list[Event] = field(default_factory=list)

    def add(self, record: AnyRecord) -> None:
        if isinstance(record, SessionRecord):
            self.begin = record
        elif isinstance(record, EndRecord):
            self.end = record
        elif isinstance(record, ReviewRecord):
            self.review = record
        else:
            self.others.append(record)

    def session(self) -> Session:
        assert self.begin is not None
        ordered = in_order(self.others)
        attempts = [record for record in ordered if isinstance(record, AttemptRecord)]
        known = {attempt.id for attempt in attempts}
        last = ordered.index(attempts[-1]) if attempts else -1
        answers = [record for record in ordered if isinstance(record, InterventionRecord)]
        whole = [
            (place, record)
            for place, record in enumerate(ordered)
            if isinstance(record, OutcomeRecord) and record.parent in (None, self.begin.id)
        ]
        lost = [
            record
            for record in ordered
            if isinstance(record, OutcomeRecord) and record.parent not in (None, self.begin.id, *known)
        ]
        measured = [record for record in ordered if isinstance(record, OutcomeRecord) and record.parent in known]
        return Session(
            record=self.begin,
            attempts=tuple(
                Attempt(
                    attempt,
                    tuple(record for record in answers if record.parent == attempt.id),
                    tuple(record for record in measured if record.parent == attempt.id),
                )
                for attempt in attempts
            ),
            interventions=tuple(record for record in answers if record.parent not in known),
            outcomes=tuple(record for place, record in whole if place > last),
            stale_outcomes=(*(record for place, record in whole if place < last), *lost),
            end=self.end,
            review=self.review,
        )


def in_order(records: Sequence[Event]) -> list[Event]:
    """As they happened: by their sequence where one process wrote them all, else by the clock."""
    if len({record.process for record in records}) == 1 and all(record.sequence is not None for record in records):
        return sorted(records, key=lambda record: record.sequence or 0)
    return sorted(records, key=lambda record: record.at_seconds)
