"""Given masks: reads a mask file, writes the lung mask and its histogram, and the regions that the file tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distributed import Client

from lungmix.stages import convert
from lungmix.stages.imported_labels import LabelSource, grid_of, write_temporary_labels
from lungmix.stages.reading import read_on_worker
from lungmix.store import CaseRef, CaseWriter, Cohort
from lungmix.store.schema import REFERENCE


def import_labels(
    client: Client,
    cohort: Cohort,
    case_name: str,
    mask_file: LabelSource,
    values: Mapping[int, int],
    array: str = REFERENCE,
) -> dict[str, Any]:
    """Write the labels of a mask file to a temporary array of a case, on the grid of its scan.

    The array exists until it is deleted (`CaseWriter.delete_array`) or the next command on the store begins.

    Parameters
    ----------
    client : distributed.Client
        Client of the cluster that reads the file.
    cohort : Cohort
        The store, opened for writing.
    case_name : str
        Name of a converted case.
    mask_file : MaskFile
        The mask file.
    values : mapping of int to int
        Label of each segment number of the file; other voxels are 0.
    array : {"reference", "imported"}
        Name of the array.

    Returns
    -------
    dict
        ``grid``, which is ``"same"`` or ``"resampled"``, and ``voxels``, the number of voxels by label.

    Raises
    ------
    SourceError
        If the file cannot be read, or does not overlap the scan; nothing is written then.
    """
    case = CaseWriter(cohort[case_name])
    convert.check_converted(case)
    grid_of(mask_file, case.geometry)
    case.create_temporary(array)
    return read_on_worker(client, write_temporary_labels, mask_file, CaseRef.of(cohort, case_name), dict(values), array)
