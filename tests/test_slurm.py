"""What only the Slurm executor does, on a real cluster of one node where that can be."""

import json
import os
import shlex
import shutil
import sys
import threading
import time

import pytest
from command_line import atlas

from atlas.errors import ExecutorError
from atlas.executors import SlurmExecutor
from atlas.executors import slurm as slurm_room
from atlas.job import JobSpec

JOB = {
    "name": "job",
    "student": {"model": "org/student"},
    "method": {"type": "evaluate"},
    "dataset": {"type": "gsm8k"},
}
STUB = "import pathlib, sys\nexec((pathlib.Path(sys.argv[1]) / 'script.py').read_text())\n"
PRELUDE = """
import os, pathlib, signal, sys
def say(name, text):
    pathlib.Path("part").write_text(str(text))
    pathlib.Path("part").rename(name)
"""
WAIT_FOR_EVER = "say('started', os.environ.get('CUDA_VISIBLE_DEVICES')); signal.pause()"


@pytest.fixture
def make_run(tmp_path):
    def make_run(name="run", script="", **resources):
        run_dir = tmp_path / "runs" / name
        run_dir.mkdir(parents=True)
        document = {"run_id": name, "job": {"resources": {"gpus": 0} | resources}}
        (run_dir / "spec.json").write_text(json.dumps(document))
        (run_dir / "script.py").write_text(PRELUDE + script)
        return run_dir

    return make_run


@pytest.fixture
def launch(slurm, make_run, tmp_path, monkeypatch):
    """Launches a worker that runs this script in its run directory; ends all of them afterwards."""
    stub = tmp_path / "stub/atlas"
    stub.mkdir(parents=True)
    (stub / "__init__.py").touch()
    (stub / "worker.py").write_text(STUB)
    monkeypatch.setenv("PYTHONPATH", str(stub.parent))
    handles = []

    def launch(name="run", script=WAIT_FOR_EVER, fields=None, **resources):
        run_dir = make_run(name, script, **resources)
        handles.append(slurm.executor.model_copy(update=fields or {}).launch(run_dir, [], []))
        return handles[-1], run_dir

    yield launch
    for handle in handles:
        slurm.executor.terminate(handle, force=True)
    for handle in handles:
        until(lambda handle=handle: not slurm.executor.alive(handle))


def until(condition):
    """Waits for something that another process does."""
    deadline = time.monotonic() + 60
    while not (outcome := condition()):
        assert time.monotonic() < deadline, "waited for 60 seconds"
        threading.Event().wait(0.05)
    return outcome


def said(run_dir, name="started"):
    until((run_dir / name).exists)
    return (run_dir / name).read_text()


def waits(slurm, handle):
    """Why, according to Slurm, once it has looked at it."""
    reason = "--format=%r"
    number = handle.split(":")[0]
    told = until(lambda: slurm.ask("squeue", "--noheader", "--states=PENDING", f"--jobs={number}", reason).strip())
    return until(lambda: told if told != "None" else waits(slurm, handle))


def test_options_are_on_the_command_line_where_no_variable_can_change_them(make_run):
    run_dir = make_run(gpus=1)
    executor = SlurmExecutor(
        partition="gpu", account="lab", gpu_type="a100", time_limit_minutes=90, options=["--mem=64G", "--exclusive"]
    )
    made = executor.command(run_dir, json.loads((run_dir / "spec.json").read_text()), [], [])
    assert made[:2] == ["sbatch", "--parsable"] and made[-1] == str(run_dir / "slurm.sh")
    assert {"--requeue", "--signal=B:TERM@120", "--open-mode=append", f"--chdir={run_dir}"} <= set(made)
    assert {"--gres=gpu:a100:1", "--partition=gpu", "--account=lab", "--time=90"} <= set(made)
    assert made[-3:-1] == ["--mem=64G", "--exclusive"]
    assert any(part.startswith("--job-name=atlas-run.") for part in made)


def test_a_job_without_a_word_on_gpus_asks_for_one_if_there_is_any_and_one_without_for_none(slurm, make_run):
    def gres(resources):
        made = SlurmExecutor().command(make_run(f"run-{resources}"), {"job": {"resources": resources}}, [], [])
        return [part for part in made if part.startswith(("--gres", "--cpus"))]

    assert gres({"gpus": None}) == ["--gres=gpu:1"]
    assert gres({"gpus": 0, "cpus": 3}) == ["--cpus-per-task=3"]
    assert gres({"gpus": 0}) == []


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"options": ["--wrap=reboot"]}, "options"),
        ({"options": ["--export=NONE"]}, "options"),
        ({"options": ["--mem=1G --wrap=reboot"]}, "options"),
        ({"options": ["script.sh"]}, "options"),
        ({"partition": "--wrap=reboot"}, "partition"),
        ({"partition": "a,b c"}, "partition"),
        ({"time_limit_minutes": 2}, "time_limit_minutes"),
    ],
)
def test_what_would_become_another_option_or_undo_one_is_refused(fields, where):
    with pytest.raises(ValueError, match=where):
        JobSpec.model_validate(JOB | {"executor": {"type": "slurm"} | fields})


