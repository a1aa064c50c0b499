"""Each finding of the doctor, from what it is given to what it says."""

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from atlas import __version__, doctor
from atlas.errors import StoreError
from atlas.provenance import Gpu

H200 = Gpu(0, "GPU-0", "NVIDIA H200", 150 * 2**30, 140 * 2**30, "570.1")
TOKEN = "hf_" + "a" * 30


def test_the_versions_of_atlas_and_python_are_named():
    assert doctor.atlas("3.12.1").status == "ok"
    assert doctor.atlas("3.12.1").message == f"Atlas {__version__}, Python 3.12.1"


def test_an_old_python_fails():
    assert doctor.atlas("3.10.14").status == "fail"
    assert "3.11" in doctor.atlas("3.10.14").message


NEEDED = [Requirement("trl>=1.16,<1.17"), Requirement("torch>=2.8")]


@pytest.mark.parametrize(
    ("extra", "installed", "status", "words"),
    [
        ("train", {"trl": "1.16.2", "torch": "2.9.0a0+50eac811a6.nv25.09"}, "ok", "trl 1.16.2"),
        ("train", {"trl": "1.17.0", "torch": "2.13.0+cpu"}, "warn", "trl 1.17.0 (expected <1.17,>=1.16)"),
        ("train", {"trl": "1.16.0"}, "warn", "torch is not installed"),
        ("train", {}, "ok", "not installed"),
        ("", {"trl": "1.16.0"}, "fail", "torch is not installed"),
        ("", {}, "fail", "trl is not installed; torch is not installed"),
    ],
)
def test_packages_are_compared_with_what_is_needed(extra, installed, status, words):
    check = doctor.packages(extra, NEEDED, installed.get)
    assert (check.status, words in check.message) == (status, True), check
    assert status == "ok" or "pip install" in check.next_step


def test_the_needed_packages_are_those_that_atlas_declares():
    core = {requirement.name for requirement in doctor._requirements("")}
    train = {requirement.name for requirement in doctor._requirements("train")}
    assert {"pydantic", "sqlmodel"} <= core and {"torch", "trl"} <= train
    assert not core & train


@pytest.mark.parametrize(
    ("build", "found", "status", "words"),
    [
        (("2.13.0+cpu", None), [], "ok", "built for the CPU"),
        (("2.13.0", "13.0"), [], "ok", "CUDA 13.0"),
        (("2.13.0", "13.0"), [H200], "ok", "CUDA 13.0"),
        (("2.13.0+cpu", None), [H200], "fail", "NVIDIA H200"),
    ],
)
def test_a_cpu_build_of_torch_beside_a_gpu_fails(build, found, status, words):
    check = doctor.torch(build, found)
    assert (check.status, words in check.message) == (status, True), check


def test_a_missing_torch_is_a_warning(monkeypatch):
    monkeypatch.setattr(doctor, "_torch_build", lambda: None)
    assert doctor.torch().status == "warn"


def test_the_build_that_is_read_from_files_is_the_one_that_torch_reports():
    script = "import torch, json; print(json.dumps([torch.__version__, torch.version.cuda]))"
    reported = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert list(doctor._torch_build()) == json.loads(reported)


@pytest.mark.parametrize(
    ("found", "driver_loaded", "bindings", "environment", "status", "words"),
    [
        ([H200], True, "13.0", {}, "ok", "0: NVIDIA H200, 140 of 150 GiB free; driver 570.1"),
        ([], False, None, {}, "ok", "none"),
        ([], True, None, {}, "warn", "bindings are missing"),
        ([], True, "13.0", {"CUDA_VISIBLE_DEVICES": "MIG-1"}, "warn", "CUDA_VISIBLE_DEVICES='MIG-1'"),
        ([], True, "13.0", {}, "warn", "no GPU answers"),
    ],
)
def test_gpus_are_listed_or_missed(found, driver_loaded, bindings, environment, status, words):
    check = doctor.graphics(found, driver_loaded, bindings, environment)
    assert (check.status, words in check.message) == (status, True), check
    assert status == "ok" or check.next_step


@pytest.mark.parametrize(("available_gib", "status"), [(12, "ok"), (1, "warn")])
def test_little_free_memory_is_a_warning(available_gib, status):
    check = doctor.memory(16 * 2**30, available_gib * 2**30)
    assert (check.status, check.message) == (status, f"{available_gib}.0 of 16.0 GiB free")


@pytest.mark.parametrize(("free_gib", "status"), [(100, "ok"), (10, "warn"), (0.5, "fail")])
def test_little_free_disk_is_a_warning_then_a_failure(tmp_path, free_gib, status):
    check = doctor.disk(tmp_path / "not/made/yet", int(free_gib * 2**30))
    assert check.status == status
    assert f"{free_gib:.1f} GiB" in check.message
    assert status == "ok" or "ATLAS_HOME" in check.next_step


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "lustre", "9p", "ceph", "fuse.ceph"])
def test_a_home_on_a_network_file_system_fails(tmp_path, kind):
    check = doctor.file_system(tmp_path / "home", {"/": "ext4", str(tmp_path): kind})
    assert check.status == "fail"
    assert kind in check.message and "WAL" in check.message
    assert "ATLAS_HOME" in check.next_step


@pytest.mark.parametrize("kind", ["ext4", "xfs", "overlay", "tmpfs", "apfs", "fuse.bindfs", "fuseblk"])
def test_a_home_on_a_local_file_system_is_well_even_beside_a_network_one(tmp_path, kind):
    mounts = {"/": "nfs", str(tmp_path): kind, str(tmp_path / "ho"): "nfs"}
    assert doctor.file_system(tmp_path / "home", mounts).status == "ok"


