"""Under which conditions it was measured: what differs, what is equal, which data, grader, software and machine."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import yaml

from atlas.comparison.model import Comparison, RunResult
from atlas.report.document import Block, Cell, Code, Details, Missing, Paragraph, Table, table


def differences(comparison: Comparison) -> tuple[Block, ...]:
    """Every field in which the arms differ."""
    names = [arm.name for arm in comparison.arms]
    if not comparison.differences:
        return (Paragraph("Nothing: there is one arm, or the arms are the same job."),)
    rows: list[list[Cell]] = [
        [path, *(_value_in(values.get(name)) for name in names)] for path, values in comparison.differences.items()
    ]
    return (
        table(("field", *names), rows, labels=1 + len(names)),
        Paragraph("Every field of the resolved jobs that is not the same in all arms, but name and seed.", "muted"),
    )


def resolved_spec(comparison: Comparison) -> tuple[Block, ...]:
    """The job of the reference, whole."""
    reference = comparison.arms[0]
    if not reference.runs:
        return (Paragraph(f"The runs of {reference.name} are not in the store any more."),)
    text = yaml.safe_dump(reference.runs[0].job.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    said = (
        "All other fields that can change a number are the same in all arms, but the seed."
        if len(comparison.arms) > 1
        else ""
    )
    return (
        *((Paragraph(said),) if said else ()),
        Details(f"The resolved job of {reference.name}, seed {reference.runs[0].seed}", (Code(text),)),
    )


def provenance(comparison: Comparison) -> tuple[Block, ...]:
    """Splits, grader, models, code, machine, packages. One row where all runs agree, else one for each value."""
    runs = _runs(comparison)
    unknown = Missing("the data was never loaded")
    splits = dict.fromkeys(name for run in runs for name in run.splits)
    data: list[list[Cell]] = []
    for name in splits or ("dev", "test"):
        data += _facts(name, runs, _split_text(name), unknown)
    data += _facts("grader", runs, lambda run: _pairs(run.grader), unknown)
    environment = Missing("the worker never started")
    code = [
        *_models(comparison),
        *_facts("project commit", runs, lambda run: _commit(run.git), Missing("not in a git repository")),
        *_facts("Atlas", runs, lambda run: _atlas(run.environment), environment),
        *_facts("GPU", runs, lambda run: _gpu(run.environment), environment),
        *_facts("Python", runs, _of_environment("python"), environment),
        *_facts("platform", runs, _of_environment("platform"), environment),
    ]
    packages = dict.fromkeys(name for run in runs for name in run.environment.get("packages", {}))
    versions: list[list[Cell]] = []
    for package in packages:
        versions += _facts(package, runs, _version_of(package), Missing("not installed, or the worker never started"))
    blocks: list[Block] = [_fact_table("split", data), _fact_table("", code)]
    if versions:
        blocks.append(Details("Versions of packages", (_fact_table("package", versions),)))
    return tuple(blocks)


def reproduce(comparison: Comparison) -> tuple[Block, ...]:
    """What to run, from which commit, and which runs this report is about."""
    record = comparison.experiment
    ids = table(
        ("arm", "seed", "run", "state"),
        [[run.arm, str(run.seed), run.id, run.state] for arm in comparison.arms for run in arm.runs]
        + [["baseline", str(run.seed), run.id, run.state] for run in comparison.baselines.values()],
        labels=4,
    )
    if record is None:
        steps = Code("atlas show RUN --spec > FILE\natlas submit FILE")
        return (
            Paragraph("These runs were named one by one. For each, the resolved job, to be submitted again:"),
            steps,
            ids,
        )
    blocks: list[Block] = []
    commit = _commit(record.git or {})
    if record.git and record.git.get("commit"):
        blocks += [Paragraph(f"1. The project at commit {commit}:"), Code(f"git checkout {record.git['commit']}")]
        if record.git.get("dirty"):
            blocks.append(
                Paragraph(
                    "The work tree had uncommitted changes: each run directory holds them in project.patch, for "
                    "git apply; of files that git did not know, only the names.",
                    "muted",
                )
            )
    else:
        blocks.append(Paragraph("1. The project was in no git repository: its commit is not known."))
    command = record.command or f"atlas submit {record.spec_file or 'FILE'}"
    blocks += [Paragraph(f"2. With Atlas {record.atlas_version}, what was submitted:"), Code(command)]
    if record.spec_text:
        blocks.append(
            Details(f"The experiment's file ({record.spec_file or 'standard input'})", (Code(record.spec_text),))
        )
    else:
        blocks.append(Paragraph("The experiment's file was not kept; its resolved fields:", "muted"))
        blocks.append(Code(yaml.safe_dump(record.spec, sort_keys=False, allow_unicode=True)))
    return (*blocks, Details("Run ids", (ids,)))


def _runs(comparison: Comparison) -> list[RunResult]:
    return [*(run for arm in comparison.arms for run in arm.runs), *comparison.baselines.values()]


def _fact_table(title: str, rows: list[list[Cell]]) -> Table:
    """The column of runs is left out where nothing differs."""
    if all(row[2] == "all" for row in rows):
        return table((title, "value"), [row[:2] for row in rows], labels=2)
    return table((title, "value", "runs"), rows, labels=3)


def _facts(
    name: str, runs: Iterable[RunResult], value_of: Callable[[RunResult], str | None], unknown: Missing
) -> list[list[Cell]]:
    """A row for each distinct value, with the runs that have it."""
    holders: dict[str | None, list[str]] = {}
    for run in runs:
        holders.setdefault(value_of(run) or None, []).append(run.id)
    return [
        [name, unknown if value is None else value, "all" if len(holders) == 1 else ", ".join(ids)]
        for value, ids in holders.items()
    ]


def _models(comparison: Comparison) -> list[list[Cell]]:
    """Student and teacher of the arms, with the hub's commit that was loaded; a local folder has none."""
    rows: list[list[Cell]] = []
    for role in ("student", "teacher"):
        having = [run for arm in comparison.arms for run in arm.runs if getattr(run.job, role) is not None]
        rows += _facts(f"{role}'s model", having, _model(role), Missing("not named"))
    return rows


