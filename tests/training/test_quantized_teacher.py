"""A teacher in fewer bits: nearly the same distribution in less memory, and clear words where that cannot be."""

import json
import sys
from importlib.util import find_spec

import pytest
import torch
from transformers import AutoModelForCausalLM

from atlas import job as jobs
from atlas.errors import RunFailed, SpecError
from atlas.job import JobSpec, check
from atlas.models import estimate_peak_bytes
from atlas.provenance import Gpu
from atlas.spec import ModelSpec, StudentSpec
from atlas.training.compatibility import why_not_ours
from atlas.training.generation import generate
from atlas.training.head import head_of, hidden_states
from atlas.training.load import load_model, load_tokenizer
from atlas.training.packing import pack

from .tiny import character_tokenizer, save, series, tiny_llama, train

needs_torchao = pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")
ON_THE_CPU = ("int8", "fp8")
FARTHEST = {"int8": 0.003, "fp8": 0.03}
"""Mean KL to the full teacher, over that of a model that knows nothing."""


@pytest.fixture(scope="module")
def sharp(tmp_path_factory):
    """A teacher whose layers are most of its weights and whose distributions are far from uniform, in bfloat16."""
    tokenizer = character_tokenizer()
    model = tiny_llama(len(tokenizer), seed=1, hidden_size=128, intermediate_size=256, head_dim=32)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter *= 6
    return save(tmp_path_factory.mktemp("sharp"), model.bfloat16(), tokenizer)


def loaded(path, tmp_path, quantization=None, **fields):
    spec = ModelSpec(model=str(path), quantization=quantization, **fields)
    return load_model(spec, tmp_path / "cache", trainable=False)


def weight_bytes(model):
    """Of the tensors that hold the weights, looking into quantized ones."""
    total = 0
    for weight in model.parameters():
        inner = weight.__tensor_flatten__()[0] if hasattr(weight, "__tensor_flatten__") else []
        total += sum(getattr(weight, name).nbytes for name in inner) or weight.nbytes
    return total


def logprobs(model, tokenizer):
    """By our own attention and head, at the predicted tokens of two packed rows."""
    rows = [(tokenizer("copy abc?")["input_ids"], [4, 9, 20, 2]), (tokenizer("12+3=")["input_ids"], [30, 31])]
    packed = pack(rows, model.device)
    with torch.no_grad():
        return head_of(model, len(tokenizer)).logits(hidden_states(model, packed)).log_softmax(-1)


def share_lost(quantized_NV, full_NV):
    """KL(full || quantized) over KL(full || uniform), each summed over the tokens."""
    nothing_NV = torch.zeros_like(full_NV).log_softmax(-1)
    away, at_most = ((full_NV.exp() * (full_NV - other)).sum() for other in (quantized_NV, nothing_NV))
    return float(away / at_most)


@needs_torchao
@pytest.mark.parametrize("quantization", ON_THE_CPU)
def test_its_distribution_is_close_to_that_of_the_full_teacher(sharp, tmp_path, quantization):
    tokenizer = load_tokenizer(ModelSpec(model=str(sharp)), tmp_path)
    full, quantized = loaded(sharp, tmp_path), loaded(sharp, tmp_path, quantization)
    assert why_not_ours(quantized, len(tokenizer)) is None
    full_NV, quantized_NV = logprobs(full, tokenizer), logprobs(quantized, tokenizer)
    assert 0 < share_lost(quantized_NV, full_NV) < FARTHEST[quantization]


@needs_torchao
@pytest.mark.parametrize("quantization", ON_THE_CPU)
def test_it_takes_less_memory_and_its_head_stays_whole(sharp, tmp_path, quantization):
    full, quantized = loaded(sharp, tmp_path), loaded(sharp, tmp_path, quantization)
    assert weight_bytes(quantized) < 0.4 * weight_bytes(full)
    assert quantized.dtype == torch.float32  # as every half-precision model on a CPU
    head = quantized.get_output_embeddings().weight
    assert head.dtype == torch.float32 and torch.equal(head, full.get_output_embeddings().weight)
    assert not any(weight.requires_grad for weight in quantized.parameters()) and not quantized.training


