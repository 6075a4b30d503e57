"""Labels of a mask file on the grid of a case, slab by slab: taken as they are, or resampled to it."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from lungmix.errors import SourceError, mark_path
from lungmix.formats.masks import offset_in_grid
from lungmix.geometry import Geometry
from lungmix.kernels.nearest import GridMap
from lungmix.store import CaseRef, CaseWriter
from lungmix.store.schema import IMPORTED

Labels = npt.NDArray[np.uint8]

Grid = Literal["same", "resampled"]
"""Grid of a mask file: that of the scan or a part of it, or another one in the same space."""


class LabelSource(Protocol):
    """Mask file as the stages read it, see `lungmix.formats.masks.MaskFile`."""

    @property
    def path(self) -> str:
        """Path, for messages."""

    @property
    def geometry(self) -> Geometry | None:
        """Grid of the labels; None for contours, which are filled on any grid."""

    def label_slabs(self, values: Mapping[int, int], geometry: Geometry, thickness: int) -> Iterator[Labels]:
        """Yield slabs of labels from the first to the last slice of a grid."""


def grid_of(mask: LabelSource, geometry: Geometry) -> Grid:
    """Return how the grid of a mask file relates to that of a scan.

    Parameters
    ----------
    mask : LabelSource
        The mask file.
    geometry : Geometry
        Grid of the scan.

    Raises
    ------
    SourceError
        If both grids do not overlap, or one of them has no known orientation and they are not the same.
    """
    mask_grid = mask.geometry
    if mask_grid is None or offset_in_grid(mask_grid, geometry) is not None:
        return "same"
    if not (mask_grid.orientation_known and geometry.orientation_known):
        raise SourceError(
            f"{mark_path(mask.path)} has another grid than the scan, and one of both does not say how its axes lie in "
            "the patient: export the mask on the grid of the scan"
        )
    if not GridMap.between(geometry, mask_grid).overlaps:
        raise SourceError(f"{mark_path(mask.path)} does not overlap the scan: give the mask of this scan")
    return "resampled"


def labels_on_grid(
    mask: LabelSource, values: Mapping[int, int], case_ref: CaseRef, array: str = IMPORTED
) -> Generator[tuple[CaseWriter, int, Labels], None, None]:
    """Yield the labels of a mask file on the grid of a case, slab by slab.

    Parameters
    ----------
    mask : LabelSource
        The mask file.
    values : mapping of int to int
        Label of each segment number; other voxels are 0.
    case_ref : CaseRef
        The case.
    array : {"imported", "reference"}
        Temporary array of the case that holds a mask file on another grid, until the generator ends or is closed.

    Yields
    ------
    CaseWriter
        The case, opened for writing.
    int
        First slice of a slab.
    ndarray of uint8, shape (slices, y, x)
        Labels of the slab.

    Raises
    ------
    SourceError
        If the file cannot be read, or its grid does not overlap the scan.
    """
    case = case_ref.open("r+")
    geometry, thickness = case.geometry, case.layout.slab
    if grid_of(mask, geometry) == "same":
        for start, labels in checked_slabs(mask, values, geometry, thickness):
            yield case_ref.open("r+"), start, labels
        return
    mask_grid = mask.geometry
    assert mask_grid is not None
    case.create_temporary(array, mask_grid.shape)
    try:
        for start, labels in checked_slabs(mask, values, mask_grid, thickness):
            case_ref.open("r+").write_temporary(array, start, labels)
        grid_map = GridMap.between(geometry, mask_grid)
        for start, stop in case.layout.slabs():
            labels = grid_map.resample(start, stop, lambda box: case.read_temporary(array, box))
            yield case_ref.open("r+"), start, labels
    finally:
        case_ref.open("r+").delete_array(array)


def write_temporary_labels(
    mask: LabelSource, case_ref: CaseRef, values: Mapping[int, int], array: str
) -> dict[str, Any]:
    """Write the labels of a mask file to a temporary array of a case, and return its grid and its voxels by label."""
    counts = np.zeros(256, np.int64)
    with closing(labels_on_grid(mask, values, case_ref)) as slabs:
        for case, start, labels in slabs:
            case.write_temporary(array, start, labels)
            counts += np.bincount(labels.reshape(-1), minlength=256)
    voxels = {int(label): int(counts[label]) for label in sorted(set(values.values()) - {0})}
    return {"grid": grid_of(mask, case_ref.open().geometry), "voxels": voxels}


def checked_slabs(
    mask: LabelSource, values: Mapping[int, int], geometry: Geometry, thickness: int
) -> Iterator[tuple[int, Labels]]:
    """Yield the first slice and the labels of each slab of a mask file on its own grid, or on any grid for contours.

    Raises
    ------
    SourceError
        If the file cannot be read, or has fewer or more slices than it declares.
    """
    depth, *plane = geometry.shape
    start = 0
    for labels in mask.label_slabs(values, geometry, thickness):
        if list(labels.shape[1:]) != plane or start + len(labels) > depth:
            break
        yield start, labels
        start += len(labels)
    if start != depth:
        raise SourceError(f"{mark_path(mask.path)} does not hold the slices that it declares: get the file again")
