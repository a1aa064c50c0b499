"""The file of a process: what has returned is in it, and whatever goes wrong stays away from the agent."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
from written_traces import lines_in, records_in, session_in, sessions_in

import atlas
from atlas import sdk
from atlas.sdk import log
from atlas.sdk.log import Log
from atlas.sdk.redaction import Redaction
from atlas.traces.records import ADAPTER

ROOT = Path(atlas.__file__).parents[1]
TOKEN = "h" + "f_" + "Q" * 34


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("ATLAS_TRACES", raising=False)
    monkeypatch.setattr(log, "_log", Log())
    monkeypatch.setattr(log, "_unexplained", 0)
    sdk.configure(folder=tmp_path / "traces")
    yield tmp_path / "traces"
    log._log._close()


@pytest.fixture
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def agent(answer="42"):
    """A little agent; what it returns must not depend on capture."""
    with sdk.session(task="6 * 7?") as s:
        attempt = s.attempt(answer, model="m")
        s.intervene("no", by="rule", answers=attempt)
        s.outcome("answer", 1.0)
    return answer


def dropped():
    return sdk.status()["dropped"]


def whole_lines(folder):
    """The records of the lines that can be read, and the number of the others."""
    read, torn = [], 0
    for path in folder.glob("*.jsonl"):
        for line in path.read_bytes().split(b"\n"):
            try:
                read.append(json.loads(line))
            except ValueError:
                torn += bool(line)
    return read, torn


def run(code, *arguments, options=(), **settings):
    """Runs code in a new process, without the packages of this environment."""
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import atlas.sdk as sdk\n"
    command = [sys.executable, "-S", "-I", *options, "-c", start + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, **settings)


# Where lines go.


def test_file_and_folder_are_the_owners_alone(folder):
    agent()
    [path] = folder.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert sdk.status() == {
        "written": 5,
        "dropped": {},
        "file": str(path),
        "process": records_in(folder)[0].process,
        "redaction": Redaction().name,
        "off": None,
    }


def test_the_environment_says_where_lines_go(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ATLAS_TRACES", str(tmp_path / "other"))
    agent()
    assert not folder.exists() and session_in(tmp_path / "other")


def test_without_settings_lines_go_into_traces_of_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sdk.configure()
    agent()
    monkeypatch.chdir("/")
    agent()
    assert len(sessions_in(tmp_path / "traces")) == 2


def test_the_sequence_is_the_order_of_lines(folder):
    agent()
    agent()
    records = records_in(folder)
    assert [record.sequence for record in records] == list(range(10))
    assert len({record.process for record in records}) == 1
    assert sorted(record.monotonic_seconds for record in records) == [r.monotonic_seconds for r in records]


def test_a_record_with_a_time_of_its_own_has_no_sequence(folder):
    assert log.write({"type": "session", "session": "s", "task": "t", "at_seconds": 5, "sequence": 7, "process": "x"})
    assert log.write({"type": "end", "session": "s", "id": "e", "status": "completed"})
    begin, end = records_in(folder)
    assert begin.at_seconds == 5 and begin.sequence is None and begin.id == "s" and begin.monotonic_seconds is None
    assert end.sequence == 0 and end.id == "e" and begin.process == end.process != "x"


def test_every_event_is_in_the_file_when_the_call_returns(folder):
    sdk.session(task="t").attempt("a")
    assert [record.type for record in records_in(folder)] == ["session", "attempt"]


def test_halves_of_surrogate_pairs_are_replaced(folder):
    sdk.session(task="a \ud800 b \ud83d\ude00").attempt("x")
    assert session_in(folder).text == "a \N{REPLACEMENT CHARACTER} b \N{GRINNING FACE}"


# Many at once.


def test_threads_lose_nothing(folder):
    def work(number):
        with sdk.session(task=str(number)) as s:
            for place in range(200):
                s.attempt(f"{number}/{place} " + "x" * (place * 7))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [record.sequence for record in records_in(folder)] == list(range(8 * 202))
    assert all(len(session.attempts) == 200 for session in sessions_in(folder))


def test_processes_in_one_folder_lose_nothing(folder):
    code = """
sdk.configure(folder=sys.argv[1])
with sdk.session(task=sys.argv[2]) as s:
    for place in range(300):
        s.attempt(f"{place} " + "x" * (place * 7))
