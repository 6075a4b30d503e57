"""``lungmix evaluate``: compare a cohort with reference masks, made by people or other programs."""

from __future__ import annotations

from typing import Annotated

import typer

from lungmix.cli import options as opt
from lungmix.cli.option_groups import OnCluster, option_groups
from lungmix.cli.output import emit, exit_if_failed
from lungmix.cli.running import cluster_session


@opt.example(
    "lungmix evaluate cohort.zarr contours/",
    "lungmix evaluate cohort.zarr readers/ --what tissues",
    "lungmix evaluate cohort.zarr case-001_lungs.nrrd --what right=1,left=2",
)
@option_groups
def evaluate(
    store: opt.Store,
    reference: Annotated[
        str,
        typer.Argument(
            help="Folder, file, archive, table or s3:// address of masks: NRRD, NIfTI, MetaImage, DICOM SEG, RTSTRUCT.",
            metavar="REFERENCE",
        ),
    ],
    *,
    what: Annotated[
        str,
        typer.Option(
            help="'lungs' (both together and each), 'tissues', or pairs: a segment of the store, and a label or known "
            "name of the reference to compare it with.",
            metavar="lungs|tissues|SEGMENT=REFERENCE,...",
        ),
    ] = "lungs",
    cluster: OnCluster,
    as_json: opt.AsJson = False,
) -> None:
    """Compare masks or tissues of every case with a reference, and write evaluation.csv and .parquet into the store.

    Measures are Dice, volumes and distances between surfaces. The exit status is 1 if the reference of a case is
    missing or unusable.
    """
    from lungmix.cli.show_evaluation import evaluation_values, show_evaluation
    from lungmix.pipeline.evaluation import evaluate as compare
    from lungmix.stages.comparisons import parse_what
    from lungmix.store import CohortWriter, open_cohort

    parse_what(what)
    cohort = open_cohort(store, "r+")
    if not cluster.wait:
        CohortWriter(cohort).check_free()
    with cluster_session(cluster) as (client, callback):
        result = compare(cohort, reference, what, client=client, callback=callback, wait=cluster.wait)
    emit(evaluation_values(store, result), lambda console: show_evaluation(console, result, store), as_json)
    exit_if_failed(result)
