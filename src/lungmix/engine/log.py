"""A log of a run for programs: one JSON object a line."""

from __future__ import annotations

import datetime
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from lungmix.engine.progress import Listener
from lungmix.engine.watch import Spent
from lungmix.errors import UsageError, anonymous, encodable, named


class JsonLog(Listener):
    """Writes what happens; every line has ``time``, ``level`` and ``event``, and holds no name of a source.

    Events are ``begin`` and ``end`` of a part of the run with ``part``, ``cases`` and ``bytes`` of their HU; ``stage``
    with ``case``, ``stage``, ``seconds``, ``worker_seconds``, ``tasks`` and ``peak_bytes``; ``case`` with ``case`` and
    ``bytes``; ``failed`` with ``case`` and ``reason``; ``message``.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._lock = threading.Lock()
        self._part = ""
        self._sizes: Mapping[str, int] = {}

    def begin(self, title: str, cases: Sequence[str], sizes: Mapping[str, int] | None = None) -> None:
        """See `Listener`."""
        self._part, self._sizes = title, sizes or {}
        self._write("info", "begin", part=title, cases=len(cases), bytes=sum(self._sizes.values()))

    def spent(self, case: str, stage: str, spent: Spent) -> None:
        """See `Listener`."""
        took = {name: value for name, value in spent.to_dict().items() if name != "cases"}
        self._write("info", "stage", part=self._part, case=case, stage=stage, **took)

    def finish(self, case: str, failure: str | None = None) -> None:
        """See `Listener`."""
        if failure is None:
            self._write("info", "case", part=self._part, case=case, bytes=self._sizes.get(case))
        else:
            self._write("error", "failed", part=self._part, case=case, reason=anonymous(failure))

    def end(self) -> None:
        """See `Listener`."""
        self._write("info", "end", part=self._part)

    def tell(self, message: str) -> None:
        """See `Listener`."""
        self._write("info", "message", message=anonymous(message))

    def say(self, message: str) -> None:
        """See `Listener`."""
        self._write("warning", "message", message=anonymous(message))

    def _write(self, level: str, event: str, **values: Any) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        plain = {name: encodable(value) if isinstance(value, str) else value for name, value in values.items()}
        line = json.dumps({"time": now, "level": level, "event": event, **plain})
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()


class Several(Listener):
    """Hands every event on to several listeners."""

    def __init__(self, *listeners: Listener):
        self._listeners = listeners

    def begin(self, title: str, cases: Sequence[str], sizes: Mapping[str, int] | None = None) -> None:
        """See `Listener`."""
        for one in self._listeners:
            one.begin(title, cases, sizes)

    def advance(self, case: str, stage: str, done: int, total: int) -> None:
        """See `Listener`."""
        for one in self._listeners:
            one.advance(case, stage, done, total)

    def spent(self, case: str, stage: str, spent: Spent) -> None:
        """See `Listener`."""
        for one in self._listeners:
            one.spent(case, stage, spent)

    def finish(self, case: str, failure: str | None = None) -> None:
        """See `Listener`."""
        for one in self._listeners:
            one.finish(case, failure)

    def end(self) -> None:
        """See `Listener`."""
        for one in self._listeners:
            one.end()

    def tell(self, message: str) -> None:
        """See `Listener`."""
        for one in self._listeners:
            one.tell(message)

    def say(self, message: str) -> None:
        """See `Listener`."""
        for one in self._listeners:
            one.say(message)


@contextmanager
def logged(listener: Listener, file: Path | None) -> Iterator[Listener]:
    """A listener that also writes `file`, after what stands there already; without a file the listener itself.

    Raises
    ------
    UsageError
        If the file cannot be written.
    """
    if file is None:
        yield listener
        return
    try:
        stream = file.open("a", encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"--log {named(file)} cannot be written ({error.strerror}): give a file in a folder that is there"
        ) from error
    with stream:
        yield Several(listener, JsonLog(stream))
