"""Comparisons as the report gets them, made by hand."""

import json
from dataclasses import replace

import numpy as np

from atlas.comparison.arms import arm_results, targets
from atlas.comparison.model import Comparison, RunResult
from atlas.comparison.verdict import verdict
from atlas.job import JobSpec
from atlas.run import CLOCKS
from atlas.store.experiments import ExperimentRecord, Membership

AT_SECONDS = 1763800000.0


"""When the reports of these tests are made."""


PROBLEMS = 200


ENVIRONMENT = {
    "atlas": {"version": "0.1.0", "commit": "4f1e2d3c" * 5},
    "python": "3.12.3",
    "platform": "Linux-6.8.0-aarch64",
    "host": "dgx",
    "packages": {"torch": "2.9.0", "transformers": "5.0.1", "trl": "1.16.0"},
    "gpus": [{"name": "NVIDIA H200", "driver": "580.12", "memory_bytes": 1}],
    "command": ["python"],
}


SPEC_TEXT = """kind: experiment
name: case-study
base: ./gkd.yaml
arms:
  gkd: {}
  grpo: {teacher: null, method: {type: grpo}}   # the reward replaces the teacher
seeds: [0, 1, 2]
baselines: [student, teacher]
"""


def job(arm, seed=0, **changes):
    document = {
        "name": f"case-study-{arm}-s{seed}",
        "student": {"model": "Qwen/Qwen2.5-7B-Instruct"},
        "method": {"type": arm if arm in ("gkd", "grpo", "evaluate") else "sft"},
        "dataset": {"type": "gsm8k"},
        "training": {"max_steps": 500, "batch_size": 64, "learning_rate": 2e-5},
        "evaluation": {"every_steps": 50, "teacher": False},
        "seed": seed,
    }
    if arm == "gkd":
        document["teacher"] = {"model": "Qwen/Qwen2.5-14B-Instruct"}
    if arm == "evaluate":
        del document["training"]
    return JobSpec.model_validate_json(json.dumps(document | changes))


def run(arm, seed=0, gain=0.25, pace_seconds=900.0, phases=None, evaluations=11, **changes):
    """A run whose pass rate rises from 0.31 by `gain`, in noisy steps of 50."""
    noise = np.random.default_rng(100 * seed + len(arm))
    steps_E = tuple(range(0, 50 * evaluations, 50))
    rate_E = 0.31 + gain * (1 - np.exp(-np.arange(evaluations) / 3)) + noise.normal(0, 0.012, evaluations)
    rate_E = np.round(rate_E * PROBLEMS) / PROBLEMS
    seconds_E = pace_seconds * np.arange(evaluations) * (1 + 0.03 * seed)
    clocks_E = {clock: seconds_E for clock in CLOCKS} | {"rollouts": 64.0 * np.array(steps_E)}
    clocks_E["tokens_generated"] = 310.0 * clocks_E["rollouts"]
    base = RunResult(
        id=f"case-study-{arm}-s{seed}-{7 * seed + len(arm):06x}",
        arm=arm,
        seed=seed,
        state="succeeded",
        failure="",
        job=job(arm, seed),
        planned_steps=500,
        steps_E=steps_E,
        pass_rate_E=rate_E,
        problems=PROBLEMS,
        clocks_E=clocks_E,
        test_step=400,
        test_problems_P=tuple(f"gsm8k-test-{n}" for n in range(PROBLEMS)),
        test_correct_P=(noise.random(PROBLEMS) < 0.30 + gain).astype(float),
        used={clock: float(values[-1]) for clock, values in clocks_E.items()} | {"wall_seconds": 12 * pace_seconds},
        phase_seconds=phases or {},
        reverse_kl=0.042 + 0.003 * seed if arm == "gkd" else None,
        splits={name: {"examples": n, "sha256": f"{n:064x}"} for name, n in (("dev", 200), ("test", 200))},
        grader={"version": 1, "percent": "unit", "ordered_lists": False},
        environment=ENVIRONMENT,
        git={"commit": "9a8b7c6d" * 5, "branch": "main", "dirty": False},
    )
    return replace(base, **changes)


def record(groups, baselines):
    return ExperimentRecord(
        id="case-study-a1b2c3",
        name="case-study",
        submitted_at_seconds=AT_SECONDS - 90000,
        atlas_version="0.1.0",
        command="atlas submit specs/case_study/experiment.yaml --set seeds=[0]",
        spec_file="specs/case_study/experiment.yaml",
        spec_text=SPEC_TEXT,
        git={"commit": "9a8b7c6d" * 5, "branch": "main", "dirty": True},
        spec={"name": "case-study", "seeds": [0, 1, 2]},
        differences={},
        runs=[Membership(arm=arm, seed=each.seed, run_id=each.id) for arm, runs in groups.items() for each in runs],
        baselines={name: each.id for name, each in baselines.items()},
    )


def compared(groups, teacher_pass_rate=None, **changes):
    """The comparison of these runs by arm."""
    arms = arm_results(groups)
    level = 1 - 0.05 / max(1, len(arms) - 1)
    comparison = Comparison(
        title="case-study",
        experiment=None,
        arms=arms,
        baselines={},
        differences={},
        level=level,
        targets=targets(arms, teacher_pass_rate),
        verdicts=tuple(verdict(arm, arms[0], level) for arm in arms[1:]),
    )
    return replace(comparison, **changes)
