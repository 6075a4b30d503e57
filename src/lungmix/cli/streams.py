"""Standard output and error of the command: any name can be printed, and a reader that has left ends nothing."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any


class _Lasting(io.TextIOWrapper):
    """A stream whose reader may leave, as ``| head`` does, or a closed terminal: what is written then goes nowhere."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._drop(error)
            super().flush()

    def _drop(self, error: OSError) -> None:
        if error.errno != errno.EPIPE and not (error.errno == errno.EIO and self.isatty()):
            raise error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def make_streams_last() -> None:
    """Let what cannot be shown on a terminal be shown as escapes, and what nobody reads any more be dropped.

    Neither decides over the exit status of a command. For the process of the command alone.
    """
    sys.stdout, sys.stderr = _lasting(sys.stdout), _lasting(sys.stderr)


def _lasting(stream: Any) -> Any:
    with suppress(AttributeError, OSError, ValueError):
        stream.flush()
        kind = {
            "encoding": stream.encoding,
            "line_buffering": stream.line_buffering,
            "write_through": stream.write_through,
        }
        return _Lasting(stream.detach(), errors="backslashreplace", **kind)
    return stream
