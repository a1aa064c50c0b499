import json
import shutil

import pytest

from atlas.store import Store


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture(scope="session")
def empty(tmp_path_factory):
    """A database without runs: copied, because migrating one takes longer than most tests."""
    home = tmp_path_factory.mktemp("empty")
    Store.open(home).close()
    return home / "atlas.db"


@pytest.fixture
def store(home, empty):
    home.mkdir()
    shutil.copy2(empty, home)
    with Store.open(home) as store:
        yield store


@pytest.fixture
def queue(store):
    """Queues a run with an empty run directory."""

    def queue(id="a-1", **changes):
        run_dir = store.home / "runs" / id
        run_dir.mkdir(parents=True)
        arguments = {
            "name": "a",
            "method": "gkd",
            "student": "org/student",
            "teacher": None,
            "dataset": "gsm8k",
            "executor": "local",
            "digest": "d",
            "spec": '{"name": "a"}',
            "run_dir": run_dir,
        }
        store.enqueue(id=id, **arguments | changes)
        return run_dir

    return queue


@pytest.fixture
def running(store, queue):
    """A run in state `running`, and its directory."""
    run_dir = queue()
    run = store.claim("scheduler")
    store.started(run.id, run.fence, "1:2", [0])
    return store.run(run.id), run_dir


@pytest.fixture
def append():
    """Appends lines to a stream: documents as JSON, text as it is."""

    def append(file, *lines):
        with file.open("a", encoding="utf-8") as stream:
            for line in lines:
                stream.write(line if isinstance(line, str) else json.dumps(line) + "\n")

    return append
