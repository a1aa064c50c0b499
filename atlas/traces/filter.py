"""Which sessions are meant: the same choice for the command line, the dashboard and a dataset."""

from dataclasses import dataclass
from typing import Literal

from atlas.traces.sessions import Session

Outcome = Literal["passed", "failed", "unscored"]


@dataclass(frozen=True)
class Filter:
    """All that is given must hold. None or empty: no matter."""

    status: tuple[str, ...] = ()
    """Review states, any of them."""
    scorer: str | None = None
    """Sessions with a final outcome of this scorer; it is also whose `outcome` is meant."""
    outcome: Outcome | None = None
    tags: tuple[str, ...] = ()
    """All of them."""
    agent: str | None = None
    since_seconds: float | None = None
    """Begun at or after this Unix time."""
    until_seconds: float | None = None
    """Begun before this Unix time."""
    text: str | None = None
    """Part of the task, whatever the case."""

    def why_not(self, session: Session) -> str | None:
        """The first reason why a session is not meant, in words that can be counted; None if it is."""
        if self.status and session.status not in self.status:
            return session.status
        if self.since_seconds is not None and session.record.at_seconds < self.since_seconds:
            return "begun too early"
        if self.until_seconds is not None and session.record.at_seconds >= self.until_seconds:
            return "begun too late"
        if not set(self.tags) <= set(session.record.tags):
            return f"not tagged {', '.join(sorted(set(self.tags) - set(session.record.tags)))}"
        if self.agent is not None and session.record.agent != self.agent:
            return f"not of agent {self.agent}"
        if self.text is not None and self.text.casefold() not in session.text.casefold():
            return "task without the text"
        if self.scorer is not None and self.scorer not in {o.scorer for o in session.final_outcomes()}:
            return f"not scored by {self.scorer} after the last attempt"
        found = {True: "passed", False: "failed", None: "unscored"}[session.passed(self.scorer)]
        if self.outcome is not None and found != self.outcome:
            return found
        return None
