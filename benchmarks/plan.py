"""What `atlas plan` estimates against what jobs take, each in a process of its own, on one core.

    python benchmarks/plan.py SMOLLM2_DIR GSM8K_DIR [NAME...]

Seconds are of the CPU, of the steps after the first; the estimate is told the mean length of the completions that were
written. Memory is the process's peak.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

THREADS = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
QUICKSTART = Path(__file__).parents[1] / "specs" / "quickstart"
PHASES = ("generate", "teacher", "forward_backward", "optimizer")


def settings(model: str, gsm8k: str) -> dict[str, dict[str, Any]]:
    """Name -> job."""

    def smol(method: dict[str, Any], longest: int = 32, student: dict[str, Any] | None = None, **training: Any) -> Any:
        job = {
            "name": "plan",
            "student": {"model": model} | (student or {}),
            "method": method,
            "dataset": {"type": "gsm8k", "path": gsm8k, "train_size": 8, "dev_size": 8, "test_size": 8},
            "training": {"max_steps": 2, "batch_size": 8, **training},
            "evaluation": {"split": "test", "max_completion_length": longest, "max_problems": 1, "teacher": False},
            "resources": {"gpus": 0, "cpus": 1},
        }
        job |= {"teacher": {"model": model}} if method["type"] == "gkd" else {}
        return job | ({"sampling": {"max_completion_length": longest}} if method["type"] != "sft" else {})

    def tiny(name: str) -> Any:
        from atlas.job import load

        changes = ["training.max_steps=4", "evaluation.every_steps=100", "resources={gpus: 0, cpus: 1}"]
        return load(QUICKSTART / f"{name}.yaml", changes).model_dump(mode="json")

    gkd, grpo, sft = {"type": "gkd"}, {"type": "grpo", "rewards": {"answer": 0, "random": 1}}, {"type": "sft"}
    evaluate = smol({"type": "evaluate"}) | {"training": None, "sampling": None}
    evaluate["evaluation"] = {"split": "test", "max_completion_length": 32}
    lora = {"lora": {"r": 16}}
    return {
        "gkd, 64 tokens": smol(gkd, 64),
        "gkd, 128 tokens, micro-batches of 1": smol(gkd, 128, batch_size=4, micro_batch_size=1),
        "gkd, LoRA": smol(gkd, student=lora),
        "grpo, 64 tokens": smol(grpo, 64, batch_size=16),
        "sft, micro-batches of 2": smol(sft, max_steps=4, batch_size=4, micro_batch_size=2),
        "sft, checkpointing": smol(sft, max_steps=4, batch_size=4, gradient_checkpointing=True),
        "evaluate": evaluate,
        "quickstart gkd": tiny("gkd"),
        "quickstart grpo": tiny("grpo"),
        "quickstart sft": tiny("make_teacher"),
    }


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Runs the job as a worker does, in this process."""
    import resource

    from atlas import worker

    time.monotonic = time.process_time  # the clocks then count seconds of the CPU: others may use the machine
    with tempfile.TemporaryDirectory() as home:
        directory = Path(home) / "runs" / "plan"
        directory.mkdir(parents=True)
        (directory / "spec.json").write_text(json.dumps({"run_id": "plan", "job": job}))
        if worker.work(directory) != worker.SUCCEEDED:
            raise SystemExit((directory / "result.json").read_text())
        lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    steps = [line["values"] for line in lines if line.get("step", 0) > 1 and "train/loss" in line["values"]]
    phases = {name: _mean(steps, f"phase/{name}_seconds") or 0.0 for name in PHASES} if steps else {}
    return {
        "seconds": phases,
        "tokens": _mean(steps, "train/completions/mean_length"),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def main() -> None:
    from atlas.job import JobSpec
    from atlas.lengths import lengths_of
    from atlas.machine import machine_of
    from atlas.models import estimate_peak_bytes
    from atlas.step_time import step_time
    from atlas.store import home_from_environment

    os.environ |= THREADS
    print(
        "| | GB, estimated | measured | ratio | s a step, estimated | measured | ratio |\n|---|---|---|---|---|---|---|"
    )
    for name, job in settings(*sys.argv[1:3]).items():
        if sys.argv[3:] and name not in sys.argv[3:]:
            continue
        spec = JobSpec.model_validate(job)
        resolved = spec.model_dump(mode="json")
        command = [sys.executable, __file__, json.dumps(resolved)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        found = json.loads(output.stdout.splitlines()[-1])
        lengths, machine = lengths_of(spec, spec.dataset.load()), machine_of(spec, home_from_environment())
        assert lengths is not None and machine is not None
        peak, step = estimate_peak_bytes(spec, lengths), step_time(spec, machine, lengths, found["tokens"])
        assert peak is not None
        row = _compared(peak.total_bytes / 1e9, found["peak_bytes"] / 1e9)
        if step is not None:
            row += " | " + _compared(step.total, sum(found["seconds"].values()))
            estimated = {phase: round(getattr(step, phase), 2) for phase in PHASES}
            print(estimated, {phase: round(seconds, 2) for phase, seconds in found["seconds"].items()}, file=sys.stderr)
        print(f"| {name} | {row} |", flush=True)


def _compared(estimated: float, measured: float) -> str:
    return f"{estimated:.2f} | {measured:.2f} | {estimated / measured:.2f}"


def _mean(steps: list[dict[str, float]], name: str) -> float | None:
    values = [step[name] for step in steps if name in step]
    return sum(values) / len(values) if values else None


if __name__ == "__main__":
    if len(sys.argv) == 2:
        print(json.dumps(measure(json.loads(sys.argv[1]))))
    else:
        main()
