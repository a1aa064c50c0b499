"""The loss of a micro-batch whose student and teacher split the same bytes differently.

At each chunk c, the bytes between neighbouring boundaries that both sides have, with the next-token laws at its start
pushed onto roots, P_c of the student and Q_c of the teacher:

    kappa_c = 1 if c ends a number and the two sides split numbers differently, else 0
    D_c     = divergence(Q_c, P_c), or where kappa_{c-1} is 1, of both given that the root is no digit
    rho_s   = sum over c of log p_s(token), - log P_c[root of c], + kappa_c log(1 - P_{c+1}[digits])
    rho_t   = the same of the teacher, with Q
    L_c     = D_c + KL_bin(e^rho_t || e^rho_s)

which is the chain rule: the law of the chunk's root, and whether the rest is as written. kappa closes a number, where
"1" is "1 and no further digit" to one side and "starts with 1" to the other: that no digit follows belongs to c.

e^rho is a product of probabilities r_j of binary events, each at one row: the first token against the others of its
root, a later token against all others, no digit against a digit. By their log-odds the gradient of KL_bin is

    (e^rho_s - e^rho_t) (1 - r_j) / (1 - e^rho_s),      at most 1 in size.

So these log-odds are read first, without a gradient, at the few rows that have any; then one pass over all rows adds
them, times these constants, to the dense part. Nothing is divided by a probability, and logits are never there all at
once.

S student tokens and T teacher tokens of the micro-batch, C chunks; M tokens of one side's chunks, N of them in a block;
V token ids of a side, R roots.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

from atlas.training.alignment.aligned_rows import AlignedRows, Side
from atlas.training.alignment.push_forward import PushForward
from atlas.training.alignment.vocabulary import VocabularyMap
from atlas.training.distributions import entropy, log_softmax, sampled_logprobs
from atlas.training.divergence import divergence
from atlas.training.head import Head
from atlas.training.linear_loss import linear_loss, rows_at_once

_CERTAIN = 300.0
"""Log-odds of what cannot be otherwise. Float32 logits differ by less, and float64 can still tell it from certain."""
_IMPOSSIBLE = -1e4
"""A logit whose probability is 0, where -inf would make NaN."""
_MOST_ADVANTAGE = 10.0
"""In nats. That a chunk is e^20 and not e^10 times likelier to one side says nothing more."""

Result = tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]
"""(The sum of the loss over the chunks, differentiable; sums over chunks to report; the loss by chunk [C], to show.)"""


class Roots:
    """A `VocabularyMap` on a device: made once for a run."""

    def __init__(self, vocabulary: VocabularyMap, device: torch.device | str = "cpu") -> None:
        self.student = PushForward(vocabulary.student_root, vocabulary.student_shared, vocabulary, device)
        self.teacher = PushForward(vocabulary.teacher_root, vocabulary.teacher_shared, vocabulary, device)
        self.digit_R = torch.from_numpy(vocabulary.digit).to(device)
        self.eot_root = vocabulary.eot_root
        self.digits_differ = vocabulary.digits_differ


def aligned_loss(
    hidden_SD: torch.Tensor,
    head: Head,
    teacher_hidden_TD: torch.Tensor,
    teacher_head: Head,
    rows: AlignedRows,
    roots: Roots,
    *,
    beta: float,
    temperature: float,
) -> Result:
    """The sum of L_c. With equal tokenizers that is the sum of `divergence` over the tokens.

    The temperature is that of the laws that are compared, on roots and of binary events, so that models which agree at
    temperature 1 agree at any. What is reported is at temperature 1.

    KL_bin is left out where it would not compare the same event: where the student split its bytes otherwise than its
    tokenizer would; where the first tokens have different roots; where nothing follows to say whether a number goes on;
    and in a chunk of one token on both sides that closes no number. There "foo" is "foo and not foobar" to one side and
    "starts with foo" to the other; what is split so is learnt from the chunks where "foobar" is written.
    """
    chunks = len(rows.next_C)
    closes_C = rows.closes_number_C & roots.digits_differ
    same_root_C = roots.student.root_V[rows.student.id_M[:chunks]] == roots.teacher.root_V[rows.teacher.id_M[:chunks]]
    compared_C = rows.canonical_C & same_root_C & _known_end(rows, roots)
    compared_C &= closes_C | _several(rows.student, chunks) | _several(rows.teacher, chunks)
    closed_C = _after(rows, closes_C)
    read_C = compared_C | closed_C
    student = _read(hidden_SD, head, rows.student, roots.student, read_C)
    teacher = _read(teacher_hidden_TD, teacher_head, rows.teacher, roots.teacher, read_C)
    remainder_C, pulls = _remainder(student, teacher, rows, compared_C, closes_C, temperature)
    dense: list[torch.Tensor] = []

    def loss(logits_NV: torch.Tensor, which: slice) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        at = slice(which.start, min(which.stop, chunks))  # the chunks that start in this block
        pulled = _pulled(logits_NV, which, rows.student, chunks, roots.student, pulls)
        if at.start >= at.stop:
            return pulled, {}
        starts_NV = logits_NV[: at.stop - at.start]
        impossible_NR = closed_C[at, None] & roots.digit_R
        student_NR = roots.student(starts_NV).masked_fill(impossible_NR, _IMPOSSIBLE)
        with torch.no_grad():
            teacher_NV = teacher_head.logits(teacher_hidden_TD[rows.teacher.row_M[at]])
            teacher_NR = roots.teacher(teacher_NV).masked_fill_(impossible_NR, _IMPOSSIBLE)
        dense_N = divergence(_law(student_NR, temperature), _law(teacher_NR, temperature), beta)
        dense.append(dense_N.detach())
        with torch.no_grad():
            student_NV, teacher_NV = log_softmax(starts_NV), log_softmax(teacher_NV)
            reverse_N = divergence(_law(student_NR), _law(teacher_NR), 1) if (beta, temperature) != (1, 1) else dense_N
            reported = {
                "loss/dense": dense_N.sum(),
                "reverse_kl": reverse_N.sum(),
                "entropy": entropy(student_NV),
                "shared_mass_student": student_NV.exp().mul_(roots.student.shared_V).sum(),
                "shared_mass_teacher": teacher_NV.exp().mul_(roots.teacher.shared_V).sum(),
                "nats_student": -student_NV.gather(1, rows.student.id_M[at, None]).sum(),
                "nats_teacher": -teacher_NV.gather(1, rows.teacher.id_M[at, None]).sum(),
            }
        return dense_N.sum() + pulled, reported

    at_once = min(rows_at_once(head.weight_VD), rows_at_once(teacher_head.weight_VD))
    total, sums = linear_loss(hidden_SD.index_select(0, rows.student.row_M), head, loss, at_once)
    sums["loss/remainder"] = remainder_C.sum()
    sums["root_agreement"] = same_root_C.sum()
    for side, read in (("student", student), ("teacher", teacher)):
        sums[f"nats_{side}"] = sums.get(f"nats_{side}", 0) - read.logprob_M[chunks:].sum()
    return total + sums["loss/remainder"], sums, torch.cat([remainder_C.new_zeros(0), *dense]) + remainder_C


def aligned_policy_gradient(
    hidden_SD: torch.Tensor,
    head: Head,
    teacher_hidden_TD: torch.Tensor,
    teacher_head: Head,
    rows: AlignedRows,
    roots: Roots,
) -> Result:
    """The sum over the student's tokens of -r A: r is the token's probability over what it is now, and A, within
    `_MOST_ADVANTAGE`, the log of how much likelier its chunk is to the teacher,

        sum over c of log p_t(token), + kappa_c log(1 - Q_{c+1}[digits]), - kappa_{c-1} log(1 - Q_c[digits])

    less the same of the student. Of the teacher it needs only log-probabilities of what was written. A is 0 where the
    student split its bytes otherwise than its tokenizer would, since splitting more would pay, and where nothing
    follows to say whether a number goes on.
    """
    chunks = len(rows.next_C)
    closes_C = rows.closes_number_C & roots.digits_differ
    compared_C = rows.canonical_C & _known_end(rows, roots)
    everything_C = torch.ones_like(compared_C)
    student = _read(hidden_SD, head, rows.student, roots.student, everything_C)
    teacher = _read(teacher_hidden_TD, teacher_head, rows.teacher, roots.teacher, everything_C)
    closed_C = _after(rows, closes_C)
    log_C = []
    for side, read in ((rows.student, student), (rows.teacher, teacher)):
        given_C = torch.where(closed_C, logsigmoid(read.no_digit_M[:chunks]), 0.0)
        log_C.append(_log_chunk(read.logprob_M, read.no_digit_M, side, rows, closes_C) - given_C)
    ratio_C = torch.where(compared_C, log_C[1] - log_C[0], 0.0).float()
    advantage_M = ratio_C.clamp(-_MOST_ADVANTAGE, _MOST_ADVANTAGE)[rows.student.chunk_M]

    def loss(logits_NV: torch.Tensor, which: slice) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        logprobs_N = sampled_logprobs(logits_NV, rows.student.id_M[which])
        starts_NV = logits_NV[: max(0, chunks - which.start)].detach()
        loss_N = -(logprobs_N - logprobs_N.detach()).exp() * advantage_M[which]
        return loss_N.sum(), {"entropy": entropy(log_softmax(starts_NV))}

    total, sums = linear_loss(hidden_SD.index_select(0, rows.student.row_M), head, loss)
    sums["reverse_kl"] = -ratio_C.sum()
    sums["nats_student"], sums["nats_teacher"] = -student.logprob_M.sum(), -teacher.logprob_M.sum()
    return total, sums, -ratio_C


@dataclass(frozen=True)
class _Read:
    """What is read of tokens that were written; 0 where it is not. Log-odds are within `_CERTAIN`."""

    logprob_M: torch.Tensor
    written_M: torch.Tensor
    """Log-odds of the token: where it starts a chunk, against the others of its root; else against all others."""
    no_digit_M: torch.Tensor
    """Log-odds against a root that is a digit."""


@torch.no_grad()
def _read(hidden: torch.Tensor, head: Head, side: Side, push: PushForward, read_C: torch.Tensor) -> _Read:
    """Of the tokens that do not start a chunk, and of the starts of the chunks in `read_C`."""
    chunks = len(read_C)
    later = torch.arange(chunks, len(side.row_M), device=read_C.device)
    chosen = torch.cat([read_C.nonzero()[:, 0], later])
    read_3M = torch.zeros(3, len(side.row_M), dtype=torch.float64, device=read_C.device)
    for these_N in chosen.split(rows_at_once(head.weight_VD)):
        logits_NV = head.logits(hidden[side.row_M[these_N]])
        ids_N = side.id_M[these_N]
        odds = _log_odds(logits_NV, ids_N, these_N < chunks, push)
        read_3M[:, these_N] = torch.stack([sampled_logprobs(logits_NV, ids_N), *odds]).double()
    logprob_M, written_M, no_digit_M = read_3M
    return _Read(logprob_M, written_M.clamp(-_CERTAIN, _CERTAIN), no_digit_M.clamp(-_CERTAIN, _CERTAIN))


def _log_odds(
    logits_NV: torch.Tensor, ids_N: torch.Tensor, starts_N: torch.Tensor, push: PushForward
) -> tuple[torch.Tensor, torch.Tensor]:
    """`written` and `no_digit` of `_Read`, [N] each, before they are bounded."""
    others_NV = (push.root_V == push.root_V[ids_N, None]) | ~starts_N[:, None]
    others_NV.scatter_(1, ids_N[:, None], False)
    alone_N = ~others_NV.any(1)
    others_NV |= alone_N[:, None]  # a sum over nothing has no gradient, not even one that is multiplied by 0
    others_N = logits_NV.masked_fill(~others_NV, -torch.inf).logsumexp(1)
    written_N = logits_NV.gather(1, ids_N[:, None])[:, 0] - others_N
    digit_N = logits_NV.masked_fill(~push.digit_V, -torch.inf).logsumexp(1)
    no_digit_N = logits_NV.masked_fill(push.digit_V, -torch.inf).logsumexp(1) - digit_N
    return torch.where(alone_N, _CERTAIN, written_N), no_digit_N


def _remainder(
    student: _Read,
    teacher: _Read,
    rows: AlignedRows,
    compared_C: torch.Tensor,
    closes_C: torch.Tensor,
    temperature: float,
) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
    """KL_bin by chunk [C], and the gradients of its sum by the student's `written_M` and `no_digit_M`."""
    pulling = student.written_M.clone().requires_grad_(), student.no_digit_M.clone().requires_grad_()
    with torch.enable_grad():
        student_C = _rest_log_odds(*pulling, rows.student, rows, closes_C) / temperature
        teacher_C = _rest_log_odds(teacher.written_M, teacher.no_digit_M, rows.teacher, rows, closes_C) / temperature
        as_written_C = logsigmoid(teacher_C).exp() * (logsigmoid(teacher_C) - logsigmoid(student_C))
        otherwise_C = logsigmoid(-teacher_C).exp() * (logsigmoid(-teacher_C) - logsigmoid(-student_C))
        remainder_C = torch.where(compared_C, as_written_C + otherwise_C, 0.0)
        written_M, no_digit_M = torch.autograd.grad(remainder_C.sum(), pulling)
    return remainder_C.detach().float(), (written_M.float(), no_digit_M.float())


