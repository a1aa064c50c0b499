"""The divergences against sums written out in float64, and what must hold of any of them."""

import math

import pytest
import torch

from atlas.methods.gkd import TopKSpec
from atlas.training.divergence import divergence, top_k_divergence

BETAS = [0.0, 1e-3, 0.25, 0.5, 0.9, 1.0]
KS = [1, 2, 5]
C, V = 6, 9


def logprobs(seed, spread=2.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (spread * torch.randn(C, V, generator=generator, dtype=torch.float64)).log_softmax(-1).to(dtype)


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def reference(student, teacher, beta):
    """arXiv:2306.13649, eq. 1, of two lists of probabilities."""
    if beta == 0:
        return kl(teacher, student)
    if beta == 1:
        return kl(student, teacher)
    mixture = [beta * t + (1 - beta) * s for s, t in zip(student, teacher, strict=True)]
    return beta * kl(teacher, mixture) + (1 - beta) * kl(student, mixture)


def top_k_reference(student, teacher, beta, spec):
    order = student if spec.of == "student" else teacher
    chosen = sorted(range(len(order)), key=lambda i: -order[i])[: spec.k]
    rest = [i for i in range(len(order)) if i not in chosen]
    merged = [[p[i] for i in chosen] + [sum(p[i] for i in rest)] for p in (student, teacher)]
    return reference(*merged, beta)


def rows(logprobs_CV):
    return logprobs_CV.double().exp().tolist()


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_the_divergence_is_the_sum_written_out(beta, dtype, tolerance):
    student_CV, teacher_CV = logprobs(0, dtype=dtype), logprobs(1, dtype=dtype)
    expected = [reference(s, t, beta) for s, t in zip(rows(student_CV), rows(teacher_CV), strict=True)]
    assert divergence(student_CV, teacher_CV, beta).tolist() == pytest.approx(expected, abs=tolerance)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("k", KS)
@pytest.mark.parametrize("of", ["student", "teacher"])
def test_the_top_k_divergence_merges_all_others_into_one(beta, k, of):
    student_CV, teacher_CV, spec = logprobs(0), logprobs(1), TopKSpec(k=k, of=of)
    expected = [top_k_reference(s, t, beta, spec) for s, t in zip(rows(student_CV), rows(teacher_CV), strict=True)]
    got = top_k_divergence(student_CV, teacher_CV, beta, spec)
    assert got.tolist() == pytest.approx(expected, abs=1e-12)
    assert (got <= divergence(student_CV, teacher_CV, beta) + 1e-12).all()


def test_student_and_teacher_have_other_top_tokens():
    student_CV, teacher_CV = logprobs(0), logprobs(1)
    by_side = [top_k_divergence(student_CV, teacher_CV, 0.5, TopKSpec(k=2, of=of)) for of in ("student", "teacher")]
    assert not torch.allclose(*by_side)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("k", [V, 10 * V])
def test_with_every_token_among_the_top_k_nothing_is_merged(beta, k):
    student_CV, teacher_CV = logprobs(0), logprobs(1)
    got = top_k_divergence(student_CV, teacher_CV, beta, TopKSpec(k=k))
    assert torch.equal(got, divergence(student_CV, teacher_CV, beta))


@pytest.mark.parametrize("measure", [divergence, lambda s, t, b: top_k_divergence(s, t, b, TopKSpec(k=3))])
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("spread", [0.01, 1.0, 30.0])  # nearly uniform; ordinary; nearly certain
def test_it_is_zero_between_equals_and_positive_otherwise(measure, beta, spread):
    student_CV, teacher_CV = logprobs(0, spread), logprobs(1, spread)
    assert (measure(student_CV, student_CV, beta).abs() < 1e-12).all()
    apart_C = measure(student_CV, teacher_CV, beta)
    assert torch.isfinite(apart_C).all() and (apart_C > -1e-12).all() and apart_C.sum() > 0


def test_divided_by_beta_it_goes_to_the_forward_kl_and_by_one_less_beta_to_the_reverse():
    student_CV, teacher_CV = logprobs(0, 1.0), logprobs(1, 1.0)
    small = 1e-6
    near_forward_C = divergence(student_CV, teacher_CV, small) / small
    near_reverse_C = divergence(student_CV, teacher_CV, 1 - small) / small
    torch.testing.assert_close(near_forward_C, divergence(student_CV, teacher_CV, 0.0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(near_reverse_C, divergence(student_CV, teacher_CV, 1.0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("beta", BETAS)
def test_exchanging_the_two_exchanges_beta(beta):
    student_CV, teacher_CV = logprobs(0), logprobs(1)
    exchanged_C = divergence(teacher_CV, student_CV, 1 - beta)
    torch.testing.assert_close(divergence(student_CV, teacher_CV, beta), exchanged_C, rtol=1e-9, atol=1e-12)


def test_the_jensen_shannon_divergence_is_at_most_log_two():
    apart = torch.tensor([[1.0, 1e-12], [0.5, 0.5]], dtype=torch.float64).log()
    assert divergence(apart[:1], apart[:1].flip(1), 0.5).item() == pytest.approx(math.log(2), rel=1e-6)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("spec", [None, *[TopKSpec(k=k, of=of) for k in (1, 4) for of in ("student", "teacher")]])
def test_gradients_are_those_of_finite_differences(beta, spec):
    teacher_CV = logprobs(1)

    def loss(logits_CV):
        student_CV = logits_CV.log_softmax(-1)
        if spec is None:
            return divergence(student_CV, teacher_CV, beta)
        return top_k_divergence(student_CV, teacher_CV, beta, spec)

    assert torch.autograd.gradcheck(loss, logprobs(0).requires_grad_())


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("k", [None, 2, V])
def test_gradients_stay_finite_where_a_model_is_certain(beta, k):
    logits_CV = (200 * torch.eye(V)[:C]).requires_grad_()
    teacher_CV = (200 * torch.eye(V)[1 : C + 1]).log_softmax(-1)
    student_CV = logits_CV.log_softmax(-1)
    if k is None:
        loss = divergence(student_CV, teacher_CV, beta).sum()
    else:
        loss = top_k_divergence(student_CV, teacher_CV, beta, TopKSpec(k=k)).sum()
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits_CV.grad).all()


def test_the_forward_kl_pulls_a_certain_student_to_what_the_teacher_wants_beyond_its_top_k():
    logits_CV = torch.tensor([[40.0, 0.0, 0.0, 0.0]], requires_grad=True)
    teacher_CV = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log()
    top_k_divergence(logits_CV.log_softmax(-1), teacher_CV, 0.0, TopKSpec(k=1)).sum().backward()
    # the gradient of the merged cross entropy: what the student says less what the teacher says, shared out evenly
    assert logits_CV.grad[0].tolist() == pytest.approx([0.9, -0.3, -0.3, -0.3], rel=1e-5)
