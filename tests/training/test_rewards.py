"""What GRPO optimizes: each component of the reward, their weighted sum, and the coin of the control."""

from itertools import pairwise

import pytest

from atlas.datasets import Arithmetic
from atlas.grading import Verdict
from atlas.run import Stopped
from atlas.training import grpo
from atlas.training.rewards import reward_functions

from .test_resume import stop_after
from .tiny import names, series, train, watch_steps

GRPO = {"type": "grpo", "num_generations": 2}
ALL = {"answer": 1.0, "format": 0.5, "random": 0.25}


def coins(step, count=8, seed=0, completion="x"):
    dataset = Arithmetic()
    examples = [None] * count
    return reward_functions(dataset, seed)["random"](examples, [completion] * count, step)


def rewards_of_steps(monkeypatch):
    """The rewards of every step by name, in order."""
    seen = []
    build = grpo.reward_functions

    def watched(name, function):
        def reward(examples, completions, step):
            if step == len(seen):
                seen.append({})
            seen[step][name] = function(examples, completions, step)
            return seen[step][name]

        return reward

    monkeypatch.setattr(
        grpo, "reward_functions", lambda *args: {name: watched(name, f) for name, f in build(*args).items()}
    )
    return seen


def test_with_the_answer_alone_training_is_bit_equal_to_one_bare_reward(make_run, monkeypatch):
    weighted = make_run(GRPO | {"rewards": {"answer": 1.0}}, "weighted")
    train(weighted)
    bare = make_run(GRPO, "bare")

    def score(examples, completions, step):
        return [bare.job.dataset.score(example, text) for example, text in zip(examples, completions, strict=True)]

    monkeypatch.setattr(grpo, "reward_functions", lambda *args: {"answer": score})
    train(bare)
    for name in ("train/loss", "train/grad_norm", "train/reward"):
        assert series(weighted, name) == series(bare, name) != {}
    assert any(series(bare, "train/grad_norm").values()), "a reward that never differs teaches nothing"
    assert series(weighted, "train/rewards/answer/mean") == series(weighted, "train/reward")


def test_the_reward_is_the_weighted_sum_and_each_component_is_shown(make_run, monkeypatch):
    seen, steps = rewards_of_steps(monkeypatch), watch_steps(monkeypatch)
    run = make_run(GRPO | {"rewards": ALL}, training={"max_steps": 3})
    verdicts = [Verdict(True, True), Verdict(True, False), Verdict(False, False), Verdict(True, True)]
    calls = iter(range(10**6))
    # `answer`, `format` and the evaluations ask in turn, about four completions each
    object.__setattr__(run.job.dataset, "grade", lambda example, text: verdicts[next(calls) % 4])
    train(run)
    assert len(seen) == len(steps) == 3
    for step, (rewards, of_step) in enumerate(zip(seen, steps, strict=True), start=1):
        assert rewards["answer"] == [1, 0, 0, 1] and rewards["format"] == [1, 1, 0, 1]
        total = [sum(ALL[name] * rewards[name][i] for name in ALL) for i in range(4)]
        expected = [total[i] - (total[i - i % 2] + total[i - i % 2 + 1]) / 2 for i in range(4)]
        assert of_step.advantages == pytest.approx(expected)
        assert series(run, "train/reward")[step] == pytest.approx(sum(total) / 4)
        for name in ALL:
            assert series(run, f"train/rewards/{name}/mean")[step] == sum(rewards[name]) / 4
    assert {name for name in names(run) if name.startswith("train/rewards/")} == {
        f"train/rewards/{name}/mean" for name in ALL
    }


def test_what_weighs_nothing_is_neither_computed_nor_shown(make_run):
    run = make_run(GRPO | {"rewards": {"answer": 0.0, "random": 2.0}}, training={"max_steps": 1})

    def refuse(example, completion):
        raise AssertionError("graded")

    object.__setattr__(run.job.dataset, "score", refuse)
    train(run)
    assert [name for name in names(run) if "/rewards/" in name] == ["train/rewards/random/mean"]
    assert series(run, "train/reward") == {1: 2 * series(run, "train/rewards/random/mean")[1]}


def test_format_rewards_any_answer_and_answer_only_the_right_one():
    dataset = Arithmetic()
    (example,) = dataset.load().train[:1]
    completions = [f"The answer is: {example.answer}", "The answer is: -123456", "I do not know"]
    rewards = reward_functions(dataset, seed=0)
    assert rewards["answer"]([example] * 3, completions, 0) == [1, 0, 0]
    assert rewards["format"]([example] * 3, completions, 0) == [1, 1, 0]


def test_the_coin_is_fair_thrown_for_each_completion_and_blind_to_it():
    thrown = [coins(step) for step in range(500)]
    faces = [face for step in thrown for face in step]
    assert set(faces) == {0.0, 1.0} and abs(sum(faces) / 4000 - 0.5) < 0.03
    assert abs(sum(step[0] == step[1] for step in thrown) / 500 - 0.5) < 0.08, "two of a group are independent"
    assert abs(sum(a[0] == b[0] for a, b in pairwise(thrown)) / 499 - 0.5) < 0.08
    assert [coins(step, completion="another") for step in range(500)] == thrown
    assert [coins(step, seed=1) for step in range(500)] != thrown


def test_a_resumed_run_throws_the_same_coins(make_run):
    settings = {"training": {"max_steps": 5, "micro_batch_size": 2, "save_every_steps": 2}}
    method = GRPO | {"rewards": ALL}
    unbroken = make_run(method, "unbroken", **settings)
    train(unbroken)
    broken = make_run(method, "broken", **settings)
    stop_after(broken, 3)
    with pytest.raises(Stopped):
        train(broken)
    again = make_run(method, "broken", **settings)
    train(again)
    for name in ("train/loss", "train/grad_norm", "train/rewards/random/mean"):
        assert series(again, name) == series(unbroken, name)
    assert sorted(series(again, "train/loss")) == [1, 2, 3, 4, 5]
