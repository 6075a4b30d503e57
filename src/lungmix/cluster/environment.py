"""Whether a cluster can do this program's work: what its processes lack is said before any work is sent.

A worker that cannot import what it is sent loses its connection and takes its tasks with it, and nothing in the error
of the run would tell why.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable, Mapping
from typing import Any

from distributed import Client

from lungmix._version import __version__
from lungmix.errors import ClusterError

_OURS = "lungmix._version:__version__"
_WHOLE = ("dask", "distributed")
"""Graphs are pickled objects of these: any difference counts."""

_SHOWN = 4

Versions = Mapping[str, Any]


def check_cluster(client: Client) -> None:
    """Compare the environments of a cluster with this one.

    Raises
    ------
    ClusterError
        If the scheduler or a worker lacks lungmix, or has another version of it, of dask or distributed, another minor
        version of Python, or another major version of numpy. The message names them.
    """
    found = client.get_versions()
    here = found["client"]["packages"]
    # Functions of the standard library travel by name, so that even another Python can answer.
    ours = dict(client.run(pkgutil.resolve_name, _OURS, on_error="return"))
    # Who joins between the two questions is looked at by the gate of the run.
    workers = {address: found["workers"][address] for address in ours if address in found["workers"]}
    faults = [
        f"worker {address} {fault}"
        for address, packages in workers.items()
        if (fault := fault_of(ours[address], packages, here))
    ]
    try:
        scheduler = client.run_on_scheduler(pkgutil.resolve_name, _OURS)
    except Exception as error:  # whatever an import leads to
        scheduler = error
    if fault := fault_of(scheduler, found["scheduler"], here):
        faults.insert(0, f"the scheduler {fault}")
    if faults:
        more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise ClusterError(
            f"the cluster does not have this program's environment: {'; '.join(faults[:_SHOWN])}{more}; here are "
            f"{describe_environment(here)}: install the same where the scheduler and the workers run, and start them "
            "again"
        )


def fault_of(ours: object, packages: Versions | None, here: Versions) -> str | None:
    """What one process lacks; None if nothing."""
    there = (packages or {}).get("packages", {})
    wrong = list(_differing(there, here))
    if isinstance(ours, ModuleNotFoundError) and (ours.name or "").split(".")[0] == "lungmix":
        wrong.insert(0, "lacks lungmix")
    elif isinstance(ours, BaseException):
        wrong.insert(0, f"cannot import lungmix ({type(ours).__name__}: {ours})")
    elif ours != __version__:
        wrong.insert(0, f"has lungmix {ours}")
    return " and ".join(wrong) or None


def _differing(there: Versions, here: Versions) -> Iterable[str]:
    pairs = [("Python", _part(there.get("python"), 2), _part(here.get("python"), 2))]
    pairs += [(name, there.get(name), here.get(name)) for name in _WHOLE]
    pairs.append(("numpy", _part(there.get("numpy"), 1), _part(here.get("numpy"), 1)))
    for name, theirs, mine in pairs:
        if theirs != mine:
            yield f"has {name} {theirs}" if theirs else f"lacks {name}"


def _part(version: str | None, numbers: int) -> str | None:
    return None if version is None else ".".join(version.split(".")[:numbers])


def describe_environment(here: Versions) -> str:
    """What this program has, in words."""
    python = _part(here.get("python"), 2)
    return f"lungmix {__version__}, Python {python}, " + ", ".join(f"{n} {here.get(n)}" for n in (*_WHOLE, "numpy"))
