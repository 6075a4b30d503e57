"""Standard output and error of the command, which accept any character and survive a closed pipe."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any


class _PipeTolerantStream(io.TextIOWrapper):
    """Stream that drops output after its reader has closed it, as ``| head`` or a closed terminal does."""

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
    """Replace standard output and error by streams that never fail for their text or for a closed reader.

    They print characters that the terminal cannot show as escapes, and drop output that nobody reads any more; the exit
    status of the command stays the same. Only the process of the command line calls this function.
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
