"""The same problems in several evaluations: which were gained and lost against the first, the reference."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from atlas.store import Store
from atlas.store.queries import Verdict

TEST, NEWEST = "test", "newest"
"""Steps by name: the one whose weights were scored on test (else the newest), and the newest evaluated one."""


@dataclass(frozen=True)
class Grade:
    """One problem in one evaluation, over all its completions there."""

    correct: float
    """Share of the completions that are right."""
    extracted: tuple[str | None, ...]
    """The answer that was found in each."""
    unparsed: bool
    """In some completion no answer was found."""
    clipped: bool
    """Some completion was cut at the token limit."""
    tokens: int

    @property
    def right(self) -> bool:
        """Most of the completions are right."""
        return self.correct > 0.5

    @property
    def wrong(self) -> bool:
        """Most of the completions are wrong; at exactly one half a problem is neither."""
        return self.correct < 0.5


@dataclass(frozen=True)
class Evaluation:
    """One run at one step."""

    run_id: str
    step: int
    grades: Mapping[str, Grade]
    """Problem id -> how it went, in the order in which the problems were asked."""

    @property
    def name(self) -> str:
        return f"{self.run_id} step {self.step}"


_Row = Sequence[Grade | None]
"""One problem in each evaluation; None where it was not asked."""


def _gained(row: _Row) -> bool:
    return row[0] is not None and row[0].wrong and any(grade is not None and grade.right for grade in row[1:])


def _lost(row: _Row) -> bool:
    return row[0] is not None and row[0].right and any(grade is not None and grade.wrong for grade in row[1:])


def _some(holds: Callable[[Grade], bool]) -> Callable[[_Row], bool]:
    return lambda row: any(grade is not None and holds(grade) for grade in row)


FILTERS: Mapping[str, Callable[[_Row], bool]] = {
    "all": lambda row: True,
    "gained": _gained,
    "lost": _lost,
    "unparsed": _some(lambda grade: grade.unparsed),
    "clipped": _some(lambda grade: grade.clipped),
    "wrong": _some(lambda grade: grade.wrong),
    "right": _some(lambda grade: grade.right),
}
"""`gained`: wrong in the first evaluation and right in another; `lost`: the reverse. The others: in some evaluation."""


def common_steps(store: Store, run_ids: Sequence[str], split: str) -> list[int]:
    """The steps at which all the runs were evaluated on this split."""
    steps = [{step for step, its_split in store.evaluations(run_id) if its_split == split} for run_id in run_ids]
    return sorted(set.intersection(*steps)) if steps else []


def evaluations(
    store: Store, run_ids: Sequence[str], steps: Sequence[str], split: str
) -> tuple[list[Evaluation], list[str]]:
    """Every run at every step (a number, TEST or NEWEST), each evaluation once; and what is not there, in words.

    Raises NotFoundError for a run that is not in the store.
    """
    test_steps = store.latest_of(run_ids, ["test/step"])
    found: dict[tuple[str, int], Evaluation] = {}
    missing = []
    for run_id in run_ids:
        evaluated = store.evaluations(run_id)
        there = [step for step, its_split in evaluated if its_split == split]
        for wanted in steps:
            step = _step(wanted, there, test_steps[run_id].get("test/step"))
            if step is None:
                missing.append(_missing(run_id, wanted, split, there, evaluated))
            elif (run_id, step) not in found:
                found[run_id, step] = Evaluation(run_id, step, _grades(store.verdicts(run_id, step, split)))
    return list(found.values()), list(dict.fromkeys(missing))


def problems_of(compared: Sequence[Evaluation], kind: str = "all") -> list[str]:
    """The ids of the problems that a filter of FILTERS lets pass, in the order in which they were asked."""
    asked = dict.fromkeys(problem for evaluation in compared for problem in evaluation.grades)
    return [problem for problem in asked if FILTERS[kind]([evaluation.grades.get(problem) for evaluation in compared])]


def _grades(verdicts: Sequence[Verdict]) -> dict[str, Grade]:
    by_problem: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_problem.setdefault(verdict.problem_id, []).append(verdict)
    return {
        problem: Grade(
            sum(verdict.correct for verdict in rows) / len(rows),
            tuple(verdict.extracted for verdict in rows),
            any(not verdict.found for verdict in rows),
            any(verdict.clipped for verdict in rows),
            sum(verdict.tokens for verdict in rows),
        )
        for problem, rows in by_problem.items()
    }


def _step(wanted: str, there: Sequence[int], test_step: float | None) -> int | None:
    if not there:
        return None
    if wanted == TEST and test_step in there:
        return int(test_step or 0)
    if wanted in (TEST, NEWEST):
        return there[-1]
    return next((step for step in there if str(step) == wanted), None)


def _missing(run_id: str, wanted: str, split: str, there: Sequence[int], evaluated: Sequence[tuple[int, str]]) -> str:
    if there:
        return f"{run_id} was not evaluated on {split} at step {wanted}; it was at {_listed(there)}"
    splits = sorted({its_split for _, its_split in evaluated})
    if splits:
        return f"{run_id} has completions of {' and '.join(splits)} and none of {split}"
    return f"{run_id} has no evaluated completions yet"


def _listed(steps: Sequence[int]) -> str:
    shown = [str(step) for step in steps]
    return ", ".join(shown if len(shown) <= 12 else [*shown[:5], "...", *shown[-6:]])
