"""Sessions as an agent would have recorded them, line by line."""

import json
from itertools import count
from pathlib import Path
from typing import Any

_BEGUN = 1_700_000_000.0


class Recorded:
    """The lines of one session. Calls in the order of what happens."""

    _numbers = count()

    def __init__(self, task: Any, id: str | None = None, at_seconds: float | None = None, **fields: Any) -> None:
        self.id = id or f"s{next(self._numbers):05}"
        self.lines: list[dict[str, Any]] = []
        self._at_seconds = _BEGUN if at_seconds is None else at_seconds
        self._last_attempt: str | None = None
        self._add("session", id=self.id, task=task, **fields)

    def attempt(self, text: str, **fields: Any) -> "Recorded":
        self._last_attempt = self._add("attempt", text=text, **fields)
        return self

    def intervene(self, text: str, kind: str = "guidance", by: str = "teacher", **fields: Any) -> "Recorded":
        self._add("intervention", **{"text": text, "kind": kind, "by": by, "parent": self._last_attempt} | fields)
        return self

    def outcome(self, passed: bool | None, reference: str | None = None, scorer: str = "answer", **fields: Any):
        self._add("outcome", **{"passed": passed, "reference": reference, "scorer": scorer} | fields)
        return self

    def reviewed(self, status: str = "approved", by: str = "ann") -> "Recorded":
        self._add("review", status=status, by=by)
        return self

    def _add(self, type: str, **fields: Any) -> str:
        number = len(self.lines)
        line = {"type": type, "id": f"{self.id}-{number}", "session": self.id, "at_seconds": self._at_seconds + number}
        self.lines.append({k: v for k, v in (line | fields).items() if v is not None})
        return str(self.lines[-1]["id"])


def write(path: Path, sessions: list[Recorded]) -> str:
    """The sessions as one file; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for session in sessions for line in session.lines))
    return str(path)


def solved(n: int, **fields: Any) -> Recorded:
    """An approved session that passed at once: n doubled."""
    session = Recorded(f"What is {n} doubled?", **fields)
    return session.attempt(f"{n} + {n} = {2 * n}. The answer is: {2 * n}").outcome(True, str(2 * n)).reviewed()


def corrected(n: int, **fields: Any) -> Recorded:
    """An approved session that passed after guidance."""
    session = Recorded(f"What is {n} doubled?", **fields).attempt(f"It is {n}.").outcome(False, str(2 * n))
    session.intervene("Add it to itself.").attempt(f"So {n} + {n} = {2 * n}. The answer is: {2 * n}")
    return session.outcome(True, str(2 * n)).reviewed()


def failed(n: int, **fields: Any) -> Recorded:
    """An approved session that never passed."""
    session = Recorded(f"What is {n} doubled?", **fields)
    return session.attempt(f"It is {n} already.").outcome(False, str(2 * n)).reviewed()
