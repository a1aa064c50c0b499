"""`atlas tokenizers`: on tiny tokenizers made here, and on real ones where they are present."""

import json
import re

import pytest
from command_line import atlas
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

DIGITS = [("1", "2"), ("12", "5"), ("4", "2")]


def byte_level(folder, merges=(), digits=r"\d", end="<end>", missing=""):
    """A byte-level BPE with these merges, which reads numbers in runs of `digits`."""
    characters = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(missing))
    vocabulary = {token: i for i, token in enumerate([*characters, *("".join(merge) for merge in merges)])}
    backend = Tokenizer(models.BPE(vocabulary, list(merges)))
    split = pre_tokenizers.Split(Regex(rf"{digits}| ?[a-z]+|[\s\S]"), behavior="isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    backend.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=end).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    home = tmp_path_factory.mktemp("tokenizers")
    return {
        "threes": byte_level(home / "threes", [*DIGITS, ("a", "b")], digits=r"\d{1,3}"),
        "ones": byte_level(home / "ones", [("a", "b")], end="<stop>"),
        "no z": byte_level(home / "no_z", [("a", "b")], missing="z"),
        "zz": byte_level(home / "zz", [("z", "z")]),
    }


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ATLAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compared(*arguments):
    output = atlas("tokenizers", *arguments, "--json")
    return json.loads(output[output.index("{") : output.rindex("}") + 1])


def test_a_table_says_how_each_side_splits_numbers(folders):
    output = atlas("tokenizers", folders["threes"], folders["ones"])
    assert re.search(r"^125 +125 +1 \| 2 \| 5 *$", output, re.MULTILINE)
    assert re.search(r"^1234 +12 \| 3 \| 4 +1 \| 2 \| 3 \| 4 *$", output, re.MULTILINE)
    assert re.search(r"^ends a turn +<end> +<stop> *$", output, re.MULTILINE)
    assert "built-in sample of English, mathematics, code and other scripts" in output
    assert "They split numbers differently" in output


def test_figures_of_a_text_are_those_of_its_alignment(folders, home):
    (home / "text.txt").write_text("ab 125\r\n\r\nab\n \n42 7\n")
    found = compared(folders["threes"], folders["ones"], "--text", "text.txt")
    # "ab", " ", "125" | "ab" | "42", " ", "7"  against  "ab", " ", "1", "2", "5" | "ab" | "4", "2", " ", "7"
    assert (found["texts"], found["bytes"], found["chunks"], found["coverage"]) == (3, 12, 7, 1)
    assert (found["student"]["text_tokens"], found["teacher"]["text_tokens"]) == (7, 10)
    assert (found["student"]["shared_boundaries"], found["teacher"]["shared_boundaries"]) == (1, 0.7)
    assert (found["student"]["tokens_per_chunk"], found["teacher"]["tokens_per_chunk"]) == (1, pytest.approx(10 / 7))
    assert found["one_to_one"] == pytest.approx(5 / 7)
    assert found["student"]["overlap_bytes"] == pytest.approx(257 / 260) and found["teacher"]["overlap_bytes"] == 1
    assert found["digits_differ"] and found["roots"] == 257 + 1
    assert found["student"]["numbers"]["2024-11-22"][:2] == ["2", "0"]


def test_what_a_side_cannot_write_is_named(folders, home):
    (home / "text.txt").write_text("ab zz ab\n\nab")
    found = compared(folders["zz"], folders["no z"], "--text", "text.txt")
    assert found["student"]["other_cannot_write"] == ["z", "zz"] and found["teacher"]["other_cannot_write"] == []
    assert found["teacher"]["bytes_without_token"] == [ord("z")]
    assert found["coverage"] == pytest.approx((3 + 2) / (7 + 2))
    assert "bytes without a token   none   1: 0x7A" in " ".join(
        re.sub(" {3,}", "   ", atlas("tokenizers", folders["zz"], folders["no z"])).splitlines()
    )
    student_side = atlas("tokenizers", folders["no z"], folders["zz"], "--text", "text.txt")
    assert "The student writes 50.0 % of the sample's bytes" in student_side


def test_equal_tokenizers_need_no_alignment(folders):
    output = atlas("tokenizers", folders["ones"], folders["ones"])
    assert "They tokenize alike: gkd compares token by token, and nothing is aligned." in output
    assert compared(folders["ones"], folders["ones"])["difference"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "text.txt cannot be read: No such file or directory; expected a text file"),
        (b"", "text.txt is empty"),
        (b"\n \n", "text.txt is empty"),
        (b"ab\xff", "text.txt is not valid UTF-8 at byte 2"),
    ],
)
def test_a_text_that_cannot_be_read_is_refused(folders, home, text, message):
    if text is not None:
        (home / "text.txt").write_bytes(text)
    assert message in atlas("tokenizers", folders["ones"], folders["ones"], "--text", "text.txt", expect=2)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("./nowhere", "nowhere is not a directory"),
        ("s3://bucket/model", "STUDENT: expected a Hub id or a local path"),
        (".", "cannot be loaded"),
    ],
)
def test_a_model_that_cannot_be_read_is_refused(folders, model, message):
    assert message in atlas("tokenizers", model, folders["ones"], expect=2)


def test_a_tokenizer_without_known_bytes_is_refused(folders, home):
    backend = Tokenizer(models.WordPiece({"[UNK]": 0, "a": 1, "##b": 2}, unk_token="[UNK]"))
    backend.decoder = decoders.WordPiece()
    PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>").save_pretrained(home / "wordpiece")
    message = "does not say which bytes its token"
    assert message in atlas("tokenizers", "./wordpiece", folders["ones"], expect=2)


@pytest.mark.real
def test_llama_and_qwen_on_gsm8k_are_as_measured(shared, home):
    """docs/cross_tokenizer.md. The first 1,000 solutions of the training split, without calculator annotations."""
    folders = [shared / "tokenizers" / name for name in ("llama-3.2", "qwen2.5")]
    problems = shared / "data" / "gsm8k" / "train.jsonl"
    if not (all(folder.is_dir() for folder in folders) and problems.is_file()):
        pytest.skip(f"no tokenizers or no GSM8K in {shared}")
    solutions = [json.loads(line)["answer"] for line in problems.read_text().splitlines()[:1000]]
    (home / "text.txt").write_text("\n\n".join(re.sub(r"<<[^<>]*>>", "", solution) for solution in solutions))
    found = compared(*folders, "--text", "text.txt")
    assert 100 * found["student"]["overlap_bytes"] == pytest.approx(85.6, abs=0.05)
    assert 100 * found["student"]["shared_boundaries"] == pytest.approx(100.0, abs=0.05)
    assert 100 * found["teacher"]["shared_boundaries"] == pytest.approx(86.5, abs=0.05)
    assert 100 * found["one_to_one"] == pytest.approx(88.1, abs=0.05)
    assert found["coverage"] == 1 and found["digits_differ"]
