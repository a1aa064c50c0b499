"""Mathematical equality by math-verify, in a process of its own so that it can be stopped.

sympy can compute for hours in C code that no thread can interrupt, and math-verify's own limit is a signal that works
in the main thread only. So a child process does it, under a limit of CPU seconds and memory that the kernel enforces:
a verdict does not depend on how busy the machine is. The child is started by the first answer that needs it, ends
when this process does, and is started again after it was stopped.
"""

import atexit
import json
import os
import re
import select
import subprocess
import sys
import threading
import time
from functools import lru_cache
from pathlib import Path

from atlas.errors import AtlasError
from atlas.grading.latex import has_prose, spelled, text_words, with_braced_fractions, without_delimiters, without_unit
from atlas.grading.words import hedged

CPU_SECONDS = 2.0
"""What one comparison may compute."""

_START_SECONDS = 120.0
_REPLY_SECONDS = 10 * CPU_SECONDS
_MAX_CHARACTERS = 500
_MAX_DEPTH = 20


@lru_cache(maxsize=8192)
def same(prediction: str, gold: str) -> bool:
    """Whether math-verify holds two answers equal; False for what it cannot read or decide within CPU_SECONDS."""
    prediction, gold = _formula(prediction), _formula(gold)
    if not (_worth_reading(prediction) and _worth_reading(gold)):
        return False
    if bool(_EQUALS.search(prediction)) != bool(_EQUALS.search(gold)):
        if not (_names_a_value(prediction) and _names_a_value(gold)):
            return False
        prediction, gold = _value(prediction), _value(gold)
    if prediction.casefold() == gold.casefold():
        return prediction == gold  # math-verify takes `A` and `a` for one variable
    if _primes(prediction) != _primes(gold) or _differ_in_base(prediction, gold):
        return False  # it reads neither
    return _worker.ask([prediction, gold])


@lru_cache(maxsize=8192)
def readable(answer: str) -> bool:
    """Whether math-verify can read an answer."""
    answer = _formula(answer)
    return _worth_reading(answer) and _worker.ask([answer])


def endless(answer: str) -> bool:
    """Whether an answer is maths that is known to take for ever, so that it is compared as text only."""
    return bool(_TOO_MUCH.search(_formula(answer)))


