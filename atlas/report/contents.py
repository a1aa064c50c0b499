"""A comparison as a document: what is said, in which order. Nothing in here knows HTML or Markdown."""

import time

from atlas import __version__
from atlas.comparison.model import Comparison
from atlas.report import conditions, results
from atlas.report.document import Block, Bullets, Document, Paragraph, Section
from atlas.report.examples import ReadSamples, examples


def document(comparison: Comparison, samples: ReadSamples, made_at_seconds: float) -> Document:
    """The report. `samples(run_id, step)` is `Store.samples`; the rest is in the comparison."""
    sections = [
        Section("Verdict", _verdict(comparison)),
        Section("Pass rate over training time", results.curves(comparison)),
        Section("Final metrics", results.final_metrics(comparison)),
        Section("Time to target", results.time_to_target(comparison)),
        Section("Why sooner", results.speed_up_split(comparison)),
        Section("Where the time went", results.phases(comparison)),
        Section("What differs between the arms", conditions.differences(comparison)),
        Section("What is equal", conditions.resolved_spec(comparison)),
        Section("Data, grader and software", conditions.provenance(comparison)),
        Section("Problems gained and lost", examples(comparison, samples)),
        Section("Notes and missing runs", _notes(comparison)),
        Section("How to reproduce", conditions.reproduce(comparison)),
    ]
    return Document(comparison.title, _subtitle(comparison, made_at_seconds), tuple(sections))


def _subtitle(comparison: Comparison, made_at_seconds: float) -> str:
    made = f"Report of {_date(made_at_seconds)}, made by Atlas {__version__} from the record of the runs."
    if comparison.experiment is None:
        return made
    return (
        f"Experiment {comparison.experiment.id}, submitted {_date(comparison.experiment.submitted_at_seconds)}. {made}"
    )


def _date(at_seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at_seconds))


def _verdict(comparison: Comparison) -> tuple[Block, ...]:
    blocks: list[Block] = []
    if comparison.mismatches:
        blocks.append(
            Paragraph(
                "These runs must not be compared. This report was forced; what follows is not a controlled comparison:",
                "warning",
            )
        )
        blocks.append(Bullets(comparison.mismatches, "warning"))
    if comparison.missing:
        blocks.append(Paragraph(f"Not everything was measured as planned: {'; '.join(comparison.missing)}.", "muted"))
    sentences = [sentence for verdict in comparison.verdicts for sentence in verdict.sentences]
    blocks += [Paragraph(sentence, "verdict") for sentence in sentences]
    if not sentences:
        blocks.append(Paragraph(_why_no_verdict(comparison)))
    return (*blocks, *results.differences_on_test(comparison))


def _why_no_verdict(comparison: Comparison) -> str:
    if len(comparison.arms) < 2:
        return "There is no verdict: one arm has nothing to be compared with."
    return "There is no verdict yet: the arms have no numbers that could be compared."


def _notes(comparison: Comparison) -> tuple[Block, ...]:
    runs = [*(run for arm in comparison.arms for run in arm.runs), *comparison.baselines.values()]
    written = dict.fromkeys(run.job.notes for run in runs if run.job.notes)
    blocks: list[Block] = []
    if comparison.missing:
        blocks.append(Bullets(comparison.missing))
    else:
        blocks.append(Paragraph("No run is missing: none failed, and none is queued."))
    if comparison.notes:
        blocks += [Paragraph("To be careful about:"), Bullets(comparison.notes)]
    if written:
        blocks += [Paragraph("Notes that were written into the jobs:"), Bullets(tuple(written))]
    return tuple(blocks)
