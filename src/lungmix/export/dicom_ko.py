"""Writer of a DICOM key object selection, by which viewers show the slices with the most involved tissue first.

Source: DICOM PS3.3, A.35.4 (Key Object Selection Document) and PS3.16, TID 2010 (Key Object Selection).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from highdicom.sr import DeviceObserverIdentifyingAttributes, ObserverContext
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from lungmix._version import __version__
from lungmix.atomic import atomic_file
from lungmix.export.dicom_frames import N_LABELS, LabelPlanes
from lungmix.export.dicom_seg import MAKER
from lungmix.export.dicom_source import (
    check_orientation,
    mark_anonymous,
    referenced_slices,
    remove_dates,
    write_ct,
)
from lungmix.export.dicom_sr import check_tissues
from lungmix.export.images import require
from lungmix.formats import Scan
from lungmix.formats.dicom.library_warnings import hide_warnings_of
from lungmix.store import Case
from lungmix.store.schema import LABEL
from lungmix.tissue import INVOLVED, TISSUES

KEY_SLICES = 6
"""Largest number of key slices of a case."""

_INVOLVED_LABELS = [tissue.label for tissue in TISSUES if tissue.key in INVOLVED]


# Identifiers of the patient are omitted on purpose.
@hide_warnings_of("highdicom", "pydicom")
def write_key_slices(case: Case, path: Path, *, series: Sequence[Scan] = (), with_ct: bool = False) -> list[Path]:
    """Write a DICOM key object selection of the slices that `key_slices` chooses.

    Parameters
    ----------
    case : Case
        Labelled case.
    path : Path
        A ``.dcm`` file to write.
    series, with_ct
        See `lungmix.export.dicom_seg.write_seg`.

    Returns
    -------
    list of Path
        The file, and the folder of the CT if there is one.

    Raises
    ------
    UsageError
        If the orientation of the case is unknown, or its mixture has no tissues.
    SourceError
        If the original series is not in `series`.
    StoreError
        If the case has no labels yet.
    """
    check_orientation(case)
    require(case, "tissue")
    check_tissues(case)
    slices = referenced_slices(case, series, with_ct=with_ct)
    chosen = [slices[index] for index in key_slices(_counts(case))]
    entropy = [case.salt, case.name, str(case.stages[LABEL].get("key")), *(str(item.SOPInstanceUID) for item in chosen)]
    series_uid, instance_uid, device_uid = (
        str(generate_uid(entropy_srcs=[*entropy, f"key {kind}"])) for kind in ("series", "instance", "device")
    )
    device = DeviceObserverIdentifyingAttributes(
        uid=device_uid, name="lungmix", manufacturer_name=MAKER, model_name="lungmix"
    )
    document = KeyObjectSelectionDocument(
        evidence=chosen,
        content=KeyObjectSelection(
            document_title=codes.DCM.OfInterest,
            referenced_objects=chosen,
            observer_device_context=ObserverContext(codes.DCM.Device, device),
            description="Slices with the most involved lung tissue",
        ),
        series_instance_uid=series_uid,
        series_number=500,
        sop_instance_uid=instance_uid,
        instance_number=1,
        manufacturer=MAKER,
        series_description="Slices with the most involved tissue",
    )
    document.ManufacturerModelName, document.SoftwareVersions = "lungmix", __version__
    remove_dates(document, case)
    mark_anonymous(document, case, same_uids=not with_ct)
    with atomic_file(path) as out:
        document.save_as(out, enforce_file_format=True)
    return [path, write_ct(case, path.with_name(f"{path.stem}_ct"))] if with_ct else [path]


def key_slices(counts: npt.NDArray[np.int64]) -> list[int]:
    """Return the indices of key slices: of each sixth of the height of the lungs, the slice with most involved voxels.

    Among slices with equally many, the first one with most lung voxels is taken. A sixth without lung has no key slice.

    Parameters
    ----------
    counts : ndarray of int64, shape (z, 2)
        Number of involved voxels and of lung voxels of each slice.
    """
    with_lung = np.flatnonzero(counts[:, 1])
    if not len(with_lung):
        return []
    chosen = []
    for part in np.array_split(np.arange(with_lung[0], with_lung[-1] + 1), KEY_SLICES):
        ranked = sorted(part.tolist(), key=lambda index: (-counts[index, 0], -counts[index, 1], index))
        if ranked and counts[ranked[0], 1]:
            chosen.append(ranked[0])
    return chosen


def _counts(case: Case) -> npt.NDArray[np.int64]:
    planes = LabelPlanes(case, "tissue")
    counts = np.zeros((len(planes), 2), np.int64)
    for index in range(len(planes)):
        voxels = np.bincount(planes[index].ravel(), minlength=N_LABELS)
        counts[index] = voxels[_INVOLVED_LABELS].sum(), voxels[1:].sum()
    return counts