def _formula(text: str) -> str:
    text = without_unit(without_delimiters(spelled(text)))
    text = re.sub(r"(?<=[0-9])'(?=[0-9]{3})", "", text)
    text = re.sub(r"\\text\s*\{\s*(?:and|or)\s*\}|\s(?:and|or)\s", ", ", text)
    text = with_braced_fractions(re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", text))
    text = _SPACED.sub(lambda number: number[0].replace(" ", ""), text)
    ungrouped = _GROUPED.sub(lambda number: number[0].replace(",", ""), text)
    if "," not in ungrouped:
        text = ungrouped
    return re.sub(r"\s+", " ", text.replace(r"\$", " ").replace("$", " ")).strip().rstrip(" .,;\\")


_EQUALS = re.compile(r"(?<![<>!:])=")
_GROUPED = re.compile(r"(?<![0-9,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])")
_SPACED = re.compile(r"(?<![0-9] )(?<![0-9])[0-9]{1,3}(?: [0-9]{3})+(?! ?[0-9])")
_TOO_MUCH = re.compile(
    r"""[0-9]{40}                                      # long numbers
    | (?:\^|\*\*)[\s{(\[+-]*[0-9]{4}                   # big exponents
    | [)}\]]\s*(?:\^|\*\*)[\s{(\[+-]*[0-9]{3}          # big powers of what is not a plain number
    | (?:\^|\*\*)[\s{(\[+-]*[0-9]+\s*(?:\^|\*\*)     # towers of powers
    | [0-9][\s)}\]]*!\s*! | [0-9]{4}[\s)}\]]*!         # factorials
    | [)}\]]\s*!                                       # of what is not a plain number
    """,
    re.VERBOSE,
)


def _worth_reading(text: str) -> bool:
    """Whether a text is maths, and none that is known to take for ever."""
    if not text or len(text) > _MAX_CHARACTERS or has_prose(text) or hedged(text_words(text)):
        return False
    depth = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        if depth > _MAX_DEPTH:
            return False
    # math-verify adds and multiplies numbers that stand side by side.
    return not (_TOO_MUCH.search(text) or re.search(r"(?<![_^0-9])[0-9]+ [0-9]", text))


def _primes(text: str) -> int:
    return text.count("'") + text.count(r"\prime")


def _differ_in_base(left: str, right: str) -> bool:
    """Whether two numbers are written in different bases: `24_5`, `24_6`. One may be missing on one side."""
    bases = [set(re.findall(r"[0-9]_\{?(\w+)", text)) for text in (left, right)]
    return all(bases) and bases[0] != bases[1]


def _names_a_value(text: str) -> bool:
    """Whether a text is no equation or says what something is (`k = \\sqrt{2}`), not what it fulfils (`x^2 = 2`)."""
    name, *values = _EQUALS.split(text)
    if not values:
        return True
    name = re.sub(r"_\{?\w+\}?|\([^()]*\)|\\[A-Za-z]+", "", name)
    return not re.search(r"[-+*/^0-9]", name)


def _value(text: str) -> str:
    """`f(x) = 2x` -> `2x`. A list of equations stays, and so does `\\sum_{i=1}`."""
    name, *values = _EQUALS.split(text)
    complete = all(name.count(left) == name.count(right) for left, right in ("{}", "()"))
    return values[0].strip() if complete and len(values) == 1 else text


class _Worker:
    """The child process. One question at a time; questions of other threads wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, texts: list[str]) -> bool:
        with self._lock:
            process = self._process if self._process and self._process.poll() is None else self._start()
            reply = None
            try:
                reply = _exchange(process, json.dumps(texts).encode() + b"\n")
            finally:
                if reply is None:  # stopped or interrupted: a late reply must not be taken for the next one
                    self._stop()
            return reply == b"1"

    def _start(self) -> subprocess.Popen[bytes]:
        self._stop()
        # -P: the folder of the script is not searched for modules. A session of its own: Ctrl-C is not for it.
        command = [sys.executable, "-P", str(Path(__file__).with_name("symbolic_worker.py")), str(CPU_SECONDS)]
        process = self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        if _read_byte(process, _START_SECONDS) is None:
            process.kill()
            _, errors = process.communicate()
            last = errors.decode("utf-8", "replace").strip().rpartition("\n")[2]
            self._process = None
            raise AtlasError(f"math-verify, which compares answers, cannot start: {last or 'no reason given'}")
        return process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.communicate()

    def close(self) -> None:
        with self._lock:
            self._stop()

    def forget(self) -> None:
        """After a fork the child belongs to the parent: it must not be asked, stopped or waited for from here."""
        process, self._process, self._lock = self._process, None, threading.Lock()
        if process is None:
            return
        process.returncode = 0
        for pipe in (process.stdin, process.stdout, process.stderr):
            assert pipe
            pipe.close()


def _exchange(process: subprocess.Popen[bytes], question: bytes) -> bytes | None:
    assert process.stdin
    try:
        process.stdin.write(question)
    except BrokenPipeError:
        return None
    return _read_byte(process, _REPLY_SECONDS)


def _read_byte(process: subprocess.Popen[bytes], limit_seconds: float) -> bytes | None:
    """One byte, or None when the process ended or the time is up."""
    assert process.stdout
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    deadline = time.monotonic() + limit_seconds
    while (left := deadline - time.monotonic()) > 0:
        if poll.poll(left * 1000):
            return os.read(process.stdout.fileno(), 1) or None
    return None


_worker = _Worker()
atexit.register(_worker.close)
os.register_at_fork(after_in_child=_worker.forget)
