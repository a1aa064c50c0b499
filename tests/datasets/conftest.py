"""Small files of each dataset's layout, written for these tests."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import recorded
from recorded import corrected, solved

from atlas.datasets import Arithmetic, Gsm8k, Jsonl, MetaMathQA, Traces
from atlas.datasets.base import Dataset

Write = Callable[[str, Iterable[Any]], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes rows as JSON Lines and returns the path."""

    def write_lines(name: str, rows: Iterable[Any]) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write_lines


def metamath_rows(questions: int = 40) -> list[dict[str, str]]:
    """Each question asked in four ways, one of them with other case and spaces in `original_question`."""
    rows = []
    for n in range(questions):
        original = f"Kim owns {n} kites and is given {n + 3} by Lou. How many kites does Kim own?"
        worked = f"Kim owns {n} + {n + 3} = {2 * n + 3} kites.\n#### {2 * n + 3}\nThe answer is: {2 * n + 3}"
        reversed_query = f"Kim owns x kites and is given {n + 3} by Lou. Now Kim owns {2 * n + 3}. What is x?"
        reversed_worked = f"x + {n + 3} = {2 * n + 3}, so x = {n}. The answer is: {n}"
        rephrased = f"Lou gives Kim {n + 3} kites on top of {n}. What is the number of Kim's kites?"
        rows += [
            {"query": original, "response": worked, "type": "GSM_AnsAug", "original_question": original},
            {"query": original, "response": "Add. " + worked, "type": "GSM_AnsAug", "original_question": original},
            {"query": rephrased, "response": worked, "type": "GSM_Rephrased", "original_question": original.upper()},
            {
                "query": reversed_query,
                "response": reversed_worked,
                "type": "GSM_SV",
                "original_question": original.replace(" ", "  ") + "\n",
            },
        ]
    return rows


def gsm8k_rows(start: int, count: int) -> list[dict[str, str]]:
    return [
        {
            "question": f"A crate holds {n},000 nails. How many nails are in 2 crates?",
            "answer": f"There are {n},000*2=<<{n}000*2={2 * n}000>>{2 * n},000 nails.\n#### {2 * n},000",
        }
        for n in range(start, start + count)
    ]


def jsonl_rows(count: int = 30) -> list[dict[str, Any]]:
    """Half of them as a prompt, half as messages with the solution as the last turn."""
    rows: list[dict[str, Any]] = []
    for n in range(count):
        ask, work = f"What is {n} doubled?", f"{n} + {n} = {2 * n}. The answer is: {2 * n}"
        if n % 2:
            rows.append({"prompt": ask, "answer": 2 * n, "solution": work})
        else:
            turns = [{"role": "user", "content": ask}, {"role": "assistant", "content": work}]
            rows.append({"messages": turns, "answer": str(2 * n)})
    return rows


@pytest.fixture(params=["metamathqa", "gsm8k", "jsonl", "arithmetic", "traces"])
def make(request: pytest.FixtureRequest, write: Write, tmp_path: Path) -> Callable[..., Dataset]:
    """One of the datasets, small, with the given settings on top."""
    if request.param == "metamathqa":
        path = write("MetaMathQA-395K.jsonl", metamath_rows())
        return lambda **settings: MetaMathQA(path=path, **{"dev_size": 5, "test_size": 8, **settings})
    if request.param == "gsm8k":
        write("gsm8k/train.jsonl", gsm8k_rows(0, 30))
        write("gsm8k/test.jsonl", gsm8k_rows(100, 12))
        path = str(tmp_path / "gsm8k")
        return lambda **settings: Gsm8k(path=path, **{"dev_size": 5, "test_size": 8, **settings})
    if request.param == "jsonl":
        path = write("own.jsonl", jsonl_rows())
        return lambda **settings: Jsonl(path=path, **{"dev_size": 5, "test_size": 8, **settings})
    if request.param == "traces":
        sessions = [(solved, corrected)[n % 2](n, id=f"s{n}") for n in range(40)]
        path = recorded.write(tmp_path / "traces.jsonl", sessions)
        return lambda **settings: Traces(path=path, **{"dev_size": 5, "test_size": 8, **settings})
    return lambda **settings: Arithmetic(**{"size": 300, "max_operand": 20, "dev_size": 5, "test_size": 8, **settings})
