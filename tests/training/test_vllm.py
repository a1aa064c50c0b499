"""Rollouts by vLLM. TRL's class is the real one; what stands in for vLLM itself is a slow model that is strict about
what a sleeping vLLM forgets. It was never run against the real thing.
"""

import inspect
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
import trl.generation
from accelerate import Accelerator
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from trl.generation import vllm_generation

from atlas import job as jobs
from atlas.errors import RunFailed, SpecError
from atlas.job import JobSpec, check
from atlas.models import estimate_peak_bytes
from atlas.provenance import Gpu
from atlas.training import vllm
from atlas.training.vllm import Vllm

from .test_trainers import weights_before_each_step
from .tiny import character_tokenizer, save, series, tiny_llama, train, watch_steps

PROMPTS = [[1, 7, 8, 9], [1, 30], [1, 5, 6]]
EOS = 2
VOCABULARY = len(character_tokenizer())
GRPO = {"type": "grpo", "num_generations": 2}


@dataclass(frozen=True)
class SamplingParams:
    """Those of vLLM's that TRL and we set; any other is an error."""

    n: int
    repetition_penalty: float
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    max_tokens: int
    logprobs: int
    stop_token_ids: list[int]
    logit_bias: dict[int, float] | None


class LLM:
    """What TRL uses of `vllm.LLM`. Asleep it has neither weights nor cache."""

    made: ClassVar[list["LLM"]] = []
    nan: ClassVar[bool] = False

    def __init__(self, model: str, **settings: Any) -> None:
        self.settings, self.model = settings, AutoModelForCausalLM.from_pretrained(model).eval()
        self.awake, self.missing, self.weights_of_calls = {"weights", "kv_cache"}, set(), []
        self.llm_engine: Any = SimpleNamespace(model_executor=SimpleNamespace(driver_worker=SimpleNamespace()))
        self.llm_engine.model_executor.driver_worker.model_runner = SimpleNamespace(model=self)
        LLM.made.append(self)

    def sleep(self, level: int) -> None:
        assert level == 2
        self.awake, self.missing = set(), {name for name, _ in self.model.named_parameters()}

    def wake_up(self, tags: list[str]) -> None:
        self.awake |= set(tags)

    def load_weights(self, weights: list[tuple[str, torch.Tensor]]) -> None:
        assert "weights" in self.awake
        for name, weight in weights:
            self.model.get_parameter(name).data.copy_(weight)
            self.missing.remove(name)

    def reset_prefix_cache(self) -> None:
        pass

    def generate(
        self, prompts: list[dict[str, list[int]]], sampling_params: SamplingParams, use_tqdm: bool
    ) -> list[SimpleNamespace]:
        assert self.awake == {"weights", "kv_cache"} and not self.missing
        self.weights_of_calls.append({name: weight.clone() for name, weight in self.model.state_dict().items()})
        return [self._answer(prompt["prompt_token_ids"], sampling_params) for prompt in prompts]

    def _answer(self, prompt: list[int], params: SamplingParams) -> SimpleNamespace:
        bias = torch.zeros(self.model.config.vocab_size)
        for token, value in (params.logit_bias or {}).items():
            bias[token] = value
        ids: list[int] = []
        logprobs = []
        while len(ids) < params.max_tokens and (not ids or ids[-1] not in params.stop_token_ids):
            with torch.no_grad():
                logits = self.model(torch.tensor([prompt + ids])).logits[0, -1] + bias
            all_logprobs = (logits / params.temperature).log_softmax(-1)
            ids.append(int(torch.multinomial(all_logprobs.exp(), 1)))
            logprob = float("nan") if self.nan else float(all_logprobs[ids[-1]])
            logprobs.append({ids[-1]: SimpleNamespace(logprob=logprob, rank=3)})
        output = SimpleNamespace(token_ids=tuple(ids), logprobs=logprobs)
        return SimpleNamespace(prompt_token_ids=prompt, outputs=[output])


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[LLM]]:
    """vLLM and a GPU, as far as TRL's class and ours can see."""
    monkeypatch.setattr(vllm_generation, "is_vllm_available", lambda: True)
    monkeypatch.setattr(vllm_generation, "LLM", LLM, raising=False)
    monkeypatch.setattr(vllm_generation, "SamplingParams", SamplingParams, raising=False)
    monkeypatch.setattr(trl.generation, "VLLMGeneration", vllm_generation.VLLMGeneration, raising=False)
    monkeypatch.setattr(vllm, "_share_of_memory", lambda job: 0.4)
    monkeypatch.setattr(LLM, "made", [])
    before = dict(os.environ)
    yield LLM
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):  # which TRL sets
        os.environ.pop(name, None)
        if name in before:
            os.environ[name] = before[name]


