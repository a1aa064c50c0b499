import math

import pytest

from atlas.comparison.collect import collect

GPU = {"atlas": {"version": "0.2.0"}, "packages": {}, "gpus": [{"name": "H200"}]}


def verdict(lab, *runs):
    return collect(lab.store, runs).verdicts[0]


def climbing(lab, seeds=(0,), scales=(1.0,), **changes):
    """grpo reaches 45 % at step 17.5, of 8 s and 21 rollouts each: 140 s, 367.5 rollouts. gkd at step 7: 7 s, 56."""
    grpo = {"seconds_per_step": 8.0, "rollouts_per_step": 21.0}
    runs = [
        lab.run("grpo", seed, [0.1, 0.3, 0.5], **grpo | {"seconds_per_step": 8.0 * scale}, **changes)
        for seed, scale in zip(seeds, scales, strict=True)
    ]
    return runs + [lab.run("gkd", seed, [0.1, 0.6, 0.7], **changes) for seed in seeds]


def scored(lab, gkd, grpo):
    """Runs with these test outcomes, a string for each seed. The first, grpo, is the reference."""
    runs = [lab.run("grpo", seed, [0.1], test) for seed, test in enumerate(grpo)]
    return verdict(lab, *runs, *(lab.run("gkd", seed, [0.1], test) for seed, test in enumerate(gkd)))


def test_a_speed_up_is_the_product_of_its_reasons(lab):
    found = verdict(lab, *climbing(lab))
    assert found.sooner == "gkd" and found.speed_up.value == pytest.approx(20)
    assert math.isnan(found.speed_up.low)
    assert (found.split.rollouts_ratio, found.split.cost_per_rollout_ratio) == pytest.approx((6.5625, 20 / 6.5625))
    assert found.sentences[1] == (
        "With 1 seed no speed-up can be claimed; in it, gkd reaches grpo's peak 20.0x sooner in training time: "
        "6.6x fewer rollouts, 3.0x cheaper each."
    )


def test_several_seeds_give_an_interval_and_geometric_means(lab):
    found = verdict(lab, *climbing(lab, (0, 1, 2), (0.5, 1.0, 2.0)))
    half = 4.302653 * math.log(2) / math.sqrt(3)  # t of 2 degrees of freedom; the ratios are 10, 20 and 40
    assert found.speed_up.value == pytest.approx(20)
    assert (found.speed_up.low, found.speed_up.high) == pytest.approx((20 / math.exp(half), 20 * math.exp(half)))
    assert found.split.speed_up == pytest.approx(found.split.rollouts_ratio * found.split.cost_per_rollout_ratio)
    assert "20.0x sooner in training time (95 % interval 3.6 to 112, 3 seeds): 6.6x fewer" in found.sentences[1]


def test_the_reference_may_be_the_one_that_is_sooner(lab):
    found = verdict(lab, lab.run("gkd", 0, [0.1, 0.6, 0.7]), lab.run("grpo", 0, [0.1, 0.3, 0.5]))
    assert (found.arm, found.reference, found.sooner) == ("grpo", "gkd", "gkd")
    assert found.speed_up.value == pytest.approx(2.5)
    assert "in it, gkd reaches grpo's peak 2.5x sooner" in found.sentences[1]


def test_the_weaker_arm_may_be_sooner_with_more_but_cheaper_rollouts(lab):
    gkd = lab.run("gkd", 0, [0.1, 0.6, 0.7], rollouts_per_step=2.0, seconds_per_step=4.0)
    found = verdict(lab, gkd, lab.run("grpo", 0, [0.1, 0.3, 0.5]))
    assert found.sooner == "grpo" and found.speed_up.value == pytest.approx(28 / 17.5)
    assert found.sentences[1] == (
        "With 1 seed no speed-up can be claimed; in it, "
        "grpo reaches its own peak 1.6x sooner than gkd does in training time: 10.0x more rollouts, 16.0x cheaper each."
    )


