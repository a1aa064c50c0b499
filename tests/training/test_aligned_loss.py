"""The loss across tokenizers against sums over everything in float64, and what must hold between perfect models.

S student tokens, T teacher tokens, V token ids of a side, R roots, D size of a hidden state.
"""

import itertools

import numpy as np
import pytest
import torch

from atlas.training import linear_loss as linear_module
from atlas.training.aligned_loss import Roots, aligned_loss, aligned_policy_gradient
from atlas.training.alignment.aligned_rows import AlignedRows
from atlas.training.alignment.vocabulary import VocabularyMap
from atlas.training.divergence import divergence
from atlas.training.head import Head

END, PAD = "<end>", "<pad>"
STUDENT = ["a", "b", "ab", "abc", "c", " ", "1", "2", "11", "12", "21", "22", END, PAD]
TEACHER = [PAD, "1", "2", "a", "b", "c", "bc", " ", END, "<end2>"]
D = 6
BETAS = [0.0, 0.3, 1.0]


def longest_first(tokens, text):
    """How both tokenizers of this world split: the longest token first."""
    ids = []
    while text:
        token = max((token for token in tokens if text.startswith(token)), key=len)
        ids.append(tokens.index(token))
        text = text.removeprefix(token)
    return ids


def vocabulary(student=STUDENT, teacher=TEACHER):
    """The map of two lists of tokens, in which <...> is a control token."""
    text = [[token for token in side if token[0] != "<"] for side in (student, teacher)]
    shared = [token for token in text[0] if token in text[1]]
    names = [*shared, "<end>", "<other>"]

    def root(token, tokens, others):
        if token.startswith("<"):
            return "<end>" if token.startswith("<end") else "<other>"
        return token if token in shared else root(others[longest_first(others, token)[0]], others, tokens)

    maps = [[root(token, *sides) for token in sides[0]] for sides in ((student, teacher), (teacher, student))]
    return VocabularyMap(
        *(np.array([names.index(name) for name in side], dtype=np.int32) for side in maps),
        *(np.array([token in shared for token in side]) for side in (student, teacher)),
        roots=len(names),
        digit=np.array([name[0].isdigit() for name in names]),
        eot_root=len(names) - 2,
        other_root=len(names) - 1,
        digits_differ=len(longest_first(text[0], "121")) != len(longest_first(text[1], "121")),
        figures={},
    )


def ends(tokens, ids):
    return list(itertools.accumulate(1 if tokens[i] == END else 0 if tokens[i] == PAD else len(tokens[i]) for i in ids))


def aligned(rows, student=STUDENT, teacher=TEACHER):
    """(AlignedRows, student ids, teacher ids) of rows of student tokens; a <pad> among them is a hole."""
    columns = [[] for _ in range(6)]
    for tokens in rows:
        ids = [student.index(token) for token in tokens]
        parts = [list(part) for end, part in itertools.groupby(tokens, lambda token: token == END) if not end]
        texts = ["".join(part).split(PAD) for part in parts]
        teacher_ids = [i for part in texts[0] for i in longest_first(teacher, part)]
        teacher_ids += [teacher.index(END)] * (tokens[-1] == END)
        student_ends, teacher_ends = ends(student, ids), ends(teacher, teacher_ids)
        common = sorted(set(student_ends) & set(teacher_ends) - {0})
        chunk = [[sum(end < own for end in common) for own in side] for side in (student_ends, teacher_ends)]
        chunk[0] = [-1 if student[i] == PAD else c for i, c in zip(ids, chunk[0], strict=True)]
        text = "".join(tokens).replace(END, "!")
        canonical = []
        for c in range(len(common)):
            mine = [i for i, own in zip(ids, chunk[0], strict=True) if own == c]
            written = "".join(student[i] for i in mine)
            canonical.append(written == END or longest_first(student, written) == mine)
        before = ["".join(tokens[: i + 1]) for i in range(len(tokens))]
        hole = [len(each.replace(PAD, "")) for each, token in zip(before, tokens, strict=True) if token == PAD]
        text = text.replace(PAD, "")
        closes = [text[e - 1].isdigit() and not text[e].isdigit() and e not in hole for e in common if e < len(text)]
        closes += [False] * (len(common) - len(closes))
        flags = [np.array(flag, dtype=bool) for flag in (canonical, closes)]
        row = (ids, teacher_ids, *(np.array(side, dtype=np.int64) for side in chunk), *flags)
        for column, value in zip(columns, row, strict=True):
            column.append(value)
    return AlignedRows.of(*columns), columns