def job(path: Any, sampling: dict[str, Any] | None = None, **sections: Any) -> JobSpec:
    content = {
        "name": "demo",
        "student": {"model": str(path)},
        "method": GRPO,
        "dataset": {"type": "arithmetic", "size": 100, "dev_size": 9, "test_size": 9},
        "training": {"max_steps": 10, "batch_size": 4},
        "sampling": {"max_completion_length": 8, "engine": "vllm"} | (sampling or {}),
        "evaluation": {"max_completion_length": 8},
    }
    return JobSpec.model_validate_json(json.dumps(content | sections))


def writer(path: Any, model: Any = None, **sampling: Any) -> tuple[Vllm, Any]:
    """What writes rollouts of a model, and the model, by default the one at `path`."""
    model = model if model is not None else AutoModelForCausalLM.from_pretrained(path)
    return Vllm(job(path, sampling), model, character_tokenizer(), Accelerator(), longest_prompt=4), model


def expected_logprobs(model: Any, rollout: Any, temperature: float = 1.0, vocabulary: int = VOCABULARY) -> torch.Tensor:
    with torch.no_grad():
        logits = model(torch.tensor([[*rollout.prompt_ids, *rollout.completion_ids]])).logits[0]
    written = logits[len(rollout.prompt_ids) - 1 : -1, :vocabulary]
    return (written / temperature).log_softmax(-1).gather(1, torch.tensor(rollout.completion_ids)[:, None])[:, 0]


def test_rollouts_are_those_of_the_student_in_the_order_of_the_prompts(stand_in, student):
    by_vllm, model = writer(student, temperature=0.7, max_completion_length=40)
    rollouts = by_vllm.roll_out(PROMPTS, 3, seed=1)
    assert [rollout.prompt_ids for rollout in rollouts] == [prompt for prompt in PROMPTS for _ in range(3)]
    for rollout in rollouts:
        assert EOS not in rollout.completion_ids[:-1]
        assert rollout.clipped == (rollout.completion_ids[-1] != EOS)
        assert len(rollout.completion_ids) <= 40 and (not rollout.clipped or len(rollout.completion_ids) == 40)
        torch.testing.assert_close(torch.tensor(rollout.logprobs), expected_logprobs(model, rollout, 0.7))
    assert {rollout.clipped for rollout in rollouts} == {True, False}


def test_vllm_is_asked_for_what_the_losses_need(stand_in, student):
    writer(student, max_completion_length=40)
    (llm,) = stand_in.made
    assert llm.settings["logprobs_mode"] == "processed_logprobs"  # at the sampling temperature
    assert llm.settings["max_model_len"] == 44 and llm.settings["enable_sleep_mode"]
    assert llm.settings["gpu_memory_utilization"] == 0.4 and llm.settings["trust_remote_code"] is False
    assert not llm.awake


def test_only_tokens_of_the_tokenizer_are_written(stand_in, tmp_path):
    wide = save(tmp_path / "wide", tiny_llama(128), character_tokenizer())
    by_vllm, model = writer(wide, max_completion_length=30)
    for rollout in by_vllm.roll_out(PROMPTS, 4, seed=0):
        assert max(rollout.completion_ids) < VOCABULARY
        torch.testing.assert_close(torch.tensor(rollout.logprobs), expected_logprobs(model, rollout))


def test_a_token_beyond_the_tokenizer_ends_the_run(stand_in, tmp_path, monkeypatch):
    monkeypatch.setattr(vllm, "_NEVER", 100.0)
    by_vllm, _ = writer(save(tmp_path / "wide", tiny_llama(128), character_tokenizer()))
    with pytest.raises(RunFailed, match=f"the tokenizer has ids below {VOCABULARY}"):
        by_vllm.roll_out(PROMPTS, 1, seed=0)


