"""Commands that read a cohort: info, report, export, serve."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from lungmix.cli import options as opt
from lungmix.cli.output import emit, exit_if_failed, write_page_of
from lungmix.cli.redaction import printable
from lungmix.cli.spelling import spelled
from lungmix.errors import UsageError


@opt.example("lungmix info cohort.zarr", "lungmix info cohort.zarr case-001")
def info(
    store: opt.Store,
    case: Annotated[
        str | None, typer.Argument(help="Print parameters, versions, usage and errors of this case.", metavar="[CASE]")
    ] = None,
    as_json: opt.AsJson = False,
) -> None:
    """List cases, stages and sizes, and the scanners as in the paper's Table 1; or the details of one case.

    The exit status is 1 if a listed case is damaged or has failed.
    """
    from lungmix.cli.show import show_overview
    from lungmix.store import open_cohort
    from lungmix.webpage.overview import overview_of

    if case is not None:
        _show_case(open_cohort(store), store, case, as_json)
        return
    overview = overview_of(open_cohort(store))
    emit(
        spelled(overview.to_dict()) | {"store": overview.store},
        lambda console: show_overview(console, overview),
        as_json,
    )
    if overview.damaged or any(case_overview.note for case_overview in overview.cases):
        raise typer.Exit(1)


@opt.example("lungmix report cohort.zarr page/", "lungmix report cohort.zarr page/ --posterior ggo")
def report(
    store: opt.Store,
    folder: Annotated[Path, typer.Argument(help="Folder for the report.", metavar="DIR")],
    scores: Annotated[
        Path | None,
        typer.Option(help="CSV with a column case or patient, and S from 0 to 5, for Figure 5.", metavar="FILE.csv"),
    ] = None,
    key_table: opt.ReadKey = None,
    posterior: Annotated[
        str | None,
        typer.Option(
            help="Let the viewer also show the posteriors of air, healthy, ggo, consolidation or other.",
            metavar="TISSUE",
        ),
    ] = None,
    quiet: opt.Quiet = False,
) -> None:
    """Write an HTML report for a browser: a table, a viewer of every scan, the mixture and the paper's figures."""
    from lungmix.store import open_cohort

    write_page_of(open_cohort(store), folder, {}, scores, key_table, posterior=posterior, quiet=quiet)


