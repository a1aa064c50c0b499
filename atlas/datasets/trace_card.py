"""What became of each session: the card of a dataset of traces."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from atlas.datasets.base import Example
from atlas.traces.sessions import Session


@dataclass
class Account:
    """What a session gives, or why it gives nothing."""

    session: Session
    reason: str | None = None
    """Why it is not learnt from."""
    learnt: list[Example] = field(default_factory=list)
    """What could be learnt from it."""
    asked: list[Example] = field(default_factory=list)
    """What could be held out: one example, or none."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Attempts that are no example of their own, by reason."""

    @property
    def why_unused(self) -> str:
        return self.reason or next(iter(self.left_out), "without attempts")


def card(accounts: Sequence[Account], trained: set[str], held_out: frozenset[str]) -> dict[str, Any]:
    """Counts of sessions: each is trained on, held out or dropped, and of attempts that were left out of those that
    were to be learnt. `trained` and `held_out` are ids of examples."""
    used: list[Account] = []
    dropped: Counter[str] = Counter()
    learnt_from = asked = 0
    for account in accounts:
        ids = {example.id for example in account.learnt}
        if (ids | {example.id for example in account.asked}) & held_out:
            asked += 1
            used.append(account)
        elif ids & trained:
            learnt_from += 1
            used.append(account)
        elif account.reason or not ids:
            dropped[account.why_unused] += 1
        else:
            dropped["beyond train_size"] += 1
    sessions = [account.session for account in used]
    return {
        "sessions": len(accounts),
        "trained_on": learnt_from,
        "held_out": asked,
        "dropped": _counts(dropped.elements()),
        "attempts_left_out": _counts(reason for account in used for reason in account.left_out.elements()),
        "unreviewed": sum(session.status == "unreviewed" for session in sessions),
        "reviewers": _counts(session.review.by for session in sessions if session.review),
        "scorers": _counts(outcome.scorer for session in sessions for outcome in session.final_outcomes()),
        "agents": _counts(session.record.agent or "unnamed" for session in sessions),
        "begun": [_time(choose(session.record.at_seconds for session in sessions)) for choose in (min, max)],
    }


def card_lines(found: Mapping[str, Any]) -> list[str]:
    """The card for a person. It holds names from traces: print it as one prints such."""
    lines = [f"{found['sessions']} sessions: {found['trained_on']} trained on, {found['held_out']} held out"]
    for key in ("dropped", "attempts_left_out", "reviewers", "scorers", "agents"):
        if found[key]:
            told = ", ".join(f"{name} {count}" for name, count in found[key].items())
            lines.append(f"{key.replace('_', ' ')}: {told}")
    if found["unreviewed"]:
        lines.append(f"nobody has reviewed {found['unreviewed']} of them")
    return [*lines, f"begun {found['begun'][0]} to {found['begun'][1]}"]


def _counts(names: Iterable[str]) -> dict[str, int]:
    """The most frequent first; equal ones by name, so that a card does not depend on the order of the sessions."""
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))


def _time(at_seconds: float) -> str:
    return datetime.fromtimestamp(at_seconds, UTC).isoformat(timespec="seconds")
