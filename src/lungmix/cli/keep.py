"""The commands that keep a store: verify, remove, relabel."""

from __future__ import annotations

from typing import Annotated

import typer

from lungmix.cli import options as opt
from lungmix.cli.on_cluster import LOCAL, OnCluster, on_cluster
from lungmix.cli.results import conclude
from lungmix.cli.running import pipeline_on, working
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
    cluster: OnCluster = LOCAL,
    as_json: opt.AsJson = False,
) -> None:
    """Read every byte of cases, make them again beside the store, and compare; the store is not changed."""
    from lungmix.cli.show_fits import dump
    from lungmix.formats import Scan, find_scans
    from lungmix.stages.names import assign_names
    from lungmix.store import open_cohort
    from lungmix.verify import sample_of, verify_cases

    if sample < 1:
        raise UsageError(f"--sample {sample} is not possible: give 1 or more, or --all")
    cohort = open_cohort(store)
    names = list(cohort) if every else sample_of(list(cohort), sample)
    scans = [scan for source in sources or () for scan in find_scans(source) if isinstance(scan, Scan)]
    known = assign_names(cohort, scans) if scans else {}
    with working(cluster) as (client, listener):
        found = verify_cases(client, cohort, names, known, listener)
    wrong = {name: differences for name, differences in found.items() if differences}
    if as_json:
        typer.echo(dump({"store": store, "verified": list(found), "wrong": wrong}))
    else:
        for name, differences in wrong.items():
            for one in differences:
                typer.echo(f"{name}: {one}")
        typer.echo(f"{len(found) - len(wrong)} of {len(found)} cases are as they should be")
    if wrong:
        raise typer.Exit(1)


@opt.example("lungmix remove cohort.zarr case-007 case-031")
def remove(
    store: opt.Store, cases: _CaseNames, wait: opt.Wait = False, as_json: opt.AsJson = False, quiet: opt.Quiet = False
) -> None:
    """Delete cases and take them out of the tables; `fit` or `run` then fits without them."""
    with pipeline_on(store, OnCluster(quiet=quiet), wait=wait, needed=False) as pipeline:
        report = pipeline.remove(cases)
    conclude(store, report, as_json)


@opt.example("lungmix relabel cohort.zarr --model published")
@on_cluster
def relabel(
    store: opt.Store,
    model: opt.Model,
    components: opt.Components = 5,
    fit: opt.Fit = "paper",
    wait: opt.Wait = False,
    cluster: OnCluster = LOCAL,
    as_json: opt.AsJson = False,
) -> None:
    """Label and measure every masked case with another model; no mask is made again."""
    from lungmix.parameters import FitParameters

    with pipeline_on(store, cluster, wait=wait) as pipeline:
        report = pipeline.relabel(model, FitParameters(n_components=components, fit=fit))
    conclude(store, report, as_json)
