"""What was measured: the chart, the tables, where the time went. Each part says in one line how it is computed."""

import math
from collections.abc import Iterator, Mapping, Sequence

from atlas.analysis.curves import Reached, peak, time_to_peak
from atlas.analysis.intervals import wilson
from atlas.analysis.seeds import MeanError
from atlas.comparison.arms import counted, curve
from atlas.comparison.model import ArmResult, Comparison, RunResult, Verdict
from atlas.comparison.phases import OFF_THE_CLOCK, in_order, on_the_clock, phase_means, phase_name
from atlas.comparison.wording import counted_noun, device_time, percent
from atlas.report import numbers
from atlas.report.chart import baseline_rate, pass_rate_chart, phase_chart, split_of
from atlas.report.document import Block, Cell, Details, Figure, Missing, Paragraph, Table, table

STATISTICS = "docs/statistics.md"
_TOOK = ("gpu_seconds", "rollouts", "tokens_generated")
"""Clocks of what a whole run took."""


def differences_on_test(comparison: Comparison) -> tuple[Block, ...]:
    """Every arm against the reference, on test."""
    if not comparison.verdicts:
        return ()
    reference = comparison.verdicts[0].reference
    level = percent(comparison.level)
    two_runs = any(verdict.paired for verdict in comparison.verdicts)
    columns = [
        f"against {reference}",
        f"difference in points [{level} % interval]",
        "seeds",
        "problems",
        "gained",
        "lost",
    ]
    rows = [_difference_row(verdict) for verdict in comparison.verdicts]
    if two_runs:
        columns.append("McNemar p")
        rows = [[*row, _p_value(verdict)] for row, verdict in zip(rows, comparison.verdicts, strict=True)]
    how = (
        "Pass rate on test, arm minus reference, on the same problems; the interval covers the variance over problems "
        "and, with two seeds or more, over seeds."
    )
    if len(comparison.verdicts) > 1:
        how += f" {len(comparison.verdicts)} comparisons, so each is at {level} % (Bonferroni)."
    how += " Gained and lost: problems that most seeds of one arm solve and most of the other do not."
    if two_runs:
        how += " McNemar p: exact, two-sided, of two runs; it says that the runs differ, not that their methods do."
    return (table(columns, rows), _how(how))


def curves(comparison: Comparison) -> tuple[Block, ...]:
    """The pass rate over training time."""
    svg = pass_rate_chart(comparison)
    if svg is None:
        return (Paragraph("No run has been evaluated yet: there is nothing to draw."),)
    names = ", ".join(arm.name for arm in comparison.arms)
    split = split_of(comparison)
    how = (
        f"Pass rate on {split} at each evaluation, over training time: loading and evaluation are left out, the "
        "teacher's forward passes are in. Thick line and band: mean, lowest and highest of the seeds that did not "
        "fail; no confidence interval. Thin lines: single seeds, dotted if the run failed. Bars: 95 % Wilson "
        "intervals, where there is one seed. Crosses: a target reached."
    )
    return (Figure(svg, f"Pass rate on {split} over training time, for {names}. Numbers are below."), _how(how))


def final_metrics(comparison: Comparison) -> tuple[Block, ...]:
    """One row for each arm; one for each run, folded; the baselines."""
    split = split_of(comparison)
    readings = _readings(comparison)
    unit = readings.device.unit
    rates = (f"step 0 ({split})", f"peak ({split})", "test")
    took = (f"to peak ({unit})", f"whole run ({unit})", "rollouts", "tokens", "reverse KL")
    arms = table(("arm", "seeds", *rates, "SE", *took), [_arm_row(arm, readings) for arm in comparison.arms])
    runs = table(
        ("run", "arm", "seed", "state", *rates, "chosen step", *took),
        [_run_row(run, readings) for arm in comparison.arms for run in arm.runs],
        labels=4,
    )
    how = (
        f"Pass rates in %, with 95 % Wilson intervals over problems. Step 0 and peak are on {split}; the peak is the "
        f"best of several noisy evaluations and so leans upwards. {_how_tested(comparison)} SE: standard error "
        "of the test pass rate over seeds, in points. To peak: to the first evaluation within one standard error of "
        "the peak; mean (range over seeds). The rest is what a whole run took (tokens: written by the student; reverse "
        "KL: nats per token to the teacher, at the end), mean ± standard error over seeds. "
        f"{unit}: training time × devices; loading and evaluation are left out."
    )
    return (arms, _how(how), Details("Each run", (runs,)), *_baselines(comparison))


