"""Laws pushed onto roots, against probabilities added up in float64."""

import numpy as np
import pytest
import torch

from atlas.training.alignment.push_forward import PushForward
from atlas.training.alignment.vocabulary import VocabularyMap

ROOT_V = np.array([2, 0, 1, 2, 2, 3, 0, 4])
V, R = 8, 5


def push(root_V=ROOT_V, roots=R):
    everything, digit = np.ones(len(root_V), dtype=bool), np.arange(roots) == 0
    made = VocabularyMap(root_V, root_V, everything, everything, roots, digit, 3, 4, True, {})
    return PushForward(root_V, everything, made, "cpu")


def logits(spread=1.0, dtype=torch.float64):
    return spread * torch.randn(4, V, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("spread", [1.0, 20.0])
def test_the_law_over_roots_adds_up_the_law_over_ids(spread):
    logits_NV = logits(spread)
    expected_NR = torch.zeros(4, R, dtype=torch.float64).index_add(1, torch.tensor(ROOT_V), logits_NV.softmax(-1))
    torch.testing.assert_close(push()(logits_NV).softmax(-1), expected_NR)


def test_gradients_are_those_of_finite_differences():
    assert torch.autograd.gradcheck(push(), logits().requires_grad_())


def test_probabilities_too_small_for_a_float_are_kept():
    logits_NV = torch.tensor([[-500.0, 0.0, 0.0, -500.0, -600.0, 0.0, 0.0, 0.0]], requires_grad=True)
    logprobs_NR = push()(logits_NV).log_softmax(-1)
    assert logprobs_NR[0, 2].item() == pytest.approx(-500 + np.log(2 / 5), abs=1e-3)
    logprobs_NR[0, 2].backward()
    assert logits_NV.grad[0, [0, 3, 4]].tolist() == pytest.approx([0.5, 0.5, 0.0], abs=1e-6)


def test_with_one_id_for_each_root_it_is_a_permutation():
    order = np.array([3, 1, 0, 2, 4, 7, 5, 6])
    logits_NV = logits(dtype=torch.float32)
    pushed_NR = push(order, V)(logits_NV)
    assert torch.equal(pushed_NR[:, order], logits_NV)


def test_no_rows_have_no_laws():
    assert push()(torch.zeros(0, V)).shape == (0, R)


def test_a_root_without_an_id_is_refused():
    with pytest.raises(AssertionError, match="probability zero"):
        push(np.array([0, 1, 1, 3]), 4)
