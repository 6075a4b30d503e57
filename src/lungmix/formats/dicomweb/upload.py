"""Body of a request that stores a DICOM file (STOW-RS), which is read from the file while it is sent."""

from __future__ import annotations

import uuid
from pathlib import Path
from types import TracebackType


class MultipartFile:
    """A file as the only part of a multipart message (RFC 2046), as a stream of a known length.

    Parameters
    ----------
    path : Path
        The file, which is open within a ``with`` block.

    Attributes
    ----------
    content_type : str
        Value of the header ``Content-Type``.
    """

    def __init__(self, path: Path) -> None:
        boundary = uuid.uuid4().hex
        self.content_type = f'multipart/related; type="application/dicom"; boundary={boundary}'
        self._path = path
        self._before = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        self._after = f"\r\n--{boundary}--\r\n".encode()

    def __enter__(self) -> MultipartFile:
        """Open the file."""
        self._file = self._path.open("rb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()

    def __len__(self) -> int:
        """Return the number of bytes, which the header ``Content-Length`` announces."""
        return len(self._before) + self._path.stat().st_size + len(self._after)

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at most `size`; none at the end."""
        if self._before:
            piece, self._before = self._before, b""
            return piece
        if piece := self._file.read(size):
            return piece
        piece, self._after = self._after, b""
        return piece
