"""The states of a run, and which may follow which."""

TRANSITIONS: dict[str, frozenset[str]] = {
    "queued": frozenset({"claimed", "cancelled"}),
    # A scheduler that dies between starting a worker and noting it leaves a claim: the worker's own end may follow.
    "claimed": frozenset({"queued", "running", "succeeded", "failed", "cancelled", "preempted", "lost"}),
    "running": frozenset({"succeeded", "failed", "cancelled", "preempted", "lost"}),
    "preempted": frozenset({"queued", "cancelled"}),
    "lost": frozenset({"queued", "cancelled"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}
"""What a scheduler may do. Only the user's explicit `Store.resume` leads out of an ended state."""

STATES = tuple(TRANSITIONS)
ENDED = frozenset(state for state, following in TRANSITIONS.items() if not following)
"""succeeded, failed, cancelled: nothing changes them."""
AT_REST = ENDED | {"lost"}
"""Nothing happens to the run any more until the user asks for it."""
RESUMABLE = frozenset({"failed", "cancelled", "preempted", "lost"})
"""What `Store.resume` puts back into the queue."""
OVER = ENDED | {"preempted", "lost"}
"""There is no worker any more, as far as is known."""
IDLE = frozenset({"queued", "preempted"})
"""No worker exists, so a cancellation needs nobody's help."""
