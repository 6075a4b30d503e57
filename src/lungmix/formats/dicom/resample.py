"""Slices brought onto a straight, even grid: linear interpolation between two slices, and within a slice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

AIR = -1024
"""HU of what no slice covers."""


@dataclass(frozen=True)
class Resampling:
    """How the slices of a volume are made of those in the files.

    Attributes
    ----------
    sources : tuple of (int, int, float)
        Of every slice of the volume: two slices in the files, by their order, and the weight of the second.
    offsets : tuple of (float, float)
        Of every slice in the files: where its first pixel lies in the volume, in pixels along x and y.
    size : tuple of int
        Columns and rows of the volume.
    """

    sources: tuple[tuple[int, int, float], ...]
    offsets: tuple[tuple[float, float], ...]
    size: tuple[int, int]

    def planes(self, read: Iterator[npt.NDArray[np.int16]]) -> Iterator[npt.NDArray[np.int16]]:
        """Slices of the volume, one by one, with three slices in memory.

        Parameters
        ----------
        read : iterator of ndarray of int16, shape (y, x)
            All slices in the files, in their order.
        """
        held: dict[int, npt.NDArray[np.float64]] = {}
        next_one = 0
        for lower, upper, weight in self.sources:
            while next_one <= upper:
                held[next_one] = self._placed(next(read), self.offsets[next_one])
                next_one += 1
            for index in [index for index in held if index < lower]:
                del held[index]
            plane = held[lower]
            if weight:
                plane = np.maximum(plane, AIR) * (1 - weight) + np.maximum(held[upper], AIR) * weight
            yield np.rint(plane).astype(np.int16)

    def _placed(self, plane: npt.NDArray[np.int16], offset: tuple[float, float]) -> npt.NDArray[np.float64]:
        columns, rows = self.size
        if offset == (0.0, 0.0) and plane.shape == (rows, columns):
            return plane.astype(np.float64)
        # Padding far below air would reach into what lies beside it.
        clipped = np.maximum(plane, AIR).astype(np.float64)
        return shifted(shifted(clipped, offset[1], rows, 0), offset[0], columns, 1)


def shifted(plane: npt.NDArray[np.float64], offset: float, size: int, axis: int) -> npt.NDArray[np.float64]:
    """Move a plane along an axis by a fraction of pixels, by linear interpolation; `AIR` where it does not reach.

    A pixel reaches half its size beyond its centre, as in ITK.
    """
    source = np.moveaxis(plane, axis, 0)
    at = np.arange(size) - offset
    inside = (at >= -0.5) & (at < len(source) - 0.5)
    at = np.clip(at, 0, len(source) - 1)
    lower = np.floor(at).astype(np.intp)
    upper = np.minimum(lower + 1, len(source) - 1)
    weight = (at - lower).reshape(-1, *(1,) * (source.ndim - 1))
    moved = source[lower] * (1 - weight) + source[upper] * weight
    moved[~inside] = AIR
    return np.moveaxis(moved, 0, axis)


def onto_even_grid(along: Sequence[float], spacing: float) -> tuple[tuple[int, int, float], ...]:
    """Sources of slices at even distances from the first position to the last; see `Resampling`."""
    places = np.asarray(along, float)
    count = int(np.floor((places[-1] - places[0]) / spacing + 0.05)) + 1
    wanted = places[0] + np.arange(count) * spacing
    sources = []
    for place in wanted:
        upper = int(np.searchsorted(places, place - 1e-9))
        upper = min(max(upper, 0), len(places) - 1)
        lower = max(upper - 1, 0)
        span = places[upper] - places[lower]
        weight = 0.0 if span <= 0 else float(np.clip((place - places[lower]) / span, 0, 1))
        # A slice that is there, or nearly, is taken as it is.
        if weight * span < 0.05 * spacing:
            sources.append((lower, lower, 0.0))
        elif (1 - weight) * span < 0.05 * spacing:
            sources.append((upper, upper, 0.0))
        else:
            sources.append((lower, upper, weight))
    return tuple(sources)
