"""From an exception to a plain reason: what went wrong, and what to do next."""

import errno
import os

from atlas.errors import AtlasError, RunFailed, SpecError

_HUB_ERRORS = (
    "HfHubHTTPError",
    "LocalEntryNotFoundError",
    "OfflineModeIsEnabled",
    "RepositoryNotFoundError",
    "ConnectError",
    "ConnectionError",
    "MaxRetryError",
)
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")
_NOTHING_TO_SAMPLE = "probability tensor contains either `inf`, `nan`"
"""What torch says when a rollout is to be drawn from a model whose weights have become NaN."""


def reason_of(error: BaseException) -> tuple[str, str]:
    """The reason (a key of `errors.REASONS`) and a message for the person who reads it tomorrow.

    Looks through the chain of causes, because libraries wrap the telling error in a vague one.
    """
    chain = _chain(error)
    for link in chain:
        if isinstance(link, RunFailed):
            return link.reason, str(link)
    for link in chain:
        reason = _reason(link)
        if reason:
            return reason, _message(reason, link)
    return "error", f"{type(error).__name__}: {error}"


def log_says_out_of_memory(log_tail: str) -> bool:
    """Whether the last lines of a worker that left no result speak of memory."""
    lowered = log_tail.lower()
    return any(phrase in lowered for phrase in _OUT_OF_MEMORY)


def reason_in_log(log_tail: str) -> str:
    """The reason that a worker without a result ended: what its last lines speak of, otherwise `killed`."""
    if os.strerror(errno.ENOSPC) in log_tail:
        return "disk_full"  # so full that there was no room for a result either
    return "out_of_memory" if log_says_out_of_memory(log_tail) else "killed"


def _chain(error: BaseException | None) -> "list[BaseException]":
    links: list[BaseException] = []
    while error is not None and error not in links:
        links.append(error)
        error = error.__cause__ or error.__context__
    return links


def _reason(error: BaseException) -> str | None:
    if isinstance(error, SpecError):
        return "bad_data" if any(p.path.startswith("dataset") for p in error.problems) else "error"
    if isinstance(error, AtlasError):
        return "error"
    names = {kind.__name__ for kind in type(error).__mro__}
    if isinstance(error, MemoryError) or "OutOfMemoryError" in names:
        return "out_of_memory"
    if isinstance(error, RuntimeError) and log_says_out_of_memory(str(error)):
        return "out_of_memory"
    if isinstance(error, RuntimeError) and _NOTHING_TO_SAMPLE in str(error):
        return "non_finite_loss"
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return "out_of_memory"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk_full"
    if names & set(_HUB_ERRORS):
        return "hub_unreachable"
    if isinstance(error, ModuleNotFoundError):
        return "missing_package"
    if isinstance(error, FileNotFoundError):
        return "missing_file"
    return None


def _message(reason: str, error: BaseException) -> str:
    next_step = {
        "out_of_memory": "lower training.micro_batch_size or max_completion_length, use student.lora, or "
        "training.gradient_checkpointing: true",
        "non_finite_loss": "the student's weights are not finite: begin with others or lower training.learning_rate",
        "disk_full": "free some space (`atlas doctor` shows how much there is) and `atlas resume` the run",
        "hub_unreachable": "check the network, the model's name and HF_TOKEN, or use a local directory",
        "missing_package": "install the extra that holds it: pip install 'atlas[train]'",
        "missing_file": "put the file back or correct its path in the spec",
    }.get(reason)
    text = f"{type(error).__name__}: {error}"
    return f"{text}; {next_step}" if next_step else text
