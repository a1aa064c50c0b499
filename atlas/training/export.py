"""The trained model as others load it: `from_pretrained` of a directory that says what it is."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from peft.tuners.lora import LoraLayer
from transformers import PreTrainedTokenizerBase

from atlas import __version__
from atlas.run import Run
from atlas.training import checkpoints, ranks

FINAL, MERGED = "final", "merged"
"""Below `checkpoints/`: the weights of the last step (with LoRA the adapter alone), and with the adapter in them."""


def export(run: Run, model: Any, tokenizer: PreTrainedTokenizerBase) -> Path:
    """Writes `checkpoints/final`, and `checkpoints/merged` if `student.lora.merge` asks for it. Returns the first."""
    run.progress("export")
    final = _publish(run, FINAL, model, tokenizer)
    lora = run.job.student.lora
    if lora is not None and lora.merge:
        _publish(run, MERGED, model.get_base_model(), tokenizer, state_dict=_merged_weights(model))
    return final


def write_model_cards(run: Run) -> None:
    """A README.md beside the weights: the job, the data by its hashes, and what was measured."""
    for name in (FINAL, MERGED):
        directory = run.checkpoints / name
        if directory.is_dir():
            (directory / "README.md").write_text(_card(run))


def _publish(run: Run, name: str, model: Any, tokenizer: PreTrainedTokenizerBase, **options: Any) -> Path:
    staged = run.checkpoints / checkpoints.STAGING / name
    if ranks.rank():
        ranks.save_pretrained(model, staged, **options)
        return run.checkpoints / name
    shutil.rmtree(staged, ignore_errors=True)
    ranks.save_pretrained(model, staged, **options)
    tokenizer.save_pretrained(staged)
    return checkpoints.publish(staged, run.checkpoints / name)


@torch.no_grad()
def _merged_weights(peft_model: Any) -> dict[str, torch.Tensor]:
    """weight + alpha / r B A of every adapted layer, under the names that the model has without adapters.

    On the CPU, and leaves the model as it is: merging in place and taking it back would round the weights.
    """
    model = peft_model.get_base_model()
    adapted = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    weights, state = {}, ranks.full_state(model)
    with ranks.whole(peft_model):
        for name, tensor in state.items():
            layer = next((layer for layer in adapted if name.startswith(f"{layer}.")), None)
            if layer is None:
                weights[name] = tensor
            elif ".base_layer." in name:
                plain = name.replace(".base_layer.", ".")
                weights[plain] = tensor
                if name == f"{layer}.base_layer.weight":
                    delta = adapted[layer].get_delta_weight("default").cpu()
                    weights[plain] = (tensor.float() + delta.float()).to(tensor.dtype)
    return weights


def _card(run: Run) -> str:
    job, summary = run.job, run.summary
    header = {"base_model": job.student.model, "library_name": "transformers", "tags": ["atlas", job.method.type]}
    measured = {name: summary[name] for name in ("first", "best", "last", "test", "teacher") if name in summary}
    splits = json.loads((run.directory / "splits.json").read_text())
    sections = [
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---",
        f"# {job.name}",
        f"{job.student.model}, trained by run `{run.id}` of Atlas {__version__}: the weights of its last step.",
        "## What was measured",
        f"Pass rates with 95 % Wilson intervals; `test` is of the step that was best on dev.\n\n{_block(measured)}",
        "## Data",
        f"sha256 of each split's content:\n\n{_block(splits)}",
        "## Job",
        _block(job.model_dump(mode="json", exclude_none=True)),
    ]
    return "\n\n".join(sections) + "\n"


def _block(content: Any) -> str:
    text = yaml.safe_dump(json.loads(json.dumps(content)), sort_keys=False, allow_unicode=True)
    return f"```yaml\n{text}```"
