"""The linear head of a causal language model: what turns hidden states into logits.

N tokens, V token ids of the tokenizer, D size of a hidden state.
"""

from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from atlas.errors import RunFailed
from atlas.training.attention import own_attention
from atlas.training.packing import Packed


@dataclass(frozen=True)
class Head:
    """Logits over the tokenizer's ids alone. Heads are often wider, for the hardware's sake: the columns beyond, which
    no text ever has, get probability zero, so that models with heads of different widths are over the same set."""

    weight_VD: torch.Tensor
    softcap: float | None = None
    """Logits are `softcap * tanh(logits / softcap)`."""
    scale: float = 1.0

    def logits(self, hidden_ND: torch.Tensor) -> torch.Tensor:
        """[N, V] in float32."""
        return self.finish(hidden_ND @ self.weight_VD.t())

    def finish(self, products_NV: torch.Tensor) -> torch.Tensor:
        """From the matrix product to logits."""
        logits_NV = products_NV.float() * self.scale if self.scale != 1 else products_NV.float()
        return logits_NV if self.softcap is None else self.softcap * torch.tanh(logits_NV / self.softcap)


def head_of(model: PreTrainedModel, vocabulary: int) -> Head:
    """The head of a model, cut to the ids that its tokenizer has. Raises RunFailed(`bad_model`) if it is not linear."""
    embeddings, config = model.get_output_embeddings(), model.config.get_text_config()
    if getattr(embeddings, "bias", None) is not None:
        raise RunFailed("bad_model", f"the head of {type(model).__name__} has a bias; choose a model without one")
    scale = getattr(config, "logit_scale", None) or 1 / (getattr(config, "logits_scaling", None) or 1)
    weight_VD = embeddings.weight
    if len(weight_VD) > vocabulary:  # the gradient of a slice is a copy of the whole
        weight_VD = weight_VD[:vocabulary]
    return Head(weight_VD, getattr(config, "final_logit_softcapping", None), scale)


def hidden_states(model: PreTrainedModel, packed: Packed) -> torch.Tensor:
    """What the head reads at the predicting tokens of a packed row: [N, D]."""
    with own_attention(model):
        output = model.get_decoder()(
            input_ids=packed.input_ids_T[None],
            position_ids=packed.position_ids_T[None],
            use_cache=False,
            segments=packed.segments,
        )
    return output.last_hidden_state[0].index_select(0, packed.predicting_N)
