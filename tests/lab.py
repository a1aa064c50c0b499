"""Runs whose measurements are made by hand, in a real store: what `Lab` appends is ingested as a worker's is."""

import json

from atlas.job import JobSpec
from atlas.store import ExperimentRecord, Membership, enqueue_arguments
from atlas.store.experiments import write

METHODS = {
    "gkd": {"method": {"type": "gkd"}, "teacher": {"model": "org/teacher"}, "training": {"max_steps": 20}},
    "grpo": {"method": {"type": "grpo"}, "training": {"max_steps": 20}},
    "sft": {"method": {"type": "sft"}, "training": {"max_steps": 20}},
    "evaluate": {"method": {"type": "evaluate"}},
}
SPLITS = {"dev": {"examples": 100, "sha256": "d" * 64}, "test": {"examples": 10, "sha256": "e" * 64}}
GRADER = {"version": 1, "percent": "unit", "ordered_lists": False}
ENVIRONMENT = {"atlas": {"version": "0.2.0"}, "packages": {"torch": "2.8.0", "trl": "1.16.0"}, "gpus": []}


class Lab:
    """Makes runs through the public API of the store."""

    def __init__(self, store):
        self.store = store

    def run(
        self,
        method,
        seed=0,
        dev=(),
        test="",
        *,
        state="succeeded",
        seconds_per_step=1.0,
        rollouts_per_step=8.0,
        test_step=None,
        splits=SPLITS,
        grader=GRADER,
        environment=ENVIRONMENT,
        metrics=(),
        eval_split="dev",
        problems=100,
        revisions=None,
        id=None,
        **job,
    ):
        """A run with a dev pass rate every ten steps, and test outcomes such as `"1101"`, one digit a problem.

        With `eval_split: test` the outcomes are those of the last evaluation.
        """
        document = self.job(method, seed, eval_split, job)
        run_id = id or f"{document['name']}-{len(self.store.runs()):06x}"
        self._submit(run_id, document)
        run_dir = self.store.home / "runs" / run_id
        lines = [
            {
                "step": 10 * n,
                "clocks": self.clocks(10 * n, seconds_per_step, rollouts_per_step),
                "values": {"eval/pass_rate": rate, "eval/problems": problems},
            }
            for n, rate in enumerate(dev)
        ]
        last = max(0, 10 * (len(dev) - 1))
        step = last if test_step is None else test_step
        if test and eval_split == "dev":
            scored = {"test/step": step, "test/pass_rate": test.count("1") / len(test), "test/problems": len(test)}
            clocks = self.clocks(last, seconds_per_step, rollouts_per_step)
            lines.append({"step": last, "clocks": clocks, "values": scored})
        lines += [{"step": last, "values": dict(metrics)}] if metrics else []
        append(run_dir / "metrics.jsonl", lines)
        append(run_dir / "samples.jsonl", [sample(step, f"p{n}", correct) for n, correct in enumerate(test)])
        if splits is not None:
            (run_dir / "splits.json").write_text(json.dumps({"splits": splits, "grader": grader}))
        append(run_dir / "environment.json", [{"python": "old"}, environment])
        if revisions is not None:
            (run_dir / "result.json").write_text(json.dumps({"summary": {"revisions": revisions}}))
        self._settle(run_id, state)
        return run_id

    def job(self, method, seed, eval_split, changes):
        raw = {
            "name": method,
            "seed": seed,
            "student": {"model": "org/student"},
            "dataset": {"type": "gsm8k", "dev_size": 100, "test_size": 10},
            "evaluation": {"split": eval_split},
            **METHODS[method],
            **changes,
        }
        return JobSpec.model_validate(raw).model_dump(mode="json")

    @staticmethod
    def clocks(step, seconds_per_step, rollouts_per_step):
        seconds = step * seconds_per_step
        return {
            "wall_seconds": 2 * seconds,
            "train_seconds": seconds,
            "gpu_seconds": seconds,
            "tokens_generated": 100.0 * step,
            "tokens_trained": 50.0 * step,
            "rollouts": step * rollouts_per_step,
        }

    def experiment(self, runs, baselines=None, id="study-0a0a0a", at=1.0):
        """Remembers an experiment of (arm, seed, run id)s."""
        record = ExperimentRecord(
            id=id,
            name="study",
            submitted_at_seconds=at,
            atlas_version="0",
            command="atlas submit study.yaml",
            spec_file="study.yaml",
            spec_text="",
            git=None,
            spec={},
            differences={"method.type": {arm: arm for arm, _, _ in runs}},
            runs=[Membership(arm=arm, seed=seed, run_id=run_id) for arm, seed, run_id in runs],
            baselines=baselines or {},
        )
        write(self.store.home, record)
        return record

    def _submit(self, run_id, document):
        run_dir = self.store.home / "runs" / run_id
        run_dir.mkdir(parents=True)
        content = {
            "run_id": run_id,
            "digest": run_id,
            "submitted_at_seconds": float(len(self.store.runs())),
            "git": {"commit": "c0ffee", "dirty": False},
            "job": document,
        }
        (run_dir / "spec.json").write_text(json.dumps(content))
        self.store.enqueue(**enqueue_arguments(content), run_dir=run_dir)

    def _settle(self, run_id, state):
        self.store.ingest(run_id)
        if state == "queued":
            return
        run = self.store.claim("test", run_id)
        self.store.started(run_id, run.fence, "1:2", [])
        if state == "running":
            return
        reason = ("out_of_memory", "no memory left") if state == "failed" else (None, None)
        self.store.finish(run_id, run.fence, state, *reason)


def append(file, documents):
    with file.open("a") as stream:
        stream.writelines(json.dumps(document) + "\n" for document in documents)


def sample(step, problem, correct, number=0):
    return {
        "step": step,
        "split": "test",
        "problem_id": problem,
        "sample": number,
        "completion": "x",
        "extracted": None,
        "found": True,
        "correct": correct == "1",
        "tokens": 3,
        "clipped": False,
    }
