"""What a visitor sees where there is nothing to show."""

import sqlite3
from contextlib import closing

import pytest
from streamlit.testing.v1 import AppTest

PAGES = ("runs", "compare", "cross_tokenizer", "run", "samples")


def words(test):
    return " ".join(element.value for kind in ("text", "subheader", "error", "code") for element in test.get(kind))


@pytest.mark.parametrize("page", PAGES)
def test_without_a_store_a_page_says_how_to_get_one(page, tmp_path, monkeypatch):
    monkeypatch.setenv("ATLAS_HOME", str(tmp_path / "nowhere"))
    test = AppTest.from_string(f"from dashboard.pages.{page} import page\npage()\n", default_timeout=30).run()
    assert not test.exception
    assert "atlas submit" in words(test)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("page", PAGES)
def test_a_store_of_a_newer_atlas_is_named_as_such(page, lab, show):
    lab.store.close()
    with sqlite3.connect(lab.store.path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    assert "newer Atlas" in words(show(page))


@pytest.mark.parametrize("page", PAGES)
def test_a_store_without_runs_is_no_error(page, show):
    assert not show(page).error


def test_a_rebuilt_store_is_read_and_not_the_file_that_it_replaced(lab, show):
    lab.run("gkd", id="gkd-old")
    show("runs")
    copy = lab.store.path.with_name("copy.db")
    lab.store.close()
    with closing(sqlite3.connect(lab.store.path)) as old, closing(sqlite3.connect(copy)) as new, new:
        old.backup(new)
        new.execute("DELETE FROM run")
    for suffix in ("-wal", "-shm"):  # as `atlas reindex` does: they would be replayed into the new file
        lab.store.path.with_name(lab.store.path.name + suffix).unlink(missing_ok=True)
    copy.replace(lab.store.path)
    assert "gkd-old" not in str(show("runs"))
