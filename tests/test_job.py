"""A job file is loaded with every problem at once, each with its place; `check` finds what only this machine knows."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from atlas.errors import SpecError
from atlas.experiment import load_checked
from atlas.job import JobSpec, check, load

Write = Callable[..., Path]

JOB = """\
name: demo
student: {model: a/student}
teacher: {model: a/teacher}
method: {type: gkd}
dataset: {type: arithmetic, size: 100, dev_size: 9, test_size: 9}
training: {max_steps: 10}
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_API_KEY", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "ATLAS_TRUST_REMOTE_CODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    def write(text: str, name: str = "a.yaml") -> Path:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        return Path(name)

    return write


def problems(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(SpecError) as error:
        load_checked(path, overrides)
    return [str(problem) for problem in error.value.problems]


def only_problem(path: Path, *overrides: str) -> str:
    found = problems(path, *overrides)
    assert len(found) == 1, found
    return found[0]


def test_a_job_is_loaded_with_its_defaults(write: Write) -> None:
    job = load(write("# yaml-language-server: $schema=x.json\n" + JOB), ["training.learning_rate=1e-5"])
    assert job.method.type == "gkd" and job.sampling is not None and job.training is not None
    assert job.training.learning_rate == 1e-5 and job.version == 1
    assert JobSpec.model_validate_json(job.model_dump_json()) == job


def test_nothing_loaded_remembers_the_folder_it_was_read_from(write: Write) -> None:
    assert type(load(write(JOB)).name) is str and type(load(write(JOB)).student.model) is str


def test_local_paths_are_relative_to_their_own_file(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FILE", "rows")
    text = JOB.replace("a/student", "./student").replace(
        "{type: arithmetic, size: 100, dev_size: 9, test_size: 9}", '{type: jsonl, path: "${env:FILE}.jsonl"}'
    )
    job = load(write(text, "specs/a.yaml"), ["teacher.model=./teacher"])
    assert job.student.model == str(tmp_path / "specs/student")
    assert job.dataset.path == str(tmp_path / "specs/rows.jsonl")  # type: ignore[union-attr]
    assert job.teacher is not None and job.teacher.model == str(tmp_path / "teacher")


FOUND = [
    ("student: {model: a/b, dtpe: x}", "a.yaml:2:23: student.dtpe: unknown key; did you mean 'dtype'?"),
    ("learning_rate: 1e-5", "a.yaml:7:1: learning_rate: unknown key; did you mean 'training.learning_rate'?"),
    ("training: {max_steps: 1, lr: 1}", "training.lr: unknown key; did you mean 'learning_rate'?"),
    ("training: {max_steps: 1, num_epochs: 1}", "training.num_epochs: unknown key; did you mean 'epochs'?"),
    ("method: {type: gkd, num_generations: 4}", "method.num_generations: unknown key of type gkd; type grpo has it"),
    ("name:", "name: expected text, got nothing (an empty value); write a value"),
    ("seed: null", "seed: expected a whole number, got nothing (null); leave the key out for its default"),
    ("zzzz: 1", "zzzz: unknown key; the file has version, kind, name"),
    ("student: {revision: main}", "a.yaml:2:1: student.model: required key is missing (Hub id"),
    ("student: a/b", "a.yaml:2:10: student: expected a mapping of keys, got the text 'a/b'"),
    (
        "name: -rf",
        "name: expected only a-z 0-9 - _ . (at most 100) and it must start with a letter or digit, got the text '-rf'",
    ),
    ("name: 2024", 'name: expected text, got the number 2024; quote it: "2024"'),
    ("name: true", 'name: expected text, got a boolean (true); quote it: "true"'),
    ("name: no", "a.yaml:1:7: name: got a boolean: unquoted no is false in YAML 1.1; quote it"),
    ("kind: experimnt", "kind: expected one of: job, experiment, got the text 'experimnt'"),
    ("version: '1'", "version: expected a whole number, got the text '1'; write 1 without quotes"),
    ("version: 0", "version: expected at least 1, got 0"),
    (
        "method: {type: gdk}",
        "a.yaml:4:16: method.type: unknown type 'gdk'; did you mean 'gkd'? Known: evaluate, gkd, gkd_reward, grpo, sft",
    ),
    (
        "method: {beta: 1}",
        "a.yaml:4:1: method.type: required key is missing; expected one of: evaluate, gkd, gkd_reward, grpo, sft",
    ),
    ("method: gkd", "a.yaml:4:9: method: expected a mapping of keys, got the text 'gkd'; write {type: gkd}"),
    ('dataset: {type: jsonl, path: ""}', "dataset.path: expected a text that is not empty, got the text ''"),
    ("training: {max_steps: 10000000000000000000000}", "training.max_steps: expected between 1 and 1000000000"),
    ("training: {epochs: 1e300}", "training.epochs: expected more than 0 and at most 1000000, got 1e300"),
    ("student: {model: a/b, lora: {target_modules: []}}", "student.lora.target_modules: expected 'all-linear' or at l"),
    ("method: {type: 3}", "method.type: expected one of: evaluate, gkd, gkd_reward, grpo, sft; got 3"),
    ("method:", "method: expected a mapping of keys, got nothing (an empty value)"),
    ("method: {type: gkd, lmbda: 1.5}", "method.lmbda: expected between 0 and 1, got 1.5"),
    ("method: {type: grpo, num_generations: 1}", "method.num_generations: expected at least 2, got 1"),
    ("executor: {type: docker}", "executor.type: unknown type 'docker'; Known: container, local"),
    ("training: {max_steps: 100 steps}", "training.max_steps: expected a whole number, got the text '100 steps'"),
    ("training: {max_steps: 012}", "training.max_steps: the leading zero means octal to some; write 12"),
    ("training: {max_steps: 1e3}", "training.max_steps: expected a whole number, got 1e3; write 1000"),
    ("training: {max_steps: 1_000}", "expected a whole number, got the text '1_000'; write 1000 without quotes"),
    ("training: {max_steps: 1, epochs: 2}", "a.yaml:6:1: training: set max_steps or epochs, not both: got both"),
    ("training: {max_steps: 1, learning_rate: abc}", "training.learning_rate: expected a number, got the text 'abc'"),
    (
        "training: {max_steps: 1, learning_rate: true}",
        "training.learning_rate: expected a number, got a boolean (true)",
    ),
    ("training: {max_steps: 1, learning_rate: .inf}", "training.learning_rate: expected a finite number, got .inf"),
    ("training: {max_steps: 1, learning_rate: .nan}", "training.learning_rate: expected a finite number, got .nan"),
    ("training: {max_steps: 1, learning_rate: 10}", "expected more than 0 and at most 1, got 10"),
    ("training: {max_steps: 1, learning_rate: [1]}", "training.learning_rate: expected a number, got a list"),
    (
        "training: {max_steps: 1, gradient_checkpointing: 'yes'}",
        "expected true or false, got the text 'yes'; write true or false",
    ),
    (
        "training: {max_steps: 1, lr_scheduler_type: cosin}",
        "linear, cosine (did you mean 'cosine'?), got the text 'cosin'",
    ),
    ("seed: -1", "seed: expected between 0 and 4294967295, got -1"),
    ("seed: 18446744073709551616", "seed: expected between 0 and 4294967295, got 18446744073709551616"),
    ("tags: [a, 3]", "a.yaml:7:11: tags[1]: expected text, got the number 3"),
    ("tags: a", "tags: expected a list, got the text 'a'"),
    ("notes: ${env:HOME}", "notes: ${env:NAME} is not replaced here, only in dataset.path, student.model"),
    ("wandb: {project: ''}", "wandb.project: expected a text that is not empty, got the text ''"),
    ("wandb: {project: '${env:ATLAS_NOT_SET}'}", "wandb.project: the environment variable ATLAS_NOT_SET is not set"),
    ("wandb: {project: '${ATLAS}'}", "wandb.project: expected ${env:NAME} with the name of an environment variable"),
    ("student: {model: 'http://169.254.169.254/x'}", "student.model: expected a Hub id or a local path"),
    ("student: {model: '~nobody-has-this-name/x'}", "student.model: '~nobody-has-this-name/x': Could not determine"),
    ("dataset: {type: gsm8k, path: 'file:///etc/passwd'}", "dataset.path: file:// is not supported"),
    (
        "student: {model: a/b, lora: {target_modules: some}}",
        "target_modules: expected 'all-linear' or a list, got the text 'some'",
    ),
    (
        "student: {model: a/b, lora: {target_modules: [q, 3]}}",
        "lora.target_modules[1]: expected text, got the number 3",
    ),
    ("evaluation: {num_samples: 4}", "evaluation: num_samples 4 with temperature 0 would write the same completion"),
    ('notes: "\\ud800"', "notes: the text holds the character U+D800"),
]


@pytest.mark.parametrize(("line", "said"), FOUND, ids=[line[:50] for line, _ in FOUND])
def test_a_wrong_value_is_named_placed_and_corrected(write: Write, line: str, said: str) -> None:
    key = line.split(":")[0]
    lines = [line if old.startswith(f"{key}:") else old for old in JOB.splitlines()]
    if line not in lines:
        lines.append(line)
    found = only_problem(write("\n".join(lines) + "\n"))
    assert said in found and found.startswith("a.yaml:")


def test_all_problems_are_reported_at_once_in_the_order_of_the_file(write: Write) -> None:
    text = JOB.replace("name: demo", "name: no") + "seed: x\nsampling: {temperature: 0}\nevaluation: {splt: dev}\n"
    places = [problem.split(" ")[0] for problem in problems(write(text))]
    assert places == ["a.yaml:1:7:", "a.yaml:7:7:", "a.yaml:8:25:", "a.yaml:9:14:"]


def test_long_and_unprintable_values_are_cut_and_escaped(write: Write) -> None:
    found = only_problem(write(JOB + f'seed: "{"x" * 10_000}"\n'))
    assert len(found) < 200
    found = only_problem(write(JOB.replace("a/student", f'"{" " * 5_000}"')))
    assert len(found) < 300


def test_overrides_have_the_same_errors_at_their_own_place(write: Write) -> None:
    path = write(JOB)
    assert only_problem(path, "training.learning_rate=abc") == (
        "--set training.learning_rate=abc: training.learning_rate: expected a number, got the text 'abc'"
    )
    assert "did you mean 'learning_rate'?" in only_problem(path, "training.lr=1")
    assert "teachr: unknown key; did you mean 'teacher'?" in only_problem(path, "teachr=null")
    assert "012" in only_problem(path, "seed=012") and "leading zero" in only_problem(path, "seed=012")


TOKEN = "hf_" + "A" * 34
HEX = "0123456789abcdef" * 2 + "01234567"


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        (f"notes: {TOKEN}", TOKEN),
        (f"notes: my key is {TOKEN} ok", TOKEN),
        (f"tags: [a, {TOKEN}]", TOKEN),
        (f"wandb: {{project: p, api_key: {HEX}}}", HEX),
        (f"wandb: {{project: {HEX}}}", HEX),
        ("password: hunter2", "hunter2"),
        ("password: 1234567", "1234567"),
        ("executor: {type: local, env: {HF_TOKEN: hunter2}}", "hunter2"),
        ("secrets: {db: hunter2}", "hunter2"),
        ("dataset: {type: gsm8k, path: 'https://me:hunter2@host/x'}", "hunter2"),
        (f"student: {{model: {TOKEN}}}", TOKEN),
    ],
)
def test_a_secret_is_refused_and_never_shown(write: Write, line: str, secret: str) -> None:
    text = "\n".join(old for old in JOB.splitlines() if old.split(":")[0] != line.split(":")[0]) + f"\n{line}\n"
    found = "\n".join(problems(write(text)))
    assert "looks like a secret" in found and "WANDB_API_KEY, HF_TOKEN" in found and secret not in found


