"""``lungmix publish``: a cohort as a data set of plain files, and the check of such a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lungmix.cli import options as opt
from lungmix.cli.option_groups import OnCluster, option_groups
from lungmix.cli.output import emit, exit_if_failed
from lungmix.cli.running import cluster_session
from lungmix.errors import UsageError


@opt.example(
    "lungmix publish cohort.zarr dataset-1/ --title 'Chest CT' --license CC-BY-4.0 --version 1.0 --creators people.csv",
    "lungmix publish --check dataset-1/ --key-table safe/key.csv",
)
@option_groups
def publish(
    store: opt.StoreIfAny = None,
    folder: Annotated[Path | None, typer.Argument(help="Folder for the data set.", metavar="DIR")] = None,
    *,
    title: Annotated[str | None, typer.Option(help="Title of the data set.")] = None,
    version: Annotated[str | None, typer.Option(help="Version of the data set, such as 1.0.")] = None,
    license: Annotated[
        str | None, typer.Option(help="SPDX identifier of the licence, such as CC-BY-4.0.", metavar="SPDX")
    ] = None,
    license_file: Annotated[
        Path | None, typer.Option(help="Text of the licence; needed for other licences.", metavar="FILE")
    ] = None,
    publisher: Annotated[str | None, typer.Option(help="Organisation that keeps the data set.", metavar="NAME")] = None,
    doi: Annotated[
        str | None, typer.Option(help="DOI of this version, such as 10.5281/zenodo.1234.", metavar="DOI")
    ] = None,
    creators: Annotated[
        Path | None,
        typer.Option(
            help="The creators: CSV with the columns name, affiliation, orcid, or JSON, or a name per line (.txt).",
            metavar="FILE",
        ),
    ] = None,
    previous: Annotated[
        Path | None,
        typer.Option(help="Folder of the previous version, whose unchanged images are linked.", metavar="DIR"),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(help="CSV with a column case or patient, and S from 0 to 5.", metavar="FILE.csv"),
    ] = None,
    test_share: Annotated[
        float | None,
        typer.Option(
            help="Share of the patients on the test side of split.csv, 0 for no sides; by default that of the previous "
            "version, or else 0.2 from 10 patients on."
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Seed of the sides; by default that of the previous version, or else 0.", min=0),
    ] = None,
    leave_one_patient_out: Annotated[
        bool | None,
        typer.Option(
            "--leave-one-patient-out/--by-mixture-of-store",
            help="Label and measure each scan by a mixture that is fitted to all other patients; by default as in the "
            "previous version, or else by the mixture of STORE.",
        ),
    ] = None,
    formats: Annotated[
        str,
        typer.Option(
            help="Formats of images, separated by commas: nrrd (always), nifti, dicom-seg, ome-zarr.", metavar="LIST"
        ),
    ] = "nrrd",
    page: Annotated[
        bool, typer.Option(help="Write the HTML page with figures and a viewer of every scan into report/.")
    ] = True,
    key_table: opt.ReadKey = None,
    accept_burned_in: Annotated[
        str | None,
        typer.Option(
            help="Cases whose slices may have burned-in text and were looked at, separated by commas.", metavar="CASES"
        ),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(help="Check this published folder instead of writing one; needs no STORE.", metavar="DIR"),
    ] = None,
    cluster: OnCluster,
    as_json: opt.AsJson = False,
) -> None:
    """Publish labelled cases as NRRD files with tables, a data card, metadata (Croissant) and SHA-256 sums.

    With --key-table, all files are searched for the identifiers of patients. The exit status is 1 if a case fails or
    the check of the folder finds a problem; the data set then has no sums and is not complete. In the folder of a
    complete data set, another version replaces it: images that did not change are not touched.
    """
    from lungmix.analysis.score_table import scores_of_cases
    from lungmix.cli import show_publish as shown
    from lungmix.intake.key_table import KeyTable
    from lungmix.stages.measure import read_measurements
    from lungmix.store import open_cohort

    if (folder is None) == (check is None) or (store is None and check is None):
        raise UsageError("give either STORE and a folder to publish to, or a folder to check with --check")
    console, key = Console(soft_wrap=True), None if key_table is None else KeyTable.read(key_table)
    if check is not None:
        identifiers, _ = shown.identifiers_of({} if key is None else key.all_rows())
        problems = shown.check_dataset(check, identifiers)
        values = shown.checked_values(str(check), problems, len(identifiers))
        emit(values, lambda _: shown.show_checked(console, str(check), problems, len(identifiers)), as_json)
        if problems:
            raise typer.Exit(1)
        return
    assert store is not None  # by the first check
    cohort = open_cohort(store)
    key_rows = None if key is None else key.rows_of(cohort)
    about = shown.about_of(title, version, license, creators, license_file, publisher, doi)
    sides = shown.SplitRule(test_share, seed)
    by_case = None if scores is None else scores_of_cases(read_measurements(cohort), scores, key_rows)
    with cluster_session(cluster) as (client, callback):
        result = shown.publish(
            cohort, folder or Path(), about, client=client, previous=previous, scores=by_case, key=key_rows,
            split=sides, leave_one_patient_out=leave_one_patient_out, formats=shown.names_in(formats), page=page,
            accept_burned_in=shown.names_in(accept_burned_in), callback=callback,
        )  # fmt: skip
    emit(shown.published_values(store, result), lambda _: shown.show_published(console, result), as_json)
    exit_if_failed(result)
    if not result.is_complete:
        raise typer.Exit(1)
