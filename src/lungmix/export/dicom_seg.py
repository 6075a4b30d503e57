"""Labels as a DICOM segmentation: one object that refers to the CT slices under it.

Source: DICOM PS3.3, A.51 (Segmentation IOD) and C.8.20 (Segmentation modules); label maps are of its supplement 243.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import highdicom
import numpy as np
import numpy.typing as npt
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

from lungmix._version import __version__
from lungmix.export.dicom_source import (
    check_orientation,
    derived_slices,
    leave_out_dates,
    mark_anonymous,
    original_slices,
    write_ct,
)
from lungmix.export.images import made_with, require, segments_in
from lungmix.formats import Scan, whole_file
from lungmix.stages import convert, label
from lungmix.store import Case
from lungmix.tissue import LUNG_CODE, PRIVATE_SCHEME, PRIVATE_SCHEME_NAME, Code, Tissue

MAKER = "lungmix developers"


def write_seg(
    case: Case, path: Path, image: str, *, series: Sequence[Scan] = (), with_ct: bool = False, binary: bool = False
) -> list[Path]:
    """Write labels as DICOM SEG.

    Parameters
    ----------
    case : Case
        With labels.
    path : Path
        A ``.dcm`` file.
    image : {"lung", "side", "tissue", "tissue_median"}
        Which labels. They are held in memory as a whole: one byte a voxel here, and up to four while highdicom
        arranges them.
    series : sequence of Scan
        DICOM series, among which the original one is looked for.
    with_ct : bool
        Write an anonymous series of the CT into a folder beside the file and refer to that, not to an original one.
    binary : bool
        One bit-plane a segment, for viewers that do not know label maps.

    Returns
    -------
    list of Path
        The file, and the folder of the CT if there is one.

    Raises
    ------
    UsageError
        If the image has no labels, or the orientation of the case is not known.
    SourceError
        If the original series is not among those given.
    """
    segments = segments_in(image)
    require(case, image)
    check_orientation(case)
    slices = derived_slices(case) if with_ct else original_slices(case, series)
    written = [path]
    if with_ct:
        written.append(write_ct(case, path.with_name(f"{path.stem}_ct")))
    labels = np.asarray(case.zarr_array(image)[:])
    dataset = segmentation_of(
        labels, slices, segments, identity=_identity(case, image), binary=binary, label=image,
        parameters=made_with(case, image),
    )  # fmt: skip
    leave_out_dates(dataset, case)
    mark_anonymous(dataset, case, same_uids=not with_ct)
    with whole_file(path) as out:
        dataset.save_as(out, enforce_file_format=True)
    return written


def segmentation_of(
    labels: npt.NDArray[np.uint8],
    slices: Sequence[Dataset],
    segments: Sequence[Tissue],
    *,
    identity: Sequence[str],
    binary: bool,
    label: str,
    parameters: Mapping[str, str] | None = None,
) -> Segmentation:
    """A segmentation in memory.

    Parameters
    ----------
    labels : ndarray of uint8, shape (z, y, x)
        Values are those of `segments`, or 0.
    slices : sequence of Dataset
        Headers of the CT, one a slice.
    segments : sequence of Tissue
        What labels mean.
    identity : sequence of str
        What the identifiers of the object are derived from.
    binary : bool
        Bit-planes in place of a label map.
    label : str
        What to call it.
    parameters : mapping of str to str, optional
        What the labels were made with.
    """
    series_uid, instance_uid = (str(generate_uid(entropy_srcs=[*identity, str(binary), kind])) for kind in ("se", "in"))
    with warnings.catch_warnings():
        # Identifiers of a patient are left out on purpose.
        warnings.filterwarnings("ignore", module="highdicom")
        dataset = Segmentation(
            source_images=slices,
            pixel_array=labels,
            segmentation_type="BINARY" if binary else "LABELMAP",
            segment_descriptions=[_description(segment, parameters or {}) for segment in segments],
            series_instance_uid=series_uid,
            series_number=300,
            sop_instance_uid=instance_uid,
            instance_number=1,
            manufacturer=MAKER,
            manufacturer_model_name="lungmix",
            software_versions=__version__,
            device_serial_number="none",
            content_label=label.upper()[:16],
            content_description="Lung tissue labels" if len(segments) > 1 else "Lung mask",
            transfer_syntax_uid=ExplicitVRLittleEndian if binary else RLELossless,
            series_description=f"Labels: {label}",
        )
    scheme = Dataset()
    scheme.CodingSchemeDesignator, scheme.CodingSchemeName = PRIVATE_SCHEME, PRIVATE_SCHEME_NAME
    scheme.CodingSchemeResponsibleOrganization = MAKER
    dataset.CodingSchemeIdentificationSequence = [scheme]
    # It has to be there, empty or not; highdicom leaves it out where nobody is named.
    dataset.ContentCreatorName = ""
    return dataset


def _description(segment: Tissue, parameters: Mapping[str, str]) -> SegmentDescription:
    alone = segment.key == "lung"
    return SegmentDescription(
        segment_number=segment.label,
        segment_label=segment.name,
        segmented_property_category=_coded(segment.category),
        segmented_property_type=_coded(segment.code),
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="lungmix mask" if alone else "lungmix tissue mixture",
            family=codes.cid7162.MorphologicalOperations if alone else codes.cid7162.ClusterAnalysis,
            version=__version__,
            parameters=dict(parameters) or None,
        ),
        anatomic_regions=None if segment.code == LUNG_CODE else [_coded(LUNG_CODE)],
        display_color=highdicom.color.CIELabColor.from_rgb(*segment.rgba[:3]),
    )


def _coded(code: Code) -> highdicom.sr.CodedConcept:
    return highdicom.sr.CodedConcept(code.value, code.scheme, code.meaning)


def _identity(case: Case, image: str) -> list[str]:
    made = case.stages.get(label.STAGE if image.startswith("tissue") else "mask", {}).get("key", "")
    return [case.salt, str(case.stages[convert.STAGE].get("voxels_sha256")), case.name, image, str(made)]
