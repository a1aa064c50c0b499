import json

import pytest

from atlas.errors import RunFailed
from atlas.training import checkpoints
from atlas.training.checkpoints import commit, newest_complete, publish, resume_point, rotate

FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")


def write(directory, step, without=()):
    staged = directory / ".staging" / f"checkpoint-{step}"
    staged.mkdir(parents=True)
    for name in FILES:
        if name not in without:
            (staged / name).write_text(f"{name} of step {step}")
    return commit(staged, directory, step, {"train_seconds": step}, {"last": {"step": step}})


@pytest.fixture
def two(tmp_path):
    """Two checkpoints; the newer one is to be spoiled."""
    return write(tmp_path, 10), write(tmp_path, 20)


def newest(directory):
    checkpoint, reasons = newest_complete(directory)
    return checkpoint.name if checkpoint else None, reasons


def test_the_newest_complete_one_is_found_by_number(tmp_path):
    for step in (9, 10, 100):
        write(tmp_path, step)
    assert newest(tmp_path)[0] == "step-100"
    assert json.loads((tmp_path / "step-100" / "clocks.json").read_text()) == {"train_seconds": 100}


def test_without_checkpoints_there_is_nothing_to_resume_from(tmp_path):
    assert newest(tmp_path) == (None, [])
    assert resume_point(tmp_path / "absent") == (None, [])


@pytest.mark.parametrize("name", [*FILES, "clocks.json", "summary.json", "manifest.json"])
def test_a_missing_file_is_noticed(two, name):
    (two[1] / name).unlink()
    checkpoint, [reason] = newest(two[1].parent)
    assert checkpoint == "step-10" and f"step-20: {name} is missing" in reason


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth", "trainer_state.json", "scheduler.pt"])
def test_a_checkpoint_that_never_had_the_file_is_not_complete(tmp_path, name):
    write(tmp_path, 10)
    write(tmp_path, 20, without=[name])
    assert newest(tmp_path) == ("step-10", [f"passed over step-20: {name} is missing"])


@pytest.mark.parametrize("name", [*FILES, "clocks.json", "summary.json"])
def test_one_flipped_bit_is_noticed(two, name):
    content = bytearray((two[1] / name).read_bytes())
    content[len(content) // 2] ^= 1
    (two[1] / name).write_bytes(content)
    checkpoint, [reason] = newest(two[1].parent)
    assert checkpoint == "step-10" and f"{name} is not as it was written" in reason


def test_a_torn_file_and_a_torn_manifest_are_noticed(two):
    (two[1] / "model.safetensors").write_text("mod")
    assert newest(two[1].parent)[0] == "step-10"
    manifest = (two[0] / "manifest.json").read_text()
    (two[0] / "manifest.json").write_text(manifest[: len(manifest) // 2])
    assert newest(two[0].parent) == (None, ["passed over step-10: manifest.json is not readable"])


def test_a_stranger_a_link_and_a_wrong_step_are_refused(tmp_path):
    for step in (10, 20, 30, 40):
        write(tmp_path, step)
    (tmp_path / "step-40" / "pytorch_model.bin").write_text("a pickle")
    (tmp_path / "step-30" / "optimizer.pt").unlink()
    (tmp_path / "step-30" / "optimizer.pt").symlink_to(tmp_path / "step-20" / "optimizer.pt")
    (tmp_path / "step-20").rename(tmp_path / "step-25")
    checkpoint, reasons = newest(tmp_path)
    assert checkpoint == "step-10"
    assert [reason.split(": ")[1] for reason in reasons] == [
        "pytorch_model.bin is not in the manifest",
        "it holds a symbolic link",
        "manifest.json is of step 20",
    ]


def test_a_newer_format_is_not_guessed_at(two):
    manifest = json.loads((two[1] / "manifest.json").read_text())
    (two[1] / "manifest.json").write_text(json.dumps(manifest | {"version": 2}))
    assert newest(two[1].parent) == ("step-10", ["passed over step-20: its format is version 2, this Atlas reads 1"])


def test_what_was_passed_over_is_out_of_the_way_of_rotation(two):
    directory = two[0].parent
    (two[1] / "optimizer.pt").unlink()
    newest_complete(directory)
    write(directory, 15)
    rotate(directory, keep=1)
    assert sorted(path.name for path in directory.iterdir() if path.name != ".staging") == [
        "passed-over-step-20",
        "step-15",
    ]


def test_a_half_written_checkpoint_is_removed_with_a_reason(two):
    directory = two[0].parent
    (directory / ".staging" / "checkpoint-30").mkdir(parents=True)
    (directory / ".staging" / "checkpoint-30" / "model.safetensors").write_text("half")
    checkpoint, [reason] = newest(directory)
    assert checkpoint == "step-20" and "being written" in reason and not (directory / ".staging").exists()


def test_with_broken_checkpoints_only_the_run_does_not_start_over_silently(two):
    for path in two:
        (path / "rng_state.pth").unlink()
    for _ in range(2):  # and says so again when asked again
        with pytest.raises(RunFailed, match=r"step-10.*atlas rerun") as caught:
            resume_point(two[0].parent)
        assert caught.value.reason == "bad_checkpoint"


def test_files_are_on_the_disk_before_the_checkpoint_has_its_name(tmp_path, monkeypatch):
    order = []
    monkeypatch.setattr(checkpoints, "_sync", lambda path: order.append(path.name))
    staged = tmp_path / "staged"
    (staged / "sub").mkdir(parents=True)
    (staged / "a").write_text("a")
    (staged / "sub" / "b").write_text("b")
    publish(staged, tmp_path / "step-1")
    assert order == ["a", "b", "staged", "sub", tmp_path.name]


def test_rotation_keeps_the_newest(tmp_path):
    for step in (8, 9, 10, 11):
        write(tmp_path, step)
    rotate(tmp_path, keep=2)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-10", "step-11"]
