"""Exact dilation, erosion, opening and closing of packed masks by a structuring element (`Element`).

Dilations and erosions by small elements shift words, those by large ones compute distances. Only the bounding box of
the mask, with the margin that the element needs, is processed by distances.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lungmix.kernels.bitshift_morphology import dilate_by_shifts, erode_by_shifts
from lungmix.kernels.distance_morphology import dilate_by_distance
from lungmix.kernels.packed_masks import WORD, Bits, bounding_box, pack, tail_mask, words_for
from lungmix.kernels.structuring_elements import Element

Span = tuple[int, int]
Planes = Span

# Up to this extent of the element along x, in voxels, shifts are faster than distances.
_LARGEST_SHIFT = 12


def dilate(bits: Bits, nx: int, element: Element, planes: Planes | None = None) -> Bits:
    """Return the dilation of a mask; voxels outside the volume count as background.

    Parameters
    ----------
    bits : ndarray of uint64, shape (z, y, words)
        Packed mask.
    nx : int
        Voxels in a row.
    element : Element
        The structuring element.
    planes : tuple of int, optional
        First plane of the result, and the plane after its last one; by default all planes of `bits`. Other planes of
        `bits` are a halo.

    Returns
    -------
    ndarray of uint64, shape (planes, y, words)
        Packed mask.
    """
    first, stop = planes or (0, len(bits))
    out = np.zeros((stop - first, *bits.shape[1:]), np.uint64)
    if element.extent[2] <= _LARGEST_SHIFT:
        dilate_by_shifts(bits, element.rows(), first, out)
        out[..., -1] &= tail_mask(nx)
        return out
    frame = _frame_of(bits, element)
    if frame is None:
        return out
    begin, end = max(first, frame.z[0] - element.extent[0]), min(stop, frame.z[1] + element.extent[0])
    if begin < end:
        dilated = dilate_by_distance(frame.cut(bits), False, element, (begin - frame.z[0], end - frame.z[0]))
        y, words = _overlap(frame.y, bits.shape[1]), _overlap(frame.words, bits.shape[2])
        target = out[begin - first : end - first, slice(*y), slice(*words)]
        target[:] = dilated[:, _within(y, frame.y), _within(words, frame.words)]
        out[..., -1] &= tail_mask(nx)
    return out


def erode(bits: Bits, nx: int, element: Element, planes: Planes | None = None) -> Bits:
    """Return the erosion of a mask; voxels outside the volume count as background.

    Parameters and result are those of `dilate`.
    """
    first, stop = planes or (0, len(bits))
    out = np.zeros((stop - first, *bits.shape[1:]), np.uint64)
    if element.extent[2] <= _LARGEST_SHIFT:
        erode_by_shifts(bits, element.rows(), first, out)
        return out
    frame = _frame_of(bits, element)
    if frame is None:
        return out
    # Add planes of background above and below.
    extent_z = element.extent[0]
    begin, end = max(first, frame.z[0]), min(stop, frame.z[1])
    if begin < end:
        window = np.pad(frame.cut(bits), ((extent_z, extent_z), (0, 0), (0, 0)))
        planes_of_window = (begin - frame.z[0] + extent_z, end - frame.z[0] + extent_z)
        frame.put(_eroded(window, element, planes_of_window), begin - first, out)
    return out


def opening(bits: Bits, nx: int, element: Element, planes: Planes | None = None) -> Bits:
    """Return the opening of a mask, which is an erosion followed by a dilation.

    Parameters and result are those of `dilate`. A halo must have at least twice as many planes as the element extends
    along z, or reach the end of the volume.
    """
    if element.is_point:
        return bits[slice(*planes)] if planes else bits
    return dilate(erode(bits, nx, element), nx, element, planes)


def closing(bits: Bits, nx: int, element: Element, planes: Planes | None = None) -> Bits:
    """Return the closing of a mask, which is a dilation followed by an erosion.

    The dilation may extend beyond the volume, as if the mask were surrounded by infinite background. Parameters and
    result are those of `dilate`. A halo must have at least twice as many planes as the element extends along z, or
    reach the end of the volume. A closing sets no voxel outside the bounding box of the mask, so only the box is
    processed.
    """
    first, stop = planes or (0, len(bits))
    if element.is_point:
        return bits[first:stop]
    out = np.zeros((stop - first, *bits.shape[1:]), np.uint64)
    frame = _frame_of(bits, element)
    if frame is None:
        return out
    extent_z = element.extent[0]
    begin, end = max(first, frame.z[0]), min(stop, frame.z[1])
    if begin < end:
        spread = dilate_by_distance(
            frame.cut(bits), False, element, (begin - extent_z - frame.z[0], end + extent_z - frame.z[0])
        )
        frame.put(_eroded(spread, element, (extent_z, extent_z + end - begin)), begin - first, out)
    return out


class _Frame(NamedTuple):
    """Bounding box of a mask, enlarged along y and x by the extent of an element; it may extend beyond the volume.

    ``z``, ``y`` and ``words`` are its first index and the index after its last one; along x these are words of 64
    voxels. ``inner_y`` and ``inner_words`` are those of the bounding box itself.
    """

    z: Span
    y: Span
    words: Span
    inner_y: Span
    inner_words: Span
    columns: Bits
    """Inner words of one row, in which the bits of the bounding box are set."""

    def cut(self, bits: Bits) -> Bits:
        window = np.zeros((self.z[1] - self.z[0], self.y[1] - self.y[0], self.words[1] - self.words[0]), np.uint64)
        inside = bits[slice(*self.z), slice(*self.inner_y), slice(*self.inner_words)]
        window[:, _within(self.inner_y, self.y), _within(self.inner_words, self.words)] = inside
        return window

    def put(self, rows: Bits, plane: int, out: Bits) -> None:
        # Erosions and closings set no voxel outside the box. Next to the box, results are not valid, because the frame
        # may end within the extent of the element there: drop them.
        inside = rows[..., _within(self.inner_words, self.words)] & self.columns
        out[plane : plane + len(rows), slice(*self.inner_y), slice(*self.inner_words)] = inside


def _frame_of(bits: Bits, element: Element) -> _Frame | None:
    box = bounding_box(bits)
    if box is None:
        return None
    z, y, x = box
    _, extent_y, extent_x = element.extent
    inner = (x[0] // WORD, words_for(x[1]))
    columns = np.zeros((1, 1, (inner[1] - inner[0]) * WORD), np.uint8)
    columns[..., x[0] - inner[0] * WORD : x[1] - inner[0] * WORD] = 1
    return _Frame(
        z=z,
        y=(y[0] - extent_y, y[1] + extent_y),
        words=((x[0] - extent_x) // WORD, words_for(x[1] + extent_x)),
        inner_y=y,
        inner_words=inner,
        columns=pack(columns),
    )


def _overlap(span: Span, size: int) -> Span:
    return max(0, span[0]), min(size, span[1])


def _within(span: Span, outer: Span) -> slice:
    return slice(span[0] - outer[0], span[1] - outer[0])


def _eroded(window: Bits, element: Element, planes: Span) -> Bits:
    """Return the erosion of some planes of a window; the result lacks the first and last ``element.extent[1]`` rows."""
    eroded = dilate_by_distance(window, True, element, planes, element.extent[1])
    return np.invert(eroded, out=eroded)
