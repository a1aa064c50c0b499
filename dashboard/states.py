"""States and verdicts as they are written everywhere: a sign and a word, never a colour alone."""

_SIGNS = {
    "queued": "○",
    "claimed": "◔",
    "running": "▶",
    "preempted": "‖",
    "lost": "?",
    "succeeded": "✓",
    "failed": "✕",
    "cancelled": "–",
    # of sessions of agents
    "unreviewed": "○",
    "approved": "✓",
    "quarantined": "⊘",
    "passed": "✓",
    "unscored": "–",
    "no verdict": "–",
    "completed": "✓",
}


def with_sign(state: str, reason: str | None = None) -> str:
    """`✓ succeeded`, `✕ failed: out_of_memory`."""
    why = f": {reason}" if reason and state in ("failed", "lost") else ""
    return f"{_SIGNS.get(state, '·')} {state}{why}"