def time_to_target(comparison: Comparison) -> tuple[Block, ...]:
    """When each arm reached each target."""
    if not comparison.targets:
        return (Paragraph("There is no target: neither a teacher nor a second arm was measured."),)
    readings = _readings(comparison)
    clocks = {"train_seconds": "training time", "gpu_seconds": readings.device.unit, "rollouts": "rollouts"}
    rows: list[list[Cell]] = []
    for target in comparison.targets:
        for arm in comparison.arms:
            by_clock = target.reached.get(arm.name, {})
            cells = [
                readings.reached(clock, _of_counted(arm, by_clock.get(clock, ())), "the arm has no evaluation")
                for clock in clocks
            ]
            rows.append([target.name, f"{numbers.percent(target.level)} %", arm.name, *cells])
    how = (
        "The first evaluation at or above the level, interpolated linearly from the one before; mean (range over "
        "seeds). A level that was never reached took longer than the run: >. The level of a peak is that peak less one "
        "standard error of an evaluation."
    )
    return (table(("target", "level", "arm", *clocks.values()), rows, labels=3), _how(how))


def speed_up_split(comparison: Comparison) -> tuple[Block, ...]:
    """How much sooner, and whether that is fewer rollouts or cheaper ones."""
    if not comparison.verdicts:
        return (Paragraph("Nothing to compare: there is one arm."),)
    columns = ("arms", "sooner", "speed-up", "interval", "= rollouts ratio", "× cost-per-rollout ratio")
    rows = [_speed_up_row(verdict) for verdict in comparison.verdicts]
    how = (
        "Training time of the slower arm over that of the sooner one, both at the weaker arm's peak less one standard "
        "error: geometric mean of one ratio for each seed, with the t-interval on the logarithms "
        f"({percent(comparison.level)} %). Rollouts ratio above 1: the sooner arm learns more from each rollout. "
        "Cost-per-rollout ratio above 1: each of its rollouts takes less training time. Their product is the speed-up. "
        "An interval that holds 1 claims nothing."
    )
    return (table(columns, rows, labels=2), _how(how))


def phases(comparison: Comparison) -> tuple[Block, ...]:
    """Training and evaluation by phase, drawn and in words."""
    spent = _spent(comparison)
    if not spent:
        return phases_in_words(comparison)
    alt = "; ".join(
        f"{name}: " + ", ".join(f"{phase_name(phase)} {numbers.duration(s)}" for phase, s in seconds.items())
        for name, seconds in spent.items()
    )
    return (Figure(phase_chart(spent), f"Mean time of a run by phase. {alt}"), *phases_in_words(comparison))


def phases_in_words(comparison: Comparison) -> tuple[Block, ...]:
    """The teacher's share, and all phases in numbers."""
    spent = _spent(comparison)
    without = [arm.name for arm in comparison.arms if arm.name not in spent]
    blocks: list[Block] = []
    if spent:
        blocks += [Paragraph(sentence) for sentence in _teacher_shares(comparison, spent)]
        blocks.append(Details("The same in numbers", (_phase_table(spent),)))
        blocks.append(
            _how(
                "Time in each phase, mean over the seeds. Other: training time that no phase accounts for. Shares "
                "are of the training time; evaluation and checkpoints are not on that clock."
            )
        )
    if without:
        blocks.append(Paragraph(f"No phases were recorded for {', '.join(without)}.", "muted"))
    return tuple(blocks)


