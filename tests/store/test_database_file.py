"""The file itself: where it is, who may read it, what is refused, and how its schema moves on."""

import os
import re
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from atlas.errors import StoreError
from atlas.run import CLOCKS
from atlas.store import Store, database, home_from_environment
from atlas.store.models import METADATA, ClockRow

NEXT_REVISION = """
import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade():
    op.add_column("run", sa.Column("colour", sa.String()))
"""


@pytest.fixture
def next_atlas(tmp_path, monkeypatch):
    """An Atlas with one more migration."""
    migrations = tmp_path / "migrations"
    shutil.copytree(database.RUNS.migrations, migrations)
    (migrations / "versions" / "revision_0003.py").write_text(NEXT_REVISION)
    monkeypatch.setattr(database, "RUNS", replace(database.RUNS, migrations=migrations))
    return migrations


def schema(path):
    """The words of each table's and index's definition, in any order."""
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql NOT NULL").fetchall()
    return {name: sorted(re.findall(r"\w+", sql)) for name, sql in rows if name != "alembic_version"}


def test_models_and_migrations_say_the_same(home, tmp_path):
    Store.open(home).close()
    migrated = sqlalchemy.create_engine(f"sqlite:///{home}/atlas.db")
    with migrated.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), METADATA) == []
    created = tmp_path / "created.db"
    METADATA.create_all(sqlalchemy.create_engine(f"sqlite:///{created}"))
    assert schema(home / "atlas.db") == schema(created)


def test_the_clock_table_has_a_column_for_every_clock():
    assert tuple(ClockRow.model_fields) == ("run", "step", *CLOCKS)


def test_every_reference_goes_with_its_run(store, queue, append):
    run_dir = queue()
    append(run_dir / "metrics.jsonl", {"step": 1, "values": {"loss": 1}, "clocks": {"wall_seconds": 1}})
    store.ingest("a-1")
    with closing(database._connect(store.path, "rw")) as connection:
        connection.execute("DELETE FROM run")
        for table in ("metric", "clock", "latest", "event"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table


def test_only_the_owner_can_read_any_file(home, monkeypatch):
    previous = os.umask(0)
    try:
        with Store.open(home) as store:
            store.enqueue(
                id="a-1", name="a", method="m", student="s", teacher=None, dataset="d", executor="e", digest="d",
                spec="{}", run_dir=home,
            )  # fmt: skip
            files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()}
    finally:
        os.umask(previous)
    assert {"atlas.db", "atlas.db-wal", "atlas.db-shm"} <= files.keys()
    assert set(files.values()) == {0o600}
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_every_connection_is_set_up(store):
    settings = {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 1, "busy_timeout": 30_000}
    for engine, query_only in ((store._writer, 0), (store._reader, 1)):
        with engine.connect() as connection:
            found = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in (*settings, "query_only")}
        assert found == settings | {"query_only": query_only}


