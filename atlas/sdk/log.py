"""The file of this process: whole lines, written at once. Nothing here raises; what is not written is counted.

Adapters with records of their own call `write`; everybody else uses `atlas.sdk.session`.
"""

import fcntl
import itertools
import os
import re
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from atlas.private import only_owner
from atlas.sdk.fields import Refused, fit
from atlas.sdk.plain import ENCODER
from atlas.sdk.redaction import Redaction
from atlas.sdk.schema import VERSION

FOLDER_VARIABLE = "ATLAS_TRACES"
DEFAULT_FOLDER = "traces"
MOST_SESSIONS = 10_000
"""Of so many sessions it is remembered how many events were lost: where nothing can be written, none ever ends."""
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_FIRST_FREE_DESCRIPTOR = 3
"""Below are stdin, stdout and stderr, which an agent may have closed: what others print must not get into our file."""


class Log:
    """Where the lines of one process go."""

    def __init__(self) -> None:
        self._folder: str | None = None
        self._redaction = Redaction()
        self._off: str | None = None
        self._descriptor: int | None = None
        self._path: Path | None = None
        self._torn = False
        """Whether the file ends within a line."""
        self.begin()

    def begin(self) -> None:
        """Forgets what belongs to another process: a forked child writes a file of its own."""
        self._lock = threading.RLock()  # so that a signal handler may write while its thread does
        self._process = f"{os.uname().nodename}:{os.getpid()}:{time.time():.3f}"
        self._prefix = os.urandom(8).hex()
        self._numbers = itertools.count(1)
        self._sequence = itertools.count()
        self._written = 0
        self._dropped: Counter[str] = Counter()
        self._dropped_of: Counter[str] = Counter()
        self._close()

    def configure(self, folder: str | os.PathLike[str] | None, patterns: Sequence[str]) -> None:
        with self._lock:
            self._off = None
            try:
                self._folder = None if folder is None else os.fsdecode(folder)
                self._redaction = Redaction((patterns,) if isinstance(patterns, str) else tuple(patterns))
            except Exception as error:
                self._off = f"capture is off: {error}"
                warn(f"{self._off}. Nothing is written until atlas.sdk.configure() gets what it can use")
            self._close()

    def new_id(self) -> str:
        return f"{self._prefix}-{next(self._numbers)}"

    def write(self, record: dict[str, Any]) -> None:
        """Raises what goes wrong; the record is not in the file then."""
        if self._off is not None:
            raise Refused(self._off)
        body, happens_now = self._body(record)
        with self._lock:
            self._append(body, happens_now)
            self._written += 1

    def drop(self, error: Exception, session: str) -> None:
        """Counts an event of this session that is not written."""
        reason = _reason(error)
        with self._lock:
            self._dropped[reason] += 1
            self._dropped_of[session] += 1
            if len(self._dropped_of) > MOST_SESSIONS:
                del self._dropped_of[next(iter(self._dropped_of))]
            first = self._dropped[reason] == 1
        if first:
            warn(f"an event was not written: {reason}. Further ones are counted in atlas.sdk.status()")

    def status(self) -> dict[str, Any]:
        with self._lock:
            return {
                "written": self._written,
                "dropped": dict(self._dropped),
                "file": None if self._path is None else str(self._path),
                "process": self._process,
                "redaction": self._redaction.name,
                "off": self._off,
            }

    def _body(self, record: dict[str, Any]) -> tuple[bytes, bool]:
        """The line without its sequence, and whether it gets one: the order of an earlier event is its time's."""
        given = fit(record)
        happens_now = "at_seconds" not in given
        if happens_now:
            given |= {"at_seconds": time.time(), "monotonic_seconds": time.monotonic()}
        if given["type"] == "session":
            given |= {"id": given["session"], "redaction": self._redaction.name}
        elif given["type"] == "end":
            given["dropped"] = given.get("dropped", 0) + self._dropped_of.pop(given["session"], 0)
        ours = {"schema_version": VERSION, "type": given["type"], "id": given.get("id") or self.new_id()}
        whole = ours | given | {"schema_version": VERSION, "process": self._process}
        whole.pop("sequence", None)
        try:
            redacted = self._redaction.record(whole)
        except Exception as error:
            raise Refused(f"redaction failed: {type(error).__name__}") from error
        line = ENCODER.encode(redacted)
        try:
            return line.encode(), happens_now
        except UnicodeEncodeError:  # half of a surrogate pair
            return line.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode(), happens_now

    def _append(self, body: bytes, happens_now: bool) -> None:
        if not self._is_open():
            self._open()
        assert self._descriptor is not None
        end = b',"sequence":%d}\n' % next(self._sequence) if happens_now else b"}\n"
        rest = (b"\n" if self._torn else b"") + body[:-1] + end
        self._torn = True
        while rest:
            size = os.write(self._descriptor, rest)
            if size == 0:
                raise Refused("nothing was written, and no error")
            rest = rest[size:]
        self._torn = False

    def _is_open(self) -> bool:
        """Whether the descriptor is still that of our file, and the file is still in a folder. An agent that closes all
        descriptors may have opened something else under its number."""
        if self._descriptor is None:
            return False
        try:
            found = os.fstat(self._descriptor)
        except OSError:
            self._descriptor = None
            return False
        if (found.st_dev, found.st_ino) != self._inode:
            self._descriptor = None
            return False
        if found.st_nlink == 0:
            self._close()
            return False
        return True

    def _open(self) -> None:
        folder = Path(os.environ.get(FOLDER_VARIABLE) or self._folder or DEFAULT_FOLDER).absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        host = re.sub(r"[^\w.-]", "_", os.uname().nodename)
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        path = folder / f"{moment}-{host}-{os.getpid()}-{os.urandom(4).hex()}.jsonl"
        descriptor = only_owner(str(path), _FLAGS)
        if descriptor < _FIRST_FREE_DESCRIPTOR:
            low, descriptor = descriptor, fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE_DESCRIPTOR)
            os.close(low)
        found = os.fstat(descriptor)
        self._descriptor, self._path, self._inode, self._torn = descriptor, path, (found.st_dev, found.st_ino), False

    def _close(self) -> None:
        descriptor, self._descriptor, self._path = self._descriptor, None, None
        if descriptor is not None:
            with suppress(OSError):  # the agent may have closed it
                os.close(descriptor)


