"""What several test folders need."""

import os
import shutil
from pathlib import Path

import pytest
from lab import Lab
from podman import working_podman
from ray_cluster import working_cluster
from slurm_cluster import working_slurm

from atlas.store import Store

CLUSTERS = {
    "test_executor.py",
    "test_container.py",
    "test_container_jobs.py",
    "test_ray.py",
    "test_ray_jobs.py",
    "test_slurm.py",
    "test_slurm_jobs.py",
}
"""Files whose tests share daemons: one process runs them all."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes run the tests (`-n 2 --dist loadgroup`), each file is one process's."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group("clusters" if item.path.name in CLUSTERS else item.path.name))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the project's real data; the test is skipped where it is absent."""
    folder = Path(os.environ.get("ATLAS_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set ATLAS_SHARED")
    return folder


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    home = tmp_path_factory.mktemp("empty")
    Store.open(home).close()
    return home / "atlas.db"


@pytest.fixture
def lab(tmp_path, empty_database):
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy2(empty_database, home)
    with Store.open(home) as store:
        yield Lab(store)


@pytest.fixture(scope="session")
def podman(tmp_path_factory):
    """An executor of real containers; the test is skipped where they cannot run."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        yield working_podman(tmp_path_factory.mktemp("podman"), monkeypatch)


@pytest.fixture(scope="session")
def ray_cluster():
    """A real Ray cluster with two GPUs to schedule by and four cores; the test is skipped where there is no Ray."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        cluster = working_cluster(monkeypatch)
        yield cluster
        cluster.stop()


@pytest.fixture(scope="session")
def slurm():
    """A real Slurm cluster of one node with two GPUs to schedule by and four cores; the test is skipped where it cannot
    run."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        cluster = working_slurm(monkeypatch)
        yield cluster
        cluster.stop()
