"""Opening the database file: where it is, how SQLite must be set up, and bringing its schema up to date."""

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from atlas.errors import StoreError
from atlas.private import only_owner

FILE_NAME = "atlas.db"
_BUSY_TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Schema:
    """The kind of a database: what its tables are, and what a user does where the file cannot be used."""

    migrations: Path
    """A folder of Alembic's."""
    where_missing: str
    """The next step where there is no file."""
    where_old: str
    """What brings an old file up to date."""
    where_broken: str
    """The next step where the file is damaged."""

    @cached_property
    def revisions(self) -> list[str]:
        """Every schema this Atlas knows; the last is the one it works with."""
        versions = (self.migrations / "versions").glob("revision_*.py")
        return sorted(path.stem.removeprefix("revision_") for path in versions)


RUNS = Schema(
    Path(__file__).parent / "migrations",
    where_missing="submit a run first, or point ATLAS_HOME to the right folder",
    where_old="a command that writes, such as `atlas up`, brings it up to date",
    where_broken="move it away and rebuild it with `atlas reindex`",
)


class Closing:
    """A store whose connections end with its `with` block."""

    _reader: Engine
    _writer: Engine | None

    def close(self) -> None:
        """Closes all connections."""
        self._reader.dispose()
        if self._writer:
            self._writer.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def home_from_environment() -> Path:
    """Where Atlas keeps everything: $ATLAS_HOME, or `.atlas` of the project that the working directory belongs to."""
    configured = os.environ.get("ATLAS_HOME")
    if configured:
        return Path(configured).expanduser().absolute()
    here = Path.cwd()
    for folder in (here, *here.parents):
        if any((folder / mark).exists() for mark in (".atlas", "pyproject.toml", ".git")):
            return folder / ".atlas"
    return here / ".atlas"


def open_for_writing(path: Path, schema: Schema) -> Engine:
    """An engine whose transactions take the write lock at once. Creates or migrates the file first.

    A transaction that reads first and asks for the lock later fails as soon as another writer came in between,
    whatever the timeout: so every one begins with BEGIN IMMEDIATE.
    """
    with explained(path, schema):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.is_file() or _revision(path, schema, "rw") != schema.revisions[-1]:
            _create_or_migrate(path, schema)
        engine = _engine(path, "rw", "BEGIN IMMEDIATE")
        engine.connect().close()
        return engine


def open_for_reading(path: Path, schema: Schema) -> Engine:
    """An engine that cannot write. Raises StoreError if the file does not exist or has another schema."""
    if not path.is_file():
        raise StoreError(f"there is no database {path}; {schema.where_missing}")
    with explained(path, schema):
        revision = _revision(path, schema, "ro")
        if revision != schema.revisions[-1]:
            raise StoreError(
                f"{path} has schema {revision or 'none'}, expected {schema.revisions[-1]}; {schema.where_old}"
            )
        return _engine(path, "ro", "BEGIN")


@contextmanager
def explained(path: Path, schema: Schema) -> Iterator[None]:
    """Turns what SQLite and the file system say about the database into a StoreError with a next step."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot use the database {path}: {error}; expected a folder you can write to, set ATLAS_HOME to one"
        ) from error
    except (DBAPIError, sqlite3.DatabaseError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if isinstance(cause, sqlite3.OperationalError):
            raise StoreError(f"cannot use the database {path}: {cause}; {_next_step(str(cause))}") from error
        if type(cause) is sqlite3.DatabaseError:
            raise StoreError(f"{path} is not an intact SQLite database: {cause}; {schema.where_broken}") from error
        raise


def _next_step(error: str) -> str:
    if "locked" in error:
        return f"another process has held it for {_BUSY_TIMEOUT_SECONDS} s; end that process and try again"
    if "full" in error:
        return "free some disk space and try again"
    return "check that you may read and write the file and its folder, or set ATLAS_HOME to another folder"


def _revision(path: Path, schema: Schema, mode: str) -> str | None:
    """The schema of the database; None for an empty one. Raises StoreError if this Atlas cannot handle it.

    Who may write says so: what a process left undone that was killed while it made the file can then be undone.
    """
    with closing(_connect(path, mode)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            return None
        if "alembic_version" not in tables:
            raise StoreError(
                f"{path} is a database, but not of Atlas; move it away or set ATLAS_HOME to another folder"
            )
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    revision = str(row[0]) if row else None
    if revision is not None and revision not in schema.revisions:
        raise StoreError(
            f"{path} was written by a newer Atlas (schema {revision}, this one knows up to {schema.revisions[-1]}); "
            "upgrade Atlas, or set ATLAS_HOME to another folder"
        )
    return revision


def _create_or_migrate(path: Path, schema: Schema) -> None:
    """Brings the schema up to date, one process at a time, keeping a copy of what was there."""
    from alembic import command
    from alembic.config import Config

    lock_path = path.with_name(path.name + ".lock")
    with open(lock_path, "a", opener=only_owner) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open(path, "ab", opener=only_owner):
            pass
        revision = _revision(path, schema, "rw")
        if revision == schema.revisions[-1]:
            return
        if revision is not None:
            _back_up(path, path.with_name(f"{path.name}.bak-{revision}"))
        with closing(_connect(path, "rw")) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
        # Off while migrating: SQLite changes a table by dropping and rebuilding it, which would cascade.
        engine = _engine(path, "rw", "BEGIN IMMEDIATE", foreign_keys=False)
        config = Config()
        config.set_main_option("script_location", str(schema.migrations).replace("%", "%%"))
        with engine.begin() as migrating:
            config.attributes["connection"] = migrating
            command.upgrade(config, "head")
        engine.dispose()


def _back_up(path: Path, copy: Path) -> None:
    partial = copy.with_name(copy.name + ".part")
    partial.unlink(missing_ok=True)
    with open(partial, "ab", opener=only_owner):
        pass
    with closing(_connect(path, "ro")) as source, closing(_connect(partial, "rw")) as target:
        source.backup(target)
    partial.replace(copy)


def _engine(path: Path, mode: str, begin: str, foreign_keys: bool = True) -> Engine:
    engine = create_engine("sqlite://", creator=lambda: _connect(path, mode, foreign_keys), poolclass=QueuePool)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _connect(path: Path, mode: str, foreign_keys: bool = True) -> sqlite3.Connection:
    """`isolation_level=None`: the driver's own transactions start late and deferred, which loses updates."""
    connection = sqlite3.connect(
        f"file:{quote(str(path))}?mode={mode}",
        uri=True,
        isolation_level=None,
        timeout=_BUSY_TIMEOUT_SECONDS,
        check_same_thread=False,
    )
    connection.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")
    connection.execute("PRAGMA synchronous = NORMAL")
    if mode == "ro":
        connection.execute("PRAGMA query_only = ON")
    return connection