def _reason(error: Exception) -> str:
    """Why an event was not written, without any text of the event."""
    if isinstance(error, Refused):
        return str(error)
    if isinstance(error, OSError):
        return f"cannot write: {error.strerror}"
    return f"bug in capture: {type(error).__name__}"


def warn(message: str) -> None:
    """Tells the agent's developer. Never raises."""
    try:
        warnings.warn(f"atlas.sdk: {message}", RuntimeWarning, stacklevel=2)
    except Exception:  # warnings are errors here: the agent must not get one
        with suppress(Exception):  # without a stderr, status() is all there is
            sys.__stderr__.write(f"atlas.sdk: {message}\n")  # type: ignore[union-attr]


_log = Log()
_unexplained = 0
"""Events that were lost together with the reason why."""
os.register_at_fork(after_in_child=lambda: _log.begin())


def configure(folder: str | os.PathLike[str] | None, patterns: Sequence[str]) -> None:
    """What `atlas.sdk.configure` says about the file and its redaction."""
    _log.configure(folder, patterns)


def write(record: dict[str, Any]) -> bool:
    """Writes one record and says whether it is in the file. Never raises.

    `record` has the fields of the line schema (`atlas.traces.records`); `type` and `session` must be there. `id` and
    the time are filled in where they are left out; `schema_version`, `process`, `sequence`, the `redaction` of a
    session and the `dropped` of an end always. A record that brings an `at_seconds` of its own, such as a finished
    span, gets no `sequence`: the order of its session is then that of the clock. Values that a field cannot hold, and
    keys that are no field, go into `metadata`; text is redacted, ids are not.
    """
    try:
        _log.write(record)
        return True
    except Exception as error:
        drop(error, record.get("session", "") if isinstance(record, dict) else "")
        return False


def drop(error: Exception, session: str) -> None:
    """Counts an event of this session that is lost for this reason. Never raises."""
    global _unexplained
    try:
        _log.drop(error, session)
    except Exception:  # such as no stack or memory left to say more
        _unexplained += 1


def new_id() -> str:
    """An id that no other record has."""
    return _log.new_id()


def status() -> dict[str, Any]:
    """What became of the events of this process: `written`, `dropped` by reason, the `file` of it, and whether capture
    is `off`."""
    found = _log.status()
    if _unexplained:
        found["dropped"]["unexplained"] = _unexplained
    return found
