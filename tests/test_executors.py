"""What only the local executor does; what all do is in contract/test_executor.py."""

import os
import subprocess
import sys

import psutil
import pytest

from atlas.errors import ExecutorError
from atlas.executors import LocalExecutor
from atlas.executors.local import cores, process_handle


def test_a_missing_python_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(ExecutorError, match=r"/no/such/python"):
        LocalExecutor().launch(tmp_path, [], [])


def test_setting_the_clock_does_not_make_a_worker_look_dead(monkeypatch):
    handle = process_handle(os.getpid())
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: 0.0)
    assert LocalExecutor().alive(handle)


def test_a_handle_that_the_worker_writes_is_the_one_that_launch_returns():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    script = f"from atlas.executors.local import process_handle; print(process_handle({process.pid}))"
    seen_by_another = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert seen_by_another.stdout.strip() == process_handle(process.pid)
    process.communicate(b"\n", timeout=60)


def test_an_ended_process_is_not_alive_before_and_after_it_is_waited_for():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    handle = process_handle(process.pid)
    assert LocalExecutor().alive(handle)
    process.stdin.close()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # ended, and still a zombie
    assert not LocalExecutor().alive(handle)
    process.wait()
    assert not LocalExecutor().alive(handle)


def test_without_linux_the_time_of_day_names_the_process(monkeypatch):
    monkeypatch.setattr("atlas.executors.local._ticks_since_boot", lambda pid: None)
    handle = process_handle(os.getpid())
    assert handle == f"{os.getpid()}:{psutil.Process().create_time():.2f}"
    assert LocalExecutor().alive(handle)


def test_a_file_of_the_users_folder_does_not_take_a_modules_place(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    handle = LocalExecutor().launch(tmp_path / "run", [], [])
    os.waitpid(int(handle.split(":")[0]), 0)
    log = (tmp_path / "run/worker.log").read_text()
    assert "spec.json" in log and "the wrong json" not in log


def test_a_process_sees_its_gpus_by_their_numbers_and_no_others(tmp_path, monkeypatch):
    stub = tmp_path / "stub/atlas"
    stub.mkdir(parents=True)
    (stub / "__init__.py").touch()
    (stub / "worker.py").write_text("import os; print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['ATLAS_GPUS'])")
    monkeypatch.setenv("PYTHONPATH", str(stub.parent))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    handle = LocalExecutor().launch(tmp_path, [2, 0], [])
    os.waitpid(int(handle.split(":")[0]), 0)
    assert (tmp_path / "worker.log").read_text() == "2,0 2,0\n"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system lets no process choose its cores")
@pytest.mark.parametrize("told", [True, False])
def test_a_worker_keeps_to_its_cores_before_torch_is_imported(tmp_path, told):
    core = max(cores())
    script = (
        "import os, sys; from pathlib import Path; from atlas import worker\n"
        "worker.work = lambda run_dir: print(sorted(os.sched_getaffinity(0)), 'torch' in sys.modules) or 0\n"
        f"sys.argv[1:] = [{str(tmp_path)!r}]; worker.main()"
    )
    seen = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"ATLAS_CPUS": str(core) if told else ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout.strip() == f"{[core] if told else cores()} False"
