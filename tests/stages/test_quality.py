"""Quality control of cases: each flag has a phantom that raises it, and a plain phantom raises none."""

import csv
import io

import numpy as np
import pyarrow.parquet
import pytest

import lungmix
from lungmix.errors import UsageError
from lungmix.geometry import Geometry
from lungmix.kernels.data_dictionary import QUALITY
from lungmix.kernels.plausibility import LIMITS
from lungmix.parameters import MaskLabels, MaskParameters
from lungmix.phantom import Phantom
from lungmix.privacy.acquisition import Acquisition
from lungmix.quality_flags import FLAGS, QualityParameters, raise_flags, slice_to_look_at
from lungmix.stages import convert, flags, label, mask, quality, regions
from lungmix.stages.base import StageContext
from lungmix.stages.flags import flags_of, quality_row, raised_flags
from lungmix.stages.given_mask import GivenMaskStage
from lungmix.stages.measure import drop_rows, measure_cohort
from lungmix.stages.plausibility import findings_of
from lungmix.store import QUALITY_FILE, CaseFiles, CaseRef, CaseWriter
from lungmix.store.choices import last_quality, remember_quality
from lungmix.tissue import AIRWAY, ELSEWHERE, LEFT, RIGHT
from lungmix.tissue import SIDES as SIDE_REGIONS
from support.generators import ORIENTATIONS, case_of, reoriented
from support.masks import InProcess, mask_of, segments_of
from support.quality import HU, MODEL, PHANTOM, SIDES, X, Y, Z, case_with, measured_cohort, with_mass, with_table

pytestmark = pytest.mark.usefixtures("stages_here")


def names_of(case, **thresholds):
    return [flag.name for flag in raised_flags(case, QualityParameters(thresholds))]


def blocked(side, share):
    """Return the phantom with a dense lower part of one lung."""
    slices = np.flatnonzero((side == SIDES).any(axis=(1, 2)))
    limit = slices[0] + share * len(slices)
    return np.where((side == SIDES) & (limit > Z), 40, HU)


def noisy(sd):
    return np.clip(HU + np.random.default_rng(0).normal(0, sd, HU.shape), -1024, 3071)


def fine_and_noisy(sd):
    """Return a noisy phantom with voxels so fine that its reduced copy averages the noise, as for real scans."""
    phantom = Phantom((40, 192, 180), (1.8, 1.85, 7.5), 3, weights=(0.45, 0.55, 0.0, 0.0, 0.0))
    hu = phantom.volume() + np.random.default_rng(0).normal(0, sd, phantom.shape)
    return np.clip(hu, -1024, 3071), phantom.geometry, None


def spaced(factor):
    return Geometry(HU.shape[::-1], tuple(factor * step for step in PHANTOM.spacing), PHANTOM.origin)


LOWEST = int(np.flatnonzero((SIDES == 2).any(axis=(1, 2)))[0])
RIGHTMOST = int(np.flatnonzero((SIDES == 1).any(axis=(0, 1)))[0])

