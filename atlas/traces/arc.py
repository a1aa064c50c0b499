"""Session lines as the exporter of Arc's `arc-atlas` SDK writes them become records. What has no place is counted.

An attempt is a step of the plan; the texts of attempts before the last are only in `trajectory_events`, in the TASK_END
of the step. Where there is no reward the exporter writes 0.0, and where nobody validated `valid`: neither is taken for
a measurement. Its ids are numbers of one database, so ids are made of what a session says.
"""

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

_PLACES = {
    "task",
    "final_answer",
    "plan",
    "steps",
    "session_metadata",
    "session_reward",
    "review_status",
    "review_notes",
    "trajectory_events",
}
_IN_ATTEMPT = ("step_id", "description", "tool", "tool_params", "depends_on", "validation")
"""Fields of a step that its last attempt keeps in `metadata`."""
_TASK_END = re.compile(r"step_(\w+)")


@dataclass
class Counts:
    """What became of the fields of Arc's lines, by path."""

    mapped: Counter[str] = field(default_factory=Counter)
    """`path -> where it went`."""
    lost: Counter[str] = field(default_factory=Counter)
    """Path, and why."""
    review_status: Counter[str] = field(default_factory=Counter)
    """Reported, not taken over."""

    def __iadd__(self, other: "Counts") -> "Counts":
        self.mapped += other.mapped
        self.lost += other.lost
        self.review_status += other.review_status
        return self


def is_arc(document: dict[str, Any]) -> bool:
    """Whether a line has the shape of Arc's sessions."""
    arc = "steps" in document or "trajectory_events" in document or "session_metadata" in document
    return arc and "task" in document and "schema_version" not in document and "type" not in document


def records_of(document: dict[str, Any]) -> tuple[list[dict[str, Any]], Counts]:
    """The records of a session line, in their order, not validated yet."""
    session = _Session(document)
    session.convert()
    return session.records, session.counts