ROWS = [
    ["12", "1", "ab", " ", "2", "ab", "c", END],  # 121 is one number of two tokens
    ["abc", "b", "c", " ", "11", " ", "1", "a", "2", "1"],  # 21 is not how the tokenizer splits; the end is not known
    ["a", "b", "21", "1", PAD, "ab", "c", END],  # nothing follows 211 but the hole; abc goes on in two tokens
    ["2", "22"],
    ["b", "c", "ab"],
]


@pytest.fixture(params=[1, 3, 1000], ids="rows_at_once={}".format)
def rows_at_once(request, monkeypatch):
    monkeypatch.setattr(linear_module, "CHUNK_LOGITS", request.param * len(STUDENT))


def models(columns, seed=0, spread=1.0, student=STUDENT, teacher=TEACHER):
    """Hidden states and heads of both sides."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [sum(map(len, columns[0])), len(student), sum(map(len, columns[1])), len(teacher)]
    return [spread * torch.randn(size, D, generator=generator) for size in sizes]


def tempered(probabilities, temperature):
    powers = probabilities ** (1 / temperature)
    return powers / powers.sum()


def reference(tensors, columns, vocabulary, beta, temperature):
    """The docstring's formulas, one chunk after the other: by chunk the dense part, the rest, and the log-ratio."""
    hidden, weight, teacher_hidden, teacher_weight = tensors
    laws = [(hidden @ weight.T).softmax(-1), (teacher_hidden @ teacher_weight.T).softmax(-1)]
    maps = [torch.tensor(vocabulary.student_root).long(), torch.tensor(vocabulary.teacher_root).long()]
    digit = torch.tensor(vocabulary.digit)

    def pushed(side, row):
        return torch.zeros(vocabulary.roots, dtype=torch.float64).index_add(0, maps[side], laws[side][row])

    first = [0, 0]
    result = []
    for ids, teacher_ids, chunk, teacher_chunk, canonical, closes in zip(*columns, strict=True):
        kappa = False
        for c in range(len(canonical)):
            closed = kappa
            places = [np.flatnonzero(side == c) for side in (chunk, teacher_chunk)]
            follow = [
                place[-1] + 1 < len(side) and side[place[-1] + 1] == c + 1
                for place, side in zip(places, (chunk, teacher_chunk), strict=True)
            ]
            kappa = bool(closes[c]) and vocabulary.digits_differ
            written = [[side[place] for place in each] for side, each in zip((ids, teacher_ids), places, strict=True)]
            roots = [maps[side][written[side][0]] for side in (0, 1)]
            starts = [pushed(side, first[side] + places[side][0]) for side in (0, 1)]
            rho, whole = [], []
            for side in (0, 1):
                path = sum(
                    laws[side][first[side] + place, i].log()
                    for place, i in zip(places[side], written[side], strict=True)
                )
                if kappa:
                    path = path + (1 - pushed(side, first[side] + places[side][-1] + 1)[digit].sum()).log()
                whole.append(path)
                rho.append(path - starts[side][roots[side]].log())
            if closed:
                whole = [path - (1 - law[digit].sum()).log() for path, law in zip(whole, starts, strict=True)]
                starts = [law[~digit] / law[~digit].sum() for law in starts]
            dense = divergence(*(tempered(law, temperature).log()[None] for law in starts), beta)[0]
            known = all(follow) or not vocabulary.digits_differ or roots[0] == vocabulary.eot_root
            compared = canonical[c] and roots[0] == roots[1] and known and (kappa or max(map(len, places)) > 1)
            remainder = torch.zeros((), dtype=torch.float64)
            if compared:
                r_s, r_t = (tempered(torch.stack([each.exp(), 1 - each.exp()]), temperature) for each in rho)
                remainder = (r_t * (r_t / r_s).log()).sum()
            ratio = (whole[1] - whole[0]) if canonical[c] and known else torch.zeros((), dtype=torch.float64)
            result.append((dense, remainder, ratio))
        first = [first[0] + len(ids), first[1] + len(teacher_ids)]
    return [torch.stack(each) for each in zip(*result, strict=True)]


