"""Handling of SIGTERM and SIGHUP, which batch systems, containers and closed terminals send to end a command."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NAMES = ("SIGTERM", "SIGHUP")


class Ended(KeyboardInterrupt):
    """Interruption by a signal. It is a `KeyboardInterrupt`, so that the command ends as after Ctrl-C."""


class Received:
    """Signal handler that records the first signal within `as_interrupts`.

    Attributes
    ----------
    number : int or None
        Number of the signal; None before one is received.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Interrupt the main thread at the first signal; a second one must not interrupt its cleanup."""
        if self.number is None:
            self.number = number
            raise Ended


@contextmanager
def as_interrupts() -> Iterator[Received]:
    """End the block on SIGTERM and SIGHUP as on Ctrl-C.

    A signal that is ignored already, as under ``nohup``, stays ignored. A handler is needed in containers: without one,
    the system drops these signals for process 1. Only the main thread can set handlers; in another thread nothing
    changes.
    """
    received = Received()
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name) for name in _NAMES if hasattr(signal, name)):
            if signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, received)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
