"""Whether a model can be used, before anything is queued, as far as the files on this machine tell."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from atlas.diagnosis import did_you_mean
from atlas.errors import Problem
from atlas.models import describe, file_of
from atlas.network import is_switched_on
from atlas.spec import ModelSpec, StudentSpec, is_local

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
)
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def check_model(spec: ModelSpec, path: str) -> list[Problem]:
    """What would keep the model at `path` (`student`, `teacher`) from loading, as far as this machine knows."""
    problems = []
    if spec.trust_remote_code and os.environ.get("ATLAS_TRUST_REMOTE_CODE") != "1":
        message = (
            "runs Python code from the model's repository; set ATLAS_TRUST_REMOTE_CODE=1 in the environment to allow it"
        )
        problems.append(Problem(message, f"{path}.trust_remote_code"))
    if isinstance(spec, StudentSpec) and spec.from_scratch and spec.lora:
        problems.append(
            Problem("adapters on random weights learn nothing; remove lora or from_scratch", f"{path}.lora")
        )
    if isinstance(spec, StudentSpec) and spec.from_scratch and spec.gguf_file:
        message = "from_scratch reads no weights, so this would be ignored; remove one of the two"
        problems.append(Problem(message, f"{path}.gguf_file"))
    if isinstance(spec, StudentSpec) and spec.lora:
        problems += _lora_problems(spec, f"{path}.lora.target_modules")
    where = _directory_problems if is_local(spec.model) else _hub_problems
    return problems + list(where(spec, path))


def _lora_problems(spec: StudentSpec, key: str) -> Iterator[Problem]:
    targets = spec.lora.target_modules if spec.lora else "all-linear"
    size = describe(spec)
    if targets == "all-linear" or size is None:
        return
    known = [*size.linears, "embed_tokens", "lm_head"]
    for name in targets:
        if name.rpartition(".")[2] not in known:
            yield Problem(f"the model has no module {name[:60]!r}; expected some of: {', '.join(size.linears)}", key)


def _hub_problems(spec: ModelSpec, path: str) -> Iterator[Problem]:
    offline = is_switched_on("HF_HUB_OFFLINE") or is_switched_on("TRANSFORMERS_OFFLINE")
    if offline and file_of(spec, spec.gguf_file or "config.json") is None:
        yield Problem(
            f"{spec.model} is not in the local cache and the hub is offline (HF_HUB_OFFLINE); "
            "download it first, name a local directory, or unset HF_HUB_OFFLINE",
            f"{path}.model",
        )


def _directory_problems(spec: ModelSpec, path: str) -> Iterator[Problem]:
    directory = Path(spec.model)
    key = f"{path}.model"
    if spec.revision is not None:
        yield Problem("a local directory has no revisions, so this would be ignored; remove it", f"{path}.revision")
    if not directory.exists():
        yield Problem(
            f"{directory} does not exist; expected a directory with a model (a hub id has no ./ in front)", key
        )
        return
    if not directory.is_dir():
        yield Problem(f"{directory} is a file; expected the directory around it", key)
        return
    if spec.gguf_file is not None:
        if not (directory / spec.gguf_file).is_file():
            found = ", ".join(sorted(file.name for file in directory.glob("*.gguf"))) or "no .gguf file"
            yield Problem(
                f"{directory / spec.gguf_file} does not exist; the directory holds {found}", f"{path}.gguf_file"
            )
        return
    yield from _config_problems(spec, key)
    if not any((directory / name).is_file() for name in _TOKENIZER_FILES):
        yield Problem(f"{directory} holds no tokenizer; expected tokenizer.json beside config.json", key)
    if not (isinstance(spec, StudentSpec) and spec.from_scratch):
        yield from _weight_problems(directory, key)


def _config_problems(spec: ModelSpec, key: str) -> Iterator[Problem]:
    file = Path(spec.model) / "config.json"
    if not file.is_file():
        gguf = next(iter(sorted(found.name for found in Path(spec.model).glob("*.gguf"))), None)
        yield Problem(
            f"{file} does not exist; " + (f"set gguf_file: {gguf}" if gguf else "expected a transformers model"), key
        )
        return
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        model_type = config["model_type"]
        if not isinstance(model_type, str):
            raise TypeError("model_type is no text")
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield Problem(
            f"{file} is not the config of a model: {type(error).__name__}: {error}; expected a model_type", key
        )
        return
    if isinstance(config.get("auto_map"), dict) and spec.trust_remote_code:
        return
    try:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    except ImportError:
        return
    if model_type not in CONFIG_MAPPING_NAMES:
        guess = did_you_mean(model_type, sorted(CONFIG_MAPPING_NAMES))
        hint = f"did you mean {guess!r}?" if guess else "upgrade transformers if the model is newer"
        yield Problem(f"{file}: unknown model_type {model_type[:60]!r}; {hint}", key)


def _weight_problems(directory: Path, key: str) -> Iterator[Problem]:
    if (directory / "model.safetensors").is_file():
        return
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        try:
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            yield Problem(f"{index} is not an index of weights; copy the model again", key)
            return
        missing = [shard for shard in shards if not (directory / shard).is_file()]
        if missing:
            listed = ", ".join(missing[:3])
            yield Problem(f"{len(missing)} of {len(shards)} weight files are missing in {directory}: {listed}", key)
        return
    pickles = sorted(file.name for pattern in _PICKLES for file in directory.glob(pattern))
    if pickles:
        yield Problem(
            f"{directory} holds its weights as pickle ({pickles[0]}), which can run any code when it is read; "
            "expected model.safetensors: convert it with transformers' save_pretrained",
            key,
        )
        return
    yield Problem(
        f"{directory} holds no weights; expected model.safetensors (or from_scratch: true with method sft)", key
    )


def check_pair(student: ModelSpec, teacher: ModelSpec) -> list[Problem]:
    """What would keep a student from learning a teacher's next-token distribution id by id: other tokens.

    The ids themselves are compared where both have a tokenizer.json on this machine. Widths of heads prove nothing:
    models of one family are padded differently.
    """
    tokens = [_token_by_id(spec) for spec in (student, teacher)]
    if tokens[0] is None or tokens[1] is None or tokens[0] == tokens[1]:
        return []
    students, teachers = tokens[0], tokens[1]
    first = min(i for i in students.keys() | teachers.keys() if students.get(i) != teachers.get(i))
    message = (
        f"the tokenizers differ: the first differing id is {first}, {students.get(first)!r} for the student and "
        f"{teachers.get(first)!r} for the teacher; take one of the student's family, or method gkd, which aligns "
        "tokenizers"
    )
    return [Problem(message, "teacher.model")]


def _token_by_id(spec: ModelSpec) -> dict[int, str] | None:
    """The vocabulary of a tokenizer.json; None when it is not at hand."""
    file = None if spec.gguf_file else file_of(spec, "tokenizer.json")
    try:
        tokenizer: Any = json.loads(file.read_text(encoding="utf-8")) if file else {}
        vocabulary = tokenizer["model"]["vocab"]
        if isinstance(vocabulary, list):  # Unigram: [token, score], in the order of the ids
            tokens = {i: str(token) for i, (token, _) in enumerate(vocabulary)}
        else:
            tokens = {int(i): str(token) for token, i in vocabulary.items()}
        return tokens | {int(added["id"]): str(added["content"]) for added in tokenizer.get("added_tokens", ())}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
