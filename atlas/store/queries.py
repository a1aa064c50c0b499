"""Everything that can be asked of the store.

What is returned is detached from the database: plain objects that never change by themselves.
"""

import difflib
import json
import math
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, cast

from sqlalchemy import Engine, func, text
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from atlas.errors import NotFoundError, UsageError
from atlas.run import CLOCKS
from atlas.store import experiments
from atlas.store.database import RUNS, explained
from atlas.store.experiments import ExperimentRecord
from atlas.store.models import EventRecord, RunRecord, SampleRecord
from atlas.store.snapshot import Snapshot
from atlas.store.states import ENDED, STATES


class Verdict(NamedTuple):
    """How one completion was graded (`SampleRecord` without its text)."""

    problem_id: str
    sample: int
    extracted: str | None
    found: bool
    correct: bool
    tokens: int
    clipped: bool


class Queries:
    """Short reading transactions on one database file. An unknown `run_id` (a full id) raises NotFoundError."""

    def __init__(self, path: Path, reader: Engine) -> None:
        self.path = path
        self.home = path.parent
        self._reader = reader

    def runs(
        self,
        states: Collection[str] | None = None,
        name: str | None = None,
        tag: str | None = None,
        limit: int | None = None,
    ) -> list[RunRecord]:
        """The runs that meet all conditions, newest first."""
        query = _newest_first()
        if states is not None:
            query = query.where(col(RunRecord.state).in_(states))
        if name is not None:
            query = query.where(RunRecord.name == name)
        if tag is not None:
            query = query.where(
                text("EXISTS (SELECT 1 FROM json_each(run.tags) WHERE value = :tag)").bindparams(tag=tag)
            )
        with self._reading() as session:
            return list(session.exec(query.limit(limit)))

    def run(self, reference: str) -> RunRecord:
        """The run with this id, or the latest with this name, or the only one whose id begins so.

        Raises NotFoundError with the nearest names, or with all the runs that an ambiguous beginning could mean.
        """
        with self._reading() as session:
            exact = session.exec(select(RunRecord).where(RunRecord.id == reference)).first()
            if exact:
                return exact
            named = session.exec(_newest_first().where(RunRecord.name == reference).limit(1)).first()
            if named:
                return named
            known = list(session.exec(_newest_first()))
        matches = [run for run in known if reference and run.id.startswith(reference)]
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise NotFoundError(
                f"{reference!r} could mean {', '.join(run.id for run in matches)}; write more of the id"
            )
        near = difflib.get_close_matches(reference, dict.fromkeys(word for run in known for word in (run.name, run.id)))
        hint = f"did you mean {' or '.join(near)}?" if near else "`atlas ls` shows all runs"
        raise NotFoundError(f"no run {reference!r} in {self.path}; {hint}")

    def runs_of_digest(self, digest: str) -> list[RunRecord]:
        """The runs of this very job, newest first."""
        with self._reading() as session:
            return list(session.exec(_newest_first().where(RunRecord.digest == digest)))

    def last_run_of_name(self, name: str, ended: bool = False) -> RunRecord | None:
        """The newest run of this name (with `ended`: of those that succeeded, failed or were cancelled)."""
        return next(iter(self.runs(ENDED if ended else None, name=name, limit=1)), None)

    def counts(self) -> dict[str, int]:
        """How many runs are in each state."""
        with self._reading() as session:
            found = dict(session.exec(select(RunRecord.state, func.count()).group_by(RunRecord.state)).all())
        return {state: found.get(state, 0) for state in STATES}

    def runs_of(self, run_ids: Sequence[str]) -> list[RunRecord]:
        """The runs with these ids, in that order. Those that are not in the store are left out."""
        with self._reading() as session:
            ids = text("id IN (SELECT value FROM json_each(:ids))").bindparams(ids=json.dumps(list(run_ids)))
            found = {run.id: run for run in session.exec(select(RunRecord).where(ids))}
        return [found[run_id] for run_id in dict.fromkeys(run_ids) if run_id in found]

    def spec(self, run_id: str) -> str:
        """The resolved job of a run, as JSON."""
        ((spec,),) = self._rows(
            run_id, "SELECT text FROM spec_snapshot WHERE digest = (SELECT spec_digest FROM run WHERE number = :run)"
        )
        return cast(str, spec)

    def events(self, run_id: str) -> list[EventRecord]:
        """What happened to a run, oldest first."""
        with self._reading() as session:
            run = find(session, run_id)
            return list(
                session.exec(select(EventRecord).where(EventRecord.run == run.number).order_by(col(EventRecord.number)))
            )

    def experiments(self) -> list[ExperimentRecord]:
        """All experiments that were submitted, newest first."""
        return experiments.read_all(self.home)

    def experiment(self, reference: str) -> ExperimentRecord:
        """The experiment of this id, or the newest one of this name. Raises NotFoundError if there is none."""
        return experiments.named(self.experiments(), reference)

    def samples(self, run_id: str, step: int | None = None, limit: int | None = None) -> list[SampleRecord]:
        """The evaluated completions of a run (of one step), in the order in which they were written."""
        with self._reading() as session:
            query = select(SampleRecord).where(SampleRecord.run == find(session, run_id).number)
            if step is not None:
                query = query.where(SampleRecord.step == step)
            return list(session.exec(query.order_by(col(SampleRecord.number)).limit(limit)))

    def outcomes(self, run_id: str, step: int, split: str) -> list[tuple[str, float]]:
        """(problem, share of its completions that are correct) of one evaluation, in the order they were written."""
        rows = self._rows(
            run_id,
            "SELECT problem_id, avg(correct) FROM sample WHERE run = :run AND step = :step AND split = :split "
            "GROUP BY problem_id ORDER BY min(number)",
            step=step,
            split=split,
        )
        return [(problem, correct) for problem, correct in rows]

    def evaluations(self, run_id: str) -> list[tuple[int, str]]:
        """(step, split) of every evaluation whose completions are in the store, by step."""
        rows = self._rows(run_id, "SELECT DISTINCT step, split FROM sample WHERE run = :run ORDER BY step, split")
        return [(step, split) for step, split in rows]

    def verdicts(self, run_id: str, step: int, split: str) -> list[Verdict]:
        """One evaluation without its texts, in the order in which it was written."""
        rows = self._rows(
            run_id,
            "SELECT problem_id, sample, extracted, found, correct, tokens, clipped FROM sample "
            "WHERE run = :run AND step = :step AND split = :split ORDER BY number",
            step=step,
            split=split,
        )
        return [
            Verdict(problem, sample, extracted, bool(found), bool(correct), tokens, bool(clipped))
            for problem, sample, extracted, found, correct, tokens, clipped in rows
        ]

    def sample_of(self, run_id: str, step: int, split: str, problem_id: str) -> list[SampleRecord]:
        """The completions of one problem in one evaluation; empty if it was not asked there."""
        with self._reading() as session:
            query = select(SampleRecord).where(
                SampleRecord.run == find(session, run_id).number,
                SampleRecord.step == step,
                SampleRecord.split == split,
                SampleRecord.problem_id == problem_id,
            )
            return list(session.exec(query.order_by(col(SampleRecord.sample))))

    def written(self, run_id: str, step: int, split: str, words: str) -> frozenset[str]:
        """The problems of one evaluation with a completion that holds these words, in whatever case."""
        rows = self._rows(
            run_id,
            "SELECT DISTINCT problem_id FROM sample WHERE run = :run AND step = :step AND split = :split "
            "AND instr(lower(completion), lower(:words))",
            step=step,
            split=split,
            words=words,
        )
        return frozenset(problem for (problem,) in rows)

    def metric_names(self, run_id: str) -> list[str]:
        """The names of a run's metrics, sorted."""
        return sorted(self.latest(run_id))

    def latest(self, run_id: str) -> dict[str, float]:
        """The newest value of each metric of a run; NaN and infinities as such."""
        rows = self._rows(
            run_id,
            "SELECT name, value, nonfinite FROM latest JOIN metric_key ON id = key_id WHERE run = :run",
        )
        return {name: _restored(value, word) for name, value, word in rows}

    def latest_of(self, run_ids: Sequence[str], names: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
        """Run id -> `latest` of it, for many runs in two queries; with `names`, of these metrics alone."""
        wanted = "" if names is None else "AND name IN (SELECT value FROM json_each(:names))"
        query = (
            "SELECT run, name, value, nonfinite FROM latest JOIN metric_key ON id = key_id "
            f"WHERE run IN (SELECT value FROM json_each(:runs)) {wanted}"
        )
        with self._reading() as session:
            numbers = _numbers(session, run_ids)
            parameters = {"runs": json.dumps(list(numbers.values())), "names": json.dumps(names and list(names))}
            rows = session.connection().execute(text(query), parameters).all()
        found: dict[int, dict[str, float]] = {number: {} for number in numbers.values()}
        for number, name, value, word in rows:
            found[number][name] = _restored(value, word)
        return {run_id: found[number] for run_id, number in numbers.items()}

    def metrics(self, run_id: str, name: str) -> list[tuple[int, float]]:
        """(step, value) of one metric, by step; NaN and infinities as such. Empty if the run has no such metric."""
        rows = self._rows(
            run_id,
            "SELECT step, value, nonfinite FROM metric WHERE run = :run "
            "AND key_id = (SELECT id FROM metric_key WHERE name = :name) ORDER BY step",
            name=name,
        )
        return [(step, _restored(value, word)) for step, value, word in rows]

    def clocks(self, run_id: str, metric: str | None = None) -> dict[int, dict[str, float]]:
        """The reading of every one of `atlas.run.CLOCKS` at each step, by step; NaN where it was not recorded.

        With `metric`, only at the steps of that metric, and at the newest step of all.
        """
        wanted = (
            "AND (step IN (SELECT step FROM metric WHERE run = :run "
            "AND key_id = (SELECT id FROM metric_key WHERE name = :name)) "
            "OR step = (SELECT max(step) FROM clock WHERE run = :run))"
        )
        rows = self._rows(
            run_id,
            f"SELECT step, {', '.join(CLOCKS)} FROM clock WHERE run = :run {wanted if metric else ''} ORDER BY step",
            name=metric,
        )
        return {
            step: {
                clock: math.nan if reading is None else reading for clock, reading in zip(CLOCKS, readings, strict=True)
            }
            for step, *readings in rows
        }

    def curve(self, run_id: str, name: str, clock: str) -> list[tuple[float, float]]:
        """(clock, value) of one metric over one of `atlas.run.CLOCKS`, by step; steps without that clock are left out.

        Raises UsageError for an unknown clock.
        """
        if clock not in CLOCKS:
            raise UsageError(f"unknown clock {clock!r}; expected one of {', '.join(CLOCKS)}")
        rows = self._rows(
            run_id,
            f"SELECT {clock}, value, nonfinite FROM metric JOIN clock USING (run, step) WHERE run = :run "
            f"AND key_id = (SELECT id FROM metric_key WHERE name = :name) AND {clock} IS NOT NULL ORDER BY step",
            name=name,
        )
        return [(reading, _restored(value, word)) for reading, value, word in rows]

    def totals(self, run_id: str, names: Sequence[str]) -> dict[str, float]:
        """The sum of each of these metrics over all steps; NaN and infinities count. Unknown ones are left out."""
        rows = self._rows(
            run_id,
            "SELECT name, total(total), max(count > 0 AND total IS NULL OR nonfinite) FROM metric_block "
            "JOIN metric_key ON id = key_id "
            "WHERE run = :run AND name IN (SELECT value FROM json_each(:names)) GROUP BY name",
            names=json.dumps(list(names)),
        )
        return {
            name: sum(value for _, value in self.metrics(run_id, name)) if odd else total for name, total, odd in rows
        }

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        """A short look at one moment of the database. While it is open, SQLite cannot shorten its write-ahead log."""
        with self._reading() as session:
            yield Snapshot(driver_connection(session))

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        """One short transaction: while it is open, SQLite cannot shorten its write-ahead log."""
        with explained(self.path, RUNS), Session(self._reader) as session:
            yield session

    def _rows(self, run_id: str, query: str, **parameters: Any) -> Sequence[Any]:
        """The rows of a query about `:run`. By the driver: with many runs the ORM would take longer than SQLite."""
        with self._reading() as session:
            connection = driver_connection(session)
            found = connection.execute("SELECT number FROM run WHERE id = ?", (run_id,)).fetchone()
            return connection.execute(query, {"run": found[0] if found else _missing(run_id), **parameters}).fetchall()


def _newest_first() -> SelectOfScalar[RunRecord]:
    return select(RunRecord).order_by(col(RunRecord.created_seconds).desc(), col(RunRecord.number).desc())


def find(session: Session, run_id: str) -> RunRecord:
    run = session.exec(select(RunRecord).where(RunRecord.id == run_id)).first()
    return _missing(run_id) if run is None else run


def _missing(run_id: str) -> NoReturn:
    raise NotFoundError(f"no run {run_id!r}; `atlas ls` shows all runs")


def driver_connection(session: Session) -> sqlite3.Connection:
    """What the session's transaction runs on, for SQL that is run often."""
    connection = session.connection().connection.driver_connection
    assert isinstance(connection, sqlite3.Connection)
    return connection


def _numbers(session: Session, run_ids: Sequence[str]) -> dict[str, int]:
    """What the other tables call these runs, in the order asked. Raises NotFoundError as `find` does."""
    query = "SELECT id, number FROM run WHERE id IN (SELECT value FROM json_each(:ids))"
    numbers: dict[str, int] = dict(
        session.connection().execute(text(query), {"ids": json.dumps(list(run_ids))}).tuples().all()
    )
    return {run_id: numbers[run_id] if run_id in numbers else _missing(run_id) for run_id in run_ids}


def _restored(value: float | None, nonfinite: str | None) -> float:
    return float(nonfinite) if nonfinite else cast(float, value)
