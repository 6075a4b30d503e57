"""Commands that maintain a store: verify, remove, relabel."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer

from lungmix.cli import options as opt
from lungmix.cli.option_groups import OnCluster, SeriesOptions, option_groups
from lungmix.cli.output import emit, print_result_and_exit
from lungmix.cli.running import cluster_session, pipeline_on, show_notes
from lungmix.cli.show_verify import show_verified
from lungmix.cli.spelling import spelled
from lungmix.errors import UsageError, redact

_CaseNames = Annotated[list[str], typer.Argument(help="Names of cases.", metavar="CASE...")]
_OptionalSources = Annotated[
    list[str] | None, typer.Argument(help="Original sources, to compare images with.", metavar="[SOURCE...]")
]


@opt.example("lungmix verify cohort.zarr scans/ --all")
@option_groups
def verify(
    store: opt.Store,
    sources: _OptionalSources = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All cases instead of a random sample.")] = False,
    sample: Annotated[int, typer.Option(help="Number of cases in the random sample.")] = 3,
    invalidate: Annotated[
        bool,
        typer.Option("--invalidate", help="Invalidate corrupt stages, so that the next `lungmix run` recomputes them."),
    ] = False,
    series: SeriesOptions,
    cluster: OnCluster,
    as_json: opt.AsJson = False,
) -> None:
    """Read every byte of cases, recompute them in a temporary store, and compare.

    The store is not changed, unless `--invalidate` is given. Options that choose DICOM series must be the same as in
    the run.
    """
    from lungmix.store import open_cohort
    from lungmix.verify import invalidate as invalidate_stages
    from lungmix.verify import sample_of, scans_of_cases, verify_cases

    if sample < 1:
        raise UsageError(f"--sample {sample} is not possible: give 1 or more, or --all")
    cohort = open_cohort(store, "r+" if invalidate else "r")
    with cluster_session(cluster) as (client, callback), ExitStack() as stack:
        if invalidate:
            stack.enter_context(cohort.locked(wait=cluster.wait, warn=callback.on_warning))
        names = list(cohort) if every else sample_of(list(cohort), sample)
        scans, problems = scans_of_cases(cohort, sources or (), series.rules(), callback)
        verification = verify_cases(client, cohort, names, scans, callback)
        for source, reason in problems.items():
            verification.add_problem(source, reason)
        invalidated = invalidate_stages(cohort, verification) if invalidate else {}
        verified = [*names, *cohort.damaged, *cohort.failed]
        unchecked = len(cohort) - len(names)
    wrong = {name: [redact(reason) for reason in reasons] for name, reasons in verification.faults.items()}
    messages = spelled({"wrong": wrong, "notes": verification.notes, "withdrawn": invalidated})
    emit(
        {"store": store, "verified": verified, "unchecked": unchecked, **messages},
        lambda console: show_verified(console, store, verified, verification, invalidated, unchecked),
        as_json,
    )
    if verification.faults:
        raise typer.Exit(1)


@opt.example("lungmix remove cohort.zarr case-007 case-031")
def remove(
    store: opt.Store, cases: _CaseNames, wait: opt.Wait = False, as_json: opt.AsJson = False, quiet: opt.Quiet = False
) -> None:
    """Delete cases from the store and its tables; `fit` or `run` then fits without them."""
    with pipeline_on(store, OnCluster(wait=wait, quiet=quiet), needed=False) as pipeline:
        result = pipeline.remove(cases)
    print_result_and_exit(store, result, as_json)


@opt.example("lungmix relabel cohort.zarr --model published")
@option_groups
def relabel(
    store: opt.Store,
    *,
    model: opt.Model,
    components: opt.Components = None,
    fit: opt.Fit = None,
    cluster: OnCluster,
    as_json: opt.AsJson = False,
) -> None:
    """Label and measure every masked case with another model; masks are kept."""
    from lungmix.store.choices import choose

    chosen = choose(store, model=model, components=components, fit=fit, stages=())
    show_notes(chosen, quiet=cluster.quiet)
    with pipeline_on(store, cluster) as pipeline:
        result = pipeline.relabel(chosen.model, chosen.fit)
    print_result_and_exit(store, result, as_json)
