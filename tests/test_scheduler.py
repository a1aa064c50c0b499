"""One round at a time, with a worker that the test plays itself: it writes the files a worker would write."""

import json
import multiprocessing
from pathlib import Path

import pytest

from atlas import scheduler
from atlas.errors import ExecutorError, SpecError
from atlas.executors import LocalExecutor
from atlas.job import JobSpec
from atlas.scheduler import GRACE_SECONDS, scheduler_lock, settle, tick
from atlas.store import Store
from atlas.submission import submit

JOB = {
    "name": "job",
    "student": {"model": "org/student"},
    "method": {"type": "sft"},
    "dataset": {"type": "arithmetic"},
    "training": {"max_steps": 10},
}


class Workers:
    """Stands in for the processes of the local executor."""

    def __init__(self, monkeypatch):
        self.alive, self.launched, self.terminated, self.cores = set(), [], [], {}
        monkeypatch.setattr(LocalExecutor, "launch", lambda _, *arguments: self.launch(*arguments))
        monkeypatch.setattr(LocalExecutor, "cpus", lambda _, handle: self.cores[handle])
        monkeypatch.setattr(LocalExecutor, "alive", lambda _, handle: handle in self.alive)
        monkeypatch.setattr(
            LocalExecutor, "terminate", lambda _, handle, force=False: self.terminated.append((handle, force))
        )

    def launch(self, run_dir, gpus, cpus):
        handle = f"{len(self.launched) + 1}:0"
        self.cores[handle] = list(cpus)
        self.launched.append((Path(run_dir), list(gpus)))
        self.alive.add(handle)
        return handle

    def die(self, number, **result):
        """The given worker (counted from 1) ends, leaving this result.json, or none."""
        self.alive.discard(f"{number}:0")
        if result:
            result = {"step": 10, "planned_step": 10} | result
            (self.launched[number - 1][0] / "result.json").write_text(json.dumps(result))


@pytest.fixture
def workers(monkeypatch):
    return Workers(monkeypatch)


@pytest.fixture
def store(tmp_path):
    return Store.open(tmp_path / "home")


def queue(store, seed=0, **changes):
    return submit(store, JobSpec.model_validate(JOB | {"seed": seed} | changes)).run_id


def test_a_run_goes_from_queued_to_succeeded_and_every_state_is_an_event(store, workers):
    run_id = queue(store)
    assert tick(store, gpus=[])
    assert store.run(run_id).state == "running"
    workers.die(1, state="succeeded")
    assert not tick(store, gpus=[])
    assert store.run(run_id).state == "succeeded"
    kinds = [event.kind for event in store.events(run_id)]
    assert [kind for kind in kinds if ":" not in kind] == ["queued", "claimed", "running", "succeeded"]


def test_one_job_at_a_time_on_the_cpu_in_the_order_of_submission(store, workers):
    first, second = queue(store, 1), queue(store, 2)
    tick(store, gpus=[])
    assert (store.run(first).state, store.run(second).state) == ("running", "queued")
    workers.die(1, state="succeeded")
    tick(store, gpus=[])
    assert store.run(second).state == "running"


def test_each_gpu_runs_one_job_and_a_cpu_job_does_not_wait_for_them(store, workers):
    ids = [queue(store, seed) for seed in range(3)]
    cpu = queue(store, 9, resources={"gpus": 0})
    tick(store, gpus=[4, 5])
    assert [gpus for _, gpus in workers.launched] == [[4], [5], []]
    assert store.run(ids[2]).state == "queued"
    assert store.run(cpu).state == "running"
    workers.die(1, state="succeeded")
    tick(store, gpus=[4, 5])
    assert workers.launched[-1][1] == [4]


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.setattr(scheduler, "cores", lambda: [0, 1, 2, 3])
    monkeypatch.setattr("atlas.submission.cores", lambda: [0, 1, 2, 3])


def queue_on_cores(store, *wanted):
    """One CPU run for each number of cores; None is a run that does not say."""
    earlier = len(store.runs())
    return [queue(store, earlier + i, resources={"gpus": 0, "cpus": cpus}) for i, cpus in enumerate(wanted)]


