"""What the worker's machine gives, read with NVML that is there, half there, and not there."""

import sys
import types

import psutil
import pytest

from atlas.resources import Meter


class NVMLError(Exception):
    pass


def two_gpus(**changes):
    """Stands in for pynvml: GPU n works at 10 n + 5 %, holds n + 1 GB and takes 100 (n + 1) W."""
    functions = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetMemoryInfo": lambda index: types.SimpleNamespace(
            total=8 * 10**9, free=10**9, used=(index + 1) * 10**9
        ),
        "nvmlDeviceGetUUID": lambda index: f"GPU-{index}",
        "nvmlDeviceGetName": lambda index: "H100",
        "nvmlSystemGetDriverVersion": lambda: "570.1",
        "nvmlDeviceGetUtilizationRates": lambda index: types.SimpleNamespace(gpu=10 * index + 5, memory=0),
        "nvmlDeviceGetPowerUsage": lambda index: 100_000 * (index + 1),
    }
    return types.SimpleNamespace(NVMLError=NVMLError, **{**functions, **changes})


def refuse(*arguments):
    raise NVMLError


@pytest.fixture
def install(monkeypatch):
    def installed(nvml, visible=None):
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return installed


def gpu_metrics(reading):
    return {name.removeprefix("resources/gpu"): value for name, value in reading.items() if "/gpu" in name}


def test_every_gpu_that_the_job_may_use_is_read(install):
    install(two_gpus())
    assert gpu_metrics(Meter().reading()) == {
        "0_utilization_percent": 5.0,
        "0_memory_bytes": 1e9,
        "0_power_watts": 100.0,
        "1_utilization_percent": 15.0,
        "1_memory_bytes": 2e9,
        "1_power_watts": 200.0,
    }


def test_the_first_gpu_of_the_job_is_number_0_wherever_it_is_in_the_machine(install):
    install(two_gpus(), visible="1")
    found = gpu_metrics(Meter().reading())
    assert found["0_power_watts"] == 200.0
    assert not any(name.startswith("1_") for name in found)


@pytest.mark.parametrize("nvml", [None, two_gpus(nvmlInit=refuse), two_gpus(nvmlDeviceGetHandleByIndex=refuse)])
def test_without_nvml_there_is_the_process_alone(install, nvml):
    install(nvml)
    assert set(Meter().reading()) == {"resources/process_memory_bytes", "resources/cpu_percent"}


def test_what_a_gpu_does_not_tell_is_left_out(install):
    install(two_gpus(nvmlDeviceGetPowerUsage=refuse))
    found = gpu_metrics(Meter().reading())
    assert "0_power_watts" not in found
    assert found["0_utilization_percent"] == 5.0


def test_readings_are_a_second_apart(install, monkeypatch):
    install(None)
    now = [100.0]
    monkeypatch.setattr("atlas.resources.time.monotonic", lambda: now[0])
    meter = Meter()
    assert meter.reading()
    now[0] += 0.5
    assert meter.reading() == {}
    now[0] += 0.6
    assert meter.reading()


def test_work_is_seen_as_cpu_percent_and_memory_as_bytes(install):
    install(None)
    meter = Meter()
    sum(n * n for n in range(2_000_000))
    reading = meter.reading()
    assert reading["resources/cpu_percent"] > 10
    assert reading["resources/process_memory_bytes"] == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)


def test_a_process_that_cannot_be_read_is_no_failure(install, monkeypatch):
    install(two_gpus())
    meter = Meter()

    def denied(*arguments, **options):
        raise psutil.AccessDenied

    monkeypatch.setattr(psutil.Process, "children", denied)
    assert gpu_metrics(meter.reading())