def test_a_store_is_shared_by_threads(store, queue):
    queue()
    threads = [
        threading.Thread(target=lambda: [store.event("a-1", "x", store.run("a-1").id) for _ in range(10)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [event.kind for event in store.events("a-1")].count("x") == 40


def test_an_old_database_is_migrated_and_a_copy_kept(store, home, queue, next_atlas):
    queue()
    with pytest.raises(StoreError, match=r"has schema 0002, expected 0003; a command that writes"):
        Store.open_read_only(home)
    with Store.open(home) as migrated:
        assert migrated.run("a-1").name == "a"
    assert "colour" in schema(home / "atlas.db")["run"]
    backup = home / "atlas.db.bak-0002"
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    assert "colour" not in schema(backup)["run"]
    with closing(sqlite3.connect(backup)) as connection:
        assert connection.execute("SELECT id FROM run").fetchall() == [("a-1",)]
    before = backup.read_bytes()
    Store.open(home).close()
    assert backup.read_bytes() == before
    assert not (home / "atlas.db.bak-0003").exists()


def test_a_database_whose_maker_was_killed_is_made_again(home):
    """The file of a process that was killed in its first transaction: its journal has to be rolled back first."""
    home.mkdir()
    script = """if True:
        import os, sqlite3, sys
        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("CREATE TABLE half (text)")
        connection.executemany("INSERT INTO half VALUES (?)", [("x" * 5000,)] * 100)
        os._exit(1)
    """
    subprocess.run([sys.executable, "-c", script, str(home / "atlas.db")], check=False)
    assert (home / "atlas.db-journal").stat().st_size
    with Store.open(home) as store:
        assert store.runs() == []


def test_a_migration_that_fails_changes_nothing(store, home, queue, next_atlas):
    queue()
    versions = next_atlas / "versions"
    (versions / "revision_0003.py").write_text(NEXT_REVISION + "    raise RuntimeError('half way')\n")
    with pytest.raises(RuntimeError, match="half way"):
        Store.open(home)
    assert "colour" not in schema(home / "atlas.db")["run"]
    (versions / "revision_0003.py").write_text(NEXT_REVISION)
    with Store.open(home) as migrated:
        assert migrated.run("a-1").name == "a"


@pytest.mark.parametrize("open_store", [Store.open, Store.open_read_only])
def test_a_database_of_a_newer_atlas_is_left_alone(store, home, open_store):
    with closing(sqlite3.connect(home / "atlas.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = (home / "atlas.db").read_bytes()
    with pytest.raises(StoreError, match=r"newer Atlas \(schema 9999, this one knows up to 0002\); upgrade Atlas"):
        open_store(home)
    assert (home / "atlas.db").read_bytes() == before


@pytest.mark.parametrize("open_store", [Store.open, Store.open_read_only])
def test_what_is_not_a_database_is_left_alone(home, open_store):
    home.mkdir()
    (home / "atlas.db").write_text("my shopping list\n" * 500)
    with pytest.raises(StoreError, match=r"atlas\.db is not an intact SQLite database.*atlas reindex"):
        open_store(home)
    assert (home / "atlas.db").read_text().startswith("my shopping list")


@pytest.mark.parametrize("open_store", [Store.open, Store.open_read_only])
def test_another_programs_database_is_left_alone(home, open_store):
    home.mkdir()
    with closing(sqlite3.connect(home / "atlas.db")) as connection, connection:
        connection.execute("CREATE TABLE bookmark (url)")
    with pytest.raises(StoreError, match="is a database, but not of Atlas"):
        open_store(home)
    assert list(schema(home / "atlas.db")) == ["bookmark"]


def test_reading_needs_a_database_and_makes_none(home):
    with pytest.raises(StoreError, match=r"there is no database .*atlas\.db; submit a run first"):
        Store.open_read_only(home)
    assert not home.exists()


def test_a_folder_that_cannot_be_made_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="expected a folder you can write to, set ATLAS_HOME"):
        Store.open(tmp_path / "file" / "home")


def test_a_database_that_cannot_be_made_is_explained(home, monkeypatch):
    def refuse(name, flags):
        raise PermissionError(13, "Permission denied", name)

    monkeypatch.setattr(database, "only_owner", refuse)
    with pytest.raises(StoreError, match=r"Permission denied.*expected a folder you can write to"):
        Store.open(home)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_explained(home):
    home.mkdir(mode=0o500)
    with pytest.raises(StoreError, match="expected a folder you can write to"):
        Store.open(home)


def test_a_path_with_odd_characters_is_just_a_path(tmp_path):
    home = tmp_path / "50% off?mode=ro#é"
    with Store.open(home) as store:
        assert store.runs() == []
    assert (home / "atlas.db").is_file()


def test_the_home_is_what_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("ATLAS_HOME", "~/elsewhere")
    assert home_from_environment() == Path.home() / "elsewhere"
    monkeypatch.setenv("ATLAS_HOME", "relative")
    monkeypatch.chdir(tmp_path)
    assert home_from_environment() == tmp_path / "relative"


@pytest.mark.parametrize("mark", [".atlas", ".git", "pyproject.toml"])
def test_the_home_belongs_to_the_nearest_project(monkeypatch, tmp_path, mark):
    monkeypatch.setenv("ATLAS_HOME", "")
    (tmp_path / ".git").mkdir()
    project = tmp_path / "project"
    (project / "deep" / "down").mkdir(parents=True)
    (project / mark).mkdir()
    monkeypatch.chdir(project / "deep" / "down")
    assert home_from_environment() == project / ".atlas"