def _spent(comparison: Comparison) -> dict[str, dict[str, float]]:
    """Arm -> mean seconds by phase, of the arms that recorded any."""
    return {arm.name: seconds for arm in comparison.arms if (seconds := phase_means(arm))}


def _how(text: str) -> Paragraph:
    return Paragraph(f"{text} See {STATISTICS}.", "muted")


def _readings(comparison: Comparison) -> numbers.Readings:
    return numbers.Readings(device_time([run for arm in comparison.arms for run in arm.runs]))


def _of_counted(arm: ArmResult, reached: Sequence[Reached]) -> list[Reached]:
    """Of the runs that the arm's numbers rest on; `reached` has one entry for each of its runs."""
    basis = {run.id for run in counted(arm.runs)}
    return [each for run, each in zip(arm.runs, reached, strict=True) if run.id in basis] if reached else []


def _how_tested(comparison: Comparison) -> str:
    if split_of(comparison) == "test":
        return "With split: test nothing is chosen, and the test score is the last evaluation."
    return "Test is scored once, at the checkpoint that was best on dev (of each run: the chosen step)."


def _difference_row(verdict: Verdict) -> list[Cell]:
    difference = verdict.difference
    if difference is None or not math.isfinite(difference.value):
        return [verdict.arm, *[Missing("no pair of test scores")] * 5]
    return [
        verdict.arm,
        f"{numbers.signed_points(difference.value)} "
        f"[{numbers.signed_points(difference.low)}, {numbers.signed_points(difference.high)}]",
        str(difference.seeds),
        f"{difference.problems:,}",
        str(len(verdict.gained_P)),
        str(len(verdict.lost_P)),
    ]


def _p_value(verdict: Verdict) -> Cell:
    if verdict.paired is None:
        return Missing("McNemar's test is of two runs: where each side has one seed")
    return numbers.p_value(verdict.paired.p_value)


def _arm_row(arm: ArmResult, readings: numbers.Readings) -> list[Cell]:
    finished = sum(run.state == "succeeded" for run in arm.runs)
    untested = "no run has a score on test yet"
    return [
        arm.name,
        str(finished) if finished == len(arm.runs) else f"{finished} of {len(arm.runs)}",
        numbers.pass_rate(arm.first, "no evaluation at step 0"),
        numbers.pass_rate(arm.peak, "no evaluation that is a number, or nothing was trained"),
        numbers.pass_rate(arm.test, untested),
        numbers.error_over_seeds(arm.test, untested),
        readings.reached("gpu_seconds", _of_counted(arm, arm.to_peak.get("gpu_seconds", ())), "no peak"),
        *(readings.mean(clock, arm.used.get(clock)) for clock in _TOOK),
        _reverse_kl(arm.reverse_kl),
    ]


def _reverse_kl(mean: MeanError | None) -> Cell:
    if mean is None:
        return Missing("not measured: there is no teacher, or the method does not log it")
    if not math.isfinite(mean.mean):
        return Missing("the reverse KL is not a number (NaN)")
    return f"{mean.mean:.3g}" + (f" ± {mean.standard_error:.2g}" if math.isfinite(mean.standard_error) else "")


def _run_row(run: RunResult, readings: numbers.Readings) -> list[Cell]:
    first = float(run.pass_rate_E[0]) if run.steps_E and run.steps_E[0] == 0 else None
    highest = peak(run.pass_rate_E)[0] if run.steps_E else None
    to_peak = [time_to_peak(*curve(run, "gpu_seconds"), run.problems)] if run.problems else []
    return [
        run.id,
        run.arm,
        str(run.seed),
        f"{run.state}: {run.failure}" if run.failure else run.state,
        _rate(first, run.problems, "no evaluation at step 0"),
        _rate(highest, run.problems, "no evaluation"),
        _test_rate(run),
        Missing("the run has no score on test") if run.test_step is None else str(run.test_step),
        readings.reached("gpu_seconds", to_peak, "no peak"),
        *(readings.of_run(clock, run.used.get(clock)) for clock in _TOOK),
        _reverse_kl(None if run.reverse_kl is None else MeanError(run.reverse_kl, math.nan, 1)),
    ]


