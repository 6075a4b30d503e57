"""Write masks from labels: the lung mask, right and left lung, dense lung, and their histograms.

Masks from files and masks by segmenters are written in the same way. Verification writes stored masks once more, to a
temporary store, and compares.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lungmix.kernels.histogram import N_HU, SparseHistogram, count_hu
from lungmix.kernels.packed_masks import span_of
from lungmix.stages import regions
from lungmix.stages.mask import STAGE
from lungmix.stages.mask_labels import DENSE_LUNGS, LABELS, LOBE_LABELS, LUNG, LabelChoice
from lungmix.stages.reduced import find_rejected_components
from lungmix.store import Case, CaseFiles, CaseRef, CaseWriter
from lungmix.store.objects import Receipts
from lungmix.store.schema import FROM_FILE
from lungmix.tissue import DENSE, LOBES, SIDES


def _table(rows: Mapping[str, int]) -> npt.NDArray[np.uint8]:
    """Return a lookup table from a label, see `LABELS`, to the value in `rows` of its region; 0 for other regions."""
    table = np.zeros(len(LABELS) + 1, np.uint8)
    for region, row in rows.items():
        table[LABELS[region]] = row
    return table


_SIDE_OF_LABEL = _table(
    {
        **{side.key: side.label for side in SIDES},
        "right_dense": 1,
        "left_dense": 2,
        **{lobe.region: lobe.side.label for lobe in LOBES},
    }
)
_PART_OF_LABEL = _table({"right": 1, "left": 2, **{part.key: part.label for part in DENSE if part.key in DENSE_LUNGS}})

_LOBE_OF_LABEL = _table({lobe.region: lobe.label for lobe in LOBES})


@dataclass(frozen=True, eq=False)
class WrittenMask:
    """A mask that was written.

    Attributes
    ----------
    counts : SparseHistogram
        Voxels by label and HU: the non-zero bins of the flattened 2-D histogram. Labels are those of
        `lungmix.stages.mask_labels.LABELS`.
    touches : ndarray of bool, shape (4, 6)
        True if a region (row) touches a face of the volume (column), in the order of `SIDES` and `FACES`.
    files, side_files : dict
        Receipts of the shards of mask, dense lung and lobes, and of the shards of the regions if those were written.
    rejected : tuple of dict
        Components that look like lung and that the mask does not contain. Empty for masks without regions, for which
        the label stage finds them.
    shared : int
        Number of voxels that overlapping segments assign to both lungs.
    """

    counts: SparseHistogram
    touches: npt.NDArray[np.bool_]
    files: Receipts
    side_files: Receipts
    rejected: tuple[dict[str, Any], ...] = ()
    shared: int = 0

    @property
    def voxels(self) -> int:
        """Number of voxels of the mask."""
        return int(self.counts.count.sum())

    @property
    def labels(self) -> set[int]:
        """Labels that have voxels."""
        return {int(index) + 1 for index in np.unique(self.counts.index // N_HU)}


def write_mask(
    slabs: Iterable[tuple[CaseWriter, int, npt.NDArray[np.uint8]]], case_ref: CaseRef, choice: LabelChoice
) -> WrittenMask:
    """Write a lung mask, and right, left, dense lung and lobes if the labels distinguish them; count voxels by HU.

    Parameters
    ----------
    slabs : iterable of (CaseWriter, int, ndarray)
        For each slab: the case, the first slice, and the labels (`lungmix.stages.mask_labels.LABELS`).
    case_ref : CaseRef
        The case.
    choice : LabelChoice
        Labels that may occur.
    """
    histograms = np.zeros((len(LABELS), N_HU), np.uint64)
    touches = np.zeros((len(SIDES), len(regions.FACES)), np.bool_)
    files: Receipts = {}
    side_files: Receipts = {}
    for case, start, labels in slabs:
        rows = span_of(labels.any(axis=(0, 2)))
        if rows is None:
            continue
        hu = case.read(case.measured_image, start, start + len(labels), rows)
        for label in np.flatnonzero(np.bincount(labels.reshape(-1), minlength=len(LABELS) + 1)[1:]) + 1:
            histograms[label - 1] += count_hu(hu, (labels[:, rows] == label).view(np.uint8))
        files |= case.write("lung", start, (labels > 0).view(np.uint8))
        if choice.has_dense:
            files |= case.write("region", start, _PART_OF_LABEL[labels])
        if choice.has_lobes:
            files |= case.write("lobe", start, _LOBE_OF_LABEL[labels])
        if choice.has_regions:
            sides = _SIDE_OF_LABEL[labels]
            side_files |= case.write("side", start, sides)
            touches |= regions.faces_touched(sides, start, case.geometry.shape[0])
    rejected: tuple[dict[str, Any], ...] = ()
    if choice.has_regions and histograms.any():
        rejected = tuple(component.to_dict() for component in find_rejected_components(case_ref))
    return WrittenMask(SparseHistogram.of(histograms.reshape(-1)), touches, files, side_files, rejected)


def create_arrays(case: CaseWriter, choice: LabelChoice) -> tuple[Receipts, Receipts]:
    """Create the arrays of a mask. Return the receipts of mask, dense lung and lobes, and those of the regions."""
    files = case.create_image("lung") | (case.create_image("region") if choice.has_dense else {})
    files |= case.create_image("lobe") if choice.has_lobes else {}
    return files, case.create_image("side") if choice.has_regions else {}


def publish(
    case: CaseWriter,
    record: Mapping[str, Any],
    written: WrittenMask,
    choice: LabelChoice,
    files: Receipts,
    side_files: Receipts,
) -> None:
    """Write the histograms and the record of a mask, including its regions, dense lung and lobes if it has them.

    Parameters
    ----------
    case : CaseWriter
        The case.
    record : mapping
        Record of the mask.
    written : WrittenMask
        The mask.
    choice : LabelChoice
        Labels that may occur.
    files, side_files : dict
        Receipts of the empty arrays, as `create_arrays` returned them.
    """
    histograms = np.zeros((len(LABELS), N_HU), np.uint64)
    written.counts.add_to(histograms.reshape(-1))
    files = files | written.files | case.write_histogram("hu_counts", histograms.sum(axis=0))
    if choice.has_dense:
        parts = _sum_rows(histograms, _PART_OF_LABEL, len(DENSE))
        files |= case.write_histogram("region_counts", parts)
        record = {**record, **{part.key: int(n) for part, n in zip(DENSE, parts.sum(axis=1), strict=True)}}
    if choice.has_lobes:
        lobes = _sum_rows(histograms, _LOBE_OF_LABEL, len(LOBES))
        files |= case.write_histogram("lobe_counts", lobes)
        record = {**record, **{lobe.key: int(n) for lobe, n in zip(LOBES, lobes.sum(axis=1), strict=True)}}
    if choice.has_regions:
        # Record the regions before the mask: a mask without them would make a later stage compute others.
        counts = SparseHistogram.of(_sum_rows(histograms, _SIDE_OF_LABEL, len(SIDES)).reshape(-1))
        slab = regions.SlabRegionCounts(counts, written.touches, written.side_files)
        regions.publish(case, [slab], side_files, written.rejected, record["key"])
    case.record(STAGE, record, files)


def _sum_rows(
    histograms: npt.NDArray[np.uint64], row_of_label: npt.NDArray[np.uint8], count: int
) -> npt.NDArray[np.uint64]:
    """Return `count` histograms, each the sum of the histograms of the labels that are mapped to its row.

    Rows are numbered from 1; labels that are mapped to 0 are left out.
    """
    rows = np.zeros((count, N_HU), np.uint64)
    for histogram, row in zip(histograms, row_of_label[1:], strict=True):
        if row:
            rows[row - 1] += histogram
    return rows


def stored_choice(case: Case) -> LabelChoice:
    """Return the labels that `stored_labels` returns for the stored mask of a case, which came from a file."""
    regions_of_file = [*case.stages[STAGE][FROM_FILE].get("labels", {})]
    if not regions.are_from_file(case):
        regions_of_file = ["lung", *(region for region in regions_of_file if region in LOBE_LABELS)]
    return LabelChoice({LABELS[region]: LABELS[region] for region in regions_of_file})


def stored_labels(case: CaseFiles, choice: LabelChoice, start: int, stop: int) -> npt.NDArray[np.uint8]:
    """Return the labels of slices `start` to `stop` of a stored mask, from which `write_mask` can write it again."""
    labels = case.read("side", start, stop) if choice.has_regions else LUNG * case.read("lung", start, stop)
    if choice.has_dense:
        parts = case.read("region", start, stop)
        for part in DENSE:
            if part.key in DENSE_LUNGS:
                labels[parts == part.label] = DENSE_LUNGS[part.key]
    if choice.has_lobes:
        lobes = case.read("lobe", start, stop)
        for lobe in LOBES:
            labels[lobes == lobe.label] = LABELS[lobe.region]
    return labels
