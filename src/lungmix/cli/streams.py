"""Standard output and error of the command: any name can be printed, and a closed pipe ends nothing."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any


class _PipeTolerantStream(io.TextIOWrapper):
    """A stream that drops output once its reader has closed it, as ``| head`` or a closed terminal does."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._redirect(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._redirect(error)
            super().flush()

    def _redirect(self, error: OSError) -> None:
        if error.errno != errno.EPIPE and not (error.errno == errno.EIO and self.isatty()):
            raise error
        null_device = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null_device, self.fileno())
        os.close(null_device)


def make_streams_last() -> None:
    """Print characters that the terminal cannot show as escapes, and drop output that is no longer read.

    Neither changes the exit status of a command. Only the process of the command line calls this.
    """
    sys.stdout, sys.stderr = _tolerant(sys.stdout), _tolerant(sys.stderr)


def _tolerant(stream: Any) -> Any:
    with suppress(AttributeError, OSError, ValueError):
        stream.flush()
        options = {
            "encoding": stream.encoding,
            "line_buffering": stream.line_buffering,
            "write_through": stream.write_through,
        }
        return _PipeTolerantStream(stream.detach(), errors="backslashreplace", **options)
    return stream
