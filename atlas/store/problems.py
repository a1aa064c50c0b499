"""What was asked: problems.jsonl of a run directory (grammar: `atlas/run.py`), which is not in the database."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One problem of a held-out split."""

    id: str
    messages: tuple[tuple[str, str], ...]
    """(role, content), as the job puts it."""
    answer: str
    """The gold answer."""

    @property
    def text(self) -> str:
        """All that is said to the model; with several messages each under its role."""
        if len(self.messages) == 1:
            return self.messages[0][1]
        return "\n\n".join(f"[{role}]\n{content}" for role, content in self.messages)


def problems(run_dir: Path, split: str) -> Iterator[Problem]:
    """The problems of a split, in its order. None if the run recorded none (an older Atlas made it, or its directory
    is gone); lines that are no problem are passed over."""
    try:
        with open(run_dir / "problems.jsonl", encoding="utf-8", errors="replace") as file:
            for line in file:
                problem = _problem(line, split)
                if problem is not None:
                    yield problem
    except OSError:
        return


def problem_of(run_dir: Path, split: str, problem_id: str) -> Problem | None:
    """The problem of this id, if the run recorded it."""
    return next((problem for problem in problems(run_dir, split) if problem.id == problem_id), None)


def _problem(line: str, split: str) -> Problem | None:
    try:
        record: dict[str, Any] = json.loads(line)
        if record["split"] != split:
            return None
        messages = tuple((str(message["role"]), str(message["content"])) for message in record["messages"])
        return Problem(str(record["problem_id"]), messages, str(record["answer"]))
    except (ValueError, KeyError, TypeError):
        return None