@opt.example(
    "lungmix export cohort.zarr case-001 case-001_tissue.seg.nrrd",
    "lungmix export cohort.zarr case-001 seg.dcm --source original/ --retain-uid --binary",
    "lungmix export cohort.zarr --all reports/ --format dicom-sr --with-ct",
    "lungmix export cohort.zarr --all radiomics/ --format pyradiomics",
    "lungmix export cohort.zarr --to dicomweb+https://pacs.example.org/dicom-web --format dicom-sr --with-ct",
    "lungmix export cohort.zarr case-001 case-001_posterior_ggo.nii.gz",
)
def export(
    store: opt.Store,
    case: Annotated[str | None, typer.Argument(help="Name of the case.", metavar="CASE")] = None,
    out: Annotated[
        Path | None,
        typer.Argument(
            help="File: .nrrd, .nii, .nii.gz, .mha, .mhd, .seg.nrrd (3D Slicer), .dcm (DICOM SEG), .csv (PyRadiomics).",
            metavar="OUT",
        ),
    ] = None,
    folder: Annotated[Path | None, typer.Option("--all", help="Write every case into DIR.", metavar="DIR")] = None,
    to: Annotated[
        str | None,
        typer.Option(
            help="Send DICOM objects of CASE, or of every case, to a DICOMweb server: dicomweb+https://HOST/PATH.",
            metavar="ADDRESS",
        ),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            help="nrrd, nii.gz, nii, mha, mhd, seg.nrrd, slicer-colors, itk-snap, dicom-seg, dicom-sr (measurements), "
            "dicom-ko (key slices) or pyradiomics; by default from the extension of OUT."
        ),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(
            help="ct, harmonised, lung, side (right and left lung, airway, rest), region (dense lung, too), lobe, "
            "tissue, tissue_median, tissue_potts, zone, change and registered_tissue (later scans), posterior_TISSUE "
            "(floats) or posterior8_TISSUE (8 bits), such as posterior_ggo; by default the one in the name of OUT, or "
            "else ct, or tissue for formats of labels."
        ),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="DICOM: the original series, or several: a folder, or an s3:// or dicomweb+https:// address.",
            metavar="SOURCE",
        ),
    ] = None,
    with_ct: Annotated[
        bool, typer.Option("--with-ct", help="DICOM: also write the CT as an anonymous series.")
    ] = False,
    binary: Annotated[
        bool, typer.Option("--binary", help="DICOM: segmentations as bit-planes, for older viewers.")
    ] = False,
    retain_uid: Annotated[
        bool,
        typer.Option("--retain-uid", help="DICOM: with --source, refer to the series by its original UIDs."),
    ] = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Write images and labels for other programs, with the exact geometry of the scan."""
    from lungmix.cli.progress import callback_for
    from lungmix.cli.show_export import exported_values, show_exported
    from lungmix.export import export_cohort, export_one, options_for, store_cohort
    from lungmix.store import open_cohort

    cohort = open_cohort(store)
    callback = callback_for(quiet=quiet)
    options = options_for(source or (), with_ct=with_ct, binary=binary, retain_uid=retain_uid)
    if to is not None and folder is None and out is None and format is not None:
        result = store_cohort(cohort, to, format, image, options, callback, () if case is None else (case,))
    elif to is not None:
        raise UsageError("with --to, give --format dicom-seg, dicom-sr or dicom-ko, and CASE for a single case")
    elif folder is not None and case is None and out is None and format is not None:
        result = export_cohort(cohort, folder, format, image, options, callback)
    elif folder is None and case is not None and out is not None:
        result = export_one(cohort, case, out, image, format, options)
    else:
        raise UsageError("give either CASE and OUT, or --all DIR and --format, or --to ADDRESS and --format")
    for warning in result.warnings:
        callback.on_warning(warning)
    values = exported_values(store, result)
    emit(values, lambda console: show_exported(console, result), as_json, Console(soft_wrap=True))
    exit_if_failed(result)


@opt.example("lungmix serve cohort.zarr --port 8642")
def serve(
    store: opt.Store,
    port: Annotated[int, typer.Option(help="Port; 0 for any free one.")] = 8642,
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default can be reached from this machine only.")
    ] = "127.0.0.1",
    origin: Annotated[
        list[str] | None,
        typer.Option(help="Web site whose pages may read the store, in place of the known viewers; * for all sites."),
    ] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Serve the store to viewers, read only, and print how napari, neuroglancer and vizarr open it."""
    from lungmix.cli.show_serve import served_json, show_served
    from lungmix.serve import PUBLIC_VIEWERS, Served
    from lungmix.serve import serve as run_server
    from lungmix.store import open_cohort

    def print_links(served: Served) -> None:
        if as_json:
            typer.echo(served_json(served))
        else:
            show_served(Console(soft_wrap=True), served)
        sys.stdout.flush()

    run_server(open_cohort(store), print_links, host=host, port=port, origins=origin or PUBLIC_VIEWERS)


def _show_case(cohort: Any, store: str, name: str, as_json: bool) -> None:
    """Print parameters, versions, time and memory, and errors of the stages of a case."""
    from lungmix.stages.measure import quality_details

    reason, failure = cohort.damaged.get(name), cohort.failed.get(name)
    details: dict[str, Any] = {"unreadable": reason} if reason else {"failure": failure} if failure else {}
    if not details:
        case = cohort.case(name)
        details = {**case.provenance, **quality_details(cohort, case)}
    emit({"store": store, "case": name, **spelled(details)}, lambda _: _print_lines(details), as_json)
    if not details.keys().isdisjoint(("unreadable", "damaged", "failure")):
        raise typer.Exit(1)


def _print_lines(values: Any, indent: str = "") -> None:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            typer.echo(f"{indent}{key}:")
            _print_lines(value, indent + "  ")
        else:
            typer.echo(printable(f"{indent}{key}: {value}"))
