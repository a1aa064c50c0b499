"""The map of two vocabularies onto roots: small byte-level tokenizers made by hand, and the real ones where present."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from atlas.training.alignment import vocabulary as module
from atlas.training.alignment.byte_table import byte_table
from atlas.training.alignment.vocabulary import vocabulary_map

REAL = Path(__file__).resolve().parents[4] / "shared" / "tokenizers"


def tokenizer(merges, digits=r"\d", control=("<end>",), missing=""):
    """Byte-level BPE with these merges, which reads numbers in runs of `digits`. The first of `control` ends a turn."""
    characters = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(missing))
    tokens = [*characters, *("".join(merge) for merge in merges)]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    backend = Tokenizer(models.BPE(vocabulary, merges))
    split = pre_tokenizers.Split(Regex(rf"{digits}| ?[a-z]+|[\s\S]"), behavior="isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    backend.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=control[0])
    made.add_special_tokens({"additional_special_tokens": list(control[1:])})
    return made


def word(text):
    """The merges that make a word, letter by letter."""
    return [(text[:n], text[n]) for n in range(1, len(text))]


NUMBERS = [("1", "2"), ("1", "1"), ("12", "1")]
STUDENT = tokenizer([*word("foobar"), *word("ba"), *NUMBERS], digits=r"\d{1,3}", control=("<end>", "<pad>"))
TEACHER = tokenizer([*word("foo"), *word("bar"), *word("quux")], control=("<stop>", "<bos>", "<sep>"))


def of(student, teacher, cache=None):
    return vocabulary_map(student, teacher, byte_table(student), byte_table(teacher), cache)


def root(made, side, token):
    ids = {"student": STUDENT, "teacher": TEACHER}[side].get_vocab()
    return getattr(made, f"{side}_root")[ids[token]]


def same(a, b):
    return all(np.array_equal(getattr(a, field.name), getattr(b, field.name)) for field in fields(a))


def test_a_token_of_both_is_its_own_root():
    made = of(STUDENT, TEACHER)
    for token in ("f", "fo", "foo", "ba", "Ġ"):
        assert root(made, "student", token) == root(made, "teacher", token)
    assert len({root(made, "student", token) for token in ("f", "fo", "foo", "ba", "Ġ")}) == 5


def test_a_token_of_one_side_has_the_root_of_what_the_other_begins_it_with():
    made = of(STUDENT, TEACHER)
    assert root(made, "student", "foobar") == root(made, "teacher", "foo")  # foo, bar
    assert root(made, "teacher", "bar") == root(made, "student", "ba")  # ba, r
    assert root(made, "teacher", "quux") == root(made, "student", "q")
    for number in ("12", "11", "121"):
        assert root(made, "student", number) == root(made, "teacher", "1")


def test_a_root_is_looked_up_on_either_side_in_turn_until_both_have_it():
    student = tokenizer([("a", "b"), ("ab", "c")])
    teacher = tokenizer([("b", "c"), ("bc", "d"), ("a", "bcd")])
    made = of(student, teacher)
    # The student begins "abcd" with "abc", which only it has; that the teacher begins with "a".
    assert made.teacher_root[teacher.get_vocab()["abcd"]] == made.student_root[student.get_vocab()["a"]]


@pytest.mark.parametrize("pair", [(STUDENT, TEACHER), (TEACHER, STUDENT), (STUDENT, STUDENT)])
def test_every_id_has_a_root_and_every_root_an_id_on_both_sides(pair):
    made = of(*pair)
    for side, each in zip(("student", "teacher"), pair, strict=True):
        roots = getattr(made, f"{side}_root")
        assert roots.dtype == np.int32 and len(roots) == len(each)
        assert set(roots.tolist()) == set(range(made.roots))
    assert len(made.digit) == made.roots


def test_a_root_is_the_start_of_every_token_that_has_it():
    made, tables = of(STUDENT, TEACHER), (byte_table(STUDENT), byte_table(TEACHER))
    shortest = {}
    for roots, table in zip((made.student_root, made.teacher_root), tables, strict=True):
        for i, token in enumerate(table.bytes_V):
            if token and len(token) < len(shortest.get(roots[i], token + b" ")):
                shortest[roots[i]] = token
    for roots, table in zip((made.student_root, made.teacher_root), tables, strict=True):
        for i, token in enumerate(table.bytes_V):
            assert token is None or token.startswith(shortest[roots[i]])


def test_ends_of_a_turn_are_one_root_and_other_control_tokens_another():
    made = of(STUDENT, TEACHER)
    assert root(made, "student", "<end>") == root(made, "teacher", "<stop>") == made.eot_root
    others = [root(made, "student", "<pad>"), root(made, "teacher", "<bos>"), root(made, "teacher", "<sep>")]
    assert set(others) == {made.other_root} and made.other_root != made.eot_root


def test_where_only_one_side_has_other_tokens_they_end_the_turn_so_that_nothing_is_impossible():
    student, teacher = tokenizer([], control=("<end>", "<pad>")), tokenizer([("a", "b")])
    made = of(student, teacher)
    assert made.other_root == made.eot_root
    assert made.student_root[student.get_vocab()["<pad>"]] == made.eot_root
    assert set(made.teacher_root.tolist()) == set(range(made.roots))


def test_what_the_other_side_cannot_spell_is_other():
    student, teacher = (
        tokenizer([("q", "x")], control=("<end>", "<pad>")),
        tokenizer([], control=("<end>", "<pad>"), missing="q"),
    )
    made = of(student, teacher)
    assert (
        made.student_root[student.get_vocab()["q"]] == made.student_root[student.get_vocab()["qx"]] == made.other_root
    )
    assert set(made.teacher_root.tolist()) == set(range(made.roots))


def test_with_one_tokenizer_on_both_sides_every_id_is_its_own_root():
    made = of(STUDENT, STUDENT)
    assert np.array_equal(made.student_root, np.arange(len(STUDENT)))
    assert np.array_equal(made.teacher_root, made.student_root)
    assert made.roots == len(STUDENT) and not made.digits_differ
    assert made.eot_root == STUDENT.eos_token_id


def test_digits_are_the_roots_that_start_with_one():
    made = of(STUDENT, TEACHER)
    digits = {root(made, "student", character) for character in "0123456789"}
    assert set(np.flatnonzero(made.digit).tolist()) == digits


def test_digits_differ_where_numbers_are_split_differently():
    assert of(STUDENT, TEACHER).digits_differ and of(TEACHER, STUDENT).digits_differ
    ones = tokenizer([*word("foobar")])
    assert not of(ones, TEACHER).digits_differ


def test_figures_are_shares_of_each_side():
    figures = of(STUDENT, TEACHER).figures
    shared = 256 + 3  # fo, foo, ba
    assert figures["roots"] == shared + 2
    for side, size in (("student", 256 + 5 + 1 + 3), ("teacher", 256 + 2 + 2 + 3)):
        assert figures[f"vocab_overlap_bytes_{side}"] == pytest.approx(shared / size)
        assert figures[f"vocab_overlap_strings_{side}"] == pytest.approx(shared / size)


def test_it_is_read_from_the_cache_without_encoding_anything(tmp_path, monkeypatch):
    made = of(STUDENT, TEACHER, tmp_path)
    (file,) = [each for each in tmp_path.rglob("*") if each.is_file()]
    assert file.suffix == ".npz" and file.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(module, "Encoder", None)
    assert same(of(STUDENT, TEACHER, tmp_path), made)


def damaged(content):
    middle = len(content) // 2
    return content[:middle] + bytes(byte ^ 0xFF for byte in content[middle : middle + 40]) + content[middle + 40 :]


@pytest.mark.parametrize("damage", [damaged, lambda content: content[:100], lambda content: b"", lambda content: b"{}"])
def test_a_broken_cache_file_is_made_anew(tmp_path, damage, caplog):
    made = of(STUDENT, TEACHER, tmp_path)
    (file,) = [each for each in tmp_path.rglob("*") if each.is_file()]
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert same(of(STUDENT, TEACHER, tmp_path), made)
    assert file.name in caplog.text
    assert same(of(STUDENT, TEACHER, tmp_path), made) and len(file.read_bytes()) == len(whole)


def test_a_cache_file_of_other_tokenizers_is_made_anew(tmp_path, caplog):
    made = of(STUDENT, TEACHER, tmp_path)
    (file,) = [each for each in tmp_path.rglob("*") if each.is_file()]
    of(TEACHER, STUDENT, tmp_path / "other")
    (foreign,) = [each for each in (tmp_path / "other").rglob("*") if each.is_file()]
    file.write_bytes(foreign.read_bytes())
    assert same(of(STUDENT, TEACHER, tmp_path), made)
    assert "of other tokenizers" in caplog.text


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    made = of(STUDENT, TEACHER, tmp_path / "file")
    assert same(made, of(STUDENT, TEACHER)) and "could not keep" in caplog.text


@pytest.mark.real
def test_llama_and_qwen_have_the_roots_that_they_had_when_this_was_designed():
    if not REAL.is_dir():
        pytest.skip(f"no tokenizers in {REAL}")
    llama, qwen = (AutoTokenizer.from_pretrained(REAL / name) for name in ("llama-3.2", "qwen2.5"))
    made = of(llama, qwen)
    assert made.roots == 109_566 + 2  # shared by bytes; ends of turn, others
    assert made.digits_differ and made.digit.sum() == 10
    for text in ("16", "160", "1"):
        assert made.student_root[llama.get_vocab()[text]] == made.teacher_root[qwen.get_vocab()["1"]]
    assert made.figures["vocab_overlap_bytes_student"] == pytest.approx(0.856, abs=1e-3)
