"""`align` against the definition of `alignment_reference.py`, on adversarial rows, and its other promises."""

from functools import cache
from itertools import permutations

import numpy as np
import pytest
from alignment_reference import END_OF_TURN, REAL, TINY, Side, aligned_row, real_side, tiny_side, tiny_tokenizer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atlas.errors import RunFailed
from atlas.training.alignment.align import Aligner, Alignment, align
from atlas.training.alignment.byte_table import byte_table

FRAGMENTS = [
    *[
        "1250",
        "7",
        " 48/2 = <<48/2=24>>24",
        "٣٤",
        "½",
        "1,000.50",
        "#### 72\n",
        "the apples",
        " cost",
        "don't",
        "HELLO",
    ],
    *[
        "小明有12个苹果，他给了",
        "ภาษาไทย",
        "👩‍👩‍👧‍👦",
        "🏳️‍🌈",
        "\\frac{1}{2}\\sqrt{x^2}",
        "def f(x):\n    return x\n",
        "한국어",
    ],
    *[
        "  ",
        "   \n\n\t ",
        " ",
        "\r\n",
        "\u3000",
        "Cafe\u0301",
        "Café",
        "\u0065\u0301\u0323",
        "\ufb01",
        "ｆｕｌｌ",
        "▁",
        "a▁▁b",
        " ▁",
    ],
    *[
        "<|im_end|>",
        "<eos>",
        "<|eot_id|>",
        "<end_of_turn>",
        "<0x41>",
        "<tool_call>",
        "<call>",
        "<table>",
        "\x00",
        "\x04",
    ],
    *["\U000e0067", "\ufeff", "\u200b", "\U0010ffff", "a" * 40, "\n" * 5, " " * 17],
]
pieces = st.one_of(
    st.sampled_from(FRAGMENTS).map(str.encode),
    st.sampled_from(FRAGMENTS).flatmap(lambda text: st.integers(0, 8).map(lambda n: text.encode()[: -n or None])),
    st.sampled_from(FRAGMENTS).flatmap(lambda text: st.integers(0, 8).map(lambda n: text.encode()[n:])),
    st.binary(min_size=1, max_size=5),
    st.text(max_size=6).map(str.encode),
)
cuts = st.lists(st.integers(1, 7), min_size=1, max_size=4)


def rows_of(side: Side):
    """Sampled rows: canonical and oddly split text, any tokens, control tokens anywhere, ends missing."""

    def split(data: bytes, sizes: list[int]) -> list[int]:
        """Ids of the data, cut into stretches that are encoded apart."""
        stretches, position = [], 0
        while position < len(data):
            size = sizes[len(stretches) % len(sizes)]
            stretches.append(data[position : position + size])
            position += size
        return [i for ids in side.encoder(stretches) for i in ids]

    text = pieces.map(lambda data: side.encoder([data])[0])
    oddly = st.builds(split, pieces, cuts)
    tokens = st.lists(st.sampled_from(side.texts), max_size=4)
    control = st.sampled_from(side.controls).map(lambda i: [i])
    eot = st.sampled_from(sorted(side.table.eot)).map(lambda i: [i])
    parts = st.lists(st.one_of(text, text, oddly, tokens, control, eot), max_size=6)
    return st.builds(lambda parts, end: [i for part in parts for i in part] + end, parts, st.one_of(eot, st.just([])))


@cache
def aligner(student: Side, teacher: Side) -> Aligner:
    return Aligner(student.table, teacher.table, student.tokenizer, teacher.tokenizer)


def check(rows: list[list[int]], student: Side, teacher: Side) -> None:
    """The rows come out as defined, each as if it were alone, and as the contract of `Alignment` promises."""
    aligned = aligner(student, teacher)(rows)
    for r, ids in enumerate(rows):
        expected = aligned_row(ids, student.table, teacher.table, teacher.speller)
        assert aligned.teacher_ids[r] == expected.teacher_ids
        assert aligned.student_chunk[r].tolist() == expected.student_chunk
        assert aligned.teacher_chunk[r].tolist() == expected.teacher_chunk
        check_promises(ids, aligned, r, student, teacher)
    tokens = sum(map(len, rows))
    covered = sum((row >= 0).sum() for row in aligned.student_chunk)
    assert aligned.figures["coverage"] == pytest.approx(covered / tokens if tokens else 1)
    canonical = np.concatenate([np.ones(0, bool), *aligned.canonical])
    assert aligned.figures["noncanonical"] == pytest.approx((~canonical).mean() if len(canonical) else 0)


