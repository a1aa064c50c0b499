"""What every method in the union promises."""

from typing import get_args

import pytest

from atlas.errors import SpecError
from atlas.job import JobSpec
from atlas.methods import AnyMethod
from atlas.methods.base import Method

METHODS = get_args(get_args(AnyMethod)[0])


def job(method, **changes):
    document = {
        "name": "job",
        "student": {"model": "org/student"},
        "method": {"type": method.model_fields["type"].default},
        "dataset": {"type": "arithmetic"},
    }
    if method.needs_teacher:
        document["teacher"] = {"model": "org/teacher"}
    if method.trains:
        document["training"] = {"max_steps": 1, "batch_size": 8}
    return JobSpec.model_validate({k: v for k, v in (document | changes).items() if v is not None})


def problems(spec):
    with pytest.raises(SpecError) as caught:
        spec.method.check(spec)
    return {problem.path: problem.message for problem in caught.value.problems}


@pytest.mark.parametrize("method", METHODS)
def test_a_method_is_a_documented_spec_with_defaults_in_the_file_of_its_type(method):
    assert issubclass(method, Method)
    assert method.__doc__
    assert method.__module__ == f"atlas.methods.{method.model_fields['type'].default}"
    for name, field in method.model_fields.items():
        assert name == "type" or field.description, f"{name} has no docstring"
        assert not field.is_required(), f"{name} has no default"


@pytest.mark.parametrize("method", METHODS)
def test_a_job_with_just_what_the_method_needs_is_accepted(method):
    spec = job(method)
    spec.method.check(spec)
    assert (spec.sampling is not None) == method.samples_rollouts


@pytest.mark.parametrize("method", METHODS)
def test_a_missing_teacher_is_asked_for_and_a_useless_one_is_refused(method):
    if method.needs_teacher:
        assert "add `teacher:" in problems(job(method, teacher=None))["teacher"]
    else:
        assert "would be ignored" in problems(job(method, teacher={"model": "org/teacher"}))["teacher"]


@pytest.mark.parametrize("method", METHODS)
def test_training_settings_are_asked_for_or_refused(method):
    if method.trains:
        assert "max_steps" in problems(job(method, training=None))["training"]
    else:
        assert "would be ignored" in problems(job(method, training={"max_steps": 1}))["training"]


@pytest.mark.parametrize("method", METHODS)
def test_sampling_settings_without_rollouts_are_refused(method):
    spec = job(method, sampling={"temperature": 0.5})
    if method.samples_rollouts:
        spec.method.check(spec)
    else:
        assert "would be ignored" in problems(spec)["sampling"]


@pytest.mark.parametrize("method", METHODS)
def test_a_budget_that_would_be_ignored_is_refused(method):
    timed, counted = job(method, budget={"gpu_hours": 1.0}), job(method, budget={"rollouts": 8})
    if not method.trains:
        assert "would be ignored" in problems(timed)["budget"] and "would be ignored" in problems(counted)["budget"]
        return
    timed.method.check(timed)
    if method.samples_rollouts:
        counted.method.check(counted)
    else:
        assert "would be ignored" in problems(counted)["budget.rollouts"]


def test_grpo_needs_whole_groups():
    (grpo,) = (method for method in METHODS if method.__name__ == "Grpo")
    spec = job(grpo, training={"max_steps": 1, "batch_size": 12})
    assert "multiple of num_generations (8), got 12" in problems(spec)["training.batch_size"]


@pytest.mark.parametrize("method", METHODS)
def test_a_rhythm_of_evaluation_without_training_is_refused(method):
    spec = job(method, evaluation={"every_minutes": 5.0})
    if method.trains:
        spec.method.check(spec)
    else:
        assert "would be ignored" in problems(spec)["evaluation.every_minutes"]
