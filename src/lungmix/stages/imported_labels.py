"""Labels of a mask file on the grid of a case, slab by slab; labels on another grid are resampled.

Resampling gives each voxel of the scan the label of the nearest voxel of the file.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from math import prod
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from distributed import Client

from lungmix.cluster.worker_memory import WorkerMemory
from lungmix.errors import SourceError, mark_path
from lungmix.formats.masks import offset_in_grid
from lungmix.geometry import Geometry
from lungmix.kernels.nearest import GridMap
from lungmix.stages.convert import check_converted
from lungmix.stages.reading import read_on_worker
from lungmix.store import Case, CaseRef, CaseWriter
from lungmix.store.schema import IMPORTED, REFERENCE

Labels = npt.NDArray[np.uint8]

Grid = Literal["same", "resampled"]
"""Relation of a mask file's grid to the scan's grid.

``same``: equal to the grid of the scan, or a part of it. ``resampled``: another grid, so that labels are resampled.
"""


class LabelSource(Protocol):
    """Interface of a mask file that stages read labels from, see `lungmix.formats.masks.MaskFile`."""

    @property
    def path(self) -> str:
        """Path, for messages."""

    @property
    def geometry(self) -> Geometry | None:
        """Grid of the labels; None for contours, which are filled on any grid."""

    def label_slabs(self, values: Mapping[int, int], geometry: Geometry, thickness: int) -> Iterator[Labels]:
        """Yield slabs of labels, `thickness` slices each, from the first to the last slice of the grid `geometry`.

        `values` is the label to yield by the number of a segment in the file; other voxels are 0.
        """


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
        If the grids do not overlap, or if they differ and the orientation of one of them is unknown.
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


def reading_thickness(mask: LabelSource, case: Case) -> int:
    """Return the number of slices of a mask file that a task reads at once.

    They have no more voxels than a slab of the scan, except that one slice is always read whole.
    """
    depth, ny, nx = case.geometry.shape
    slab = case.layout.slab
    if mask.geometry is None:
        return slab
    return max(1, min(slab, min(slab, depth) * ny * nx // prod(mask.geometry.shape[1:])))


def check_memory(memory: WorkerMemory, case: Case, mask: LabelSource) -> None:
    """Raise `RoomError` unless the worker with least memory can hold a slab of the scan, and a slice of a mask file."""
    memory.check(case.name, case.geometry, case.layout.slab)
    if mask.geometry is not None:
        memory.check(case.name, mask.geometry, 1)


def labels_on_grid(
    mask: LabelSource, values: Mapping[int, int], case_ref: CaseRef
) -> Generator[tuple[CaseWriter, int, Labels], None, None]:
    """Yield the labels of a mask file on the grid of a case, slab by slab.

    Parameters
    ----------
    mask : LabelSource
        The mask file.
    values : mapping of int to int
        Label of each segment number; other voxels are 0.
    case_ref : CaseRef
        The case. If the mask file has another grid, the temporary array `IMPORTED` of the case holds its labels until
        the generator ends or is closed.

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
    read_at_once = reading_thickness(mask, case)
    largest = max(thickness * prod(geometry.shape[1:]), prod(mask_grid.shape[1:]))
    case.create_temporary(IMPORTED, mask_grid.shape, read_at_once)
    try:
        for start, labels in checked_slabs(mask, values, mask_grid, read_at_once):
            case_ref.open("r+").write_temporary(IMPORTED, start, labels)
        grid_map = GridMap.between(geometry, mask_grid)
        for start, stop in case.layout.slabs():
            labels = grid_map.resample(start, stop, lambda box: case.read_temporary(IMPORTED, box), largest)
            yield case_ref.open("r+"), start, labels
    finally:
        case_ref.open("r+").delete_array(IMPORTED)


def import_labels(
    client: Client, case_ref: CaseRef, mask_file: LabelSource, values: Mapping[int, int]
) -> dict[str, Any]:
    """Write the labels of a mask file to the array `REFERENCE` of a case, on the grid of its scan.

    The array exists until it is deleted (`CaseWriter.delete_array`) or the next command on the store begins.

    Parameters
    ----------
    client : distributed.Client
        Client of the cluster that reads the file.
    case_ref : CaseRef
        A converted case, with the identifier of the attempt that writes to it (`CaseWriter.claim`).
    mask_file : MaskFile
        The mask file.
    values : mapping of int to int
        Label of each segment number of the file; other voxels are 0.

    Returns
    -------
    dict
        ``grid``, which is ``"same"`` or ``"resampled"``, and ``voxels``, the number of voxels by label.

    Raises
    ------
    SourceError
        If the file cannot be read, or does not overlap the scan; nothing is written then.
    """
    case = case_ref.open("r+")
    check_converted(case)
    grid_of(mask_file, case.geometry)
    case.create_temporary(REFERENCE)
    return read_on_worker(client, _write_reference, mask_file, case_ref, dict(values))


def _write_reference(mask: LabelSource, case_ref: CaseRef, values: Mapping[int, int]) -> dict[str, Any]:
    counts = np.zeros(256, np.int64)
    with closing(labels_on_grid(mask, values, case_ref)) as slabs:
        for case, start, labels in slabs:
            case.write_temporary(REFERENCE, start, labels)
            counts += np.bincount(labels.reshape(-1), minlength=256)
    voxels = {int(label): int(counts[label]) for label in sorted(set(values.values()) - {0})}
    return {"grid": grid_of(mask, case_ref.open().geometry), "voxels": voxels}


def checked_slabs(
    mask: LabelSource, values: Mapping[int, int], geometry: Geometry, thickness: int
) -> Iterator[tuple[int, Labels]]:
    """Yield the first slice and the labels of each slab of a mask file, and check the size of the slabs.

    `geometry` is the file's own grid, or any grid for a file of contours.

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
