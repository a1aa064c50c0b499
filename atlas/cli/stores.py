"""The store that a command works on: the one of the project that the working directory belongs to."""

from collections.abc import Callable
from pathlib import Path

from atlas.errors import AtlasError
from atlas.scheduler import settle
from atlas.store import Store, home_from_environment
from atlas.store.database import FILE_NAME


def open_store() -> Store:
    """The project's store, created if there is none."""
    return Store.open(home_from_environment())


def settled_store() -> Store:
    """The project's store, brought up to date with the run directories."""
    store = open_store()
    settle(store)
    return store


class Settler:
    """Brings the store of a home up to date with its run directories. Makes no store, and says what went wrong once."""

    def __init__(self, home: Path, say: Callable[[str], None]) -> None:
        self._home, self._say = home, say
        self._said: set[str] = set()
        self._store: Store | None = None
        self._inode: int | None = None

    def __call__(self) -> None:
        """One round. Never raises: whatever a home holds, it is shown as far as it can be read."""
        try:
            self._settle()
        except Exception as error:
            message = str(error) if isinstance(error, AtlasError) else f"{type(error).__name__}: {error}"
            if message not in self._said:
                self._said.add(message)
                self._say(f"runs are shown as they were last recorded: {message}")

    def _settle(self) -> None:
        file = self._home / FILE_NAME
        inode = file.stat().st_ino if file.is_file() else None
        if inode != self._inode or self._store is None:  # `atlas reindex` has put another file there
            if self._store is not None:
                self._store.close()
            self._store, self._inode = (Store.open(self._home), inode) if inode is not None else (None, None)
        if self._store is not None:
            settle(self._store)
