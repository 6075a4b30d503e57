"""Sources of a run: find their scans, name their cases, and remove patient data that are not to be kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lungmix.errors import SourceError
from lungmix.formats import RejectedSource, Scan, SeriesFilter, SkippedSource
from lungmix.intake.case_names import assign_names, cases_with_changed_source, persist_case_names
from lungmix.intake.discovery import discover_scans
from lungmix.intake.retention import RetainedScans, apply_retention, open_table
from lungmix.parameters import IntakeParameters
from lungmix.pipeline.result import RunResult
from lungmix.pipeline.runner import CaseRunner


def take_sources(
    runner: CaseRunner,
    sources: str | Path | Scan | Sequence[str | Path | Scan],
    result: RunResult,
    parameters: IntakeParameters | None = None,
    outputs: Sequence[str | Path | None] = (),
    series: SeriesFilter | None = None,
) -> RetainedScans:
    """Return the scans of sources by case name, without patient data that are not to be kept.

    Parameters
    ----------
    runner : CaseRunner
        Runner of the cases; receives their sizes.
    sources : str, Path or Scan, or sequence of these
        Files and folders, or scans that were found before.
    result : RunResult
        Receives rejected and skipped sources, notes on scans, and for each case its source label: text such as
        ``source 2, item 17`` that says where its scan was found, without names.
    parameters : IntakeParameters, optional
        Which patient data are kept.
    outputs : sequence of str or Path
        Folders that will be written. A key table inside them is rejected, as it names patients.
    series : SeriesFilter, optional
        Which DICOM series are used.
    """
    cohort, callback = runner.cohort, runner.callback
    parameters = parameters or IntakeParameters()
    table = open_table(cohort, parameters, *outputs)
    scans: list[Scan] = []
    labels: list[str] = []
    for discovered in discover_scans(
        [sources] if isinstance(sources, (str, Path, Scan)) else sources, series, callback
    ):
        if isinstance(discovered.result, RejectedSource):
            source = discovered.result
            result.fail(discovered.source_label, source.reason, SourceError(source.reason, path=source.path))
        elif isinstance(discovered.result, SkippedSource):
            result.skip(discovered.source_label, discovered.result.reason)
        else:
            scans.append(discovered.result)
            labels.append(discovered.source_label)
    named = assign_names(cohort, scans, keep_names=parameters.keep_names)
    for name in cases_with_changed_source(cohort, named):
        callback.on_warning(f"{name}: source files changed; converting again")
    persist_case_names(cohort, named)
    runner.set_case_sizes({name: scan.geometry for name, scan in named.items()})
    result.places = dict(zip(named, labels, strict=True))
    retained = apply_retention(cohort, named, result.places, parameters, table)
    result.notes = {name: scan.notes for name, scan in retained.scans.items() if scan.notes}
    return retained
