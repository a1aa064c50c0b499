"""The chunked linear loss against autograd on all logits at once, in float64."""

import pytest
import torch

from atlas.training import linear_loss as module
from atlas.training.head import Head
from atlas.training.linear_loss import linear_loss

N, V, D = 10, 7, 5


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    hidden_ND, weight_VD, target_NV = (torch.randn(shape, generator=generator) for shape in ((N, D), (V, D), (N, V)))
    return hidden_ND, weight_VD, target_NV.softmax(-1)


def cross_entropy(target_NV):
    def loss(logits_CV, which):
        logprobs_CV = logits_CV.log_softmax(-1)
        losses_C = -(target_NV[which].to(logits_CV.dtype) * logprobs_CV).sum(-1)
        return losses_C.sum(), {"squares": (losses_C**2).sum(), "tokens": torch.tensor(len(losses_C))}

    return loss


def reference(hidden_ND, weight_VD, target_NV, softcap=None, scale=1.0):
    """Loss, gradient of hidden states, gradient of the head, and what is reported."""
    hidden_ND, weight_VD = (each.detach().double().requires_grad_() for each in (hidden_ND, weight_VD))
    logits_NV = scale * hidden_ND @ weight_VD.T
    if softcap is not None:
        logits_NV = softcap * torch.tanh(logits_NV / softcap)
    loss, reported = cross_entropy(target_NV)(logits_NV, slice(None))
    loss.backward()
    return loss.detach(), hidden_ND.grad, weight_VD.grad, reported


def close(got, expected):
    torch.testing.assert_close(got.double(), expected.double(), rtol=1e-5, atol=1e-6)


HEADS = {"plain": {}, "softcap": {"softcap": 1.5}, "scale": {"scale": 0.25}, "both": {"softcap": 0.7, "scale": 3.0}}


