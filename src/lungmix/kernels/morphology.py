"""Exact dilation, erosion, opening and closing of packed masks by an `Element`.

Small elements use shifts of words, large ones distances; only the bounding box of the mask is processed.
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

# Elements up to this extent along x are cheaper by shifts than by distances.
_LARGEST_SHIFT = 12


def dilate(bits: Bits, nx: int, element: Element, planes: Planes | None = None) -> Bits:
    """Dilate a mask; voxels outside the volume are unset.

    Parameters
    ----------
    bits : ndarray of uint64, shape (z, y, words)
        Packed mask.
    nx : int
        Voxels in a row.
    element : Element
        The structuring element.
    planes : tuple of int, optional
        First and one past the last plane of the result; all of them by default. The others are a halo.

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
    """Erode a mask; voxels outside the volume count as background.

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
    """Open a mask by erosion, then dilation; see `dilate` for parameters and result.

    A halo must be twice the extent of the element along z, or end with the volume.
    """
    if element.is_point:
        return bits[slice(*planes)] if planes else bits
    return dilate(erode(bits, nx, element), nx, element, planes)


def closing(bits: Bits, nx: int, element: Element, planes: Planes | None = None) -> Bits:
    """Close a mask by dilation, then erosion, as if surrounded by infinite background.

    Parameters and result are those of `dilate`. A halo must be twice the extent of the element along z, or end with
    the volume. A closing sets no voxel outside the bounding box of the mask, so only the box is processed.
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
    """Bounding box of a mask, grown along y and x by the extent of an element; it may exceed the volume."""

    z: Span
    y: Span
    words: Span
    inner_y: Span
    inner_words: Span
    columns: Bits
    """Bits of a row of inner words within the bounding box."""

    def cut(self, bits: Bits) -> Bits:
        window = np.zeros((self.z[1] - self.z[0], self.y[1] - self.y[0], self.words[1] - self.words[0]), np.uint64)
        inside = bits[slice(*self.z), slice(*self.inner_y), slice(*self.inner_words)]
        window[:, _within(self.inner_y, self.y), _within(self.inner_words, self.words)] = inside
        return window

    def put(self, rows: Bits, plane: int, out: Bits) -> None:
        # Results of erosions and closings stay in the box; next to it the frame may end within the element's extent.
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
    """Erode a frame, for planes `planes` and without the outer rows that the extent of the element covers."""
    eroded = dilate_by_distance(window, True, element, planes, element.extent[1])
    return np.invert(eroded, out=eroded)
