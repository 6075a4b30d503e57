"""Structured reports of measurements: read back with highdicom and dcmqi, and validated by dciodvfy."""

import json
import shutil
import subprocess
from pathlib import Path

import highdicom
import pydicom
import pytest
from pydicom.sr.codedict import codes

import lungmix
from lungmix.errors import UsageError
from lungmix.export import Options, export_case, export_cohort
from lungmix.pipeline import Pipeline
from lungmix.stages.measure import read_measurements, rows_of_case
from lungmix.store import ZONES_FILE
from lungmix.store.tables import rows_of
from lungmix.tissue import ELSEWHERE, LOBES, PRIVATE_SCHEME, TISSUES
from stages.test_given_mask import give, label, store_of_one
from stages.test_lobes import five_lobes, lobe_mask


@pytest.fixture(scope="module")
def exported(finished_store, client, tmp_path_factory):
    """Cohort with lung zones whose tables exclude a region, and the files of its first case."""
    folder = tmp_path_factory.mktemp("report")
    shutil.copytree(finished_store, folder / "s.zarr")
    cohort = lungmix.open_cohort(folder / "s.zarr", "a")
    Pipeline(client, cohort).zones()
    Pipeline(client, cohort).measure([ELSEWHERE])
    result = export_cohort(cohort, folder / "out", "dicom-sr", options=Options(with_ct=True, binary=True))
    assert not result.failed
    return cohort, result.files


def numbers(group):
    """Return the numeric values of a measurement group, by code value, derivation and unit."""
    values = {}
    for measurement in group.get_measurements():
        item = measurement[0]
        derived = (
            [part.value.value for part in item.ContentSequence if part.name == codes.DCM.Derivation]
            if ("ContentSequence" in item)
            else []
        )
        values[(item.name.value, *derived, item.unit.value)] = float(item.value)
    return values


def test_report_has_the_numbers_of_the_tables(exported):
    cohort, files = exported
    rows = {str(row["case"]): row for row in read_measurements(cohort)}
    zones = rows_of(cohort.read_text(ZONES_FILE))
    for name in cohort:
        report = highdicom.sr.srread(files[name][0])
        groups = report.content.get_volumetric_roi_measurement_groups()
        by_name = {group.tracking_identifier: numbers(group) for group in groups}
        row = rows[name]
        for title, prefix, volume in (("Lung", "", "lung_ml"), ("Right lung", "right_", "right_ml")):
            measured = by_name[title]
            assert measured[("118565006", "mL")] == pytest.approx(row[volume], rel=1e-9)
            assert measured[("INVOLVEMENT", "%")] == pytest.approx(row[f"{prefix}lung_involvement"], rel=1e-9)
            assert measured[("112031", "373098007", "[hnsf'U]")] == pytest.approx(row[f"{prefix}mean_hu"], rel=1e-9)
            assert measured[("LAA950", "%")] == pytest.approx(row[f"{prefix}laa950"], rel=1e-9, abs=1e-12)
            assert measured[("PART-3", "%")] == pytest.approx(row[f"{prefix}ggo"], rel=1e-9)
        for tissue in TISSUES:
            assert by_name[tissue.name][("118565006", "mL")] == pytest.approx(row[f"{tissue.key}_ml"], rel=1e-9)
        thirds = {
            str(zone["zone"]): zone
            for zone in zones
            if zone["case"] == name and zone["half"] == zone["depth"] == "all" and zone["third"] != "all"
        }
        without_segment = report.content.get_image_measurement_groups()
        assert {group.tracking_identifier for group in without_segment} == {
            f"{side} {third} zone" for side in ("right", "left") for third in ("upper", "middle", "lower")
        }
        for group in without_segment:
            side, third, _ = group.tracking_identifier.split()
            zone = thirds[f"{side}_{third}"]
            assert numbers(group)[("118565006", "mL")] == pytest.approx(zone["lung_ml"], rel=1e-9)
            (site,) = group.finding_sites
            assert (site.topographical_modifier, site.laterality.meaning.lower()) == (None, side)
            assert site.value.meaning == f"{third.capitalize()} zone of lung"


def scores_of_parts(rows, limits):
    """Return the scores of parts of the lungs, counted up by comparisons."""
    return [sum(float(row["lung_involvement"]) > 0 and is_above(row) for is_above in limits) for row in rows]


def at_least(percent):
    return lambda row: float(row["lung_involvement"]) >= percent


def above(percent):
    return lambda row: float(row["lung_involvement"]) > percent


def test_report_has_the_scores_of_the_lungs_and_of_their_thirds(exported):
    cohort, files = exported
    rows = {str(row["case"]): row for row in read_measurements(cohort)}
    for name in cohort:
        report = highdicom.sr.srread(files[name][0])
        lung, *_ = report.content.get_volumetric_roi_measurement_groups()
        thirds = {group.tracking_identifier: numbers(group) for group in report.content.get_image_measurement_groups()}
        zones = [
            zone
            for zone in rows_of(cohort.read_text(ZONES_FILE))
            if zone["case"] == name and zone["half"] == zone["depth"] == "all" and zone["third"] != "all"
            and zone["side"] != "both"
        ]  # fmt: skip
        expected = scores_of_parts(zones, [above(0), at_least(25), at_least(50), at_least(75)])
        for zone, score in zip(zones, expected, strict=True):
            assert thirds[f"{str(zone['zone']).replace('_', ' ')} zone"][("SCORE", "{score}")] == score
        measured = numbers(lung)
        assert measured[("SCORE24", "{score}")] == sum(expected)
        of_lungs = scores_of_parts([rows[name]], [above(0), at_least(5), above(25), above(50), above(75)])
        assert measured[("SCORE", "{score}")] == of_lungs[0]
        assert ("SCORE25", "{score}") not in measured


