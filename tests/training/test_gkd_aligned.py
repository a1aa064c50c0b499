"""Distillation from a teacher that tokenizes otherwise: noticed, aligned, logged, resumed."""

import json
from dataclasses import replace

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, PreTrainedTokenizerFast

from atlas.errors import RunFailed, SpecError
from atlas.methods.gkd import Gkd
from atlas.training import engine, gkd
from atlas.training.gkd_aligned import AlignedGkdTrainer
from atlas.training.rollouts import Rollout

from .tiny import CHARACTERS, CHAT_TEMPLATE, character_tokenizer, lines, names, save, series, tiny_llama, train

PAIRS = ["10", "12", "ab", "co", "py", "cc", "dd", "e.", "lo", "wo"]


def pair_tokenizer(chat_template: str | None = CHAT_TEMPLATE) -> PreTrainedTokenizerFast:
    """Characters in another order, and some pairs of them."""
    tokens = ["<bos>", "<eos>", "<pad>", *reversed(CHARACTERS), *PAIRS]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [tuple(pair) for pair in PAIRS]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        chat_template=chat_template,
    )


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """A teacher that reads pairs."""
    tokenizer = pair_tokenizer()
    config = {"hidden_size": 48, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    return save(tmp_path_factory.mktemp("stranger"), tiny_llama(len(tokenizer) + 3, seed=1, **config), tokenizer)


def chunks_of(run):
    return [json.loads(line) for line in (run.directory / "alignment.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "method",
    [
        {},
        {"beta": 0.5, "temperature": 0.7},
        {"loss": "policy_gradient"},
        {"lmbda": 0.0},
        {"lmbda": 0.0, "seq_kd": True},
    ],
)
def test_a_student_learns_from_a_teacher_that_tokenizes_otherwise(make_run, stranger, method):
    run = make_run({"type": "gkd"} | method, teacher={"model": str(stranger)}, training={"max_steps": 6})
    train(run)
    losses = series(run, "train/loss")
    assert len(losses) == 6 and all(abs(loss) < 50 for loss in losses.values())
    coverage, holes = series(run, "alignment/coverage"), series(run, "alignment/holes")
    assert len(coverage) == 6 and all((share == 1) == (holes[step] == 0) for step, share in coverage.items())
    assert series(run, "alignment/roots").keys() == {1}
    assert 0 < series(run, "alignment/shared_mass_teacher").get(1, 1) <= 1
    assert all(0 < bits < 20 for bits in series(run, "train/bits_per_byte_student").values())
    assert series(run, "eval/teacher_pass_rate").keys() == {0}
    assert run.summary["alignment"]["vocab_overlap_bytes_student"] == 1.0


def test_what_is_learnt_brings_the_student_closer_to_the_teacher(make_run, stranger):
    run = make_run({"type": "gkd"}, teacher={"model": str(stranger)}, training={"max_steps": 30, "learning_rate": 5e-3})
    train(run)
    found = series(run, "train/reverse_kl")
    assert found[30] < 0.5 * found[1]


def test_every_figure_of_the_alignment_is_logged(make_run, stranger):
    run = make_run({"type": "gkd"}, teacher={"model": str(stranger)})
    train(run)
    for name in (
        *("coverage", "one_to_one", "chunk_len_student", "chunk_len_teacher", "shared_mass_student"),
        *("shared_mass_teacher", "root_agreement", "noncanonical", "holes", "eot_aligned", "align_ms"),
        *("vocab_overlap_bytes_student", "vocab_overlap_bytes_teacher", "vocab_overlap_strings_student", "roots"),
    ):
        assert f"alignment/{name}" in names(run)
    assert {"train/loss/dense", "train/loss/remainder", "phase/align_seconds"} <= set(names(run))
    dense, remainder = series(run, "train/loss/dense"), series(run, "train/loss/remainder")
    for step, loss in series(run, "train/loss").items():
        assert loss == pytest.approx(dense[step] + remainder[step], rel=1e-5)


def test_chunks_of_some_completions_are_kept_with_their_divergence(make_run, stranger):
    run = make_run({"type": "gkd"}, teacher={"model": str(stranger)})
    train(run)
    records = chunks_of(run)
    assert [record["step"] for record in records] == [1, 1, 2, 2, 4, 4]
    for record in records:
        chunks = range(len(record["divergence"]))
        sides = [[(text, chunk) for text, chunk in record[side] if chunk >= 0] for side in ("student", "teacher")]
        assert {chunk for _, chunk in sides[0]} == {chunk for _, chunk in sides[1]} == set(chunks)
        texts = ["".join(text for text, _ in side if text != "<eos>") for side in sides]
        assert texts[0] == texts[1]
        assert record["prompt"].startswith("<bos>u:copy")


def test_the_loss_does_not_depend_on_the_micro_batch(make_run, stranger):
    whole = make_run({"type": "gkd"}, "whole", teacher={"model": str(stranger)})
    each = make_run({"type": "gkd"}, "each", teacher={"model": str(stranger)}, training={"micro_batch_size": 1})
    for run in (whole, each):
        train(run)
    for name in ("train/loss", "train/grad_norm", "alignment/root_agreement", "train/bits_per_byte_teacher"):
        assert series(each, name) == pytest.approx(series(whole, name), rel=1e-4)


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(make_run, stranger, monkeypatch):
    unbroken = make_run({"type": "gkd"}, "unbroken", teacher={"model": str(stranger)})
    train(unbroken)
    broken = make_run({"type": "gkd"}, "broken", teacher={"model": str(stranger)})
    clip = engine.OnPolicyTrainer._clip_grad_norm

    def killed(self, model):
        if self.state.global_step == 3:  # its chunks are written, and its checkpoint is not
            raise KeyboardInterrupt
        return clip(self, model)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(engine.OnPolicyTrainer, "_clip_grad_norm", killed)
        train(broken)
    again = make_run({"type": "gkd"}, "broken")
    train(again)
    for name in ("train/loss", "train/grad_norm", "alignment/one_to_one", "train/loss/remainder"):
        assert series(again, name) == series(unbroken, name)
    assert chunks_of(again) == chunks_of(unbroken)


def test_with_equal_tokenizers_it_is_the_ordinary_loss(make_run, monkeypatch):
    ordinary = make_run({"type": "gkd", "beta": 0.3, "lmbda": 0.0}, "ordinary")
    train(ordinary)
    load_teacher = gkd.load_teacher
    monkeypatch.setattr(gkd, "load_teacher", lambda *args: replace(load_teacher(*args), difference="none, really"))
    aligned = make_run({"type": "gkd", "beta": 0.3, "lmbda": 0.0}, "aligned")
    train(aligned)
    assert "alignment/coverage" in names(aligned) and "alignment/coverage" not in names(ordinary)
    assert series(aligned, "train/loss") == pytest.approx(series(ordinary, "train/loss"), rel=1e-5)
    assert series(aligned, "train/grad_norm") == pytest.approx(series(ordinary, "train/grad_norm"), rel=1e-4)


def test_low_coverage_is_an_event(make_run, tmp_path):
    """A teacher without digits and vowels."""
    letters = "".join(c for c in CHARACTERS if c not in "aeiou0123456789")
    tokenizer = character_tokenizer(letters + "()")
    path = save(tmp_path / "mute", tiny_llama(len(tokenizer), seed=1), tokenizer)
    run = make_run({"type": "gkd"}, teacher={"model": str(path)})
    train(run)
    events = [line["message"] for line in lines(run) if line.get("event") == "alignment"]
    assert events and "of the student's tokens face tokens of the teacher" in events[0]
    assert min(series(run, "alignment/coverage").values()) < 0.999


def test_a_completion_that_does_not_fit_into_the_teachers_context_is_left_out(make_run, tmp_path):
    tokenizer = character_tokenizer(CHARACTERS + "()", CHAT_TEMPLATE.replace("a:", "assistant says now:"))
    coverage = {}
    for context in (64, 34):
        path = save(tmp_path / f"{context}", tiny_llama(len(tokenizer), max_position_embeddings=context), tokenizer)
        sections = {"teacher": {"model": str(path)}, "evaluation": {"max_completion_length": 1}}
        run = make_run({"type": "gkd"}, str(context), **sections)
        train(run)
        coverage[context] = series(run, "alignment/coverage")[1]
    events = [line["message"] for line in lines(run) if line.get("event") == "alignment"]
    assert any("longer than the teacher's context of 34 tokens" in message for message in events)
    assert coverage[34] < coverage[64]


def test_reverse_kl_is_of_the_students_own_rollouts_alone(make_run, stranger):
    run = make_run({"type": "gkd", "lmbda": 0.5}, teacher={"model": str(stranger)}, training={"max_steps": 6})
    train(run)
    own = {step for step, share in series(run, "train/on_policy").items() if share}
    assert 0 < len(own) < 6 and series(run, "train/reverse_kl").keys() == own


def learnt_of_teacher(make_run, monkeypatch, teacher, written):
    """What the student learns from in the first step, if the teacher writes these ids."""
    learnt = []

    def written_by(self, writer, prompts):
        return [Rollout(writer.prompts[i], written, [], clipped=False) for i in prompts]

    def score(self, examples, rollouts):
        learnt.extend(rollouts)
        return original(self, examples, rollouts)

    original = AlignedGkdTrainer.score
    monkeypatch.setattr(AlignedGkdTrainer, "written_by", written_by)
    monkeypatch.setattr(AlignedGkdTrainer, "score", score)
    method = {"type": "gkd", "lmbda": 0.0, "seq_kd": True}
    train(make_run(method, teacher={"model": str(teacher)}, training={"max_steps": 1, "save_every_steps": 1}))
    return learnt


@pytest.mark.parametrize(("text", "readable"), [("ab(c", "ab"), ("(", "")])
def test_what_the_student_cannot_write_of_the_teachers_text_teaches_no_end(
    make_run, tmp_path, monkeypatch, text, readable
):
    tokenizer = character_tokenizer(CHARACTERS + "()")
    path = save(tmp_path / "brackets", tiny_llama(len(tokenizer), seed=1), tokenizer)
    written = [*tokenizer.convert_tokens_to_ids(list(text)), tokenizer.eos_token_id]
    learnt = learnt_of_teacher(make_run, monkeypatch, path, written)
    ids = tokenizer.convert_tokens_to_ids(list(readable))  # the student has the same, less the brackets
    assert [(row.completion_ids, row.clipped) for row in learnt] == [(ids, True)] * 4


def test_the_teachers_text_ends_where_the_students_context_does(make_run, stranger, student, monkeypatch):
    context = AutoConfig.from_pretrained(student).max_position_embeddings
    tokenizer = pair_tokenizer()
    written = [*tokenizer.convert_tokens_to_ids(["10"] * context), tokenizer.eos_token_id]
    learnt = learnt_of_teacher(make_run, monkeypatch, stranger, written)
    assert all(len(row.prompt_ids) + len(row.completion_ids) == context and row.clipped for row in learnt)


def test_a_teacher_without_chat_template_is_refused(make_run, tmp_path):
    tokenizer = pair_tokenizer(chat_template=None)
    path = save(tmp_path / "base", tiny_llama(len(tokenizer), seed=1), tokenizer)
    with pytest.raises(RunFailed, match="the student has a chat template and the teacher has none"):
        train(make_run({"type": "gkd"}, teacher={"model": str(path)}))


def test_a_teacher_without_a_logit_for_a_token_of_text_is_refused(make_run, tmp_path):
    tokenizer = pair_tokenizer()
    path = save(tmp_path / "narrow", tiny_llama(len(tokenizer) - 2, seed=1), tokenizer)
    with pytest.raises(
        RunFailed, match=f"has the token id {len(tokenizer) - 2} and the model only {len(tokenizer) - 2}"
    ):
        train(make_run({"type": "gkd"}, teacher={"model": str(path)}))


def test_a_baseline_of_alignment_is_refused_where_tokenizers_are_equal(make_run):
    with pytest.raises(RunFailed, match="tokenize alike, so it would be ignored"):
        train(make_run({"type": "gkd", "alignment": "gold"}))


def test_gkd_reward_needs_a_teacher_that_tokenizes_alike(make_run, stranger):
    method = {"type": "gkd_reward", "num_generations": 2}
    with pytest.raises(RunFailed, match="or method gkd, which aligns tokenizers"):
        train(make_run(method, teacher={"model": str(stranger)}))


def test_settings_that_a_baseline_would_ignore_are_refused(make_run, stranger):
    for ignored in ({"loss": "policy_gradient"}, {"top_k": {"k": 4}}):
        run = make_run({"type": "gkd"}, teacher={"model": str(stranger)})
        with pytest.raises(SpecError, match="would be ignored with alignment uld"):
            Gkd.model_validate({"alignment": "uld"} | ignored).check(run.job)
