"""Commands that compute a cohort: run, and its stages convert, mask, fit, label, measure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lungmix.cli import options as opt
from lungmix.cli.option_groups import (
    IntakeOptions,
    MaskOptions,
    OnCluster,
    SegmenterOptions,
    SeriesOptions,
    option_groups,
)
from lungmix.cli.output import draw_fits, emit, print_result_and_exit, write_page_of
from lungmix.cli.running import announce, pipeline_on, show_notes
from lungmix.errors import UsageError


@opt.example(
    "lungmix run cohort.zarr scans/ --report page/",
    "lungmix run cohort.zarr scans/ --preset physical --model published",
    "lungmix run cohort.zarr scans/ --as-published",
    "lungmix run cohort.zarr scans/ --masks masks/ --mask-labels right=1,left=2",
    "lungmix run cohort.zarr scans/ --mask-with lungmask --mask-weights unet_r231.pth",
    "lungmix run cohort.zarr scans/ --smooth potts --beta 0.5",
    "lungmix run cohort.zarr scans/ --harmonise air-blood,kernel",
    "lungmix run cohort.zarr scans/ --zones volume",
)
@option_groups
def run(
    store: opt.NewStore,
    sources: opt.Sources,
    *,
    as_published: opt.AsPublished = False,
    sizes: MaskOptions,
    accept_hu: opt.AcceptHu = False,
    masks: opt.Masks = None,
    mask_labels: opt.MaskLabels = None,
    segmenter: SegmenterOptions,
    model: opt.LastModel = None,
    components: opt.Components = None,
    fit: opt.Fit = None,
    prior: opt.Prior = None,
    prior_strength: opt.PriorStrength = None,
    method: opt.Method = None,
    exclude_flagged: opt.ExcludeFlagged = None,
    pool: opt.Pool = None,
    weigh: opt.Weigh = None,
    qc_threshold: opt.QcThreshold = None,
    smooth: opt.Smooth = None,
    beta: opt.Beta = None,
    harmonise: opt.Harmonise = None,
    kernel_reference: opt.KernelReference = None,
    zones: opt.Zones = None,
    series: SeriesOptions,
    chunk_slices: opt.ChunkSlices = None,
    intake: IntakeOptions,
    report: opt.ReportDir = None,
    yes: opt.Yes = False,
    cluster: OnCluster,
    as_json: opt.AsJson = False,
) -> None:
    """Run every stage that is not done yet, for every case: convert, mask, fit, label, measure."""
    from lungmix.store.choices import choose, choose_quality

    chosen = choose(
        store, **vars(sizes), model=model, components=components, fit=fit, prior=prior,
        prior_strength=prior_strength, method=method, exclude_flagged=exclude_flagged, pool=pool, weigh=weigh,
        as_published=as_published, chunk_slices=chunk_slices, masks=masks, mask_labels=mask_labels, **vars(segmenter),
        smooth=smooth, beta=beta, harmonise=harmonise, kernel_reference=opt.parse_reference(kernel_reference),
        zones=zones,
    )  # fmt: skip
    quality = choose_quality(store, qc_threshold)
    rules, parameters = series.rules(), intake.parameters()
    announce(chosen, yes=yes, quiet=cluster.quiet)
    with pipeline_on(store, cluster, create=True) as pipeline:
        result = pipeline.run(
            sources,
            mask=chosen.mask,
            model=chosen.model,
            fit=chosen.fit,
            intake=parameters,
            outputs=[report],
            series=rules,
            chunk_slices=chunk_slices,
            accept_hu=accept_hu,
            masks=chosen.masks,
            mask_labels=mask_labels,
            **vars(segmenter),
            quality=quality,
            smooth=smooth,
            beta=beta,
            harmonise=chosen.harmonise,
            kernel_reference=opt.parse_reference(kernel_reference),
            zones=zones,
        )
        if report is not None:
            write_page_of(pipeline.cohort, report, result.failed, quiet=cluster.quiet)
    if as_json:  # on the terminal they are printed before the run
        result.note("fit", chosen.notes)
    print_result_and_exit(store, result, as_json)


@opt.example(
    "lungmix convert cohort.zarr scans/ more/scan.nrrd",
    "lungmix convert cohort.zarr scans/ --nrrd anonymous/ --key-table safe/key.csv",
)
@option_groups
def convert(
    store: opt.NewStore,
    sources: opt.Sources,
    *,
    nrrd: Annotated[
        Path | None,
        typer.Option(help="Also write each scan as an anonymous CASE.nrrd into DIR.", metavar="DIR"),
    ] = None,
    series: SeriesOptions,
    chunk_slices: opt.ChunkSlices = None,
    intake: IntakeOptions,
    yes: opt.Yes = False,
    cluster: OnCluster,
    as_json: opt.AsJson = False,
) -> None:
    """Convert scans to chunked zarr arrays in the store."""
    from lungmix.store.choices import choose

    rules, parameters = series.rules(), intake.parameters()
    announce(choose(store, chunk_slices=chunk_slices, stages=("convert",)), yes=yes, quiet=True)
    with pipeline_on(store, cluster, create=True) as pipeline:
        result = pipeline.convert(sources, parameters, nrrd, rules, chunk_slices)
    print_result_and_exit(store, result, as_json)


@opt.example(
    "lungmix mask cohort.zarr --preset physical",
    "lungmix mask cohort.zarr --masks masks/ --mask-labels right=1,left=2",
    "lungmix mask cohort.zarr --mask-with lungmask --mask-device cuda",
)
@option_groups
def mask(
    store: opt.Store,
    *,
    sizes: MaskOptions,
    accept_hu: opt.AcceptHu = False,
    masks: opt.Masks = None,
    mask_labels: opt.MaskLabels = None,
    segmenter: SegmenterOptions,
    yes: opt.Yes = False,
    cluster: OnCluster,
    as_json: opt.AsJson = False,
) -> None:
    """Find the lungs of every case, or take them from files or a segmenter, and count lung voxels by HU."""
    from lungmix.store.choices import choose

    chosen = choose(store, **vars(sizes), masks=masks, mask_labels=mask_labels, **vars(segmenter), stages=("mask",))
    announce(chosen, yes=yes, quiet=cluster.quiet)
    with pipeline_on(store, cluster) as pipeline:
        result = pipeline.mask(
            chosen.mask, accept_hu=accept_hu, masks=masks, mask_labels=mask_labels, **vars(segmenter)
        )
    print_result_and_exit(store, result, as_json)


@opt.example("lungmix fit cohort.zarr --leave-out case-007 case-031 --fit converged --figure fits.png")
@option_groups
def fit(
    store: opt.Store,
    *,
    model: opt.Model = "fit",
    components: opt.SeveralComponents = None,
    fit: opt.Fit = None,
    prior: opt.Prior = None,
    prior_strength: opt.PriorStrength = None,
    method: opt.Method = None,
    cases: opt.Cases = None,
    leave_out: opt.LeaveOut = None,
    exclude_flagged: opt.ExcludeFlagged = None,
    pool: opt.Pool = None,
    weigh: opt.Weigh = None,
    figure: opt.FigureFile = None,
    cluster: OnCluster,
    as_json: opt.AsJson = False,
) -> None:
    """Fit three mixtures to the pooled lung voxels, 'paper', 'converged' and 'anchored', and store and print all."""
    from lungmix.store.choices import choose

    numbers = [] if components is None else opt.parse_numbers(components, "--components")
    last = numbers[-1] if numbers else None
    chosen = choose(
        store, model="fit", components=last, fit=fit, prior=prior, prior_strength=prior_strength, method=method,
        exclude_flagged=exclude_flagged, pool=pool, weigh=weigh, stages=(),
    )  # fmt: skip
    parameters = chosen.fit
    if model == "fit" and len(numbers) < 2:
        show_notes(chosen, quiet=cluster.quiet)
    # Excluding flagged cases may need a cluster too, to measure them for quality control, and so may finding lungs.
    needed = parameters.method != "counts" or parameters.exclude_flagged or parameters.pool != "mask"
    with pipeline_on(store, cluster, needed=needed, reads_histograms=True) as pipeline:
        if len(numbers) > 1:
            result = pipeline.select(numbers, parameters, cases or (), leave_out or ())
        else:
            result = pipeline.fit(model, parameters, cases or (), leave_out or ())
        if figure is not None:
            draw_fits(pipeline.cohort, result, parameters, figure)
    if as_json and model == "fit" and len(numbers) < 2:  # on the terminal they are printed before the fit
        result.note("fit", chosen.notes)
    print_result_and_exit(store, result, as_json)


@opt.example(
    "lungmix harmonise cohort.zarr --harmonise air-blood,kernel",
    "lungmix harmonise cohort.zarr --harmonise none",
)
@option_groups
def harmonise(
    store: opt.Store,
    *,
    harmonise: opt.Harmonise = None,
    kernel_reference: opt.KernelReference = None,
    yes: opt.Yes = False,
    cluster: OnCluster,
    as_json: opt.AsJson = False,
) -> None:
    """Write images with harmonised HU, of which the next masks are made; the HU of the scans stay as they are."""
    from lungmix.store.choices import choose_harmonisation

    announce(
        choose_harmonisation(store, harmonise, opt.parse_reference(kernel_reference)), yes=yes, quiet=cluster.quiet
    )
    with pipeline_on(store, cluster) as pipeline:
        result = pipeline.harmonise(harmonise, opt.parse_reference(kernel_reference))
    print_result_and_exit(store, result, as_json)


@opt.example("lungmix label cohort.zarr", "lungmix label cohort.zarr --smooth potts")
@option_groups
def label(
    store: opt.Store,
    *,
    smooth: opt.Smooth = None,
    beta: opt.Beta = None,
    cluster: OnCluster,
    as_json: opt.AsJson = False,
) -> None:
    """Label the lung voxels of every case with the model of the store."""
    with pipeline_on(store, cluster) as pipeline:
        result = pipeline.label(smooth, beta)
    print_result_and_exit(store, result, as_json)


@opt.example(
    "lungmix zones cohort.zarr", "lungmix zones cohort.zarr --by height", "lungmix zones cohort.zarr --by none"
)
@option_groups
def zones(
    store: opt.Store,
    *,
    by: opt.ZonesBy = None,
    cluster: OnCluster,
    as_json: opt.AsJson = False,
) -> None:
    """Divide each lung into thirds, halves, core and peel, and measure these zones in zones.csv."""
    with pipeline_on(store, cluster) as pipeline:
        result = pipeline.zones(by)
    print_result_and_exit(store, result, as_json)


@opt.example("lungmix measure cohort.zarr --exclude-airways --radiomics --json")
@option_groups
def measure(
    store: opt.OptionalStore = None,
    *,
    exclude_airways: Annotated[
        bool, typer.Option("--exclude-airways", help="Trachea and main bronchi do not count as lung.")
    ] = False,
    exclude_elsewhere: Annotated[
        bool,
        typer.Option("--exclude-elsewhere", help="Parts of the mask outside lungs and airway do not count as lung."),
    ] = False,
    qc_threshold: opt.QcThreshold = None,
    radiomics: Annotated[
        bool, typer.Option("--radiomics", help="Also write first-order features of the lung and each tissue.")
    ] = False,
    dictionary: Annotated[
        bool, typer.Option("--dictionary", help="Print every column with its unit and meaning; needs no STORE.")
    ] = False,
    cluster: OnCluster,
    as_json: opt.AsJson = False,
) -> None:
    """Measure every labelled case and each of its lungs; write measurements.csv and qc.csv, also as Parquet."""
    from lungmix.pipeline.cohort_steps import has_incomplete_cases
    from lungmix.stages.measure import dictionary as columns
    from lungmix.store import open_cohort
    from lungmix.store.choices import choose_quality
    from lungmix.tissue import AIRWAY, ELSEWHERE

    if dictionary:
        from lungmix.cli.show import show_dictionary

        emit(columns(), show_dictionary, as_json)
        return
    if store is None:
        raise UsageError("no STORE is given: name the folder of a cohort, or ask for --dictionary")
    excluded = [region for region, exclude in ((AIRWAY, exclude_airways), (ELSEWHERE, exclude_elsewhere)) if exclude]
    # Start a cluster only if regions, or numbers of quality control, of a case have not been computed yet.
    quality = choose_quality(store, qc_threshold)
    with pipeline_on(store, cluster, needed=has_incomplete_cases(open_cohort(store))) as pipeline:
        result = pipeline.measure(excluded, radiomics=radiomics, quality=quality)
    print_result_and_exit(store, result, as_json)
