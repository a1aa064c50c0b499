"""What agents did: the review gate, and from sessions to examples."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from atlas.datasets.base import Dataset, Example, Splits, Turn
from atlas.datasets.rows import identity, oddities, warn
from atlas.datasets.splits import content, split_apart
from atlas.datasets.trace_card import Account, card
from atlas.datasets.trace_source import frozen_copy, quarantined, recorded_sessions, state_of
from atlas.errors import SpecError
from atlas.grading import GradingSpec, Verdict
from atlas.spec import LocalPath, Spec
from atlas.traces.conversation import Kind, task_turns, turns_before
from atlas.traces.filter import Filter
from atlas.traces.scorers import EXACT_MATCH_VERSION, SCORERS
from atlas.traces.sessions import Attempt, Session

Role = Literal["user", "system", "tool"]


class Roles(Spec):
    """The role in the chat of what was said about an attempt. The task is the user's, attempts are the assistant's."""

    guidance: Role = "user"
    """Advice, of a teacher, a person or a rule."""
    critique: Role = "user"
    """What was said to be wrong."""
    tool_result: Role = "tool"
    """What a tool returned. `user` for models whose chat template knows no tools."""


class Traces(Dataset):
    """What agents did, recorded by `atlas.sdk` and approved: each attempt to learn is an example, its prompt is what
    the agent was given.

    Held out are tasks whose reference is known, however the agent did on them, as they stood before its first answer.
    They are graded by `scorer` where Atlas can measure it again (`answer`, `exact_match`), otherwise by `answer`.
    """

    type: Literal["traces"] = "traces"
    path: LocalPath | None = None
    """A file written by `atlas traces export`. Default: the store of this home, of which `atlas submit` writes a copy
    that later reviews do not change."""
    status: Literal["approved", "unreviewed"] = "approved"
    """Which sessions may be used. `unreviewed`: also those that nobody has reviewed. Quarantined ones never."""
    scorer: str | None = None
    """Learn only from sessions that this scorer has measured after their last attempt; its outcome is meant below.
    Default: any session; with several scorers all must agree that it passed."""
    outcome: Literal["passed", "failed", "unscored", "any"] = "passed"
    """Which sessions are learnt from. The text of a failed attempt is never imitated: `failed` and `any` are for
    methods where the student writes itself. What is held out does not depend on it."""
    tags: list[str] = Field(default_factory=list)
    """Only sessions with all of these."""
    agent: str | None = None
    """Only sessions of this agent."""
    since: str | None = None
    """Only sessions begun at this date (2025-01-31) or time (2025-01-31T12:00:00+01:00) or later; UTC if it names no
    time zone."""
    until: str | None = None
    """Only sessions begun before this date or time."""
    context: Literal["conversation", "task"] = "conversation"
    """What the model is given. `conversation`: what the agent was given, earlier attempts and what was said about them
    included. `task`: the task alone, so that it learns to do without the help."""
    turns: Literal["last", "all"] = "last"
    """Which attempts are learnt: the last one of a session, or each of them, for agents whose attempts are steps."""
    roles: Roles = Roles()
    """Who says what in the conversation. Attempts whose messages were recorded are taken as they were."""

    @field_validator("since", "until")
    @classmethod
    def _is_time(cls, text: str | None) -> str | None:
        if text is not None:
            _unix_seconds(text)
        return text

    @model_validator(mode="after")
    def _consistent(self) -> "Traces":
        if self.since and self.until and _unix_seconds(self.since) >= _unix_seconds(self.until):
            raise ValueError(f"no time is between since {self.since} and until {self.until}; exchange them")
        if self._measure == "exact_match" and self.grading != GradingSpec():
            raise ValueError("exact_match reads no answers, so that grading would be ignored; remove it")
        if self.context == "task" and self.roles != Roles():
            raise ValueError("with context task nothing but the task is said, so that roles would be ignored")
        return self

    def check(self) -> Splits:
        splits, sessions = self._read()
        refused = quarantined() if self.path else frozenset()
        if withdrawn := [session for session in sessions if session in refused]:
            raise SpecError(
                f"{self.path}: {len(withdrawn)} of its sessions have been quarantined since, {withdrawn[0]} for one; "
                "submit the job without path, which takes what is approved now, or export it again",
                "dataset.path",
            )
        return splits

    def load(self) -> Splits:
        return self._read()[0]

    def check_reward(self) -> None:
        if self.scorer is not None and self.scorer not in SCORERS:
            raise SpecError(
                f"{self.scorer} says what somebody measured and cannot measure what the student writes; name one of "
                f"{', '.join(SCORERS)}, or choose a method without rewards: sft, gkd",
                "dataset.scorer",
            )

    def frozen(self, home: Path, keep: bool = True) -> Self:
        if self.path is not None:
            return self
        copy = frozen_copy(home, Filter(status=self._statuses), keep)
        return self.model_copy(update={"path": str(copy)})

    def grade(self, example: Example, completion: str) -> Verdict:
        return SCORERS[self._measure](completion, example.answer, self.grading)

    def grader(self) -> dict[str, Any]:
        if self._measure == "exact_match":
            return {"scorer": "exact_match", "version": EXACT_MATCH_VERSION}
        return super().grader()

    def _read(self) -> tuple[Splits, tuple[str, ...]]:
        """The splits, and the ids of all sessions that there are."""
        return _load(self.model_dump_json(), state_of(self.path))

    def _load(self) -> tuple[Splits, tuple[str, ...]]:
        accounts = [self._account(session) for session in recorded_sessions(self.path)]
        learnt: dict[str, Example] = {}
        for account in sorted(accounts, key=lambda account: not account.asked):  # of equal ones, those with a reference
            fresh = [example for example in account.learnt if learnt.setdefault(content(example), example) is example]
            if len(fresh) < len(account.learnt):
                account.left_out["equal to another"] += len(account.learnt) - len(fresh)
            account.learnt = fresh
        asked = {example.id: example for account in accounts for example in account.asked}
        self._check_found(accounts, learnt, asked)
        splits, held_out = self._split(accounts, list(learnt.values()), list(asked.values()))
        self._warn(accounts, [*splits.train, *splits.dev, *splits.test])
        splits = replace(splits, card=card(accounts, {example.id for example in splits.train}, held_out))
        return splits, tuple(account.session.id for account in accounts)

    @property
    def _measure(self) -> str:
        """The scorer that new completions are graded by."""
        return self.scorer if self.scorer is not None and self.scorer in SCORERS else "answer"

    @property
    def _statuses(self) -> tuple[str, ...]:
        return ("approved",) if self.status == "approved" else ("approved", "unreviewed")

    def _gate(self) -> Filter:
        """What may be used at all."""
        return Filter(
            status=self._statuses,
            tags=tuple(self.tags),
            agent=self.agent,
            since_seconds=_unix_seconds(self.since) if self.since else None,
            until_seconds=_unix_seconds(self.until) if self.until else None,
        )

    def _account(self, session: Session) -> Account:
        account = Account(session)
        account.reason = self._gate().why_not(session)
        if account.reason is None and session.end is not None and session.end.dropped:
            account.reason = "some of its events were lost"
        if account.reason is not None:
            return account
        reference = self._reference(session)
        if reference is not None:
            account.asked = self._asked(session, reference)
        wanted = Filter(scorer=self.scorer, outcome=None if self.outcome == "any" else self.outcome)
        account.reason = _why_not(wanted, session)
        if account.reason is None:
            for attempt in session.attempts if self.turns == "all" else session.attempts[-1:]:
                example = self._learnt(session, attempt, reference)
                if isinstance(example, Example):
                    account.learnt.append(example)
                else:
                    account.left_out[example] += 1
        return account

    def _reference(self, session: Session) -> str | None:
        found = [outcome.reference for outcome in session.final_outcomes() if outcome.scorer == self._measure]
        return next((reference for reference in found if reference and reference.strip()), None)

    def _asked(self, session: Session, reference: str) -> list[Example]:
        """The task as it stood before the first answer in words: nobody's guidance is in it."""
        first = next((attempt for attempt in session.attempts if attempt.record.text.strip()), None)
        turns = self._turns(session, first) if first else task_turns(session)
        if not _asks(turns):
            return []
        name = identity(json.dumps(turns), reference)
        return [Example(name, session.text, self.prompt(turns), reference)]

    def _learnt(self, session: Session, attempt: Attempt, reference: str | None) -> Example | str:
        """The attempt as an example, or why it is none."""
        text, failed = attempt.record.text, _failed(session, attempt, self.scorer)
        if not text.strip():
            return "without text"
        if attempt.record.error or attempt.record.metadata.get("incomplete"):
            return "broken off or in error"
        if failed and self.outcome == "passed":
            return "failed on the way"
        turns = self._turns(session, attempt)
        if not _asks(turns):
            return "nothing was asked before it"
        if not failed and _said_before(text, turns, session, reference):
            return "said before it in the same words"
        solution = None if failed else text
        name = f"{session.id}/{session.attempts.index(attempt) + 1}"
        safe = name if name.isascii() and name.isprintable() else identity(name)
        return Example(safe, session.text, self.prompt(turns), reference or "", solution)

    def _turns(self, session: Session, attempt: Attempt) -> list[Turn]:
        if self.context == "task":
            return task_turns(session)
        roles: Mapping[Kind, str] = self.roles.model_dump()  # type: ignore[assignment]
        return turns_before(session, attempt, roles)

    def prompt(self, turns: Sequence[Mapping[str, Any]]) -> tuple[Turn, ...]:
        if self.system is not None and turns[0]["role"] == "system":
            raise SpecError(
                "a session has a system message of its own; remove this, or such sessions", "dataset.system"
            )
        return super().prompt(turns)

    def _check_found(
        self, accounts: Sequence[Account], learnt: Mapping[str, Example], asked: Mapping[str, Example]
    ) -> None:
        source = self.path or "the store"
        if not learnt:
            reasons = Counter(account.why_unused for account in accounts)
            told = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
            raise SpecError(
                f"{source}: none of {len(accounts)} sessions can be learnt from: {told}; {_next_step(reasons)}",
                "dataset.path" if self.path else "dataset",
            )
        if not asked and self.dev_size + self.test_size > 0:
            raise SpecError(
                f"{source}: no session that may be used has a reference of {self._measure}, so that nothing can be "
                f"held out to measure on; record outcomes with one (s.outcome({self._measure!r}, ..., reference=...)), "
                f"or set this to the one of {', '.join(SCORERS)} that was recorded",
                "dataset.scorer",
            )

    def _split(
        self, accounts: Sequence[Account], learnt: list[Example], asked: list[Example]
    ) -> tuple[Splits, frozenset[str]]:
        try:
            return split_apart(learnt, asked, self)
        except SpecError as error:
            unknown = sum(not account.asked and account.reason is None for account in accounts)
            if not unknown:
                raise
            why = f" ({unknown} sessions have no reference of {self._measure} and cannot be held out)"
            raise SpecError([replace(problem, message=problem.message + why) for problem in error.problems]) from None

    def _warn(self, accounts: Sequence[Account], used: Sequence[Example]) -> None:
        source = Path(self.path).name if self.path else "traces"
        unreviewed = sum(a.session.status == "unreviewed" for a in accounts if a.learnt or a.asked)
        warnings = [f"{source}: {unreviewed} sessions that nobody has reviewed are used"] if unreviewed else []
        warnings += [f"{source}: example {example.id} {oddity}" for example in used for oddity in oddities(example)]
        warn(warnings, source)


