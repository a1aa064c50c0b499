"""The streamer against the real wandb package, with a stand-in for W&B's server."""

import fcntl
import json
import math
import os
import stat
import subprocess
import sys
from contextlib import contextmanager, nullcontext

import pytest
from offline_files import history, records
from wandb_server import Server

from atlas.errors import AtlasError
from atlas.job import JobSpec
from atlas.monitors import wandb as streamer
from atlas.monitors.wandb import Rows, follow, send, start, stop

KEY = "f00d" * 10
NOWHERE = "http://127.0.0.1:9"
JOB = {
    "name": "tiny",
    "student": {"model": "org/tiny"},
    "method": {"type": "sft"},
    "dataset": {"type": "arithmetic"},
    "training": {"max_steps": 3},
    "tags": ["small", "x" * 80],
}


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """No login, no network, and nothing written outside the test's folder."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_BASE_URL", NOWHERE)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    return monkeypatch


@pytest.fixture
def run_dir(tmp_path):
    return make_run_dir(tmp_path / "run")


def make_run_dir(path, mode="auto"):
    path.mkdir()
    job = JobSpec.model_validate(JOB | {"wandb": {"project": "p", "mode": mode}}).model_dump(mode="json")
    document = {
        "run_id": "tiny-abc123",
        "job": job,
        "atlas_version": "0.1.0",
        "git": {"commit": "c0ffee", "dirty": False},
    }
    (path / "spec.json").write_text(json.dumps(document))
    return path


def append(run_dir, *records):
    with open(run_dir / "metrics.jsonl", "a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def metric(step, **values):
    return {"step": step, "clocks": {"wall_seconds": step * 2.0}, "values": values}


def finish(run_dir, state="succeeded"):
    (run_dir / "result.json").write_text(json.dumps({"state": state}))


@contextmanager
def working(run_dir):
    """A worker holds the directory."""
    with open(run_dir / "worker.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def status(run_dir):
    return json.loads((run_dir / "wandb.json").read_text())


def shown(row):
    """A row without what W&B adds of itself."""
    return {name: value for name, value in row.items() if not name.startswith("_")}


def segments(run_dir):
    return sorted(run_dir.glob("wandb/offline-run-*/*.wandb"))


def stream_until_ended(run_dir, wait="lambda seconds: None", **variables):
    """The streamer in a process of its own, with another way to wait."""
    script = "import os, sys, urllib.request\nfrom pathlib import Path\nfrom atlas.monitors.wandb import send\n"
    script += f"send(Path(sys.argv[1]), wait={wait})"
    command = [sys.executable, "-c", script, str(run_dir)]
    return subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, timeout=60)


def test_a_growing_file_is_followed_to_its_end_and_half_a_line_waits_for_the_rest(tmp_path):
    path, file_is_complete, waits = tmp_path / "metrics.jsonl", [], []

    def wait():
        waits.append(len(waits))
        if len(waits) == 1:
            path.write_text('{"a": 1}\n{"b": ')
        elif len(waits) == 2:
            with open(path, "a") as file:
                file.write('2}\ntorn by a kill\n{"c": 3}\n')
        else:
            file_is_complete.append(True)

    followed = list(follow(path, lambda: bool(file_is_complete), wait))
    assert [record for record, _ in followed] == [{"a": 1}, {"b": 2}, {"c": 3}]
    assert [offset for _, offset in followed] == [9, 18, path.stat().st_size]
    assert len(waits) == 3


def test_what_is_written_between_the_last_look_and_the_end_is_still_read(tmp_path):
    path = tmp_path / "metrics.jsonl"

    def ended():
        path.write_text('{"last": 1}\n')
        return True

    assert [record for record, _ in follow(path, ended, wait=lambda: pytest.fail("it has ended"))] == [{"last": 1}]


def test_a_row_has_the_names_and_values_of_its_line_and_the_clocks():
    line = metric(7, **{"train/loss": "NaN", "eval/pass_rate": 0.25, "train/kl": "-Infinity"})
    row = Rows().row(line)
    assert math.isnan(row.pop("train/loss"))
    assert row == {"step": 7, "eval/pass_rate": 0.25, "train/kl": -math.inf, "clock/wall_seconds": 14.0}


def test_lines_without_values_make_no_row():
    rows = Rows()
    lines = [{"progress": {"phase": "train"}}, {"event": "checkpoint", "message": "m"}, {"rewind": 3}, metric(4)]
    assert [rows.row(line) for line in lines] == [None] * 4


def test_after_a_rewind_only_what_was_never_shown_is_sent():
    rows = Rows()
    for step in (1, 2):
        rows.row(metric(step, a=step))
    rows.row({"rewind": 1})
    assert rows.row(metric(2, a=2)) is None
    assert shown(rows.row(metric(2, a=2, b=5))) == {"step": 2, "b": 5.0, "clock/wall_seconds": 4.0}
    assert rows.row(metric(2, b=5)) is None
    assert rows.row(metric(3, a=3))["a"] == 3.0


@pytest.mark.parametrize(
    ("locked", "result", "ended"), [(True, False, False), (True, True, True), (False, False, True)]
)
def test_a_run_has_ended_when_there_is_a_result_or_its_worker_is_gone(run_dir, locked, result, ended):
    (run_dir / "worker.lock").touch()
    if result:
        finish(run_dir)
    with working(run_dir) if locked else nullcontext():
        assert streamer._ended(run_dir) is ended


def modes_tried(monkeypatch, run_dir, outcome=lambda mode: None):
    """Runs `send` with W&B replaced by `outcome`, which may raise; the run ends at the first wait."""
    tried = []

    def stream(run_dir, document, status, wait):
        tried.append(status.mode)
        outcome(status.mode)

    monkeypatch.setattr(streamer, "_stream", stream)
    complete = send(run_dir, wait=lambda seconds: finish(run_dir))
    return tried, complete, status(run_dir)["note"]


def test_without_a_key_it_is_offline_and_says_so(environment, run_dir):
    tried, complete, note = modes_tried(environment, run_dir)
    assert (tried, complete) == (["offline"], True)
    assert "no API key" in note and "wandb login" in note and f"wandb sync {run_dir}" in note


def test_with_a_key_but_no_network_it_is_offline_and_says_so(environment, run_dir):
    environment.setenv("WANDB_API_KEY", KEY)
    tried, complete, note = modes_tried(environment, run_dir)
    assert (tried, complete) == (["offline"], True)
    assert NOWHERE in note and "refused" in note and KEY not in note


def test_with_a_key_and_a_network_it_is_online(environment, run_dir, server):
    environment.setenv("WANDB_API_KEY", KEY)
    environment.setenv("WANDB_BASE_URL", server.url)
    assert modes_tried(environment, run_dir) == (["online"], True, None)


def test_asked_to_be_online_it_waits_for_the_network_and_keeps_the_run_if_that_never_comes(environment, tmp_path):
    environment.setenv("WANDB_API_KEY", KEY)
    run_dir = make_run_dir(tmp_path / "run", "online")
    notes = []

    def wait(seconds):
        notes.append(status(run_dir)["note"])
        if len(notes) == 3:
            finish(run_dir)

    tried = []
    environment.setattr(streamer, "_stream", lambda run_dir, document, status, wait: tried.append(status.mode))
    with working(run_dir):
        assert send(run_dir, wait)
    assert tried == ["offline"]
    assert notes[1].startswith(f"waiting for {NOWHERE}")


@pytest.mark.parametrize(("variable", "modes"), [("offline", ["offline"]), ("disabled", [])])
def test_the_environment_may_turn_it_off(environment, run_dir, server, variable, modes):
    environment.setenv("WANDB_API_KEY", KEY)
    environment.setenv("WANDB_BASE_URL", server.url)
    environment.setenv("WANDB_MODE", variable)
    tried, complete, note = modes_tried(environment, run_dir)
    assert (tried, complete) == (modes, True)
    assert "WANDB_MODE" in note


def test_whatever_wandb_raises_the_metrics_go_into_offline_files_and_no_key_is_shown(environment, run_dir, server):
    environment.setenv("WANDB_API_KEY", KEY)
    environment.setenv("WANDB_BASE_URL", server.url)

    def fail(mode):
        if mode == "online":
            raise AtlasError(f"server said no to {KEY}")

    tried, complete, note = modes_tried(environment, run_dir, fail)
    assert (tried, complete) == (["online", "offline"], True)
    assert "server said no" in note and KEY not in note


def test_if_not_even_offline_files_can_be_written_it_says_so_and_ends(environment, run_dir):
    def fail(mode):
        raise OSError("no space left")

    tried, complete, note = modes_tried(environment, run_dir, fail)
    assert (tried, complete) == (["offline"], False)
    assert "no space left" in note


def test_offline_files_hold_every_value_and_no_key_and_only_the_owner_can_read_them(environment, run_dir):
    environment.setenv("WANDB_API_KEY", KEY)
    values = [{"train/loss": 1.5}, {"train/loss": "NaN", "eval/pass_rate": 0.25}, {"train/loss": 0.125}]
    append(run_dir, *(metric(step, **value) for step, value in enumerate(values)))
    finish(run_dir)
    process = start(run_dir)
    assert os.getsid(process.pid) == process.pid
    stop(process, timeout_seconds=60)
    assert process.returncode == 0, (run_dir / "wandb.log").read_text()

    [segment] = segments(run_dir)
    rows = [shown(row) for row in history(segment)]
    assert math.isnan(rows[1].pop("train/loss"))
    assert rows == [
        {"step": 0, "train/loss": 1.5, "clock/wall_seconds": 0.0},
        {"step": 1, "eval/pass_rate": 0.25, "clock/wall_seconds": 2.0},
        {"step": 2, "train/loss": 0.125, "clock/wall_seconds": 4.0},
    ]
    [run] = [record.run for record in records(segment) if record.WhichOneof("record_type") == "run"][:1]
    assert (run.run_id, run.project, run.display_name) == ("tiny-abc123", "p", "tiny")
    assert json.loads({item.key: item.value_json for item in run.config.update}["method"])["type"] == "sft"
    assert status(run_dir)["step"] == 2
    assert status(run_dir)["offset_bytes"] == (run_dir / "metrics.jsonl").stat().st_size
    ours = {run_dir, run_dir / "metrics.jsonl", run_dir / "spec.json", run_dir / "result.json"}
    for path in {*run_dir.rglob("*")} - ours:
        if path.is_symlink():
            continue
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
        assert path.is_dir() or KEY.encode() not in path.read_bytes(), path


def test_after_a_kill_offline_a_new_segment_holds_the_whole_run(environment, run_dir):
    append(run_dir, metric(0, a=0), metric(1, a=1))
    with working(run_dir):
        killed = stream_until_ended(run_dir, wait="lambda seconds: os.kill(os.getpid(), 9)")
    assert killed.returncode == -9
    append(run_dir, metric(2, a=2))
    stream_until_ended(run_dir)
    assert len(segments(run_dir)) == 2
    assert [row["a"] for row in history(segments(run_dir)[-1])] == [0, 1, 2]


def online(environment, server):
    environment.setenv("WANDB_API_KEY", KEY)
    environment.setenv("WANDB_BASE_URL", server.url)
    environment.setenv("WANDB_X_FILE_STREAM_TRANSMIT_INTERVAL", "0.1")
    environment.setenv("WANDB_X_FILE_STREAM_RETRY_WAIT_MIN_SECONDS", "0.1")


def test_online_the_server_gets_each_value_once_over_a_kill_a_resume_and_a_rewind(environment, run_dir, server):
    online(environment, server)
    append(run_dir, metric(0, a=0), metric(1, a=1), metric(2, a="NaN"))
    with working(run_dir):
        killed = stream_until_ended(run_dir, wait="lambda seconds: os.kill(os.getpid(), 9)")
    assert killed.returncode == -9
    append(run_dir, {"rewind": 1}, metric(2, a="NaN"), metric(3, a=3))
    finish(run_dir, "failed")
    stream_until_ended(run_dir)
    assert server.exit_code == 1
    append(run_dir, {"rewind": 2}, metric(3, a=3), metric(4, a=4))
    finish(run_dir)
    ended = stream_until_ended(run_dir)
    assert [row["step"] for row in server.rows] == [0, 1, 2, 3, 4], ended.stderr
    assert [row["_step"] for row in server.rows] == [0, 1, 2, 3, 4]
    assert math.isnan(server.rows[2]["a"])
    assert [row["a"] for row in server.rows if row["step"] != 2] == [0, 1, 3, 4]
    assert server.exit_code == 0
    assert status(run_dir)["url"] == f"{server.url}/me/p/runs/tiny-abc123"


class Resumed:
    """A run of which W&B already has two rows."""

    starting_step, url = 2, "https://wandb.example.com/run"

    def __init__(self):
        self.logged, self.exit_code = [], None

    def log(self, row, step):
        self.logged.append((step, row["step"]))

    def finish(self, exit_code):
        self.exit_code = exit_code


def test_rows_that_the_server_has_are_not_even_offered_again(environment, run_dir, server):
    online(environment, server)
    run = Resumed()
    environment.setattr(streamer, "_begin", lambda run_dir, document, mode: run)
    append(run_dir, *(metric(step, a=step) for step in (10, 20, 30, 40)))
    assert send(run_dir, wait=lambda seconds: None)
    assert run.logged == [(2, 30), (3, 40)]
    assert run.exit_code == 1, "the worker is gone and left no result"


def test_after_an_outage_the_rest_is_sent(environment, run_dir, server):
    online(environment, server)
    append(run_dir, metric(0, a=0))
    idle = []

    def on_idle():
        idle.append(len(server.rows))
        if len(idle) == 1:
            server.down = True
            append(run_dir, metric(1, a=1), metric(2, a=2))
        elif len(idle) == 2:
            assert server.refused.wait(20)
            append(run_dir, metric(3, a=3))
            server.down = False
            finish(run_dir)

    server.on_idle = on_idle
    with working(run_dir):
        ended = stream_until_ended(run_dir, f"lambda seconds: urllib.request.urlopen('{server.url}/idle').close()")
    assert [row["a"] for row in server.rows] == [0, 1, 2, 3], ended.stderr
    assert status(run_dir)["mode"] == "online"
    assert server.refused.is_set()


def test_starting_never_raises(environment, tmp_path, monkeypatch, run_dir):
    assert start(tmp_path / "nowhere") is None
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert start(run_dir) is None
    stop(None, timeout_seconds=60)


def test_stopping_waits_at_most_its_time_and_leaves_the_process_to_finish():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    stop(process, timeout_seconds=0.01)
    assert process.poll() is None
    process.communicate(b"\n", timeout=60)
    assert process.returncode == 0
