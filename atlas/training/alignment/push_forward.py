"""One side's next-token laws, pushed forward onto the roots that both tokenizers have.

N predicted tokens, V token ids, R roots; of these, M roots have several ids, E ids in all.
"""

from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from atlas.training.alignment.vocabulary import VocabularyMap


class PushForward:
    """Logits [N, V] -> logits [N, R]: a root's is the logsumexp of its ids', so that softmax over roots adds up the
    probabilities of softmax over ids, however small they are."""

    def __init__(
        self, root_V: np.ndarray, shared_V: np.ndarray, vocabulary: VocabularyMap, device: torch.device | str
    ) -> None:
        assert root_V.ndim == 1 and len(shared_V) == len(root_V)
        size_R = np.bincount(root_V, minlength=vocabulary.roots)
        assert len(size_R) == vocabulary.roots and size_R.all(), "a root without ids has probability zero"
        sorted_V = np.argsort(root_V, kind="stable")
        first_R = np.cumsum(size_R) - size_R
        several_R = size_R > 1

        def tensor(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        self.root_V = tensor(root_V.astype(np.int64))
        self.shared_V = tensor(shared_V.astype(np.float32))
        self.digit_V = tensor(vocabulary.digit[root_V])
        self.one_id_R = tensor(sorted_V[first_R])
        self.several_M = tensor(np.flatnonzero(several_R))
        self.size_M = tensor(size_R[several_R])
        self.members_E = tensor(sorted_V[np.repeat(several_R, size_R)])
        self.place_E = tensor(np.repeat(np.arange(several_R.sum()), size_R[several_R]))

    def __call__(self, logits_NV: torch.Tensor) -> torch.Tensor:
        assert logits_NV.shape[1] == len(self.root_V), "the logits are those of another vocabulary"
        return _Push.apply(logits_NV, self)


class _Push(torch.autograd.Function):
    """Most roots have one id: they are picked. Backward only picks too, which autograd's would not (it would add up
    over indices, many times slower), and keeps [N, E] instead of [N, V]."""

    @staticmethod
    def forward(ctx: Any, logits_NV: torch.Tensor, push: PushForward) -> torch.Tensor:
        logits_NR = logits_NV.index_select(1, push.one_id_R)
        if len(push.several_M):
            members_NE = logits_NV.index_select(1, push.members_E)
            most_NM = _segments(members_NE, "max", push)
            total_NM = _segments((members_NE - most_NM.index_select(1, push.place_E)).exp_(), "sum", push)
            several_NM = total_NM.log_().add_(most_NM)
            logits_NR.index_copy_(1, push.several_M, several_NM)
            share_NE = members_NE.sub_(several_NM.index_select(1, push.place_E)).exp_()
        else:
            share_NE = logits_NV.new_empty(len(logits_NV), 0)
        ctx.push = push
        ctx.save_for_backward(share_NE)
        return logits_NR

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_NR: torch.Tensor) -> tuple[torch.Tensor, None]:
        push, (share_NE,) = ctx.push, ctx.saved_tensors
        grad_NV = grad_NR.index_select(1, push.root_V)
        if len(push.several_M):
            grad_NV.index_copy_(1, push.members_E, grad_NV.index_select(1, push.members_E) * share_NE)
        return grad_NV, None


def _segments(members_NE: torch.Tensor, reduction: str, push: PushForward) -> torch.Tensor:
    """[N, M]: neighbouring members of one root reduced to one."""
    return torch.segment_reduce(
        members_NE, reduction, lengths=push.size_M.expand(len(members_NE), -1), axis=1, unsafe=True
    )