def test_a_method_without_rollouts_has_a_speed_up_without_reasons(lab):
    found = verdict(lab, lab.run("sft", 0, [0.1, 0.3, 0.5], rollouts_per_step=0.0), lab.run("gkd", 0, [0.1, 0.6, 0.7]))
    assert found.split is None
    assert found.sentences[1].endswith("in it, gkd reaches sft's peak 2.5x sooner in training time.")


def test_an_interval_that_holds_one_is_no_claim(lab):
    runs = [lab.run("grpo", seed, [0.1, 0.3, 0.5], seconds_per_step=s) for seed, s in enumerate((0.1, 4.0))]
    runs += [lab.run("gkd", seed, [0.1, 0.6, 0.7]) for seed in range(2)]
    (_, sentence) = verdict(lab, *runs).sentences
    assert sentence.startswith("No difference in training time to grpo's peak can be claimed between gkd and grpo: ")
    assert "(95 % interval under 0.01 to over 1000, 2 seeds)" in sentence


def test_nothing_is_claimed_from_the_seeds_that_happened_to_get_there(lab):
    hour = {"seconds_per_step": 900.0, "environment": GPU}
    runs = [lab.run("gkd", seed, [0.1, 0.5, 0.5], **hour) for seed in range(3)]
    runs += [lab.run("grpo", seed, [0.1, 0.2, peak], **hour) for seed, peak in enumerate((0.3, 0.4, 0.9))]
    found = verdict(lab, *runs)
    assert found.sooner is None and math.isnan(found.speed_up.value) and found.speed_up.unreached == 2
    assert found.sentences[1] == (
        "grpo never reaches gkd's peak in 2 of 3 seeds (> 5.0 GPU-h): no speed-up is claimed."
    )


def test_a_run_that_goes_on_has_not_reached_it_yet(lab):
    runs = [lab.run("gkd", 0, [0.1, 0.3, 0.5]), lab.run("gkd", 1, [0.1, 0.1], state="running")]
    runs += [lab.run("grpo", seed, [0.1, 0.6, 0.9]) for seed in range(2)]
    found = verdict(lab, *runs)
    assert "gkd has not reached its own mean peak yet in 1 of 2 seeds (> 10.0 CPU-s)" in found.sentences[1]


def test_claims_rest_on_the_seeds_that_did_not_fail_and_say_how_many(lab):
    runs = climbing(lab, (0, 1), (1.0, 1.0))
    runs += [lab.run("grpo", 2, [0.1], state="failed"), lab.run("gkd", 2, [0.1, 0.6])]
    assert "2 of 3 seeds" in verdict(lab, *runs).sentences[1]


def test_runs_that_never_rise_have_no_peak_to_be_reached(lab):
    found = verdict(lab, lab.run("grpo", 0, [0.2]), lab.run("gkd", 0, [0.2]))
    assert found.sooner is None and found.split is None
    assert found.sentences[1].startswith("grpo's peak is not more than one standard error above where a run started")


@pytest.mark.parametrize("rates", [(), (math.nan, math.nan)])
def test_an_arm_that_measured_nothing_is_said_to_lack_it_and_never_wins(lab, rates):
    found = verdict(lab, lab.run("grpo", 0, [0.1, 0.2]), lab.run("gkd", 0, rates))
    assert found.sooner is found.speed_up is found.difference is None
    assert found.sentences == (
        "gkd and grpo cannot be compared on test: gkd and grpo have no test score yet.",
        "Nothing can be said about who is sooner: gkd has no evaluation yet.",
    )


def test_an_arm_of_failed_runs_claims_nothing(lab):
    runs = [lab.run("grpo", 0, [0.1, 0.2], "1000000000"), lab.run("gkd", 0, [0.1, 0.9], "1111111111", state="failed")]
    found = verdict(lab, *runs)
    assert found.difference is None and found.sooner is None
    assert found.sentences[1] == "Nothing can be said about who is sooner: gkd has no run that did not fail."