def same_tokens():
    """As `aligned`, of rows that both sides split alike."""
    ids = [[STUDENT.index(token) for token in row] for row in ROWS]
    chunk = [np.arange(len(row)) for row in ids]
    canonical = [np.ones(len(row), dtype=bool) for row in ids]
    columns = (ids, ids, chunk, chunk, canonical, canonical)
    return AlignedRows.of(*columns), columns


def identity():
    each = np.arange(len(STUDENT), dtype=np.int32)
    shared, digit = np.ones(len(STUDENT), dtype=bool), np.array([token[0].isdigit() for token in STUDENT])
    return VocabularyMap(each, each, shared, shared, len(STUDENT), digit, 12, 13, False, {})


def in_float64(tensors):
    return [each.detach().double().requires_grad_() for each in tensors]


def close(got, expected, tolerance=1e-5):
    torch.testing.assert_close(got.double(), expected.double(), rtol=tolerance, atol=tolerance)


def loss_of(tensors, rows, roots, beta=0.5, temperature=1.0):
    hidden, weight, teacher_hidden, teacher_weight = tensors
    heads = Head(weight), Head(teacher_weight)
    return aligned_loss(hidden, heads[0], teacher_hidden, heads[1], rows, roots, beta=beta, temperature=temperature)


def learning(tensors):
    return [tensors[0].requires_grad_(), tensors[1].requires_grad_(), *tensors[2:]]


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.0])
@pytest.mark.parametrize("beta", BETAS)
def test_loss_and_gradients_are_the_formulas_written_out(rows_at_once, beta, temperature):
    rows, columns = aligned(ROWS)
    tensors, exact = models(columns), in_float64(models(columns))
    dense_C, remainder_C, _ = reference(exact, columns, vocabulary(), beta, temperature)
    assert remainder_C.count_nonzero() >= 6
    (dense_C.sum() + remainder_C.sum()).backward()
    loss, sums, by_chunk_C = loss_of(learning(tensors), rows, Roots(vocabulary()), beta, temperature)
    (loss / 3).backward()
    close(loss, dense_C.sum() + remainder_C.sum())
    close(by_chunk_C, dense_C + remainder_C)
    close(sums["loss/dense"], dense_C.sum())
    close(sums["loss/remainder"], remainder_C.sum())
    close(tensors[0].grad, exact[0].grad / 3)
    close(tensors[1].grad, exact[1].grad / 3)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_what_is_reported_is_at_temperature_one(rows_at_once, temperature):
    rows, columns = aligned(ROWS)
    tensors = models(columns)
    _, sums, _ = loss_of(tensors, rows, Roots(vocabulary()), 1.0, temperature)
    hidden, weight, teacher_hidden, teacher_weight = in_float64(tensors)
    laws = (hidden @ weight.T).softmax(-1), (teacher_hidden @ teacher_weight.T).softmax(-1)
    chunks = [np.concatenate(columns[side]) for side in (2, 3)]
    ids = [torch.tensor([i for row in columns[side] for i in row]) for side in (0, 1)]
    starts = []
    for side, name in enumerate(("student", "teacher")):
        new = [i for i, c in enumerate(chunks[side]) if c >= 0 and (i == 0 or c != chunks[side][i - 1])]
        starts.append(laws[side][new])
        known = torch.tensor(
            np.array([token[0] != "<" and token in STUDENT and token in TEACHER for token in (STUDENT, TEACHER)[side]])
        )
        close(sums[f"shared_mass_{name}"], starts[side][:, known].sum())
        in_chunk = torch.tensor(chunks[side] >= 0)
        close(sums[f"nats_{name}"], -laws[side].gather(1, ids[side][:, None])[in_chunk].log().sum())
    close(sums["entropy"], -(starts[0] * starts[0].log()).sum())
    reverse_C, _, _ = reference(in_float64(tensors), columns, vocabulary(), 1.0, 1.0)
    close(sums["reverse_kl"], reverse_C.sum())


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("beta", BETAS)
def test_with_equal_tokenizers_it_is_the_ordinary_loss(beta, temperature):
    rows, columns = same_tokens()
    tensors, expected = models(columns, teacher=STUDENT), models(columns, teacher=STUDENT)
    expected = learning(expected)
    laws = [(hidden @ weight.T / temperature).log_softmax(-1) for hidden, weight in (expected[:2], expected[2:])]
    divergence_S = divergence(*laws, beta)
    divergence_S.mean().backward()
    loss, sums, by_chunk_C = loss_of(learning(tensors), rows, Roots(identity()), beta, temperature)
    (loss / len(by_chunk_C)).backward()
    close(loss / len(by_chunk_C), divergence_S.mean(), 1e-6)
    close(by_chunk_C, divergence_S, 1e-6)
    close(tensors[0].grad, expected[0].grad, 1e-6)
    close(tensors[1].grad, expected[1].grad, 1e-6)
    assert sums["loss/remainder"] == 0 and sums["root_agreement"] == len(by_chunk_C)


