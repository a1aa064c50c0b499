import itertools

import pytest

from atlas.errors import NotFoundError, StoreError
from atlas.store import ENDED, STATES

ALLOWED = {
    *(("queued", after) for after in ("claimed", "cancelled")),
    *(("claimed", after) for after in ("queued", "running", "succeeded", "failed", "cancelled", "preempted", "lost")),
    *(("running", after) for after in ("succeeded", "failed", "cancelled", "preempted", "lost")),
    *((before, after) for before in ("preempted", "lost") for after in ("queued", "cancelled")),
}
PATHS = {
    "queued": (),
    "claimed": ("claimed",),
    **{state: ("claimed", "running", state) for state in ("succeeded", "failed", "cancelled", "preempted", "lost")},
    "running": ("claimed", "running"),
}


def bring(store, run_id, state):
    """Asks for a change of state the way a scheduler would."""
    fence = store.run(run_id).fence
    if state == "claimed":
        assert store.claim("s", run_id) is not None
    elif state == "running":
        store.started(run_id, fence, "1:2", [])
    elif state == "queued":
        store.requeue(run_id, fence, "why")
    else:
        store.finish(run_id, fence, state, reason="error", message="why")


@pytest.mark.parametrize(("before", "after"), itertools.product(STATES, [s for s in STATES if s != "claimed"]))
def test_only_the_allowed_changes_of_state_happen(store, queue, before, after):
    queue()
    for state in PATHS[before]:
        bring(store, "a-1", state)
    assert store.run("a-1").state == before
    unchanged, events = store.run("a-1"), store.events("a-1")
    if (before, after) in ALLOWED:
        bring(store, "a-1", after)
        assert store.run("a-1").state == after
        assert store.events("a-1")[-1].kind == after
    else:
        with pytest.raises(StoreError, match=f"is {before} and cannot become {after}"):
            bring(store, "a-1", after)
        assert (store.run("a-1"), store.events("a-1")) == (unchanged, events)


@pytest.mark.parametrize("state", [state for state in STATES if state != "queued"])
def test_only_a_queued_run_can_be_claimed(store, queue, state):
    queue()
    for step in PATHS[state]:
        bring(store, "a-1", step)
    assert store.claim("other") is None
    assert store.claim("other", "a-1") is None


def test_every_change_of_state_is_an_event_with_time_and_reason(store, queue):
    queue()
    for state in ("claimed", "running", "preempted", "queued", "claimed", "running", "failed"):
        bring(store, "a-1", state)
    events = store.events("a-1")
    assert [event.kind for event in events] == [
        "queued", "claimed", "running", "preempted", "queued", "claimed", "running", "failed",
    ]  # fmt: skip
    assert events[-1].message == "error: why"
    assert all(earlier.at_seconds <= later.at_seconds for earlier, later in itertools.pairwise(events))
    run = store.run("a-1")
    assert run.created_seconds <= run.claimed_seconds <= run.started_seconds <= run.ended_seconds


def test_cancelling_a_queued_run_ends_it_at_once(store, queue):
    queue()
    assert store.request_cancel("a-1") == "cancelled"
    assert store.claim("s") is None
    assert store.run("a-1").ended_seconds is not None


@pytest.mark.parametrize("state", ["claimed", "running", "lost"])
def test_cancelling_a_run_that_may_have_a_worker_is_a_flag(store, queue, state):
    queue()
    for step in PATHS[state]:
        bring(store, "a-1", step)
    assert store.request_cancel("a-1") == state
    assert store.run("a-1").cancel_requested
    store.finish("a-1", 1, "cancelled") if state != "lost" else store.requeue("a-1", 1, "its process is gone")
    assert store.run("a-1").state == "cancelled"


@pytest.mark.parametrize("state", sorted(ENDED))
def test_an_ended_run_cannot_be_cancelled_or_terminated(store, queue, state):
    queue()
    for step in PATHS[state]:
        bring(store, "a-1", step)
    with pytest.raises(StoreError, match=f"has {state} already"):
        store.request_cancel("a-1")
    with pytest.raises(StoreError, match="no worker"):
        store.note_terminated("a-1", 1, 5.0)
    assert store.run("a-1").state == state


def test_the_user_can_resume_what_did_not_succeed(store, running):
    run, _ = running
    store.request_cancel(run.id)
    store.note_terminated(run.id, run.fence, 12.5)
    assert store.run(run.id).terminated_seconds == 12.5
    store.finish(run.id, run.fence, "failed", reason="killed", message="gone", exit_code=137)
    assert store.run(run.id).exit_code == 137
    store.resume(run.id)
    queued = store.run(run.id)
    assert (queued.state, queued.fence > run.fence, queued.cancel_requested) == ("queued", True, False)
    assert (queued.reason, queued.message, queued.exit_code, queued.handle, queued.gpus) == (None, None, None, None, [])
    assert (queued.ended_seconds, queued.terminated_seconds) == (None, None)
    assert [event.kind for event in store.events(run.id)][-2:] == ["resumed", "queued"]


@pytest.mark.parametrize("state", ["queued", "claimed", "running", "succeeded"])
def test_what_runs_or_succeeded_cannot_be_resumed(store, queue, state):
    queue()
    for step in PATHS[state]:
        bring(store, "a-1", step)
    with pytest.raises(StoreError, match=f"is {state} and cannot be resumed"):
        store.resume("a-1")


def test_an_id_is_used_once(store, queue):
    queue()
    with pytest.raises(StoreError, match="there is a run a-1 already"):
        store.enqueue(
            id="a-1", name="b", method="m", student="s", teacher=None, dataset="d", executor="e", digest="d",
            spec="{}", run_dir="/nowhere",
        )  # fmt: skip
    assert store.run("a-1").name == "a"


def test_changing_an_unknown_run_says_so(store):
    with pytest.raises(NotFoundError, match="no run 'nope'"):
        store.request_cancel("nope")