def test_one_seed_speaks_for_the_problems_only(lab):
    found = scored(lab, gkd=["1111111110"], grpo=["1000000001"])
    assert found.difference.value == pytest.approx(0.7)
    assert (found.gained_P, found.lost_P) == (tuple(f"p{n}" for n in range(1, 9)), ("p9",))
    assert found.paired.p_value == pytest.approx(2 * (1 + 9) / 2**9)
    low, high = (f"{100 * bound:.1f}" for bound in (found.difference.low, found.difference.high))
    assert found.sentences[0] == (
        f"gkd ends 70.0 points above grpo on test (95 % interval {low} to {high} over the 10 problems only: "
        "1 seed says nothing about the training's noise; 8 gained, 1 lost, exact McNemar p = 0.039)."
    )


def test_several_seeds_speak_for_both(lab):
    found = scored(lab, gkd=["1111111110", "1111111100"], grpo=["1000000000", "1100000000"])
    low, high = (f"{100 * bound:.1f}" for bound in (found.difference.low, found.difference.high))
    assert found.paired is None and found.difference.value == pytest.approx(0.7)
    assert found.sentences[0] == (
        f"gkd ends 70.0 points above grpo on test (95 % interval {low} to {high}, 2 seeds, 10 problems)."
    )
    assert found.gained_P == tuple(f"p{n}" for n in range(2, 8)), "p1 and p8 are ties"


def test_what_cannot_be_told_apart_is_not_claimed_and_says_what_could_have_been_seen(lab):
    found = scored(lab, gkd=["1100000000"], grpo=["1010000000"])
    detectable = 100 * (1.959964 + 0.841621) * math.sqrt(0.2 / 10)
    assert found.sentences[0].startswith(
        "No difference on test can be claimed between gkd and grpo at n=10: gkd is 0.0 points above (95 % interval "
    )
    assert f"; {detectable:.1f} points could have been seen with 80 % power)." in found.sentences[0]
    assert "1 gained, 1 lost, exact McNemar p = 1;" in found.sentences[0]


def test_with_several_seeds_less_than_half_the_interval_cannot_have_been_seen(lab):
    found = scored(lab, gkd=["1100000000", "1111000000"], grpo=["1010000000", "1000000000"])
    half = (found.difference.high - found.difference.low) / 2
    detectable = 100 * half * (1 + 0.841621 / 1.959964)
    assert f"2 seeds; {detectable:.1f} points could have been seen" in found.sentences[0]


def test_a_side_with_one_seed_is_named(lab):
    found = scored(lab, gkd=["1111111110"], grpo=["1000000000", "1000000000"])
    assert (
        "1 and 2 seeds, 10 problems; the one seed of gkd says nothing about its training's noise" in found.sentences[0]
    )


def test_the_worse_arm_is_below(lab):
    assert (
        "gkd ends 70.0 points below grpo on test" in scored(lab, gkd=["1000000000"], grpo=["1111111100"]).sentences[0]
    )


def test_a_missing_test_score_is_said(lab):
    found = verdict(lab, lab.run("grpo", 0, [0.1], "1000000000"), lab.run("gkd", 0, [0.1], state="running"))
    assert found.sentences[0] == "gkd and grpo cannot be compared on test: gkd has no test score yet."


def test_several_verdicts_share_the_chance_of_an_error(lab):
    names = ("a", "b", "c", "d")
    rates = (1e-6, 1e-5, 1e-4, 1e-3)
    runs = [
        lab.run("sft", 0, [0.1], "1010000000", name=name, training={"max_steps": 20, "learning_rate": rate})
        for name, rate in zip(names, rates, strict=True)
    ]
    comparison = collect(lab.store, runs)
    assert comparison.level == pytest.approx(1 - 0.05 / 3)
    assert [(verdict.arm, verdict.reference) for verdict in comparison.verdicts] == [("b", "a"), ("c", "a"), ("d", "a")]
    assert all("98.3 % interval" in verdict.sentences[0] for verdict in comparison.verdicts)
    assert all(verdict.difference.level == comparison.level for verdict in comparison.verdicts)


def test_arms_without_a_seed_in_common_are_paired_in_order(lab):
    runs = [lab.run("grpo", 5, [0.1, 0.3, 0.5], seconds_per_step=8.0), lab.run("gkd", 9, [0.1, 0.6, 0.7])]
    assert verdict(lab, *runs).speed_up.value == pytest.approx(20)
