"""Comparison of the environments of a cluster with that of this program, before any work is sent.

A worker that cannot import the functions of a task loses its connection and its tasks, and the error of the run would
not contain the cause.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterable, Mapping
from typing import Any

from distributed import Client

from lungmix._version import __version__
from lungmix.errors import ClusterError, first_of

_VERSION_OF_LUNGMIX = "lungmix._version:__version__"
_EQUAL_VERSIONS = ("dask", "distributed")
"""Packages whose objects are pickled in graphs, so that versions must be equal."""

_MAX_LISTED = 4

Versions = Mapping[str, Any]


def check_cluster(client: Client) -> None:
    """Compare the environments of a cluster with this one.

    Raises
    ------
    ClusterError
        If the scheduler or a worker lacks lungmix, or has another version of it, of dask or distributed, another minor
        version of Python, or another major version of numpy. The message names them.
    """
    versions = client.get_versions()
    client_packages = versions["client"]["packages"]
    # Functions of the standard library are pickled by name, so that workers with another Python can answer.
    lungmix_versions = dict(client.run(pkgutil.resolve_name, _VERSION_OF_LUNGMIX, on_error="return"))
    # Workers that join between the two requests are checked by `worker_admission`.
    workers = {address: versions["workers"][address] for address in lungmix_versions if address in versions["workers"]}
    problems = [
        f"worker {address} {problem}"
        for address, packages in workers.items()
        if (problem := incompatibility(lungmix_versions[address], packages, client_packages))
    ]
    try:
        scheduler = client.run_on_scheduler(pkgutil.resolve_name, _VERSION_OF_LUNGMIX)
    except Exception as error:  # an import may raise anything
        scheduler = error
    if problem := incompatibility(scheduler, versions["scheduler"], client_packages):
        problems.insert(0, f"the scheduler {problem}")
    if problems:
        raise ClusterError(
            f"the cluster does not have this program's environment: {first_of(problems, _MAX_LISTED, '; ')}; "
            f"here are {describe_environment(client_packages)}: install the same for the scheduler and the workers, "
            "and restart them"
        )


def incompatibility(lungmix_version: object, packages: Versions | None, client_packages: Versions) -> str | None:
    """Return how the environment of a process differs from `client_packages`; None where it is compatible.

    Parameters
    ----------
    lungmix_version : object
        Version of lungmix in the process, or the error of its import.
    packages : mapping or None
        Versions as `distributed.versions.get_versions` returns them.
    client_packages : mapping
        Versions of packages of this program.
    """
    process_packages = (packages or {}).get("packages", {})
    differences = list(_differences(process_packages, client_packages))
    if isinstance(lungmix_version, ModuleNotFoundError) and (lungmix_version.name or "").split(".")[0] == "lungmix":
        differences.insert(0, "lacks lungmix")
    elif isinstance(lungmix_version, BaseException):
        differences.insert(0, f"cannot import lungmix ({type(lungmix_version).__name__}: {lungmix_version})")
    elif lungmix_version != __version__:
        differences.insert(0, f"has lungmix {lungmix_version}")
    return " and ".join(differences) or None


def _differences(process_packages: Versions, client_packages: Versions) -> Iterable[str]:
    compared = [("Python", "python", 2), *((name, name, None) for name in _EQUAL_VERSIONS), ("numpy", "numpy", 1)]
    for name, package, numbers in compared:
        process_version = _leading_numbers(process_packages.get(package), numbers)
        client_version = _leading_numbers(client_packages.get(package), numbers)
        if process_version != client_version:
            yield f"has {name} {process_version}" if process_version else f"lacks {name}"


def _leading_numbers(version: str | None, numbers: int | None) -> str | None:
    return None if version is None else ".".join(version.split(".")[:numbers])


def describe_environment(packages: Versions) -> str:
    """Return the versions of lungmix, Python and these packages as text."""
    python = _leading_numbers(packages.get("python"), 2)
    return f"lungmix {__version__}, Python {python}, " + ", ".join(
        f"{name} {packages.get(name)}" for name in (*_EQUAL_VERSIONS, "numpy")
    )
