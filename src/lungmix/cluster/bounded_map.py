"""Concurrent work on many cases with a limited number in flight, so that the scheduler holds few graphs at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_WAKE_S = 1.0
_POLL_S = 0.2


@dataclass(frozen=True)
class ItemResult(Generic[T, R]):
    """Result that the task returned for an item, or the error that it raised."""

    item: T
    result: R | None = None
    error: Exception | None = None


def map_bounded(
    items: Sequence[T],
    task: Callable[[T], R],
    size: int | Callable[[], int],
    abort: Callable[[], None] = lambda: None,
) -> Iterator[ItemResult[T, R]]:
    """Run a task for items concurrently, and yield the result or error of each item when it ends.

    Parameters
    ----------
    items : sequence
        Items to pass to the task.
    task : callable
        Called in a thread with an item. It submits work to the cluster and waits for it.
    size : int or callable
        Number of items in flight. A callable is called again after each item; its first value is the maximum.
    abort : callable
        Called repeatedly if the iteration ends early, as by an interrupt, until no item is in flight.
    """
    waiting = iter(items)
    max_in_flight = size if callable(size) else lambda: size
    with ThreadPoolExecutor(max_workers=max(max_in_flight(), 1), thread_name_prefix="case") as pool:
        running: dict[Future[R], T] = {}
        try:
            while True:
                while len(running) < max(max_in_flight(), 1):
                    try:
                        item = next(waiting)
                    except StopIteration:
                        break
                    running[pool.submit(task, item)] = item
                if not running:
                    return
                # The timeout lets this thread handle an interrupt that was delivered to another thread.
                finished, _ = wait(running, timeout=_WAKE_S, return_when=FIRST_COMPLETED)
                for future in finished:
                    item = running.pop(future)
                    error = future.exception()
                    if error is None:
                        yield ItemResult(item, result=future.result())
                    elif isinstance(error, Exception):
                        yield ItemResult(item, error=error)
                    else:
                        raise error
        finally:
            in_flight = [future for future in running if not future.cancel()]
            while wait(in_flight, timeout=0).not_done:
                abort()
                wait(in_flight, timeout=_POLL_S)


def map_with_second_attempt(
    items: Sequence[T],
    task: Callable[[T], R],
    size: int,
    must_retry: Callable[[Exception], bool],
    on_retry: Callable[[T, Exception], None] = lambda item, error: None,
    abort: Callable[[], None] = lambda: None,
) -> Iterator[ItemResult[T, R]]:
    """Run a task for items as `map_bounded` does, and try some items again at the end, one at a time.

    Parameters
    ----------
    items, task, abort
        See `map_bounded`.
    size : int
        Number of items in flight, until the first item must be tried again; the remaining items run one at a time.
    must_retry : callable
        Called with the error of an item. Returns True if the item is tried again, with no other item in flight.
    on_retry : callable
        Called with the item and its error before the other items continue.
    """
    again: list[T] = []
    for result in map_bounded(items, task, lambda: 1 if again else size, abort):
        if result.error is not None and must_retry(result.error):
            on_retry(result.item, result.error)
            again.append(result.item)
        else:
            yield result
    yield from map_bounded(again, task, 1, abort)
