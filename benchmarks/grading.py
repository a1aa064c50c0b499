"""How fast the grader is on one core: ordinary pairs and formulas, against math-verify alone and a bare `==`.

    python benchmarks/grading.py

An ordinary pair is a solution in words that ends on a number, or a bare number, and its gold answer, as in GSM8K; every
second one is wrong. A formula is one that only math-verify can compare. Every pair is new, so that nothing is
remembered. Ordinary pairs are timed by CPU time, formulas, which a process of their own compares, by the wall clock.
Each repeat measures all in turns. Prints pairs a second as the median of the repeats, with their range, and the ratio
to math-verify on the same pairs in the same repeat.
"""

import operator
import random
import statistics
import time
from collections.abc import Callable, Sequence

from math_verify import parse, verify

from atlas.grading import grade

REPEATS = 5
ORDINARY = 4000
FORMULAS = 100

Pair = tuple[str, str]


def main() -> None:
    grade(r"\boxed{\sqrt{12}}", r"2\sqrt{3}")  # starts the process for mathematics
    rates: dict[str, list[float]] = {}
    for repeat in range(REPEATS):
        ordinary, formulas = _ordinary(repeat), _formulas(repeat)
        cpu, wall = time.process_time, time.perf_counter
        measured = {
            "ordinary, ==": _rate(operator.eq, ordinary, cpu),
            "ordinary, atlas": _rate(grade, ordinary, cpu),
            "ordinary, math-verify": _rate(_math_verify, ordinary[: ORDINARY // 20], cpu),
            "formulas, atlas": _rate(grade, formulas, wall),
            "formulas, math-verify": _rate(_math_verify, formulas, wall),
        }
        for name, rate in measured.items():
            rates.setdefault(name, []).append(rate)
    for name, values in rates.items():
        _show(name, values, " a second", 0)
    for kind in ("ordinary", "formulas"):
        pairs = zip(rates[f"{kind}, atlas"], rates[f"{kind}, math-verify"], strict=True)
        _show(f"{kind}, ratio", [atlas / alone for atlas, alone in pairs], " times", 1)


def _show(name: str, values: Sequence[float], unit: str, digits: int) -> None:
    median, low, high = (f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    print(f"{name:<24}{median:>12}{unit:<10} ({low} to {high})")


def _rate(compare: Callable[[str, str], object], pairs: Sequence[Pair], clock: Callable[[], float]) -> float:
    start = clock()
    for completion, answer in pairs:
        compare(completion, answer)
    return len(pairs) / (clock() - start)


def _math_verify(completion: str, answer: str) -> bool:
    return bool(verify(parse(answer), parse(completion)))


def _ordinary(seed: int) -> list[Pair]:
    generator = random.Random(seed)
    pairs = []
    for index in range(ORDINARY):
        price, count = generator.randint(2, 9999), generator.randint(2, 99)
        total = price * count
        work = f"Each box costs ${price}. There are {count} boxes, so the boxes cost {price} * {count} = ${total}.\n"
        completion = generator.choice(
            [f"{work}#### {total:,}", rf"{work}\boxed{{{total}}}", work, f"{total}.00", f"${total}"]
        )
        pairs.append((completion, str(total + index % 2)))
    return pairs


def _formulas(seed: int) -> list[Pair]:
    generator = random.Random(seed)
    pairs = []
    for index in range(FORMULAS):
        factor, root = generator.randint(2, 999), generator.choice([2, 3, 5, 7])
        pairs.append((rf"$\boxed{{{factor}\sqrt{{{root}}}}}$", rf"$\sqrt{{{factor**2 * root + index % 2}}}$"))
    return pairs


if __name__ == "__main__":
    main()
