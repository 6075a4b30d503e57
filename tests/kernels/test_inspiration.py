"""Histograms at another inspiration: against single voxels, mass and volume."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungmix.kernels.histogram import FIRST_HU, N_HU
from lungmix.kernels.inspiration import expand_gas, gas_expansion, tissue_and_gas

HU = np.arange(FIRST_HU, FIRST_HU + N_HU)
VOXELS = st.lists(st.integers(-1100, 400), min_size=1, max_size=60)


def counts_of(voxels):
    return np.bincount(np.array(voxels) - FIRST_HU, minlength=N_HU).astype(np.uint64)


@settings(deadline=None)
@given(VOXELS, st.floats(0.3, 3))
def test_histogram_equals_voxels_that_expand_singly(voxels, factor):
    expected = np.zeros(N_HU)
    for hu in voxels:
        tissue = min(max(1 + hu / 1000, 0), 1)
        volume = tissue + factor * (1 - tissue)
        new = hu if hu <= -1000 or hu >= 0 else 1000 * (tissue / volume - 1)
        low = int(np.floor(new))
        expected[low - FIRST_HU] += volume * (low + 1 - new)
        expected[low + 1 - FIRST_HU] += volume * (new - low)
    np.testing.assert_allclose(expand_gas(counts_of(voxels), factor), expected, atol=1e-9)


@settings(deadline=None)
@given(VOXELS, st.floats(0.4, 2.5))
def test_lung_has_the_other_volume_and_the_same_mass(voxels, ratio):
    counts = counts_of(voxels)
    factor = gas_expansion(counts, ratio)
    tissue, gas = tissue_and_gas(counts)
    if gas == 0 or ratio * (tissue + gas) <= tissue:
        assert np.isnan(factor)
        return
    expanded = expand_gas(counts, factor)
    assert expanded.sum() == pytest.approx(ratio * counts.sum())
    assert tissue_and_gas(expanded)[0] == pytest.approx(tissue, abs=1e-9)


def test_same_volume_changes_nothing():
    counts = counts_of([-1050, -990, -820, -600, -20, 0, 60])
    assert gas_expansion(counts, 1.0) == 1.0
    assert np.array_equal(expand_gas(counts, 1.0), counts)


def test_exhaled_lung_comes_back_by_inspiration():
    random = np.random.default_rng(0)
    counts = counts_of(np.concatenate([random.normal(-840, 60, 4000), random.normal(-300, 120, 500)]).astype(int))
    exhaled = expand_gas(counts, 0.7)
    back = expand_gas(exhaled, 1 / 0.7)
    assert back.sum() == pytest.approx(counts.sum())
    assert back @ HU / back.sum() == pytest.approx(counts @ HU / counts.sum(), abs=0.5)
    shares = [histogram[HU >= -700].sum() / histogram.sum() for histogram in (counts, exhaled, back)]
    assert shares[1] > shares[0] + 0.02
    assert shares[2] == pytest.approx(shares[0], abs=0.002)