assert not sdk.status()["dropped"]
"""
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import atlas.sdk as sdk\n"
    started = [
        subprocess.Popen([sys.executable, "-S", "-I", "-c", start + code, str(folder), str(number)])
        for number in range(8)
    ]
    assert [process.wait(timeout=60) for process in started] == [0] * 8
    assert len(list(folder.iterdir())) == 8
    assert sorted(len(session.attempts) for session in sessions_in(folder)) == [300] * 8


def test_a_forked_child_writes_a_file_of_its_own(folder):
    with sdk.session(task="parent") as s:
        child = multiprocessing.get_context("fork").Process(target=agent)
        child.start()
        child.join()
        s.attempt("a")
    assert child.exitcode == 0 and len(list(folder.iterdir())) == 2
    inner, outer = sorted(sessions_in(folder), key=lambda session: session.text)
    assert inner.record.parent == outer.id and inner.record.process != outer.record.process
    assert len({record.id for record in records_in(folder)}) == len(records_in(folder)) == 8


def test_a_child_forked_while_a_thread_writes_does_not_hang(folder):
    holds, release = threading.Event(), threading.Event()

    def hold():
        with log._log._lock:
            holds.set()
            release.wait(timeout=60)

    thread = threading.Thread(target=hold)
    thread.start()
    holds.wait()
    child = multiprocessing.get_context("fork").Process(target=agent)
    child.start()
    child.join(timeout=60)
    release.set()
    thread.join()
    assert child.exitcode == 0 and session_in(folder).passed()


def test_a_signal_handler_may_record_while_its_thread_writes(folder, monkeypatch):
    write, s = os.write, sdk.session(task="t")

    def interrupted(descriptor, data):
        monkeypatch.setattr(os, "write", write)
        signal.raise_signal(signal.SIGUSR1)
        return write(descriptor, data)

    before = signal.signal(signal.SIGUSR1, lambda *_: s.attempt("from the handler"))
    try:
        s.attempt("first")
        monkeypatch.setattr(os, "write", interrupted)
        s.attempt("interrupted")
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert {record.text for record in records_in(folder)[1:]} == {"first", "from the handler", "interrupted"}


# Kills and full disks.


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path):
    draw = random.Random(9)
    texts = ["x" * draw.choice([10, 700, 5_000, 50_000]) for _ in range(40)]
    for point in range(50):
        folder = tmp_path / str(point)
        acknowledged, killed_at = _killed(folder, texts, draw.randrange(1, 40))
        read, torn = whole_lines(folder)
        assert acknowledged >= killed_at and torn <= 1
        assert len(read) - 1 >= acknowledged and [record["sequence"] for record in read] == list(range(len(read)))
        assert all(record["text"] == texts[place % len(texts)] for place, record in enumerate(read[1:]))


def _killed(folder, texts, killed_at):
    """Runs an agent that says after every event that it is recorded, and kills it when it has said so often enough.
    Returns how often it had by then."""
    heard, said = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            sdk.configure(folder=folder)
            s, place = sdk.session(task="t"), 0
            while True:
                s.attempt(texts[place % len(texts)])
                os.write(said, b".")
                place += 1
        finally:
            os._exit(1)
    os.close(said)
    count = 0
    while count < killed_at:
        count += len(os.read(heard, killed_at - count))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    while more := os.read(heard, 65536):
        count += len(more)
    os.close(heard)
    return count, killed_at


def test_a_line_that_was_cut_off_does_not_spoil_the_next(folder, quiet, monkeypatch):
    write = os.write

    def full(descriptor, data):
        monkeypatch.setattr(os, "write", refusing)
        return write(descriptor, data[:40])

    def refusing(descriptor, data):
        monkeypatch.setattr(os, "write", write)
        raise OSError(28, "No space left on device")

    with sdk.session(task="t") as s:
        monkeypatch.setattr(os, "write", full)
        s.attempt("lost")
        s.attempt("kept")
    read, torn = whole_lines(folder)
    assert torn == 1 and [record["type"] for record in read] == ["session", "attempt", "end"]
    assert read[1]["text"] == "kept" and read[2]["dropped"] == 1
    assert dropped() == {"cannot write: No space left on device": 1}


def test_a_short_write_is_completed(folder, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:100]))
    assert agent("x" * 1000) == "x" * 1000
    monkeypatch.undo()
    assert len(records_in(folder)) == 5


def test_a_disk_that_is_full_for_a_while(tmp_path):
    """By a limit of the size of a file, which the kernel keeps as it keeps that of a disk: it writes what fits."""
    code = """
import resource
sdk.configure(folder=sys.argv[1])
s = sdk.session(task="t").__enter__()
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
for _ in range(10):
    s.attempt("x" * 300)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