def states(store, ids):
    return [store.run(run_id).state for run_id in ids]


def test_cpu_runs_are_side_by_side_each_on_cores_of_its_own(store, workers, four_cores):
    ids = queue_on_cores(store, 1, 2, 1, 1)
    tick(store, gpus=[])
    assert states(store, ids) == ["running", "running", "running", "queued"]
    assert workers.cores == {"1:0": [0], "2:0": [1, 2], "3:0": [3]}
    workers.die(2, state="succeeded")
    ids += queue_on_cores(store, 1)
    tick(store, gpus=[])
    assert states(store, ids) == ["running", "succeeded", "running", "running", "running"]
    assert (workers.cores["4:0"], workers.cores["5:0"]) == ([1], [2])


def test_a_scheduler_that_is_started_again_knows_which_cores_are_taken(store, workers, four_cores):
    queue_on_cores(store, 1, 1)
    tick(store, gpus=[])
    workers.die(1, state="succeeded")
    tick(store, gpus=[])
    queue_on_cores(store, 3)
    again = Store.open(store.home)
    tick(again, gpus=[])
    assert workers.cores["3:0"] == [0, 2, 3]


def test_a_cpu_run_that_does_not_say_has_the_whole_cpu(store, workers, four_cores):
    first, whole, last = queue_on_cores(store, 1, None, 1)
    tick(store, gpus=[])
    assert states(store, [first, whole, last]) == ["running", "queued", "queued"]
    workers.die(1, state="succeeded")
    tick(store, gpus=[])
    assert states(store, [whole, last]) == ["running", "queued"]
    assert workers.cores["2:0"] == [], "it is bound to no core"
    workers.die(2, state="succeeded")
    tick(store, gpus=[])
    assert store.run(last).state == "running"


def test_small_runs_do_not_overtake_an_older_one_that_waits_for_cores(store, workers, four_cores):
    ids = queue_on_cores(store, 2, 3, 1)
    gpu = queue(store, 9)
    tick(store, gpus=[0])
    assert states(store, ids) == ["running", "queued", "queued"]
    assert store.run(gpu).state == "running", "the GPUs are not its business"
    workers.die(1, state="succeeded")
    tick(store, gpus=[0])
    assert states(store, ids) == ["succeeded", "running", "running"]


def test_runs_on_gpus_take_no_cores(store, workers, four_cores):
    queue(store)
    tick(store, gpus=[0])
    (cpu,) = queue_on_cores(store, 4)
    tick(store, gpus=[0])
    assert store.run(cpu).state == "running"


def test_more_cores_than_there_are_is_refused_at_submit(store, four_cores):
    with pytest.raises(SpecError, match=r"asks for 5 CPU cores, 4 can be used here; lower it") as caught:
        queue_on_cores(store, 5)
    assert caught.value.problems[0].path == "resources.cpus" and store.runs() == []


def test_a_queued_run_that_can_never_have_its_cores_fails_and_holds_nobody_up(store, workers, four_cores, monkeypatch):
    large, small = queue_on_cores(store, 4, 1)
    monkeypatch.setattr(scheduler, "cores", lambda: [0, 1])
    tick(store, gpus=[])
    assert states(store, [large, small]) == ["failed", "running"]
    run = store.run(large)
    assert run.reason == "launch_failed" and "asks for 4 CPU cores, 2 can be used here" in run.message


def test_metrics_written_just_before_death_are_not_lost(store, workers):
    run_id = queue(store)
    tick(store, gpus=[])
    run_dir, _ = workers.launched[0]
    original = store.ingest

    def write_then_die(*arguments, **options):
        raise AssertionError("metrics were ingested before asking whether the worker lives")

    store.ingest = write_then_die
    alive = LocalExecutor.alive

    def dies_while_asked(self, handle):
        (run_dir / "metrics.jsonl").write_text('{"step": 10, "clocks": {}, "values": {"train/loss": 0.5}}\n')
        workers.die(1, state="succeeded")
        store.ingest = original
        return alive(self, handle)

    LocalExecutor.alive = dies_while_asked
    settle(store)
    assert store.run(run_id).state == "succeeded"
    assert store.metrics(run_id, "train/loss") == [(10, 0.5)]