@pytest.mark.parametrize("spread", [30.0, 1000.0])
@pytest.mark.parametrize("beta", BETAS)
def test_models_that_are_certain_make_no_nan(beta, spread):
    rows, columns = aligned(ROWS)
    tensors = models(columns, spread=spread**0.5)
    loss, sums, by_chunk_C = loss_of(learning(tensors), rows, Roots(vocabulary()), beta)
    loss.backward()
    finite = [loss, by_chunk_C, tensors[0].grad, tensors[1].grad, *sums.values()]
    assert all(torch.isfinite(each).all() for each in finite)
    assert loss > 1


def test_the_gradient_by_a_row_is_bounded_however_certain_the_student_is():
    rows, columns = aligned([["12", " ", END]])
    weight, teacher_weight = torch.zeros(len(STUDENT), 3), torch.zeros(len(TEACHER), D)
    weight[STUDENT.index("12"), 0] = weight[STUDENT.index(" "), 1] = 80.0
    tensors = learning([torch.eye(3), weight, models(columns)[2], teacher_weight])
    loss, sums, _ = loss_of(tensors, rows, Roots(vocabulary()))
    loss.backward()
    assert 60 < sums["loss/remainder"] < 80
    # The teacher writes "2" after "1" with probability 0.1, and no digit after it with 0.8. The student's doubts are
    # shared out as 2 : 6: two other tokens of the root against "12", and six tokens of digits against " ".
    assert weight.grad[STUDENT.index("12"), 0].item() == pytest.approx(0.92 * 2 / 8, abs=1e-4)
    assert weight.grad[STUDENT.index(" "), 1].item() == pytest.approx(0.92 * 6 / 8, abs=1e-4)


def test_no_more_logits_are_there_at_once_than_a_block_has(monkeypatch):
    monkeypatch.setattr(linear_module, "CHUNK_LOGITS", 2 * len(STUDENT))
    shapes, finish = [], Head.finish
    monkeypatch.setattr(Head, "finish", lambda head, products: shapes.append(products.shape) or finish(head, products))
    rows, columns = aligned(ROWS)
    loss_of(learning(models(columns)), rows, Roots(vocabulary()))
    assert {len(TEACHER), len(STUDENT)} == {shape[1] for shape in shapes}
    assert max(rows * width for rows, width in shapes) <= 2 * len(STUDENT)


