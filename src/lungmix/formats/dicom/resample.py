"""Resampling of slices to a straight, even grid by linear interpolation between and within slices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

AIR = -1024
"""HU outside all slices."""


@dataclass(frozen=True)
class Resampling:
    """Interpolation of the slices of a volume from the slices in the files.

    Attributes
    ----------
    sources : tuple of (int, int, float)
        For each slice of the volume: the indices of two slices in the files, and the weight of the second.
    offsets : tuple of (float, float)
        For each slice in the files: position of its first pixel in the volume, in pixels along x and y.
    size : tuple of int
        Columns and rows of the volume.
    """

    sources: tuple[tuple[int, int, float], ...]
    offsets: tuple[tuple[float, float], ...]
    size: tuple[int, int]

    def planes(self, source_planes: Iterator[npt.NDArray[np.int16]]) -> Iterator[npt.NDArray[np.int16]]:
        """Yield the slices of the volume, with at most three slices in memory.

        Parameters
        ----------
        source_planes : iterator of ndarray of int16, shape (y, x)
            All slices in the files, in their order.
        """
        planes: dict[int, npt.NDArray[np.float64]] = {}
        next_index = 0
        for lower, upper, weight in self.sources:
            while next_index <= upper:
                planes[next_index] = self._shift_into_volume(next(source_planes), self.offsets[next_index])
                next_index += 1
            for index in [index for index in planes if index < lower]:
                del planes[index]
            plane = planes[lower]
            if weight:
                plane = np.maximum(plane, AIR) * (1 - weight) + np.maximum(planes[upper], AIR) * weight
            yield np.rint(plane).astype(np.int16)

    def _shift_into_volume(self, plane: npt.NDArray[np.int16], offset: tuple[float, float]) -> npt.NDArray[np.float64]:
        columns, rows = self.size
        if offset == (0.0, 0.0) and plane.shape == (rows, columns):
            return plane.astype(np.float64)
        # Interpolation would spread padding far below air into neighbouring pixels.
        clipped = np.maximum(plane, AIR).astype(np.float64)
        return shift_plane(shift_plane(clipped, offset[1], rows, 0), offset[0], columns, 1)


def shift_plane(plane: npt.NDArray[np.float64], offset: float, size: int, axis: int) -> npt.NDArray[np.float64]:
    """Return a plane shifted by `offset` pixels along an axis, with linear interpolation; `AIR` outside the plane.

    The plane ends half a pixel beyond the centres of its outermost pixels, as in ITK.
    """
    source = np.moveaxis(plane, axis, 0)
    positions = np.arange(size) - offset
    inside = (positions >= -0.5) & (positions < len(source) - 0.5)
    positions = np.clip(positions, 0, len(source) - 1)
    lower = np.floor(positions).astype(np.intp)
    upper = np.minimum(lower + 1, len(source) - 1)
    weight = (positions - lower).reshape(-1, *(1,) * (source.ndim - 1))
    moved = source[lower] * (1 - weight) + source[upper] * weight
    moved[~inside] = AIR
    return np.moveaxis(moved, 0, axis)


def even_grid_sources(along: Sequence[float], spacing: float) -> tuple[tuple[int, int, float], ...]:
    """Return the `Resampling.sources` for slices `spacing` mm apart, from the first position to the last."""
    positions = np.asarray(along, float)
    count = int(np.floor((positions[-1] - positions[0]) / spacing + 0.05)) + 1
    targets = positions[0] + np.arange(count) * spacing
    sources = []
    for target in targets:
        upper = int(np.searchsorted(positions, target - 1e-9))
        upper = min(max(upper, 0), len(positions) - 1)
        lower = max(upper - 1, 0)
        span = positions[upper] - positions[lower]
        weight = 0.0 if span <= 0 else float(np.clip((target - positions[lower]) / span, 0, 1))
        # A source slice within 5 % of the spacing is used without interpolation.
        if weight * span < 0.05 * spacing:
            sources.append((lower, lower, 0.0))
        elif (1 - weight) * span < 0.05 * spacing:
            sources.append((upper, upper, 0.0))
        else:
            sources.append((lower, upper, weight))
    return tuple(sources)
