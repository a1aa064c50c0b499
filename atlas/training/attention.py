"""The attention of packed rows and of decoding, for every model that takes its attention from transformers' registry.

B rows, H heads, K heads of keys and values, G = H / K heads that share them, T queries, L keys, D size of a head.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from atlas.errors import RunFailed
from atlas.training.packing import Segment

_NAME = "atlas"
"""In transformers' registry. It has no mask function there, so that transformers builds no mask."""
_UNSUPPORTED = ("softcap", "s_aux")
"""Arguments that change the attention and that this one does not know."""


@contextmanager
def own_attention(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the model's layers call the attention of this module."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _attention(
    module: torch.nn.Module,
    query_BHTD: torch.Tensor,
    key_BKLD: torch.Tensor,
    value_BKLD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    segments: Sequence[Segment] | None = None,
    visible_BL: torch.Tensor | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Either `segments` of one packed row, or `visible_BL`: the keys that the newest token of each row may see."""
    for name in _UNSUPPORTED:
        if options.get(name) is not None:
            raise RunFailed(
                "bad_model",
                f"the attention of {type(module).__name__} has {name}, which rollouts and packed rows do not support; "
                "choose a model without it",
            )
    if segments is not None:
        output = _packed(query_BHTD, key_BKLD, value_BKLD, segments, scaling, dropout, sliding_window)
    else:
        assert visible_BL is not None, "own_attention is for packed rows and decoding only"
        output = _decoding(query_BHTD, key_BKLD, value_BKLD, visible_BL, scaling, sliding_window)
    return output.transpose(1, 2), None


def _packed(
    query_BHTD: torch.Tensor,
    key_BKLD: torch.Tensor,
    value_BKLD: torch.Tensor,
    segments: Sequence[Segment],
    scaling: float | None,
    dropout: float,
    sliding_window: int | None,
) -> torch.Tensor:
    groups = query_BHTD.shape[1] // key_BKLD.shape[1]
    # Not slices: the gradient of each of those is a whole packed row of zeros around its own.
    lengths = [segment.end - segment.start for segment in segments]
    own = zip(*(states.split(lengths, dim=2) for states in (query_BHTD, key_BKLD, value_BKLD)), strict=True)
    first: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    outputs = []
    for segment, length, (queries, keys, values) in zip(segments, lengths, own, strict=True):
        before, mask_TL = segment.prefix_end - segment.prefix_start, None
        if before:
            first_keys, first_values = first[segment.prefix_start]
            keys = torch.cat([first_keys[:, :, :before], keys], dim=2)
            values = torch.cat([first_values[:, :, :before], values], dim=2)
        else:
            first[segment.start] = keys, values
        narrow = sliding_window is not None and before + length > sliding_window
        if before or narrow:
            mask_TL = torch.ones(length, before + length, dtype=torch.bool, device=keys.device).tril(before)
            if narrow:
                assert sliding_window is not None
                mask_TL = mask_TL.triu(before - sliding_window + 1)
        outputs.append(
            scaled_dot_product_attention(
                queries,
                keys.repeat_interleave(groups, dim=1),
                values.repeat_interleave(groups, dim=1),
                attn_mask=mask_TL,
                dropout_p=dropout,
                is_causal=mask_TL is None,
                scale=scaling,
            )
        )
    return torch.cat(outputs, dim=2)


def _decoding(
    query_BHTD: torch.Tensor,
    key_BKLD: torch.Tensor,
    value_BKLD: torch.Tensor,
    visible_BL: torch.Tensor,
    scaling: float | None,
    sliding_window: int | None,
) -> torch.Tensor:
    """The heads that share keys and values stand where queries do, so that nothing is repeated."""
    rows, heads, _, size = query_BHTD.shape
    if sliding_window is not None and visible_BL.shape[1] > sliding_window:
        visible_BL = visible_BL.clone()
        visible_BL[:, :-sliding_window] = False
    query_BKGD = query_BHTD.view(rows, key_BKLD.shape[1], -1, size)
    mask_B11L = visible_BL[:, None, None]
    if query_BHTD.device.type == "cpu":  # where the fused kernel takes up to three times as long for a few queries
        scale = size**-0.5 if scaling is None else scaling
        scores_BKGL = (query_BKGD * scale) @ key_BKLD.transpose(2, 3)
        output = scores_BKGL.masked_fill_(~mask_B11L, -torch.inf).softmax(-1) @ value_BKLD
    else:
        output = scaled_dot_product_attention(query_BKGD, key_BKLD, value_BKLD, attn_mask=mask_B11L, scale=scaling)
    return output.reshape(rows, heads, 1, size)


AttentionInterface.register(_NAME, _attention)
