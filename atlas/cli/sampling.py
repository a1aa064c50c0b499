"""`atlas samples`: what the models wrote, the same problem across runs and steps."""

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atlas.cli.options import Json, RunsOrExperiments
from atlas.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from atlas.comparison.by_problem import Evaluation, Grade
    from atlas.store import RunRecord, SampleRecord, Store
    from atlas.store.problems import Problem


def samples(
    references: RunsOrExperiments,
    step: Annotated[
        list[str] | None,
        typer.Option(
            help="A step; `test`: the one scored on test, else the newest; `newest`. May be repeated. Default: test."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="dev or test. Default: test, where there are completions of it.")
    ] = None,
    problem: Annotated[
        str | None, typer.Option(metavar="ID", help="Show what was asked and written in this problem.")
    ] = None,
    filter: Annotated[
        str,
        typer.Option(
            help="all, gained, lost (against the first run and step), unparsed, clipped, wrong or right (in some run)."
        ),
    ] = "all",
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print one line for each problem of each run.")] = False,
) -> None:
    """List the evaluated problems with the verdict of each run, or show what the runs wrote in one of them."""
    from atlas.cli.experiments import named, runs_of
    from atlas.cli.stores import settled_store
    from atlas.comparison.by_problem import FILTERS, TEST, evaluations, problems_of

    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other; name one")
    if filter not in FILTERS:
        raise UsageError(f"--filter {filter!r} is unknown; expected one of {', '.join(FILTERS)}")
    store = settled_store()
    found = [run for reference in references for run in runs_of(store, named(store, reference))]
    runs = list({run.id: run for run in found}.values())
    split = split or _split(store, runs)
    compared, missing = evaluations(store, [run.id for run in runs], step or [TEST], split)
    for sentence in missing:
        typer.echo(sentence, err=True)
    asked = _asked(runs, split)
    if problem is not None:
        _show_problem(store, compared, split, problem, asked.get(problem), as_json)
        return
    shown = problems_of(compared, filter)
    if as_json:
        _print_json(compared, split, shown, asked)
    elif as_csv:
        _print_csv(compared, split, shown, asked)
    else:
        _print_table(compared, shown, asked)
        against = f" against {compared[0].name}" if filter in ("gained", "lost") and compared else ""
        typer.echo(f"{len(shown)} problems{'' if filter == 'all' else f', {filter}'}{against}")


def _split(store: "Store", runs: "Sequence[RunRecord]") -> str:
    splits = {split for run in runs for _, split in store.evaluations(run.id)}
    return "dev" if splits == {"dev"} else "test"


def _asked(runs: "Sequence[RunRecord]", split: str) -> "dict[str, Problem]":
    """As the first of the runs that recorded its problems has them."""
    from atlas.store.problems import problems

    for run in runs:
        found = {problem.id: problem for problem in problems(Path(run.run_dir), split)}
        if found:
            return found
    return {}


def _print_table(compared: "Sequence[Evaluation]", shown: Sequence[str], asked: "Mapping[str, Problem]") -> None:
    from rich.text import Text

    from atlas.cli.tables import console_for, named_table, printable
    from atlas.comparison.names import short_names

    names = short_names([evaluation.run_id for evaluation in compared])
    table = named_table("problem", [printable(problem) for problem in shown])
    if asked:
        table.add_column("gold", max_width=20)
    for evaluation in compared:
        table.add_column(f"{names[evaluation.run_id]}\nstep {evaluation.step}", max_width=30)
    for problem in shown:
        gold = [printable(asked[problem].answer) if problem in asked else ""] if asked else []
        cells = [printable(problem), *gold, *(_verdict(evaluation.grades.get(problem)) for evaluation in compared)]
        table.add_row(*(Text(cell) for cell in cells))  # Text: brackets of a model are no markup of rich
    if shown:
        console_for(sys.stdout).print(table)


