"""The baselines of distillation across tokenizers: TRL's own losses, computed by the same engine."""

import pytest
import torch
from trl.experimental.gold import GOLDConfig
from trl.experimental.gold.gold_trainer import ULDLoss, build_teacher_inputs_from_texts
from trl.experimental.utils import piece_byte_len

from atlas.errors import RunFailed, SpecError
from atlas.methods.gkd import Gkd
from atlas.training import engine
from atlas.training.rollouts import Rollout

from .alignment.alignment_reference import byte_level, sentencepiece
from .tiny import CHAT_TEMPLATE, lines, names, save, series, tiny_llama, train

BASELINES = ["gold", "uld"]
TEXTS = ["The 12 apples cost 1250 dollars", "48+24=72 <<48/2=24>>24 in all.", "7", "Café 小明有12个苹果"]


def model(folder, tokenizer, seed):
    tokenizer.chat_template = CHAT_TEMPLATE.replace("<bos>", "")
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    return {"model": str(save(folder, tiny_llama(len(tokenizer), seed, max_position_embeddings=128, **ids), tokenizer))}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A student that reads digits in threes and a teacher that reads them one by one, both byte-level."""
    return {
        "student": model(tmp_path_factory.mktemp("student"), byte_level(), seed=0),
        "teacher": model(tmp_path_factory.mktemp("teacher"), byte_level(r"\p{N}"), seed=1),
    }


def write_texts(monkeypatch):
    """The student's rollouts are TEXTS; the second is cut off before its end of turn."""

    def rollouts(self, prompts):
        ids = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]
        ended = [row if i == 1 else [*row, self.tokenizer.eos_token_id] for i, row in enumerate(ids)]
        return [Rollout(self.prompts[p], row, [], clipped=False) for p, row in zip(prompts, ended, strict=True)]

    monkeypatch.setattr(engine.OnPolicyTrainer, "rollouts", rollouts)


def trls_settings(method):
    """Made before a trainer: to make a TrainingArguments resets accelerate's state."""
    extended, temperature = method["alignment"] == "gold", method.get("temperature", 1.0)
    return GOLDConfig(
        output_dir="unused",
        use_uld_loss=True,
        use_extended_uld=extended,
        uld_use_hybrid_loss=extended,
        uld_student_temperature=temperature,
        uld_teacher_temperature=temperature,
        beta=method.get("beta", 1.0),
        bf16=False,
        use_cpu=True,
    )


def whole_step(trainer, rollouts, config):
    """TRL's loss of all rollouts in one padded batch, through the models' own forwards, and TRL's own way from the text
    to the teacher's tokens and to byte offsets."""
    tokenizers = trainer.tokenizer, trainer.teacher.tokenizer
    written = [rollout.completion_ids for rollout in rollouts]
    read_ids, read_labels, _, read_offsets = build_teacher_inputs_from_texts(
        tokenizers[1], [""] * len(TEXTS), TEXTS, config.use_extended_uld
    )
    read = [ids[labels != -100].tolist() for ids, labels in zip(read_ids, read_labels, strict=True)]
    offsets_read = [o[labels != -100].tolist() for o, labels in zip(read_offsets, read_labels, strict=True)]
    offsets_written = []
    for ids in written:
        ends = torch.tensor(list(map(piece_byte_len, tokenizers[0].convert_ids_to_tokens(ids)))).cumsum(0).tolist()
        offsets_written.append(list(zip([0, *ends], ends, strict=False)))

    student = of_side(trainer.student, [r.prompt_ids for r in rollouts], written, offsets_written)
    with torch.no_grad():
        teacher = of_side(trainer.teacher.model, trainer.prompts_at_hand, read, offsets_read)
    loss = ULDLoss(config, *tokenizers, torch.device("cpu"))
    return loss(*(tensor for pair in zip(student, teacher, strict=True) for tensor in pair))


def of_side(model, prompts, completions, offsets):
    """Logits, labels, ids and offsets of a padded batch."""
    both = list(zip(prompts, completions, offsets, strict=True))
    ids = padded([[*prompt, *row] for prompt, row, _ in both], 0)
    labels = padded([[-100] * len(prompt) + list(row) for prompt, row, _ in both], -100)
    places = padded([[(0, 0)] * len(prompt) + list(places) for prompt, _, places in both], (0, 0))
    mask = padded([[1] * (len(prompt) + len(row)) for prompt, row, _ in both], 0)
    return model(input_ids=ids, attention_mask=mask).logits, labels, ids, places


def padded(rows, value):
    width = max(map(len, rows))
    return torch.tensor([list(row) + [value] * (width - len(row)) for row in rows])


