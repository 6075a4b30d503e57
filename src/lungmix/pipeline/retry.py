"""The retry policy: which errors of a case lead to another attempt, how many, and what is repaired before it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import TypeVar

from distributed import Client

from lungmix import errors
from lungmix.cluster import ItemResult
from lungmix.cluster.bounded_map import map_with_second_attempt
from lungmix.cluster.reconnect import SchedulerReconnect, has_ended_workers, is_connection_lost, is_scheduler_failure
from lungmix.cluster.worker_exits import OUT_OF_MEMORY, explained
from lungmix.errors import ClusterError, DamageError, LungmixError
from lungmix.store import (
    STAGES,
    CaseWriter,
    Cohort,
    CohortWriter,
    invalidate_corrupt_stages,
    invalidate_stage,
    stage_of,
)

T = TypeVar("T")

_TRIES = 3
CONNECTION_LOST = (
    "the connection to the scheduler was lost: start it again and run the same command, which resumes where it stopped"
)


@dataclass(frozen=True)
class RetryPolicy:
    """Policy that decides what follows an error of a case.

    - Corrupt data: their stage is invalidated. If the command includes this stage, it is computed again.
    - Lost connection to the scheduler: wait until it is back, then try again.
    - Failure of the scheduler itself: try again at once.
    - Worker processes ended at the case: try once more, with no other case in flight.
    - Any other error: raise it.

    Attributes
    ----------
    client : distributed.Client
        The cluster.
    cohort : Cohort
        The store, opened for writing.
    warn : callable
        Called with one sentence for each retry.
    renew : callable
        Called after a restart of the scheduler, to register plugins and subscriptions again.
    recomputed : collection of str or None
        Stages that the command can recompute if they are corrupt; None for all stages.
    """

    client: Client
    cohort: Cohort
    warn: Callable[[str], None]
    renew: Callable[[], None] = lambda: None
    recomputed: Collection[str] | None = None
    _reconnect: SchedulerReconnect = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Create the object that waits for a lost scheduler, which all cases in flight share."""
        object.__setattr__(self, "_reconnect", SchedulerReconnect(self.client, self.warn, self.renew))

    def map_cases(
        self, names: Sequence[str], task: Callable[[str], None], size: int
    ) -> Iterator[ItemResult[str, None]]:
        """Call a function with each case, and yield each case's result or error after its last attempt.

        Parameters
        ----------
        names : sequence of str
            Cases.
        task : callable
            Called with the name of a case, in a thread.
        size : int
            Number of cases in flight. After worker processes have ended at a case, the remaining cases run one at a
            time, and this case is tried once more at the end.
        """

        def warn(name: str, error: Exception) -> None:
            self.warn(f"{name}: {reason_of_ended_workers(error)}; cases now run one at a time")

        return map_with_second_attempt(names, task, size, has_ended_workers, warn, self._reconnect.abort)

    def attempts(self, case_name: str) -> Iterator[Attempt]:
        """Yield up to three attempts, which are context managers, until the block within one of them succeeds.

        Corrupt stages of the case are invalidated before the first attempt. The last attempt raises any error.
        """
        invalidated = invalidate_corrupt_stages(self.cohort[case_name]) if case_name in self.cohort else {}
        for stage, reason in invalidated.items():
            if stage not in STAGES:
                self.warn(f"{case_name}: {reason}: {stage} will be recomputed")
            elif self.can_recompute(stage):
                self.warn(f"{case_name}: {reason}: the stage {stage} will be recomputed")
            else:
                self.warn(f"{case_name}: {reason}: the stage {stage} is invalid until a run recomputes it")
        for left in reversed(range(_TRIES)):
            attempt = Attempt(self, case_name, is_last=not left)
            yield attempt
            if attempt.succeeded:
                return

    def run_cohort_step(self, title: str, step: Callable[[], T], repair: Callable[[DamageError], None]) -> T:
        """Call a function that reads many cases at once.

        Parameters
        ----------
        title : str
            Name of the step in messages.
        step : callable
            Function to call. It is called again after an error, so it must write nothing before it succeeds.
        repair : callable
            Called with the error after the corrupt stage of a case was invalidated. It recomputes the stage, or
            excludes the case from the step.

        Returns
        -------
        object
            Result of `step`.

        Raises
        ------
        DamageError
            If a case is corrupt again after its repair.
        ClusterError
            If the connection to the scheduler was lost and did not come back.
        """
        repaired, left = set[str](), _TRIES
        while True:
            try:
                return step()
            except DamageError as error:
                self.invalidate(error)
                if error.case in repaired:
                    raise
                repaired.add(error.case)
                repair(error)
            except Exception as error:
                left -= 1
                self.wait_or_raise(title, explained(self.client, error), is_last=not left)

    def wait_or_raise(self, title: str, error: Exception, *, is_last: bool) -> None:
        """Return when the work can be tried again, after waiting for a lost scheduler; raise any other error."""
        if is_scheduler_failure(error) and not is_last:
            self.warn(f"{title}: the scheduler failed ({type(error).__name__}); retrying")
            return
        if not is_connection_lost(error):
            raise error
        if is_last or not self._reconnect.wait():
            raise ClusterError(CONNECTION_LOST) from error
        self.warn(f"{title}: the scheduler is back; resuming")

    def can_recompute(self, stage: str | None) -> bool:
        """Return True if the command recomputes a stage; None stands for temporary arrays, always recomputed."""
        return stage is None or self.recomputed is None or stage in self.recomputed

    def invalidate(self, error: DamageError) -> None:
        """Invalidate the stage whose array is corrupt according to the error; temporary arrays have no stage."""
        stage = stage_of(error.array)
        case = self.cohort[error.case]
        if stage is not None:
            invalidate_stage(case, stage, error.fault)

    def record_failure(self, case_name: str, stage: str, error: Exception) -> None:
        """Record in the store why a case failed.

        Other errors of the cluster than ended workers are not recorded, nor are unexpected errors: they say nothing
        about the case.
        """
        if has_ended_workers(error):
            reason = errors.redact(reason_of_ended_workers(error))
        elif isinstance(error, LungmixError) and not isinstance(error, ClusterError):
            reason = error.redacted_message
        else:
            return
        # Writing fails on a full or read-only disk; the result of the run has the reason anyway.
        with suppress(OSError, LungmixError):
            if case_name in self.cohort:
                case = CaseWriter(self.cohort[case_name])
                # The stage that the store has as under way may be an earlier one, as the label stage may be computing
                # the mask, or a later one that a killed run left. Record the failure with the earlier stage.
                stages = [name for name in (case.under_way, stage) if name in STAGES]
                case.record_failure(min(stages, key=STAGES.index, default=stage), reason)
            elif (origin := self.cohort.register.get(case_name)) is not None:
                CohortWriter(self.cohort).register_scans({case_name: {**origin, "stage": stage, "reason": reason}})


