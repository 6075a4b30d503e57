"""Writer of the measurements of a case as a DICOM structured report, with the segmentations that it refers to.

Source: DICOM PS3.16, TID 1500 (Measurement Report), with groups of TID 1411 (measurements of a segment) and TID 1501
(measurements without one).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import isfinite
from pathlib import Path

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    ReferencedSegment,
    SourceSeriesForSegmentation,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from lungmix._version import __version__
from lungmix.atomic import atomic_file
from lungmix.errors import StoreError, UsageError
from lungmix.export.dicom_seg import MAKER, coded, coding_scheme, write_segmentation
from lungmix.export.dicom_source import (
    check_orientation,
    mark_anonymous,
    referenced_slices,
    remove_dates,
    write_ct,
)
from lungmix.export.images import made_with, require
from lungmix.formats import Scan
from lungmix.formats.dicom.library_warnings import hide_warnings_of
from lungmix.kernels.data_dictionary import ALL, BY_LOBES, MEASUREMENTS, Column
from lungmix.kernels.severity import severity_scores, total_scores, zone_scores
from lungmix.mixture import TissueModel
from lungmix.stages.measure import rows_of_case
from lungmix.store import MEASUREMENTS_FILE, ZONES_FILE, Case
from lungmix.store.schema import LABEL
from lungmix.store.tables import Row
from lungmix.tissue import (
    LEFT,
    LOBES,
    LUNG,
    LUNG_CODE,
    LUNGS,
    PRIVATE_SCHEME,
    RIGHT,
    TISSUES,
    ZONE_THIRDS,
    Code,
    Tissue,
)

SEGMENTED = (LUNG.key, "side", "tissue")
"""Label images that are written as segmentations, for the report to refer to."""

_UNITS = {
    "mL": CodedConcept("mL", "UCUM", "milliliter"),
    "%": CodedConcept("%", "UCUM", "percent"),
    "HU": CodedConcept("[hnsf'U]", "UCUM", "Hounsfield unit"),
    "g": CodedConcept("g", "UCUM", "gram"),
}
_SCORE = CodedConcept("{score}", "UCUM", "score")
_CT_OF_CHEST = CodedConcept("169069000", "SCT", "CT of chest")
_LATERALITY = {LUNG.key: codes.SCT.Bilateral, RIGHT.key: codes.SCT.Right, LEFT.key: codes.SCT.Left}
_ZONE_SITES = {
    "upper": codes.SCT.UpperZoneOfLung,
    "middle": codes.SCT.MiddleZoneOfLung,
    "lower": codes.SCT.LowerZoneOfLung,
}

_OF_LUNG = ("lung_involvement", "mean_hu", "sd_hu", "laa950", "laa910", "laa856", "perc15", "mass_g")
"""Columns of ``measurements.csv`` that are written for both lungs and for each lung, besides volumes and tissues."""

_DENSITIES = {"mean_hu": codes.SCT.Mean, "sd_hu": codes.SCT.StandardDeviation}
"""Columns that standard codes name: the attenuation coefficient, and how its value was derived."""


@dataclass(frozen=True)
class _Segmentations:
    """References of a report: headers of the segmentations by image, and of the slices of the CT."""

    headers: Mapping[str, Dataset]
    slices: Sequence[Dataset]

    def segment(self, image: str, label: int) -> ReferencedSegment:
        header = self.headers[image]
        source = SourceSeriesForSegmentation(self.slices[0].SeriesInstanceUID)
        return ReferencedSegment(header.SOPClassUID, header.SOPInstanceUID, label, source_series=source)


# Identifiers of the patient are omitted on purpose.
@hide_warnings_of("highdicom", "pydicom")
def write_report(
    case: Case,
    path: Path,
    *,
    series: Sequence[Scan] = (),
    with_ct: bool = False,
    binary: bool = False,
    excluded: Sequence[Tissue] = (),
) -> list[Path]:
    """Write the measurements of a case as a DICOM structured report, and the segmentations that it refers to.

    The report has volume, density, tissues and lung involvement of both lungs and of each lung, the volume of each
    tissue, the computed scores, and volume and lung involvement of the thirds of each lung and of lobes, if there are
    any.

    Parameters
    ----------
    case : Case
        Labelled case.
    path : Path
        A ``.dcm`` file to write. The segmentations of lung mask, regions and tissues are written next to it, as
        ``NAME_lung.dcm``, ``NAME_side.dcm`` and ``NAME_tissue.dcm``.
    series, with_ct, binary
        See `lungmix.export.dicom_seg.write_seg`.
    excluded : sequence of Tissue
        Regions of the mask that do not count as lung in the tables of the store.

    Returns
    -------
    list of Path
        The file, the segmentations, and the folder of the CT if there is one.

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
    for image in SEGMENTED:
        require(case, image)
    model = check_tissues(case)
    slices = referenced_slices(case, series, with_ct=with_ct)
    written = [path]
    headers = {}
    for image in SEGMENTED:
        file = path.with_name(f"{path.stem}_{image}.dcm")
        headers[image] = write_segmentation(case, file, image, slices, same_uids=not with_ct, binary=binary)
        written.append(file)
    if with_ct:
        written.append(write_ct(case, path.with_name(f"{path.stem}_ct")))
    (row,) = rows_of_case(case, MEASUREMENTS_FILE, model, excluded)
    zones = rows_of_case(case, ZONES_FILE, model, excluded)
    report = _report(case, _Segmentations(headers, slices), row, zones)
    remove_dates(report, case)
    mark_anonymous(report, case, same_uids=not with_ct)
    with atomic_file(path) as out:
        report.save_as(out, enforce_file_format=True)
    return written


