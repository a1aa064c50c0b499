"""Trace lines, as an agent would leave them."""

import json


def begin(session="s", at_seconds=100.0, **fields):
    return {"type": "session", "id": session, "session": session, "at_seconds": at_seconds, "task": "2 + 2?"} | fields


def attempt(id="a", session="s", at_seconds=101.0, **fields):
    return {"type": "attempt", "id": id, "session": session, "at_seconds": at_seconds, "text": "5"} | fields


def guidance(id="g", session="s", at_seconds=102.0, **fields):
    record = {"type": "intervention", "id": id, "session": session, "at_seconds": at_seconds, "text": "No."}
    return record | {"kind": "guidance", "by": "teacher"} | fields


def outcome(id="o", session="s", at_seconds=103.0, scorer="answer", **fields):
    return {"type": "outcome", "id": id, "session": session, "at_seconds": at_seconds, "scorer": scorer} | fields


def end(id="e", session="s", at_seconds=104.0, **fields):
    return {"type": "end", "id": id, "session": session, "at_seconds": at_seconds, "status": "completed"} | fields


def whole(session="s", at_seconds=100.0, passed=True, scorer="answer", **fields):
    """The records of a session with one attempt."""
    return [
        begin(session, at_seconds, **fields),
        attempt(f"{session}-a", session, at_seconds + 1),
        outcome(f"{session}-o", session, at_seconds + 2, scorer, parent=f"{session}-a", passed=passed),
        end(f"{session}-e", session, at_seconds + 3),
    ]


def write(path, *lines, mode="wb"):
    """Documents as JSON, text and bytes as they are, each with an end."""
    with path.open(mode) as file:
        for line in lines:
            text = line if isinstance(line, str | bytes) else json.dumps(line)
            file.write((text.encode() if isinstance(text, str) else text) + b"\n")
    return path
