"""The pass rate on held-out problems, off the training clock: dev on the way, to choose a checkpoint; test once."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from atlas.analysis.intervals import wilson
from atlas.datasets.base import Example, Splits
from atlas.errors import RunFailed
from atlas.run import Run, Sample, Stopped
from atlas.training import checkpoints, ranks
from atlas.training.chat_template import check_chat_template
from atlas.training.generation import Completion, generate
from atlas.training.load import check_vocabulary, load_model, load_tokenizer, resolved_revision
from atlas.training.prompts import check_lengths, render_prompt


def evaluate_only(run: Run) -> None:
    """Measures the student as it is: `method: evaluate`."""
    run.progress("train", 0, 0)
    run.progress("load")
    cache = run.directory.parents[1] / "cache"
    splits = run.job.dataset.load()
    run.record_splits(splits)
    tokenizer = load_tokenizer(run.job.student, cache)
    evaluator = Evaluator(run, tokenizer, splits)
    check_chat_template(tokenizer, evaluator.examples[0].messages)
    model = load_model(run.job.student, cache, trainable=False)
    check_vocabulary(model, tokenizer)
    run.summary["revisions"] = {"student": resolved_revision(model)}
    evaluator.check_lengths(model)
    evaluator.student(model, step=0)
    if evaluator.chooses:
        evaluator.test(model, step=0)


class Evaluator:
    """Measures a model on the job's held-out problems, says when to do it, and keeps the weights that were best.

    What it found is in `run.summary`: `first`, `best`, `last`, `teacher` and `test`, each `{step, pass_rate, low, high,
    train_seconds}`. The summary is part of every checkpoint, so that a resumed run goes on.
    """

    def __init__(self, run: Run, tokenizer: PreTrainedTokenizerBase, splits: Splits) -> None:
        """Raises RunFailed(`bad_data`) if a split that is to be measured is empty."""
        self.run, self.tokenizer, self.spec = run, tokenizer, run.job.evaluation
        self.chooses = self.spec.split == "dev"
        """Whether the best checkpoint is chosen on dev and scored on test."""
        for split in ("dev", "test") if self.chooses else ("test",):
            if not getattr(splits, split):
                raise RunFailed("bad_data", f"the {split} split holds no problems; set dataset.{split}_size above 0")
        self.examples = list(getattr(splits, self.spec.split)[: self.spec.max_problems])
        """What is measured on the way."""
        self.test_examples = list(splits.test) if self.chooses else []

    def check_lengths(self, model: PreTrainedModel) -> None:
        """Raises RunFailed(`bad_data`) if some problem does not fit into the model's context."""
        examples = [*self.examples, *self.test_examples]
        check_lengths(model, self.tokenizer, examples, [self.spec.max_completion_length] * len(examples))

    def due(self, step: int, last: bool) -> bool:
        """Whether the student is to be measured after this step; never twice at the same one."""
        previous = self.run.summary.get("last", {"step": None, "train_seconds": 0.0})
        if previous["step"] == step:
            return False
        minutes = (self.run.clock.readings()["train_seconds"] - previous["train_seconds"]) / 60
        every = self.spec
        return (
            last
            or step == 0
            or (every.every_steps is not None and step % every.every_steps == 0)
            or (every.every_minutes is not None and minutes >= every.every_minutes)
        )

    def student(self, model: PreTrainedModel, step: int) -> None:
        """Logs `eval/*`, with the samples, and keeps the weights if they are the best so far on dev. Raises Stopped,
        having logged nothing, if the run is to stop."""
        values, samples = self._measure(model, self.examples, "evaluate")
        self.run.log({f"eval/{name}": value for name, value in values.items()}, step)
        self.run.log_samples(samples, step, self.spec.split)
        found = self._summary(values, step)
        summary = self.run.summary
        summary["last"] = found
        summary.setdefault("first", found)
        if found["pass_rate"] > summary.setdefault("best", found)["pass_rate"]:
            if self.chooses:
                self._keep(model, step)
            summary["best"] = found

    def test(self, model: PreTrainedModel, step: int) -> None:
        """Scores the best weights, which the model holds, on all of test, unless an earlier attempt has done it. Logs
        `test/*` at `step`, the run's last, and the samples at the step of the weights. Raises Stopped like `student`.
        """
        best = self.run.summary["best"]
        values = ranks.agreed(lambda: self.run.logged("test/pass_rate", step))
        if values is None:
            found, samples = self._measure(model, self.test_examples, "test")
            values = {f"test/{name}": value for name, value in (found | {"step": best["step"]}).items()}
            self.run.log_samples(samples, best["step"], "test")
            self.run.log(values, step)
        self.run.summary["test"] = {
            "step": best["step"],
            "pass_rate": values["test/pass_rate"],
            "low": values["test/pass_rate_low"],
            "high": values["test/pass_rate_high"],
            "train_seconds": best["train_seconds"],
        }

    def teacher(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Logs `eval/teacher_pass_rate` and its interval at step 0; the tokenizer is the teacher's own. Raises Stopped
        like `student`."""
        values, _ = self._measure(model, self.examples, "evaluate", tokenizer)
        names = ("pass_rate", "pass_rate_low", "pass_rate_high")
        self.run.log({f"eval/teacher_{name}": values[name] for name in names}, 0)
        self.run.summary["teacher"] = self._summary(values, 0)

    def _keep(self, model: PreTrainedModel, step: int) -> None:
        folder = self.run.checkpoints
        with self.run.clock.phase("checkpoint", training=False):
            staged = folder / checkpoints.STAGING / "best"
            if ranks.rank():
                ranks.save_pretrained(model, staged)
                return
            checkpoints.rotate_best(folder, step)  # first, so that the disk never holds more than it must
            ranks.save_pretrained(model, staged)
            checkpoints.publish(staged, checkpoints.best_weights(folder, step))

    def _measure(
        self,
        model: PreTrainedModel,
        examples: Sequence[Example],
        phase: str,
        tokenizer: PreTrainedTokenizerBase | None = None,
    ) -> tuple[dict[str, float], list[Sample]]:
        spec, run, tokenizer = self.spec, self.run, tokenizer or self.tokenizer

        def report(done: int, total: int) -> None:
            if run.stop_requested:
                raise Stopped
            of_all = len(examples) * spec.num_samples
            run.progress(phase, min(done * ranks.size(), of_all), of_all)

        def write(mine: Sequence[Example]) -> list[Sample]:
            prompts = [render_prompt(tokenizer, example.messages) for example in mine]
            completions = generate(
                model,
                tokenizer,
                [prompt for prompt in prompts for _ in range(spec.num_samples)],
                max_completion_length=spec.max_completion_length,
                temperature=spec.temperature,
                top_p=spec.top_p,
                batch_size=spec.batch_size,
                seed=run.job.seed,
                before_batch=report,
            )
            return [
                self._sample(example, completions[i * spec.num_samples + k], k)
                for i, example in enumerate(mine)
                for k in range(spec.num_samples)
            ]

        with run.clock.phase("evaluate", training=False), ranks.whole(model):
            samples = _together(examples, write)
        return _statistics(samples, len(examples)), samples

    def _sample(self, example: Example, completion: Completion, number: int) -> Sample:
        verdict = self.run.job.dataset.grade(example, completion.text)
        return Sample(
            problem_id=example.id,
            completion=completion.text,
            extracted=verdict.extracted,
            found=verdict.found,
            correct=verdict.correct,
            tokens=len(completion.token_ids),
            clipped=completion.clipped,
            sample=number,
        )

    def _summary(self, values: Mapping[str, float], step: int) -> dict[str, Any]:
        return {
            "step": step,
            "pass_rate": values["pass_rate"],
            "low": values["pass_rate_low"],
            "high": values["pass_rate_high"],
            "train_seconds": self.run.clock.readings()["train_seconds"],
        }


def _together(examples: Sequence[Example], write: Callable[[Sequence[Example]], list[Sample]]) -> list[Sample]:
    """What all processes write, each for every n-th problem, in the order of the problems. Raises Stopped in all of
    them if one was stopped."""
    try:
        mine = write(examples[ranks.rank() :: ranks.size()])
    except Stopped:
        ranks.gather(None)
        raise
    found = ranks.gather(mine)
    if None in found:
        raise Stopped
    order = {example.id: place for place, example in enumerate(examples)}
    return sorted(
        (sample for each in found for sample in each), key=lambda sample: (order[sample.problem_id], sample.sample)
    )


def _statistics(samples: Sequence[Sample], problems: int) -> dict[str, float]:
    """Means over all samples. The interval counts problems, not samples: several tries at one problem are not
    independent, and counting them as if they were would make it too narrow."""
    share = 1 / len(samples)
    pass_rate = sum(sample.correct for sample in samples) * share
    low, high = wilson(pass_rate * problems, problems)
    return {
        "pass_rate": pass_rate,
        "pass_rate_low": low,
        "pass_rate_high": high,
        "format_rate": sum(sample.found for sample in samples) * share,
        "mean_tokens": sum(sample.tokens for sample in samples) * share,
        "clipped_share": sum(sample.clipped for sample in samples) * share,
        "problems": problems,
    }
