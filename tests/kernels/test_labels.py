import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungmix.kernels.histogram import count_hu
from lungmix.kernels.labels import look_up
from lungmix.kernels.measures import measure_counts
from lungmix.kernels.percentiles import percentiles

volumes = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1))


@given(volumes)
def test_counts_and_look_up_equal_numpy_at_the_ends_of_int16(volume):
    *shape, seed = volume
    random = np.random.default_rng(seed)
    hu = random.choice(np.array([-32768, -2048, -1000, 0, 32767], np.int16), shape)
    mask = random.integers(0, 2, shape).astype(np.uint8)
    table = random.integers(1, 6, 65536).astype(np.uint8)
    expected = np.bincount(hu[mask > 0].astype(int) + 32768, minlength=65536)
    assert np.array_equal(count_hu(hu, mask), expected)
    assert np.array_equal(look_up(hu, mask, table), np.where(mask > 0, table[hu.astype(int) + 32768], 0))


@given(st.lists(st.integers(-1100, 400), min_size=1, max_size=60), st.floats(0, 100))
def test_percentile_of_counts_is_that_of_the_voxels(values, percent):
    counts = np.bincount(np.array(values) + 32768, minlength=65536).astype(np.uint64)
    assert percentiles(counts, [percent])[0] == pytest.approx(np.percentile(values, percent), abs=1e-9)


def test_measures_of_counts_are_those_of_the_voxels():
    random = np.random.default_rng(3)
    hu = random.normal(-800, 150, 5000).astype(np.int16)
    table = np.digitize(np.arange(-32768, 32768), [-900, -700, -500, -200]).astype(np.uint8) + np.uint8(1)
    counts = np.bincount(hu.astype(int) + 32768, minlength=65536).astype(np.uint64)
    row = measure_counts(counts, table, 0.002)
    assert row["lung_ml"] == pytest.approx(10.0)
    assert row["mean_hu"] == pytest.approx(hu.mean())
    assert row["laa950"] == pytest.approx(100 * (hu < -950).mean())
    assert row["perc15"] == pytest.approx(np.percentile(hu, 15))
    labels = table[hu.astype(int) + 32768]
    assert row["ggo"] == pytest.approx(100 * (labels == 3).mean())
    assert row["lung_involvement"] == pytest.approx(100 * (labels >= 3).mean())
    assert row["ggo_ml"] == pytest.approx(0.002 * (labels == 3).sum())


def test_measures_of_no_voxels_are_nan_not_zero():
    row = measure_counts(np.zeros(65536, np.uint64), np.full(65536, 5, np.uint8), 0.001)
    assert row["lung_ml"] == 0
    assert np.isnan([row["air"], row["mean_hu"], row["perc15"], row["lung_involvement"]]).all()
