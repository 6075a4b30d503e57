import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lungmix
from lungmix.kernels.data_dictionary import RADIOMICS
from lungmix.kernels.radiomics import FEATURES, first_order
from lungmix.phantom import Phantom
from oracle.first_order import features


def counts_of(voxels):
    return np.bincount(np.asarray(voxels).astype(int) + 32768, minlength=65536).astype(np.uint64)


@given(st.lists(st.integers(-1100, 600), min_size=1, max_size=80), st.floats(0.01, 50))
def test_features_of_counts_are_those_of_the_voxels(voxels, voxel_mm3):
    features_of_counts, expected = first_order(counts_of(voxels), voxel_mm3), features(np.array(voxels), voxel_mm3)
    assert features_of_counts.keys() == expected.keys()
    for name, value in expected.items():
        assert features_of_counts[name] == pytest.approx(value, rel=1e-6, abs=1e-9, nan_ok=True), name


@pytest.mark.parametrize("values", [[-32768, 32767], [-1000] * 5, [0], [-25, -24, -1, 0, 24, 25], [-1024] * 9 + [3071]])
def test_features_at_the_ends_and_at_the_edges_of_bins(values):
    expected = features(np.array(values), 1.0)
    for name, value in first_order(counts_of(values), 1.0).items():
        assert value == pytest.approx(expected[name], rel=1e-6, abs=1e-9, nan_ok=True), name


def test_features_of_each_tissue_of_a_phantom_are_those_of_its_voxels():
    phantom = Phantom((48, 96, 96), (3.7, 3.7, 6.25), 2)
    hu, lung = phantom.volume(), phantom.truth() > 0
    table = lungmix.load_model("published").lookup_table()
    counts, labels = counts_of(hu[lung]), table[hu.astype(int) + 32768] * lung
    for label in range(1, 6):
        expected = features(hu[labels == label], 85.6)
        for name, value in first_order(np.where(table == label, counts, np.uint64(0)), 85.6).items():
            assert value == pytest.approx(expected[name], rel=1e-6), (label, name)


def test_no_voxels_have_no_features():
    assert np.isnan(list(first_order(np.zeros(65536, np.uint64), 1.0).values())).all()


def test_every_feature_is_in_the_dictionary():
    assert [column.key for column in RADIOMICS] == ["case", "region", "label", "voxels", "mask", "model", *FEATURES]