def test_submit_can_print_what_would_be_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATLAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    (tmp_path / "job.yaml").write_text(json.dumps(JOB | {"resources": {"gpus": 1}, "executor": {"type": "slurm"}}))
    (printed,) = atlas("submit", tmp_path / "job.yaml", "--print-command").splitlines()
    parts = shlex.split(printed)
    assert parts[0] == "sbatch" and parts[-1].endswith("/slurm.sh") and "--gres=gpu:1" in parts
    assert "hf_very_secret" not in printed and not (tmp_path / "home").exists()


def test_a_machine_without_slurm_is_told_where_to_go(make_run, monkeypatch, tmp_path):
    run_dir = make_run()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExecutorError, match="no sbatch here; submit on a login node"):
        SlurmExecutor().check()
    with pytest.raises(ExecutorError, match=r"no sbatch on .*login node"):
        SlurmExecutor().launch(run_dir, [], [])


def test_a_partition_that_is_not_there_is_named_with_those_that_are(slurm):
    slurm.executor.check()
    with pytest.raises(ExecutorError, match=r"no partition gpu; set executor.partition to one of debug, short"):
        SlurmExecutor(partition="gpu").check()


def test_secrets_reach_the_worker_and_no_file_of_the_run(launch, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    _, run_dir = launch(script="say('started', os.environ['HF_TOKEN'] == 'hf_very_secret')")
    assert said(run_dir) == "True"
    assert not [file for file in run_dir.iterdir() if b"hf_very" in file.read_bytes() and file.name != "script.py"]
    assert (run_dir / "slurm.sh").stat().st_mode & 0o077 == 0


def test_two_jobs_run_on_a_gpu_each_and_a_third_waits_its_turn(slurm, launch, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    (first, *_), *_ = started = [launch(f"run-{number}", gpus=1) for number in range(2)]
    assert sorted(said(run_dir) for _, run_dir in started) == ["0", "1"]
    third, run_dir = launch("run-2", gpus=1)
    assert waits(slurm, third) in ("Resources", "Priority")
    assert slurm.executor.alive(third) and slurm.executor.overdue(third, 1e6) is None, "it may wait for days"
    slurm.executor.terminate(first)
    assert said(run_dir) in ("0", "1")
    assert slurm.executor.overdue(third, 1e6) is None


def test_a_worker_is_told_how_many_threads_fit_on_its_cores(launch):
    _, run_dir = launch(script="say('started', os.environ['OMP_NUM_THREADS'])", cpus=3)
    assert said(run_dir) == "3"


def test_more_gpus_than_any_node_has_are_refused_at_once(launch):
    with pytest.raises(ExecutorError, match=r"not available; asked for 3 GPU.*there is debug: 1 x 4 CPUs, gpu:2"):
        launch(gpus=3)


@pytest.mark.parametrize(
    ("fields", "resources", "asked"),
    [
        ({}, {"cpus": 9}, "asked for 9 CPUs, no GPUs, unlimited time in debug; there is debug: 1 x 4 CPUs"),
        (
            {"partition": "short", "time_limit_minutes": 60},
            {},
            "1:00:00 time in short; there is short: 1 x 4 CPUs, gpu:2, at most 10:00",
        ),
    ],
)
def test_a_request_that_can_never_be_satisfied_is_given_up(slurm, launch, fields, resources, asked):
    handle, _ = launch(fields=fields, **resources)
    assert waits(slurm, handle) == "PartitionConfig" or "TimeLimit" in waits(slurm, handle)
    assert asked in slurm.executor.overdue(handle, 0)
    slurm.executor.terminate(handle, force=True)
    assert not slurm.executor.alive(handle)
    assert slurm.executor.overdue(handle, 0) is None


def test_a_job_that_waits_is_cancelled_by_leaving_the_queue(slurm, launch):
    handle, run_dir = launch(fields={"options": ["--begin=now+1hour"]})
    assert waits(slurm, handle) == "BeginTime" and slurm.executor.alive(handle)
    slurm.executor.terminate(handle)
    assert not slurm.executor.alive(handle) and not (run_dir / "started").exists()
    slurm.executor.terminate(handle)


COUNT = "starts = len(list(pathlib.Path().glob('started*'))); say(f'started{starts}', os.environ['ATLAS_HANDLE'])\n"


def test_slurm_may_start_the_same_worker_again_and_it_is_alive_all_the_while(slurm, launch):
    handle, run_dir = launch(script=COUNT + "signal.pause()")
    assert said(run_dir, "started0") == handle
    (run_dir / "result.json").write_text('{\n  "state": "stopped"\n}')  # as if it had stopped in time
    slurm.start_again(handle)
    assert slurm.executor.alive(handle)
    assert said(run_dir, "started1") == handle
    assert not (run_dir / "result.json").exists() and (run_dir / "result.before-restart-1.json").exists()
    slurm.executor.terminate(handle)
    until(lambda: not slurm.executor.alive(handle))


def test_a_worker_that_had_ended_is_not_started_again(slurm, launch):
    handle, run_dir = launch(script=COUNT + "signal.pause()")
    said(run_dir, "started0")
    (run_dir / "result.json").write_text('{\n  "state": "succeeded"\n}')
    slurm.start_again(handle)
    until(lambda: not slurm.executor.alive(handle))
    assert (run_dir / "result.json").exists() and not (run_dir / "started1").exists()


def test_a_node_that_does_not_see_the_run_directory_is_named(slurm, launch):
    handle, run_dir = launch(fields={"options": ["--begin=now+1hour"]})
    shutil.rmtree(run_dir)
    slurm.ask("scontrol", "update", f"JobId={handle.split(':')[0]}", "StartTime=now")
    until(lambda: not slurm.executor.alive(handle))
    reason, message = slurm.executor.cause_of_end(handle)
    assert reason == "launch_failed"
    assert "node1" in message and f"could not open {run_dir}/worker.log" in message and "ATLAS_HOME" in message


def test_a_node_without_this_python_is_named(slurm, launch, monkeypatch):
    monkeypatch.setattr(slurm_room.sys, "executable", "/no/such/python")
    handle, run_dir = launch()
    until(lambda: not slurm.executor.alive(handle))
    reason, message = slurm.executor.cause_of_end(handle)
    assert reason == "launch_failed" and "node1: /no/such/python is not there; install Atlas" in message
    assert "has no /no/such/python" in (run_dir / "worker.log").read_text()


def test_slurm_says_why_a_job_ended_that_left_no_word(slurm, launch):
    handle, run_dir = launch()
    said(run_dir)
    assert slurm.executor.cause_of_end(handle) is None
    slurm.ask("scancel", handle.split(":")[0])
    until(lambda: not slurm.executor.alive(handle))
    reason, message = slurm.executor.cause_of_end(handle)
    assert reason == "killed" and "somebody cancelled it" in message
    assert slurm.executor.cause_of_end("999:atlas-run.00000000") is None


def test_a_cluster_that_lost_its_state_gives_out_an_id_again_but_not_a_handle(slurm, launch):
    slurm.forget()
    handle, run_dir = launch("run-1", "say('started', 1)")
    said(run_dir)
    until(lambda: not slurm.executor.alive(handle))
    slurm.forget()
    again, run_dir = launch("run-2")
    said(run_dir)
    assert again.split(":")[0] == handle.split(":")[0]
    assert not slurm.executor.alive(handle) and slurm.executor.cause_of_end(handle) is None
    slurm.executor.terminate(handle, force=True)
    assert slurm.executor.alive(again)


def test_a_controller_that_does_not_answer_is_no_death(slurm, launch):
    handle, run_dir = launch()
    said(run_dir)
    slurm.stop_controller()
    try:
        with pytest.raises(ExecutorError, match=r"squeue failed.*[Uu]nable to contact slurm controller"):
            slurm.executor.alive(handle)
    finally:
        slurm.start_controller()
    assert slurm.executor.alive(handle), "its worker has not noticed"


def test_variables_that_would_hide_jobs_are_not_heeded(slurm, launch, monkeypatch):
    monkeypatch.setenv("SQUEUE_STATES", "COMPLETED")
    monkeypatch.setenv("SBATCH_EXPORT", "NONE")
    handle, run_dir = launch()
    assert said(run_dir) == "" and slurm.executor.alive(handle)
    assert sys.executable in (run_dir / "slurm.sh").read_text() and os.environ["SQUEUE_STATES"] == "COMPLETED"


def test_the_controller_is_asked_once_for_all_jobs_however_often_they_are_looked_at(slurm, launch, monkeypatch):
    handles = [launch(f"run-{number}")[0] for number in range(3)]
    monkeypatch.setattr(slurm_room, "_LISTED_SECONDS", 60)
    slurm_room._listing.clear()
    asked = []
    ask = SlurmExecutor._ask
    monkeypatch.setattr(SlurmExecutor, "_ask", lambda self, *command: asked.append(command) or ask(self, *command))
    for handle in handles * 3:
        assert slurm.executor.alive(handle) and slurm.executor.overdue(handle, 1) is None
    assert len(asked) == 1
    slurm.executor.terminate(handles[0], force=True)
    until(lambda: not slurm.executor._queued(handles[0]))
    slurm_room._listing.clear()
    assert not slurm.executor.alive(handles[0]) and slurm.executor.alive(handles[1])