@pytest.mark.parametrize(
    "override", ["wandb.api_key=hunter2", "api_key=hunter2", f"notes={TOKEN}", f"{TOKEN}=1", f"notes=[{TOKEN}"]
)
def test_a_secret_in_an_override_is_never_shown(write: Write, override: str) -> None:
    found = "\n".join(problems(write(JOB), override))
    assert "hunter2" not in found and TOKEN not in found


def test_a_secret_of_the_environment_is_not_copied_into_the_job(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", HEX)
    found = only_problem(write(JOB + 'wandb: {project: "${env:WANDB_API_KEY}"}\n'))
    assert "wandb.project: WANDB_API_KEY is the name of a secret" in found and HEX not in found


def test_a_pinned_commit_is_no_secret(write: Write) -> None:
    assert load(write(JOB), [f"student.revision={HEX}"]).student.revision == HEX


def config(directory: Path, **changes: object) -> Path:
    """A local model directory that passes every check."""
    directory.mkdir(parents=True)
    settings = {"model_type": "llama", "max_position_embeddings": 512} | changes
    (directory / "config.json").write_text(json.dumps(settings))
    (directory / "tokenizer.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(b"")
    return directory


def test_check_accepts_a_good_job(write: Write, tmp_path: Path) -> None:
    config(tmp_path / "m")
    load_checked(write(JOB.replace("a/student", "./m")))


def test_problems_of_check_have_places_and_come_together(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", "/nowhere")
    text = (
        JOB.replace("a/student", "./nope").replace("teacher: {model: a/teacher}\n", "")
        + "wandb: {project: p, mode: online}\n"
    )
    found = problems(write(text))
    assert any(p.startswith("a.yaml:1:1: teacher: method gkd learns from a teacher") for p in found)
    assert any(p.startswith("a.yaml:2:18: student.model: ") and "nope does not exist" in p for p in found)
    assert any(p.startswith("a.yaml:6:27: wandb.mode: WANDB_API_KEY is not set") for p in found)
    assert len(found) == 3


def test_check_without_a_source_still_names_the_paths() -> None:
    dataset = {"type": "arithmetic", "size": 100, "dev_size": 9, "test_size": 9}
    job = JobSpec.model_validate(
        {"name": "a", "student": {"model": "a/b"}, "method": {"type": "sft"}, "dataset": dataset}
    )
    with pytest.raises(SpecError, match=r"^training: method sft trains"):
        check(job)


def test_an_evaluation_default_without_a_teacher_is_no_problem(write: Write) -> None:
    load_checked(write(JOB.replace("gkd", "sft").replace("teacher: {model: a/teacher}\n", "")))


def test_grpo_says_that_a_teacher_is_unused(write: Write) -> None:
    found = only_problem(write(JOB.replace("gkd", "grpo").replace("10}", "10, batch_size: 8}")))
    assert found.startswith("a.yaml:3:10: teacher: ") and "no use for a teacher" in found


def test_random_weights_are_only_for_sft(write: Write, tmp_path: Path) -> None:
    config(tmp_path / "m")
    text = JOB.replace("a/student", "./m, from_scratch: true")
    assert "student.from_scratch: random weights" in only_problem(write(text))
    sft = text.replace("gkd", "sft").replace("teacher: {model: a/teacher}\n", "")
    load_checked(write(sft))
    assert "student.lora: " in only_problem(write(sft.replace("from_scratch: true", "from_scratch: true, lora: {}")))


@pytest.mark.parametrize("section", ["sampling", "evaluation"])
def test_a_completion_longer_than_the_context_is_refused(write: Write, tmp_path: Path, section: str) -> None:
    config(tmp_path / "m")
    found = only_problem(write(JOB.replace("a/student", "./m") + f"{section}: {{max_completion_length: 999999}}\n"))
    assert f"a.yaml:7:{len(section) + 27}: {section}.max_completion_length: 999999" in found
    assert "context" in found and "512" in found


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["training.batch_size=83"], "training.batch_size: the training split has 82 examples and one step needs 83"),
        (["dataset.test_size=0"], "evaluation.split: nothing to measure on: set dataset.test_size above 0"),
        (["evaluation={split: dev}", "dataset.dev_size=0"], "evaluation.split: nothing to measure on: set dataset.dev"),
    ],
)
def test_splits_too_small_for_the_job_are_refused_before_it_runs(write: Write, overrides: list[str], said: str) -> None:
    assert said in only_problem(write(JOB), *overrides)


