"""Where a run came from: git, secrets, GPUs."""

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

from atlas import __version__, provenance
from atlas.provenance import command_line, environment, gpus, patch, project, without_secrets

HUB_TOKEN = "hf_" + "a" * 30


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, "-C", str(folder), *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path):
    git(tmp_path, "init", "--initial-branch=trunk")
    (tmp_path / "code.py").write_text("x = 1\n")
    git(tmp_path, "add", "code.py")
    git(tmp_path, "commit", "-m", "first")
    return tmp_path


def commit_of(folder):
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_clean_work_tree_has_a_commit_a_branch_and_no_patch(repository):
    assert project(repository) == {"commit": commit_of(repository), "branch": "trunk", "dirty": False}
    assert patch(repository) == ""


def test_a_changed_file_makes_it_dirty_and_is_in_the_patch(repository):
    (repository / "code.py").write_text("x = 2\n")
    assert project(repository)["dirty"] is True
    assert "-x = 1\n+x = 2\n" in patch(repository)


def test_the_patch_can_be_applied_again(repository):
    (repository / "code.py").write_text("x = 2\n")
    diff = patch(repository)
    git(repository, "checkout", "code.py")
    (repository / "saved.patch").write_text(diff)
    git(repository, "apply", "saved.patch")
    assert (repository / "code.py").read_text() == "x = 2\n"


def test_an_untracked_file_makes_it_dirty_and_is_only_named(repository):
    (repository / "notes.txt").write_text("my private notes\n")
    assert project(repository)["dirty"] is True
    assert patch(repository) == "# untracked: notes.txt\n"


def test_a_folder_inside_the_work_tree_stands_for_all_of_it(repository):
    (repository / "specs").mkdir()
    (repository / "code.py").write_text("x = 2\n")
    assert project(repository / "specs")["dirty"] is True
    assert "+x = 2" in patch(repository / "specs")


def test_a_detached_head_has_a_commit_but_no_branch(repository):
    git(repository, "checkout", "--detach")
    assert project(repository) == {"commit": commit_of(repository), "branch": None, "dirty": False}


def test_a_repository_without_commits_has_none(tmp_path):
    git(tmp_path, "init", "--initial-branch=trunk")
    (tmp_path / "code.py").write_text("x = 1\n")
    assert project(tmp_path) == {"commit": None, "branch": "trunk", "dirty": True}
    assert patch(tmp_path) == "# untracked: code.py\n"


NOTHING = {"commit": None, "branch": None, "dirty": None}


def test_outside_git_there_is_nothing_to_say(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert (project(tmp_path), patch(tmp_path)) == (NOTHING, "")
    assert (project(tmp_path / "missing"), patch(tmp_path / "missing")) == (NOTHING, "")


def test_without_git_installed_there_is_nothing_to_say(repository, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert (project(repository), patch(repository)) == (NOTHING, "")
    assert environment()["atlas"]["commit"] is None


def test_a_git_that_hangs_is_given_up_on(repository, monkeypatch, tmp_path_factory):
    programs = tmp_path_factory.mktemp("bin")
    (programs / "git").write_text(f"#!{sys.executable}\nimport signal\nsignal.pause()\n")
    (programs / "git").chmod(0o700)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr(provenance, "_GIT_TIMEOUT_SECONDS", 0.05)
    assert project(repository) == NOTHING


def test_a_hooks_git_variables_do_not_lead_elsewhere(repository, monkeypatch):
    commit = commit_of(repository)
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert project(repository)["commit"] == commit


@pytest.mark.parametrize(
    "line",
    [
        f"token = '{HUB_TOKEN}'",
        f"print('{HUB_TOKEN}')",
        "WANDB_API_KEY=0123456789abcdef0123456789abcdef01234567",
        "password: correct-horse",
        '{"api_key": "a1b2c3d4e5f6"}',
        "url = 'https://user:secret1@example.com'",
        "print('value-of-a-variable')",
    ],
)
def test_a_line_with_a_secret_is_not_in_the_patch(repository, monkeypatch, line):
    monkeypatch.setenv("MY_TOKEN", "value-of-a-variable")
    (repository / "code.py").write_text(f"x = 1\n{line}\ny = 2\n")
    assert patch(repository).endswith(" x = 1\n+[redacted]\n+y = 2\n")


def test_a_private_key_is_not_in_the_patch(repository):
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE KEY-----\n"
    (repository / "code.py").write_text(f"x = 1\n{key}y = 2\n")
    shown = patch(repository)
    assert "MIIEow" not in shown and "IBAAKC" not in shown
    assert shown.endswith("+y = 2\n")


@pytest.mark.parametrize(
    "line",
    [
        "max_tokens = 256",
        "pad_token = tokenizer.eos_token",
        'eos_token: "<|im_end|>"',
        "best = sorted(runs, key=score)",
        "for key in keys: print(key)",
        "sha = '0123456789abcdef0123456789abcdef01234567'",
    ],
)
def test_code_that_only_speaks_of_tokens_is_in_the_patch(repository, line):
    (repository / "code.py").write_text(line + "\n")
    assert f"+{line}\n" in patch(repository)


def test_a_long_patch_is_cut_and_says_so(repository, monkeypatch):
    monkeypatch.setattr(provenance, "PATCH_LIMIT_BYTES", 500)
    (repository / "code.py").write_text("".join(f"line_{n} = {n}  # é\n" for n in range(1000)))
    lines = patch(repository).splitlines()
    assert lines[-1] == "# cut: the whole diff is longer than 500 bytes"
    assert len("\n".join(lines[:-1]).encode()) <= 500
    assert lines[-2].endswith("# é")


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["submit", "a.yaml", "--set", "seed=3"], ["submit", "a.yaml", "--set", "seed=3"]),
        (["--api-key", "s3cret", "a.yaml"], ["--api-key", "[redacted]", "a.yaml"]),
        (["--api-key", "--json"], ["--api-key", "--json"]),
        (["--token=s3cret"], ["--token=[redacted]"]),
        (["HF_TOKEN=s3cret"], ["HF_TOKEN=[redacted]"]),
        ([f"notes={HUB_TOKEN}"], ["notes=[redacted]"]),
        (["--set", "sampling.max_tokens=5"], ["--set", "sampling.max_tokens=5"]),
    ],
)
def test_the_command_line_is_shown_without_its_secrets(arguments, shown):
    assert command_line(arguments) == shown


