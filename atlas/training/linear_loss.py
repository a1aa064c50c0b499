"""A loss on the logits of a linear head that are never there all at once.

N predicted tokens, C of them in a chunk, V logits, D size of a hidden state.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from atlas.models import CHUNK_LOGITS, CHUNK_LOGITS_ON_GPU
from atlas.training.head import Head

ChunkLoss = Callable[[torch.Tensor, slice], tuple[torch.Tensor, Mapping[str, torch.Tensor]]]
"""(logits_CV in float32, which of the N) -> (sum of the loss over the chunk, other sums to report)."""


def linear_loss(
    hidden_ND: torch.Tensor, head: Head, chunk_loss: ChunkLoss, at_once: int | None = None
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The sum of `chunk_loss` over all N, differentiable, and the sums that it reports. `at_once`: tokens of a chunk,
    if not `rows_at_once` of the head.

    The gradients of hidden states and head are made together with the loss, chunk by chunk, so that [N, V] never exists
    and the logits are computed once: three matrix products for each chunk (two where the head is frozen).
    """
    sums: dict[str, torch.Tensor] = {}
    chunk = at_once or rows_at_once(head.weight_VD)
    return _LinearLoss.apply(hidden_ND, head.weight_VD, head, chunk_loss, chunk, sums), sums


def rows_at_once(weight_VD: torch.Tensor) -> int:
    """Tokens of a chunk."""
    logits = CHUNK_LOGITS if weight_VD.device.type == "cpu" else CHUNK_LOGITS_ON_GPU
    return max(1, logits // weight_VD.shape[0])


class _LinearLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: torch.Tensor,
        weight_VD: torch.Tensor,
        head: Head,
        chunk_loss: ChunkLoss,
        chunk: int,
        sums: dict[str, torch.Tensor],
    ) -> torch.Tensor:
        learns_hidden, learns_weight, *_ = ctx.needs_input_grad
        total = torch.zeros((), device=hidden_ND.device)
        hidden_grad_ND = torch.zeros_like(hidden_ND) if learns_hidden else None
        weight_grad_VD = torch.zeros_like(weight_VD) if learns_weight else None
        for start in range(0, len(hidden_ND), chunk):
            which = slice(start, min(start + chunk, len(hidden_ND)))
            products_CV = hidden_ND[which] @ weight_VD.t()
            with torch.enable_grad():
                products_CV.requires_grad_(learns_hidden or learns_weight)
                loss, reported = chunk_loss(head.finish(products_CV), which)
            total += loss.detach()
            for name, value in reported.items():
                sums[name] = sums.get(name, 0) + value.detach()
            if not loss.requires_grad:
                continue
            (grad_CV,) = torch.autograd.grad(loss, products_CV)
            if hidden_grad_ND is not None:
                hidden_grad_ND[which] = (grad_CV @ weight_VD.to(grad_CV.dtype)).to(hidden_ND.dtype)
            if weight_grad_VD is not None:
                _add_product(weight_grad_VD, grad_CV.t(), hidden_ND[which])
        ctx.save_for_backward(hidden_grad_ND, weight_grad_VD)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """May be called once: the gradients are handed on in the memory that they were made in."""
        grads = [None if saved is None else saved.mul_(grad.to(saved.dtype)) for saved in ctx.saved_tensors]
        return (*grads, None, None, None, None)


def _add_product(sum_VD: torch.Tensor, left_VC: torch.Tensor, right_CD: torch.Tensor) -> None:
    """In place, without another [V, D] where the types are the same."""
    if left_VC.dtype == right_CD.dtype == sum_VD.dtype:
        sum_VD.addmm_(left_VC, right_CD)
    else:
        sum_VD += (left_VC @ right_CD.to(left_VC.dtype)).to(sum_VD.dtype)