def test_equal_seeds_give_equal_rollouts_and_those_of_one_prompt_differ(stand_in, student):
    by_vllm, _ = writer(student)
    first, again, other = (by_vllm.roll_out(PROMPTS, 4, seed=seed) for seed in (2**62, 2**62, 7))
    assert first == again and first != other
    assert len({tuple(rollout.completion_ids) for rollout in first[:4]}) > 1


def test_rollouts_are_by_the_weights_of_now_and_vllm_sleeps_in_between(stand_in, student):
    by_vllm, model = writer(student)
    before = by_vllm.roll_out(PROMPTS, 1, seed=0)
    assert not stand_in.made[0].awake
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.add_(torch.randn(32, 64))
    after = by_vllm.roll_out(PROMPTS, 1, seed=0)
    assert before != after
    for rollout in after:
        torch.testing.assert_close(torch.tensor(rollout.logprobs), expected_logprobs(model, rollout))


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "embed_tokens"]])
def test_adapters_are_in_the_weights_that_vllm_gets_and_the_student_stays_as_it_was(stand_in, tmp_path, targets):
    untied = save(tmp_path / "untied", tiny_llama(VOCABULARY, tie_word_embeddings=False), character_tokenizer())
    config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM", init_lora_weights=False)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(untied), config).eval()
    by_vllm, _ = writer(untied, adapted.get_base_model())
    before = {name: weight.clone() for name, weight in adapted.state_dict().items()}
    rollouts = by_vllm.roll_out(PROMPTS, 2, seed=0)
    for rollout in rollouts:
        torch.testing.assert_close(torch.tensor(rollout.logprobs), expected_logprobs(adapted, rollout))
        with adapted.disable_adapter():
            assert not torch.allclose(torch.tensor(rollout.logprobs), expected_logprobs(adapted, rollout))
    assert all(torch.equal(weight, before[name]) for name, weight in adapted.state_dict().items())


def test_a_run_learns_from_what_vllm_wrote_with_the_weights_of_each_step(stand_in, make_run, monkeypatch):
    steps, states = watch_steps(monkeypatch), weights_before_each_step(monkeypatch)
    run = make_run(GRPO, sampling={"engine": "vllm"}, training={"learning_rate": 0.05})
    train(run)
    (llm,) = stand_in.made
    assert len(llm.weights_of_calls) == len(steps) == 4  # and none for the evaluations
    assert len({tuple(rollout.completion_ids) for step in steps for rollout in step.rollouts}) > 4
    for given, state in zip(llm.weights_of_calls, states, strict=True):
        assert all(torch.equal(weight, given[name]) for name, weight in state.items())
    assert not torch.equal(states[0]["lm_head.weight"], states[-1]["lm_head.weight"])
    assert set(series(run, "train/clip_ratio/high_mean").values()) == {0.0}


def test_a_student_with_adapters_learns_from_what_vllm_wrote(stand_in, make_run, student):
    adapted = {"model": str(student), "lora": {"r": 2}}
    run = make_run({"type": "gkd"}, sampling={"engine": "vllm"}, student=adapted, training={"learning_rate": 0.05})
    train(run)
    first, *_, last = stand_in.made[0].weights_of_calls
    assert not torch.equal(first["model.layers.0.mlp.up_proj.weight"], last["model.layers.0.mlp.up_proj.weight"])
    assert series(run, "train/reverse_kl").keys() == {1, 2, 3, 4}


def test_what_the_teacher_writes_is_not_by_the_student_in_vllm(stand_in, make_run):
    run = make_run({"type": "gkd", "lmbda": 0.5, "seq_kd": True}, sampling={"engine": "vllm"})
    train(run)
    on_policy = series(run, "train/on_policy")
    assert len(stand_in.made[0].weights_of_calls) == sum(on_policy.values())
    assert set(on_policy.values()) == {0.0, 1.0}


def test_nan_logits_end_the_run(stand_in, student, monkeypatch):
    by_vllm, _ = writer(student)
    monkeypatch.setattr(LLM, "nan", True)
    with pytest.raises(RunFailed, match="NaN while vLLM writes") as caught:
        by_vllm.roll_out(PROMPTS, 1, seed=0)
    assert caught.value.reason == "non_finite_loss"


