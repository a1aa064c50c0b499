"""What a run leaves for others to load."""

import torch
import yaml
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from .tiny import train

LORA = {"r": 4, "alpha": 16}


def logits(model):
    with torch.no_grad():
        return model(torch.arange(4, 20)[None]).logits


def test_the_merged_export_computes_what_the_adapter_does_and_needs_no_peft(make_run, student):
    run = make_run({"type": "sft"}, student={"lora": LORA | {"merge": True}}, training={"learning_rate": 0.05})
    final = train(run)
    merged = AutoModelForCausalLM.from_pretrained(run.checkpoints / "merged")
    adapted = AutoPeftModelForCausalLM.from_pretrained(final)
    assert torch.allclose(logits(merged), logits(adapted), atol=1e-5)
    assert not torch.allclose(logits(merged), logits(AutoModelForCausalLM.from_pretrained(student)), atol=1e-2)
    assert AutoTokenizer.from_pretrained(run.checkpoints / "merged").get_vocab()


def test_merging_changes_nothing_that_is_measured_afterwards(make_run):
    settings = {"training": {"learning_rate": 0.05}}
    plain = make_run({"type": "sft"}, "plain", student={"lora": LORA}, **settings)
    merged = make_run({"type": "sft"}, "merged", student={"lora": LORA | {"merge": True}}, **settings)
    train(plain)
    train(merged)
    assert plain.summary["test"]["pass_rate"] == merged.summary["test"]["pass_rate"]
    assert (plain.directory / "samples.jsonl").read_text() == (merged.directory / "samples.jsonl").read_text()
    assert not (plain.checkpoints / "merged").exists()


def test_the_model_card_holds_the_job_the_data_and_what_was_measured(make_run):
    run = make_run({"type": "sft"})
    card = (train(run) / "README.md").read_text()
    _, header, text = card.split("---\n", 2)
    assert yaml.safe_load(header)["base_model"] == run.job.student.model
    blocks = [yaml.safe_load(block.split("```")[0]) for block in text.split("```yaml\n")[1:]]
    measured, data, job = blocks
    assert measured["test"] == run.summary["test"] and measured["first"]["step"] == 0
    assert set(data["splits"]) == {"train", "dev", "test"} and "version" in data["grader"]
    assert job["method"] == {"type": "sft"} and job["training"]["max_steps"] == 4