def test_the_value_of_a_secret_variable_is_hidden_wherever_it_stands():
    variables = {"WANDB_API_KEY": "f00d" * 10, "SHORT_KEY": "on", "HOME": "/home/someone"}
    assert (
        without_secrets(f"turn on {'f00d' * 10} in /home/someone", variables) == "turn on [redacted] in /home/someone"
    )


def test_the_environment_names_this_atlas_and_imports_nothing_heavy():
    script = "import json, sys; from atlas.provenance import environment; record = environment()\n"
    script += "print(json.dumps([record, sorted({'torch', 'transformers', 'wandb'} & set(sys.modules))]))"
    command = [sys.executable, "-c", script, "--api-key=s3cret"]
    record, imported = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert imported == []
    assert record["atlas"] == {"version": __version__, "commit": commit_of(Path(provenance.__file__).parent)}
    assert record["python"] == ".".join(map(str, sys.version_info[:3]))
    assert record["packages"]["torch"].startswith("2.")
    assert record["cpu_count"] >= 1 and record["memory_bytes"] > 2**28
    assert record["command"] == ["-c", "--api-key=[redacted]"]


def test_a_copy_of_atlas_installed_inside_another_project_has_no_commit(repository, monkeypatch):
    (repository / ".gitignore").write_text("venv\n")
    package = repository / "venv/atlas"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    assert environment()["atlas"]["commit"] is None


class NvmlError(Exception):
    pass


def three_gpus(failing_call=None):
    """Stands in for pynvml."""
    calls = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: shut_downs.append(True),
        "nvmlDeviceGetCount": lambda: 3,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetMemoryInfo": lambda index: types.SimpleNamespace(total=100, free=10 * index),
        "nvmlDeviceGetUUID": lambda index: f"GPU-{index}aaa",
        "nvmlDeviceGetName": lambda index: b"H200",
        "nvmlSystemGetDriverVersion": lambda: "570.1",
    }
    shut_downs = []

    def fail():
        raise NvmlError

    if failing_call:
        calls[failing_call] = fail
    return types.SimpleNamespace(NVMLError=NvmlError, shut_downs=shut_downs, **calls)


def install(monkeypatch, nvml, visible=None):
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)


def test_gpus_are_what_nvml_sees(monkeypatch):
    nvml = three_gpus()
    install(monkeypatch, nvml)
    assert [gpu.index for gpu in gpus()] == [0, 1, 2]
    assert gpus()[2] == provenance.Gpu(2, "GPU-2aaa", "H200", 100, 20, "570.1")
    assert len(nvml.shut_downs) == 2


@pytest.mark.parametrize("nvml", [None, three_gpus("nvmlInit"), three_gpus("nvmlDeviceGetCount")])
def test_without_bindings_or_driver_there_are_no_gpus(monkeypatch, nvml):
    install(monkeypatch, nvml)
    assert gpus() == []


@pytest.mark.parametrize(
    ("visible", "indices"),
    [
        ("", []),
        ("-1", []),
        ("1", [1]),
        ("2, 0", [2, 0]),
        ("GPU-1aaa", [1]),
        ("GPU-1,GPU-0aaa", [1, 0]),
        ("0,7,1", [0]),
        ("GPU-", []),
        ("MIG-1aaa", []),
    ],
)
def test_an_outer_cuda_visible_devices_is_honoured(monkeypatch, visible, indices):
    install(monkeypatch, three_gpus(), visible)
    assert [gpu.index for gpu in gpus()] == indices


@pytest.mark.gpu
@pytest.mark.skipif(not Path("/proc/driver/nvidia/version").exists(), reason="no NVIDIA driver")
def test_a_real_gpu_has_a_name_and_memory():
    found = gpus()
    assert found and found[0].memory_bytes >= found[0].free_bytes > 0 and found[0].name
