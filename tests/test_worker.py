"""The worker's frame around a method: whatever happens inside, a result.json says what it was."""

import fcntl
import json
import signal

import pytest

from atlas import worker
from atlas.errors import RunFailed
from atlas.methods import Sft
from atlas.private import open_private
from atlas.run import Stopped, is_working
from atlas.worker import BUSY, FAILED, STOPPED, SUCCEEDED, log_tail, recorded_handle, work

JOB = {
    "name": "job",
    "student": {"model": "org/student"},
    "method": {"type": "sft"},
    "dataset": {"type": "arithmetic"},
    "training": {"max_steps": 4},
}


@pytest.fixture
def run_dir(tmp_path):
    (tmp_path / "spec.json").write_text(json.dumps({"run_id": "job-1", "job": JOB}))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield tmp_path
    for number, handler in handlers.items():
        signal.signal(number, handler)


def method_does(monkeypatch, train):
    monkeypatch.setattr(Sft, "train", lambda self, run: train(run))


def result(run_dir):
    return json.loads((run_dir / "result.json").read_text())


def test_success_names_the_checkpoint_and_the_steps(run_dir, monkeypatch):
    def train(run):
        run.progress("train", 0, 4)
        run.log({"train/loss": 0.5}, 4)
        run.summary["pass_rate"] = 0.25
        return run.checkpoints / "final"

    method_does(monkeypatch, train)
    assert work(run_dir) == SUCCEEDED
    document = result(run_dir)
    assert (document["state"], document["step"], document["planned_step"]) == ("succeeded", 4, 4)
    assert document["checkpoint"] == str(run_dir / "checkpoints" / "final")
    assert document["summary"] == {"pass_rate": 0.25}
    assert document["clocks"]["wall_seconds"] >= 0


def test_a_known_failure_keeps_its_reason_and_an_unknown_one_its_traceback(run_dir, monkeypatch):
    (run_dir / "worker.log").write_text("loading\n")

    def known(run):
        raise RunFailed("non_finite_loss", "loss is nan at step 3")

    method_does(monkeypatch, known)
    assert work(run_dir) == FAILED
    assert (result(run_dir)["reason"], result(run_dir)["message"]) == ("non_finite_loss", "loss is nan at step 3")

    def unknown(run):
        return 1 / 0

    method_does(monkeypatch, unknown)
    assert work(run_dir) == FAILED
    document = result(run_dir)
    assert document["reason"] == "error"
    assert "ZeroDivisionError" in document["traceback"]
    assert document["log_tail"] == "loading"


def test_sigterm_asks_the_method_to_stop_and_a_stopped_run_is_no_failure(run_dir, monkeypatch):
    def train(run):
        assert not run.stop_requested
        signal.raise_signal(signal.SIGTERM)
        assert run.stop_requested
        run.log({"train/loss": 0.5}, 2)
        raise Stopped

    method_does(monkeypatch, train)
    assert work(run_dir) == STOPPED
    assert (result(run_dir)["state"], result(run_dir)["step"]) == ("stopped", 2)


def test_a_second_worker_on_the_same_directory_refuses_and_touches_nothing(run_dir, monkeypatch):
    method_does(monkeypatch, lambda run: pytest.fail("two workers ran"))
    with open_private(run_dir / "worker.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert is_working(run_dir)
        assert work(run_dir) == BUSY
    assert not (run_dir / "result.json").exists()
    assert not (run_dir / "metrics.jsonl").exists()
    assert not is_working(run_dir)


def test_each_attempt_records_its_environment_and_its_handle(run_dir, monkeypatch):
    method_does(monkeypatch, lambda run: None)
    monkeypatch.setenv("ATLAS_GPUS", "2,3")
    work(run_dir)
    work(run_dir)
    attempts = [json.loads(line) for line in (run_dir / "environment.json").read_text().splitlines()]
    assert len(attempts) == 2 and attempts[0]["packages"]
    assert recorded_handle(run_dir) is None
    with open_private(run_dir / "worker.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        handle, gpus = recorded_handle(run_dir)
        (run_dir / "worker.json").write_text("{")
        assert recorded_handle(run_dir) is None
    assert handle and gpus == [2, 3]


def test_a_streamer_is_started_for_a_job_that_asks_for_it_and_stopped_at_the_end(run_dir, monkeypatch):
    (run_dir / "spec.json").write_text(json.dumps({"run_id": "job-1", "job": JOB | {"wandb": {"project": "p"}}}))
    calls = []
    monkeypatch.setattr(worker.wandb, "start", lambda directory: calls.append(("start", directory)) or "process")
    monkeypatch.setattr(worker.wandb, "stop", lambda process, timeout_seconds: calls.append(("stop", process)))

    def train(run):
        raise RunFailed("bad_data", "no")

    method_does(monkeypatch, train)
    assert work(run_dir) == FAILED
    assert calls == [("start", run_dir), ("stop", "process")]


def test_the_log_tail_is_the_end_of_the_log_whatever_bytes_it_holds(tmp_path):
    assert log_tail(tmp_path) == ""
    (tmp_path / "worker.log").write_bytes(b"x" * 100_000 + b"\n" + b"\xff\n".join(b"line %d" % n for n in range(100)))
    lines = log_tail(tmp_path, lines=3).splitlines()
    assert len(lines) == 3 and lines[-1] == "line 99"
