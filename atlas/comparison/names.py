"""Short names of runs that stand side by side."""

from collections.abc import Sequence


def short_names(run_ids: Sequence[str]) -> dict[str, str]:
    """Run id -> its dash-separated parts without those that all begin with, and without the last, a hash, unless two
    would be called the same. One run alone loses the hash only."""
    ids = list(dict.fromkeys(run_ids))
    parts = [run_id.split("-") for run_id in ids]
    common = 0
    while len(ids) > 1 and all(len(part) > common + 2 for part in parts) and len({part[common] for part in parts}) == 1:
        common += 1
    names = ["-".join(part[common:-1]) or "-".join(part) for part in parts]
    if len(set(names)) < len(names):
        names = ["-".join(part[common:]) for part in parts]
    return dict(zip(ids, names, strict=True))