def check_promises(ids: list[int], aligned: Alignment, r: int, student: Side, teacher: Side) -> None:
    student_chunk, teacher_chunk = aligned.student_chunk[r], aligned.teacher_chunk[r]
    chunks = [np.flatnonzero(student_chunk == c) for c in range(student_chunk.max(initial=-1) + 1)]
    assert len(aligned.canonical[r]) == len(aligned.closes_number[r]) == len(chunks)
    assert (teacher_chunk >= 0).all() and (np.diff(teacher_chunk) >= 0).all()
    written = []
    for c, tokens in enumerate(chunks):
        mine = [ids[i] for i in tokens]
        its = [i for i, chunk in zip(aligned.teacher_ids[r], teacher_chunk.tolist(), strict=True) if chunk == c]
        if set(mine) & student.table.eot:
            assert len(mine) == 1 and its == [teacher.table.end_of_turn]
            written.append(b"")
            continue
        parts = [[side.table.bytes_V[i] for i in half] for side, half in ((student, mine), (teacher, its))]
        assert b"".join(parts[0]) == b"".join(parts[1]) != b""
        inner = [{len(b"".join(half[: n + 1])) for n in range(len(half) - 1)} for half in parts]
        assert not inner[0] & inner[1], "not minimal"
        assert (np.diff(tokens) == 1).all(), "goes across a masked token"
        written.append(b"".join(parts[0]))
    for c, closes in enumerate(aligned.closes_number[r].tolist()):
        follows = c + 1 < len(chunks) and chunks[c + 1][0] == chunks[c][-1] + 1
        assert closes == (written[c][-1:].isdigit() and follows and not written[c + 1][:1].isdigit())
    # The definition of canonical, from the whole text of a segment.
    for c, tokens in enumerate(chunks):
        expected = all(i in student.table.eot or own(ids, n, student) for n, i in ((n, ids[n]) for n in tokens))
        assert aligned.canonical[r][c] == expected


def own(ids: list[int], n: int, side: Side) -> bool:
    """Whether the tokenizer, asked for the segment of token n, answers with this token at this place."""
    first, last = n, n
    while first > 0 and side.table.bytes_V[ids[first - 1]] is not None:
        first -= 1
    while last + 1 < len(ids) and side.table.bytes_V[ids[last + 1]] is not None:
        last += 1
    segment = [side.table.bytes_V[i] for i in ids[first : last + 1]]
    return side.id_at(b"".join(segment)).get(len(b"".join(segment[: n - first]))) == ids[n]


def sides(student: str, teacher: str) -> tuple[Side, Side]:
    return tiny_side(student), tiny_side(teacher)


def batches(side: Side):
    return st.lists(rows_of(side), max_size=4)


