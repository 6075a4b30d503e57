"""Expected values from counts are sums of posteriors over voxels."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungmix.kernels.data_dictionary import EXPECTED, MEASUREMENTS
from lungmix.kernels.histogram import count_hu
from lungmix.kernels.measures import expected_shares, measure_scan
from lungmix.mixture import PUBLISHED, TissueModel
from lungmix.tissue import AIRWAY, ELSEWHERE, TISSUES
from oracle.posteriors import expected_voxels
from support.generators import models

KEYS = [tissue.key for tissue in TISSUES]
VOXEL_ML = 0.0007


def scan_of(seed, shape=(6, 20, 20)):
    """HU, and a region of each voxel from 0 to 4."""
    random = np.random.default_rng(seed)
    hu = random.normal(-700, 350, shape).astype(np.int16)
    hu[0, 0, :4] = [-32768, -1000, 0, 32767]
    return hu, random.integers(0, 5, shape).astype(np.uint8)


def measured(hu, regions, model, **options):
    sides = np.stack([count_hu(hu, (regions == label).astype(np.uint8)) for label in (1, 2, 3, 4)])
    table = model.lookup_table()
    return measure_scan(sides.sum(axis=0), sides, table, VOXEL_ML, posteriors=model.posterior_table(), **options)


def percent(voxels):
    return 100 * voxels / voxels.sum()


@settings(max_examples=30)
@given(models(components=5), st.integers(0, 2**32 - 1))
def test_expected_values_are_sums_of_posteriors_over_voxels(model, seed):
    hu, regions = scan_of(seed)
    row = measured(hu, regions, model)
    voxels = expected_voxels(hu, regions, model)
    assert [row[f"{key}_ml_expected"] for key in KEYS] == pytest.approx(voxels * VOXEL_ML, rel=1e-7, abs=1e-7)
    assert math.fsum(row[f"{key}_ml_expected"] for key in KEYS) == pytest.approx(row["lung_ml"], rel=1e-12)
    for prefix, labels in (("", (1, 2, 3, 4)), ("right_", (1,)), ("left_", (2,))):
        shares = percent(expected_voxels(hu, np.isin(regions, labels), model))
        assert [row[f"{prefix}{key}_expected"] for key in KEYS] == pytest.approx(shares, abs=1e-5)
        assert row[f"{prefix}lung_involvement_expected"] == pytest.approx(shares[2:].sum(), abs=1e-5)


def test_excluded_regions_do_not_count():
    hu, regions = scan_of(3)
    row = measured(hu, regions, PUBLISHED, exclude_regions=[AIRWAY, ELSEWHERE])
    shares = percent(expected_voxels(hu, np.isin(regions, (1, 2)), PUBLISHED))
    assert row["lung_involvement_expected"] == pytest.approx(shares[2:].sum(), rel=1e-9)


def test_every_column_by_label_has_an_expected_value_in_the_same_unit():
    columns = {column.key: column for column in MEASUREMENTS}
    expected = [key for key in columns if key.endswith(EXPECTED)]
    row = measured(*scan_of(4), PUBLISHED)
    assert [key for key in row if key.endswith(EXPECTED)] == expected
    for key in expected:
        assert columns[key].unit == columns[key.removesuffix(EXPECTED)].unit
        assert key.removesuffix(EXPECTED) in row


def test_components_that_do_not_overlap_are_expected_as_they_are_labelled():
    model = TissueModel((0.2,) * 5, (-950, -800, -600, -300, 0), (1.0,) * 5)
    random = np.random.default_rng(0)
    hu = (random.choice(model.means, (4, 10, 10)) + random.integers(-2, 3, (4, 10, 10))).astype(np.int16)
    row = measured(hu, np.full(hu.shape, 1, np.uint8), model)
    for key in [*KEYS, "lung_involvement", "ggo_ml", "right_air"]:
        assert row[f"{key}{EXPECTED}"] == pytest.approx(row[key], rel=1e-12)


def test_unknown_regions_and_no_voxels_have_nan():
    posteriors = PUBLISHED.posterior_table()
    counts = np.zeros(65536, np.uint64)
    row = measure_scan(counts, None, PUBLISHED.lookup_table(), 1.0, posteriors=posteriors)
    assert np.isnan([row["lung_involvement_expected"], row["ggo_expected"], row["left_ggo_expected"]]).all()
    assert row["ggo_ml_expected"] == 0
    counts[32768 - 900] = 10
    row = measure_scan(counts, None, PUBLISHED.lookup_table(), 1.0, posteriors=posteriors)
    assert np.isnan(row["right_lung_involvement_expected"])
    assert row["ggo_expected"] == pytest.approx(100 * posteriors[32768 - 900, 2])


def test_other_numbers_of_components_have_columns_by_number():
    model = TissueModel((0.5, 0.5), (-900, 0), (2500, 40000))
    row = measured(*scan_of(5), model)
    assert row["component_1_expected"] + row["component_2_expected"] == pytest.approx(100)
    assert "lung_involvement_expected" not in row
    assert list(expected_shares(np.ones(3), model.predict_proba([-900, -500, 0]))) == ["component_1", "component_2"]