@lru_cache(maxsize=4)
def _load(dataset: str, _state: object) -> tuple[Splits, tuple[str, ...]]:
    """Read once while the sessions stay as they are: the arms of an experiment, and a plan, ask several times."""
    return Traces.model_validate_json(dataset)._load()


def _why_not(wanted: Filter, session: Session) -> str | None:
    why = wanted.why_not(session)
    measured = session.stale_outcomes or any(attempt.outcomes for attempt in session.attempts)
    return "not measured after the last attempt" if why == "unscored" and measured else why


def _failed(session: Session, attempt: Attempt, scorer: str | None) -> bool:
    """Whether the attempt, or what it led to, is known to be wrong."""
    if session.passed(scorer) is False:
        return True
    newest = {outcome.scorer: outcome for outcome in attempt.outcomes if scorer in (None, outcome.scorer)}
    return attempt is not session.attempts[-1] and any(outcome.passed is False for outcome in newest.values())


def _asks(turns: Sequence[Turn]) -> bool:
    """Whether there is something that an assistant could answer."""
    return bool(turns) and turns[-1]["role"] != "assistant" and any(turn["role"] == "user" for turn in turns)


def _said_before(text: str, turns: Sequence[Turn], session: Session, reference: str | None) -> bool:
    """Whether somebody dictated it. An answer that is only a word of the task was not."""
    text = text.strip()
    return text not in session.text and text != reference and any(text in turn["content"] for turn in turns)


def _next_step(reasons: Mapping[str, int]) -> str:
    if "unreviewed" in reasons:
        return "look at them with `atlas traces review`, and `atlas traces approve` those to learn from"
    return "loosen the filters, or approve other sessions; `atlas traces ls` lists them"


def _unix_seconds(text: str) -> float:
    """Raises ValueError if it is no date and no time."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"expected a date or time such as 2025-01-31 or 2025-01-31T12:00:00+01:00, got {text!r}"
        ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
