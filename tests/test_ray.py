"""What only the Ray executor does, on a real cluster whose GPUs are numbers to schedule by."""

import json
import logging
import os
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from command_line import atlas
from jobs import SPEC
from ray_cluster import RayCluster, stand_in

from atlas import ray_node
from atlas.errors import ExecutorError, SpecError
from atlas.executors import RayExecutor
from atlas.executors import ray as room
from atlas.job import JobSpec

WORKER = """
import fcntl, json, os, pathlib, signal, sys
run_dir = pathlib.Path(sys.argv[1])
lock = open(run_dir / "worker.lock", "w")
fcntl.flock(lock, fcntl.LOCK_EX)
(run_dir / "worker.json").write_text(json.dumps({"handle": os.environ["ATLAS_HANDLE"], "gpus": []}))
told = {name: os.environ.get(name) for name in ("ATLAS_GPUS", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "HF_TOKEN")}
(run_dir / "part").write_text(json.dumps(told | {"pid": os.getpid()}))
(run_dir / "part").rename(run_dir / "told")
signal.pause()
"""
"""It holds its run directory as the real one does, until somebody ends it."""


@pytest.fixture
def started(tmp_path):
    """Starts stand-ins for workers on a cluster; ends all of them afterwards."""
    python = stand_in(tmp_path, WORKER)
    handles = []

    def start(cluster, name="run-1", resources=None, **fields):
        executor = cluster.executor.model_copy(update={"python": python} | fields)
        run_dir = tmp_path / "home/runs" / name
        run_dir.mkdir(parents=True)
        resources = {"gpus": 0} | (resources or {})
        (run_dir / "spec.json").write_text(json.dumps({"run_id": name, "job": {"resources": resources}}))
        handle = executor.launch(run_dir, [], [])
        handles.append((executor, handle))
        return executor, handle, run_dir

    yield start
    for executor, handle in handles:
        executor.terminate(handle, force=True)


def told(cluster, run_dir):
    cluster.wait_for((run_dir / "told").exists)
    return json.loads((run_dir / "told").read_text())


def test_two_runs_have_a_gpu_each_and_a_third_waits_for_one(ray_cluster, started):
    executor, first, first_dir = started(ray_cluster, "first", {"gpus": 1})
    _, second, second_dir = started(ray_cluster, "second", {"gpus": 1})
    given = [told(ray_cluster, run_dir) for run_dir in (first_dir, second_dir)]
    assert {each["CUDA_VISIBLE_DEVICES"] for each in given} == {"0", "1"}
    assert [each["ATLAS_GPUS"] for each in given] == [each["CUDA_VISIBLE_DEVICES"] for each in given]
    _, third, third_dir = started(ray_cluster, "third", {"gpus": None})  # left open: one, where there are any
    assert executor.alive(third) and executor._status(third) == "PENDING"
    assert executor.overdue(third, 1e9) and not executor.overdue(first, 1e9)
    executor.terminate(first)
    assert told(ray_cluster, third_dir)["ATLAS_GPUS"] == given[0]["ATLAS_GPUS"]
    assert executor.alive(second) and executor.alive(third) and executor.cpus(third) == []


def test_a_worker_has_as_many_threads_as_it_has_cores(ray_cluster, started):
    _, _, run_dir = started(ray_cluster, resources={"cpus": 2})
    assert told(ray_cluster, run_dir)["OMP_NUM_THREADS"] == "2"


def test_what_can_never_be_had_is_given_up_with_what_was_asked_for_and_what_there_is(ray_cluster, started):
    executor, handle, _ = started(ray_cluster, resources={"gpus": 9}, entrypoint_resources={"tpu_host": 1.0})
    assert executor.overdue(handle, executor.start_timeout_seconds) is None
    message = executor.overdue(handle, executor.start_timeout_seconds + 1)
    assert "within 600 s: asked for 1 CPU, 9 GPU, 1 tpu_host; it has" in message
    assert "2 GPU (" in message and "4 CPU (" in message
    executor.terminate(handle, force=True)
    assert not executor.alive(handle), "at once, although Ray goes on to call it pending"
    assert executor._status(handle) == "PENDING"


