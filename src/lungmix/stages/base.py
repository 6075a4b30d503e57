"""What the runner of a pipeline knows of a stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from distributed import Client

from lungmix.callbacks import Callback
from lungmix.cluster.worker_memory import WorkerMemory
from lungmix.store import Case, Cohort

Status = Literal["done", "kept"]
"""Whether a stage computed its result, or the store held it already."""


@dataclass(frozen=True)
class StageContext:
    """Where stages of a run do their work.

    Attributes
    ----------
    client : distributed.Client
        The cluster.
    cohort : Cohort
        Opened for writing.
    memory : WorkerMemory
        Memory of the workers when the run of the stages began.
    callback : Callback
        Is given the progress of each case.
    """

    client: Client
    cohort: Cohort
    memory: WorkerMemory = field(default_factory=WorkerMemory)
    callback: Callback = field(default_factory=Callback)

    def progress(self, case_name: str, stage: str) -> Callable[[int, int], None]:
        """Return a function that takes how many of how many tasks of a stage are finished."""
        return lambda done, total: self.callback.on_progress(case_name, stage, done, total)


class Stage(Protocol):
    """A stage with its parameters, for any case.

    Attributes
    ----------
    name : str
        Name under which the store records the stage.
    """

    @property
    def name(self) -> str:
        """Name under which the store records the stage."""

    def cache_key(self, case: Case) -> str:
        """Return the key that a valid result of the stage is recorded with."""

    def run(self, context: StageContext, case_name: str) -> Status:
        """Bring a case through the stage, unless the store holds its valid result."""
