"""The commands that make a cohort: run, and its stages convert, mask, fit, label, measure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from lungmix.cli import options as opt
from lungmix.cli.on_cluster import LOCAL, OnCluster, on_cluster
from lungmix.cli.results import conclude, draw_fits, write_page_of
from lungmix.cli.running import pipeline_on
from lungmix.errors import UsageError


@opt.example("lungmix run cohort.zarr scans/ --preset physical --model published --report page/")
@on_cluster
def run(
    store: opt.NewStore,
    sources: opt.Sources,
    preset: opt.Preset = "paper",
    threshold: opt.Threshold = -155,
    opening: opt.Opening = None,
    min_voxels: opt.MinVoxels = None,
    radius: opt.Radii = None,
    accept_hu: opt.AcceptHu = False,
    model: opt.Model = "fit",
    components: opt.Components = 5,
    fit: opt.Fit = "paper",
    method: opt.Method = "counts",
    series_filter: opt.SeriesFilter = "thinnest",
    allow_gaps: opt.AllowGaps = False,
    trust_positions: opt.TrustPositions = False,
    chunk_slices: opt.ChunkSlices = None,
    key: opt.KeyFile = None,
    keep_names: opt.KeepNames = False,
    retain_patient: opt.RetainPatient = False,
    shift_dates: opt.ShiftDates = False,
    report: opt.ReportDir = None,
    wait: opt.Wait = False,
    cluster: OnCluster = LOCAL,
    as_json: opt.AsJson = False,
) -> None:
    """Do every stage that is not done yet for every case: convert, mask, fit, label, measure."""
    mask = _mask_parameters(preset, threshold, opening, min_voxels, radius)
    mixture = _fit_parameters(components, fit, method)
    series = _series(series_filter, allow_gaps, trust_positions)
    intake = _intake(keep_names, key, retain_patient, shift_dates)
    with pipeline_on(store, cluster, wait=wait, create=True) as pipeline:
        result = pipeline.run(
            sources, mask, model, mixture, intake, [report], series, chunk_slices, accept_hu=accept_hu
        )
        if report is not None:
            write_page_of(pipeline.cohort, report, result.failed, quiet=cluster.quiet)
    conclude(store, result, as_json)


@opt.example(
    "lungmix convert cohort.zarr scans/ more/scan.nrrd",
    "lungmix convert cohort.zarr scans/ --nrrd anonymous/ --key safe/key.csv",
)
@on_cluster
def convert(
    store: opt.NewStore,
    sources: opt.Sources,
    nrrd: Annotated[
        Path | None,
        typer.Option(help="Write each scan as an anonymous CASE.nrrd into DIR too.", metavar="DIR"),
    ] = None,
    series_filter: opt.SeriesFilter = "thinnest",
    allow_gaps: opt.AllowGaps = False,
    trust_positions: opt.TrustPositions = False,
    chunk_slices: opt.ChunkSlices = None,
    key: opt.KeyFile = None,
    keep_names: opt.KeepNames = False,
    retain_patient: opt.RetainPatient = False,
    shift_dates: opt.ShiftDates = False,
    wait: opt.Wait = False,
    cluster: OnCluster = LOCAL,
    as_json: opt.AsJson = False,
) -> None:
    """Bring scans into the store as chunked zarr."""
    series = _series(series_filter, allow_gaps, trust_positions)
    intake = _intake(keep_names, key, retain_patient, shift_dates)
    with pipeline_on(store, cluster, wait=wait, create=True) as pipeline:
        result = pipeline.convert(sources, intake, nrrd, series, chunk_slices)
    conclude(store, result, as_json)


@opt.example("lungmix mask cohort.zarr --preset physical")
@on_cluster
def mask(
    store: opt.Store,
    preset: opt.Preset = "paper",
    threshold: opt.Threshold = -155,
    opening: opt.Opening = None,
    min_voxels: opt.MinVoxels = None,
    radius: opt.Radii = None,
    accept_hu: opt.AcceptHu = False,
    wait: opt.Wait = False,
    cluster: OnCluster = LOCAL,
    as_json: opt.AsJson = False,
) -> None:
    """Find the lungs of every case and count their HU."""
    parameters = _mask_parameters(preset, threshold, opening, min_voxels, radius)
    with pipeline_on(store, cluster, wait=wait) as pipeline:
        result = pipeline.mask(parameters, accept_hu=accept_hu)
    conclude(store, result, as_json)


@opt.example("lungmix fit cohort.zarr --leave-out case-007 case-031 --fit converged --figure fits.png")
@on_cluster
def fit(
    store: opt.Store,
    model: opt.Model = "fit",
    components: opt.SeveralComponents = "5",
    fit: opt.Fit = "paper",
    method: opt.Method = "counts",
    cases: opt.Cases = None,
    leave_out: opt.LeaveOut = None,
    figure: opt.FigureFile = None,
    wait: opt.Wait = False,
    cluster: OnCluster = LOCAL,
    as_json: opt.AsJson = False,
) -> None:
    """Fit mixtures to the pooled lung voxels: as the paper does, and converged; both are stored and shown."""
    numbers = opt.parse_numbers(components, "--components")
    parameters = _fit_parameters(numbers[-1], fit, method)
    with pipeline_on(store, cluster, wait=wait, needed=method != "counts") as pipeline:
        if len(numbers) > 1:
            result = pipeline.select(numbers, parameters, cases or (), leave_out or ())
        else:
            result = pipeline.fit(model, parameters, cases or (), leave_out or ())
        if figure is not None:
            draw_fits(pipeline.cohort, result, parameters, figure)
    conclude(store, result, as_json)


@opt.example("lungmix label cohort.zarr")
@on_cluster
def label(
    store: opt.Store,
    wait: opt.Wait = False,
    cluster: OnCluster = LOCAL,
    as_json: opt.AsJson = False,
) -> None:
    """Label the lung voxels of every case with the model of the store."""
    with pipeline_on(store, cluster, wait=wait) as pipeline:
        result = pipeline.label()
    conclude(store, result, as_json)


@opt.example("lungmix measure cohort.zarr --exclude-airways --radiomics --json")
@on_cluster
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
    wait: opt.Wait = False,
    cluster: OnCluster = LOCAL,
    as_json: opt.AsJson = False,
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
    with pipeline_on(store, cluster, wait=wait, needed=needed) as pipeline:
        result = pipeline.measure(leave_out, radiomics=radiomics)
    conclude(store, result, as_json)


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