s.attempt("again")
s.__exit__(None, None, None)
print(sdk.status()["dropped"])
"""
    done = run(code, tmp_path)
    read, torn = whole_lines(tmp_path)
    lost = 10 - sum(record.get("text", "").startswith("x") for record in read)
    assert torn == 1 and lost >= 6 and done.stdout.strip() == f"{{'cannot write: File too large': {lost}}}"
    assert read[-2]["text"] == "again" and read[-1]["dropped"] == lost
    assert done.stderr.count("RuntimeWarning: atlas.sdk: an event was not written: cannot write") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_small_disk_that_is_full(tmp_path, quiet):
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16k", "none", str(tmp_path)], capture_output=True
    ).returncode:
        pytest.skip("mount is not allowed here")
    try:
        sdk.configure(folder=tmp_path)
        assert [agent("x" * 1000) for _ in range(30)] == ["x" * 1000] * 30
        assert all(ADAPTER.validate_python(record) for record in whole_lines(tmp_path)[0])
        assert dropped()["cannot write: No space left on device"] > 10
        log._log._close()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.parametrize("place", ["/proc/none", "/dev/null/traces", "/sys/traces"])
def test_a_folder_that_cannot_be_made(place, quiet):
    sdk.configure(folder=place)
    assert agent() == "42"
    [(reason, count)] = [(r, n) for r, n in dropped().items() if r.startswith("cannot write")]
    assert count == 5 and sdk.status()["file"] is None
    assert dropped() == {reason: 5, "its session is not in the file": 4}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(folder, quiet):
    folder.mkdir(mode=0o500)
    assert agent() == "42"
    assert dropped()["cannot write: Permission denied"] == 5


def test_a_session_is_written_when_it_becomes_possible(folder, quiet):
    folder.parent.joinpath("traces").write_text("in the way")
    with sdk.session(task="t") as s:
        s.attempt("lost")
        folder.unlink()
        s.attempt("kept")
    made = session_in(folder)
    assert [attempt.record.text for attempt in made.attempts] == ["kept"] and made.end.dropped == 3
    assert made.record.at_seconds < made.attempts[0].record.at_seconds


# What an agent may do to it.


def test_a_folder_that_is_removed_is_made_again(folder):
    s = sdk.session(task="t")
    s.attempt("lost with the folder")
    shutil.rmtree(folder)
    s.attempt("a")
    assert [record.type for record in records_in(folder)] == ["attempt"]


def test_an_agent_that_closes_all_descriptors_loses_nothing(folder, tmp_path):
    with sdk.session(task="t") as s:
        descriptor = log._log._descriptor
        os.close(descriptor)
        s.attempt("a")
        os.dup2(os.open(tmp_path / "database", os.O_RDWR | os.O_CREAT), log._log._descriptor)
        s.attempt("b")
    assert [attempt.record.text for attempt in session_in(folder).attempts] == ["a", "b"]
    assert (tmp_path / "database").read_bytes() == b"" and dropped() == {}


def test_the_file_does_not_take_the_place_of_a_closed_stdout(tmp_path):
    code = """
import os
os.close(0); os.close(1)
sdk.configure(folder=sys.argv[1])
sdk.session(task="t").attempt("a")
try:
    os.write(1, b"printed")
except OSError:
    pass
