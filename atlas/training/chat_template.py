"""A chat template is a program of whoever published the model: it is tried under limits before it may run freely."""

import os
import resource
from collections.abc import Callable, Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from atlas.datasets.base import Turn
from atlas.errors import RunFailed

CPU_SECONDS = 1
"""What rendering one prompt may compute; an honest template takes milliseconds."""
MEMORY_BYTES = 256 * 2**20
"""What rendering one prompt may allocate."""
MAX_CHARACTERS = 1_000_000
"""What one prompt may be made of."""

_RENDERED, _OUT_OF_MEMORY, _TOO_LONG = 0, 1, 2


def check_chat_template(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Turn]) -> None:
    """Raises RunFailed(`bad_model`) if the chat template does not render these messages within the limits.

    A template that refuses the messages passes: `render_prompt` says why it does.
    """
    if not tokenizer.chat_template:
        return

    def render() -> int:
        text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
        return _TOO_LONG if len(text) > MAX_CHARACTERS else _RENDERED

    status = _limited(render)
    if status == _RENDERED:
        return
    limit = {
        _OUT_OF_MEMORY: f"memory limit of {MEMORY_BYTES // 2**20} MiB",
        _TOO_LONG: f"limit of {MAX_CHARACTERS:,} characters",
    }.get(status, f"time limit of {CPU_SECONDS} s")
    raise RunFailed(
        "bad_model",
        f"the chat template of {tokenizer.name_or_path or 'the tokenizer'} exceeds the {limit} for one prompt; "
        "correct it (chat_template.jinja or tokenizer_config.json), or choose another model",
    )


def _limited(render: Callable[[], int]) -> int:
    """What `render` returns in a child process; negative when the kernel ended the child.

    A fork, because importing transformers again would take a second. The child touches no device and no thread.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used_bytes + MEMORY_BYTES,) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS,) * 2)  # hard: SIGKILL, which leaves no core file
        status = render()
    except MemoryError:
        status = _OUT_OF_MEMORY
    except BaseException:
        status = _RENDERED
    os._exit(status)
