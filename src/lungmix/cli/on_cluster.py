"""The options of every command that works on a cluster, which it gets as one value."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import Any

from lungmix.cli import options as opt


@dataclass(frozen=True)
class OnCluster:
    """Where a command works, and what hears of it; as on the command line."""

    scheduler: opt.Scheduler = None
    scheduler_file: opt.SchedulerFile = None
    workers: opt.Workers = None
    memory_limit: opt.MemoryLimit = None
    log: opt.LogFile = None
    performance_report: opt.PerformanceReport = None
    quiet: opt.Quiet = False


LOCAL = OnCluster()
"""A cluster of its own that fits the machine."""


def on_cluster(command: Callable[..., None]) -> Callable[..., None]:
    """Put the options of `OnCluster` in place of the parameter ``cluster`` of a command."""
    options = list(inspect.signature(OnCluster, eval_str=True).parameters.values())
    names = [one.name for one in fields(OnCluster)]

    @wraps(command)
    def with_options(**given: Any) -> None:
        cluster = OnCluster(**{name: given.pop(name) for name in names})
        command(**given, cluster=cluster)

    parameters: list[inspect.Parameter] = []
    for one in inspect.signature(command, eval_str=True).parameters.values():
        parameters += options if one.name == "cluster" else [one]
    # What typer reads.
    with_options.__dict__["__signature__"] = inspect.Signature(parameters)
    with_options.__annotations__ = {one.name: one.annotation for one in parameters}
    return with_options
