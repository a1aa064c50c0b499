"""What a machine achieves is looked up or measured once."""

import json
import os
from pathlib import Path

import pytest

from atlas import machine
from atlas.job import JobSpec
from atlas.machine import gpu, machine_of, threads_of
from atlas.provenance import Gpu
from atlas.step_time import Machine


def job(**resources: int) -> JobSpec:
    return JobSpec.model_validate(
        {"name": "a", "student": {"model": "org/a"}, "method": {"type": "evaluate"}, "dataset": {"type": "arithmetic"}}
        | {"resources": resources}
    )


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads of each measurement; the machine is idle and has four cores and no GPU."""
    asked: list[int] = []

    def measure(name: str, threads: int) -> Machine:
        asked.append(threads)
        return Machine(name, 1.0, 2.0, 3.0, 4.0, 5.0)

    monkeypatch.setattr(machine, "_measured", measure)
    monkeypatch.setattr(machine, "gpus", lambda: [])
    monkeypatch.setattr(machine, "cores", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(machine, "installed_version", lambda name: "2.9")
    monkeypatch.setattr(os, "getloadavg", lambda: (0.1, 0.1, 0.1))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return asked


def test_known_gpus_achieve_a_share_of_their_peak() -> None:
    for name in ("NVIDIA H200", "NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "NVIDIA A100-SXM4-80GB", "NVIDIA GB10"):
        assert gpu(name) is not None, name
    h200, h100, pcie = gpu("NVIDIA H200"), gpu("NVIDIA H100 80GB HBM3"), gpu("NVIDIA H100 PCIe")
    assert h200 is not None and h100 is not None and pcie is not None
    assert 100e12 < h200.flops_per_second < 989e12 and h200.weight_bytes_per_second < 4.8e12
    assert pcie.flops_per_second < h100.flops_per_second
    assert gpu("NVIDIA GeForce GT 710") is None


def test_a_cpu_is_measured_once_for_each_number_of_threads(measured: list[int], tmp_path: Path) -> None:
    first = machine_of(job(gpus=0, cpus=1), tmp_path)
    assert first is not None and first.name.endswith("1 thread")
    assert machine_of(job(gpus=0, cpus=1), tmp_path) == first and measured == [1]
    assert machine_of(job(gpus=0, cpus=2), tmp_path) != first and measured == [1, 2]
    assert (tmp_path / "cache" / "machines.json").stat().st_mode & 0o777 == 0o600


def test_a_busy_machine_is_measured_again(measured: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (3.0, 0.1, 0.1))
    for _ in range(2):
        found = machine_of(job(gpus=0, cpus=2), tmp_path)
        assert found is not None and "busy" in found.name
    assert measured == [2, 2]


def test_a_broken_or_older_cache_is_measured_again(measured: list[int], tmp_path: Path) -> None:
    file = tmp_path / "cache" / "machines.json"
    assert machine_of(job(gpus=0, cpus=1), tmp_path) is not None
    (key,) = json.loads(file.read_text())
    for text in ("{", "[]", json.dumps({key: {"name": "x", "flops": 1}})):
        file.write_text(text)
        assert machine_of(job(gpus=0, cpus=1), tmp_path) is not None
    assert measured == [1, 1, 1, 1]


def test_a_cache_that_cannot_be_written_does_no_harm(measured: list[int], tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    assert machine_of(job(gpus=0), tmp_path / "home") is not None


def test_threads_are_those_that_the_job_will_have(measured: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    assert threads_of(job(gpus=0)) == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads_of(job(gpus=0)) == 3 and threads_of(job(gpus=0, cpus=2)) == 2
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert threads_of(job(gpus=0)) == 4


def test_the_device_is_the_gpu_that_is_there_unless_the_job_wants_none(
    measured: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert machine_of(job(gpus=1), tmp_path) is None and measured == [], "a GPU that is elsewhere"
    monkeypatch.setattr(machine, "gpus", lambda: [Gpu(0, "GPU-1", "NVIDIA H200", 1, 1, "1")])
    found = machine_of(job(), tmp_path)
    assert found == gpu("NVIDIA H200") and measured == []
    assert machine_of(job(gpus=0), tmp_path) != found


def test_without_torch_a_cpu_is_not_measured(
    measured: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "installed_version", lambda name: None)
    assert machine_of(job(gpus=0), tmp_path) is None and measured == []


def test_the_measurement_gives_rates_and_leaves_the_threads_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(machine, "_ROUNDS", 1)
    before = torch.get_num_threads()
    found = machine._measured("here", 1)
    assert torch.get_num_threads() == before and found.name == "here"
    assert all(value > 0 for value in vars(found).values() if not isinstance(value, str))


def test_a_gpu_is_known_by_a_word_of_its_name() -> None:
    assert machine.gpu("NVIDIA H200 NVL") is not None and machine.gpu("NVIDIA A100-SXM4-80GB") is not None
    assert machine.gpu("NVIDIA GH200 480GB") is None