def test_what_vllm_says_against_the_student_is_passed_on(stand_in, student, monkeypatch):
    def refuse(self: Any, **settings: Any) -> None:
        raise ValueError("Free memory on device is less than desired")

    monkeypatch.setattr(LLM, "__init__", refuse)
    with pytest.raises(RunFailed, match=r"Free memory .*; use sampling\.engine: atlas") as caught:
        writer(student)
    assert caught.value.reason == "bad_model"


def test_a_worker_without_vllm_or_gpu_says_so(student, monkeypatch):
    with pytest.raises(RunFailed, match="needs a GPU and this worker has none") as caught:
        writer(student)
    assert caught.value.reason == "bad_model"
    monkeypatch.setattr(vllm, "_share_of_memory", lambda job: 0.4)
    monkeypatch.delattr(trl.generation, "VLLMGeneration", raising=False)
    with pytest.raises(RunFailed, match=r"pip install 'atlas\[vllm\]'") as caught:
        writer(student)
    assert caught.value.reason == "missing_package"


def test_vllm_takes_a_share_of_what_the_optimizer_will_leave(student, monkeypatch):
    estimate = estimate_peak_bytes(job(student))
    assert estimate is not None and estimate.optimizer_bytes > 0
    free, total = 3 * estimate.optimizer_bytes, 5 * estimate.optimizer_bytes
    monkeypatch.setattr(vllm, "device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, total))
    assert vllm._share_of_memory(job(student)) == pytest.approx(0.8 * 2 / 5)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (0, total))
    assert vllm._share_of_memory(job(student)) == 0


def test_trl_has_the_class_that_we_count_on():
    """An upgrade that changes it must fail here rather than on someone's GPU."""
    generation = vllm_generation.VLLMGeneration
    settings = inspect.signature(generation).parameters
    ours = inspect.signature(Vllm.__init__)
    assert list(ours.parameters)[1:] == ["job", "student", "tokenizer", "accelerator", "longest_prompt"]
    assert list(settings)[:3] == ["model", "accelerator", "processing_class"]
    assert {
        "mode": "colocate",
        "gpu_memory_utilization": 0.9,
        "max_model_length": None,
        "enable_sleep_mode": False,
        "trust_remote_code": False,
        "repetition_penalty": 1.0,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "max_completion_length": 16,
        "logprobs": 0,
        "generation_kwargs": None,
    }.items() <= {name: parameter.default for name, parameter in settings.items()}.items()
    asked = ["self", "prompts", "images", "num_generations", "profiler"]
    assert list(inspect.signature(generation.generate).parameters) == asked
    assert "Tuple of (prompt_ids, completion_ids, logprobs, logprob_token_ids)" in inspect.getdoc(generation.generate)
    assert list(inspect.signature(generation.sync_weights).parameters) == ["self"]
    assert '__all__.append("VLLMGeneration")' in inspect.getsource(trl.generation)


def refusals(job: JobSpec) -> dict[str, str]:
    try:
        check(job)
    except SpecError as error:
        return {problem.path: problem.message for problem in error.problems}
    return {}


def test_a_job_for_vllm_is_checked(student, teacher, monkeypatch):
    gpu = Gpu(0, "GPU-0", "NVIDIA H100", 80 * 2**30, 80 * 2**30, "580")
    monkeypatch.setattr(jobs, "find_spec", lambda name: object())
    monkeypatch.setattr(jobs, "gpus", lambda: [gpu])
    assert refusals(job(student)) == {}
    assert "needs a GPU" in refusals(job(student, resources={"gpus": 0}))["sampling.engine"]
    for sampling in ({"top_p": 0.9}, {"top_k": 5}):
        ((path, message),) = refusals(job(student, sampling)).items()
        assert path == f"sampling.{next(iter(sampling))}" and "use engine: atlas" in message
    hub = {"model": "org/model", "revision": "abc"}
    assert refusals(job(student, student=hub)).keys() == {"student.revision"}
    imitation = {"type": "gkd", "lmbda": 0, "seq_kd": True}
    told = refusals(job(student, method=imitation, teacher={"model": str(teacher)}))
    assert "would be ignored" in told["sampling.engine"]
    monkeypatch.setattr(jobs, "find_spec", lambda name: None)
    assert "pip install 'atlas[vllm]'" in refusals(job(student))["sampling.engine"]
    assert refusals(job(student, {"engine": "atlas", "top_p": 0.9})) == {}
