"""Several processes that train together: started, told to stop, and ended together. The training is in
tests/training/test_data_parallel.py."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from trial import JOB

from atlas.errors import SpecError
from atlas.job import checked
from atlas.models import estimate_peak_bytes
from atlas.ranks import place, supervise
from atlas.source import read

TELLING = """
import os
line = f"{os.environ['ATLAS_RANK']} {os.environ.get('CUDA_VISIBLE_DEVICES')}"
os.write(1, (line + chr(10)).encode())  # at once, or lines of two processes mix
"""


def python(code):
    return [sys.executable, "-c", code]


def test_a_process_alone_is_the_first_of_one():
    assert place() == (0, 1)


def test_every_process_has_a_rank_and_a_gpu_of_its_own(capfd, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert supervise(python(TELLING), 2, lambda: False) == ([0, 0], None)
    assert sorted(capfd.readouterr().out.splitlines()) == ["0/2 3", "1/2 5"]


def test_what_a_container_shows_is_counted_from_0(capfd, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    supervise(python(TELLING), 2, lambda: False)
    assert sorted(capfd.readouterr().out.splitlines()) == ["0/2 0", "1/2 1"]


def test_a_job_without_gpus_shows_none_to_its_processes(capfd, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    supervise(python(TELLING), 2, lambda: False)
    assert sorted(capfd.readouterr().out.splitlines()) == ["0/2 ", "1/2 "]


def test_the_first_is_told_to_stop_and_the_others_are_waited_for():
    code = (
        "import os, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "if os.environ['ATLAS_RANK'] == '1/2': sys.exit(0)\n"
        "time.sleep(60)"
    )
    started = time.monotonic()
    asked = iter([False] * 10)
    assert supervise(python(code), 2, lambda: next(asked, True)) == ([143, 0], None)
    assert time.monotonic() - started < 30


def test_the_others_are_killed_when_one_has_failed_and_it_is_named(monkeypatch):
    monkeypatch.setattr("atlas.ranks._PATIENCE_SECONDS", 0.5)
    code = "import os, sys, time\nif os.environ['ATLAS_RANK'] == '1/2': sys.exit(7)\ntime.sleep(60)"
    codes, culprit = supervise(python(code), 2, lambda: False)
    assert codes == [-signal.SIGKILL, 7] and culprit == 1


def test_nobody_is_blamed_but_the_first_when_the_first_fails(monkeypatch):
    monkeypatch.setattr("atlas.ranks._PATIENCE_SECONDS", 0.5)
    code = "import os, sys, time\nif os.environ['ATLAS_RANK'] == '0/2': sys.exit(7)\ntime.sleep(60)"
    assert supervise(python(code), 2, lambda: False) == ([7, -signal.SIGKILL], None)


@pytest.mark.parametrize("whole_group", [False, True])
def test_all_end_when_the_worker_is_killed(tmp_path, whole_group):
    rank = (
        "from atlas.ranks import end_with_parent; end_with_parent(); import os, time; os.write(1, b'up' + bytes([10]))"
    )
    rank += "; time.sleep(60)"
    code = f"from atlas.ranks import supervise; supervise([{sys.executable!r}, '-c', {rank!r}], 2, lambda: False)"
    worker = subprocess.Popen(python(code), stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert [worker.stdout.readline() for _ in range(2)] == ["up\n"] * 2
    ranks = psutil.Process(worker.pid).children()
    assert len(ranks) == 2
    if whole_group:
        os.killpg(worker.pid, signal.SIGKILL)
    else:
        worker.kill()
    worker.wait()
    _, alive = psutil.wait_procs(ranks, timeout=20)
    assert not alive


@pytest.fixture
def job(tmp_path):
    def checked_job(*overrides):
        (tmp_path / "job.yaml").write_text(JOB)
        return checked(read(tmp_path / "job.yaml", overrides))

    return checked_job


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["training.batch_size=6"], "the 6 prompts of a step cannot be shared equally by 4 GPUs"),
        (
            ["teacher=null", "method={type: grpo, num_generations: 4}", "training.batch_size=8"],
            "choose a multiple of 16",
        ),
        (
            [
                "teacher=null",
                "sampling=null",
                "method={type: sft}",
                "training.batch_size=16",
                "training.micro_batch_size=8",
            ],
            None,
        ),
        (
            [
                "teacher=null",
                "sampling=null",
                "method={type: sft}",
                "training.batch_size=24",
                "training.micro_batch_size=4",
            ],
            "what one of 4 GPUs learns from in a step, 6",
        ),
        (["teacher=null", "sampling=null", "method={type: evaluate}", "training=null"], "evaluate uses one GPU"),
        (["resources.nodes=2"], "a job runs on one machine"),
    ],
)
def test_what_cannot_be_shared_is_refused_when_the_spec_is_read(job, overrides, said):
    if said is None:
        job("resources.gpus=4", *overrides)
        return
    with pytest.raises(SpecError, match=said):
        job("resources.gpus=4", *overrides)


def test_several_gpus_need_less_memory_each(job):
    one, four = (estimate_peak_bytes(job(f"resources.gpus={gpus}")) for gpus in (1, 4))
    assert four.optimizer_bytes * 4 == one.optimizer_bytes
    assert four.weights_bytes < one.weights_bytes
    assert four.teacher_bytes == one.teacher_bytes