def _rest_log_odds(
    written_M: torch.Tensor, no_digit_M: torch.Tensor, side: Side, rows: AlignedRows, closes_C: torch.Tensor
) -> torch.Tensor:
    """Log-odds [C] of e^rho: that the rest of the chunk is as written, given its root."""
    rho_C = _log_chunk(logsigmoid(written_M), no_digit_M, side, rows, closes_C)
    return rho_C - torch.log(-torch.expm1(rho_C))


def _log_chunk(
    log_M: torch.Tensor, no_digit_M: torch.Tensor, side: Side, rows: AlignedRows, closes_C: torch.Tensor
) -> torch.Tensor:
    """Sums over each chunk's tokens [C], and of the log-probability that no digit follows where it closes a number."""
    sum_C = log_M.new_zeros(len(closes_C)).index_add(0, side.chunk_M, log_M)
    return sum_C + torch.where(closes_C, logsigmoid(no_digit_M[rows.next_C.clamp(min=0)]), 0.0)


def _pulled(
    logits_NV: torch.Tensor,
    which: slice,
    side: Side,
    chunks: int,
    push: PushForward,
    pulls: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """0, with the remainder's gradient by these logits."""
    written_N, no_digit_N = (pull_M[which] for pull_M in pulls)
    some = ((written_N != 0) | (no_digit_N != 0)).nonzero()[:, 0]
    if not len(some):
        return logits_NV.new_zeros(())
    odds = _log_odds(logits_NV[some], side.id_M[which][some], some + which.start < chunks, push)
    pulled = (odds[0] * written_N[some] + odds[1] * no_digit_N[some]).sum()
    return pulled - pulled.detach()


def _known_end(rows: AlignedRows, roots: Roots) -> torch.Tensor:
    """Whether it is known of each chunk if a number goes on after it [C]: something follows, or the turn has ended."""
    ends_turn_C = roots.student.root_V[rows.student.id_M[: len(rows.next_C)]] == roots.eot_root
    return (rows.next_C >= 0) | ends_turn_C | (not roots.digits_differ)


def _after(rows: AlignedRows, closes_C: torch.Tensor) -> torch.Tensor:
    """Whether a chunk directly follows one that closes a number [C]."""
    after_C = torch.zeros_like(closes_C)
    after_C[rows.next_C[closes_C & (rows.next_C >= 0)]] = True
    return after_C


def _several(side: Side, chunks: int) -> torch.Tensor:
    """Whether a chunk has several tokens."""
    return torch.bincount(side.chunk_M, minlength=chunks) > 1


def _law(logits_NR: torch.Tensor, temperature: float = 1) -> torch.Tensor:
    """Log-probabilities."""
    return log_softmax(logits_NR, temperature)