class _Session:
    """One line on its way."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.metadata = _dict(document.get("session_metadata"))
        self.events = [_dict(event) for event in _list(document.get("trajectory_events"))]
        self.records: list[dict[str, Any]] = []
        self.counts = Counts()
        self.begin_seconds = _seconds(self.metadata.get("created_at"))
        if self.begin_seconds is None:
            known = [at for event in self.events if (at := _seconds(event.get("created_at"))) is not None]
            self.begin_seconds = min(known, default=0.0)
        self.id = self._session_id()
        self.last: str | None = None
        """The attempt that was made last."""

    def convert(self) -> None:
        self._begin()
        for place, step in enumerate(_list(self.document.get("steps"))):
            self._step(_dict(step), place)
        self._session_reward()
        self._end()
        self._count_the_rest()

    def _session_id(self) -> str:
        """The same for every export of a session, even if it was rewarded or reviewed meanwhile."""
        said = [self.document.get("session_id", self.metadata.get("session_id")), self.metadata.get("created_at")]
        what: Any = [self.document.get("task"), *said] if all(said) else self.document
        return f"arc-{_digest(what)}"

    def _add(self, type: str, at_seconds: float | None = None, **fields: Any) -> str:
        """Appends a record; its id follows from what it says."""
        record: dict[str, Any] = {
            "type": type,
            "session": self.id,
            "at_seconds": self.begin_seconds if at_seconds is None else at_seconds,
            **{name: value for name, value in fields.items() if value is not None},
        }
        count = sum(known["type"] == type for known in self.records)
        record["id"] = self.id if type == "session" else f"{self.id}-{_digest([count, record])}"
        self.records.append(record | {"process": self.id, "sequence": len(self.records)})
        return str(record["id"])

    def _begin(self) -> None:
        kept: dict[str, Any] = {"source": "arc-atlas"}
        if self.document.get("plan"):
            kept["plan"] = self.document["plan"]
            self.counts.mapped["plan -> session.metadata"] += 1
        self._add("session", task=_text(self.document.get("task")), agent="arc", tags=["arc"], metadata=kept)
        self.counts.mapped["task -> session.task"] += 1
        if not self.begin_seconds:
            self.counts.lost["session_metadata.created_at (missing: the session has the time 0)"] += 1

    def _step(self, step: dict[str, Any], place: int) -> None:
        texts = self._texts(step, place)
        notes = [_text(note) for note in _list(step.get("guidance")) if note]
        earlier = max(0, _attempt_count(step) - len(texts))
        if earlier:
            self.counts.lost["steps[].attempts (texts of attempts before the last)"] += earlier
        # A note is given for a retry: it answers an attempt and leads to the next. All come before the last attempt.
        before = max(0, len(notes) - (len(texts) - 1))
        parent = self.last
        for note in notes[:before]:
            parent = self._guidance(note, None)
        for number, text in enumerate(texts):
            final = number == len(texts) - 1
            kept = _IN_ATTEMPT if final else ("step_id",)
            metadata: dict[str, Any] = {name: step[name] for name in kept if step.get(name) is not None}
            if final and step.get("output") and step.get("trace"):
                metadata["trace"] = step["trace"]
                self.counts.mapped["steps[].trace -> attempt.metadata"] += 1
            self.last = self._add("attempt", text=text, parent=parent, metadata=metadata)
            self.counts.mapped["steps[] -> attempt"] += 1
            if not final and before + number < len(notes):
                parent = self._guidance(notes[before + number], self.last)
        for name in step.keys() - {*_IN_ATTEMPT, "trace", "output", "reward", "attempts", "guidance"}:
            self.counts.lost[f"steps[].{name}"] += 1
        for name in step.keys() & {*_IN_ATTEMPT}:
            self.counts.mapped[f"steps[].{name} -> attempt.metadata"] += bool(step[name])
        self._reward(step.get("reward"), "steps[].reward", self.last)
        self._validation(_dict(step.get("validation")))

    def _texts(self, step: dict[str, Any], place: int) -> list[str]:
        """What was tried in a step, as far as it is recorded; never empty."""
        listed = [text for attempt in _list(step.get("attempts")) if (text := _written(attempt))]
        told = [text for event in self.events if (text := _attempt_text(event, step.get("step_id", place)))]
        last = _text(step.get("output")) or _text(step.get("trace"))
        texts = listed or told
        if not last:
            return texts or [""]
        return [*texts[:-1], last] if texts else [last]

    def _guidance(self, note: str, attempt: str | None) -> str:
        self.counts.mapped["steps[].guidance -> intervention"] += 1
        return self._add("intervention", kind="guidance", by="teacher", text=note, parent=attempt)

    def _reward(self, reward: Any, path: str, attempt: str | None) -> None:
        if reward in (None, {}, ""):
            return
        found = reward if isinstance(reward, dict) else {"score": reward}
        score, passed = (
            found.get("score"),
            next((found[n] for n in ("passed", "success") if _is_bool(found.get(n))), None),
        )
        measured = isinstance(score, int | float) and not _is_bool(score) and not _is_placeholder(found)
        if not measured and passed is None:
            self.counts.lost[f"{path} (no measurement: a placeholder, or without a score)"] += 1
            return
        judges = {"judges": found["judges"]} if found.get("judges") else {}
        at_seconds = None if attempt else _seconds(self.metadata.get("completed_at"))
        self._add(
            "outcome",
            at_seconds,
            scorer="arc_reward",
            score=float(score) if measured and score is not None else None,
            passed=passed,
            note=_text(found.get("rationale")) or None,
            parent=attempt,
            metadata=judges,
        )
        self.counts.mapped[f"{path} -> outcome arc_reward"] += 1

    def _validation(self, validation: dict[str, Any]) -> None:
        """The teacher's verdict. Where nobody validated, Arc writes `valid` without a word on where it comes from."""
        valid = validation.get("valid")
        if not _is_bool(valid):
            return
        if valid and "cached" not in validation and not validation.get("guidance"):
            self.counts.lost["steps[].validation (valid by default, not by the teacher)"] += 1
            return
        note = _text(validation.get("guidance")) or None
        self._add("outcome", scorer="arc_validation", passed=valid, note=note, parent=self.last)
        self.counts.mapped["steps[].validation -> outcome arc_validation"] += 1

    def _session_reward(self) -> None:
        self._reward(self.document.get("session_reward"), "session_reward", None)

    def _end(self) -> None:
        status = _text(self.metadata.get("status") or "")
        if status in ("running", "pending") or not (status or self.document.get("final_answer")):
            return
        ended = _seconds(self.metadata.get("completed_at"))
        kept = {
            name: value
            for name, value in self.metadata.items()
            if name not in self.document and name != "review_status"
        }
        self._add(
            "end",
            ended,
            status="failed" if status in ("failed", "error", "cancelled") else "completed",
            answer=_text(self.document.get("final_answer")) or None,
            metadata={"session_metadata": kept} if kept else {},
        )
        self.counts.mapped["final_answer -> end.answer"] += bool(self.document.get("final_answer"))
        self.counts.mapped["session_metadata -> end.metadata"] += bool(kept)

    def _count_the_rest(self) -> None:
        for event in self.events:
            kind = _text(_payload(event).get("event_type") or event.get("type") or "unknown")[:40]
            if kind != "TASK_END":
                self.counts.lost[f"trajectory_events[{kind}]"] += 1
        for name in self.document.keys() - _PLACES - {"session_id"}:
            self.counts.lost[name] += 1
        if self.document.get("review_notes"):
            self.counts.lost["review_notes"] += 1
        review = self.document.get("review_status") or self.metadata.get("review_status")
        if review:
            self.counts.review_status[_text(review)[:40]] += 1


