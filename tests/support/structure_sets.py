"""Structure sets of radiotherapy, made by pydicom."""

import numpy as np
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid

FRAME, SERIES = "1.2.3.4", "1.2.3.5"


def item(**attributes):
    dataset = Dataset()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def contour(points, kind="CLOSED_PLANAR"):
    """Return a contour of points in mm."""
    data = [f"{float(value):.10g}" for point in points for value in point]
    return item(ContourGeometricType=kind, NumberOfContourPoints=len(points), ContourData=data)


def long_contour(points):
    """Return a contour of very many points in mm as bytes, which pydicom writes without checking each number."""
    text = "\\".join([f"{value:.10g}" for value in np.ravel(points).tolist()]).encode()
    dataset = item(ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=len(points))
    dataset.add_new(tag_for_keyword("ContourData"), "UN", text + b" " * (len(text) % 2))
    return dataset


def structure_set(path, structures, *, frame=FRAME, series=SERIES, codes=None, **attributes):
    """Write an RTSTRUCT and return its path; contours are given by name of the structure, numbered from 1."""
    reference = item(FrameOfReferenceUID=frame)
    if series:
        study = item(RTReferencedSeriesSequence=[item(SeriesInstanceUID=series)])
        reference.RTReferencedStudySequence = [study]
    dataset = item(
        SOPClassUID=RTStructureSetStorage, SOPInstanceUID=generate_uid(), Modality="RTSTRUCT", Manufacturer="Varian",
        ReferencedFrameOfReferenceSequence=[reference],
        StructureSetROISequence=[
            item(ROINumber=number, ROIName=name, ReferencedFrameOfReferenceUID=frame)
            for number, name in enumerate(structures, start=1)
        ],
        ROIContourSequence=[
            item(ReferencedROINumber=number, ContourSequence=contours)
            for number, contours in enumerate(structures.values(), start=1)
        ],
        **attributes,
    )  # fmt: skip
    if codes:
        dataset.RTROIObservationsSequence = [
            item(ReferencedROINumber=number, RTROIIdentificationCodeSequence=[code]) for number, code in codes.items()
        ]
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ImplicitVRLittleEndian, RTStructureSetStorage
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta = meta
    dataset.save_as(path, enforce_file_format=True)
    return path
