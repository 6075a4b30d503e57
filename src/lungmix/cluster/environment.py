"""Compare the installed versions on a cluster with those of this program, before any work is sent.

A worker that cannot import the functions of a task loses its connection and its tasks, and the error that the run ends
with does not contain the cause.
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
"""Packages whose versions must be equal, because graphs contain pickled objects of them."""

_MAX_LISTED = 4

Versions = Mapping[str, Any]


def check_cluster(client: Client) -> None:
    """Raise an error unless the scheduler and all workers have compatible versions of packages.

    Raises
    ------
    ClusterError
        If the scheduler or a worker lacks lungmix, or has another version of lungmix, dask or distributed, another
        minor version of Python, or another major version of numpy. The message names process and versions.
    """
    versions = client.get_versions()
    client_packages = versions["client"]["packages"]
    # A function of the standard library is pickled by its name, so that workers with another Python can call it.
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
            f"the cluster does not have this program's environment ({first_of(problems, _MAX_LISTED, '; ')}; this "
            f"program has {describe_environment(client_packages)}): install the same versions for the scheduler and "
            "the workers, and restart them"
        )


def incompatibility(lungmix_version: object, packages: Versions | None, client_packages: Versions) -> str | None:
    """Return text on how the versions in a process differ from those of this program; None if they are compatible.

    Parameters
    ----------
    lungmix_version : object
        Version of lungmix in the process, or the error if lungmix cannot be imported there.
    packages : mapping or None
        Versions in the process, as `distributed.versions.get_versions` returns them there.
    client_packages : mapping
        Versions of packages in this program.
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
    """Return text with the versions of lungmix and Python, and those of dask, distributed and numpy in `packages`."""
    python = _leading_numbers(packages.get("python"), 2)
    return f"lungmix {__version__}, Python {python}, " + ", ".join(
        f"{name} {packages.get(name)}" for name in (*_EQUAL_VERSIONS, "numpy")
    )
