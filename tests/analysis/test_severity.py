"""Computed severity scores of lungs, zones and lobes, and their intervals, against definitions on plain data."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lungmix
from lungmix.analysis import severity
from lungmix.analysis.bootstrap import bootstrap
from lungmix.analysis.severity import FIVE_LOBES, SIX_ZONES, study
from lungmix.errors import StoreError, UsageError
from lungmix.kernels.histogram import N_HU, count_hu
from lungmix.kernels.severity import severity_scores, total_scores, zone_scores
from lungmix.mixture import PUBLISHED
from lungmix.parameters import FitParameters
from lungmix.stages.fit import add_counts, fit_counts, masked_counts, publish
from lungmix.stages.lung_zones import ZoneStage
from lungmix.stages.measure import measure_cohort
from lungmix.store import CaseWriter
from lungmix.store.patients import PatientScan, record_patients
from lungmix.tissue import LOBES, LUNG_ZONES
from support.labelled import label_record
from webpage.test_zones import add_zoned_case

CONVERGED = FitParameters(fit="converged")


@pytest.mark.parametrize(
    ("percent", "score"),
    [(0, 0), (0.001, 1), (24.999, 1), (25, 2), (49.99, 2), (50, 3), (74.9, 3), (75, 4), (100, 4), (math.nan, -1)],
)
def test_score_of_a_zone_at_the_limits_of_its_intervals(percent, score):
    assert zone_scores([percent]).tolist() == [score]


@given(st.floats(0, 100), st.floats(0, 4.99))
def test_score_of_a_zone_is_that_of_its_definition(percent, limit):
    expected = 0 if percent <= limit else 1 + (percent >= 25) + (percent >= 50) + (percent >= 75)
    assert zone_scores([percent], limit)[0] == expected


def test_total_is_missing_if_a_part_is():
    assert total_scores(np.array([[0, 1, 4], [2, -1, 3]])).tolist() == [5, -1]
    assert total_scores(np.zeros((2, 0), np.int64)).tolist() == [-1, -1]


def test_interval_of_the_mean_is_of_the_scores_by_each_refit():
    # Two cases and a third without the score, under the model of the store and three refits of drawn patients.
    values = np.array([[1, 2, 2, 3], [3, 5, 4, 4], [-1, -1, -1, -1]])
    drawn = np.array([[1.0, 1, 1], [2, 0, 1], [0, 3, 0]])
    row = severity._summary("score", values, drawn, 95.0)
    low, high = np.percentile([(2 + 5) / 2, 2, 4], [2.5, 97.5])
    assert (row["scans"], row["mean"]) == (2, 2)
    assert (row["mean_low"], row["mean_high"]) == pytest.approx((low, high))


@pytest.mark.parametrize("function", [zone_scores, severity_scores])
def test_detection_limit_is_below_the_first_interval(function):
    with pytest.raises(ValueError, match="from 0 to below 5"):
        function([1.0], 5.0)


def lobes_of(sides):
    """Return lobes of a label map of sides: each lung cut at slices."""
    z = np.arange(len(sides))[:, None, None]
    right = np.where(z >= 24, 1, np.where(z >= 14, 2, 3))
    return np.where(sides == 1, right, np.where(sides == 2, np.where(z >= 18, 4, 5), 0)).astype(np.uint8)


@pytest.fixture
def cohort(tmp_path, stages_here):
    """Store labelled by its own fit; the first case has neither zones nor lobes, the second no lobes."""
    from lungmix.stages.base import StageContext

    made = lungmix.open_cohort(tmp_path / "cohort.zarr", "a")
    for k in range(6):
        name = f"case-{k}"
        case = add_zoned_case(made, name, k)
        if k:
            ZoneStage("volume").run(StageContext(None, made), name)
        if k > 1:
            lobes, hu = lobes_of(case.side.compute()), case.ct.compute()
            counts = np.stack([count_hu(hu, (lobes == lobe.label).astype(np.uint8)) for lobe in LOBES])
            case = CaseWriter(made[name])
            case.write_histogram("lobe_counts", counts)
            case.record("mask", {**case.stages["mask"], "files": {"lobe_counts/zarr.json": [1, 1]}})
    return relabelled(made, fit_counts(add_counts(masked_counts(made)), CONVERGED)["converged"], "converged")


def relabelled(cohort, model, name):
    """Label all cases with a model, as a run does, and measure them."""
    publish(cohort, model, {"given": True})
    for case in cohort.values():
        lung, hu = case.lung.compute(), case.ct.compute()
        writer = CaseWriter(case)
        tissue = lungmix.tissue_labels(hu, lung, model)
        writer.create_image("tissue")
        for start, stop in writer.layout.slabs():
            writer.write("tissue", start, tissue[start:stop])
        label_record(case, model, name)
    measure_cohort(cohort, list(cohort), model)
    return lungmix.open_cohort(cohort.url, "a")


def percent(selected, involved):
    return 100.0 * int((selected & involved).sum()) / int(selected.sum())


def scores_by_voxels(case, tissues, lobes):
    """Return S, the 24-point and the 25-point score by counting voxels of the label maps."""
    involved = np.isin(case.tissue.compute(), tissues)
    zone = case.zone.compute()
    s24 = 0
    for name in SIX_ZONES:
        labels = [z.label for z in LUNG_ZONES if z.key.startswith(name)]
        li = percent(np.isin(zone, labels), involved)
        s24 += (li > 0) + (li >= 25) + (li >= 50) + (li >= 75)
    five = [percent(lobes == lobe.label, involved) for lobe in LOBES]
    s25 = sum((li > 0) + (li >= 5) + (li > 25) + (li > 50) + (li > 75) for li in five)
    li = percent(case.lung.compute() > 0, involved)
    return (li > 0) + (li >= 5) + (li > 25) + (li > 50) + (li > 75), s24, s25


def test_scores_are_those_of_the_voxels(cohort):
    result = study(cohort, refits=2)
    assert [row["case"] for row in result.rows] == list(cohort)
    for row in result.rows[2:]:
        case = cohort[row["case"]]
        lobes = lobes_of(case.side.compute())
        for ending, tissues in (("", (3, 4, 5)), ("_dense", (4, 5))):
            expected = scores_by_voxels(case, tissues, lobes)
            assert tuple(row[f"{key}{ending}"] for key in severity.SCORES) == expected
        assert sum(row[f"score_{name}"] for name in SIX_ZONES) == row["score_24"]
        assert sum(row[f"score_{name}"] for name in FIVE_LOBES) == row["score_25"]
    first, second = result.rows[:2]
    assert math.isnan(first["score_24"])
    assert math.isnan(first["score_25"])
    assert second["score_24"] > 0
    assert math.isnan(second["score_25"])
    assert any("1 case of 6 without 24 points: no lung zones" in note for note in result.notes)
    assert any("2 cases of 6 without 25 points: not all five lobes" in note for note in result.notes)


def test_a_lobe_without_voxels_leaves_no_25_point_score(cohort):
    case = CaseWriter(cohort["case-3"])
    counts = case.lobe_counts
    counts[1] = 0
    case.delete_array("lobe_counts")
    case.write_histogram("lobe_counts", counts)
    row = study(cohort, refits=2).rows[3]
    assert math.isnan(row["score_25"])
    assert math.isnan(row["score_right_middle_lobe"])
    assert row["score_right_upper_lobe"] > 0


@pytest.mark.parametrize("patients", [False, True])
def test_intervals_are_percentiles_of_refits_over_patients(cohort, patients):
    counts = dict(masked_counts(cohort).items())
    if patients:
        record_patients(cohort, {"patient-001": [PatientScan("case-1"), PatientScan("case-4", 3)]})
        cohort = lungmix.open_cohort(cohort.url, "a")
        counts = {"case-0": counts["case-0"], "a": counts["case-1"] + counts["case-4"],
                  **{f"case-{k}": counts[f"case-{k}"] for k in (2, 3, 5)}}  # fmt: skip
    result = study(cohort, refits=12, level=80, seed=4)
    refitted = bootstrap(counts, CONVERGED, refits=12, level=80, seed=4)
    assert (result.fit, result.patients, result.refits) == ("converged", len(counts), 12)
    for name, row in zip(cohort, result.rows, strict=True):
        histogram = cohort[name].hu_counts
        scores = []
        for model in refitted.models:
            table = model.lookup_table()
            scores.append(int(severity_scores([100 * histogram[table >= 3].sum() / histogram.sum()])[0]))
        scores.sort()
        # Percentile 10 and 90 of 12 values lie between values 1 and 2, and 9 and 10, of which the outer ones count.
        assert (row["score_low"], row["score_high"]) == (scores[1], scores[10])
        assert row["score_low"] <= row["score"] <= row["score_high"]
    summary = {row["score"]: row for row in result.summary}
    assert summary["score"]["mean"] == pytest.approx(np.mean([row["score"] for row in result.rows]))
    assert summary["score_24"]["scans"] == 5
    assert summary["score_24"]["mean_low"] <= summary["score_24"]["mean"] <= summary["score_24"]["mean_high"]


def test_scores_by_a_given_model_have_no_intervals(cohort):
    cohort = relabelled(cohort, PUBLISHED, "published")
    result = study(cohort)
    assert (result.fit, result.refits) == (None, 0)
    assert all(math.isnan(row["score_low"]) and row["score"] >= 0 for row in result.rows)
    assert math.isnan(result.summary[0]["mean_low"])
    assert any("no intervals" in note for note in result.notes)


def test_impossible_studies_are_errors(cohort, tmp_path):
    with pytest.raises(UsageError, match="detection limit of 5 %"):
        study(cohort, detection_limit=5)
    with pytest.raises(UsageError, match="2 or more refits"):
        study(cohort, refits=1)
    with pytest.raises(StoreError, match="holds no model yet"):
        study(lungmix.open_cohort(tmp_path / "empty.zarr", "a"))


def test_the_detection_limit_moves_the_border_of_the_score_0(cohort):
    counts = np.zeros(N_HU, np.uint64)
    counts[32768 - 900], counts[32768 - 100] = 97, 3
    case = CaseWriter(cohort["case-5"])
    case.delete_array("hu_counts")
    case.write_histogram("hu_counts", counts)
    assert [study(cohort, refits=2, detection_limit=limit).rows[5]["score"] for limit in (2.9, 3.0)] == [1, 0]