def _payload(event: dict[str, Any]) -> dict[str, Any]:
    inner = _dict(event.get("event"))
    return _dict(inner.get("payload")) or inner


def _attempt_text(event: dict[str, Any], step_id: Any) -> str:
    """What was tried, in the event that ends an attempt of this step; else empty."""
    payload = _payload(event)
    name = _TASK_END.fullmatch(_text(payload.get("name") or ""))
    if payload.get("event_type") != "TASK_END" or not name or name[1] != str(step_id):
        return ""
    return _written(_dict(payload.get("data")).get("output"))


def _written(attempt: Any) -> str:
    """The text of an attempt, whatever holds it; empty where there is none."""
    if isinstance(attempt, str):
        return attempt
    found = _dict(attempt)
    return next((text for name in ("output", "text", "response", "trace") if (text := _text(found.get(name)))), "")


def _attempt_count(step: dict[str, Any]) -> int:
    attempts = step.get("attempts")
    if isinstance(attempts, list):
        return len(attempts)
    return attempts if isinstance(attempts, int) and 0 < attempts < 1000 else 0


def _is_placeholder(reward: dict[str, Any]) -> bool:
    """The exporter writes 0.0 for a reward that was put off or is not there; `raw`, what it was made of, says so."""
    raw = reward.get("raw")
    if isinstance(raw, dict) and "score" not in raw and not reward.get("score"):
        return True
    found: Any = reward
    while isinstance(found, dict):
        if found.get("skipped"):
            return True
        found = found.get("raw")
    return False


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    return [value] if isinstance(value, str) and value else []


def _text(value: Any) -> str:
    """Text as it is; anything else as JSON; nothing as nothing."""
    if value is None or value == {} or value == []:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _seconds(value: Any) -> float | None:
    """Unix time of an ISO date, or of a number."""
    if isinstance(value, int | float) and not _is_bool(value):
        return float(value)
    try:
        at = datetime.fromisoformat(_text(value))
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode("utf-8", "backslashreplace")).hexdigest()[:24]