"""
    run(code, tmp_path)
    assert len(records_in(tmp_path)) == 2


# Failures inside.


class Unknown(Exception):
    pass


PLACES = [
    "fit", "time", "ENCODER", "only_owner", "_log", "warn", "_log._redaction", "_log._lock", "_log._append",
    "_log._body", "_log._sequence", "_log.new_id", "_log._open", "_log.write", "_log.drop", "write",
]  # fmt: skip


class Raises:
    """Stands for anything, and raises at whatever is done with it."""

    def __init__(self, error):
        object.__setattr__(self, "error", error)

    def _raise(self, *arguments, **named):
        raise object.__getattribute__(self, "error")

    __getattribute__ = __setattr__ = __call__ = __enter__ = __exit__ = __next__ = _raise


@pytest.mark.parametrize("error", [Unknown, RecursionError, MemoryError, OSError(5, "Input/output error"), KeyError])
@pytest.mark.parametrize("place", PLACES)
def test_no_bug_of_capture_reaches_the_agent(place, error, folder, quiet, monkeypatch):
    *owner, name = place.split(".")
    monkeypatch.setattr(getattr(log, owner[0]) if owner else log, name, Raises(error))
    assert agent() == "42"
    monkeypatch.undo()
    assert sdk.current() is None


def test_a_bug_of_which_nothing_can_be_said_is_counted_too(folder, monkeypatch):
    monkeypatch.setattr(log._log, "_body", Raises(Unknown))
    monkeypatch.setattr(log, "_reason", Raises(MemoryError))
    agent()
    assert dropped() == {"unexplained": 9}


@pytest.mark.parametrize("error", [Unknown, RecursionError, MemoryError])
def test_bugs_are_counted_by_their_kind(error, folder, quiet, monkeypatch):
    monkeypatch.setattr(log, "ENCODER", Raises(error))
    agent()
    assert dropped() == {f"bug in capture: {error.__name__}": 5, "its session is not in the file": 4}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupts_pass(error, folder, monkeypatch):
    monkeypatch.setattr(log, "fit", Raises(error))
    with pytest.raises(error), sdk.session(task="t"):
        pass
    monkeypatch.undo()


def test_an_event_whose_redaction_fails_is_not_written(folder, quiet, monkeypatch):
    with sdk.session(task="t") as s:
        s.attempt("a")
        monkeypatch.setattr(Redaction, "text", Raises(ValueError(TOKEN)))
        monkeypatch.setattr(Redaction, "_text", Raises(ValueError(TOKEN)))
        s.attempt(TOKEN)
        s.attempt("nothing in it")
    assert dropped() == {"redaction failed: ValueError": 1}
    assert TOKEN not in "".join(lines_in(folder)) and session_in(folder).end.dropped == 1


def test_a_pattern_that_cannot_be_used_turns_capture_off(folder):
    with warnings.catch_warnings(record=True) as said:
        sdk.configure(folder=folder, patterns=["(a+)+$"])
        assert agent() == "42" and agent() == "42"
    assert str(said[0].message).startswith("atlas.sdk: capture is off: pattern 1 has a repeat") and len(said) == 3
    assert not folder.exists() and sdk.status()["off"].startswith("capture is off: pattern 1")
    assert dropped()[sdk.status()["off"]] == 10
    sdk.configure(folder=folder, patterns="AC-[0-9]+")
    agent("AC-12")
    assert session_in(folder).end.answer == "[redacted:custom]" and sdk.status()["off"] is None


@pytest.mark.parametrize("settings", [{"folder": 7}, {"patterns": 7}, {"patterns": [7]}])
def test_configure_never_raises(settings, quiet):
    sdk.configure(**settings)
    assert agent() == "42" and sdk.status()["off"].startswith("capture is off: ")


def test_every_reason_is_told_once(folder, monkeypatch):
    monkeypatch.setattr(log, "ENCODER", Raises(Unknown(TOKEN)))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        agent()
        agent()
    told = [str(warning.message) for warning in said]
    assert len(told) == 2 and "bug in capture: Unknown" in told[0] and TOKEN not in "".join(told)


def test_where_warnings_are_errors_stderr_is_told(tmp_path):
    done = run("sdk.configure(folder='/dev/null/x'); sdk.session(task='t').attempt('a')", options=["-W", "error"])
    assert done.stderr.count("atlas.sdk: an event was not written: cannot write: Not a directory") == 1


def test_without_a_stderr_nothing_is_raised(tmp_path):
    code = "sys.stderr = sys.__stderr__ = None\nsdk.configure(folder='/dev/null/x'); sdk.session(task='t').attempt('a')"
    assert run(code, options=["-W", "error"]).returncode == 0


# What it takes.


def test_capture_needs_the_standard_library_only(tmp_path):
    code = f"""
sdk.configure(folder=sys.argv[1])
with sdk.session(task="mail jane@example.org, password: hunter2") as s:
    s.attempt({TOKEN!r}, messages=[{{"role": "developer", "content": "x"}}])
from importlib.machinery import PathFinder
from pathlib import Path
foreign = [name for name, module in sys.modules.items() if "site-packages" in (getattr(module, "__file__", None) or "")]
print(foreign, sdk.status()["redaction"])
"""
    assert run(code, tmp_path).stdout.strip() == "[] builtin 1"
    begin, attempt, _ = records_in(tmp_path)
    assert begin.task == "mail [redacted:email], password: [redacted:password]" and attempt.text == "[redacted:hf]"


def test_importing_capture_takes_less_than_100_ms():
    def milliseconds():
        timed = [sys.executable, "-X", "importtime", "-c", "import atlas.sdk"]
        told = subprocess.run(timed, capture_output=True, text=True, check=True).stderr
        return next(int(line.split("|")[1]) for line in told.splitlines() if line.endswith("| atlas.sdk")) / 1000

    assert min(milliseconds() for _ in range(5)) < 100


def test_nothing_of_atlas_is_imported_but_what_capture_needs():
    loaded = run("print(*(name for name in sys.modules if name.startswith('atlas')))").stdout.split()
    own = {"capture", "detectors", "fields", "log", "patterns", "plain", "redaction", "rules", "schema"}
    assert set(loaded) == {
        "atlas",
        "atlas.private",
        "atlas.secrets",
        "atlas.sdk",
        *(f"atlas.sdk.{name}" for name in own),
    }