RAISED = {
    "rejected_lung": lambda: (HU[:, :, RIGHTMOST + 2 :], None, None),
    "cut_end": lambda: (HU[LOWEST + 6 :], None, None),
    "cut_edge": lambda: (HU[:, :, RIGHTMOST + 2 :], None, None),
    "small_side": lambda: (blocked(1, 0.85), None, None),
    "uneven_bases": lambda: (blocked(1, 0.4), None, None),
    "small_volume": lambda: (HU, spaced(0.46), None),
    "large_volume": lambda: (HU, spaced(1.6), None),
    "outside_lungs": lambda: (with_table(), None, None),
    "no_trachea": lambda: (np.where(SIDES == 3, 40, HU), None, None),
    "outside_air": lambda: (HU + 40, None, None),
    "tracheal_air": lambda: (np.where(SIDES == 3, HU + 75, HU), None, None),
    "hu_clipped": lambda: (np.clip(HU, -950, 3071), None, None),
    "hu_steps": lambda: (HU // 4 * 4, None, None),
    "few_values": lambda: (HU // 80 * 80, None, None),
    "noise": lambda: fine_and_noisy(70),
    "thick_slices": lambda: (HU, None, Acquisition("CT", slice_thickness=8.0)),
    "slice_gaps": lambda: (HU, None, Acquisition("CT", slice_thickness=2.0)),
    "dense_tissue": lambda: (with_mass(), None, None),
}
"""For each flag, a phantom that raises it: HU, geometry and acquisition."""


def test_plain_phantom_raises_no_flag(tmp_path):
    case = case_with(tmp_path, HU)
    assert names_of(case) == []
    assert flags_of(case) == []
    numbers = quality.numbers_of(case)
    assert numbers["trachea_mm"] == pytest.approx((SIDES == 3).any(axis=(1, 2)).sum() * 5, abs=10)
    assert numbers["outside_air_hu"] == pytest.approx(-1000, abs=3)
    assert numbers["smaller_side_percent"] == pytest.approx(50, abs=1)


@pytest.mark.parametrize("flag", RAISED)
def test_phantom_with_a_defect_raises_its_flag(tmp_path, flag):
    hu, geometry, acquisition = RAISED[flag]()
    case = case_with(tmp_path, hu, geometry, acquisition)
    raised = {item.name: item for item in raised_flags(case)}
    assert flag in raised
    (row,) = [line for line in FLAGS if line.name == flag]
    assert row.applies(raised[flag].value, raised[flag].threshold)
    assert any(character.isdigit() for character in raised[flag].reason) or flag == "no_trachea"


def test_flags_have_one_phantom_each_or_a_test_of_their_own():
    others = {"little_air", "implausible_hu", "interpolated", "one_label", "doubtful_mixture", "dense_at_mediastinum"}
    assert {flag.name for flag in FLAGS} == RAISED.keys() | others


def test_air_in_a_thousandth_of_the_scan_is_little(tmp_path):
    hu = np.where((SIDES == 0) & (HU < -500), 0, HU)
    hu[(SIDES == 2) | ((SIDES == 1) & (Z > 24))] = 40
    case = case_with(tmp_path, np.pad(hu, ((0, 0), (60, 60), (60, 60)), constant_values=0))
    assert "little_air" in names_of(case)


def test_accepted_scan_in_other_units_is_flagged_and_says_so(tmp_path):
    case = case_with(tmp_path, np.clip(HU, -160, 240))
    assert "implausible_hu" in names_of(case)
    assert any("not HU of a chest CT" in text for text in flags_of(case))


def test_interpolated_slices_are_flagged_with_their_number(tmp_path):
    case = CaseWriter(case_with(tmp_path, HU))
    case.record("convert", {**case.stages["convert"], convert.INTERPOLATED: 7})
    (flag,) = [item for item in raised_flags(case) if item.name == "interpolated"]
    assert flag.value == 7
    assert "7 slices were interpolated" in flag.reason


@pytest.mark.parametrize(("share", "raised"), [(95.0, ["one_label"]), (70.0, [])])
def test_one_label_almost_everywhere_is_flagged(tmp_path, share, raised):
    case = case_with(tmp_path, HU)
    row = {"air": 100 - share, "healthy": share, "ggo": 0.0, "consolidation": 0.0, "other": 0.0}
    assert [flag.name for flag in raised_flags(case, None, row)] == raised


def test_flags_show_the_slice_that_holds_their_reason(tmp_path):
    slices = {flag.name: flag.slice for flag in raised_flags(case_with(tmp_path, with_table()))}
    assert 2 <= slices["outside_lungs"] < 58
    slices = {flag.name: flag.slice for flag in raised_flags(case_with(tmp_path, with_mass(), name="two"))}
    assert 32 <= slices["dense_tissue"] <= 44
    slices = {flag.name: flag.slice for flag in raised_flags(case_with(tmp_path, HU[LOWEST + 6 :], name="three"))}
    assert slices["cut_end"] == 0


def test_slice_to_look_at_is_that_of_the_flag_farthest_beyond_its_threshold():
    slices = {"outside_percent": 7, "cut_end_cm2": 3, "smaller_side_percent": 5}
    flags = raise_flags(
        {"outside_percent": 30, "cut_end_cm2": 20, "noise_hu": 5000, "smaller_side_percent": 29}, None, slices
    )
    assert [flag.name for flag in flags] == ["cut_end", "small_side", "outside_lungs", "noise"]
    assert slice_to_look_at(flags) == 7
    assert slice_to_look_at(flags[3:]) is None
    flags = raise_flags({"cut_end_cm2": 20, "smaller_side_percent": 1}, None, slices)
    assert slice_to_look_at(flags) == 5


def test_table_and_gas_have_volumes_of_their_own(tmp_path):
    table = quality.numbers_of(case_with(tmp_path, with_table()))
    assert table["table_ml"] == pytest.approx(56 * 5 * 60 * PHANTOM.geometry.voxel_ml, rel=0.1)
    assert table["gas_ml"] == 0
    ball = ((Z - 3) * 5) ** 2 + ((Y - 44) * 3.7) ** 2 + ((X - 45) * 3.6) ** 2 < 32**2
    bowel = quality.numbers_of(case_with(tmp_path, np.where(ball, -1000, HU), name="two"))
    assert bowel["gas_ml"] == pytest.approx(ball.sum() * PHANTOM.geometry.voxel_ml, rel=0.2)
    assert bowel["outside_percent"] > 2
    assert bowel["table_ml"] == 0


def test_noise_is_that_of_the_voxels_of_the_trachea(tmp_path):
    hu = noisy(20)
    expected = np.sqrt(
        np.mean([plane[side == 3].var() for plane, side in zip(hu, SIDES, strict=True) if (side == 3).any()])
    )
    assert quality.numbers_of(case_with(tmp_path, hu))["noise_hu"] == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("orientation", [ORIENTATIONS[5], ORIENTATIONS[20], ORIENTATIONS[40]])
def test_numbers_do_not_depend_on_the_storage_order(tmp_path, orientation):
    hu = with_mass()
    axial = quality.numbers_of(case_with(tmp_path, hu))
    volume, geometry = reoriented(
        hu.astype(np.int16), Geometry(hu.shape[::-1], PHANTOM.spacing, PHANTOM.origin), orientation
    )
    other = quality.numbers_of(case_with(tmp_path, volume, geometry, name="two"))
    assert {**other, "key": ""} == {**axial, "key": ""}


def test_labels_record_the_same_numbers_as_the_stage_alone(tmp_path):
    case = case_with(tmp_path, with_table())
    expected = case.quality
    context = StageContext(None, lungmix.open_cohort(tmp_path / "s.zarr", "r+"))
    CaseWriter(case).record_quality({})
    label.LabelStage(MODEL).run(context, "one")
    assert context.cohort["one"].quality == expected
    assert quality.QualityStage().run(context, "one") == "kept"


def test_numbers_of_another_mask_are_measured_again(tmp_path):
    case_with(tmp_path, HU)
    context = StageContext(None, lungmix.open_cohort(tmp_path / "s.zarr", "r+"))
    mask.MaskStage(MaskParameters("physical", threshold=-200)).run(context, "one")
    assert quality.numbers_of(context.cohort["one"]) == {}
    assert quality.QualityStage().run(context, "one") == "done"


def test_volume_without_orientation_has_the_numbers_that_need_none(tmp_path):
    geometry = Geometry(HU.shape[::-1], PHANTOM.spacing, orientation_known=False)
    case = case_with(tmp_path, HU, geometry)
    numbers = quality.numbers_of(case)
    assert "trachea_mm" not in numbers
    assert numbers["rejected_ml"] == 0
    assert names_of(case) == []


def test_table_of_flags_is_written_with_its_twin_and_its_dictionary(tmp_path):
    cohort, rows = measured_cohort(tmp_path)
    read = list(csv.DictReader(io.StringIO(cohort.read_text("qc.csv"))))
    assert [row["case"] for row in read] == ["plain", "table"]
    assert read[0]["flags"] == read[0]["reasons"] == ""
    assert read[1]["flags"] == "outside_lungs"
    assert "outside the body" in read[1]["reasons"]
    assert list(read[0]) == [column.key for column in QUALITY]
    twin = pyarrow.parquet.read_table(io.BytesIO(cohort.read_bytes("qc.parquet"))).to_pylist()
    assert [row["flags"] for row in twin] == ["", "outside_lungs"]
    assert twin[1]["table_ml"] == pytest.approx(float(read[1]["table_ml"]))
    assert [row["reasons"] for row in rows] == [row["reasons"] for row in twin]
    drop_rows(cohort, ["table"])
    assert "table," not in cohort.read_text("qc.csv")


def test_thresholds_can_be_set_and_stay_with_the_store(tmp_path):
    cohort, _ = measured_cohort(tmp_path)
    remember_quality(cohort, QualityParameters({"outside_lungs": float("inf")}))
    again = lungmix.open_cohort(tmp_path / "s.zarr", "r+")
    assert last_quality(again).thresholds == {"outside_lungs": float("inf")}
    rows = measure_cohort(again, list(again), MODEL, file=QUALITY_FILE)
    assert [row["flags"] for row in rows] == ["", ""]


@pytest.mark.parametrize("thresholds", [{"nois": 4}, {"noise": float("nan")}, {"noise": "x"}])
def test_unknown_flag_or_threshold_is_rejected(thresholds):
    with pytest.raises(UsageError):
        QualityParameters(thresholds)


def test_numbers_that_were_not_measured_raise_no_flag():
    assert raise_flags({}) == []


def test_store_of_an_earlier_version_shows_what_it_recorded(tmp_path):
    case = CaseWriter(case_with(tmp_path, HU))
    case.record_quality({})
    case.record("side", {"key": regions.key_for(case), "rejected": [{"ml": 40.4, "touches_edge": False}]})
    (text,) = flags_of(case)
    assert "about 40 mL" in text
    assert np.isnan(quality_row(case, {})["trachea_mm"])


def test_regions_of_the_reduced_copy_are_those_of_the_store(tmp_path):
    case = case_with(tmp_path, with_table())
    context = StageContext(None, lungmix.open_cohort(tmp_path / "s.zarr", "r+"))
    label.LabelStage(MODEL).run(context, "one")
    case = context.cohort["one"]
    elsewhere = 100 * case.side_counts[3].sum() / case.side_counts.sum()
    assert quality.numbers_of(case)["outside_percent"] == pytest.approx(elsewhere, abs=0.5)
    assert CaseRef.of(context.cohort, "one").open().quality == CaseFiles(case).quality


def test_flags_of_hu_have_the_limits_that_decide_what_is_pooled():
    thresholds = {flag.name: flag.threshold for flag in FLAGS}
    assert thresholds["hu_steps"] == 100 * LIMITS["gaps"].value
    assert thresholds["little_air"] == 100 * LIMITS["little_air"].value
    assert thresholds["hu_clipped"] == 100 * LIMITS["pile_high"].value
    assert thresholds["few_values"] == LIMITS["few_values"].value + 1


@pytest.mark.parametrize("orientation", ["LPS", "PIR", "RAS"])
def test_regions_of_a_mask_file_are_those_that_are_measured(tmp_path, orientation):
    shape = (40, 60, 60)
    labels = np.zeros(shape, np.uint8)
    labels[5:35, 15:45, 5:55] = LEFT.label
    labels[5:35, 15:45, 5:15] = RIGHT.label
    labels[5:35, 15:45, 28:31] = AIRWAY.label
    labels[30:35, 15:45, 50:55] = ELSEWHERE.label
    axial = Geometry(shape[::-1], (3.0, 3.0, 4.0), (0.0, 0.0, 0.0))
    cohort = lungmix.open_cohort(tmp_path / "s.zarr", "a")
    hu = np.random.default_rng(0).normal(-850, 40, shape).astype(np.int16)
    turned, geometry = reoriented(hu, axial, orientation)
    case_of(cohort, "one", np.ascontiguousarray(turned), geometry)
    stored = np.ascontiguousarray(reoriented(labels, axial, orientation)[0])
    named = segments_of(right_lung=1, left_lung=2, trachea=3, other=4)
    stage = GivenMaskStage(
        mask.MaskStage(MaskParameters("physical")),
        {"one": mask_of(stored, geometry, segments=named)},
        MaskLabels.parse("right=1,left=2,airway=3,elsewhere=4"),
    )
    stage.run(StageContext(InProcess(), cohort), "one")
    assert quality.QualityStage().run(StageContext(None, cohort), "one") == "done"
    numbers = quality.numbers_of(cohort["one"])
    voxels = {region: int((labels == region.label).sum()) for region in SIDE_REGIONS}
    lungs = voxels[RIGHT] + voxels[LEFT]
    assert numbers["smaller_side_percent"] == pytest.approx(100 * voxels[RIGHT] / lungs, abs=0.01)
    assert numbers["airway_ml"] == pytest.approx(voxels[AIRWAY] * 0.036, abs=0.01)
    assert numbers["outside_percent"] == pytest.approx(100 * voxels[ELSEWHERE] / (labels > 0).sum(), abs=0.01)
    assert "small_side" in names_of(cohort["one"])


def test_records_of_a_case_are_judged_once_for_sentences_and_flags(tmp_path, monkeypatch):
    case = case_with(tmp_path, np.clip(HU, -950, 3071))
    judged = []
    monkeypatch.setattr(flags, "findings_of", lambda case: judged.append(case) or findings_of(case))
    sentences, raised = flags.doubts_of(case)
    assert len(judged) == 1
    quality_row(case, {})
    assert len(judged) == 2
    assert sentences == flags_of(case)
    assert raised == raised_flags(case)
    assert any("clipped to a window" in text for text in sentences)
