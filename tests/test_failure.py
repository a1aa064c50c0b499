import errno

import pytest

from atlas.errors import REASONS, RunFailed, SpecError
from atlas.failure import log_says_out_of_memory, reason_in_log, reason_of


class OutOfMemoryError(RuntimeError):
    pass


class HfHubHTTPError(OSError):
    pass


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RunFailed("non_finite_loss", "loss is nan at step 3"), "non_finite_loss"),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out_of_memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out_of_memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/data/x.jsonl"), "missing_file"),
        (ModuleNotFoundError("No module named 'peft'"), "missing_package"),
        (HfHubHTTPError("401"), "hub_unreachable"),
        (SpecError("too few", "dataset.test_size"), "bad_data"),
        (RuntimeError("probability tensor contains either `inf`, `nan` or element < 0"), "non_finite_loss"),
        (ZeroDivisionError("division by zero"), "error"),
    ],
)
def test_an_exception_has_a_plain_reason(error, reason):
    got, message = reason_of(error)
    assert got == reason and got in REASONS
    assert message


def test_the_telling_error_is_found_below_a_vague_one():
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as cause:
            raise RuntimeError("could not save") from cause
    except RuntimeError as error:
        assert reason_of(error)[0] == "disk_full"


def test_an_ordinary_runtime_error_is_not_called_out_of_memory():
    assert reason_of(RuntimeError("shape mismatch"))[0] == "error"


def test_a_log_that_speaks_of_memory_is_recognised():
    assert log_says_out_of_memory("...\ntorch.OutOfMemoryError: CUDA out of memory.")
    assert not log_says_out_of_memory("step 3 loss 0.5")


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ("OSError: [Errno 28] No space left on device\ncould not write to metrics.js", "disk_full"),
        ("torch.OutOfMemoryError: CUDA out of memory.", "out_of_memory"),
        ("step 8  train/loss 3.25", "killed"),
        ("", "killed"),
    ],
)
def test_the_log_of_a_worker_without_a_result_names_the_reason(log, reason):
    assert reason_in_log(log) == reason