@pytest.mark.parametrize("options", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("chunk", [1, 3, 4, 5, 9, 10, 11, 1000])  # 3, 4 and 9 leave an uneven rest
def test_value_and_gradients_are_those_of_autograd_on_all_logits(tensors, monkeypatch, chunk, options):
    monkeypatch.setattr(module, "CHUNK_LOGITS", chunk * V)
    hidden_ND, weight_VD, target_NV = tensors
    expected = reference(hidden_ND, weight_VD, target_NV, **options)
    hidden_ND.requires_grad_(), weight_VD.requires_grad_()
    loss, sums = linear_loss(hidden_ND, Head(weight_VD, **options), cross_entropy(target_NV))
    close(loss, expected[0])
    loss.backward()
    close(hidden_ND.grad, expected[1])
    close(weight_VD.grad, expected[2])
    assert sums.keys() == {"squares", "tokens"} and sums["tokens"] == N
    close(sums["squares"], expected[3]["squares"])
    assert not sums["squares"].requires_grad


def test_no_more_logits_are_there_at_once_than_a_chunk_has(tensors, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_LOGITS", 4 * V + 6)
    hidden_ND, weight_VD, target_NV = tensors
    seen = []

    def loss(logits_CV, which):
        seen.append((tuple(logits_CV.shape), which))
        return cross_entropy(target_NV)(logits_CV, which)

    linear_loss(hidden_ND.requires_grad_(), Head(weight_VD), loss)
    assert seen == [((4, V), slice(0, 4)), ((4, V), slice(4, 8)), ((2, V), slice(8, 10))]


@pytest.mark.parametrize("factor", [0.0, 0.125, -3.0])
def test_a_factor_of_the_loss_is_a_factor_of_its_gradients(tensors, monkeypatch, factor):
    monkeypatch.setattr(module, "CHUNK_LOGITS", 3 * V)
    hidden_ND, weight_VD, target_NV = tensors
    _, hidden_grad_ND, weight_grad_VD, _ = reference(hidden_ND, weight_VD, target_NV)
    hidden_ND.requires_grad_(), weight_VD.requires_grad_()
    loss, _ = linear_loss(hidden_ND, Head(weight_VD), cross_entropy(target_NV))
    (loss * factor).backward()
    close(hidden_ND.grad, factor * hidden_grad_ND)
    close(weight_VD.grad, factor * weight_grad_VD)


def test_gradients_add_up_over_micro_batches(tensors):
    hidden_ND, weight_VD, target_NV = tensors
    _, _, weight_grad_VD, _ = reference(hidden_ND, weight_VD, target_NV)
    weight_VD.requires_grad_()
    for part in (slice(0, 4), slice(4, N)):
        loss, _ = linear_loss(hidden_ND[part], Head(weight_VD), cross_entropy(target_NV[part]))
        loss.backward()
    close(weight_VD.grad, weight_grad_VD)


@pytest.mark.parametrize("frozen", ["head", "hidden states"])
def test_what_is_frozen_gets_no_gradient_and_changes_none(tensors, frozen):
    hidden_ND, weight_VD, target_NV = tensors
    expected, hidden_grad_ND, weight_grad_VD, _ = reference(hidden_ND, weight_VD, target_NV)
    (hidden_ND if frozen == "head" else weight_VD).requires_grad_()
    loss, _ = linear_loss(hidden_ND, Head(weight_VD), cross_entropy(target_NV))
    close(loss, expected)
    loss.backward()
    if frozen == "head":
        assert weight_VD.grad is None
        close(hidden_ND.grad, hidden_grad_ND)
    else:
        assert hidden_ND.grad is None
        close(weight_VD.grad, weight_grad_VD)


def test_a_head_cut_to_the_vocabulary_gives_the_columns_beyond_no_gradient(tensors):
    hidden_ND, weight_VD, target_NV = tensors
    wide_VD = torch.cat([weight_VD, torch.ones(3, D)]).requires_grad_()
    loss, _ = linear_loss(hidden_ND, Head(wide_VD[:V]), cross_entropy(target_NV))
    loss.backward()
    expected = reference(hidden_ND, weight_VD, target_NV)
    close(loss, expected[0])
    close(wide_VD.grad[:V], expected[2])
    assert torch.equal(wide_VD.grad[V:], torch.zeros(3, D))


def test_a_chunk_without_a_gradient_has_gradient_zero(tensors, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_LOGITS", 5 * V)
    hidden_ND, weight_VD, target_NV = tensors
    _, hidden_grad_ND, _, _ = reference(hidden_ND, weight_VD, target_NV)

    def half(logits_CV, which):
        loss, reported = cross_entropy(target_NV)(logits_CV, which)
        return loss if which.start == 0 else loss.detach(), reported

    hidden_ND.requires_grad_()
    torch.use_deterministic_algorithms(True)  # fills what is not written with NaN
    try:
        linear_loss(hidden_ND, Head(weight_VD), half)[0].backward()
    finally:
        torch.use_deterministic_algorithms(False)
    close(hidden_ND.grad[:5], hidden_grad_ND[:5])
    assert torch.equal(hidden_ND.grad[5:], torch.zeros(5, D))


def test_half_precision_states_get_gradients_of_their_own_dtype(tensors):
    hidden_ND, weight_VD, target_NV = tensors
    expected = reference(hidden_ND.bfloat16(), weight_VD.bfloat16(), target_NV)
    hidden_ND, weight_VD = hidden_ND.bfloat16().requires_grad_(), weight_VD.bfloat16().requires_grad_()
    loss, _ = linear_loss(hidden_ND, Head(weight_VD), cross_entropy(target_NV))
    loss.backward()
    assert loss.dtype == torch.float32
    for grad, wanted in ((hidden_ND.grad, expected[1]), (weight_VD.grad, expected[2])):
        assert grad.dtype == torch.bfloat16
        assert (grad.double() - wanted).norm() < 0.02 * wanted.norm()
