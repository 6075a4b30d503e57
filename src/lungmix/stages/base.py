"""Interface between the runner of a pipeline and its stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

from distributed import Client

from lungmix.callbacks import Callback
from lungmix.cluster.worker_memory import WorkerMemory
from lungmix.store import Case, Cohort

Status = Literal["done", "kept"]
"""Outcome of a stage for a case: ``"done"`` if the result was computed, ``"kept"`` if the store held it already."""


@dataclass(frozen=True)
class StageContext:
    """Cluster, store and callback that the stages of a run share.

    Attributes
    ----------
    client : distributed.Client
        The cluster.
    cohort : Cohort
        The store, opened for writing.
    memory : WorkerMemory
        Memory of the workers when the run of the stages began.
    callback : Callback
        Receiver of the progress of each case.
    """

    client: Client
    cohort: Cohort
    memory: WorkerMemory = field(default_factory=WorkerMemory)
    callback: Callback = field(default_factory=Callback)

    def progress(self, case_name: str, stage: str) -> Callable[[int, int], None]:
        """Return a function ``progress(done, total)`` that reports finished tasks of a stage."""
        return lambda done, total: self.callback.on_progress(case_name, stage, done, total)


class Stage(Protocol):
    """Interface of a stage with its parameters, which can run for any case.

    Attributes
    ----------
    name : str
        Name under which the store records the stage.
    """

    @property
    def name(self) -> str:
        """Name under which the store records the stage."""

    def cache_key(self, case: Case) -> str | None:
        """Return the key that a valid result of the stage is recorded with; None if the case lacks the input of it."""

    def run(self, context: StageContext, case_name: str) -> Status:
        """Run the stage for a case, unless the store holds its valid result."""