def check_tissues(case: Case) -> TissueModel:
    """Return the mixture of a case.

    Raises
    ------
    UsageError
        If the mixture has no tissues.
    StoreError
        If the case has no labels yet.
    """
    model = case.model
    if model is None:
        raise StoreError(f"case {case.name} has no labels to measure: run `Pipeline.label()` first", case=case.name)
    if model.n_components != len(TISSUES):
        raise UsageError(
            f"the mixture of case {case.name} has {model.n_components} components, and a report needs the "
            f"{len(TISSUES)} tissues: label with a mixture of {len(TISSUES)} components"
        )
    return model


def _report(case: Case, segmentations: _Segmentations, row: Row, zones: Sequence[Row]) -> Comprehensive3DSR:
    entropy = [case.salt, case.name, str(case.stages[LABEL].get("key")), *(str(value) for value in row.values())]
    entropy += [str(value) for zone in zones for value in zone.values()]
    entropy += [str(header.SOPInstanceUID) for header in segmentations.headers.values()]

    def uid(kind: str) -> str:
        return str(generate_uid(entropy_srcs=[*entropy, kind]))

    thirds, lobes = _thirds(zones), _lobes(zones)
    algorithm = AlgorithmIdentification("lungmix", __version__, parameters=_parameters(case))
    groups = [
        VolumetricROIMeasurementsAndQualitativeEvaluations(
            tracking_identifier=TrackingIdentifier(uid=uid(f"{image} {segment.key}"), identifier=segment.name),
            referenced_segment=segmentations.segment(image, segment.label),
            finding_type=coded(segment.code),
            finding_category=coded(segment.category),
            finding_sites=[FindingSite(coded(LUNG_CODE), _LATERALITY.get(segment.key))],
            algorithm_id=algorithm,
            measurements=measurements,
        )
        for image, segment, measurements in _segments(row, thirds, lobes)
    ]
    groups += [
        MeasurementsAndQualitativeEvaluations(
            tracking_identifier=TrackingIdentifier(uid=uid(part.name), identifier=part.name),
            finding_type=coded(LUNG_CODE),
            finding_sites=[part.site],
            algorithm_id=algorithm,
            measurements=part.measurements,
        )
        for part in (*thirds, *lobes)
    ]
    device = DeviceObserverIdentifyingAttributes(
        uid=uid("device"), name="lungmix", manufacturer_name=MAKER, model_name="lungmix"
    )
    content = MeasurementReport(
        observation_context=ObservationContext(ObserverContext(codes.DCM.Device, device)),
        procedure_reported=_CT_OF_CHEST,
        imaging_measurements=groups,
    )
    report = Comprehensive3DSR(
        evidence=[*segmentations.headers.values(), *segmentations.slices],
        content=content[0],
        series_instance_uid=uid("series"),
        series_number=400,
        sop_instance_uid=uid("instance"),
        instance_number=1,
        manufacturer=MAKER,
        is_complete=True,
        series_description="Measurements of the lungs",
    )
    report.ManufacturerModelName, report.SoftwareVersions, report.DeviceSerialNumber = "lungmix", __version__, "none"
    report.CodingSchemeIdentificationSequence = [coding_scheme()]
    return report


def _parameters(case: Case) -> list[str] | None:
    return [f"{key}: {value}" for key, value in made_with(case, "tissue").items()] or None


@dataclass(frozen=True)
class _LungPart:
    """A part of the lungs that no segment shows, and its score in a sum over all parts."""

    name: str
    site: FindingSite
    score: int
    measurements: list[Measurement]