def test_success_before_the_planned_step_is_a_failure(store, workers):
    run_id = queue(store)
    tick(store, gpus=[])
    workers.die(1, state="succeeded", step=7, planned_step=20)
    settle(store)
    run = store.run(run_id)
    assert run.state == "failed"
    assert "step 7 of 20" in run.message


def test_a_worker_that_dies_without_a_result_fails_with_its_last_words(store, workers):
    run_id = queue(store)
    tick(store, gpus=[])
    (workers.launched[0][0] / "worker.log").write_text("loading\nSegmentation fault\n")
    workers.die(1)
    settle(store)
    run = store.run(run_id)
    assert (run.state, run.reason) == ("failed", "killed")
    assert "Segmentation fault" in run.message and f"atlas resume {run_id}" in run.message


def test_a_dead_worker_whose_log_speaks_of_memory_ran_out_of_it(store, workers):
    run_id = queue(store)
    tick(store, gpus=[])
    (workers.launched[0][0] / "worker.log").write_text("RuntimeError: CUDA out of memory\n")
    workers.die(1)
    settle(store)
    assert store.run(run_id).reason == "out_of_memory"


def test_a_failure_keeps_its_reason_and_ended_runs_stay_ended(store, workers):
    run_id = queue(store)
    tick(store, gpus=[])
    workers.die(1, state="failed", reason="non_finite_loss", message="loss is nan at step 3", step=3)
    settle(store)
    settle(store)
    run = store.run(run_id)
    assert (run.state, run.reason, run.message) == ("failed", "non_finite_loss", "loss is nan at step 3")


def test_cancelling_a_queued_run_needs_no_worker(store, workers):
    run_id = queue(store)
    store.request_cancel(run_id)
    assert store.run(run_id).state == "cancelled"
    assert not tick(store, gpus=[])
    assert workers.launched == []


def test_cancelling_asks_first_and_kills_after_the_grace_period(store, workers):
    run_id = queue(store)
    tick(store, gpus=[])
    store.request_cancel(run_id)
    settle(store, now_seconds=1000.0)
    settle(store, now_seconds=1000.0 + GRACE_SECONDS / 2)
    assert workers.terminated == [("1:0", False)]
    settle(store, now_seconds=1001.0 + GRACE_SECONDS)
    assert workers.terminated == [("1:0", False), ("1:0", True)]
    workers.die(1)
    settle(store)
    assert store.run(run_id).state == "cancelled"


def test_a_worker_stopped_from_outside_continues_by_itself(store, workers):
    run_id = queue(store)
    tick(store, gpus=[])
    workers.die(1, state="stopped", step=4)
    tick(store, gpus=[])
    assert store.run(run_id).state == "running"
    assert len(workers.launched) == 2


def test_a_resumed_run_is_not_judged_by_its_earlier_result(store, workers):
    run_id = queue(store)
    tick(store, gpus=[])
    workers.die(1, state="failed", reason="error", message="first")
    settle(store)
    store.resume(run_id)
    tick(store, gpus=[])
    workers.die(2)
    settle(store)
    assert store.run(run_id).reason == "killed"


def test_a_launch_that_fails_says_why(store, workers, monkeypatch):
    def refuse(self, run_dir, gpus, cpus):
        raise ExecutorError("could not start python: no such file")

    monkeypatch.setattr(LocalExecutor, "launch", refuse)
    run_id = queue(store)
    tick(store, gpus=[])
    run = store.run(run_id)
    assert (run.state, run.reason) == ("failed", "launch_failed")
    assert "no such file" in run.message


def test_a_claim_whose_scheduler_died_is_queued_again(store, workers):
    run_id = queue(store)
    store.claim("dead-host:1", run_id)
    settle(store)
    assert store.run(run_id).state == "claimed", "only the owner of the scheduler's lock may judge a claim"
    tick(store, gpus=[])
    assert store.run(run_id).state == "running"


