"""The store that a command works on: the one of the project that the working directory belongs to."""

from collections.abc import Sequence

from atlas.errors import NotFoundError
from atlas.scheduler import settle
from atlas.store import RunRecord, Store, home_from_environment


def open_store() -> Store:
    """The project's store, created if there is none."""
    return Store.open(home_from_environment())


def settled_store() -> Store:
    """The project's store, brought up to date with the run directories."""
    store = open_store()
    settle(store)
    return store


def named_runs(store: Store, references: Sequence[str]) -> list[RunRecord]:
    """The runs that ids, starts of ids, or names of jobs mean; an experiment's id or name means all its runs."""
    runs: list[RunRecord] = []
    for reference in references:
        try:
            record = store.experiment(reference)
        except NotFoundError:
            runs.append(store.run(reference))
        else:
            runs += [store.run(run_id) for run_id in record.run_ids]
    return runs