@needs_torchao
def test_a_dtype_that_is_asked_for_is_what_it_computes_in(sharp, tmp_path):
    quantized = loaded(sharp, tmp_path, "int8", dtype="bfloat16")
    packed = pack([([1, 5, 9], [7, 2])], quantized.device)
    with torch.no_grad():
        assert hidden_states(quantized, packed).dtype == torch.bfloat16
    assert head_of(quantized, 48).weight_VD.dtype == torch.bfloat16


@needs_torchao
@pytest.mark.parametrize("quantization", ON_THE_CPU)
def test_it_computes_under_autocast_as_the_engine_runs_it_on_a_gpu(sharp, tmp_path, quantization):
    tokenizer = load_tokenizer(ModelSpec(model=str(sharp)), tmp_path)
    full, quantized = loaded(sharp, tmp_path), loaded(sharp, tmp_path, quantization)
    with torch.autocast("cpu", torch.bfloat16):
        lost = share_lost(logprobs(quantized, tokenizer), logprobs(full, tokenizer))
    assert 0 < lost < 2 * FARTHEST[quantization]


@needs_torchao
def test_it_is_evaluated_as_any_model(sharp, tmp_path):
    tokenizer = load_tokenizer(ModelSpec(model=str(sharp)), tmp_path)
    prompts = ["copy abc?", "12+3=", "copy z?"]
    written = [
        generate(model, tokenizer, prompts, max_completion_length=6, batch_size=2)
        for model in (loaded(sharp, tmp_path), loaded(sharp, tmp_path, "int8"))
    ]
    same = [full.token_ids[:2] == quantized.token_ids[:2] for full, quantized in zip(*written, strict=True)]
    assert sum(same) >= 2


@needs_torchao
def test_a_student_learns_from_it_nearly_as_from_the_full_one(make_run, sharp):
    losses = {}
    for name, quantization in [("full", None), ("int8", "int8")]:
        teacher = {"model": str(sharp), "quantization": quantization}
        run = make_run({"type": "gkd"}, name=name, teacher=teacher)
        assert train(run) is not None
        losses[name] = series(run, "train/loss")
        assert 0 in series(run, "eval/teacher_pass_rate")
    assert losses["int8"].keys() == losses["full"].keys()
    assert losses["int8"][1] == pytest.approx(losses["full"][1], rel=1e-2) and losses["int8"] != losses["full"]


@needs_torchao
def test_the_settings_of_the_process_stay_as_they_were(sharp, tmp_path):
    import torch._inductor.config as inductor

    before = torch.get_float32_matmul_precision(), inductor.coordinate_descent_tuning
    loaded(sharp, tmp_path, "int8"), loaded(sharp, tmp_path, "fp8")
    assert (torch.get_float32_matmul_precision(), inductor.coordinate_descent_tuning) == before


