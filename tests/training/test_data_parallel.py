"""Two processes that train one model (gloo, on the CPU) have the losses of one process with the same batch."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file
from trial import TINY

from atlas.job import JobSpec

ACROSS = TINY.parent / "cross_tokenizer"
JOB = {
    "name": "two",
    "student": {"model": f"{TINY}/student"},
    "dataset": {"type": "arithmetic", "size": 400, "dev_size": 5, "test_size": 7},
    "training": {"max_steps": 4, "learning_rate": 0.001, "batch_size": 8, "micro_batch_size": 2, "save_every_steps": 2},
    "evaluation": {"every_steps": 2, "max_completion_length": 8, "batch_size": 2},
    "resources": {"gpus": 0},
}
TEACHER = {"teacher": {"model": f"{TINY}/teacher"}}
METHODS = {
    "sft": {"method": {"type": "sft"}},
    "gkd": {"method": {"type": "gkd"}, "sampling": {"max_completion_length": 24}, **TEACHER},
    "gkd-lora": {
        "method": {"type": "gkd", "lmbda": 0.5},
        "student": {"model": f"{TINY}/student", "lora": {"r": 4, "merge": True}},
        "sampling": {"max_completion_length": 24},
        **TEACHER,
    },
    "gkd-across-tokenizers": {
        "method": {"type": "gkd"},
        "student": {"model": f"{ACROSS}/student"},
        "teacher": {"model": f"{ACROSS}/teacher"},
        "sampling": {"max_completion_length": 24},
    },
    "gkd_reward": {
        "method": {"type": "gkd_reward", "num_generations": 2},
        "sampling": {"max_completion_length": 24},
        **TEACHER,
    },
    "grpo": {"method": {"type": "grpo", "num_generations": 2}, "sampling": {"max_completion_length": 24}},
}
WORK = """
import sys
from pathlib import Path
from atlas.training import engine
from atlas.worker import work

build = engine.OnPolicyTrainer.__init__

def with_prompts_at_once(self, *args, **kwargs):
    build(self, *args, **kwargs)
    self.max_prompts = int(sys.argv[3]) or self.max_prompts