def test_a_wide_teacher_makes_the_blocks_smaller(monkeypatch):
    """Their size is that of the wider of the two, here 14 of the teacher beside 10 of the student."""
    monkeypatch.setattr(linear_module, "CHUNK_LOGITS", 3 * len(TEACHER))
    shapes, finish = [], Head.finish
    monkeypatch.setattr(Head, "finish", lambda head, products: shapes.append(products.shape) or finish(head, products))
    sides = {"student": TEACHER, "teacher": STUDENT}
    rows, columns = aligned([["1", "2", "a", "b", "c", " ", "a", END]], **sides)
    loss_of(learning(models(columns, **sides)), rows, Roots(vocabulary(**sides)))
    assert max(rows * width for rows, width in shapes) <= 3 * len(TEACHER)


def test_shared_mass_keeps_its_digits_under_autocast():
    rows, columns = aligned(ROWS)
    hidden, weight, teacher_hidden, teacher_weight = (each.bfloat16().float() for each in models(columns))
    one_hot = [torch.eye(D)[torch.arange(len(each)) % D] for each in (hidden, teacher_hidden)]
    tensors = [one_hot[0], weight, one_hot[1], teacher_weight]  # products that bfloat16 can hold
    _, expected, _ = loss_of(tensors, rows, Roots(vocabulary()))
    with torch.autocast("cpu", torch.bfloat16):
        _, sums, _ = loss_of(tensors, rows, Roots(vocabulary()))
    for name in ("nats_student", "shared_mass_student", "shared_mass_teacher"):
        close(sums[name], expected[name])


def test_a_micro_batch_without_chunks_has_loss_zero():
    rows, columns = aligned([[PAD]])
    tensors = models(columns)
    loss, sums, by_chunk_C = loss_of(learning(tensors), rows, Roots(vocabulary()))
    loss.backward()
    assert loss == 0 and len(by_chunk_C) == 0 and not tensors[0].grad.any()
    assert sums["loss/remainder"] == sums["nats_student"] == 0


def test_the_policy_gradient_weighs_every_token_by_the_log_ratio_of_its_chunk(rows_at_once):
    rows, columns = aligned(ROWS)
    tensors, exact = models(columns, spread=1.5), in_float64(models(columns, spread=1.5))
    *_, ratio_C = reference(exact, columns, vocabulary(), 1.0, 1.0)
    ratio_C = ratio_C.detach()
    assert (ratio_C.abs() > 10).any() and (ratio_C == 0).any()
    logprobs_SV = (exact[0] @ exact[1].T).log_softmax(-1)
    firsts = np.cumsum([0, *map(len, columns[4])])[:-1]
    chunk_S = np.concatenate(
        [np.where(row < 0, -1, row + first) for row, first in zip(columns[2], firsts, strict=True)]
    )
    ids_S = [i for row in columns[0] for i in row]
    expected = -sum(
        ratio_C[c].clamp(-10, 10) * logprobs_SV[place, i]
        for place, (i, c) in enumerate(zip(ids_S, chunk_S, strict=True))
        if c >= 0
    )
    expected.backward()
    hidden, weight, teacher_hidden, teacher_weight = learning(tensors)
    loss, sums, by_chunk_C = aligned_policy_gradient(
        hidden, Head(weight), teacher_hidden, Head(teacher_weight), rows, Roots(vocabulary())
    )
    loss.backward()
    close(hidden.grad, exact[0].grad, 1e-4)
    close(weight.grad, exact[1].grad, 1e-4)
    close(by_chunk_C, -ratio_C)
    close(sums["reverse_kl"], -ratio_C.sum())


# Perfect models of one law of texts, told apart by their tokenizers alone: numbers of up to five digits, and what
# follows. The hidden state of a row is the one of its prefix.

NUMBERS = {"1": 5, "2": 2, "12": 6, "11": 1, "21": 2, "121": 3, "212": 1, "2112": 2, "12121": 1, "22": 0.01}
LAW = {
    f"{number}{after}": weight * share
    for number, weight in NUMBERS.items()
    for after, share in (("a", 0.3), (" ", 0.7))
}