def test_a_job_cancelled_before_it_starts_never_does(ray_cluster, started):
    executor, first, first_dir = started(ray_cluster, "first", {"cpus": 4})
    told(ray_cluster, first_dir)
    _, second, second_dir = started(ray_cluster, "second", {"cpus": 4})
    executor.terminate(second)
    executor.terminate(second)
    assert not executor.alive(second)
    executor.terminate(first, force=True)
    ray_cluster.wait_for(lambda: executor._status(second) in ("FAILED", "STOPPED"))
    assert not (second_dir / "told").exists()
    assert not executor.alive(second)


def test_secrets_reach_the_worker_and_nothing_else(ray_cluster, started, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    executor, handle, run_dir = started(ray_cluster, "first", {"cpus": 4})
    assert told(ray_cluster, run_dir)["HF_TOKEN"] == "hf_very_secret"
    (run_dir / "told").unlink()
    _, waiting, waiting_dir = started(ray_cluster, "second", {"cpus": 4})
    assert stat.S_IMODE(Path(f"{waiting}.ticket").stat().st_mode) == 0o600
    shown = json.dumps([executor._job(handle), executor._job(waiting)])
    assert "ATLAS_SEALED" in shown and "hf_very_secret" not in shown
    for folder in (run_dir, waiting_dir, ray_cluster.folder):
        for file in folder.rglob("*"):
            assert not file.is_file() or b"hf_very_secret" not in file.read_bytes(), file
    assert not Path(f"{handle}.ticket").exists() and not Path(f"{handle}.lease").read_bytes(), "the key is gone"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"python": "no-such-python"}, r"no-such-python: not found; name the Python of the nodes"),
        ({"version": "99.0"}, r"on \S+, its Atlas \(.*\) has version .*, the run needs 99.0"),
    ],
)
def test_a_node_that_cannot_run_the_worker_says_why(change, said, ray_cluster, started, monkeypatch):
    if "version" in change:
        monkeypatch.setattr(room, "__version__", change.pop("version"))
    executor, handle, _ = started(ray_cluster, **change)
    ray_cluster.wait_for(lambda: not executor.alive(handle))
    reason, message = executor.cause_of_end(handle)
    assert reason == "launch_failed" and re.search(said, message), message
    assert not list(Path(handle).parent.glob("*.ticket")), "the key is gone"


def test_a_worker_that_ends_by_itself_is_explained_by_its_log(ray_cluster, started):
    executor, handle, run_dir = started(ray_cluster)
    psutil.Process(told(ray_cluster, run_dir)["pid"]).kill()
    ray_cluster.wait_for(lambda: not executor.alive(handle))
    assert executor.cause_of_end(handle) is None


@pytest.fixture(scope="module")
def own_cluster(ray_cluster):
    """A cluster that may be broken, with the token of the other one."""
    cluster = RayCluster()
    with pytest.MonkeyPatch.context() as monkeypatch:
        # Ray asks a node every 3 seconds whether it lives, and believes in its death after 15.
        monkeypatch.setenv("RAY_health_check_period_ms", "1000")
        cluster.start_head(gpus=0, cpus=1)
        yield cluster
        cluster.stop()


@pytest.mark.slow
def test_a_node_that_dies_takes_its_worker_with_it_and_ray_says_so(own_cluster, started):
    node = own_cluster.add_node("first")
    executor, handle, run_dir = started(own_cluster, entrypoint_resources={"first": 1})
    told(own_cluster, run_dir)
    own_cluster.kill(node)
    own_cluster.wait_for(lambda: not executor.alive(handle))
    reason, message = executor.cause_of_end(handle)
    assert reason == "killed" and "its node has died" in message


@pytest.mark.slow
def test_a_head_that_is_restarted_forgets_jobs_that_live_on(own_cluster, started):
    """The node does not join the new head; its worker goes on, and is ended without Ray's help."""
    own_cluster.add_node("second")
    executor, handle, run_dir = started(own_cluster, entrypoint_resources={"second": 1})
    pid = told(own_cluster, run_dir)["pid"]
    own_cluster.kill(own_cluster.nodes[0])
    with pytest.raises(ExecutorError, match="no Ray cluster answers at"):
        executor.alive(handle)
    own_cluster.start_head(gpus=0, cpus=1)
    assert executor._status(handle) is None and psutil.pid_exists(pid)
    assert executor.alive(handle)
    executor.terminate(handle)
    own_cluster.wait_for(lambda: not executor.alive(handle))
    assert not psutil.pid_exists(pid)
    assert executor.cause_of_end(handle)[1].endswith("has forgotten the job: its head was restarted")


