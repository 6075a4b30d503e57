"""Writer of a volume as DICOM objects, one per slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import DSfloat

from lungmix.geometry import Geometry
from lungmix.privacy.acquisition import Acquisition


@dataclass(frozen=True)
class CtSeries:
    """Attributes shared by all slices of a series.

    Attributes
    ----------
    geometry : Geometry
        Geometry of the volume; it is rounded, as DICOM stores decimal numbers of at most 16 characters.
    acquisition : Acquisition
        Technical attributes.
    patient_name, patient_id : str
        Name and number of the patient.
    entropy : tuple of str
        Seed of all unique identifiers: equal entropy gives equal identifiers.
    image_type : tuple of str
        ImageType of the slices.
    intercept : int
        HU of the stored value 0.
    """

    geometry: Geometry
    acquisition: Acquisition
    patient_name: str
    patient_id: str
    entropy: tuple[str, ...]
    image_type: tuple[str, ...] = ("ORIGINAL", "PRIMARY", "AXIAL")
    intercept: int = 0

    def uid(self, name: str) -> str:
        """Return the UID of the ``study``, the ``series``, the ``frame`` of reference, or a slice by its index."""
        return str(generate_uid(entropy_srcs=[*self.entropy, name]))

    def header(self, index: int) -> Dataset:
        """Return all attributes of slice `index`, from 0, except the pixels and their description."""
        dataset, acquisition = Dataset(), self.acquisition
        axes = np.reshape(self.geometry.direction, (3, 3))
        position = np.asarray(self.geometry.origin) + axes[:, 2] * self.geometry.spacing[2] * index
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, self.uid(str(index))
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = self.uid("study"), self.uid("series")
        dataset.FrameOfReferenceUID = self.uid("frame")
        dataset.Modality, dataset.ImageType = "CT", list(self.image_type)
        dataset.PatientName, dataset.PatientID = self.patient_name, self.patient_id
        dataset.Manufacturer, dataset.ManufacturerModelName = acquisition.manufacturer, acquisition.model
        dataset.ConvolutionKernel, dataset.KVP, dataset.SliceThickness = (
            acquisition.kernel,
            acquisition.kvp,
            acquisition.slice_thickness,
        )
        dataset.StudyDate = dataset.StudyTime = dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
        dataset.PatientBirthDate = dataset.PatientSex = dataset.StudyID = ""
        dataset.PatientPosition, dataset.BodyPartExamined = "HFS", "CHEST"
        dataset.SeriesNumber, dataset.InstanceNumber, dataset.AcquisitionNumber = 1, index + 1, 1
        dataset.ImagePositionPatient = [_decimal(v) for v in position]
        dataset.ImageOrientationPatient = [_decimal(v) for v in (*axes[:, 0], *axes[:, 1])]
        dataset.PixelSpacing = [_decimal(self.geometry.spacing[i]) for i in (1, 0)]
        dataset.PositionReferenceIndicator = ""
        _, dataset.Rows, dataset.Columns = self.geometry.shape
        return dataset

    def slice(self, index: int, plane: npt.NDArray[np.int16]) -> FileDataset:
        """Return slice `index` with its HU, int16 ``[y, x]``, ready to be saved."""
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = self.uid(str(index))
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset = FileDataset("", self.header(index), file_meta=meta, preamble=b"\0" * 128)
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = self.intercept, 1, "HU"
        dataset.PixelData = (plane - np.int16(self.intercept)).astype("<i2").tobytes()
        return dataset


def _decimal(value: float) -> DSfloat:
    return DSfloat(float(value), auto_format=True)
