"""Search of published scans for text that is burned into slices, while their voxels are decompressed."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from lungmix.errors import count_of
from lungmix.kernels.burned_in_text import text_lines

_SHOWN = 5
"""Ranges of slices that a problem lists."""


class TextSearch:
    """Search of the voxels of a scan, block by block of bytes, for text that is burned into slices.

    Parameters
    ----------
    rows, columns : int
        Size of a slice.

    Attributes
    ----------
    slices : list of int
        Slices with text so far, from 0.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self._shape, self._rest, self._slice = (rows, columns), b"", 0
        self.slices: list[int] = []

    def add(self, block: bytes) -> None:
        """Search the next bytes, little-endian 16-bit integers in the order of slices, rows and columns."""
        data, size = self._rest + block, 2 * self._shape[0] * self._shape[1]
        complete = len(data) // size if size else 0
        for index in range(complete):
            hu = np.frombuffer(data, "<i2", size // 2, index * size).reshape(self._shape)
            if len(text_lines(hu.astype(np.int16, copy=False))):
                self.slices.append(self._slice)
            self._slice += 1
        self._rest = data[complete * size :]


def sentence_of(slices: Sequence[int]) -> str:
    """Return the problem of a scan whose slices may have text."""
    starts = [slices[0], *(second for first, second in pairwise(slices) if second != first + 1)]
    ends = [*(first for first, second in pairwise(slices) if second != first + 1), slices[-1]]
    ranges = [str(start) if start == end else f"{start} to {end}" for start, end in zip(starts, ends, strict=True)]
    more = ", ..." if len(ranges) > _SHOWN else ""
    return (
        f"may have text burned into {count_of(len(slices), 'slice')}: {', '.join(ranges[:_SHOWN])}{more}, counted from "
        "0: look at them; remove the case, or give it in `accept_burned_in` if no text identifies anybody"
    )
