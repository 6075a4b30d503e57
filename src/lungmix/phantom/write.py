"""Phantoms as files: DICOM series, NRRD, NIfTI, MetaImage; streamed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import DSfloat

from lungmix.formats import write_image
from lungmix.formats.images import extension_of
from lungmix.phantom.scene import Phantom

_INTERCEPT = -1024


def write_phantom(path: str | Path, phantom: Phantom) -> None:
    """Write a phantom.

    Parameters
    ----------
    path : str or Path
        With an image extension, that format; without, a folder that becomes a DICOM series.
    phantom : Phantom
        Written slab by slab, so its length does not matter to memory.
    """
    target = Path(path)
    if extension_of(target) is None:
        _write_series(target, phantom)
    else:
        write_image(target, phantom.slabs(16), phantom.geometry, np.int16)


def _write_series(folder: Path, phantom: Phantom) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    entropy = [phantom.name, str(phantom.seed)]
    study, series, frame = (generate_uid(entropy_srcs=[*entropy, kind]) for kind in ("study", "series", "frame"))
    index = 0
    for slab in phantom.slabs(16):
        for plane in slab:
            dataset = _slice(phantom, index, plane, generate_uid(entropy_srcs=[*entropy, str(index)]))
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = (
                study,
                series,
                frame,
            )
            dataset.save_as(folder / f"{index + 1:05d}.dcm", enforce_file_format=True)
            index += 1


def _slice(phantom: Phantom, index: int, plane: npt.NDArray[np.int16], uid: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    geometry, known = phantom.geometry, phantom.acquisition
    axes = np.reshape(geometry.direction, (3, 3))
    position = np.asarray(geometry.origin) + axes[:, 2] * geometry.spacing[2] * index
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, uid
    dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.PatientName, dataset.PatientID = "Phantom^Chest", phantom.name
    dataset.Manufacturer, dataset.ManufacturerModelName = known.manufacturer, known.model
    dataset.ConvolutionKernel, dataset.KVP, dataset.SliceThickness = (
        known.kernel,
        known.kvp,
        known.slice_thickness,
    )
    dataset.StudyDate = dataset.StudyTime = dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.PatientBirthDate = dataset.PatientSex = dataset.StudyID = ""
    dataset.PatientPosition = "HFS"
    dataset.SeriesNumber, dataset.InstanceNumber, dataset.AcquisitionNumber = 1, index + 1, 1
    dataset.ImagePositionPatient = [DSfloat(float(v), auto_format=True) for v in position]
    dataset.ImageOrientationPatient = [DSfloat(float(v), auto_format=True) for v in (*axes[:, 0], *axes[:, 1])]
    dataset.PixelSpacing = [DSfloat(geometry.spacing[i], auto_format=True) for i in (1, 0)]
    dataset.PositionReferenceIndicator = ""
    dataset.Rows, dataset.Columns = plane.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = _INTERCEPT, 1, "HU"
    dataset.PixelData = (plane - np.int16(_INTERCEPT)).astype("<i2").tobytes()
    return dataset