@pytest.mark.parametrize(
    "method",
    [
        {"alignment": "gold"},
        {"alignment": "gold", "beta": 0.5, "temperature": 0.7},
        {"alignment": "uld", "temperature": 0.7},
    ],
)
@pytest.mark.parametrize("micro_batch_size", [4, 1])
def test_loss_and_gradient_of_a_step_are_trls_own(make_run, pair, monkeypatch, method, micro_batch_size):
    expected, found, settings = [], [], trls_settings(method)
    backward = engine.OnPolicyTrainer._backward

    def compare(self, rollouts):
        parameters = dict(self.student.named_parameters())
        loss = whole_step(self, rollouts, settings)
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        expected.append((loss.item(), torch.cat([gradient.flatten() for gradient in gradients])))
        result = backward(self, rollouts)
        found.append((result[0].item(), torch.cat([p.grad.flatten() for p in parameters.values()])))
        return result

    monkeypatch.setattr(engine.OnPolicyTrainer, "_backward", compare)
    write_texts(monkeypatch)
    run = make_run({"type": "gkd"} | method, **pair, training={"max_steps": 2, "micro_batch_size": micro_batch_size})
    train(run)
    assert len(found) == 2
    for (loss, gradient), (trls_loss, trls_gradient) in zip(found, expected, strict=True):
        assert loss == pytest.approx(trls_loss, rel=1e-4) and loss != 0
        assert torch.norm(gradient - trls_gradient) < 1e-3 * torch.norm(trls_gradient)


@pytest.mark.parametrize("alignment", BASELINES)
def test_a_baseline_trains_and_logs_the_figures_of_our_alignment(make_run, pair, alignment):
    run = make_run({"type": "gkd", "alignment": alignment}, **pair, training={"max_steps": 30, "learning_rate": 1e-2})
    train(run)
    losses = series(run, "train/loss")
    first, last = (sum(losses[step] for step in steps) for steps in (range(1, 6), range(26, 31)))
    assert last < first
    for name in ("coverage", "one_to_one", "chunk_len_teacher", "noncanonical", "holes", "eot_aligned", "roots"):
        assert f"alignment/{name}" in names(run)
    assert "phase/measure_seconds" in names(run)


@pytest.mark.parametrize("alignment", BASELINES)
def test_what_it_reports_is_what_push_forward_measures_on_the_same_texts(make_run, pair, monkeypatch, alignment):
    write_texts(monkeypatch)
    ours = make_run({"type": "gkd"}, "ours", **pair, training={"max_steps": 1})
    baseline = make_run({"type": "gkd", "alignment": alignment}, "baseline", **pair, training={"max_steps": 1})
    for run in (ours, baseline):
        train(run)
    for name in ("reverse_kl", "entropy", "bits_per_byte_student", "bits_per_byte_teacher"):
        assert series(baseline, f"train/{name}") == pytest.approx(series(ours, f"train/{name}"), rel=1e-5)
    for name in ("shared_mass_student", "root_agreement", "one_to_one"):
        assert series(baseline, f"alignment/{name}") == pytest.approx(series(ours, f"alignment/{name}"), rel=1e-5)
    assert not {"train/loss/dense", "train/loss/remainder"} & set(names(baseline))
    shown, shown_by_ours = lines(baseline, "alignment.jsonl"), lines(ours, "alignment.jsonl")
    assert [row["teacher"] for row in shown] == [row["teacher"] for row in shown_by_ours]
    for row, by_ours in zip(shown, shown_by_ours, strict=True):
        assert row["divergence"] == pytest.approx(by_ours["divergence"], abs=2e-6)


@pytest.mark.parametrize("alignment", BASELINES)
@pytest.mark.parametrize("lmbda", [{"lmbda": 0.0}, {"lmbda": 0.0, "seq_kd": True}])
def test_a_baseline_learns_from_texts_that_the_student_did_not_write(make_run, pair, alignment, lmbda):
    run = make_run({"type": "gkd", "alignment": alignment} | lmbda, **pair)
    train(run)
    assert len(series(run, "train/loss")) == 4


@pytest.mark.parametrize("alignment", BASELINES)
def test_a_baseline_takes_tokenizers_that_are_not_byte_level(make_run, tmp_path, alignment):
    teacher = model(tmp_path / "teacher", sentencepiece(), seed=1)
    run = make_run({"type": "gkd", "alignment": alignment}, teacher=teacher)
    train(run)
    assert all(loss > 0 for loss in series(run, "train/loss").values())


def test_only_uld_has_no_beta(make_run):
    run = make_run({"type": "gkd"})
    with pytest.raises(SpecError, match=r"method.beta: would be ignored with alignment uld; leave it out"):
        Gkd(alignment="uld", beta=0.5).check(run.job)
    for alignment in ("gold", "push_forward"):
        Gkd(alignment=alignment, beta=0.5).check(run.job)


def test_top_k_is_refused_where_it_would_be_ignored(make_run, pair):
    with pytest.raises(RunFailed, match=r"top_k is for a student and a teacher that tokenize alike.*remove it"):
        train(make_run({"type": "gkd", "top_k": {"k": 4}}, **pair))