BOUNDED = {"derandomize": True, "deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}


@pytest.mark.parametrize(("student", "teacher"), permutations(TINY, 2))
def test_adversarial_rows_align_as_defined(student, teacher):
    pair = sides(student, teacher)

    @settings(max_examples=100, **BOUNDED)
    @given(batches(pair[0]))
    def aligns(rows):
        check(rows, *pair)

    aligns()


@pytest.mark.real
@pytest.mark.parametrize(
    ("student", "teacher"),
    [pytest.param(*pair, marks=pytest.mark.slow if "gemma-3" in pair else ()) for pair in permutations(REAL, 2)],
)
def test_adversarial_rows_of_real_tokenizers_align_as_defined(student, teacher, shared):
    pair = real_side(student, shared), real_side(teacher, shared)

    @settings(max_examples=60, **BOUNDED)
    @given(batches(pair[0]))
    def aligns(rows):
        check(rows, *pair)

    aligns()


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(("student", "teacher"), permutations(REAL, 2))
def test_thousands_of_adversarial_rows_align_as_defined(student, teacher, shared):
    pair = real_side(student, shared), real_side(teacher, shared)

    @settings(max_examples=1000, **BOUNDED)
    @given(batches(pair[0]))
    def aligns(rows):
        check(rows, *pair)

    aligns()


@pytest.mark.parametrize("name", TINY)
def test_a_tokenizer_faces_itself_one_to_one(name):
    side = tiny_side(name)
    ids = [*side.encoder([b"the apples cost 1"])[0], side.table.end_of_turn]
    aligned = align([ids, []], side.tokenizer, side.tokenizer)
    assert aligned.teacher_ids == [ids, []]
    assert aligned.figures["one_to_one"] == aligned.figures["coverage"] == 1


@pytest.mark.parametrize("rows", [[], [[]], [[], []]])
def test_nothing_aligns_with_nothing(rows):
    aligned = align(rows, tiny_tokenizer("digits in threes"), tiny_tokenizer("sentencepiece"))
    assert aligned.teacher_ids == rows
    assert [row.tolist() for row in aligned.student_chunk] == [row.tolist() for row in aligned.canonical] == rows
    assert aligned.figures["coverage"] == aligned.figures["eot_aligned"] == 1


def test_rows_of_a_batch_do_not_touch_each_other():
    student, teacher = sides("digits in threes", "few bytes")
    rows = [student.encoder([text])[0] for text in (b"12", b"3 apples", "apples 小 cost".encode(), b"", b"the cost")]
    together = aligner(student, teacher)(rows)
    for r, row in enumerate(rows):
        alone = aligner(student, teacher)([row])
        assert together.teacher_ids[r] == alone.teacher_ids[0]
        assert together.student_chunk[r].tolist() == alone.student_chunk[0].tolist()
        assert together.closes_number[r].tolist() == alone.closes_number[0].tolist()


def test_the_row_is_cut_where_the_teacher_lacks_a_byte():
    student, teacher = sides("digits in threes", "few bytes")
    [eot] = student.table.eot
    ids = [*student.encoder(["apples 小 cost".encode()])[0], eot]
    aligned = aligner(student, teacher)([ids, [eot]])
    spoken = b"".join(teacher.table.bytes_V[i] for i in aligned.teacher_ids[0])
    assert b"apples".startswith(spoken.rstrip()) and spoken
    assert aligned.student_chunk[0][-1] == -1 and aligned.student_chunk[1].tolist() == [0]
    assert aligned.figures["coverage"] < 1 and aligned.figures["eot_aligned"] == 0.5


def closed(text: str, *, eot: bool) -> list[bool]:
    student, teacher = sides("digits in threes", "digits one by one")
    ids = student.encoder([text.encode()])[0] + sorted(student.table.eot) * eot
    return aligner(student, teacher)([ids]).closes_number[0].tolist()


def test_a_number_is_closed_by_what_follows_and_open_at_a_cut_end():
    assert closed("12", eot=True) == [True, False]
    assert closed("12", eot=False) == [False]
    assert closed("1250.", eot=False) == [False, True, False]


def test_a_hole_leaves_a_number_open():
    student, teacher = sides("digits in threes", "digits one by one")
    hole = student.tokenizer.convert_tokens_to_ids("<tool>")
    ids = [*student.encoder([b"12"])[0], hole, *student.encoder([b"24."])[0]]
    aligned = aligner(student, teacher)([ids])
    assert aligned.student_chunk[0].tolist() == [0, -1, 1, 2]
    assert aligned.closes_number[0].tolist() == [False, True, False]
    assert aligned.figures["holes"] == 1 and aligned.figures["coverage"] == 0.75


def test_digits_sampled_one_by_one_are_not_canonical():
    student, teacher = sides("digits in threes", "digits one by one")
    ids = student.encoder([b"1", b"2", b"5", b" apples"])
    aligned = aligner(student, teacher)([[i for row in ids for i in row]])
    chunks = aligned.student_chunk[0].max() + 1
    assert aligned.canonical[0].tolist() == [False] * 3 + [True] * (chunks - 3)


@pytest.mark.parametrize("wrong", [-1, 10**6])
def test_an_id_beyond_the_vocabulary_is_named(wrong):
    with pytest.raises(RunFailed, match=f"completion 1 holds the id {wrong}, .* has the ids 0 to "):
        align([[5], [5, wrong]], tiny_tokenizer("digits in threes"), tiny_tokenizer("sentencepiece"))


def test_a_tokenizer_that_changes_in_place_is_read_again():
    tokenizer, teacher = TINY["sentencepiece"](), tiny_tokenizer("digits in threes")
    align([[]], tokenizer, teacher)
    tokenizer.add_tokens(["zebra"])
    aligned = align([[tokenizer.convert_tokens_to_ids("zebra")]], tokenizer, teacher)
    assert aligned.figures["coverage"] == 1
    assert b"".join(byte_table(teacher).bytes_V[i] for i in aligned.teacher_ids[0]) == b"zebra"


@pytest.mark.real
@pytest.mark.parametrize("name", [pytest.param(i, marks=pytest.mark.slow if i == "gemma-3" else ()) for i in REAL])
def test_real_turns_end_as_their_chats_do(name, shared):
    assert real_side(name, shared).table.end_of_turn == END_OF_TURN[name]
