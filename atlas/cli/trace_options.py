"""Options that choose sessions, the same for every command of `atlas traces`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from atlas.errors import UsageError

if TYPE_CHECKING:
    from atlas.traces.filter import Filter

STATUSES = ("unreviewed", "approved", "quarantined")
OUTCOMES = ("passed", "failed", "unscored")

Statuses = Annotated[list[str] | None, typer.Option("--status", help=f"{', '.join(STATUSES)}. May be repeated.")]
Scorer = Annotated[str | None, typer.Option(help="Scored by this scorer after the last attempt.")]
Outcome = Annotated[str | None, typer.Option(help=f"{', '.join(OUTCOMES)}: by that scorer, else by all together.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="With this tag. May be repeated: with all of them.")]
Agent = Annotated[str | None, typer.Option(help="Of this agent.")]
Since = Annotated[str | None, typer.Option(metavar="DATE", help="Begun at or after this date, or date and time.")]
Until = Annotated[str | None, typer.Option(metavar="DATE", help="Begun before this date, or date and time.")]
TaskText = Annotated[str | None, typer.Option("--text", help="With this in the task, whatever the case.")]


def filter_of(
    status: list[str] | None,
    scorer: str | None,
    outcome: str | None,
    tag: list[str] | None,
    agent: str | None,
    since: str | None,
    until: str | None,
    text: str | None,
) -> "Filter":
    """What the options say. Raises UsageError for words and dates that mean nothing."""
    from atlas.traces.filter import Filter

    for word in status or []:
        _one_of("--status", word, STATUSES)
    if outcome is not None:
        _one_of("--outcome", outcome, OUTCOMES)
    chosen: Any = outcome
    return Filter(
        status=tuple(dict.fromkeys(status or [])),
        scorer=scorer,
        outcome=chosen,
        tags=tuple(tag or []),
        agent=agent,
        since_seconds=_seconds("--since", since),
        until_seconds=_seconds("--until", until),
        text=text,
    )


def _one_of(option: str, word: str, expected: tuple[str, ...]) -> None:
    if word not in expected:
        raise UsageError(f"{option} {word!r} is unknown; expected one of {', '.join(expected)}")


def _seconds(option: str, date: str | None) -> float | None:
    """Unix time of a date in local time, unless it names its zone."""
    from datetime import datetime

    if date is None:
        return None
    try:
        return datetime.fromisoformat(date).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(
            f"{option} {date!r} is no date; expected one such as 2026-01-31 or 2026-01-31T12:00"
        ) from error
