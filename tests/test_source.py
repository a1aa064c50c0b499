"""YAML text, `extends` and `--set` become one tree with positions, and bad text is explained."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.errors import AtlasError, SpecError, UsageError
from atlas.secrets import is_secret, names_secret, redact
from atlas.source import Source, read

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.chdir(tmp_path)

    def write(text: str | bytes, name: str = "a.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return Path(name)

    return write


def plain(source: Source) -> object:
    return source.root.plain()


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        ("1.", 1.0),
        (".5", 0.5),
        ("-3", -3),
        ("+3", 3),
        ("0", 0),
        ("0x1F", 31),
        ("0o17", 15),
        ("-.inf", -math.inf),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("null", None),
        ("", None),
        ("y", "y"),
        ("2024-01-01", "2024-01-01"),
        ("1:30:00", "1:30:00"),
        ("1_000", "1_000"),
        ("'no'", "no"),
        ('"012"', "012"),
        ("c1899de289a0", "c1899de289a0"),
    ],
)
def test_scalars_follow_the_core_schema(write: Write, written: str, value: object) -> None:
    got = plain(read(write(f"a: {written}\n")))["a"]  # type: ignore[index]
    assert (
        got == value
        and isinstance(got, str) == isinstance(value, str)
        and isinstance(got, bool) == isinstance(value, bool)
    )


def test_nan_is_read_as_nan(write: Write) -> None:
    value = read(write("a: .nan")).root.children["a"].value
    assert isinstance(value, float) and math.isnan(value)


@pytest.mark.parametrize("word", ["yes", "No", "ON", "off"])
def test_booleans_of_yaml_1_1_are_a_trap_that_says_both_meanings(write: Write, word: str) -> None:
    trap = read(write(f"a: {word}")).root.children["a"].trap or ""
    assert "got a boolean" in trap and "quote it" in trap and f'"{word}"' in trap
    assert ("true" if word.lower() in ("yes", "on") else "false") in trap


@pytest.mark.parametrize(("written", "meant"), [("012", "12"), ("-007", "-7"), ("000", "0")])
def test_leading_zeros_are_a_trap_that_says_what_to_write(write: Write, written: str, meant: str) -> None:
    trap = read(write(f"a: {written}")).root.children["a"].trap or ""
    assert "leading zero" in trap and f"write {meant}," in trap


SYNTAX = [
    ("", "the spec is empty"),
    ("# only a comment\n", "the spec is empty"),
    ("---\n", "the spec is empty"),
    ("- a\n- b\n", "a.yaml:1:1: the top level must be a mapping of keys, got a list"),
    ("just text\n", "the top level must be a mapping of keys, got a string"),
    ("null\n", "the top level must be a mapping of keys, got nothing (null)"),
    ("a: 1\n---\nb: 2\n---\nc: 3\n", "a.yaml:2:1: expected one document per file, found 3"),
    ("a: 1\nb: 2\na: 3\n", "a.yaml:3:1: duplicate key 'a'; first on line 1"),
    ("a: {b: 1, b: 2}\n", "a.yaml:1:11: duplicate key 'b'"),
    ("a: *s\n", "a.yaml:1:4: undefined alias *s on line 1"),
    ("a: &x [*x]\n", "recursive alias *x on line 1"),
    ("<<: {a: 1}\n", "use `extends: other.yaml`"),
    ("1: a\n", "a.yaml:1:1: expected a key that is text, got 1"),
    ("true: a\n", "expected a key that is text, got a boolean (true)"),
    ("? [a]\n: b\n", "expected a key that is text, got a list"),
    ("a: !!python/object/apply:os.system [ls]\n", "a.yaml:1:4: YAML tags are not allowed"),
    ("a: !!str 3\n", "YAML tags are not allowed"),
    ("a: !x!y 3\n", "YAML tags are not allowed"),
    ("a: 1\nb: 'x\n", "a.yaml:2:4: unterminated quote: the quote opened on line 2"),
    ('a: "x\nb: "y"\n', "unterminated quote: the one opened on line 1"),
    ('a: 1\nb: "C:\\data"\n', "unknown escape \\d in double quotes on line 2; use single quotes"),
    ('a: "\\xZZ"\n', "unknown escape"),
    ('a: "\\UFFFFFFFF"\n', "out of range"),
    ("a:\n\tb: 1\n", "a.yaml:2:1: a tab on line 2; YAML is indented with spaces"),
    ("a: b: c\n", "unexpected ':' on line 1"),
    ("a: [1, 2\n", "the bracket opened on line 1 is never closed; add ]"),
    ("a: {b: ${env:X}}\n", "quote ${env:NAME} inside brackets"),
    ("a: @x\n", "a value cannot start with @ on line 1; quote it"),
    ("a: 1\nfoo\nb: 2\n", "expected `key: value` on line 2"),
    ("a: \0\n", "a.yaml:1:4: the file holds the character U+0000 (NUL)"),
    ("a: \x1b[31m\n", "U+001B (control character)"),
    ("a: x\ufeffy\n", "U+FEFF (byte order mark)"),
    ("\xa0a: 1\n", "the key '\\xa0a' holds a character that cannot be seen"),
    (b"name: \xff\n", "not valid UTF-8: byte 6 is 0xff"),
    ("a: 1\n".encode("utf-16"), "not valid UTF-8"),
    ("a: " + "[" * 100_000, "nested deeper than 50 levels"),
    ("a: " + "{a: " * 10_000, "nested deeper than 50 levels"),
    ("a: [" + "1," * 100_000 + "]", "more than 10000 values"),
    ("a: " + "x" * 300_000, "larger than 262144 bytes"),
    ("%YAML " + "9" * 5000 + ".1\n---\na: 1\n", "out of range"),
]


@pytest.mark.parametrize(("text", "said"), SYNTAX, ids=[said[:40] for _, said in SYNTAX])
def test_bad_text_is_explained(write: Write, text: str | bytes, said: str) -> None:
    with pytest.raises(SpecError) as error:
        read(write(text))
    assert said in str(error.value)
    assert len(error.value.problems) == 1 and len(str(error.value)) < 400


@given(st.text(alphabet=st.sampled_from(list("ab:-[]{}&*!|>'\"%@`#,?<~ \n\t0123.\\")), max_size=40))
def test_any_text_is_read_or_refused_but_never_crashes(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text)
    try:
        assert isinstance(plain(read(path)), dict)
    except AtlasError as error:
        assert str(error)


def test_aliases_are_resolved(write: Write) -> None:
    assert plain(read(write("a: &x {b: 1}\nc: *x\n"))) == {"a": {"b": 1}, "c": {"b": 1}}


def test_aliases_that_expand_without_bound_are_refused(write: Write) -> None:
    laughs = "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    with pytest.raises(SpecError, match="more than 10000 values once aliases are written out"):
        read(write(laughs))


def test_aliases_that_nest_without_bound_are_refused(write: Write) -> None:
    chain = "a0: &a0 []\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 500))
    with pytest.raises(SpecError, match="nested deeper"):
        read(write(chain))


def test_a_byte_order_mark_at_the_start_is_no_part_of_the_first_key(write: Write) -> None:
    assert plain(read(write(b"\xef\xbb\xbfa: 1\n"))) == {"a": 1}


def test_a_file_that_is_not_there_is_a_usage_error(write: Write, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"missing\.yaml does not exist"):
        read("missing.yaml")
    with pytest.raises(UsageError, match="is a directory"):
        read(tmp_path)
    with pytest.raises(UsageError, match="cannot be read"):
        read("a\0b.yaml")
    with pytest.raises(UsageError, match="cannot be read"):
        read("~nobody-has-this-name/a.yaml")


def test_a_newer_version_is_the_only_problem(write: Write) -> None:
    with pytest.raises(SpecError) as error:
        read(write("version: 2\nwhat: ever\nname: no\n"))
    assert (
        str(error.value)
        == "a.yaml:1:10: version: spec version 2 is newer than this Atlas (0.1.0) reads (1); upgrade Atlas"
    )


def test_extends_merges_mappings_and_replaces_everything_else(write: Write) -> None:
    write("a: {b: 1, c: 2}\nlist: [1, 2]\nkept: x\n", "base/parent.yaml")
    child = write("extends: base/parent.yaml\na: {c: 3}\nlist: [9]\n")
    assert plain(read(child)) == {"a": {"b": 1, "c": 3}, "list": [9], "kept": "x"}


def test_a_changed_type_replaces_the_parents_mapping(write: Write) -> None:
    write("method: {type: gkd, beta: 0.5}\n", "parent.yaml")
    assert plain(read(write("extends: parent.yaml\nmethod: {type: grpo}\n"))) == {"method": {"type": "grpo"}}
    assert plain(read(write("extends: parent.yaml\nmethod: {type: gkd, lmbda: 1}\n"))) == {
        "method": {"type": "gkd", "beta": 0.5, "lmbda": 1}
    }


def test_null_removes_a_key_of_the_parent(write: Write) -> None:
    write("teacher: {model: a/b}\nkept: 1\n", "parent.yaml")
    assert plain(read(write("extends: parent.yaml\nteacher: null\n"))) == {"kept": 1}


def test_null_for_a_key_that_the_parent_lacks_is_kept_for_validation(write: Write) -> None:
    write("kept: 1\n", "parent.yaml")
    assert plain(read(write("extends: parent.yaml\nteachr: null\n"))) == {"kept": 1, "teachr": None}


def test_positions_and_folders_are_those_of_the_file_a_value_was_written_in(write: Write, tmp_path: Path) -> None:
    write("\ndataset: {path: data.jsonl}\n", "base/parent.yaml")
    source = read(write("extends: base/parent.yaml\nname: x\n"))
    assert str(source.problem("wrong", ("dataset", "path"))) == "base/parent.yaml:2:17: dataset.path: wrong"
    assert str(source.problem("wrong", ("name",))) == "a.yaml:2:7: name: wrong"
    assert source.root.plain()["dataset"]["path"].folder == tmp_path / "base"  # type: ignore[index]


def test_a_circle_of_files_is_refused_with_the_chain(write: Write) -> None:
    write("extends: b.yaml\n", "a.yaml")
    write("extends: c.yaml\n", "b.yaml")
    write("extends: b.yaml\n", "c.yaml")
    with pytest.raises(SpecError, match=r"c\.yaml:1:10: extends: .*b\.yaml -> c\.yaml -> b\.yaml"):
        read("a.yaml")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("nope.yaml", "nope.yaml does not exist"),
        (".", "is a directory"),
        ("[a.yaml]", "expected the path of one YAML file, got a list"),
        ("''", "expected the path of one YAML file"),
        ("", "expected the path of one YAML file, got nothing"),
        ("${env:HOME}/a.yaml", "${env:NAME} is not replaced here"),
        ("no", "got a boolean"),
    ],
)
def test_a_bad_extends_is_refused_where_it_stands(write: Write, value: str, said: str) -> None:
    with pytest.raises(SpecError) as error:
        read(write(f"extends: {value}\n"))
    assert "a.yaml:1:" in str(error.value) and ": extends: " in str(error.value) and said in str(error.value)


def test_a_newer_parent_is_refused(write: Write) -> None:
    write("version: 7\n", "parent.yaml")
    with pytest.raises(SpecError, match=r"parent\.yaml:1:10: version: spec version 7 is newer"):
        read(write("extends: parent.yaml\nversion: 1\n"))


def test_overrides_are_typed_like_the_file(write: Write) -> None:
    overrides = ["a.b=1e-5", "a.c=[x, 2]", "t='3'", "new.deep.key=true"]
    assert plain(read(write("a: {b: 1}\n"), overrides)) == {
        "a": {"b": 1e-5, "c": ["x", 2]},
        "t": "3",
        "new": {"deep": {"key": True}},
    }


def test_null_override_removes(write: Write) -> None:
    assert plain(read(write("a: 1\nteacher: {model: x}\n"), ["teacher=null"])) == {"a": 1}


def test_the_order_of_overrides_does_not_matter_when_the_type_changes(write: Write) -> None:
    file = write("method: {type: gkd, lmbda: 0.5}\n")
    expected = {"method": {"type": "grpo", "beta": 0.1}}
    assert plain(read(file, ["method.type=grpo", "method.beta=0.1"])) == expected
    assert plain(read(file, ["method.beta=0.1", "method.type=grpo"])) == expected


def test_relative_paths_of_overrides_are_relative_to_the_current_directory(write: Write, tmp_path: Path) -> None:
    source = read(write("a: x\n", "deep/a.yaml"), ["b=x"])
    tree = source.root.children
    assert tree["a"].value.folder == tmp_path / "deep" and tree["b"].value.folder == tmp_path  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["a"], "--set a: expected KEY=VALUE"),
        (["=1"], "expected KEY=VALUE"),
        (["a..b=1"], "expected KEY=VALUE"),
        ([""], "expected KEY=VALUE"),
        (["a="], "--set a=: a: no value; write null to remove the key"),
        (["a=1", "a=2"], "--set a=2: a: sets what --set a=1 already sets"),
        (["a=1", "a.b=2"], "sets what --set a=1 already sets"),
        (["a.b=1", "a=null"], "sets what --set a.b=1 already sets"),
        (["a=[1"], "--set a=[1: the bracket opened is never closed"),
        (["a=!x 1"], "YAML tags are not allowed"),
        (["a=1\x00"], "U+0000"),
        (["extends=b.yaml"], "extends belongs in the file"),
    ],
)
def test_bad_overrides_are_refused_by_name(write: Write, overrides: list[str], said: str) -> None:
    with pytest.raises(SpecError) as error:
        read(write("a: 1\n"), overrides)
    assert said in str(error.value)


TOKENS = [
    "hf_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    "sk-proj-0123456789abcdefghijkl",
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_0123456789abcdefghijABCDEFGHIJ012345",
    "-----BEGIN RSA PRIVATE KEY-----",
    "https://me:hunter2@example.com/x",
]


@pytest.mark.parametrize("token", TOKENS)
def test_tokens_are_known_by_their_form(token: str) -> None:
    assert is_secret(token) and is_secret(f"text {token} text") and not is_secret(redact(f"text {token} text"))


@pytest.mark.parametrize(
    "text", ["Qwen/Qwen2.5-7B", "c1899de289a04d12100db370d81485cdf75e47ca", "task-with-a-very-long-name-here", "hf_hub"]
)
def test_ordinary_text_is_no_token(text: str) -> None:
    assert not is_secret(text) and redact(text) == text


def test_names_of_secrets() -> None:
    assert all(map(names_secret, ["api_key", "WANDB_API_KEY", "HF_TOKEN", "token", "password", "db.secret", "apikey"]))
    assert not any(map(names_secret, ["max_tokens", "tokenizer", "keys", "project", "seed", "answer_key"]))