engine.OnPolicyTrainer.__init__ = with_prompts_at_once
sys.exit(work(Path(sys.argv[1]), ranks=int(sys.argv[2])))
"""
"""A process that writes half of the prompts at once draws what two draw of whom each writes its half."""


def job(tmp_path, name, settings):
    directory = tmp_path / "runs" / name
    directory.mkdir(parents=True)
    spec = JobSpec.model_validate_json(json.dumps(JOB | settings))
    (directory / "spec.json").write_text(json.dumps({"run_id": name, "job": spec.model_dump(mode="json")}))
    return directory


def start(directory, ranks, prompts_at_once=0, **options):
    with open(directory / "worker.log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", WORK, str(directory), str(ranks), str(prompts_at_once)],
            stdout=log,
            stderr=log,
            cwd=Path(__file__).parents[2],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            **options,
        )


def finished(directory, ranks, prompts_at_once=0):
    code = start(directory, ranks, prompts_at_once).wait()
    assert code == 0, (directory / "worker.log").read_text()[-4000:]
    return json.loads((directory / "result.json").read_text())


def wait_for_a_step(worker, directory):
    metrics = directory / "metrics.jsonl"
    while not metrics.exists() or '"train/loss"' not in metrics.read_text():
        assert worker.poll() is None, (directory / "worker.log").read_text()[-4000:]


def series(directory, name):
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["values"][name] for line in lines if name in line.get("values", {})}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_have_the_losses_and_the_weights_of_one(tmp_path, method):
    settings = METHODS[method]
    alone, two = job(tmp_path, "alone", settings), job(tmp_path, "two", settings)
    one_result, two_result = (
        finished(alone, 1, prompts_at_once=2 if "num_generations" in settings["method"] else 4),
        finished(two, 2),
    )
    exact = ("eval/pass_rate", "eval/mean_tokens", "test/pass_rate")
    of_rollouts = ("train/entropy", "train/completions/mean_length", "train/reward") if method != "sft" else ()
    for name in ("train/loss", *of_rollouts, *exact):
        assert series(two, name) == pytest.approx(series(alone, name), abs=1e-4), name
    assert series(two, "train/grad_norm") == pytest.approx(series(alone, "train/grad_norm"), rel=1e-4)
    assert any(series(alone, "train/loss").values())
    for clock in ("tokens_trained", "tokens_generated", "rollouts"):
        assert two_result["clocks"][clock] == one_result["clocks"][clock]
    for file in alone.glob("checkpoints/*/*.safetensors"):
        mine, theirs = load_file(two / file.relative_to(alone)), load_file(file)
        assert mine.keys() == theirs.keys()
        assert max(float((mine[key] - theirs[key]).abs().max()) for key in theirs) < 1e-4


@pytest.mark.slow
def test_a_run_of_two_that_was_stopped_goes_on_with_one_as_if_nothing_had_been(tmp_path):
    training = JOB["training"] | {"max_steps": 80, "learning_rate": 1e-5, "save_every_steps": 100}  # time to be stopped
    settings = METHODS["sft"] | {"training": training, "evaluation": JOB["evaluation"] | {"every_steps": 40}}
    unbroken, broken = job(tmp_path, "unbroken", settings), job(tmp_path, "broken", settings)
    finished(unbroken, 1)
    worker = start(broken, 2)
    wait_for_a_step(worker, broken)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait() == 143
    assert json.loads((broken / "result.json").read_text())["state"] == "stopped"
    (broken / "result.json").unlink()
    finished(broken, 1)
    assert '"resume"' in (broken / "metrics.jsonl").read_text()
    for name in ("train/loss", "eval/pass_rate", "test/pass_rate"):
        assert series(broken, name) == pytest.approx(series(unbroken, name), abs=1e-4)


@pytest.mark.slow
def test_a_run_of_one_goes_on_with_two(tmp_path):
    settings = METHODS["gkd-lora"] | {"method": {"type": "gkd", "lmbda": 0.0}}
    unbroken = job(tmp_path, "unbroken", settings)
    finished(unbroken, 1)
    broken = job(tmp_path, "broken", settings)
    finished(broken, 1)
    for gone in ("step-4", "final", "merged"):
        shutil.rmtree(broken / "checkpoints" / gone)
    (broken / "result.json").unlink()
    finished(broken, 2)
    assert '"rewind": 2' in (broken / "metrics.jsonl").read_text()
    for name in ("train/loss", "eval/pass_rate", "test/pass_rate"):
        assert series(broken, name) == pytest.approx(series(unbroken, name), abs=1e-4)


@pytest.mark.slow
def test_what_the_second_process_dies_of_is_the_reason_of_the_run(tmp_path):
    directory = job(tmp_path, "dying", METHODS["sft"] | {"training": JOB["training"] | {"max_steps": 100000}})
    worker = start(directory, 2)
    wait_for_a_step(worker, directory)
    first, second = sorted(psutil.Process(worker.pid).children(), key=lambda process: process.environ()["ATLAS_RANK"])
    second.kill()
    assert worker.wait(60) == 1
    assert not first.is_running() or first.status() == psutil.STATUS_ZOMBIE
    result = json.loads((directory / "result.json").read_text())
    assert result["state"] == "failed" and "process 1 of 2" in result["message"]


@pytest.mark.slow
def test_a_run_that_is_stopped_while_its_processes_start_was_stopped_and_has_not_failed(tmp_path):
    directory = job(tmp_path, "early", METHODS["sft"])
    worker = start(directory, 2, start_new_session=True)
    while len(psutil.Process(worker.pid).children()) < 2:
        assert worker.poll() is None, (directory / "worker.log").read_text()[-4000:]
    os.killpg(worker.pid, signal.SIGTERM)
    assert worker.wait(60) == 143
    assert json.loads((directory / "result.json").read_text())["state"] == "stopped"
