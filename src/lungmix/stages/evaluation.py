"""Evaluation: compares segments of a case with a reference on the same grid, slab by slab; writes nothing.

A first round of tasks counts voxels. A second round measures distances between the surfaces of segment and reference,
in the smallest box that contains both. A task of this round reads its own slab, and other slabs from the nearest on
until none can hold a nearer surface.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import dask
import numpy as np
import numpy.typing as npt
from distributed import Client

from lungmix.cluster.compute import compute_in_order
from lungmix.kernels.agreement import DistanceCounts, Overlap, agreement_of
from lungmix.kernels.surfaces import Mask, nearest_squares, points_of, surface_of
from lungmix.stages.comparisons import Comparison
from lungmix.store import CaseFiles, CaseRef
from lungmix.store.schema import REFERENCE

BIN_HU = 50
"""Width of the bins of sensitivity by HU."""

_FIRST_BIN = -32768 // BIN_HU
_N_BINS = 32767 // BIN_HU - _FIRST_BIN + 1
# Windows of labels that a task keeps in memory: its own slab and one other, of an image and of the reference.
_WINDOWS = 4

Box = tuple[slice, slice]
Span = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Agreement:
    """Agreement of a segment of a case with a reference.

    Attributes
    ----------
    region : str
        Name of the segment.
    values : dict of str to float
        Measures by column, see `lungmix.kernels.agreement.agreement_of`.
    worst_slice : int
        Slice with the most voxels that belong to only one of segment and reference; -1 if the two are equal.
    by_hu : dict of int to tuple of int
        Two counts of voxels for each bin of `BIN_HU`, by the lowest HU of the bin: voxels of the reference, and voxels
        of reference and segment in common. Empty unless requested.
    """

    region: str
    values: dict[str, float]
    worst_slice: int
    by_hu: dict[int, tuple[int, int]]


@dataclass(frozen=True, eq=False)
class _SlabCounts:
    """Counts of a slab: for each comparison overlap, differing voxels by slice, and voxels by HU.

    `box` is the range of rows and columns that contain any segment or reference; None if the slab has no such voxel.
    """

    overlaps: tuple[Overlap, ...]
    differing: npt.NDArray[np.int64]
    by_hu: npt.NDArray[np.int64] | None
    box: tuple[Span, Span] | None


@dataclass(frozen=True)
class _Scope:
    """Slabs that contain voxels of the segment of a comparison, and slabs that contain voxels of its reference."""

    segment: tuple[Span, ...]
    reference: tuple[Span, ...]


def compare(
    client: Client,
    case_ref: CaseRef,
    comparisons: Sequence[Comparison],
    *,
    by_hu: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[Agreement]:
    """Compare segments of a case with its array `REFERENCE`.

    Parameters
    ----------
    client : distributed.Client
        Client of the cluster that compares.
    case_ref : CaseRef
        The case.
    comparisons : sequence of Comparison
        Segments of the case, each with the labels of the reference that it is compared with.
    by_hu : bool
        Count voxels by HU too.
    progress : callable, optional
        Called as ``progress(done, total)`` with the number of slabs whose distances are measured.

    Returns
    -------
    list of Agreement
        One per comparison. The result does not depend on the thickness of slabs.
    """
    case = case_ref.open()
    slabs = list(case.layout.slabs())
    comparisons = tuple(comparisons)
    count = dask.delayed(_count_slab)
    counted: list[_SlabCounts] = compute_in_order(client, [count(case_ref, comparisons, slab, by_hu) for slab in slabs])
    scopes = tuple(
        _Scope(
            tuple(slab for slab, counts in zip(slabs, counted, strict=True) if counts.overlaps[i].mask),
            tuple(slab for slab, counts in zip(slabs, counted, strict=True) if counts.overlaps[i].reference),
        )
        for i in range(len(comparisons))
    )
    boxes = [counts.box for counts in counted if counts.box is not None]
    parts: list[list[DistanceCounts]] = []
    if boxes:
        box = (_hull([box[0] for box in boxes]), _hull([box[1] for box in boxes]))
        filled = [slab for slab, counts in zip(slabs, counted, strict=True) if counts.box is not None]
        measure = dask.delayed(_measure_slab)
        tasks = [measure(case_ref, comparisons, scopes, box, slab) for slab in filled]
        parts = compute_in_order(client, tasks, progress)
    differing = np.concatenate([counts.differing for counts in counted], axis=1)
    return [
        Agreement(
            comparison.region,
            agreement_of(
                sum((counts.overlaps[i] for counts in counted), Overlap()),
                DistanceCounts.total(part[i] for part in parts),
                case.geometry.voxel_ml,
            ),
            int(differing[i].argmax()) if differing[i].any() else -1,
            _bins([counts.by_hu[i] for counts in counted if counts.by_hu is not None]),
        )
        for i, comparison in enumerate(comparisons)
    ]


def _hull(spans: Sequence[Span]) -> slice:
    return slice(min(span[0] for span in spans), max(span[1] for span in spans))


def _bins(parts: Sequence[npt.NDArray[np.int64]]) -> dict[int, tuple[int, int]]:
    if not parts:
        return {}
    reference, both = np.sum(parts, axis=0)
    return {int(n + _FIRST_BIN) * BIN_HU: (int(reference[n]), int(both[n])) for n in np.flatnonzero(reference).tolist()}


def _count_slab(case_ref: CaseRef, comparisons: Sequence[Comparison], slab: Span, by_hu: bool) -> _SlabCounts:
    case = case_ref.open()
    images = {image: _read(case, image, *slab) for image in {REFERENCE, *(item.image for item in comparisons)}}
    depth, ny, nx = images[REFERENCE].shape
    overlaps = []
    differing = np.zeros((len(comparisons), depth), np.int64)
    bins = np.zeros((len(comparisons), 2, _N_BINS), np.int64) if by_hu else None
    hu = case.read(case.measured_image, *slab) if by_hu and images[REFERENCE].any() else None
    rows, columns = np.zeros(ny, np.bool_), np.zeros(nx, np.bool_)
    for i, comparison in enumerate(comparisons):
        mask = selected(images[comparison.image], comparison.labels)
        reference = selected(images[REFERENCE], comparison.reference)
        overlaps.append(Overlap.of(mask, reference))
        differing[i] = np.count_nonzero(mask ^ reference, axis=(1, 2))
        if bins is not None and hu is not None:
            for j, voxels in enumerate((reference, mask & reference)):
                bins[i, j] = np.bincount(hu[voxels] // BIN_HU - np.int64(_FIRST_BIN), minlength=_N_BINS)
        either: Mask = np.any(mask | reference, axis=0)
        rows |= either.any(axis=1)
        columns |= either.any(axis=0)
    box = (_span(rows), _span(columns)) if rows.any() else None
    return _SlabCounts(tuple(overlaps), differing, bins, box)


def _measure_slab(
    case_ref: CaseRef, comparisons: Sequence[Comparison], scopes: Sequence[_Scope], box: Box, slab: Span
) -> list[DistanceCounts]:
    """Return distances of the surface voxels of a slab, one result per comparison.

    A result counts the distances from the segment's surface to the reference's, and those from the reference's surface
    to the segment's.
    """
    case = case_ref.open()
    spacing = case.geometry.spacing_zyx
    read_window = lru_cache(maxsize=_WINDOWS)(partial(_read_window, case, box))

    def read_surface(image: str, labels: Sequence[int], start: int, stop: int) -> Mask:
        return surface_of(selected(read_window(image, start, stop), labels))

    out = []
    for comparison, scope in zip(comparisons, scopes, strict=True):
        segment = (scope.segment, partial(read_surface, comparison.image, comparison.labels))
        reference = (scope.reference, partial(read_surface, REFERENCE, comparison.reference))
        parts = []
        for (slabs, read), (other_slabs, read_other) in ((segment, reference), (reference, segment)):
            if slab in slabs:
                points = points_of(read(*slab), slab[0])
                parts.append(DistanceCounts.of(nearest_squares(points, spacing, other_slabs, read_other)))
        out.append(DistanceCounts.total(parts))
    return out


def _read_window(case: CaseFiles, box: Box, image: str, start: int, stop: int) -> npt.NDArray[np.uint8]:
    """Return labels of a slab in a box, with one more slice before and after it; slices beyond the volume are 0."""
    depth = case.geometry.shape[0]
    low, high = max(start - 1, 0), min(stop + 1, depth)
    labels = _read(case, image, low, high, box)
    return np.pad(labels, ((low - start + 1, stop + 1 - high), (0, 0), (0, 0)))


def _read(
    case: CaseFiles, image: str, start: int, stop: int, box: Box = (slice(None), slice(None))
) -> npt.NDArray[np.uint8]:
    if image == REFERENCE:
        return case.read_temporary(REFERENCE, (slice(start, stop), *box))
    return case.read(image, start, stop, box[0])[..., box[1]]


def selected(labels: npt.NDArray[np.uint8], chosen: Sequence[int]) -> Mask:
    """Return the voxels that have one of the chosen labels."""
    table = np.zeros(256, np.bool_)
    table[list(chosen)] = True
    return table[labels]


def _span(hits: npt.NDArray[np.bool_]) -> Span:
    positions = np.flatnonzero(hits)
    return int(positions[0]), int(positions[-1]) + 1
