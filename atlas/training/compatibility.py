"""Whether our attention, cache and head compute what a model computes by itself.

Most causal language models take their attention from transformers' registry, and then they do. One with state of
another kind, or with a mask of its own, does not: better to find out by comparing than by its name.
"""

import torch
from transformers import PreTrainedModel

from atlas.errors import RunFailed
from atlas.training.head import head_of, hidden_states
from atlas.training.packing import Row, pack
from atlas.training.rollouts import Decoding, roll_out

_TOLERANCE = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Of log-probabilities, relative to their spread."""


@torch.no_grad()
def why_not_ours(model: PreTrainedModel, vocabulary: int) -> str | None:
    """Why a model cannot be packed and decoded by us; None if the numbers are the same. Takes some tiny forwards."""
    ids = [i % vocabulary for i in range(11, 1000, 97)]
    rows: list[Row] = [(ids[:4], ids[4:7]), (ids[:4], ids[7:9]), (ids[5:7], ids[2:6])]
    was_training = model.training
    model.eval()
    try:
        head, packed = head_of(model, vocabulary), pack(rows, model.device)
        ours = head.logits(hidden_states(model, packed)).log_softmax(-1)
        theirs = torch.cat([_logprobs(model, row, vocabulary) for row in rows])
        if bool(theirs.isnan().any()):
            return None  # no numbers to compare; whoever decodes says so
        if not _close(ours, theirs, model.dtype):
            return "its logits are others when rows are packed"
        decoding = Decoding(temperature=0, max_completion_length=4)
        prompts = [list(prompt) for prompt, _ in rows[1:]]
        for rollout in roll_out(model, head, prompts, 1, decoding, eos_token_ids=[], seed=0):
            logprobs = _logprobs(model, rollout.row, vocabulary)
            chosen = logprobs.gather(1, torch.tensor(rollout.completion_ids, device=model.device)[:, None])[:, 0]
            if not _close(torch.tensor(rollout.logprobs, device=model.device), chosen, model.dtype):
                return "its logits are others when tokens are decoded one by one"
    except (RunFailed, TypeError, AttributeError, ValueError, RuntimeError, IndexError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        model.train(was_training)
    return None


def _logprobs(model: PreTrainedModel, row: Row, vocabulary: int) -> torch.Tensor:
    """Of the completion's tokens, by the model's own forward of the row alone."""
    prompt, completion = row
    input_ids = torch.tensor([[*prompt, *completion]], device=model.device)
    logits = model(input_ids=input_ids).logits[0, len(prompt) - 1 : -1, :vocabulary]
    return logits.float().log_softmax(-1)


def _close(ours: torch.Tensor, theirs: torch.Tensor, dtype: torch.dtype) -> bool:
    spread = max(1.0, float(theirs.max() - theirs.min()))
    return bool(((ours - theirs).abs() <= _TOLERANCE.get(dtype, 1e-1) * spread).all())
