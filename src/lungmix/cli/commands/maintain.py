"""The commands that keep a store: verify, remove, relabel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from lungmix.cli import options as opt
from lungmix.cli.on_cluster import LOCAL, OnCluster, on_cluster
from lungmix.cli.output import print_result_and_exit
from lungmix.cli.redaction import told
from lungmix.cli.running import cluster_session, pipeline_on
from lungmix.errors import UsageError

_CaseNames = Annotated[list[str], typer.Argument(help="Names of cases.", metavar="CASE...")]
_SomeSources = Annotated[
    list[str] | None, typer.Argument(help="Where scans came from, to compare images with.", metavar="[SOURCE...]")
]


@opt.example("lungmix verify cohort.zarr scans/ --all")
@on_cluster
def verify(
    store: opt.Store,
    sources: _SomeSources = None,
    every: Annotated[bool, typer.Option("--all", help="All cases, in place of a sample.")] = False,
    sample: Annotated[int, typer.Option(help="Cases to draw by chance.")] = 3,
    invalidate: Annotated[
        bool,
        typer.Option("--withdraw", help="Withdraw what is damaged, so that the next `lungmix run` makes it again."),
    ] = False,
    series_filter: opt.SeriesFilter = "thinnest",
    allow_gaps: opt.AllowGaps = False,
    trust_positions: opt.TrustPositions = False,
    wait: opt.Wait = False,
    cluster: OnCluster = LOCAL,
    as_json: opt.AsJson = False,
) -> None:
    """Read every byte of cases, make them again beside the store, and compare.

    The store is not changed, unless `--withdraw` is given. Options that choose series have to be those of the run.
    """
    from lungmix.formats import SeriesFilter
    from lungmix.store import open_cohort
    from lungmix.verify import invalidate as withdraw_damaged
    from lungmix.verify import sample_of, scans_of_cases, verify_cases

    if sample < 1:
        raise UsageError(f"--sample {sample} is not possible: give 1 or more, or --all")
    rules = SeriesFilter(series_filter, allow_gaps, trust_positions)
    cohort = open_cohort(store, "r+" if invalidate else "r")
    with cluster_session(cluster) as (client, callback), _alone(cohort, callback, invalidate=invalidate, wait=wait):
        names = list(cohort) if every else sample_of(list(cohort), sample)
        known, strange = scans_of_cases(cohort, sources or (), rules, callback)
        found = verify_cases(client, cohort, names, known, callback)
        for place, reason in strange.items():
            found.add_problem(place, reason)
        withdrawn = withdraw_damaged(cohort, found) if invalidate else {}
        verified = [*names, *cohort.damaged, *cohort.failed]
    _show_verified(store, verified, found, withdrawn, as_json=as_json)
    if found.faults:
        raise typer.Exit(1)


@contextmanager
def _alone(cohort: Any, callback: Any, *, invalidate: bool, wait: bool) -> Iterator[None]:
    """Hold the lock of a store that is to be written."""
    if not invalidate:
        yield
        return
    with cohort.locked(wait=wait, warn=callback.on_warning):
        yield


def _show_verified(
    store: str, verified: Sequence[str], found: Any, withdrawn: dict[str, dict[str, str]], *, as_json: bool
) -> None:
    from lungmix.cli.show_fits import to_json
    from lungmix.errors import redact

    if as_json:
        wrong = {name: [redact(one) for one in reasons] for name, reasons in found.faults.items()}
        known = {"store": store, "verified": verified, "wrong": wrong, "notes": found.notes, "withdrawn": withdrawn}
        typer.echo(to_json(known))
        return
    for name, reasons in found.faults.items():
        for reason in reasons:
            typer.echo(f"{name}: {told(reason)}")
    for name, notes in found.notes.items():
        typer.echo(f"{name}: {'; '.join(notes)}")
    whole = sum(name not in found.faults for name in verified)
    typer.echo(f"{whole} of {len(verified)} cases are as they should be")
    for name, stages in withdrawn.items():
        typer.echo(f"{name}: withdrawn: {', '.join(stages)}")
    if withdrawn:
        typer.echo(f"`lungmix run {store} SOURCE` makes again what is withdrawn")
    elif found.damaged:
        typer.echo(f"`lungmix verify {store} --withdraw` withdraws what is damaged, so that a run makes it again")


@opt.example("lungmix remove cohort.zarr case-007 case-031")
def remove(
    store: opt.Store, cases: _CaseNames, wait: opt.Wait = False, as_json: opt.AsJson = False, quiet: opt.Quiet = False
) -> None:
    """Delete cases and take them out of the tables; `fit` or `run` then fits without them."""
    with pipeline_on(store, OnCluster(quiet=quiet), wait=wait, needed=False) as pipeline:
        report = pipeline.remove(cases)
    print_result_and_exit(store, report, as_json)


@opt.example("lungmix relabel cohort.zarr --model published")
@on_cluster
def relabel(
    store: opt.Store,
    model: opt.Model,
    components: opt.Components = None,
    fit: opt.Fit = None,
    wait: opt.Wait = False,
    cluster: OnCluster = LOCAL,
    as_json: opt.AsJson = False,
) -> None:
    """Label and measure every masked case with another model; no mask is made again."""
    from lungmix.store.choices import choose

    chosen = choose(store, model=model, components=components, fit=fit, stages=())
    with pipeline_on(store, cluster, wait=wait) as pipeline:
        report = pipeline.relabel(chosen.model, chosen.fit)
    print_result_and_exit(store, report, as_json)
