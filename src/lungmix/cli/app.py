"""The commands of ``lungmix``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from lungmix._version import __version__
from lungmix.cli import keep
from lungmix.cli import options as opt
from lungmix.cli.names import command_line, debugging, told
from lungmix.cli.running import pipeline_on as _pipeline
from lungmix.cli.scan import scan
from lungmix.cli.validate import app as validate
from lungmix.errors import LungmixError, UsageError, reason_of, trace_of

app = typer.Typer(
    name="lungmix",
    help="Lung masks, one pooled Gaussian mixture and tissue labels for cohorts of chest CT of any size.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

app.add_typer(validate, name="validate")
keep.register(app)
app.command()(scan)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; ends the process with status 0, 1 (a case failed) or 2 (wrong usage)."""
    words = list(sys.argv[1:] if args is None else args)
    with command_line(words):
        sys.exit(_status_of([word for word in words if word != "--debug"]))


def _status_of(words: list[str]) -> int:
    console = Console(stderr=True, soft_wrap=True)
    try:
        app(words)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except KeyboardInterrupt:
        console.print("stopped; run the same command again to go on from here")
        return 130
    except Exception as error:  # a user never sees a traceback unasked
        if debugging():
            typer.echo(trace_of(error), err=True)
        console.print(f"lungmix: {told(reason_of(error))}", markup=False, highlight=False)
        return 2 if isinstance(error, LungmixError) else 1
    return 0


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lungmix {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; anywhere on the line.")] = False,
) -> None:
    pass


def conclude(store: str, report: Any, as_json: bool) -> None:
    """Show what a command did; exit with 1 if a case failed."""
    from lungmix.cli.show import report_json, show_report

    if as_json:
        typer.echo(report_json(store, report))
    else:
        show_report(Console(), report)
    for error in report.errors.values() if debugging() else ():
        typer.echo(trace_of(error), err=True)
    if report.failed:
        raise typer.Exit(1)


def _mask_parameters(
    preset: str, threshold: int, opening: int | None, min_voxels: int | None, radii: list[int] | None
) -> Any:
    from lungmix.parameters import MaskParameters

    return MaskParameters(preset, threshold, opening, min_voxels, tuple(radii) if radii else None)


def _fit_parameters(components: int, fit: str, method: str) -> Any:
    from lungmix.parameters import FitParameters

    return FitParameters(n_components=components, fit=fit, method=method)


def _series(series_filter: str, allow_gaps: bool, trust_positions: bool) -> Any:
    from lungmix.formats import SeriesRules

    return SeriesRules(series_filter, allow_gaps, trust_positions)


def _intake(keep_names: bool, key: Path | None, retain_patient: bool, shift_dates: bool) -> Any:
    from lungmix.parameters import IntakeParameters

    return IntakeParameters(keep_names, key, retain_patient, shift_dates)