def test_a_worker_without_torchao_says_what_to_install(sharp, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(RunFailed, match=r"pip install 'atlas\[quantization\]'") as caught:
        loaded(sharp, tmp_path, "int8")
    assert caught.value.reason == "missing_package"


def test_int4_on_a_cpu_is_refused_by_the_worker(sharp, tmp_path):
    with pytest.raises(RunFailed, match=r"compute capability 8\.0 .* use int8 or fp8"):
        loaded(sharp, tmp_path, "int4")


def job(student, teacher, quantization, dtype="auto", **sections):
    content = {
        "name": "demo",
        "student": {"model": str(student)},
        "teacher": {"model": str(teacher), "quantization": quantization, "dtype": dtype},
        "method": {"type": "gkd"},
        "dataset": {"type": "arithmetic", "size": 100, "dev_size": 9, "test_size": 9},
        "training": {"max_steps": 10},
        "sampling": {"max_completion_length": 8},
        "evaluation": {"max_completion_length": 8},
    }
    return JobSpec.model_validate_json(json.dumps(content | sections))


def refusals(job):
    try:
        check(job)
    except SpecError as error:
        return [(problem.path, problem.message) for problem in error.problems]
    return []


def test_a_job_with_a_quantized_teacher_is_checked(student, sharp, monkeypatch):
    monkeypatch.setattr(jobs, "find_spec", lambda name: object())
    assert refusals(job(student, sharp, "int8")) == []
    monkeypatch.setattr(jobs, "find_spec", lambda name: None)
    ((path, message),) = refusals(job(student, sharp, "int8"))
    assert path == "teacher.quantization" and "pip install 'atlas[quantization]'" in message
    assert refusals(job(student, sharp, None)) == []


def test_int4_is_refused_where_it_cannot_be_computed(student, sharp, monkeypatch):
    monkeypatch.setattr(jobs, "find_spec", lambda name: object())
    gpu = Gpu(0, "GPU-0", "NVIDIA H100", 80 * 2**30, 80 * 2**30, "580")
    monkeypatch.setattr(jobs, "gpus", lambda: [gpu])
    assert refusals(job(student, sharp, "int4")) == []
    ((path, message),) = refusals(job(student, sharp, "int4", resources={"gpus": 0}))
    assert path == "teacher.quantization" and "use int8 or fp8" in message
    assert [path for path, _ in refusals(job(student, sharp, "int4", dtype="float16"))] == ["teacher.dtype"]
    monkeypatch.setattr(jobs, "gpus", lambda: [])
    assert [path for path, _ in refusals(job(student, sharp, "int4"))] == ["teacher.quantization"]


def test_weights_that_are_quantized_already_are_not_quantized_again(student, tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "find_spec", lambda name: object())
    directory = save(tmp_path / "gptq", tiny_llama(len(character_tokenizer())), character_tokenizer())
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "gptq"}}))
    ((path, message),) = refusals(job(student, directory, "int8"))
    assert path == "teacher.quantization" and "'gptq'" in message and "remove" in message


def test_a_model_that_is_trained_is_never_quantized(student, sharp):
    trained = job(student, sharp, None).model_copy(
        update={"student": StudentSpec(model=str(student), quantization="int8")}
    )
    assert ("student.quantization", "quantized weights cannot be trained; remove it, or quantize the teacher") in (
        refusals(trained)
    )
    measured = {"name": "as-is", "student": {"model": str(sharp), "quantization": "int8"}}
    measured |= {
        "method": {"type": "evaluate"},
        "dataset": {"type": "arithmetic"},
        "evaluation": {"max_completion_length": 8},
    }
    assert refusals(JobSpec.model_validate(measured)) == []


@needs_torchao
@pytest.mark.parametrize("quantization", ON_THE_CPU)
def test_the_plan_counts_the_bytes_that_it_takes(student, sharp, tmp_path, quantization):
    estimate = estimate_peak_bytes(job(student, sharp, quantization))
    real = loaded(sharp, tmp_path, quantization, dtype="bfloat16")
    assert estimate is not None
    assert 0.85 * weight_bytes(real) < estimate.teacher_bytes <= weight_bytes(real)


def test_the_plan_counts_half_a_byte_for_int4(student, sharp):
    bytes_of = {}
    for quantization in (None, "int8", "int4"):
        estimate = estimate_peak_bytes(job(student, sharp, quantization))
        assert estimate is not None
        bytes_of[quantization] = estimate.teacher_bytes
    linears = sum(
        weight.numel()
        for name, weight in AutoModelForCausalLM.from_pretrained(sharp).named_parameters()
        if "proj" in name
    )
    assert bytes_of[None] - bytes_of["int8"] == linears
    assert bytes_of["int8"] - bytes_of["int4"] == linears / 2
