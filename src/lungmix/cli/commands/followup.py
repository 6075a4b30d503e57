"""``lungmix followup``: changes between the scans of each patient."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lungmix.cli import options as opt
from lungmix.cli.option_groups import OnCluster, option_groups
from lungmix.cli.output import emit, exit_if_failed, write_page_of
from lungmix.cli.running import pipeline_on


@opt.example(
    "lungmix followup cohort.zarr --patients patients.csv",
    "lungmix followup cohort.zarr --key-table safe/key.csv",
    "lungmix followup cohort.zarr --register deformable",
    "lungmix followup cohort.zarr --report page/",
)
@option_groups
def followup(
    store: opt.Store,
    *,
    patients: Annotated[
        Path | None,
        typer.Option(
            help="CSV with the columns case and patient, and date or days if known; by default as in the last call.",
            metavar="FILE.csv",
        ),
    ] = None,
    key_table: Annotated[
        Path | None,
        typer.Option(
            "--key-table",
            help="Key table: it tells who the patients are, and dates, or which files a table of patients names.",
            metavar="FILE.csv",
        ),
    ] = None,
    register: Annotated[
        str | None,
        typer.Option(
            help="Register later scans with the first one, 'affine' or 'deformable', and map what is new, gone and "
            "persistent; 'none' deletes the maps; by default as in the last call.",
            metavar="KIND",
        ),
    ] = None,
    report: opt.ReportDir = None,
    cluster: OnCluster,
    as_json: opt.AsJson = False,
) -> None:
    """Compare the scans of each patient with the first one, and write followup.csv and .parquet into the store.

    Changes are given as measured and at the lung volume of the first scan, with intervals. The exit status is 1 if a
    scan of a patient is not measured, or cannot be registered.
    """
    from lungmix.cli.show_followup import followup_values, registers_scans, show_followup

    with pipeline_on(store, cluster, needed=registers_scans(store, register)) as pipeline:
        result = pipeline.followup(patients, key_table, register)
        if report is not None:
            write_page_of(pipeline.cohort, report, result.failed, quiet=cluster.quiet)
    emit(followup_values(store, result), lambda console: show_followup(console, result, store), as_json)
    exit_if_failed(result)
