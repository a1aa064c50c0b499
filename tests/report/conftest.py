"""A rich comparison, a poor one, and the samples of their runs."""

import math
from dataclasses import replace

import numpy as np
import pytest
from made_by_hand import ENVIRONMENT, PROBLEMS, compared, job, record, run

from atlas.run import CLOCKS
from atlas.store import SampleRecord


@pytest.fixture(scope="session")
def rich():
    """Three arms of three seeds, both baselines, targets, verdicts."""
    gkd_phases = {"generate": 4100.0, "teacher": 2300.0, "forward_backward": 2000.0, "optimizer": 180.0}
    grpo_phases = {"generate": 17000.0, "reward": 900.0, "forward_backward": 8000.0, "optimizer": 500.0}
    off = {"evaluate": 1400.0, "checkpoint": 200.0}
    groups = {
        "gkd": [run("gkd", s, 0.27, 900.0, gkd_phases | off) for s in range(3)],
        "grpo": [run("grpo", s, 0.16, 2900.0, grpo_phases | off) for s in range(3)],
        "sft_only": [run("sft_only", s, 0.07, 500.0, {"forward_backward": 4800.0} | off) for s in range(3)],
    }
    baselines = {
        name: run("evaluate", 0, 0, evaluations=1, id=f"case-study-baseline-{name}-0f0f0f")
        for name in ("student", "teacher")
    }
    baselines["teacher"] = replace(
        baselines["teacher"],
        pass_rate_E=np.array([0.69]),
        job=job("evaluate", student={"model": "Qwen/Qwen2.5-14B-Instruct"}),
    )
    return compared(
        groups,
        teacher_pass_rate=0.69,
        experiment=record(groups, baselines),
        baselines=baselines,
        differences={
            "method.type": {"gkd": "gkd", "grpo": "grpo", "sft_only": "sft"},
            "method.num_generations": {"grpo": 8},
            "teacher": {"gkd": {"model": "Qwen/Qwen2.5-14B-Instruct"}, "grpo": None, "sft_only": None},
        },
    )


@pytest.fixture(scope="session")
def poor():
    """One arm: a run that diverged and failed, one that is queued. No test, no baseline, no experiment."""
    nothing = np.array([])
    failed = run(
        "gkd",
        0,
        evaluations=2,
        id="alone-1",
        state="failed",
        failure="non_finite_loss: the loss is NaN at step 31; lower training.learning_rate",
        pass_rate_E=np.array([math.nan, math.nan]),
        test_step=None,
        test_correct_P=None,
        test_problems_P=(),
        reverse_kl=math.nan,
        environment=ENVIRONMENT | {"gpus": []},
    )
    queued = replace(
        failed,
        id="alone-2",
        seed=1,
        state="queued",
        failure="",
        steps_E=(),
        pass_rate_E=nothing,
        clocks_E=dict.fromkeys(CLOCKS, nothing),
        used={},
        problems=0,
        splits={},
        grader={},
        environment={},
        git={"commit": None, "branch": None, "dirty": None},
        reverse_kl=None,
    )
    missing = ("alone-1 failed (non_finite_loss)", "alone-2 is queued")
    return compared({"gkd": [failed, queued]}, title="alone-1, alone-2", missing=missing)


@pytest.fixture(scope="session")
def samples():
    """What `Store.samples` answers: each run has written one completion for each problem, right or wrong at random."""

    def samples(run_id, step, text="Natalia sold 48 / 2 = 24 clips in May.\nThe answer is \\boxed{72}."):
        words = np.random.default_rng(len(run_id))
        return [
            SampleRecord(
                run=1,
                step=step,
                split="test",
                problem_id=f"gsm8k-test-{n}",
                completion=text,
                extracted="72",
                found=True,
                correct=bool(words.random() < 0.5),
                tokens=20,
                clipped=False,
            )
            for n in range(PROBLEMS)
        ]

    return samples