def _model(role: str) -> Callable[[RunResult], str]:
    def text(run: RunResult) -> str:
        commit = run.revisions.get(role)
        return f"{getattr(run.job, role).model}{f', commit {commit}' if commit else ''}"

    return text


def _split_text(name: str) -> Callable[[RunResult], str | None]:
    def text(run: RunResult) -> str | None:
        split = run.splits.get(name)
        return f"{split['examples']:,} examples, sha256 {split['sha256']}" if split else None

    return text


def _of_environment(name: str) -> Callable[[RunResult], str | None]:
    return lambda run: run.environment.get(name)


def _version_of(package: str) -> Callable[[RunResult], str | None]:
    return lambda run: run.environment.get("packages", {}).get(package)


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_value(value)}" for key, value in values.items())


def _commit(git: Mapping[str, Any]) -> str | None:
    if not git.get("commit"):
        return None
    return f"{git['commit']}{' with uncommitted changes' if git.get('dirty') else ''}"


def _atlas(environment: Mapping[str, Any]) -> str | None:
    atlas = environment.get("atlas") or {}
    if not atlas:
        return None
    commit = f", commit {atlas['commit']}" if atlas.get("commit") else ""
    return f"{atlas['version']}{commit}"


def _gpu(environment: Mapping[str, Any]) -> str | None:
    if not environment:
        return None
    names = [f"{gpu['name']} (driver {gpu['driver']})" for gpu in environment.get("gpus", ())]
    return ", ".join(names) or "none: the CPU"


def _value_in(value: Any) -> Cell:
    """A field of one arm: None where the arm lacks it."""
    return Missing("null, or the arm has no such field") if value is None else _value(value)


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
