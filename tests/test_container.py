"""What only the container executor does. GPU options can be asserted but not tried here."""

import json
import os
import shlex
from pathlib import Path

import pytest
from command_line import atlas

from atlas.errors import ExecutorError, SpecError
from atlas.executors import ContainerExecutor
from atlas.executors.container import PACKAGE
from atlas.job import JobSpec

ROOT = Path(__file__).parents[1]
IMAGE = "nvcr.io/nvidia/pytorch:25.09-py3"


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    for name in ("HF_TOKEN", "WANDB_API_KEY", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    folder = tmp_path / "home/runs/run-1"
    folder.mkdir(parents=True)
    (folder / "spec.json").write_text(json.dumps({"run_id": "run-1", "job": {}}))
    return folder


def command(run_dir, gpus=(), cpus=(), document=None, **fields):
    return ContainerExecutor(image=IMAGE, **fields).command(run_dir, document or {}, gpus, cpus)


def engine(tmp_path, monkeypatch, script, name="docker"):
    """A stand-in for an engine that cannot be had here."""
    program = tmp_path / "bin" / name
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")


def test_nothing_is_privileged_or_pulled_and_files_are_the_callers(run_dir, monkeypatch):
    monkeypatch.setattr("os.getuid", lambda: 1234)
    monkeypatch.setattr("os.getgid", lambda: 99)
    made = command(run_dir)
    assert made[:2] == ["docker", "run"]
    assert {"--detach", "--init", "--rm", "--ipc=host", "--network=bridge"} <= set(made)
    assert {"--ulimit=memlock=-1:-1", "--ulimit=stack=67108864:67108864"} <= set(made)
    assert made[made.index("--user") + 1] == "1234:99" and made[made.index("--pull") + 1] == "never"
    assert not [part for part in made if part.startswith("--privileged") or "docker.sock" in part]
    assert "--label=atlas.run=run-1" in made
    assert "--userns=keep-id" not in made and "--userns=keep-id" in command(run_dir, engine="podman")


def test_gpus_are_given_by_index_and_count_from_zero_inside(run_dir):
    docker, podman = command(run_dir, [2, 0]), command(run_dir, [2, 0], engine="podman")
    assert docker[docker.index("--gpus") + 1] == '"device=2,0"'
    assert {"--device=nvidia.com/gpu=2", "--device=nvidia.com/gpu=0"} <= set(podman)
    for made in (docker, podman):
        assert {"--env=CUDA_VISIBLE_DEVICES=0,1", "--env=ATLAS_GPUS=2,0"} <= set(made)
    assert not [part for part in command(run_dir) if part.startswith(("--gpus", "--device"))]


def test_the_job_reads_its_project_and_models_and_writes_only_its_run_and_the_caches(run_dir, tmp_path):
    for folder in ("project/specs", "model", "data"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "project/pyproject.toml").touch()
    document = {
        "spec_file": str(tmp_path / "project/specs/job.yaml"),
        "job": {"student": {"model": str(tmp_path / "model")}, "teacher": None, "dataset": {"type": "metamathqa"}},
    }
    volumes = [
        part.removeprefix("--volume=")
        for part in command(run_dir, document=document, mounts=[str(tmp_path / "data")])
        if part.startswith("--volume=")
    ]
    read = [tmp_path / "project", tmp_path / "model", tmp_path / "data"]
    written = [run_dir, tmp_path / "home/cache", tmp_path / "hub"]
    assert volumes == [
        *(f"{folder}:{folder}:ro" for folder in read),
        *(f"{folder}:{folder}" for folder in written),
        f"{PACKAGE}:/opt/atlas/atlas:ro",
    ]


def test_secrets_are_passed_by_name_and_never_written(run_dir, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy")
    made = command(run_dir, env=["HTTPS_PROXY", "NOT_SET"])
    assert {"--env=HF_TOKEN", "--env=HTTPS_PROXY"} <= set(made)
    assert not [part for part in made if "hf_very" in part or "user:" in part]
    assert not {"--env=NOT_SET", "--env=WANDB_API_KEY"} & set(made)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", "systemctl start docker"),
        ("permission denied while trying to connect to the Docker daemon socket", "group docker"),
        ('could not select device driver "" with capabilities: [[gpu]]', "NVIDIA container toolkit"),
        ("Error: setting up CDI devices: unresolvable CDI devices nvidia.com/gpu=0", "nvidia-ctk cdi generate"),
        ("write /var/lib/docker/tmp: no space left on device", "free some space"),
        ("crun: setrlimit `RLIMIT_MEMLOCK`: Operation not permitted", "executor.ulimits"),
        ("something that nobody foresaw", "something that nobody foresaw"),
    ],
)
def test_what_an_engine_says_comes_with_what_to_do(said, told, run_dir, tmp_path, monkeypatch):
    script = f"""case "$1" in image) echo '[{{"Id": "sha256:1"}}]';; *) echo '{said}' >&2; exit 125;; esac"""
    engine(tmp_path, monkeypatch, script)
    with pytest.raises(ExecutorError) as error:
        ContainerExecutor(image=IMAGE).launch(run_dir, [], [])
    assert IMAGE in str(error.value) and told in str(error.value)


def test_a_missing_engine_is_named_before_anything_is_queued(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExecutorError, match=r"there is no podman here.*executor.engine: docker"):
        ContainerExecutor(image=IMAGE, engine="podman").check()


def test_an_image_that_is_not_there_is_named_with_how_to_get_it(podman):
    with pytest.raises(ExecutorError, match=r"no-such:1 is not on this machine; `podman pull no-such:1`"):
        podman.model_copy(update={"image": "no-such:1"}).check()
    podman.check()


def test_a_real_engine_without_gpus_says_how_to_get_them(podman, run_dir):
    with pytest.raises(ExecutorError, match=r"CDI.*NVIDIA container toolkit"):
        podman.launch(run_dir, [0], [])


def test_an_engine_that_does_not_answer_is_no_death(tmp_path, monkeypatch):
    engine(tmp_path, monkeypatch, "echo 'Cannot connect to the Docker daemon' >&2; exit 1")
    with pytest.raises(ExecutorError, match="daemon does not answer"):
        ContainerExecutor(image=IMAGE).alive("atlas-run-1.00000000")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"image": "--privileged"}, "image"),
        ({"image": "a image"}, "image"),
        ({"mounts": ["data"]}, "mounts"),
        ({"mounts": ["/a:/b"]}, "mounts"),
        ({"env": ["HF_TOKEN=hf_secret"]}, "env"),
        ({"ulimits": {"mem lock": 1}}, "ulimits"),
    ],
)
def test_fields_that_would_become_other_options_are_refused(fields, said):
    job = {
        "name": "job",
        "student": {"model": "org/student"},
        "method": {"type": "evaluate"},
        "dataset": {"type": "gsm8k"},
        "executor": {"type": "container", "image": IMAGE} | fields,
    }
    with pytest.raises((SpecError, ValueError), match=said):
        JobSpec.model_validate(job)


def test_submit_can_print_what_the_engine_would_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATLAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_TOKEN", "hf_very_secret")
    spec = ROOT / "specs/case_study/gkd-dgx.yaml"
    (printed,) = atlas("submit", spec, "--print-command").splitlines()
    parts = shlex.split(printed)
    assert parts[:2] == ["docker", "run"] and parts[-4:-1] == ["-P", "-m", "atlas.worker"]
    assert parts[parts.index("--gpus") + 1] == '"device=0"'
    assert f"--volume={ROOT}:{ROOT}:ro" in parts and "hf_very_secret" not in printed
    assert not (tmp_path / "home").exists(), "nothing is queued"