def _verdict(grade: "Grade | None") -> str:
    from atlas.cli.tables import printable

    if grade is None:
        return "not asked"
    word = "right" if grade.correct == 1 else "wrong" if grade.correct == 0 else f"{100 * grade.correct:.0f} % right"
    answers = ", ".join("none" if answer is None else printable(answer)[:40] for answer in grade.extracted[:4])
    return f"{word}: {answers}{' (clipped)' if grade.clipped else ''}"


def _print_json(
    compared: "Sequence[Evaluation]", split: str, shown: Sequence[str], asked: "Mapping[str, Problem]"
) -> None:
    document = {
        "split": split,
        "evaluations": [_place(evaluation) for evaluation in compared],
        "problems": [
            {
                **_asked_document(problem, asked.get(problem)),
                "grades": [
                    _place(evaluation) | _grade_document(evaluation.grades[problem])
                    for evaluation in compared
                    if problem in evaluation.grades
                ],
            }
            for problem in shown
        ],
    }
    typer.echo(json.dumps(document, indent=2))


def _print_csv(
    compared: "Sequence[Evaluation]", split: str, shown: Sequence[str], asked: "Mapping[str, Problem]"
) -> None:
    from atlas.cli.tables import printable

    writer = csv.writer(sys.stdout, lineterminator="\n")
    grades = ("correct", "unparsed", "clipped", "tokens", "extracted")
    writer.writerow(["problem_id", "split", "run", "step", "gold", *grades])
    for problem in shown:
        gold = printable(asked[problem].answer) if problem in asked else ""
        for evaluation in compared:
            if grade := evaluation.grades.get(problem):
                answers = " | ".join(printable(answer) for answer in grade.extracted if answer is not None)
                place = [printable(problem), split, evaluation.run_id, evaluation.step, gold]
                writer.writerow([*place, grade.correct, grade.unparsed, grade.clipped, grade.tokens, answers])


def _show_problem(
    store: "Store",
    compared: "Sequence[Evaluation]",
    split: str,
    problem_id: str,
    problem: "Problem | None",
    as_json: bool,
) -> None:
    written = [
        (evaluation, store.sample_of(evaluation.run_id, evaluation.step, split, problem_id)) for evaluation in compared
    ]
    if not any(found for _, found in written):
        raise NotFoundError(
            f"no completion of problem {problem_id!r} on {split} there; without --problem all are listed"
        )
    if as_json:
        document = {
            "split": split,
            **_asked_document(problem_id, problem),
            "completions": [
                _place(evaluation) | sample.model_dump(exclude={"number", "run", "step", "split", "problem_id"})
                for evaluation, found in written
                for sample in found
            ],
        }
        typer.echo(json.dumps(document, indent=2))
        return
    _print_problem(written, problem)


def _print_problem(written: "Sequence[tuple[Evaluation, Sequence[SampleRecord]]]", problem: "Problem | None") -> None:
    from atlas.cli.tables import printable

    if problem is None:
        typer.echo("what was asked is not known: no problems.jsonl in the run directories")
    else:
        typer.echo(f"asked\n{_indented(printable(problem.text))}\ngold answer\n{_indented(printable(problem.answer))}")
    for evaluation, found in written:
        for sample in found:
            verdict = "right" if sample.correct else "wrong" if sample.found else "no answer found"
            answer = "" if sample.extracted is None else f", answer {printable(sample.extracted)}"
            clipped = ", cut at the token limit" if sample.clipped else ""
            typer.echo(f"\n{evaluation.name}: {verdict}{answer}, {sample.tokens} tokens{clipped}")
            typer.echo(_indented(printable(sample.completion)))


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.split("\n"))


def _place(evaluation: "Evaluation") -> dict[str, Any]:
    return {"run": evaluation.run_id, "step": evaluation.step}


def _grade_document(grade: "Grade") -> dict[str, Any]:
    return {**vars(grade), "extracted": list(grade.extracted)}


def _asked_document(problem_id: str, problem: "Problem | None") -> dict[str, Any]:
    """`messages` and `answer` are null where the run did not record them."""
    messages = problem and [{"role": role, "content": content} for role, content in problem.messages]
    return {"problem_id": problem_id, "messages": messages, "answer": problem and problem.answer}