@pytest.mark.parametrize("version", [(3, 44, 6), (3, 44, 9), (3, 50, 7), (3, 51, 3), (3, 52, 0), (4, 0, 0)])
def test_a_repaired_sqlite_is_well(version):
    assert doctor.sqlite(version) == doctor.Check("sqlite", "ok", ".".join(map(str, version)))


@pytest.mark.parametrize(
    "version", [(3, 40, 1), (3, 44, 5), (3, 45, 0), (3, 49, 9), (3, 50, 6), (3, 51, 0), (3, 51, 2)]
)
def test_an_sqlite_with_the_wal_reset_race_is_a_warning(version):
    check = doctor.sqlite(version)
    assert check.status == "warn"
    assert ".".join(map(str, version)) in check.message and "WAL-reset" in check.message
    assert "3.51.3" in check.next_step


def test_the_sqlite_that_is_judged_is_the_one_in_use():
    assert sqlite3.sqlite_version in doctor.sqlite().message


def test_a_home_without_a_store_is_well(tmp_path):
    assert doctor.store(tmp_path / "home").status == "ok"
    assert not (tmp_path / "home").exists()


def test_a_store_says_how_many_runs_it_has(tmp_path):
    from atlas.store import Store

    Store.open(tmp_path).close()
    check = doctor.store(tmp_path)
    assert (check.status, "0 runs" in check.message) == ("ok", True), check


def test_a_store_that_cannot_be_opened_fails(tmp_path):
    (tmp_path / "atlas.db").write_text("this is no database, and long enough to be taken for one" * 100)
    check = doctor.store(tmp_path)
    assert check.status == "fail" and check.next_step


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_home_that_cannot_be_written_fails(tmp_path):
    tmp_path.chmod(0o500)
    assert doctor.store(tmp_path / "home").status == "fail"
    tmp_path.chmod(0o700)


def reachable(url, timeout_seconds):
    return None


def unreachable(url, timeout_seconds):
    return "no route to host"


def test_the_hub_is_reached_or_the_reason_is_given():
    assert doctor.hub({}, reachable).status == "ok"
    check = doctor.hub({"HF_ENDPOINT": "https://mirror.example.com"}, unreachable)
    assert check.status == "warn" and check.next_step
    assert "https://mirror.example.com" in check.message and "no route to host" in check.message


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_an_offline_switch_is_named_and_nothing_is_asked(name):
    check = doctor.hub({name: "1"}, lambda url, timeout_seconds: pytest.fail("asked the network"))
    assert check.status == "warn" and name in check.message
    assert doctor.hub({name: "0"}, reachable).status == "ok"


def test_a_hub_token_is_found_and_never_shown(tmp_path):
    in_environment = doctor.hub_token({"HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path)})
    (tmp_path / "token").write_text(TOKEN)
    in_file = doctor.hub_token({"HF_HOME": str(tmp_path)})
    elsewhere = doctor.hub_token({"HF_TOKEN_PATH": str(tmp_path / "none")})
    assert "in the environment" in in_environment.message
    assert str(tmp_path / "token") in in_file.message
    assert "none" in elsewhere.message and elsewhere.next_step
    assert TOKEN not in str([in_environment, in_file, elsewhere])


@pytest.mark.parametrize(
    ("environment", "key", "network", "status", "words"),
    [
        ({}, True, reachable, "ok", "which answers"),
        ({}, False, reachable, "warn", "no login"),
        ({}, True, unreachable, "warn", "no route to host"),
        ({"WANDB_MODE": "offline"}, True, reachable, "warn", "WANDB_MODE is offline"),
    ],
)
def test_wandb_is_usable_or_the_reason_is_given(environment, key, network, status, words):
    check = doctor.wandb(environment, lambda: key, network)
    assert (check.status, words in check.message) == (status, True), check
    assert status == "ok" or check.next_step


def test_a_missing_git_is_a_warning():
    assert doctor.git("/no/such/git").status == "warn"
    assert doctor.git().status == "ok"


@pytest.fixture
def no_network(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("WANDB_MODE", "offline")


def test_all_checks_together_cover_the_machine_and_show_no_secret(tmp_path, monkeypatch, no_network):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("WANDB_API_KEY", "f00d" * 10)
    found = doctor.checks(tmp_path)
    names = [check.name for check in found]
    assert names[:2] == ["atlas", "packages"] and "packages: train" in names
    assert {"torch", "gpus", "memory", "disk", "file system", "sqlite", "store", "hub", "wandb", "git"} <= set(names)
    assert TOKEN not in str(found) and "f00d" * 10 not in str(found)
    assert all(check.next_step for check in found if check.status != "ok")


def test_one_broken_check_does_not_hide_the_others(tmp_path, monkeypatch, no_network):
    def fail(home):
        raise StoreError("on fire")

    monkeypatch.setattr(doctor, "disk", fail)
    found = {check.name: check for check in doctor.checks(tmp_path)}
    assert found["disk"].status == "fail" and "on fire" in found["disk"].message
    assert found["atlas"].status == "ok"


def test_the_checks_import_nothing_slow():
    script = "import sys, pathlib; from atlas.doctor import checks; checks(pathlib.Path('/tmp'))\n"
    script += "print({'torch', 'transformers', 'trl', 'wandb', 'streamlit'} & set(sys.modules))"
    quiet = os.environ | {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "offline"}
    ended = subprocess.run([sys.executable, "-c", script], env=quiet, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "set()"


def test_the_next_folder_that_exists_stands_for_one_that_does_not(tmp_path):
    assert doctor._existing(tmp_path / "a/b/c") == tmp_path
    assert doctor._existing(Path("not/made")) == Path.cwd()