@app.command()
@opt.example("lungmix run cohort.zarr scans/ --preset physical --model published --report page/")
def run(
    store: opt.Store,
    sources: opt.Sources,
    preset: opt.Preset = "paper",
    threshold: opt.Threshold = -155,
    opening: opt.Opening = None,
    min_voxels: opt.MinVoxels = None,
    radius: opt.Radii = None,
    model: opt.Model = "fit",
    components: opt.Components = 5,
    fit: opt.Fit = "paper",
    method: opt.Method = "counts",
    series_filter: opt.SeriesFilter = "thinnest",
    allow_gaps: opt.AllowGaps = False,
    trust_positions: opt.TrustPositions = False,
    key: opt.KeyFile = None,
    keep_names: opt.KeepNames = False,
    retain_patient: opt.RetainPatient = False,
    shift_dates: opt.ShiftDates = False,
    scheduler: opt.Scheduler = None,
    scheduler_file: opt.SchedulerFile = None,
    workers: opt.Workers = None,
    memory_limit: opt.MemoryLimit = None,
    wait: opt.Wait = False,
    log: opt.LogFile = None,
    performance_report: opt.PerformanceReport = None,
    report: opt.ReportDir = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Do every stage that is not done yet for every case: convert, mask, fit, label, measure."""
    mask = _mask_parameters(preset, threshold, opening, min_voxels, radius)
    mixture = _fit_parameters(components, fit, method)
    series = _series(series_filter, allow_gaps, trust_positions)
    intake = _intake(keep_names, key, retain_patient, shift_dates)
    with _pipeline(
        store,
        scheduler,
        scheduler_file,
        workers,
        memory_limit,
        quiet=quiet,
        wait=wait,
        create=True,
        log=log,
        performance=performance_report,
    ) as pipeline:
        result = pipeline.run(sources, mask, model, mixture, intake, [report], series)
        if report is not None:
            _write_page(pipeline.cohort, report, result.failed, quiet=quiet)
    conclude(store, result, as_json)


@app.command()
@opt.example(
    "lungmix convert cohort.zarr scans/ more/scan.nrrd",
    "lungmix convert cohort.zarr scans/ --nrrd anonymous/ --key safe/key.csv",
)
def convert(
    store: opt.Store,
    sources: opt.Sources,
    nrrd: Annotated[
        Path | None,
        typer.Option(help="Write each scan as an anonymous CASE.nrrd into DIR too.", metavar="DIR"),
    ] = None,
    series_filter: opt.SeriesFilter = "thinnest",
    allow_gaps: opt.AllowGaps = False,
    trust_positions: opt.TrustPositions = False,
    key: opt.KeyFile = None,
    keep_names: opt.KeepNames = False,
    retain_patient: opt.RetainPatient = False,
    shift_dates: opt.ShiftDates = False,
    scheduler: opt.Scheduler = None,
    scheduler_file: opt.SchedulerFile = None,
    workers: opt.Workers = None,
    memory_limit: opt.MemoryLimit = None,
    wait: opt.Wait = False,
    log: opt.LogFile = None,
    performance_report: opt.PerformanceReport = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Bring scans into the store as chunked zarr."""
    series = _series(series_filter, allow_gaps, trust_positions)
    intake = _intake(keep_names, key, retain_patient, shift_dates)
    with _pipeline(
        store,
        scheduler,
        scheduler_file,
        workers,
        memory_limit,
        quiet=quiet,
        wait=wait,
        create=True,
        log=log,
        performance=performance_report,
    ) as pipeline:
        result = pipeline.convert(sources, intake, nrrd, series)
    conclude(store, result, as_json)


@app.command()
@opt.example("lungmix mask cohort.zarr --preset physical")
def mask(
    store: opt.Store,
    preset: opt.Preset = "paper",
    threshold: opt.Threshold = -155,
    opening: opt.Opening = None,
    min_voxels: opt.MinVoxels = None,
    radius: opt.Radii = None,
    scheduler: opt.Scheduler = None,
    scheduler_file: opt.SchedulerFile = None,
    workers: opt.Workers = None,
    memory_limit: opt.MemoryLimit = None,
    wait: opt.Wait = False,
    log: opt.LogFile = None,
    performance_report: opt.PerformanceReport = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Find the lungs of every case and count their HU."""
    parameters = _mask_parameters(preset, threshold, opening, min_voxels, radius)
    with _pipeline(
        store, scheduler, scheduler_file, workers, memory_limit, quiet=quiet, wait=wait, log=log,
        performance=performance_report,
    ) as pipeline:  # fmt: skip
        result = pipeline.mask(parameters)
    conclude(store, result, as_json)


@app.command(cls=opt.ManyCases)
@opt.example("lungmix fit cohort.zarr --leave-out case-007 case-031 --fit converged --figure fits.png")
def fit(
    store: opt.Store,
    model: opt.Model = "fit",
    components: opt.SeveralComponents = "5",
    fit: opt.Fit = "paper",
    method: opt.Method = "counts",
    cases: opt.Cases = None,
    leave_out: opt.LeaveOut = None,
    figure: opt.FigureFile = None,
    scheduler: opt.Scheduler = None,
    scheduler_file: opt.SchedulerFile = None,
    workers: opt.Workers = None,
    memory_limit: opt.MemoryLimit = None,
    wait: opt.Wait = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Fit mixtures to the pooled lung voxels: as the paper does, and converged; both are stored and shown."""
    numbers = opt.parse_numbers(components, "--components")
    parameters = _fit_parameters(numbers[-1], fit, method)
    cluster = (scheduler, scheduler_file, workers, memory_limit)
    with _pipeline(store, *cluster, quiet=quiet, wait=wait, needed=method != "counts") as pipeline:
        if len(numbers) > 1:
            result = pipeline.select(numbers, parameters, cases or (), leave_out or ())
        else:
            result = pipeline.fit(model, parameters, cases or (), leave_out or ())
        if figure is not None:
            _draw_fits(pipeline.cohort, result, parameters, figure)
    conclude(store, result, as_json)


@app.command()
@opt.example("lungmix label cohort.zarr")
def label(
    store: opt.Store,
    scheduler: opt.Scheduler = None,
    scheduler_file: opt.SchedulerFile = None,
    workers: opt.Workers = None,
    memory_limit: opt.MemoryLimit = None,
    wait: opt.Wait = False,
    log: opt.LogFile = None,
    performance_report: opt.PerformanceReport = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Label the lung voxels of every case with the model of the store."""
    with _pipeline(
        store, scheduler, scheduler_file, workers, memory_limit, quiet=quiet, wait=wait, log=log,
        performance=performance_report,
    ) as pipeline:  # fmt: skip
        result = pipeline.label()
    conclude(store, result, as_json)


@app.command()
@opt.example("lungmix measure cohort.zarr --exclude-airways --radiomics --json")
def measure(
    store: opt.OptionalStore = None,
    exclude_airways: Annotated[
        bool, typer.Option("--exclude-airways", help="Trachea and main bronchi do not count as lung.")
    ] = False,
    exclude_elsewhere: Annotated[
        bool,
        typer.Option("--exclude-elsewhere", help="Nor do other parts outside both lungs."),
    ] = False,
    radiomics: Annotated[
        bool, typer.Option("--radiomics", help="Write first-order features of the lung and each tissue too.")
    ] = False,
    dictionary: Annotated[
        bool, typer.Option("--dictionary", help="Print every column with its unit and meaning; needs no STORE.")
    ] = False,
    scheduler: opt.Scheduler = None,
    scheduler_file: opt.SchedulerFile = None,
    workers: opt.Workers = None,
    memory_limit: opt.MemoryLimit = None,
    wait: opt.Wait = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Measure every labelled case, each lung too, and write measurements.csv and .parquet into the store."""
    from lungmix.stages.label import without_sides
    from lungmix.store import open_cohort
    from lungmix.tissue import AIRWAY, ELSEWHERE

    if dictionary:
        from lungmix.cli.show import dictionary_json, show_dictionary

        if as_json:
            typer.echo(dictionary_json())
        else:
            show_dictionary(Console())
        return
    if store is None:
        raise UsageError("no STORE is given: name the folder of a cohort, or ask for --dictionary")
    leave_out = [part for part, out in ((AIRWAY, exclude_airways), (ELSEWHERE, exclude_elsewhere)) if out]
    # A cluster is started only where the lungs of a scan have not been told apart.
    needed = bool(without_sides(open_cohort(store)))
    cluster = (scheduler, scheduler_file, workers, memory_limit)
    with _pipeline(store, *cluster, quiet=quiet, wait=wait, needed=needed) as pipeline:
        result = pipeline.measure(leave_out, radiomics=radiomics)
    conclude(store, result, as_json)


@app.command()
@opt.example("lungmix info cohort.zarr", "lungmix info cohort.zarr case-001")
def info(
    store: opt.Store,
    case: Annotated[str | None, typer.Argument(help="Print all that is known of this case.", metavar="[CASE]")] = None,
    as_json: opt.AsJson = False,
) -> None:
    """List cases, stages and sizes, and the scanners as in the paper's Table 1; or how one case was made."""
    from lungmix.cli.show import overview_json, show_overview
    from lungmix.report.overview import overview_of
    from lungmix.store import open_cohort

    if case is not None:
        keep.show_case(store, case, as_json)
        return
    overview = overview_of(open_cohort(store))
    if as_json:
        typer.echo(overview_json(overview))
    else:
        show_overview(Console(), overview)


@app.command()
@opt.example("lungmix report cohort.zarr page/")
def report(
    store: opt.Store,
    folder: Annotated[Path, typer.Argument(help="Folder for the page.", metavar="DIR")],
    scores: Annotated[
        Path | None,
        typer.Option(help="CSV with a column case or patient, and S from 0 to 5, for Figure 5.", metavar="FILE.csv"),
    ] = None,
    key: opt.ReadKey = None,
    quiet: opt.Quiet = False,
) -> None:
    """Write a page that opens from disk: a table, a viewer of every scan, the mixture and the paper's figures."""
    from lungmix.store import open_cohort

    _write_page(open_cohort(store), folder, {}, scores, key, quiet=quiet)


@app.command()
@opt.example(
    "lungmix export cohort.zarr case-001 case-001_tissue.seg.nrrd",
    "lungmix export cohort.zarr case-001 seg.dcm --source original/ --retain-uid --binary",
    "lungmix export cohort.zarr --all radiomics/ --format pyradiomics",
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
    format: Annotated[
        str | None,
        typer.Option(
            help="nrrd, nii.gz, nii, mha, mhd, seg.nrrd, slicer-colors, itk-snap, dicom-seg or pyradiomics; by default "
            "what the extension says."
        ),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(help="ct, lung, tissue or tissue_median; by default what the file's name says, or ct, or tissue."),
    ] = None,
    source: Annotated[
        list[Path] | None,
        typer.Option(help="DICOM SEG: the original series, or a folder of many.", metavar="FOLDER"),
    ] = None,
    with_ct: Annotated[
        bool, typer.Option("--with-ct", help="DICOM SEG: write an anonymous series of the CT too.")
    ] = False,
    binary: Annotated[bool, typer.Option("--binary", help="DICOM SEG: bit-planes, for older viewers.")] = False,
    retain_uid: Annotated[
        bool,
        typer.Option("--retain-uid", help="DICOM SEG: with --source, write the identifiers of the original series."),
    ] = False,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Write images and labels for other programs, with the exact geometry of the scan."""
    from lungmix.cli.progress import listener_for
    from lungmix.cli.show_export import exported_json, show_exported
    from lungmix.export import Exported, export_case, export_cohort, options_for
    from lungmix.store import open_cohort

    cohort = open_cohort(store)
    options = options_for(source or (), with_ct=with_ct, binary=binary, retain_uid=retain_uid)
    if folder is not None and case is None and out is None and format is not None:
        listener = listener_for(Console(stderr=True), quiet=quiet)
        result = export_cohort(cohort, folder, format, image, options, listener)
    elif folder is None and case is not None and out is not None:
        result = Exported({case: export_case(cohort.case(case), out, image, format, options)})
    else:
        raise UsageError("give either CASE and OUT, or --all DIR and --format")
    if as_json:
        typer.echo(exported_json(store, result))
    else:
        show_exported(Console(soft_wrap=True), result)
    for error in result.errors.values() if debugging() else ():
        typer.echo(trace_of(error), err=True)
    if result.failed:
        raise typer.Exit(1)


@app.command()
@opt.example("lungmix serve cohort.zarr --port 8642")
def serve(
    store: opt.Store,
    port: Annotated[int, typer.Option(help="0 for any that is free.")] = 8642,
    host: Annotated[str, typer.Option(help="Address to listen at; other machines reach none but yours.")] = "127.0.0.1",
    origin: Annotated[
        list[str] | None,
        typer.Option(help="Site whose pages may read the store, in place of the known viewers; * for all."),
    ] = None,
    as_json: opt.AsJson = False,
) -> None:
    """Serve the store to viewers, read only, and print how napari, neuroglancer and vizarr open it."""
    from lungmix.cli.show_serve import served_json, show_served
    from lungmix.serve import PUBLIC_VIEWERS, Served
    from lungmix.serve import serve as run_server
    from lungmix.store import open_cohort

    def ready(served: Served) -> None:
        if as_json:
            typer.echo(served_json(served))
        else:
            show_served(Console(soft_wrap=True), served)
        sys.stdout.flush()

    run_server(open_cohort(store), ready, host=host, port=port, origins=origin or PUBLIC_VIEWERS)


def _draw_fits(cohort: Any, result: Any, parameters: Any, file: Path) -> None:
    from lungmix.report.curves import fits_figure, save_figure
    from lungmix.stages.fit import pool_counts

    if result.fits is None:
        raise UsageError("--figure shows the two fits of one number of components: leave --model and ranges out")
    figure = fits_figure(result.fits, pool_counts(cohort, result.done), parameters.clip)
    for path in save_figure(figure, file):
        typer.echo(f"figure: {path}", err=True)


def _write_page(
    cohort: Any,
    folder: Path,
    failed: dict[str, str],
    score_file: Path | None = None,
    key: Path | None = None,
    *,
    quiet: bool,
) -> None:
    from lungmix.analysis.score_table import scores_of_cases
    from lungmix.cli.progress import listener_for
    from lungmix.report.page import write_page
    from lungmix.stages.key_table import KeyTable
    from lungmix.stages.measure import read_measurements

    listener = listener_for(Console(stderr=True), quiet=quiet)
    whose = None if key is None else KeyTable.read(key).rows_of(cohort)
    scores = None if score_file is None else scores_of_cases(read_measurements(cohort), score_file, whose)
    typer.echo(f"page: {write_page(cohort, folder, failed, scores=scores, listener=listener)}", err=True)
