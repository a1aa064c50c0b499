"""What every executor must do. A worker made of a script in its run directory stands in for atlas.worker."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from ray_cluster import python_with

import atlas
from atlas.errors import ExecutorError
from atlas.executors import LocalExecutor
from atlas.executors import container as container_room

STUB = "import pathlib, sys\nexec((pathlib.Path(sys.argv[1]) / 'script.py').read_text())\n"
PRELUDE = """
import os, pathlib, signal, subprocess, sys
run_dir = pathlib.Path(sys.argv[1])
def say(name, text):
    (run_dir / "part").write_text(str(text))
    (run_dir / "part").rename(run_dir / name)
"""


PACKAGE = Path(atlas.__file__).parent


@pytest.fixture(params=["local", "container", "ray", "slurm"])
def executor(request, tmp_path):
    if request.param == "local":
        return LocalExecutor()
    if request.param == "container":
        return request.getfixturevalue("podman")
    if request.param == "slurm":
        return request.getfixturevalue("slurm").executor
    python = python_with(tmp_path, tmp_path / "stub")
    return request.getfixturevalue("ray_cluster").executor.model_copy(update={"python": python})


@pytest.fixture
def gives_cores(executor):
    if executor.places_itself:
        pytest.skip("its cluster reserves cores and tells nobody which")


@pytest.fixture
def launch(executor, tmp_path, monkeypatch):
    """Launches a worker that runs this script; ends all of them afterwards."""
    stub = tmp_path / "stub/atlas"
    shutil.copytree(PACKAGE, stub, ignore=shutil.ignore_patterns("__pycache__"))
    (stub / "worker.py").write_text(STUB)
    monkeypatch.setenv("PYTHONPATH", str(stub.parent))
    monkeypatch.setattr(container_room, "PACKAGE", stub)
    handles = []

    def launch(script, gpus=(), cpus=()):
        run_dir = make_run_dir(tmp_path, script)
        handles.append(executor.launch(run_dir, gpus, cpus))
        return handles[-1], run_dir

    yield launch
    for handle in handles:
        executor.terminate(handle, force=True)


def make_run_dir(folder, script):
    run_dir = folder / "runs/run"
    run_dir.mkdir(mode=0o700, parents=True)
    (run_dir / "script.py").write_text(PRELUDE + script)
    (run_dir / "spec.json").write_text(json.dumps({"run_id": "run", "job": {"resources": {"gpus": 0}}}))
    return run_dir


def until(condition):
    """Waits for something that another process does."""
    deadline = time.monotonic() + 60
    while not (outcome := condition()):
        assert time.monotonic() < deadline, "waited for 60 seconds"
        threading.Event().wait(0.01)
    return outcome


def said(run_dir, name):
    def look():
        with suppress(FileNotFoundError):
            return (run_dir / name).read_text()

    return until(look)


def is_running(marker):
    """Whether a process with this word on its command line runs; a container's processes have other numbers inside."""
    return any(
        marker in (process.info["cmdline"] or []) and process.info["status"] != psutil.STATUS_ZOMBIE
        for process in psutil.process_iter(["cmdline", "status"])
    )


def earlier(handle):
    """The handle of a worker that is gone, as like this one's as can be."""
    if ":" in handle:
        return handle.split(":")[0] + ":1@an-earlier-boot"
    return handle[:-8] + "00000000"


def again(executor):
    """The same executor, read from a job."""
    return type(executor).model_validate_json(executor.model_dump_json())


WAIT_FOR_EVER = "say('started', os.getpid()); signal.pause()"
CHILD = """
import uuid
marker = uuid.uuid4().hex
subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()', marker])
say('child', marker)
"""


def test_launch_does_not_wait_for_the_worker_and_alive_follows_it(executor, launch):
    handle, run_dir = launch(
        "os.mkfifo(run_dir / 'gate'); say('started', 1); open(run_dir / 'gate').read(); say('ended', 1)"
    )
    said(run_dir, "started")
    assert executor.alive(handle)
    (run_dir / "gate").write_text("go on")
    until(lambda: not executor.alive(handle))
    assert (run_dir / "ended").exists()


def test_what_the_worker_prints_is_in_its_log_which_only_the_owner_can_read(executor, launch):
    handle, run_dir = launch("print('to stdout', flush=True); print('to stderr', file=sys.stderr)")
    until(lambda: not executor.alive(handle))
    assert (run_dir / "worker.log").read_text().splitlines() == ["to stdout", "to stderr"]
    assert stat.S_IMODE((run_dir / "worker.log").stat().st_mode) == 0o600


def test_a_second_attempt_adds_to_the_log(executor, launch):
    handle, run_dir = launch("print('attempt')")
    until(lambda: not executor.alive(handle))
    again = executor.launch(run_dir, [], [])
    until(lambda: not executor.alive(again))
    assert (run_dir / "worker.log").read_text().splitlines() == ["attempt", "attempt"]


