"""Run the whole method on a cohort with one call, for notebooks and scripts.

`lungmix.pipeline` does not import this module: it needs matplotlib, which commands without a report do not load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from distributed import Client

from lungmix.callbacks import Callback, LogWarnings
from lungmix.cluster import connect
from lungmix.formats import Scan, SeriesFilter
from lungmix.mixture import TissueModel
from lungmix.parameters import (
    FitParameters,
    IntakeParameters,
    MaskLabels,
    MaskParameters,
    check_zones,
)
from lungmix.pipeline.pipeline import FIT, Pipeline, given_model
from lungmix.pipeline.result import RunResult
from lungmix.quality_flags import QualityParameters
from lungmix.segmenters import check_mask_options
from lungmix.store import check_slices, open_cohort
from lungmix.store.choices import harmonisation_of, open_or_none, smoothing_of
from lungmix.webpage.page import write_page


def run(
    store: str | Path,
    sources: str | Path | Scan | Sequence[str | Path | Scan] = (),
    *,
    mask: MaskParameters | None = None,
    model: str | Path | TissueModel = FIT,
    fit: FitParameters | None = None,
    intake: IntakeParameters | None = None,
    series: SeriesFilter | None = None,
    chunk_slices: int | None = None,
    accept_hu: bool = False,
    masks: str | Path | None = None,
    mask_labels: str | Mapping[str, Any] | MaskLabels | None = None,
    mask_with: str | None = None,
    mask_weights: str | Path | None = None,
    mask_device: str | None = None,
    quality: QualityParameters | None = None,
    smooth: str | None = None,
    beta: float | None = None,
    harmonise: str | None = None,
    kernel_reference: Sequence[float] | None = None,
    zones: str | None = None,
    report: str | Path | None = None,
    client: Client | None = None,
    workers: int | None = None,
    memory_limit: str | int | None = None,
    callback: Callback | None = None,
) -> RunResult:
    """Convert, mask, fit, label and measure a cohort; results that the store holds and that are still valid are kept.

    Parameters
    ----------
    store : str or Path
        Folder or ``s3://`` URL of the store, which is created if it does not exist.
    sources : str, Path or Scan, or sequence of these
        Files and folders with scans, in addition to the cases that the store holds.
    mask, model, fit, intake, series, chunk_slices, accept_hu, masks, mask_labels, mask_with, mask_weights, mask_device,
    quality, smooth, beta, harmonise, kernel_reference, zones
        See `lungmix.Pipeline.run`. The store remembers `mask`, `fit`, `quality`, `smooth`, `beta`, `zones` and the
        harmonisation of the last run, and no other values.
    report : str or Path, optional
        Folder for an HTML report of all cases of the store, such as ``"page"``; open its ``index.html`` in a browser.
    client : distributed.Client, optional
        A cluster. By default workers are started on this machine and stopped at the end.
    workers : int, optional
        Worker processes to start if no `client` is given; by default as many as cores and memory allow.
    memory_limit : str or int, optional
        Memory of each process, such as ``"2GB"``.
    callback : Callback, optional
        Receives progress and warnings, such as `lungmix.ProgressBars`; by default warnings go to the logger
        ``lungmix``.

    Returns
    -------
    RunResult
        Which cases are done, which failed and why, the model, the measurements, and the path of the report.

    Raises
    ------
    LungmixError
        If no case can be processed. An error of one case fails that case alone.

    Examples
    --------
    >>> mask = lungmix.MaskParameters("physical")
    >>> result = lungmix.run("cohort.zarr", "scans", mask=mask, model="published", report="page")  # doctest: +SKIP
    >>> result.failed  # doctest: +SKIP
    {}
    >>> result.page  # doctest: +SKIP
    PosixPath('page/index.html')
    """
    callback = callback or LogWarnings()
    # Check parameters first, so that no store is created if they are invalid.
    check_slices(chunk_slices)
    present = open_or_none(str(store))
    smoothing_of(present, smooth, beta)
    harmonisation_of(present, harmonise, kernel_reference)
    check_zones(zones)
    check_mask_options(masks, mask_labels, mask_with, mask_weights, mask_device)
    model = given_model(model) or FIT
    cohort = open_cohort(store, "a")
    with ExitStack() as stack:
        if client is None:
            client = stack.enter_context(connect(workers=workers, memory_limit=memory_limit, warn=callback.on_warning))
        result = Pipeline(client, cohort, callback).run(
            sources,
            mask=mask,
            model=model,
            fit=fit,
            intake=intake,
            outputs=[report],
            series=series,
            chunk_slices=chunk_slices,
            accept_hu=accept_hu,
            masks=masks,
            mask_labels=mask_labels,
            mask_with=mask_with,
            mask_weights=mask_weights,
            mask_device=mask_device,
            quality=quality,
            smooth=smooth,
            beta=beta,
            harmonise=harmonise,
            kernel_reference=kernel_reference,
            zones=zones,
        )
        if report is not None:
            result.page = write_page(cohort, report, result.failed, callback=callback)
        return result
