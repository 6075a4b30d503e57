"""Writer of labels as a DICOM segmentation: one object that refers to slices of the CT.

Source: DICOM PS3.3, A.51 (Segmentation IOD) and C.8.20 (Segmentation modules); supplement 243 adds label maps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import highdicom
import numpy as np
import numpy.typing as npt
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

from lungmix._version import __version__
from lungmix.atomic import atomic_file
from lungmix.export.dicom_frames import N_LABELS, LabelPlanes, frames_of, write_pixels
from lungmix.export.dicom_source import (
    check_orientation,
    mark_anonymous,
    referenced_slices,
    remove_dates,
    write_ct,
)
from lungmix.export.images import check_grid, made_with, require, segments_in
from lungmix.formats import Scan
from lungmix.formats.dicom.library_warnings import hide_warnings_of
from lungmix.stages import convert, label
from lungmix.store import Case
from lungmix.tissue import LUNG_CODE, PRIVATE_SCHEME, PRIVATE_SCHEME_NAME, Code, Tissue

MAKER = "lungmix developers"

_FRAMES = Tag("PerFrameFunctionalGroupsSequence")
"""Attribute of a segmentation that grows with its number of frames."""


# Identifiers of the patient are omitted on purpose.
@hide_warnings_of("highdicom", "pydicom")
def write_seg(
    case: Case, path: Path, image: str, *, series: Sequence[Scan] = (), with_ct: bool = False, binary: bool = False
) -> list[Path]:
    """Write labels as DICOM SEG.

    Parameters
    ----------
    case : Case
        Labelled case.
    path : Path
        A ``.dcm`` file to write.
    image : {"lung", "side", "lobe", "tissue", "tissue_median", "tissue_potts", "zone"}
        Labels to write, slab by slab.
    series : sequence of Scan
        DICOM series, one of which is the original series of the case.
    with_ct : bool
        True to write an anonymous series of the CT into a folder next to the file, and refer to it instead of the
        original series.
    binary : bool
        True to write one bit-plane per segment, for viewers that do not support label maps.

    Returns
    -------
    list of Path
        The file, and the folder of the CT if there is one.

    Raises
    ------
    UsageError
        If the image has no labels, or the orientation of the case is unknown.
    SourceError
        If the original series is not in `series`.
    """
    segments_in(image)
    check_grid(image)
    require(case, image)
    check_orientation(case)
    slices = referenced_slices(case, series, with_ct=with_ct)
    written = [path]
    if with_ct:
        written.append(write_ct(case, path.with_name(f"{path.stem}_ct")))
    write_segmentation(case, path, image, slices, same_uids=not with_ct, binary=binary)
    return written


def write_segmentation(
    case: Case, path: Path, image: str, slices: Sequence[Dataset], *, same_uids: bool, binary: bool
) -> Dataset:
    """Write labels as DICOM SEG that refers to given slices, and return its header without frames.

    Parameters
    ----------
    case, path, image, binary
        See `write_seg`.
    slices : sequence of Dataset
        Headers of the slices of the CT, see `lungmix.export.dicom_source`.
    same_uids : bool
        True if the slices are those of the original series, whose identifiers are written.
    """
    planes = LabelPlanes(case, image)
    dataset = segmentation_without_pixels(
        planes.present_labels(), slices, segments_in(image), identity=_identity(case, image), binary=binary,
        label=image, parameters=made_with(case, image),
    )  # fmt: skip
    remove_dates(dataset, case)
    mark_anonymous(dataset, case, same_uids=same_uids)
    with atomic_file(path) as out:
        dataset.save_as(out, enforce_file_format=True)
        write_pixels(out, dataset, planes, frames_of(dataset, slices))
    header = Dataset()
    header.update({element.tag: element for element in dataset if element.tag != _FRAMES})
    return header


def segmentation_without_pixels(
    present: npt.NDArray[np.bool_],
    slices: Sequence[Dataset],
    segments: Sequence[Tissue],
    *,
    identity: Sequence[str],
    binary: bool,
    label: str,
    parameters: Mapping[str, str] | None = None,
) -> Segmentation:
    """Return a segmentation with all elements but its pixels.

    highdicom makes it of slices that have one pixel per label, so that no voxel is in memory: which frames there are
    depends only on which labels a slice has.

    Parameters
    ----------
    present : ndarray of bool, shape (z, `N_LABELS`)
        Labels in each slice.
    slices : sequence of Dataset
        Headers of the CT, one per slice.
    segments : sequence of Tissue
        Segments that the labels stand for.
    identity : sequence of str
        Texts from which the identifiers of the object are derived.
    binary : bool
        True for one bit-plane per segment, False for a label map.
    label : str
        Content label of the object.
    parameters : mapping of str to str, optional
        Preset and model that made the labels.
    """
    rows, columns = int(slices[0].Rows), int(slices[0].Columns)
    series_uid, instance_uid, dimensions_uid = (
        str(generate_uid(entropy_srcs=[*identity, str(binary), kind])) for kind in ("se", "in", "dimensions")
    )
    dataset = Segmentation(
        source_images=[_with_size(header, 1, N_LABELS) for header in slices],
        pixel_array=(present * np.arange(N_LABELS, dtype=np.uint8))[:, np.newaxis, :],
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
        transfer_syntax_uid=ExplicitVRLittleEndian,
        series_description=f"Labels: {label}",
    )
    del dataset.PixelData
    dataset.Rows, dataset.Columns = rows, columns
    # The encoder of RLE crashes the process for frames with an odd number of pixels.
    if not binary and rows * columns % 2 == 0:
        dataset.file_meta.TransferSyntaxUID = RLELossless
    # highdicom draws it at random, so that equal labels would give different files.
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions_uid
    dataset.CodingSchemeIdentificationSequence = [coding_scheme()]
    # The attribute is required but may be empty; highdicom omits it without a name.
    dataset.ContentCreatorName = ""
    return dataset


def _with_size(header: Dataset, rows: int, columns: int) -> Dataset:
    """Return a header with another size, which shares all other elements with the original one."""
    resized = Dataset()
    resized.update({element.tag: element for element in header if element.keyword not in ("Rows", "Columns")})
    resized.Rows, resized.Columns = rows, columns
    return resized


def coding_scheme() -> Dataset:
    """Return the item that declares the scheme of private codes."""
    scheme = Dataset()
    scheme.CodingSchemeDesignator, scheme.CodingSchemeName = PRIVATE_SCHEME, PRIVATE_SCHEME_NAME
    scheme.CodingSchemeResponsibleOrganization = MAKER
    return scheme


def _description(segment: Tissue, parameters: Mapping[str, str]) -> SegmentDescription:
    is_mask = segment.key == "lung"
    return SegmentDescription(
        segment_number=segment.label,
        segment_label=segment.name,
        segmented_property_category=coded(segment.category),
        segmented_property_type=coded(segment.code),
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name="lungmix mask" if is_mask else "lungmix tissue mixture",
            family=codes.cid7162.MorphologicalOperations if is_mask else codes.cid7162.ClusterAnalysis,
            version=__version__,
            parameters=dict(parameters) or None,
        ),
        anatomic_regions=None if segment.code == LUNG_CODE else [coded(LUNG_CODE)],
        display_color=highdicom.color.CIELabColor.from_rgb(*segment.rgba[:3]),
    )


def coded(code: Code) -> highdicom.sr.CodedConcept:
    """Return a code as highdicom takes it."""
    return highdicom.sr.CodedConcept(code.value, code.scheme, code.meaning)


def _identity(case: Case, image: str) -> list[str]:
    stage_key = case.stages.get(label.STAGE if image.startswith("tissue") else "mask", {}).get("key", "")
    return [case.salt, str(case.stages[convert.STAGE].get("voxels_sha256")), case.name, image, str(stage_key)]