def _segments(
    row: Row, thirds: Sequence[_LungPart], lobes: Sequence[_LungPart]
) -> list[tuple[str, Tissue, list[Measurement]]]:
    """Return image, segment and measurements of each group that refers to a segment."""
    scores = [
        _score("SCORE", "Severity score by lung involvement", _severity(row)),
        _score("SCORE24", "24-point severity score of six lung zones", _total(thirds)),
        _score("SCORE25", "25-point severity score of five lobes", _total(lobes)),
    ]
    of_lungs = [_measured(row, "lung_ml", ""), *_of_lung(row, ""), *scores]
    groups = [(LUNG.key, LUNG, of_lungs)]
    groups += [("side", side, [_measured(row, "ml", f"{side.key}_"), *_of_lung(row, f"{side.key}_")]) for side in LUNGS]
    groups += [
        ("tissue", tissue, [_measured(row, f"{tissue.key}_ml", ""), _measured(row, tissue.key, "")])
        for tissue in TISSUES
    ]
    return [(image, segment, _present(measurements)) for image, segment, measurements in groups]


def _of_lung(row: Row, prefix: str) -> list[Measurement | None]:
    return [_measured(row, key, prefix) for key in (*_OF_LUNG, *(tissue.key for tissue in TISSUES))]


def _thirds(rows: Sequence[Row]) -> list[_LungPart]:
    """Return the thirds of each lung; none if the case has no lung zones."""
    parts = []
    for side, third in product(LUNGS, ZONE_THIRDS):
        for row in rows:
            if row["zone"] == f"{side.key}_{third.key}" and row["half"] == row["depth"] == ALL:
                site = FindingSite(_ZONE_SITES[third.key], _LATERALITY[side.key])
                score = int(zone_scores([float(row["lung_involvement"])])[0])
                parts.append(_part(f"{side.key} {third.key} zone", site, score, row))
    return parts


def _lobes(rows: Sequence[Row]) -> list[_LungPart]:
    """Return the lobes; none if the case has none."""
    by_name = {str(row["zone"]): row for row in rows if row["by"] == BY_LOBES}
    return [
        _part(lobe.name, FindingSite(coded(lobe.code)), _severity(by_name[lobe.key]), by_name[lobe.key])
        for lobe in LOBES
        if lobe.key in by_name
    ]


def _part(name: str, site: FindingSite, score: int, row: Row) -> _LungPart:
    measurements = [
        _measured(row, "lung_ml", ""),
        _measured(row, "lung_involvement", ""),
        _score("SCORE", "Severity score by lung involvement", score),
    ]
    return _LungPart(name, site, score, _present(measurements))


def _severity(row: Row) -> int:
    return int(severity_scores([float(row["lung_involvement"])])[0])


def _total(parts: Sequence[_LungPart]) -> int:
    return int(total_scores(np.array([part.score for part in parts], np.int64)))


def _score(key: str, meaning: str, score: int) -> Measurement | None:
    """Return the measurement of a score; None if it is missing, -1."""
    return None if score < 0 else Measurement(_private(key, meaning), score, _SCORE)


def _present(measurements: Sequence[Measurement | None]) -> list[Measurement]:
    return [measurement for measurement in measurements if measurement is not None]


_COLUMNS: dict[str, Column] = {column.key: column for column in MEASUREMENTS}


def _measured(row: Row, key: str, prefix: str) -> Measurement | None:
    """Return the measurement of a column; None if it has no value, as in a lung without voxels."""
    value = float(row[f"{prefix}{key}"])
    if not isfinite(value):
        return None
    if key == "ml" or key.endswith("_ml"):
        return Measurement(codes.SCT.Volume, value, _UNITS["mL"])
    unit = _UNITS[_COLUMNS[key].unit]
    if key in _DENSITIES:
        return Measurement(codes.DCM.AttenuationCoefficient, value, unit, derivation=_DENSITIES[key])
    if key == "mass_g":
        return Measurement(codes.SCT.MassQuantity, value, unit)
    return Measurement(_private(key, _MEANINGS[key]), value, unit)


_MEANINGS = {
    "lung_involvement": "Lung involvement",
    "laa950": "Low attenuation area below -950 HU",
    "laa910": "Low attenuation area below -910 HU",
    "laa856": "Low attenuation area below -856 HU",
    "perc15": "15th percentile of attenuation",
    **{tissue.key: f"{tissue.name}, of lung volume" for tissue in TISSUES},
}


def _private(key: str, meaning: str) -> CodedConcept:
    value = {"lung_involvement": "INVOLVEMENT", **{tissue.key: f"PART-{tissue.label}" for tissue in TISSUES}}
    return coded(Code(value.get(key, key.upper()), PRIVATE_SCHEME, meaning))
