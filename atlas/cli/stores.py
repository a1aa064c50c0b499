"""The store that a command works on: the one of the project that the working directory belongs to."""

from atlas.scheduler import settle
from atlas.store import Store, home_from_environment


def open_store() -> Store:
    """The project's store, created if there is none."""
    return Store.open(home_from_environment())


def settled_store() -> Store:
    """The project's store, brought up to date with the run directories."""
    store = open_store()
    settle(store)
    return store