def test_a_worker_that_finds_its_directory_held_hands_the_run_to_the_one_that_holds_it(store, workers, monkeypatch):
    run_id = queue(store)
    tick(store, gpus=[])
    monkeypatch.setattr(scheduler, "recorded_handle", lambda run_dir: ("earlier", []))
    workers.alive = {"earlier"}
    settle(store)
    assert (store.run(run_id).state, store.run(run_id).handle) == ("running", "earlier")
    workers.alive.clear()
    settle(store)
    assert store.run(run_id).reason == "killed"


def test_a_deleted_run_directory_is_lost_not_running(store, workers):
    run_id = queue(store)
    tick(store, gpus=[])
    run_dir, _ = workers.launched[0]
    for file in run_dir.iterdir():
        file.unlink()
    run_dir.rmdir()
    settle(store)
    assert store.run(run_id).state == "lost"
    assert workers.terminated == [("1:0", False)], "its worker must not keep the device from the next job"


def test_an_executor_that_does_not_answer_is_no_death_and_is_told_once(store, workers, monkeypatch):
    run_id, waiting = queue(store), queue(store, seed=1)
    tick(store, gpus=[])

    def silent(*_):
        raise ExecutorError("the daemon does not answer")

    with monkeypatch.context() as broken:
        broken.setattr(LocalExecutor, "alive", silent)
        broken.setattr(LocalExecutor, "cpus", silent)
        workers.die(1, state="succeeded")
        for _ in range(3):
            assert tick(store, gpus=[])
        assert (store.run(run_id).state, store.run(waiting).state) == ("running", "queued")
        told = [event.message for event in store.events(run_id) if event.kind == "executor:unreachable"]
        assert told == ["the daemon does not answer"]
    tick(store, gpus=[])
    assert store.run(run_id).state == "succeeded"


def test_what_another_queue_places_takes_nothing_of_this_machine_and_waits_for_nobody(store, workers, monkeypatch):
    here = queue(store, resources={"gpus": 0})
    tick(store, gpus=[])
    monkeypatch.setattr(LocalExecutor, "places_itself", True)
    elsewhere = queue(store, seed=1, resources={"gpus": 1})
    tick(store, gpus=[])
    assert (store.run(here).state, store.run(elsewhere).state) == ("running", "running")
    assert workers.launched[1][1] == []


def test_a_run_that_another_queue_never_starts_fails_with_what_was_asked_for(store, workers, monkeypatch):
    def overdue(_, handle, waited_seconds):
        return "asked for 9 GPUs, the cluster has 2" if waited_seconds > 60 else None

    monkeypatch.setattr(LocalExecutor, "overdue", overdue)
    run_id = queue(store)
    tick(store, gpus=[])
    started = store.run(run_id).started_seconds
    settle(store, now_seconds=started + 59)
    assert store.run(run_id).state == "running"
    settle(store, now_seconds=started + 61)
    run = store.run(run_id)
    assert (run.state, run.reason, run.message) == ("failed", "launch_failed", "asked for 9 GPUs, the cluster has 2")
    assert workers.terminated == [("1:0", True)]


def test_there_is_one_scheduler_per_store(store):
    with scheduler_lock(store.home) as first, scheduler_lock(store.home) as second:
        assert first and not second
    with scheduler_lock(store.home) as again:
        assert again


def _tick_often(home, start, queue_of_launches):
    def launch(_, run_dir, gpus, cpus):
        queue_of_launches.put(Path(run_dir).name)
        return "1:0"

    LocalExecutor.launch = launch
    LocalExecutor.alive = lambda _, handle: True
    scheduler.installed_gpus = list
    store = Store.open(home)
    start.wait()
    for _ in range(12):
        tick(store, gpus=range(100))


def test_two_schedulers_on_one_store_never_start_a_run_twice(tmp_path):
    store = Store.open(tmp_path / "home")
    expected = {queue(store, seed) for seed in range(24)}
    context = multiprocessing.get_context("spawn")
    launches, start = context.Queue(), context.Event()
    processes = [context.Process(target=_tick_often, args=(store.home, start, launches)) for _ in range(2)]
    for process in processes:
        process.start()
    start.set()
    launched = [launches.get(timeout=60) for _ in expected]
    for process in processes:
        process.join()
    assert sorted(launched) == sorted(expected)
    assert launches.empty()