@pytest.mark.usefixtures("stages_here")
def test_report_has_the_lobes_of_a_given_mask(tmp_path):
    cohort = store_of_one(tmp_path)
    give(cohort, lobe_mask(five_lobes()))
    label(cohort)
    case = cohort["one"]
    file, *_ = export_case(case, tmp_path / "a.dcm", format="dicom-sr", options=Options(with_ct=True, binary=True))
    report = highdicom.sr.srread(file)
    groups = report.content.get_image_measurement_groups()
    rows = {str(row["zone"]): row for row in rows_of_case(case, ZONES_FILE, case.model)}
    assert [group.tracking_identifier for group in groups] == [lobe.name for lobe in LOBES]
    scores = scores_of_parts(
        [rows[lobe.key] for lobe in LOBES], [above(0), at_least(5), above(25), above(50), above(75)]
    )
    for group, lobe, score in zip(groups, LOBES, scores, strict=True):
        assert group.finding_sites[0].value.value == lobe.code.value
        assert numbers(group) == {
            ("118565006", "mL"): pytest.approx(rows[lobe.key]["lung_ml"]),
            ("INVOLVEMENT", "%"): pytest.approx(rows[lobe.key]["lung_involvement"]),
            ("SCORE", "{score}"): score,
        }
    measured = numbers(report.content.get_volumetric_roi_measurement_groups()[0])
    assert measured[("SCORE25", "{score}")] == sum(scores)
    assert ("SCORE24", "{score}") not in measured


def test_report_refers_to_segments_of_the_written_segmentations(exported):
    cohort, files = exported
    for name in cohort:
        written = {Path(file).name for file in files[name]}
        stem = f"{name}_measurements"
        assert written == {f"{stem}{end}" for end in (".dcm", "_lung.dcm", "_side.dcm", "_tissue.dcm", "_ct")}
        report = highdicom.sr.srread(files[name][0])
        headers = {pydicom.dcmread(file).SOPInstanceUID: pydicom.dcmread(file) for file in files[name][1:4]}
        slices = [pydicom.dcmread(file, stop_before_pixels=True) for file in files[name][4].iterdir()]
        for group in report.content.get_volumetric_roi_measurement_groups():
            (reference,) = group.referenced_segment[0].ReferencedSOPSequence
            segmentation = headers[reference.ReferencedSOPInstanceUID]
            number = reference.ReferencedSegmentNumber
            labels = [part.SegmentLabel for part in segmentation.SegmentSequence if part.SegmentNumber == number]
            assert labels == [group.tracking_identifier]
        assert report.StudyInstanceUID == slices[0].StudyInstanceUID
        evidence = {
            str(item.ReferencedSOPInstanceUID)
            for study in report.CurrentRequestedProcedureEvidenceSequence
            for series in study.ReferencedSeriesSequence
            for item in series.ReferencedSOPSequence
        }
        assert evidence == {*headers, *(str(header.SOPInstanceUID) for header in slices)}


def test_validator_finds_no_error(exported):
    _, files = exported
    for report, *segmentations, _ in files.values():
        for file in (report, *segmentations):
            done = subprocess.run(["dciodvfy", file], capture_output=True, text=True)
            assert [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error")] == []


def test_dcmqi_reads_the_report(exported, tmp_path):
    cohort, files = exported
    name = next(iter(cohort))
    target = tmp_path / "read.json"
    words = ["tid1500reader", "--inputDICOM", str(files[name][0]), "--outputMetadata", str(target)]
    subprocess.run(words, check=True, capture_output=True)
    groups = json.loads(target.read_text())["Measurements"]
    row = next(row for row in read_measurements(cohort) if row["case"] == name)
    lung = next(group for group in groups if group["TrackingIdentifier"] == "Lung")
    values = {
        (item["quantity"]["CodingSchemeDesignator"], item["quantity"]["CodeValue"]): float(item["value"])
        for item in lung["measurementItems"]
        if "derivationModifier" not in item
    }
    assert values[("SCT", "118565006")] == pytest.approx(row["lung_ml"], rel=1e-6)
    assert values[(PRIVATE_SCHEME, "INVOLVEMENT")] == pytest.approx(row["lung_involvement"], rel=1e-6)
    assert len(groups) == 3 + len(TISSUES) + 6


def test_no_date_and_the_same_identifiers_again(exported, tmp_path):
    cohort, files = exported
    name = next(iter(cohort))
    again, *_ = export_case(
        cohort[name], tmp_path / "again.dcm", format="dicom-sr",
        options=Options(with_ct=True, binary=True, excluded=(ELSEWHERE,)),
    )  # fmt: skip
    first, second = pydicom.dcmread(files[name][0]), pydicom.dcmread(again)
    assert first.SOPInstanceUID == second.SOPInstanceUID
    assert first == second
    assert first.ContentDate == "19700101"
    dates = [element.value for element in first.iterall() if element.VR in ("DA", "DT") and element.value]
    assert set(dates) == {"19700101"}
    assert first.PatientIdentityRemoved == "YES"


def test_an_image_is_rejected_for_measurements(exported, tmp_path):
    cohort, _ = exported
    with pytest.raises(UsageError, match="omit `image`"):
        export_cohort(cohort, tmp_path, "dicom-sr", "lung", Options(with_ct=True))
    with pytest.raises(UsageError, match="omit `image`"):
        export_case(next(iter(cohort.values())), tmp_path / "a.dcm", "lung", "dicom-sr", Options(with_ct=True))
