"""How sessions and imports are shown. What agents wrote is hostile: nothing of it reaches the terminal as it is."""

import json
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from atlas.cli.tables import console_for, named_table, printable

if TYPE_CHECKING:
    from atlas.store.traces import ImportReport, Problem, SessionRow
    from atlas.traces.records import AnyRecord, InterventionRecord, OutcomeRecord, ReviewRecord
    from atlas.traces.sessions import Session

_SHOWN_PROBLEMS = 10
_TASK_CHARACTERS = 50
_PASSED = {True: "passed", False: "failed", None: "unscored"}


def counted(count: int, what: str) -> str:
    """`1 session`, `2 sessions`."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def print_import(reports: "Sequence[ImportReport]") -> None:
    """What the imports did: in all, and each line that deserves a look."""
    new, known = sum(report.new for report in reports), sum(report.known for report in reports)
    begun, changed = sum(report.begun for report in reports), sum(report.changed for report in reports)
    typer.echo(
        f"{counted(new, 'new record')} from {counted(len(reports), 'file')}: {counted(begun, 'new session')}, "
        f"{counted(changed, 'changed session')}; {counted(known, 'record')} known already"
    )
    _print_problems(reports, [(report, problem) for report in reports for problem in report.bad], "not taken")
    _print_problems(reports, [(report, problem) for report in reports for problem in report.odd], "taken, but odd")
    for report in reports:
        file = _one_line(str(report.path))
        if report.restarted:
            typer.echo(f"{file}: is another file than last time, and was read from its beginning")
        if report.unfinished:
            typer.echo(f"{file}: the last line has no end yet; the next import reads it")
    if set_back := sum(report.set_back for report in reports):
        typer.echo(f"{counted(set_back, 'approved session')} set back to unreviewed: new records came")
    if ignored := sum(report.reviews_ignored for report in reports):
        typer.echo(f"{counted(ignored, 'review line')} not taken over: review here with `atlas traces review`")
    if reports and (waiting := reports[-1].waiting):
        typer.echo(f"{counted(waiting, 'record')} in the store wait for the record of their session")
    _print_arc(reports)


def _print_problems(
    reports: "Sequence[ImportReport]", problems: "Sequence[tuple[ImportReport, Problem]]", what: str
) -> None:
    for report, problem in problems[:_SHOWN_PROBLEMS]:
        typer.echo(f"{_one_line(str(report.path))}:{problem.line}: {_one_line(problem.what)}")
    if problems:
        more = len(problems) - _SHOWN_PROBLEMS
        typer.echo(f"{counted(len(problems), 'line')} {what}{f'; {more} more than shown' if more > 0 else ''}")


def _print_arc(reports: "Sequence[ImportReport]") -> None:
    arc = _arc(reports)
    for path, count in sorted(arc["mapped"].items()):
        typer.echo(f"arc: {count} x {_one_line(path)}")
    for path, count in sorted(arc["lost"].items()):
        typer.echo(f"arc: lost {count} x {_one_line(path)}")
    for status, count in sorted(arc["review_status"].items()):
        typer.echo(f"arc: review_status {_one_line(status)} of {counted(count, 'session')} not taken over")


def _arc(reports: "Sequence[ImportReport]") -> dict[str, Any]:
    from atlas.traces.arc import Counts

    total = Counts()
    for report in reports:
        total += report.arc
    return {name: dict(counts) for name, counts in vars(total).items()}


def import_document(report: "ImportReport") -> dict[str, Any]:
    """An import as JSON."""
    document = dict(vars(report))
    return document | {
        "path": str(report.path),
        "bad": [vars(problem) for problem in report.bad],
        "odd": [vars(problem) for problem in report.odd],
        "arc": _arc([report]),
    }


def print_rows(rows: "Sequence[SessionRow]") -> None:
    """A table."""
    from rich.text import Text

    if not rows:
        return
    ids = [_one_line(row.id) for row in rows]
    table = named_table("session", ids)
    for column in ("begun", "status", "outcome", "attempts", "task", "agent", "tokens", "cost"):
        table.add_column(column, overflow="ellipsis", no_wrap=True)
    for id, row in zip(ids, rows, strict=True):
        cells = [
            _date(row.at_seconds),
            row.status,
            _outcomes(row),
            f"{row.attempts}{f' + {row.interventions}' if row.interventions else ''}",
            _one_line(row.task, _TASK_CHARACTERS),
            _one_line(row.agent or ""),
            _tokens(row.input_tokens, row.output_tokens),
            "" if row.cost_usd is None else f"${row.cost_usd:.4f}",
        ]
        table.add_row(*(Text(cell) for cell in [id, *cells]))  # Text: brackets of a model are no markup of rich
    console_for(sys.stdout).print(table)


def _outcomes(row: "SessionRow") -> str:
    """`passed (answer 1)`."""
    scores = ", ".join(
        f"{_one_line(scorer)} {'not scored' if score is None and passed is None else _verdict(score, passed)}"
        for scorer, score, passed in row.outcomes
    )
    return f"{_PASSED[row.passed]}{f' ({scores})' if scores else ''}"


def _verdict(score: float | None, passed: bool | None) -> str:
    return " ".join([*([] if score is None else [f"{score:g}"]), *([] if passed is None else [_PASSED[passed]])])


def timeline(session: "Session", reviews: "Sequence[ReviewRecord]") -> str:
    """A session as text: what happened, in order, with the seconds since its beginning."""
    begin = session.record
    agent = f", agent {_one_line(begin.agent)}" if begin.agent else ""
    tags = f", tags {_one_line(', '.join(begin.tags))}" if begin.tags else ""
    lines = [
        f"session {_one_line(session.id)}  {session.status}",
        f"  begun {_date(begin.at_seconds)}{agent}{tags}",
        "task",
        _indented(session.text),
    ]

    def add(record: "AnyRecord", heading: str, text: str | None, depth: int = 0) -> None:
        indent = "  " * depth
        lines.append(f"{indent}{record.at_seconds - begin.at_seconds:+.1f} s  {heading}{_facts(record)}")
        if text:
            lines.append(_indented(text, depth + 1))

    for number, attempt in enumerate(session.attempts, start=1):
        add(attempt.record, f"attempt {number}", attempt.record.text)
        _add_error(lines, attempt.record.error)
        for intervention in attempt.interventions:
            add(intervention, _intervention(intervention), intervention.text, 1)
        for outcome in attempt.outcomes:
            add(outcome, _outcome(outcome), outcome.note, 1)
    for intervention in session.interventions:
        add(intervention, f"{_intervention(intervention)}, answers no attempt that is known", intervention.text)
    for outcome in session.stale_outcomes:
        where = "of an attempt that is not there" if outcome.parent else "before the last attempt"
        add(outcome, f"{_outcome(outcome)}, {where}", outcome.note)
    for outcome in session.outcomes:
        add(outcome, f"{_outcome(outcome)}, of the session", outcome.note)
    if session.end:
        add(session.end, f"end: {session.end.status}", session.end.answer)
        _add_error(lines, session.end.error)
        if session.end.dropped:
            lines.append(f"  {counted(session.end.dropped, 'event')} could not be written")
    else:
        lines.append("no end: the agent is still at it, or was killed")
    lines.append(f"result: {_PASSED[session.passed()]}")
    for review in reviews:
        why = f": {_one_line(review.reason)}" if review.reason else ""
        lines.append(f"review {_date(review.at_seconds)}: {review.status} by {_one_line(review.by)}{why}")
    return "\n".join(lines)


def _intervention(record: "InterventionRecord") -> str:
    return f"{record.kind} by {record.by}{f' {_one_line(record.name)}' if record.name else ''}"


def _outcome(record: "OutcomeRecord") -> str:
    verdict = _verdict(record.score, record.passed) or "unscored"
    against = f" against {_one_line(record.reference, _TASK_CHARACTERS)}" if record.reference else ""
    return f"outcome {_one_line(record.scorer)}: {verdict}{against}"


def _facts(record: "AnyRecord") -> str:
    """`, model m, 12 + 30 tokens, 0.5 s`."""
    facts = [f"model {_one_line(record.model)}"] if record.model else []
    if tokens := _tokens(record.input_tokens, record.output_tokens):
        facts.append(f"{tokens} tokens")
    duration = getattr(record, "duration_seconds", None)
    if duration is not None:
        facts.append(f"{duration:g} s{' (a negative duration)' if duration < 0 else ''}")
    if record.cost_usd is not None:
        facts.append(f"${record.cost_usd:.4f}")
    return "".join(f", {fact}" for fact in facts)


def _add_error(lines: list[str], error: str | None) -> None:
    if error:
        lines.append(f"  error: {_one_line(error)}")


def _tokens(given: int | None, written: int | None) -> str:
    """`120 + 30`: given and written."""
    if given is None and written is None:
        return ""
    return " + ".join("?" if count is None else str(count) for count in (given, written))


def session_document(session: "Session", reviews: "Sequence[ReviewRecord]") -> dict[str, Any]:
    """A session as JSON: its records under what they belong to."""

    def documents(records: "Sequence[AnyRecord]") -> list[dict[str, Any]]:
        return [json.loads(record.model_dump_json(exclude_none=True)) for record in records]

    return {
        "id": session.id,
        "status": session.status,
        "passed": session.passed(),
        "record": documents([session.record])[0],
        "attempts": [
            {
                "record": documents([attempt.record])[0],
                "interventions": documents(attempt.interventions),
                "outcomes": documents(attempt.outcomes),
            }
            for attempt in session.attempts
        ],
        "interventions": documents(session.interventions),
        "outcomes": documents(session.outcomes),
        "stale_outcomes": documents(session.stale_outcomes),
        "end": documents([session.end])[0] if session.end else None,
        "reviews": documents(reviews),
    }


def _date(at_seconds: float) -> str:
    """In local time; a time that no calendar has is its number."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_seconds))
    except (OverflowError, ValueError, OSError):
        return f"{at_seconds:g}"


def _indented(text: str, depth: int = 1) -> str:
    return "\n".join(f"{'  ' * depth}{line}" for line in printable(text).split("\n"))


def _one_line(text: str, characters: int | None = None) -> str:
    """Text of others as one line, shortened."""
    line = " ".join(printable(text).split())
    return line if characters is None or len(line) <= characters else f"{line[: characters - 1]}…"
