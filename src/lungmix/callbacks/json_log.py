"""Log of a run in JSON Lines, for programs."""

from __future__ import annotations

import datetime
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from lungmix.callbacks.callback import Callback
from lungmix.cluster.task_metrics import ResourceUsage
from lungmix.errors import UsageError, encodable, mark_path, redact


class JsonLog(Callback):
    """Callback that writes one line of JSON per event; lines contain no names of source files.

    Every line has ``time``, ``level`` and ``event``. Further fields depend on the event; ``part``, the title of the
    running stage, is in all but ``message``:

    - ``begin``: number of ``cases``, and ``bytes`` of HU of all of them
    - ``stage``: ``case``, ``stage``, ``seconds``, ``worker_seconds``, ``tasks``, ``peak_bytes``
    - ``case``, at the end of a case: ``case``, ``bytes``
    - ``failed``: ``case``, ``reason``
    - ``end``
    - ``message``: ``message``
    """

    def __init__(self, stream: TextIO, spell: Callable[[str], str] = str):
        self._stream, self._spell = stream, spell
        self._lock = threading.Lock()
        self._part = ""
        self._sizes: Mapping[str, int] = {}

    def on_begin(self, title: str, cases: Sequence[str], sizes: Mapping[str, int] | None = None) -> None:
        """See `Callback`."""
        self._part, self._sizes = title, sizes or {}
        self._write("info", "begin", part=title, cases=len(cases), bytes=sum(self._sizes.values()))

    def on_usage(self, case: str, stage: str, usage: ResourceUsage) -> None:
        """See `Callback`."""
        resources = {name: value for name, value in usage.to_dict().items() if name != "cases"}
        self._write("info", "stage", part=self._part, case=case, stage=stage, **resources)

    def on_case_end(self, case: str, failure: str | None = None) -> None:
        """See `Callback`."""
        if failure is None:
            self._write("info", "case", part=self._part, case=case, bytes=self._sizes.get(case))
        else:
            self._write("error", "failed", part=self._part, case=case, reason=self._spell(redact(failure)))

    def on_end(self) -> None:
        """See `Callback`."""
        self._write("info", "end", part=self._part)

    def on_info(self, message: str) -> None:
        """See `Callback`."""
        self._write("info", "message", message=self._spell(redact(message)))

    def on_warning(self, message: str) -> None:
        """See `Callback`."""
        self._write("warning", "message", message=self._spell(redact(message)))

    def _write(self, level: str, event: str, **values: Any) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        plain = {name: encodable(value) if isinstance(value, str) else value for name, value in values.items()}
        line = json.dumps({"time": now, "level": level, "event": event, **plain})
        with self._lock:
            self._stream.write(line + "\n")
            self._stream.flush()


class CallbackList(Callback):
    """Callback that forwards every event to several callbacks."""

    def __init__(self, *callbacks: Callback):
        for name in vars(Callback):
            if name.startswith("on_"):
                setattr(self, name, partial(_call_all, [getattr(callback, name) for callback in callbacks]))


def _call_all(methods: Sequence[Callable[..., None]], *arguments: Any, **options: Any) -> None:
    for method in methods:
        method(*arguments, **options)


@contextmanager
def with_log_file(callback: Callback, file: Path | None, spell: Callable[[str], str] = str) -> Iterator[Callback]:
    """Yield a callback that also appends events to the log `file`; without a file, yield the callback itself.

    `spell` is applied to messages before they are written to the log.

    Raises
    ------
    UsageError
        If the file cannot be written.
    """
    if file is None:
        yield callback
        return
    try:
        stream = file.open("a", encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"the log {mark_path(file)} cannot be written ({error.strerror}): give a file in a folder that exists"
        ) from error
    with stream:
        yield CallbackList(callback, JsonLog(stream, spell))