def test_grpo_takes_a_group_of_rollouts_for_each_problem(write: Write) -> None:
    grpo = write(JOB.replace("teacher: {model: a/teacher}", "").replace("gkd", "grpo"))
    load_checked(grpo, ["training.batch_size=656"])
    assert "82 examples and one step needs 83" in only_problem(grpo, "training.batch_size=664")


@pytest.mark.parametrize(("method", "refused"), [("{type: gkd}", False), ("{type: gkd, lmbda: 0.5}", True)])
def test_imitating_needs_solutions(write: Write, method: str, refused: bool) -> None:
    write("".join(f'{{"prompt": "{n}+1?", "answer": {n + 1}}}\n' for n in range(9)), "a.jsonl")
    dataset = "dataset={type: jsonl, path: a.jsonl, dev_size: 2, test_size: 2}"
    overrides = [dataset, "training.batch_size=2", f"method={method}"]
    if refused:
        assert "gkd imitates worked solutions and example " in only_problem(write(JOB), *overrides)
    else:
        load_checked(write(JOB), overrides)


def test_wandb_online_needs_a_key(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(JOB + "wandb: {project: p, mode: online}\n")
    assert "wandb.mode: WANDB_API_KEY is not set" in only_problem(path)
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password 0123\n")
    load_checked(path)
    (tmp_path / "netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    load_checked(path)


def test_a_wandb_key_of_the_wrong_length_is_refused_and_not_shown(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "abc123xyz")
    found = only_problem(write(JOB + "wandb: {project: p}\n"))
    assert "WANDB_API_KEY has 9 characters" in found and "40" in found and "abc123xyz" not in found
    load_checked(write(JOB + "wandb: {project: p, mode: offline}\n"))
    load_checked(write(JOB))


def test_an_offline_hub_model_must_be_in_the_cache(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    found = problems(write(JOB))
    assert len(found) == 2
    assert "a.yaml:2:18: student.model: a/student is not in the local cache and the hub is offline" in found[0]
    for name in ("student", "teacher"):
        snapshot = tmp_path / f"cache/models--a--{name}/snapshots/c0ffee"
        snapshot.mkdir(parents=True)
        (snapshot / "config.json").write_text('{"model_type": "llama"}')
        (snapshot.parents[1] / "refs").mkdir()
        (snapshot.parents[1] / "refs/main").write_text("c0ffee")
    load_checked(write(JOB))