def refusal(handle, **environment):
    """What a node says that cannot start the worker."""
    given = {ray_node.VERSION: room.__version__, ray_node.SEALED: ""} | environment
    command = [sys.executable, "-m", "atlas.ray_node", str(handle)]
    done = subprocess.run(command, env=os.environ | given, capture_output=True, text=True, timeout=60)
    assert done.returncode == ray_node.REFUSED, done.stderr
    return done.stderr


def test_a_node_that_does_not_see_the_run_directory_says_who_looked_where(tmp_path):
    assert f"cannot read the run directory {tmp_path}/run-1" in refusal(tmp_path / "run-1/run-1.00000000")


def test_a_node_that_sees_another_directory_at_the_path_says_so(tmp_path):
    (tmp_path / "spec.json").write_text('{"run_id": "run-1"}')
    said = refusal(tmp_path / "run-1.00000000")
    assert f"{tmp_path} is not the one that it was sent from" in said
    sealed = ray_node.seal(f"{tmp_path}/run-2.00000000", {"run_id": "run-2"})
    said = refusal(tmp_path / "run-2.00000000", **{ray_node.SEALED: sealed})
    assert "is the directory of run run-1, not of run-2" in said


def test_a_cluster_that_does_not_answer_or_wants_a_token_is_named(ray_cluster, monkeypatch):
    ray_cluster.executor.check()
    with pytest.raises(ExecutorError, match=r"no Ray cluster answers at http://127.0.0.1:9: .*ray start --head"):
        RayExecutor(address="http://127.0.0.1:9").check()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    with pytest.raises(ExecutorError, match="asks for a token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"):
        ray_cluster.executor.check()


def test_an_old_cluster_is_refused_and_an_open_one_warned_of(monkeypatch, caplog):
    monkeypatch.setattr(RayExecutor, "_call", lambda *_: {"ray_version": "2.60.0"})
    for address in ("http://127.0.0.1:8265", "https://ray.example.org"):
        RayExecutor(address=address).check()
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        RayExecutor(address="http://10.0.0.1:8265").check()
    assert "whoever reaches it can run commands there" in caplog.text
    monkeypatch.setattr(RayExecutor, "_call", lambda *_: {"ray_version": "2.9.1"})
    with pytest.raises(ExecutorError, match=r"has version 2.9.1; Atlas needs 2.50 or later"):
        RayExecutor().check()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"address": "ray://10.0.0.1:10001"}, "address"),
        ({"address": "http://user:password@host:8265"}, "address"),
        ({"python": "-c"}, "python"),
        ({"env": ["HF_TOKEN=hf_secret"]}, "env"),
        ({"runtime_env": {"env_vars": {"A": "b"}}}, "executor.env"),
        ({"entrypoint_resources": {"tpu": 0}}, "entrypoint_resources"),
        ({"memory_bytes": 0}, "memory_bytes"),
    ],
)
def test_fields_that_cannot_work_are_refused(fields, said):
    job = {
        "name": "job",
        "student": {"model": "org/student"},
        "method": {"type": "evaluate"},
        "dataset": {"type": "gsm8k"},
        "executor": {"type": "ray"} | fields,
    }
    with pytest.raises((SpecError, ValueError), match=said):
        JobSpec.model_validate(job)


def test_submit_can_print_the_command_line_that_does_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATLAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    fields = "{type: ray, memory_bytes: 8000000000, entrypoint_resources: {spot: 1}}"
    (tmp_path / "job.yaml").write_text(f"{SPEC}executor: {fields}\n")
    job = atlas("submit", tmp_path / "job.yaml", "--print-command", "--set", "resources.cpus=3")
    (printed,) = job.splitlines()
    parts = shlex.split(printed)
    assert parts[:4] == ["ray", "job", "submit", "--no-wait"] and parts[-4:-1] == ["-P", "-m", "atlas.ray_node"]
    given = dict(zip(parts[4 : parts.index("--") : 2], parts[5 : parts.index("--") : 2], strict=True))
    assert given["--entrypoint-num-cpus"] == "3" and given["--entrypoint-num-gpus"] == "0"
    assert given["--entrypoint-memory"] == "8000000000"
    assert json.loads(given["--entrypoint-resources"]) == {"spot": 1.0}
    assert "hf_very_secret" not in printed and not (tmp_path / "home").exists()
