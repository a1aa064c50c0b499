"""Records what an agent does, as lines that Atlas can review and train on: `docs/traces.md`.

    import atlas.sdk as sdk

    with sdk.session(task="What is 6 times 7?", agent="adder") as s:
        s.attempt("42", model="tiny-1")
        s.outcome("answer", score=1.0, reference="42")

Standard library only. Nothing here raises into the agent: what cannot be written is counted (`status`).
"""

from atlas.sdk import log
from atlas.sdk.capture import Session, configure, current, session, traced
from atlas.sdk.log import status

__all__ = ["Session", "configure", "current", "log", "session", "status", "traced"]
