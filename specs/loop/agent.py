"""An agent that solves word problems with a small language model and a calculator, and records what it does.

    python specs/loop/agent.py TASKS.jsonl --model FOLDER --tag practice

The model answers. If it computed something wrong, the calculator says so, and the model goes on from there. Neither of
them knows the reference, by which the answers are measured afterwards. The lines go to $ATLAS_TRACES.
"""

import argparse
import json
import logging
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

import atlas.sdk as sdk
from atlas.grading import grade

CALCULATION = re.compile(r"(\d+) ([+-]) (\d+) = (\d+)")
LONGEST_ANSWER_TOKENS = 48


class Reply(NamedTuple):
    text: str
    record: dict[str, Any]
    """What the model was given and what it took: fields of an attempt."""


class Model:
    """A chat model that takes the likeliest token each time: the same task has the same answer."""

    def __init__(self, folder: str) -> None:
        self._name = folder
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def reply(self, task: str, begun: str = "") -> Reply:
        """The answer to a task. The model goes on from `begun`, which the text includes."""
        started_seconds = time.monotonic()
        messages = [{"role": "user", "content": task}]
        prompt = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) + begun
        given = self._tokenizer(prompt, add_special_tokens=False, return_token_type_ids=False, return_tensors="pt")
        with torch.inference_mode():
            tokens = self._model.generate(**given, do_sample=False, max_new_tokens=LONGEST_ANSWER_TOKENS)[0]
        input_tokens = given.input_ids.shape[1]
        if begun:
            messages.append({"role": "assistant", "content": begun})
        record = {
            "model": self._name,
            "messages": messages,
            "input_tokens": input_tokens,
            "output_tokens": len(tokens) - input_tokens,
            "duration_seconds": time.monotonic() - started_seconds,
        }
        return Reply(begun + self._tokenizer.decode(tokens[input_tokens:], skip_special_tokens=True), record)


def corrected(text: str) -> str | None:
    """The first calculation of the text, done by a calculator; None if it is right, or there is none."""
    found = CALCULATION.search(text)
    if found is None:
        return None
    left, right = int(found[1]), int(found[3])
    result = left + right if found[2] == "+" else left - right
    return None if result == int(found[4]) else f"{left} {found[2]} {right} = {result}."


def solve(model: Model, task: str, reference: str, tags: Sequence[str] = ()) -> tuple[bool, bool]:
    """Whether the answer was right at once, without help, and whether it was in the end."""
    with sdk.session(task=task, agent="loop", tags=tags) as s:
        reply = model.reply(task)
        s.attempt(reply.text, **reply.record)
        unaided = right = grade(reply.text, reference).correct
        s.outcome("answer", float(right), reference=reference)
        if calculation := corrected(reply.text):
            s.intervene(calculation, by="tool", kind="tool_result", name="calculator")
            reply = model.reply(task, begun=calculation)
            s.attempt(reply.text, **reply.record)
            right = grade(reply.text, reference).correct
            s.outcome("answer", float(right), reference=reference)
        s.outcome("unaided", float(unaided), note="whether the first attempt was right")
    return unaided, right


def main() -> None:
    parser = argparse.ArgumentParser(description="Solve tasks and record how.")
    parser.add_argument("tasks", type=Path, help="JSON lines with task and reference")
    parser.add_argument("--model", required=True, help="folder of a model")
    parser.add_argument("--tag", action="append", default=[], help="of the sessions; may be repeated")
    arguments = parser.parse_args()
    for noisy in ("torchao", "torch.utils._pytree"):  # transformers imports them, and they speak of GPU kernels
        logging.getLogger(noisy).setLevel(logging.ERROR)
    disable_progress_bar()

    model = Model(arguments.model)
    tasks = [json.loads(line) for line in arguments.tasks.read_text().splitlines()]
    unaided = right = 0
    for number, row in enumerate(tasks, 1):
        at_once, in_the_end = solve(model, row["task"], row["reference"], arguments.tag)
        unaided, right = unaided + at_once, right + in_the_end
        if number % 100 == 0 or number == len(tasks):
            print(f"{number}/{len(tasks)} tasks: {unaided} right without help, {right} in the end", flush=True)
    status = sdk.status()
    print(f"{status['written']} records in {status['file']}; not written: {status['dropped'] or 'none'}")


if __name__ == "__main__":
    main()
