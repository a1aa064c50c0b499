"""What our loss promises and TRL's do not, on the small world of `test_aligned_loss`.

benchmarks/cross_tokenizer has the full tables.
"""

from itertools import accumulate
from types import SimpleNamespace

import pytest
import torch

from atlas.training.aligned_loss import Roots
from atlas.training.experimental import GoldLoss, Reading

from .test_aligned_loss import LAW, STUDENT, TEACHER, Perfect, _path, loss_of, of_perfect, vocabulary

BASELINES = {"gold": True, "uld": False}


def gold_loss(extended, beta=0.5):
    sides = [
        SimpleNamespace(get_vocab=lambda tokens=tokens: {token: i for i, token in enumerate(tokens)})
        for tokens in (STUDENT, TEACHER)
    ]
    loss = GoldLoss(*sides, extended=extended, beta=beta, temperature=1.0, device=torch.device("cpu"))
    # TRL's default compares laws one place after the token, and never the first; this is kinder to it.
    loss._loss.token_merge_strategy = "bayesian"
    return loss


def baseline(loss, texts, student, teacher, weight, teacher_weight=None):
    """TRL's loss of these texts: the mean."""
    teacher_weight = teacher.weight if teacher_weight is None else teacher_weight
    losses = []
    for text in texts:
        readings, logits = [], []
        for side, own in ((student, weight), (teacher, teacher_weight)):
            ids = side.texts[text]
            readings.append(Reading(ids, [*accumulate(len(side.tokens[i]) for i in ids[:-1]), len(text) + 1]))
            logits.append(side.hidden([ids]) @ own.t())
        losses.append(loss(*readings, *logits))
    return torch.stack(losses).mean()


def ours(texts, student, teacher, weight, teacher_weight=None, beta=0.5):
    """The mean over the chunks."""
    rows, tensors = of_perfect(texts, student, teacher, weight)
    if teacher_weight is not None:
        tensors[3] = teacher_weight
    loss, *_ = loss_of(tensors, rows, Roots(vocabulary()), beta)
    return loss / len(rows.next_C)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_models_that_agree_have_no_loss(beta):
    student, teacher = Perfect(STUDENT), Perfect(TEACHER)
    assert abs(ours(LAW, student, teacher, student.weight, beta=beta)) <= 1e-6


@pytest.mark.parametrize("extended", BASELINES.values(), ids=BASELINES)
def test_the_baselines_punish_models_that_agree(extended):
    student, teacher = Perfect(STUDENT), Perfect(TEACHER)
    assert baseline(gold_loss(extended), LAW, student, teacher, student.weight) > 0.02


def sure(side, text, wrong=()):
    """Logits of a model that is sure of this text, or of other tokens in place of some."""
    weight = torch.zeros_like(side.weight)
    ids = side.texts[text]
    for n, i in enumerate(ids):
        token = dict(wrong).get(side.tokens[i], side.tokens[i])
        weight[side.tokens.index(token), side.prefixes.index(ids[:n])] = 30.0
    return weight


def test_a_student_that_is_sure_of_wrong_tokens_is_seen_by_our_loss_and_not_by_uld():
    student, teacher = Perfect(STUDENT), Perfect(TEACHER)
    wrong = sure(student, "1a", wrong={"1": "b", "a": "2"}.items())
    right, teacher_weight = sure(student, "1a"), sure(teacher, "1a")
    uld = gold_loss(extended=False)
    assert baseline(uld, ["1a"], student, teacher, wrong, teacher_weight) < 1e-6
    assert ours(["1a"], student, teacher, wrong, teacher_weight) > 5
    assert ours(["1a"], student, teacher, right, teacher_weight) < 1e-6


def test_gold_lowers_the_number_that_the_student_should_say_and_we_raise_it():
    student, teacher = Perfect(STUDENT), Perfect(TEACHER)
    at = STUDENT.index("12"), student.prefixes.index(())
    teacher_weight = sure(teacher, "12 ")

    def pull(loss):
        weight = torch.zeros_like(student.weight)
        weight[at] = 2.5  # half of the probability
        loss(weight.requires_grad_()).backward()
        return weight.grad[at]

    assert pull(lambda weight: ours(["12 "], student, teacher, weight, teacher_weight)) < -0.01
    gold = gold_loss(extended=True)
    assert pull(lambda weight: baseline(gold, ["12 "], student, teacher, weight, teacher_weight)) > 0


def test_gold_takes_a_perfect_student_away_from_the_text():
    student, teacher = Perfect(STUDENT), Perfect(TEACHER)
    loss = gold_loss(extended=True)
    true = student.several_digits(student.weight)
    weight = student.weight.clone().requires_grad_()
    optimizer, generator = torch.optim.Adam([weight], lr=0.1), torch.Generator().manual_seed(0)
    texts = list(LAW)
    for _ in range(60):
        written = torch.stack([_path(student, text, weight) for text in texts]).softmax(0)
        chosen = [texts[i] for i in written.multinomial(8, replacement=True, generator=generator)]
        optimizer.zero_grad()
        baseline(loss, chosen, student, teacher, weight).backward()
        optimizer.step()
    assert abs(student.several_digits(weight.detach()) - true) > 0.1
