"""Writes the agent's tasks: python specs/loop/tasks.py FOLDER

They are the quickstart's word problems, each with a calculation of its own:
`practice.jsonl` is what the agent does first, and learns from; `choosing.jsonl` is what settings may be chosen by;
`fresh.jsonl` is what it is measured on in the end, with calculations that the tiny models have never seen.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from atlas.datasets.base import Example
from atlas.datasets.splits import normalise
from atlas.job import load

MADE_THE_MODELS = Path(__file__).parents[1] / "quickstart" / "make_teacher.yaml"
"""Its problems of train made the quickstart's models; those of test did not."""
CHOOSING = 1000


def write_tasks(folder: Path, practice: int, fresh: int) -> None:
    """Writes so many practice and fresh tasks. Raises ValueError if there are too few."""
    splits = load(MADE_THE_MODELS).dataset.load()
    seen = list({normalise(example.group): example for example in splits.train}.values())
    if practice + CHOOSING > len(seen) or fresh > len(splits.test):
        raise ValueError(f"at most {len(seen) - CHOOSING} practice and {len(splits.test)} fresh tasks, please")
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "practice.jsonl", seen[:practice])
    _write(folder / "choosing.jsonl", seen[-CHOOSING:])
    _write(folder / "fresh.jsonl", splits.test[:fresh])


def _write(path: Path, examples: Sequence[Example]) -> None:
    tasks = [{"task": example.messages[-1]["content"], "reference": example.answer} for example in examples]
    path.write_text("".join(json.dumps(task) + "\n" for task in tasks))
    print(f"{path}: {len(tasks)} tasks, such as: {tasks[0]['task']}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the agent's tasks.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--practice", type=int, default=200, help="how many to practise on")
    parser.add_argument("--fresh", type=int, default=200, help="how many to measure on")
    arguments = parser.parse_args()
    write_tasks(arguments.folder, arguments.practice, arguments.fresh)
