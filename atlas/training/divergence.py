"""How far the student's next-token distribution is from the teacher's.

C predicted tokens, V token ids.
"""

import math

import torch

from atlas.methods.gkd import TopKSpec


def divergence(student_CV: torch.Tensor, teacher_CV: torch.Tensor, beta: float) -> torch.Tensor:
    """The generalized Jensen-Shannon divergence, per token [C] in nats, of distributions given as log-probabilities.

    beta 0: forward KL(teacher || student). beta 1: reverse KL(student || teacher). Between:
    beta KL(teacher || m) + (1 - beta) KL(student || m) with m = beta teacher + (1 - beta) student
    (arXiv:2306.13649, eq. 1).
    """
    if beta == 0:
        return _kl(teacher_CV, student_CV)
    if beta == 1:
        return _kl(student_CV, teacher_CV)
    mixture_CV = torch.logaddexp(teacher_CV + math.log(beta), student_CV + math.log1p(-beta))
    return beta * _kl(teacher_CV, mixture_CV) + (1 - beta) * _kl(student_CV, mixture_CV)


def top_k_divergence(student_CV: torch.Tensor, teacher_CV: torch.Tensor, beta: float, spec: TopKSpec) -> torch.Tensor:
    """`divergence` over the k likeliest tokens of one side and, as one more outcome, all others together: [C].

    Never more than the divergence over all tokens, since it merges outcomes.
    """
    if spec.k >= student_CV.shape[1]:
        return divergence(student_CV, teacher_CV, beta)
    chosen_CK = (student_CV if spec.of == "student" else teacher_CV).topk(spec.k).indices
    merged = []
    for logprobs_CV in (student_CV, teacher_CV):
        # The probability of the others would be 1 - the sum of the chosen, which is rounding where a model is certain.
        rest_C1 = logprobs_CV.scatter(1, chosen_CK, -math.inf).logsumexp(1, keepdim=True)
        merged.append(torch.cat([logprobs_CV.gather(1, chosen_CK), rest_C1], dim=1))
    student_CK, teacher_CK = merged
    return divergence(student_CK, teacher_CK, beta)


def _kl(p_CV: torch.Tensor, q_CV: torch.Tensor) -> torch.Tensor:
    return (p_CV.exp() * (p_CV - q_CV)).sum(-1)
