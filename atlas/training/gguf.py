"""GGUF files, dequantized once.

transformers needs one to two minutes to read one and cannot save what it read, so the weights are kept as safetensors.
"""

import copy
import hashlib
import logging
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.hub import cached_file

from atlas.errors import RunFailed
from atlas.spec import ModelSpec, is_local

logger = logging.getLogger(__name__)


def converted(spec: ModelSpec, cache: Path) -> Path:
    """The directory below `cache` that holds the spec's GGUF file as float32 safetensors; made when missing.

    Raises RunFailed(`missing_file`) if there is no such file.
    """
    assert spec.gguf_file is not None
    file = _file(spec)
    with open(file, "rb") as stream:
        target = cache / "gguf" / hashlib.file_digest(stream, "sha256").hexdigest()
    if not target.is_dir():
        logger.info("converting %s to safetensors, once; this takes a minute or two", file)
        _convert(file, target)
    return target


def _file(spec: ModelSpec) -> Path:
    assert spec.gguf_file is not None
    if not is_local(spec.model):
        return Path(cached_file(spec.model, spec.gguf_file, revision=spec.revision))
    file = Path(spec.model) / spec.gguf_file
    if not file.is_file():
        found = ", ".join(sorted(path.name for path in Path(spec.model).glob("*.gguf"))) or "none"
        raise RunFailed("missing_file", f"there is no {spec.gguf_file} in {spec.model}; GGUF files there: {found}")
    return file


def _convert(file: Path, target: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    # A model read from GGUF refuses to be saved; one of the same shape that never saw the file does not.
    config = copy.deepcopy(model.config)
    del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(model.state_dict())
    plain.generation_config = model.generation_config
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix="partial-", dir=target.parent))
    try:
        plain.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        partial.rename(target)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        if not target.is_dir():  # unless another worker was faster
            raise
