"""What may be said of one arm against another, and with what uncertainty."""

from atlas.comparison.further import Further
from atlas.comparison.model import ArmResult, Verdict
from atlas.comparison.sooner import Sooner


def verdict(arm: ArmResult, reference: ArmResult, level: float) -> Verdict:
    """What is claimed rests on the runs that did not fail and on nothing that was not reached."""
    further, sooner = Further(arm, reference, level), Sooner(arm, reference, level)
    return Verdict(
        arm=arm.name,
        reference=reference.name,
        sentences=(further.sentence(), *([sooner.sentence()] if sooner.applies else [])),
        difference=further.difference,
        paired=further.paired,
        gained_P=further.gained_P,
        lost_P=further.lost_P,
        sooner=sooner.sooner,
        speed_up=sooner.ratio,
        split=sooner.split,
    )
