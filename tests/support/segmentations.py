"""DICOM segmentations, made by highdicom on a small axial series."""

from copy import deepcopy

import highdicom
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RLELossless

from lungmix.geometry import Geometry

FRAME, SERIES, STUDY = "1.2.3.4", "1.2.3.5", "1.2.3.6"
GRID = Geometry((7, 5, 9), (0.5, 0.75, 2.0), (-3.0, 4.0, -50.0))
RIGHT, LEFT = codes.SCT.Right, codes.SCT.Left


def slices(geometry=GRID):
    """Return headers of a CT series on a grid."""
    direction = np.reshape(geometry.direction, (3, 3))
    headers = []
    for index in range(geometry.size[2]):
        header = Dataset()
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, f"1.2.3.7.{index + 1}"
        header.StudyInstanceUID, header.SeriesInstanceUID, header.FrameOfReferenceUID = STUDY, SERIES, FRAME
        header.Modality, header.SeriesNumber, header.InstanceNumber = "CT", 1, index + 1
        header.Rows, header.Columns = geometry.size[1], geometry.size[0]
        header.SamplesPerPixel, header.BitsAllocated, header.BitsStored, header.HighBit = 1, 16, 16, 15
        header.PixelRepresentation, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.PixelSpacing = [geometry.spacing[1], geometry.spacing[0]]
        header.SliceThickness = header.SpacingBetweenSlices = geometry.spacing[2]
        header.ImageOrientationPatient = [*direction[:, 0], *direction[:, 1]]
        header.ImagePositionPatient = list(geometry.origin + direction[:, 2] * geometry.spacing[2] * index)
        header.PatientID = header.PatientName = header.PatientBirthDate = header.PatientSex = ""
        header.AccessionNumber = header.StudyID = header.StudyDate = header.StudyTime = ""
        headers.append(header)
    return headers


def segment(number, name, code=codes.SCT.Lung, side=None):
    """Return the description of a segment, with a modifier of its side."""
    description = highdicom.seg.SegmentDescription(
        segment_number=number, segment_label=name, segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=code, algorithm_type="MANUAL",
    )  # fmt: skip
    if side is not None:
        modifier = highdicom.sr.CodedConcept.from_code(side)
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [modifier]
    return description


def segmentation(path, pixels, segments, kind="BINARY", *, geometry=GRID, change=None, **options):
    """Write a segmentation and return its path.

    Parameters
    ----------
    path : Path
        File to write.
    pixels : ndarray, shape (slices, y, x) or (slices, y, x, segments)
        Labels, or one binary plane per segment.
    segments : list of SegmentDescription
        Segments.
    kind : {"BINARY", "FRACTIONAL", "LABELMAP"}
        Type.
    geometry : Geometry
        Grid of the series.
    change : callable, optional
        Changes the object before it is written.
    **options
        Further arguments of highdicom.
    """
    syntax = options.pop("transfer_syntax_uid", ExplicitVRLittleEndian)
    dataset = highdicom.seg.Segmentation(
        source_images=slices(geometry), pixel_array=pixels, segmentation_type=kind,
        segment_descriptions=deepcopy(segments),
        series_instance_uid="1.2.3.8", series_number=9, sop_instance_uid="1.2.3.9", instance_number=1,
        manufacturer="highdicom", manufacturer_model_name="m", software_versions="1", device_serial_number="1",
        transfer_syntax_uid=ExplicitVRLittleEndian, **options,
    )  # fmt: skip
    if change is not None:
        change(dataset)
    dataset.save_as(path)
    if syntax == RLELossless:
        # GDCM's encoder, which pydicom prefers, aborts at frames of an odd number of pixels.
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
        dataset.save_as(path)
    return path
