"""The child process of `symbolic.py`: reads JSON lines `[answer]` or `[prediction, gold]`, writes `0` or `1` for each.

A script, started by its path: it imports math-verify and nothing of Atlas.
"""

import json
import os
import re
import resource
import signal
import sys
from dataclasses import replace
from typing import Any

from math_verify import LatexExtractionConfig, parse, verify
from sympy import Eq, Symbol, solve  # type: ignore[import-untyped]

_MEMORY_BYTES = 2 * 2**30

# Its own units are off: it takes `5t`, `5c` and `5ab` for a five. `symbolic.py` has taken them off.
_LATEX = LatexExtractionConfig(
    normalization_config=replace(LatexExtractionConfig().normalization_config, units=False, boxed="none")
)


# Numbers that six decimals do not tell from zero.
_SMALL = re.compile(r"\.0{3}|\^\s*\{?\s*-")


def main(cpu_seconds: float) -> None:
    """Answers until standard input ends. Each line may take `cpu_seconds`, then the kernel ends this process."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    replies = os.dup(1)
    _read("1")
    os.write(replies, b"r")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    for line in sys.stdin.buffer:
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        reply = _answer(json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        os.write(replies, b"1" if reply else b"0")


def _answer(texts: list[str]) -> bool:
    try:
        parsed = [_read(text) for text in texts]
        if len(parsed) == 1:
            return any(not isinstance(expression, str) for expression in parsed[0])
        prediction, gold = parsed
        return _equal(gold, prediction, texts) and _equal(prediction, gold, texts)
    except (Exception, RecursionError, MemoryError):
        return False  # sympy raises whatever it likes on what it cannot read, and that is not equal to anything


def _equal(gold: list[Any], prediction: list[Any], texts: list[str]) -> bool:
    """What math-verify says, which asks for a direction; where the two directions differ, it is wrong in one."""
    digits = 30 if any(_SMALL.search(text) for text in texts) else 6
    equal = verify(gold, prediction, float_rounding=digits, allow_set_relation_comp=True, timeout_seconds=None)
    return bool(equal) and not (_unsolvable(gold) and _unsolvable(prediction))


def _unsolvable(parsed: list[Any]) -> bool:
    """Whether an equation has no solution, as all such are equal to math-verify."""
    equation = parsed[0] if parsed else None
    if not isinstance(equation, Eq) or isinstance(equation.lhs, Symbol):
        return False
    return not solve(equation)


def _read(text: str) -> list[Any]:
    return list(parse(f"${text}$", extraction_config=[_LATEX], parsing_timeout=None))


if __name__ == "__main__":
    main(float(sys.argv[1]))
