"""When a run has used what it may use."""

from atlas.run import Run

_SECONDS = {"gpu_hours": ("gpu_seconds", 3600), "train_minutes": ("train_seconds", 60)}
"""Limits in units of their own: the clock of each, and its seconds in one unit."""


def used_up(run: Run, step: int) -> bool:
    """Whether a limit of the job's budget is reached after this step.

    When it is first found so, an event and `run.summary["ended_by"]` (`budget.gpu_hours`, for one) say which limit.
    A checkpoint made after that has clocks at or beyond the limit, so that a run resumed from it trains no more.
    """
    if run.job.budget is None:
        return False
    readings = run.clock.readings() | {"steps": step}
    for name, (clock, seconds) in _SECONDS.items():
        readings[name] = readings[clock] / seconds
    for name, limit in run.job.budget:
        if limit is None or readings[name] < limit:
            continue
        if "ended_by" not in run.summary:
            run.summary["ended_by"] = f"budget.{name}"
            run.event(
                "budget", f"training ended after step {step}: budget.{name} is {limit}, used {readings[name]:.8g}"
            )
        return True
    return False
