"""Batches of cases: functions that read many small results of a cohort, called on the workers for some cases at a time.

The client receives one small result per batch. Large cohorts would take it minutes, as it reads one case after the
other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from distributed import Client

from lungmix.cluster.bounded_map import map_with_second_attempt
from lungmix.cluster.reconnect import SchedulerReconnect, has_ended_workers, is_closed
from lungmix.store import Cohort, open_cohort
from lungmix.store.case_ref import url_for_workers

R = TypeVar("R")

BATCH_CASES = 64
"""Number of cases of a batch. A cohort of one batch is read by the client, without tasks."""


def over_batches(
    client: Client | None,
    cohort: Cohort,
    names: Sequence[str],
    task: Callable[..., R],
    *args: Any,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[R]:
    """Call a function for batches of cases, and yield the result of each batch when it ends, in any order.

    The number of batches in flight is limited. A batch at which worker processes ended is tried once more, with no
    other batch in flight.

    Parameters
    ----------
    client : distributed.Client or None
        Client of the cluster whose workers call the function; with None, this process calls it.
    cohort : Cohort
        The store; workers must be able to read it under the same path.
    names : sequence of str
        Cases.
    task : callable
        Function of a module, called as ``task(cohort, batch, *args)`` with the names of a batch. Its result must be
        small, because it is sent to the client.
    *args
        Further arguments of the function.
    progress : callable, optional
        Called as ``progress(done, total)`` with the number of finished cases.
    """
    batches = [tuple(names[first : first + BATCH_CASES]) for first in range(0, len(names), BATCH_CASES)]
    done = 0
    for batch, result in _results(client, cohort, batches, task, args):
        done += len(batch)
        if progress is not None:
            progress(done, len(names))
        yield result


def _results(
    client: Client | None,
    cohort: Cohort,
    batches: Sequence[tuple[str, ...]],
    task: Callable[..., R],
    args: tuple[Any, ...],
) -> Iterator[tuple[tuple[str, ...], R]]:
    if client is None or len(batches) < 2:
        yield from ((batch, task(cohort, batch, *args)) for batch in batches)
        return
    url = url_for_workers(cohort)

    def submit(batch: tuple[str, ...]) -> R:
        future = client.submit(_call, task, url, batch, args, pure=False)
        try:
            return future.result()
        finally:
            future.release()

    abort = SchedulerReconnect(client, lambda text: None, lambda: None).abort
    for outcome in map_with_second_attempt(batches, submit, _in_flight(client), has_ended_workers, abort=abort):
        if outcome.error is not None:
            raise outcome.error
        yield outcome.item, outcome.result  # type: ignore[misc]


def _call(task: Callable[..., R], url: str, batch: Sequence[str], args: tuple[Any, ...]) -> R:
    return task(open_cohort(url), batch, *args)


def _in_flight(client: Client) -> int:
    # One batch more than there are threads, so that none waits while the client takes a result.
    if is_closed(client):
        return 1
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return 1 + sum(int(worker["nthreads"]) for worker in workers)