@dataclass
class Attempt:
    """Context manager of one attempt at a case, which suppresses an error if another attempt follows.

    Attributes
    ----------
    policy : RetryPolicy
        Policy that decides which errors are tried again.
    case_name : str
        Name of the case.
    is_last : bool
        True for the last attempt, which raises every error.
    succeeded : bool
        True after the block has ended without an error.
    """

    policy: RetryPolicy
    case_name: str
    is_last: bool
    succeeded: bool = False

    def __enter__(self) -> Attempt:
        """Begin the attempt."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        """Suppress the error and return True if the case is tried again."""
        self.succeeded = error is None
        if isinstance(error, DamageError):
            self.policy.invalidate(error)
            if self.is_last or not self.policy.can_recompute(stage_of(error.array)):
                return False
            self.policy.warn(message_of_recomputing(error))
            return True
        if not isinstance(error, Exception):
            return False
        self.policy.wait_or_raise(self.case_name, explained(self.policy.client, error), is_last=self.is_last)
        return True


def reason_of_ended_workers(error: BaseException) -> str:
    """Return one sentence about why worker processes ended while they worked on a case."""
    return error.raw_message if isinstance(error, LungmixError) else OUT_OF_MEMORY


def message_of_recomputing(error: DamageError) -> str:
    """Return the warning that a case has corrupt data, which are being recomputed."""
    return f"{error.case}: {error.fault}: recomputing"
