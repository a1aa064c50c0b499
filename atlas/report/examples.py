"""Problems that one arm solves and the other does not, with what the models wrote."""

from collections.abc import Callable, Mapping, Sequence

from atlas.comparison.model import ArmResult, Comparison, RunResult, Verdict
from atlas.report.document import Block, Code, Details, Paragraph
from atlas.store import SampleRecord

ReadSamples = Callable[[str, int], Sequence[SampleRecord]]
"""`Store.samples`: run id, step -> what was evaluated there."""
SHOWN = 10
LONGEST = 600
"""Characters of a completion that are shown."""

_Tests = Mapping[str, Mapping[str, Sequence[SampleRecord]]]
"""Run id -> problem id -> its completions on test at the chosen step."""


def examples(comparison: Comparison, samples: ReadSamples) -> tuple[Block, ...]:
    """For each verdict up to SHOWN problems gained and lost on test."""
    changed = [verdict for verdict in comparison.verdicts if verdict.gained_P or verdict.lost_P]
    if not changed:
        if any(verdict.difference for verdict in comparison.verdicts):
            return (
                Paragraph("None: no test problem is solved by most seeds of one arm and not by most of the other."),
            )
        return (Paragraph("Not known: there is no pair of test scores."),)
    arms = {arm.name: arm for arm in comparison.arms}
    named = {arms[name].name for verdict in changed for name in (verdict.arm, verdict.reference)}
    tests: _Tests = {run.id: _on_test(run, samples) for name in named for run in arms[name].runs}
    blocks: list[Block] = [
        Paragraph(
            f"Up to {SHOWN} each, by the id of the problem in its dataset: the record holds what the models wrote, not "
            "the problem's text. Of each arm the first seed that was graded as most of its seeds were; cut after "
            f"{LONGEST} characters; control characters are written out.",
            "muted",
        )
    ]
    for verdict in changed:
        blocks += _of_verdict(verdict, arms[verdict.arm], arms[verdict.reference], tests)
    return tuple(blocks)


def _on_test(run: RunResult, samples: ReadSamples) -> dict[str, list[SampleRecord]]:
    found: dict[str, list[SampleRecord]] = {}
    if run.test_step is None:
        return found
    for sample in samples(run.id, run.test_step):
        if sample.split == "test":
            found.setdefault(sample.problem_id, []).append(sample)
    return found


def _of_verdict(verdict: Verdict, arm: ArmResult, reference: ArmResult, tests: _Tests) -> list[Block]:
    blocks: list[Block] = []
    for word, problems, winner, loser in (
        (f"{arm.name} solves and {reference.name} does not", verdict.gained_P, arm, reference),
        (f"{reference.name} solves and {arm.name} does not", verdict.lost_P, reference, arm),
    ):
        if not problems:
            blocks.append(Paragraph(f"No problem that {word}."))
            continue
        shown = problems[:SHOWN]
        count = f"{len(shown)} of {len(problems)}" if len(shown) < len(problems) else str(len(problems))
        blocks.append(Paragraph(f"Problems that {word} ({count}):"))
        for problem in shown:
            pair = (*_written(winner, problem, True, tests), *_written(loser, problem, False, tests))
            blocks.append(Details(problem, pair))
    return blocks


def _written(arm: ArmResult, problem: str, correct: bool, tests: _Tests) -> tuple[Block, ...]:
    """One completion of the arm that was graded as the arm as a whole was, of the first seed that has one."""
    for run in arm.runs:
        for sample in tests[run.id].get(problem, ()):
            if sample.correct == correct:
                answer = f"answer {sample.extracted}" if sample.extracted is not None else "no answer found"
                verdict = "right" if correct else "wrong"
                cut = ", cut at the token limit" if sample.clipped else ""
                return (
                    Paragraph(f"{arm.name}, seed {run.seed}: {verdict}, {answer}{cut}"),
                    Code(_shortened(sample.completion)),
                )
    return (Paragraph(f"{arm.name}: its completion is not in the store."),)


def _shortened(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return f"{text[:LONGEST]}\n[… cut: {len(text):,} characters in all]"