def _rate(rate: float | None, problems: int, reason: str) -> Cell:
    if rate is None or not problems:
        return Missing(reason)
    if not math.isfinite(rate):
        return Missing("the pass rate is not a number (NaN)")
    return numbers.percent_with_interval(rate, *wilson(rate * problems, problems))


def _test_rate(run: RunResult) -> Cell:
    if run.test_correct_P is None or not len(run.test_correct_P):
        return Missing("the run has no score on test")
    return _rate(float(run.test_correct_P.mean()), len(run.test_correct_P), "")


def _baselines(comparison: Comparison) -> Iterator[Block]:
    if not comparison.baselines:
        yield Paragraph("No baselines were measured: neither student nor teacher as they are.", "muted")
        return
    split = split_of(comparison)
    rows: list[list[Cell]] = []
    for name, run in comparison.baselines.items():
        rate = _rate(
            baseline_rate(comparison, name), run.problems, f"the {name} has no evaluation: its run {run.state}"
        )
        rows.append([name, run.job.student.model, run.id, rate, _test_rate(run)])
    yield Paragraph("Baselines: the models as they are, before any training.")
    yield table(("baseline", "model", "run", f"{split} [95 % interval]", "test [95 % interval]"), rows, labels=3)


def _speed_up_row(verdict: Verdict) -> list[Cell]:
    arms = f"{verdict.arm}, {verdict.reference}"
    if verdict.sooner is None:
        return [arms, *[Missing("it cannot be said which is sooner: see the verdict")] * 5]
    return [arms, verdict.sooner, *_ratio_cells(verdict), *_split_cells(verdict)]


def _ratio_cells(verdict: Verdict) -> list[Cell]:
    ratio = verdict.speed_up
    if ratio is None or not ratio.seeds:
        nothing = Missing("no pair of seeds has the times")
        return [nothing, nothing]
    if not math.isfinite(ratio.value):
        nothing = Missing(
            f"in {ratio.unreached} of {ratio.seeds} seeds one side never got there; "
            "nothing is claimed from the seeds that did"
            if ratio.unreached
            else "a time is 0: the level was reached before training"
        )
        return [nothing, nothing]
    value = f"{numbers.ratio(ratio.value)} ({counted_noun(ratio.seeds, 'seed')})"
    if not math.isfinite(ratio.low):
        return [value, Missing("one seed has no interval")]
    return [value, f"[{numbers.ratio(ratio.low)}, {numbers.ratio(ratio.high)}]"]


def _split_cells(verdict: Verdict) -> list[Cell]:
    if verdict.split is None:
        return [Missing("an arm does not reach the level in every seed, or writes no rollouts")] * 2
    return [numbers.ratio(verdict.split.rollouts_ratio), numbers.ratio(verdict.split.cost_per_rollout_ratio)]


def _teacher_shares(comparison: Comparison, spent: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    for arm in comparison.arms:
        seconds = spent.get(arm.name, {})
        trained = on_the_clock(seconds)
        if "teacher" in seconds and trained > 0:
            yield (
                f"{arm.name}: the teacher's forward passes are {100 * seconds['teacher'] / trained:.0f} % of the "
                f"training time ({numbers.duration(seconds['teacher'])} of {numbers.duration(trained)})."
            )
        elif trained > 0:
            yield f"{arm.name}: no time went to a teacher."


def _phase_table(spent: Mapping[str, Mapping[str, float]]) -> Table:
    names = in_order(spent)
    return table(
        ("phase", *spent), [[phase_name(name), *(_phase_cell(name, by) for by in spent.values())] for name in names]
    )


def _phase_cell(name: str, seconds: Mapping[str, float]) -> Cell:
    if name not in seconds:
        return Missing("the arm has no such phase")
    trained = on_the_clock(seconds)
    if name in OFF_THE_CLOCK or not trained:
        return numbers.duration(seconds[name])
    return f"{numbers.duration(seconds[name])} ({100 * seconds[name] / trained:.0f} %)"
