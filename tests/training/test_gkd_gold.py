"""The baselines of distillation across tokenizers: TRL's own losses, computed by the same engine."""

import pytest
import torch
from trl.experimental.gold import GOLDConfig
from trl.experimental.gold.gold_trainer import ULDLoss, build_teacher_inputs_from_texts
from trl.experimental.utils import piece_byte_len

from atlas.errors import RunFailed, SpecError
from atlas.methods.gkd import Gkd
from atlas.training import engine, experimental

from .alignment.alignment_reference import byte_level
from .tiny import CHAT_TEMPLATE, lines, names, save, series, tiny_llama, train

BASELINES = ["gold", "uld"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A student that reads digits in threes and a teacher that reads them one by one, both byte-level."""
    made = {}
    for role, digits, seed in (("student", r"\p{N}{1,3}", 0), ("teacher", r"\p{N}", 1)):
        tokenizer = byte_level(digits)
        tokenizer.chat_template = CHAT_TEMPLATE.replace("<bos>", "")
        ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
        model = tiny_llama(len(tokenizer), seed=seed, **ids)
        made[role] = {"model": str(save(tmp_path_factory.mktemp(role), model, tokenizer))}
    return made


def padded(rows, value):
    width = max(map(len, rows))
    return torch.tensor([list(row) + [value] * (width - len(row)) for row in rows])


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
    """TRL's loss of all rollouts in one padded batch, through the models' own forwards, as GOLDTrainer computes it."""
    student, teacher, extended = trainer.student, trainer.teacher.model, config.use_extended_uld
    student_tokenizer, teacher_tokenizer = trainer.tokenizer, trainer.teacher.tokenizer
    texts = student_tokenizer.batch_decode([rollout.completion_ids for rollout in rollouts])
    completions = build_teacher_inputs_from_texts(teacher_tokenizer, [""] * len(texts), texts, extended)
    sides = []
    for model, prompts, written, offsets in (
        (
            student,
            [rollout.prompt_ids for rollout in rollouts],
            [rollout.completion_ids for rollout in rollouts],
            [byte_offsets(student_tokenizer, rollout.completion_ids) for rollout in rollouts],
        ),
        (
            teacher,
            trainer.prompts_at_hand,
            [ids[labels != -100].tolist() for ids, labels in zip(completions[0], completions[1], strict=True)],
            [o[labels != -100].tolist() for o, labels in zip(completions[3], completions[1], strict=True)],
        ),
    ):
        both = list(zip(prompts, written, offsets, strict=True))
        ids = padded([[*prompt, *row] for prompt, row, _ in both], 0)
        labels = padded([[-100] * len(prompt) + list(row) for prompt, row, _ in both], -100)
        widest = ids.shape[1]
        places = [
            [(0, 0)] * len(prompt) + list(row) + [(0, 0)] * (widest - len(prompt) - len(row)) for prompt, _, row in both
        ]
        mask = padded([[1] * (len(prompt) + len(row)) for prompt, row, _ in both], 0)
        with torch.set_grad_enabled(model is student):
            sides.append((model(input_ids=ids, attention_mask=mask).logits, labels, ids, torch.tensor(places)))
    loss = ULDLoss(config, student_tokenizer, teacher_tokenizer, torch.device("cpu"))
    return loss(*(side[i] for i in range(4) for side in sides))


def byte_offsets(tokenizer, ids):
    ends = torch.tensor([piece_byte_len(piece) for piece in tokenizer.convert_ids_to_tokens(ids)]).cumsum(0).tolist()
    return list(zip([0, *ends], ends, strict=False))


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
        loss = whole_step(self, rollouts, settings)
        parameters = dict(self.student.named_parameters())
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        expected.append((loss.item(), torch.cat([gradient.flatten() for gradient in gradients])))
        result = backward(self, rollouts)
        found.append((result[0].item(), torch.cat([p.grad.flatten() for p in parameters.values()])))
        return result

    monkeypatch.setattr(engine.OnPolicyTrainer, "_backward", compare)
    run = make_run(
        {"type": "gkd"} | method,
        **pair,
        training={"max_steps": 2, "micro_batch_size": micro_batch_size},
        sampling={"max_completion_length": 9},
    )
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
    assert all(bits > 0 for bits in series(run, "train/bits_per_byte_student").values())
    assert all(0 < entropy < 7 for entropy in series(run, "train/entropy").values())
    assert not (run.directory / "alignment.jsonl").exists()


@pytest.mark.parametrize("lmbda", [{"lmbda": 0.0}, {"lmbda": 0.0, "seq_kd": True}])
def test_a_baseline_learns_from_texts_that_the_student_did_not_write(make_run, pair, lmbda):
    run = make_run({"type": "gkd", "alignment": "gold"} | lmbda, **pair)
    train(run)
    assert len(series(run, "train/loss")) == 4


def test_what_trl_finds_no_byte_offsets_for_is_left_out_with_an_event(make_run, pair, monkeypatch):
    readings, calls = experimental.GoldLoss.readings, []

    def second_fails(self, ids):
        calls.append(ids)
        return None if len(calls) == 2 else readings(self, ids)

    monkeypatch.setattr(experimental.GoldLoss, "readings", second_fails)
    run = make_run({"type": "gkd", "alignment": "gold"}, **pair, training={"max_steps": 1})
    train(run)
    events = [line["message"] for line in lines(run) if line.get("event") == "alignment"]
    assert "step 1: TRL finds no byte offsets for 1 completions, and they are not learnt from" in events
    assert len(calls) == 4 and run.clock.tokens_trained == sum(map(len, calls)) - len(calls[1])


def test_a_text_whose_bytes_trl_cannot_place_has_no_readings(monkeypatch):
    def refuse(*args):
        raise ValueError("Tokenizer produced overlapping byte offsets that could not be normalized.")

    monkeypatch.setattr(experimental, "build_teacher_inputs_from_texts", refuse)
    tokenizer = byte_level()
    loss = experimental.GoldLoss(tokenizer, tokenizer, extended=True, beta=1.0, temperature=1.0)
    assert loss.readings([5, 6]) is None


def test_gold_refuses_a_tokenizer_that_is_not_byte_level(make_run, pair):
    method = {"type": "gkd", "alignment": "gold"}
    with pytest.raises(RunFailed, match=r"for byte-level tokenizers, and the student's \(.*\) is none; use push_f"):
        train(make_run(method, teacher=pair["teacher"]))


def test_uld_takes_any_tokenizer(make_run, pair):
    run = make_run({"type": "gkd", "alignment": "uld"}, teacher=pair["teacher"])
    train(run)
    assert len(series(run, "train/loss")) == 4


def test_only_uld_has_no_beta(make_run):
    run = make_run({"type": "gkd"})
    with pytest.raises(SpecError, match=r"method.beta: would be ignored with alignment uld; leave it out"):
        Gkd(alignment="uld", beta=0.5).check(run.job)
    for alignment in ("gold", "push_forward"):
        Gkd(alignment=alignment, beta=0.5).check(run.job)
