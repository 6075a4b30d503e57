"""Frequency bands of axial slices: equal to those of Gaussian filters of scipy, and gains that reach a reference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from lungmix.kernels import frequency_bands as bands
from lungmix.kernels.frequency_bands import (
    BANDS_MM,
    GREATEST_GAIN,
    LOWEST_HU,
    MAX_SLICES,
    BandSums,
    chosen_slices,
    filled,
    find_gains,
    normalise_bands,
    rounded,
)
from lungmix.parameters import KERNEL_REFERENCE_HU
from support.examples import examples

SPACING = (0.8, 0.7)


def slice_of(seed, shape=(70, 80), noise=60.0, sharpness=0.0):
    """Return HU of a slice with a lung, whose noise is filtered, and the mask of this lung."""
    random = np.random.default_rng(seed)
    y, x = np.indices(shape)
    lung = ((y / shape[0] - 0.5) ** 2 + (x / shape[1] - 0.5) ** 2) < 0.12
    texture = ndimage.gaussian_filter(random.normal(size=shape), sharpness) if sharpness else random.normal(size=shape)
    hu = np.where(lung, -850.0, 40.0) + noise * texture / texture.std() + 30 * ndimage.gaussian_filter(
        random.normal(size=shape), 2
    )  # fmt: skip
    return hu.astype(np.float32), lung


def slow_bands(hu):
    """Return the bands of a slice by Gaussian filters in space, and the rest."""
    smooth = [hu.astype(np.float64)]
    for sd in BANDS_MM:
        size = [sd / spacing for spacing in SPACING]
        smooth.append(ndimage.gaussian_filter(hu.astype(np.float64), size, mode="nearest", truncate=8))
    return [a - b for a, b in zip(smooth[:-1], smooth[1:], strict=True)] + [smooth[-1]]


def slowly_normalised(hu, gains):
    *parts, rest = slow_bands(hu)
    return rest + sum(gain * part for gain, part in zip(gains, parts, strict=True))


@examples(20)
@given(seed=st.integers(0, 2**32 - 1), gains=st.tuples(*[st.floats(0, GREATEST_GAIN)] * len(BANDS_MM)))
def test_normalised_slice_equals_that_of_filters_in_space(seed, gains):
    hu, _ = slice_of(seed)
    # Filters in space sample the Gaussian, which differs a little from the exact one for pixels of 0.8 of its SD.
    expected = slowly_normalised(hu, gains)
    error = normalise_bands(hu, SPACING, gains) - expected
    assert np.abs(error).max() < 0.06 * np.abs(hu - expected).max() + 1


def test_gains_of_one_leave_a_slice_as_it_is():
    hu, _ = slice_of(1)
    assert np.abs(normalise_bands(hu, SPACING, (1.0, 1.0)) - hu).max() < 0.01
    flat = np.full((30, 40), -700, np.float32)
    assert np.abs(normalise_bands(flat, SPACING, (0.2, 1.7)) + 700).max() < 0.01


@pytest.mark.parametrize(("noise", "sharpness"), [(110, 0.0), (60, 0.0), (40, 1.0)])
def test_bands_have_the_reference_after_normalisation(noise, sharpness):
    slices = [slice_of(seed, noise=noise, sharpness=sharpness) for seed in range(3)]
    sums = BandSums.empty()
    for hu, lung in slices:
        sums += BandSums.of(hu, lung, SPACING)
    result = find_gains(sums, SPACING, KERNEL_REFERENCE_HU)
    assert all(0 < gain < GREATEST_GAIN for gain in result.gains)
    assert result.after == pytest.approx(KERNEL_REFERENCE_HU, abs=0.02)
    # Measured again in the normalised slices, with filters in space.
    for index in range(len(BANDS_MM)):
        before = np.concatenate([slow_bands(hu)[index][lung] for hu, lung in slices])
        assert before.std() == pytest.approx(result.before[index], rel=0.06)
        parts = [slow_bands(normalise_bands(hu, SPACING, result.gains))[index][lung] for hu, lung in slices]
        assert np.concatenate(parts).std() == pytest.approx(KERNEL_REFERENCE_HU[index], rel=0.06)


def test_sums_are_those_of_the_box_around_the_lung_and_can_be_added():
    hu, lung = slice_of(5, shape=(150, 160))
    first = np.zeros_like(lung)
    first[:70] = lung[:70]
    both = BandSums.of(hu, first, SPACING) + BandSums.of(hu, lung & ~first, SPACING)
    at_once = BandSums.of(hu, lung, SPACING)
    assert both.voxels == at_once.voxels == lung.sum()
    assert np.allclose(both.covariances(), at_once.covariances(), rtol=2e-3, atol=0.05)
    assert BandSums.of(hu, np.zeros_like(lung), SPACING).voxels == 0


def test_coarse_pixels_have_no_fine_band():
    hu, lung = slice_of(2)
    sums = BandSums.of(hu, lung, (2.4, 2.4))
    result = find_gains(sums, (2.4, 2.4), KERNEL_REFERENCE_HU)
    assert result.gains[0] == 1.0 != result.gains[1]
    assert find_gains(BandSums.empty(), SPACING, KERNEL_REFERENCE_HU).is_identity


def test_gain_has_a_limit():
    hu, lung = slice_of(2, noise=1.0)
    result = find_gains(BandSums.of(hu, lung, SPACING), SPACING, (500.0, 500.0))
    assert result.gains == (GREATEST_GAIN, GREATEST_GAIN)
    assert max(result.after) < 500


def test_values_outside_the_field_of_view_are_kept():
    hu = np.array([[-3024, -1024, -1023, 3071]], np.int16)
    assert filled(hu).tolist() == [[LOWEST_HU, -1024, -1023, 3071]]
    values = np.array([[-900, -900.5, 40000.0, -40000.0]], np.float32)
    assert rounded(values, hu).tolist() == [[-3024, -900, 32767, -32768]]


@given(has_lung=st.lists(st.booleans(), max_size=120))
def test_chosen_slices_have_lung_and_are_evenly_spaced(has_lung):
    chosen = chosen_slices(has_lung)
    assert len(chosen) == min(MAX_SLICES, sum(has_lung))
    assert all(has_lung[index] for index in chosen)
    assert chosen == sorted(set(chosen))
    if sum(has_lung) > 1:
        with_lung = np.flatnonzero(has_lung)
        assert (chosen[0], chosen[-1]) == (with_lung[0], with_lung[-1])


def test_filters_are_made_once_for_each_size_of_slices():
    hu, _ = slice_of(3)
    bands._transfer.cache_clear()
    for _ in range(3):
        normalise_bands(hu, SPACING, (0.5, 0.9))
    assert bands._transfer.cache_info().misses == 1
