"""Options that all commands on a cluster share, passed to them as one value."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any

from lungmix.cli import options as opt


@dataclass(frozen=True)
class OnCluster:
    """Cluster, log and progress options of a command, as on the command line."""

    scheduler: opt.Scheduler = None
    scheduler_file: opt.SchedulerFile = None
    workers: opt.Workers = None
    memory_limit: opt.MemoryLimit = None
    log: opt.LogFile = None
    performance_report: opt.PerformanceReport = None
    quiet: opt.Quiet = False


LOCAL = OnCluster()
"""Default options: a local cluster that fits the machine."""


def on_cluster(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the parameter ``cluster`` of a command by the options of `OnCluster`."""
    options = list(inspect.signature(OnCluster, eval_str=True).parameters.values())
    names = [option.name for option in fields(OnCluster)]

    @wraps(command)
    def with_options(**arguments: Any) -> None:
        cluster = OnCluster(**{name: arguments.pop(name) for name in names})
        command(**arguments, cluster=cluster)

    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        parameters += options if parameter.name == "cluster" else [parameter]
    # typer reads the signature and the annotations.
    with_options.__dict__["__signature__"] = inspect.Signature(parameters)
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options
