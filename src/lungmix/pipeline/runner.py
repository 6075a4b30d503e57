"""The runner: runs stages for cases, reports progress and resource usage, and records failures with their reasons."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from math import prod

from distributed import Client

from lungmix import errors
from lungmix.callbacks import Callback, stage_events
from lungmix.cluster import ResourceUsage, UsageRecorder
from lungmix.cluster.reconnect import has_ended_workers, is_closed, warn_when_no_workers
from lungmix.cluster.worker_memory import worker_memory_of
from lungmix.errors import DamageError, LockedError, LungmixError, StoreError
from lungmix.geometry import Geometry
from lungmix.pipeline.result import CaseResult
from lungmix.pipeline.retry import RetryPolicy, message_of_recomputing, reason_of_ended_workers
from lungmix.s3 import is_remote
from lungmix.stages.base import Stage, StageContext
from lungmix.stages.label import LabelStage
from lungmix.store import CaseWriter, Cohort
from lungmix.store.schema import LABEL, LOCK_FILE, MASK, PACKED, SIDE


@dataclass(frozen=True)
class CaseRunner:
    """Runner of stages for cases; one case more than there are workers is in flight at a time.

    Attributes
    ----------
    client : distributed.Client
        The cluster.
    cohort : Cohort
        The store, opened for writing.
    callback : Callback
        Receiver of progress, resources and failures.
    """

    client: Client
    cohort: Cohort
    callback: Callback
    _sizes: dict[str, int] = field(default_factory=dict, repr=False)

    def set_case_sizes(self, geometries: Mapping[str, Geometry]) -> None:
        """Set the size of each case in bytes, 2 per voxel, for progress bars."""
        self._sizes.update({name: 2 * prod(geometry.size) for name, geometry in geometries.items()})

    def run_cases(
        self,
        title: str,
        names: Sequence[str],
        stages: Sequence[Stage],
        result: CaseResult,
        *,
        record_failures: bool = True,
    ) -> None:
        """Run stages for cases, several cases at a time.

        Parameters
        ----------
        title : str
            Title of the progress bar.
        names : sequence of str
            Cases.
        stages : sequence of Stage
            Stages to run for each case, in this order. A case that fails in one stage does not run the next ones.
        result : CaseResult
            Receives finished and failed cases, and time and memory by stage.
        record_failures : bool
            Record in the store why a case failed. False for stages that the store does not list, such as an evaluation.
        """
        usage = UsageRecorder(result.spent)
        warn = self.callback.on_warning
        renew, recomputed = partial(usage.listen, self.client, warn), recomputed_by(stages)
        retry = RetryPolicy(self.client, self.cohort, warn, renew, recomputed)
        context = StageContext(self.client, self.cohort, worker_memory_of(self.client), self.callback)
        # Present stage of each case. Each thread sets the key of its own case only.
        current: dict[str, str] = {}
        run_case = partial(self._run_case, stages, context, usage, retry, current)
        with (
            stage_events(self.callback, title, names, self._sizes_of(names)),
            usage.listening(self.client, warn),
            warn_when_no_workers(self.client, warn) as check_workers,
        ):
            for outcome in retry.map_cases(names, run_case, self._cases_in_flight()):
                if outcome.error is not None:
                    check_workers()  # raises if all workers are gone, which is not the fault of the case
                    self._raise_unless_of_case(outcome.item, outcome.error)
                    stage = current.get(outcome.item, title)
                    if record_failures:
                        retry.record_failure(outcome.item, stage, outcome.error)
                    reason = reason_of(outcome.error)
                    result.fail(outcome.item, reason, outcome.error)
                    # The title of the progress bar may be another stage than the one that failed.
                    self.callback.on_case_end(outcome.item, reason if stage == title else f"{stage}: {reason}")
                else:
                    self.callback.on_case_end(outcome.item)
        result.done = [name for name in names if name not in result.failed]

    def run_cohort_step(
        self, title: str, step: Callable[[], None], stages: Sequence[Stage], result: CaseResult
    ) -> None:
        """Call a function that reads all cases at once.

        Parameters
        ----------
        title : str
            Name of the step in messages.
        step : callable
            Function to call. It is called again after a repair, so it must write nothing before it succeeds, and must
            skip the failed cases of `result`.
        stages : sequence of Stage
            Stages that recompute a case whose data turn out to be corrupt; if there are none, the case fails.
        result : CaseResult
            Receives failures.
        """

        def repair(error: DamageError) -> None:
            done = result.done
            if stages:
                self.callback.on_warning(message_of_recomputing(error))
                self.run_cases("again", [error.case], stages, result)
            else:
                result.fail(error.case, error.raw_message, error)
            result.done = [name for name in done if name not in result.failed]

        with warn_when_no_workers(self.client, self.callback.on_warning):
            RetryPolicy(self.client, self.cohort, self.callback.on_warning).run_cohort_step(title, step, repair)

    def _run_case(
        self,
        stages: Sequence[Stage],
        context: StageContext,
        usage: UsageRecorder,
        retry: RetryPolicy,
        current: MutableMapping[str, str],
        name: str,
    ) -> None:
        """Run stages for one case, in a separate thread; `current` receives the name of the running stage by case."""
        for attempt in retry.attempts(name):
            with attempt, self._recorded_usage(name) as usage_by_stage:
                for stage in stages:
                    current[name] = stage.name
                    with usage.measure(name, stage.name) as measurement:
                        measurement.status = stage.run(context, name)
                    if measurement.status == "done":
                        usage_by_stage[stage.name] = measurement.usage
                        self.callback.on_usage(name, stage.name, measurement.usage)

    @contextmanager
    def _recorded_usage(self, name: str) -> Iterator[dict[str, ResourceUsage]]:
        """Yield an empty dictionary for the usage of each stage, and record it in the case at the end of the block.

        It is recorded also if a stage fails.
        """
        usage_by_stage: dict[str, ResourceUsage] = {}
        try:
            yield usage_by_stage
        finally:
            with suppress(OSError):
                if usage_by_stage and name in self.cohort:
                    usage = {stage: usage.to_dict() for stage, usage in usage_by_stage.items()}
                    CaseWriter(self.cohort[name]).record_usage(usage)

    def _raise_unless_of_case(self, name: str, error: Exception) -> None:
        """Raise an error that all other cases would fail with too; set the case of any other error."""
        if isinstance(error, LungmixError):
            error.case = error.case or name
        if isinstance(error, LockedError):
            raise error  # the store belongs to another run now
        if isinstance(error, StoreError) and is_remote(self.cohort.url):
            # This read raises if the bucket does not respond. All other cases would wait for it in vain.
            self.cohort.read_bytes(LOCK_FILE)

    def _sizes_of(self, names: Sequence[str]) -> dict[str, int]:
        """Return the size of each case in bytes, for progress; only cases of unknown size are opened."""
        for name in names:
            if name not in self._sizes:
                # A case that cannot be opened fails in its stages, with a reason.
                with suppress(LungmixError, KeyError):
                    self.set_case_sizes({name: self.cohort[name].geometry})
        return {name: self._sizes.get(name, 0) for name in names}

    def _cases_in_flight(self) -> int:
        # One case more than there are workers, so that no worker waits while a case ends and the next one begins.
        if is_closed(self.client):
            return 1
        return max(2, len(self.client.scheduler_info(n_workers=-1)["workers"]) + 1)


def recomputed_by(stages: Sequence[Stage]) -> frozenset[str]:
    """Return the names of all results that the stages of a run recompute, such as packed air along with the mask."""
    names = {stage.name for stage in stages}
    names.update(before.name for stage in stages if isinstance(stage, LabelStage) for before in stage.before)
    names.update(part for name, part in ((MASK, PACKED), (MASK, SIDE), (LABEL, SIDE)) if name in names)
    return frozenset(names)


def reason_of(error: BaseException) -> str:
    """Return one sentence about the error that ended a case, including ended worker processes."""
    return reason_of_ended_workers(error) if has_ended_workers(error) else errors.reason_of(error)