def test_a_worker_without_gpus_sees_none_and_is_told_so(executor, launch, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    monkeypatch.setenv("ATLAS_GPUS", "5")
    _, run_dir = launch("say('gpus', [os.environ['CUDA_VISIBLE_DEVICES'], os.environ['ATLAS_GPUS']])")
    assert said(run_dir, "gpus") == "['', '']"


def test_a_worker_is_not_told_the_handle_of_another(executor, launch, monkeypatch):
    monkeypatch.setenv("ATLAS_HANDLE", "of another worker")
    handle, run_dir = launch("say('handle', os.environ['ATLAS_HANDLE'] or 'its own process')")
    assert said(run_dir, "handle") in (handle, "its own process")


TELL_CORES = "say('cores', [os.environ.get(name) for name in ('ATLAS_CPUS', 'OMP_NUM_THREADS', 'MKL_NUM_THREADS')])\n"


def test_the_worker_is_told_its_cores_and_how_many_threads_fit_on_them(gives_cores, launch, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    _, run_dir = launch(TELL_CORES, cpus=[2, 5])
    assert said(run_dir, "cores") == "['2,5', '2', '2']"


def test_a_worker_without_cores_of_its_own_keeps_the_users_threads_and_inherits_no_cores(executor, launch, monkeypatch):
    monkeypatch.setenv("ATLAS_CPUS", "7")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    handle, run_dir = launch(TELL_CORES + WAIT_FOR_EVER)
    assert said(run_dir, "cores") == "['', '3', None]"
    assert executor.cpus(handle) == []


def test_the_cores_of_a_worker_are_known_from_its_start_to_its_end(gives_cores, executor, launch):
    handle, run_dir = launch(WAIT_FOR_EVER, cpus=[2, 5])
    assert executor.cpus(handle) == [2, 5], "at once, before the worker has done anything"
    assert executor.cpus(earlier(handle)) == []
    said(run_dir, "started")
    assert again(executor).cpus(handle) == [2, 5]
    executor.terminate(handle, force=True)
    until(lambda: not executor.alive(handle))
    assert executor.cpus(handle) == []


def test_terminate_lets_the_worker_end_in_its_own_way(executor, launch):
    handle, run_dir = launch(
        "def stop(*_): say('checkpoint', 'saved'); sys.exit(143)\nsignal.signal(signal.SIGTERM, stop)\n" + WAIT_FOR_EVER
    )
    said(run_dir, "started")
    executor.terminate(handle)
    until(lambda: not executor.alive(handle))
    assert said(run_dir, "checkpoint") == "saved"


def test_terminate_with_force_ends_a_worker_that_does_not_listen(executor, launch):
    handle, run_dir = launch("signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAIT_FOR_EVER)
    said(run_dir, "started")
    executor.terminate(handle)
    assert executor.alive(handle)
    executor.terminate(handle, force=True)
    until(lambda: not executor.alive(handle))


@pytest.mark.parametrize("force", [False, True])
def test_terminate_reaches_the_workers_children(executor, launch, force):
    handle, run_dir = launch(CHILD + WAIT_FOR_EVER)
    child = said(run_dir, "child")
    until(lambda: is_running(child))
    executor.terminate(handle, force)
    until(lambda: not executor.alive(handle) and not is_running(child))


def test_terminate_reaches_children_that_a_dead_worker_left_behind(executor, launch):
    handle, run_dir = launch(CHILD + "os.kill(os.getpid(), signal.SIGKILL)")
    child = said(run_dir, "child")
    until(lambda: not executor.alive(handle))
    executor.terminate(handle, force=True)
    until(lambda: not is_running(child))


def test_terminate_may_be_repeated_also_when_nothing_is_left(executor, launch):
    handle, run_dir = launch(WAIT_FOR_EVER)
    said(run_dir, "started")
    executor.terminate(handle)
    executor.terminate(handle)
    until(lambda: not executor.alive(handle))
    executor.terminate(handle)
    executor.terminate(handle, force=True)


def test_another_worker_of_the_same_place_is_neither_alive_nor_terminated(executor, launch):
    handle, run_dir = launch(WAIT_FOR_EVER)
    said(run_dir, "started")
    assert not executor.alive(earlier(handle))
    executor.terminate(earlier(handle), force=True)
    assert executor.alive(handle)


def test_the_worker_survives_the_death_of_the_process_that_launched_it(executor, tmp_path, launch):
    run_dir = make_run_dir(tmp_path, WAIT_FOR_EVER)
    # The stand-in on PYTHONPATH is for the worker; the process that launches it needs the real package.
    script = f"import os, pathlib, sys\nsys.path.remove({os.environ['PYTHONPATH']!r})\n"
    script += f"from atlas.executors import {type(executor).__name__} as Executor, container\n"
    script += f"container.PACKAGE = pathlib.Path({str(container_room.PACKAGE)!r})\n"
    script += f"executor = Executor.model_validate_json({executor.model_dump_json()!r})\n"
    script += f"print(executor.launch(pathlib.Path({str(run_dir)!r}), [], []), flush=True)\nos.killpg(0, 9)"
    launcher = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, start_new_session=True, timeout=60
    )
    assert launcher.returncode == -signal.SIGKILL, launcher.stderr
    handle = launcher.stdout.strip()
    said(run_dir, "started")
    assert executor.alive(handle)
    executor.terminate(handle, force=True)
    until(lambda: not executor.alive(handle))


def test_a_launch_that_cannot_work_says_why(executor, tmp_path):
    with pytest.raises(ExecutorError, match=r"no-such-run.*No such file or directory"):
        executor.launch(tmp_path / "no-such-run", [], [])


def test_a_worker_that_ends_at_once_is_not_alive_and_its_log_says_why(executor, launch):
    handle, run_dir = launch("raise SystemExit('the job cannot be read')")
    until(lambda: not executor.alive(handle))
    assert "the job cannot be read" in (run_dir / "worker.log").read_text()
