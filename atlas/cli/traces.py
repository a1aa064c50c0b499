"""`atlas traces`: what agents did comes into the store, is looked at, and is approved or not."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atlas.cli.options import Json
from atlas.cli.trace_options import Agent, Outcome, Scorer, Since, Statuses, Tags, TaskText, Until, filter_of
from atlas.errors import StoreError, UsageError

if TYPE_CHECKING:
    from atlas.store.traces import ImportReport, TraceStore
    from atlas.traces.filter import Filter
    from atlas.traces.records import Status

app = typer.Typer(
    help="What agents did, recorded by `atlas.sdk`: import it, look at it, approve what may be trained on.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

SessionIds = Annotated[
    list[str] | None, typer.Argument(metavar="[SESSION...]", help="Ids of sessions, or their starts.")
]
By = Annotated[str | None, typer.Option(help="Who decides: a person, or `rule:NAME`. Default: the login name.")]
Reason = Annotated[str | None, typer.Option(help="Why; kept with the review.")]
All = Annotated[bool, typer.Option("--all", help="Without a filter: every session.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say how many sessions are meant.")]


@app.command("import")
def import_traces(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files, or folders with *.jsonl below them.")],
    as_json: Json = False,
) -> None:
    """Take what files have more than last time into the store. What is there already is not taken twice.

    Lines are those of `atlas.sdk`, or sessions as Arc's `arc-atlas` exports them. Lines that cannot be taken are
    reported and passed over; the exit code is 1 only if a file could not be read, or nothing in any of them.
    """
    from atlas.cli.trace_display import import_document, print_import
    from atlas.store.traces import TraceStore

    reports: list[ImportReport] = []
    failed = False
    files = list(dict.fromkeys(_files(paths)))
    with TraceStore.open(_home()) as store:
        for file in files:
            try:
                reports.append(store.import_file(file))
            except StoreError as error:
                failed = True
                typer.echo(str(error), err=True)
    if as_json:
        typer.echo(json.dumps([import_document(report) for report in reports], indent=2))
    else:
        print_import(reports)
    nothing = any(report.bad for report in reports) and not any(report.new or report.known for report in reports)
    if failed or nothing:
        raise typer.Exit(1)


@app.command("ls")
def list_sessions(
    status: Statuses = None,
    scorer: Scorer = None,
    outcome: Outcome = None,
    tag: Tags = None,
    agent: Agent = None,
    since: Since = None,
    until: Until = None,
    text: TaskText = None,
    limit: Annotated[int, typer.Option(min=1, help="Show so many, the newest.")] = 50,
    as_json: Json = False,
) -> None:
    """List sessions, the newest first."""
    from atlas.cli.trace_display import print_rows

    filter = filter_of(status, scorer, outcome, tag, agent, since, until, text)
    with _read_only() as store:
        rows = store.rows(filter, limit)
        count = store.count(filter)
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    print_rows(rows)
    typer.echo(f"{count} sessions" if count <= len(rows) else f"{len(rows)} of {count} sessions; --limit shows more")


@app.command()
def show(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="A session's id, or the start of one.")],
    as_json: Json = False,
) -> None:
    """Show a session: the task, what was tried, what was said about it, what was measured, and its reviews."""
    from atlas.cli.trace_display import session_document, timeline

    with _read_only() as store:
        found = store.session(session)
        reviews = store.reviews(found.id)
    typer.echo(json.dumps(session_document(found, reviews), indent=2) if as_json else timeline(found, reviews))


@app.command()
def approve(
    sessions: SessionIds = None,
    status: Statuses = None,
    scorer: Scorer = None,
    outcome: Outcome = None,
    tag: Tags = None,
    agent: Agent = None,
    since: Since = None,
    until: Until = None,
    text: TaskText = None,
    by: By = None,
    reason: Reason = None,
    everything: All = False,
    dry_run: DryRun = False,
) -> None:
    """Allow training on sessions, named or chosen by a filter. A filter leaves quarantined ones alone, unless
    `--status quarantined` names them."""
    filter = filter_of(status, scorer, outcome, tag, agent, since, until, text)
    _decide("approved", sessions or [], filter, by, reason, everything, dry_run)


@app.command()
def quarantine(
    sessions: SessionIds = None,
    status: Statuses = None,
    scorer: Scorer = None,
    outcome: Outcome = None,
    tag: Tags = None,
    agent: Agent = None,
    since: Since = None,
    until: Until = None,
    text: TaskText = None,
    by: By = None,
    reason: Reason = None,
    everything: All = False,
    dry_run: DryRun = False,
) -> None:
    """Never train on sessions, named or chosen by a filter."""
    filter = filter_of(status, scorer, outcome, tag, agent, since, until, text)
    _decide("quarantined", sessions or [], filter, by, reason, everything, dry_run)


@app.command()
def review(
    sessions: SessionIds = None,
    status: Statuses = None,
    scorer: Scorer = None,
    outcome: Outcome = None,
    tag: Tags = None,
    agent: Agent = None,
    since: Since = None,
    until: Until = None,
    text: TaskText = None,
    by: By = None,
) -> None:
    """Decide about one session after another, the oldest first; without names and `--status`, the unreviewed ones."""
    from atlas.cli.trace_review import review_sessions
    from atlas.store.traces import TraceStore

    filter = filter_of(status, scorer, outcome, tag, agent, since, until, text)
    _one_choice(sessions or [], filter)
    with TraceStore.open(_home()) as store:
        if not sessions:
            meant = filter if filter.status else replace(filter, status=("unreviewed",))
            sessions = [row.id for row in reversed(store.rows(meant))]
        review_sessions(store, sessions, by or _login())


@app.command()
def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="Write to this file.")],
    status: Statuses = None,
    scorer: Scorer = None,
    outcome: Outcome = None,
    tag: Tags = None,
    agent: Agent = None,
    since: Since = None,
    until: Until = None,
    text: TaskText = None,
    as_json: Json = False,
) -> None:
    """Write sessions and their reviews to a file that `dataset: {type: traces, path: FILE}` reads; without `--status`
    the approved ones."""
    from atlas.cli.trace_display import counted

    filter = filter_of(status or ["approved"], scorer, outcome, tag, agent, since, until, text)
    with _read_only() as store:
        report = store.export(filter, output)
    if as_json:
        typer.echo(json.dumps(asdict(report) | {"path": str(report.path)}, indent=2))
        return
    typer.echo(f"{output}: {counted(report.sessions, 'session')}, {counted(report.records, 'record')}")
    for why, count in report.left_out.items():
        typer.echo(f"  left out: {count} {_printable(why)}")


def _decide(
    status: "Status",
    sessions: Sequence[str],
    filter: "Filter",
    by: str | None,
    reason: str | None,
    everything: bool,
    dry_run: bool,
) -> None:
    """Approves or quarantines, and says what it did."""
    from atlas.cli.trace_display import counted
    from atlas.store.traces import TraceStore

    verb = {"approved": "approve", "quarantined": "quarantine"}[status]
    filtered = _one_choice(sessions, filter)
    if not sessions and not filtered and not everything:
        raise UsageError(f"no session is named and no filter set; name some, or {verb} every one with --all")
    if (sessions or filtered) and everything:
        raise UsageError("--all is for a command without names and filters; leave it out")
    aside: Filter | None = None
    if status == "approved" and not filter.status:
        aside, filter = replace(filter, status=("quarantined",)), replace(filter, status=("unreviewed", "approved"))
    with TraceStore.open(_home()) as store:
        found = [store.session(session) for session in sessions]
        if sessions:
            ids = list(dict.fromkeys(session.id for session in found))
            meant, already = len(ids), len({session.id for session in found if session.status == status})
        else:
            meant = store.count(filter)
            already = store.count(replace(filter, status=(status,))) if status in (filter.status or (status,)) else 0
        if dry_run:
            typer.echo(f"would {verb} {counted(meant - already, 'session')}; {already} are {status} already")
        else:
            who = by or _login()
            changed = (
                store.review(ids, status, who, reason) if sessions else store.review_all(filter, status, who, reason)
            )
            typer.echo(f"{status} {counted(changed, 'session')}; {meant - changed} were {status} already")
        if aside and not sessions and (left := store.count(aside)):
            typer.echo(f"{counted(left, 'quarantined session')} left alone; --status quarantined means them")


def _one_choice(sessions: Sequence[str], filter: "Filter") -> bool:
    """Whether a filter is set. Raises UsageError if sessions are named as well."""
    filtered = filter != type(filter)()
    if sessions and filtered:
        raise UsageError("sessions are named and a filter is set; name some or filter, not both")
    return filtered


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            found = sorted(path.rglob("*.jsonl"))
            if not found:
                raise UsageError(f"no *.jsonl below {path}; name a folder with traces, such as that of ATLAS_TRACES")
            yield from (file for file in found if file.is_file())
        elif path.exists():
            yield path
        else:
            raise UsageError(f"there is no {path}; name a file with traces, or a folder")


def _home() -> Path:
    from atlas.store import home_from_environment

    return home_from_environment()


def _read_only() -> "TraceStore":
    from atlas.store.traces import TraceStore

    return TraceStore.open_read_only(_home())


def _login() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise UsageError("there is no login name here; say who decides with --by NAME") from error


def _printable(text: str) -> str:
    from atlas.cli.tables import printable

    return printable(text)