class Perfect:
    """The next-token law of a tokenizer after every prefix of a text of `LAW`."""

    def __init__(self, tokens):
        self.tokens = tokens
        self.texts = {text: (*longest_first(tokens, text), tokens.index(END)) for text in LAW}
        self.prefixes = sorted({ids[:n] for ids in self.texts.values() for n in range(len(ids))})
        law = torch.zeros(len(tokens), len(self.prefixes), dtype=torch.float64)
        for text, ids in self.texts.items():
            for n, i in enumerate(ids):
                law[i, self.prefixes.index(ids[:n])] += LAW[text]
        self.weight = (law / law.sum(0)).clamp(min=1e-30).log().float()
        """Logits by prefix: the head, for hidden states that say which prefix it is."""

    def hidden(self, rows):
        places = [self.prefixes.index(tuple(ids[:n])) for ids in rows for n in range(len(ids))]
        return torch.eye(len(self.prefixes))[places]

    def several_digits(self, weight):
        """The probability that the text begins with a token of several digits."""
        several = torch.tensor([token.isdigit() and len(token) > 1 for token in self.tokens])
        return weight.softmax(0)[several, self.prefixes.index(())].sum().item()


def of_perfect(texts, student, teacher, weight):
    split = [[student.tokens[i] for i in student.texts[text]] for text in texts]
    rows, columns = aligned(split, student.tokens, teacher.tokens)
    return rows, [student.hidden(columns[0]), weight, teacher.hidden(columns[1]), teacher.weight]


PAIRS = {"student in twos": (STUDENT, TEACHER), "teacher in twos": (TEACHER, STUDENT)}


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_perfect_models_have_loss_and_gradient_zero_on_every_text(pair, beta, temperature):
    student, teacher = map(Perfect, pair)
    roots = Roots(vocabulary(*pair))
    for text in LAW:
        weight = student.weight.clone().requires_grad_()
        rows, tensors = of_perfect([text], student, teacher, weight)
        loss, _, by_chunk_C = loss_of(tensors, rows, roots, beta, temperature)
        loss.backward()
        assert by_chunk_C.abs().max() < 1e-5 and weight.grad.abs().max() < 1e-5


@pytest.mark.parametrize("start", ["perfect", "as many digits as can be", "one digit at a time"])
def test_the_share_of_tokens_of_several_digits_goes_to_that_of_the_text_and_stays_there(start):
    student, teacher = Perfect(STUDENT), Perfect(TEACHER)
    roots = Roots(vocabulary())
    true = student.several_digits(student.weight)
    weight = student.weight.clone()
    for i, token in enumerate(STUDENT):
        if start != "perfect" and token.isdigit() and len(token) == (2 if start.startswith("one") else 1):
            weight[i] -= 3
    before = student.several_digits(weight)
    assert start == "perfect" or abs(before - true) > 0.25
    weight.requires_grad_()
    optimizer, generator = torch.optim.Adam([weight], lr=0.05), torch.Generator().manual_seed(0)
    texts = list(LAW)
    for _ in range(150):
        written = torch.stack([_path(student, text, weight) for text in texts]).softmax(0)
        chosen = written.multinomial(32, replacement=True, generator=generator)
        rows, tensors = of_perfect([texts[i] for i in chosen], student, teacher, weight)
        loss, *_ = loss_of(tensors, rows, roots, beta=1.0)
        optimizer.zero_grad()
        (loss / len(rows.next_C)).backward()
        optimizer.step()
    assert student.several_digits(weight.detach()) == pytest.approx(true, abs=0.02)


def _path(student, text, weight):
    """The log-probability of a text as the student writes it."""
    ids = student.texts[text]
    logprobs = weight.detach().log_softmax(0)
    return sum(logprobs[i, student.prefixes.index(ids[:n])] for n, i in enumerate(ids))


def test_where_the_student_should_say_two_digits_the_gradient_raises_them():
    student, teacher = Perfect(STUDENT), Perfect(TEACHER)
    weight = student.weight.clone()
    weight[STUDENT.index("12")] -= 4
    weight.requires_grad_()
    rows, tensors = of_perfect(["12 "], student, teacher, weight)
    loss_of(tensors, rows, Roots(vocabulary()), beta=1.0)[0].backward()
    at = student.prefixes.index(())
    assert weight.grad[STUDENT.index("12"), at] < -0.1
    assert weight.grad[STUDENT.index("1"), at] > 0
