"""Many cases, a few in flight: the scheduler never holds more than a window of graphs."""

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
    """What became of one item: its result, or the error that ended it."""

    item: T
    result: R | None = None
    error: Exception | None = None


def map_bounded(
    items: Sequence[T],
    work: Callable[[T], R],
    size: int | Callable[[], int],
    leave: Callable[[], None] = lambda: None,
) -> Iterator[ItemResult[T, R]]:
    """Work on items side by side and yield each as it ends; an error ends its own item only.

    Parameters
    ----------
    items : sequence
        What to work on.
    work : callable
        Called in a thread with one item; it submits to the cluster and waits.
    size : int or callable
        Items in flight; a callable is asked each time an item has ended, and never for more than at first.
    leave : callable
        Called again and again while items are waited for that are left in flight, as after an interrupt.
    """
    waiting = iter(items)
    allowed = size if callable(size) else lambda: size
    with ThreadPoolExecutor(max_workers=max(allowed(), 1), thread_name_prefix="case") as pool:
        running: dict[Future[R], T] = {}
        try:
            while True:
                while len(running) < max(allowed(), 1):
                    try:
                        item = next(waiting)
                    except StopIteration:
                        break
                    running[pool.submit(work, item)] = item
                if not running:
                    return
                # An interrupt may reach another thread, after which this one sees it once it wakes.
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
            left = [future for future in running if not future.cancel()]
            while wait(left, timeout=0).not_done:
                leave()
                wait(left, timeout=_POLL_S)
