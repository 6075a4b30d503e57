"""Linear map of HU from air and blood."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from lungmix.kernels.air_blood import AIR_HU, BLOOD_HU, NotHarmonised, harmonise, linear_map, measure_air_blood
from lungmix.kernels.aorta import Aorta, NoBlood

AIR = st.floats(-1090, -910)
BLOOD = st.none() | st.floats(20, 75)
LIMITS = np.iinfo(np.int16)


def aorta_with(hu, problem=None):
    return Aorta(np.zeros((20, 3), np.intp), np.full(20, 12.0, np.float32), hu, 300, 0.8, problem)


def measured(air, aorta, noise=0.0):
    hu = np.rint(np.random.default_rng(0).normal(air, noise, (4, 10, 10)))
    return measure_air_blood(np.maximum(hu, -1024).astype(np.int16), np.ones(hu.shape, np.bool_), aorta)


@given(AIR, BLOOD)
def test_air_and_blood_become_their_references_or_water_stays(air, blood):
    slope, offset = linear_map(air, blood)
    assert slope * air + offset == pytest.approx(AIR_HU, abs=1e-9)
    fixed, reference = (0, 0) if blood is None else (blood, BLOOD_HU)
    assert slope * fixed + offset == pytest.approx(reference, abs=1e-9)
    assert slope > 0


@given(AIR, BLOOD, st.lists(st.integers(LIMITS.min, LIMITS.max), max_size=30))
def test_hu_are_rounded_limited_to_int16_and_keep_their_order(air, blood, values):
    slope, offset = linear_map(air, blood)
    hu = np.array(sorted([LIMITS.min, *values, LIMITS.max]), np.int16)
    result = harmonise(hu.reshape(1, 1, -1), slope, offset).reshape(-1)
    expected = [min(max(round(slope * value + offset), LIMITS.min), LIMITS.max) for value in hu.tolist()]
    assert result.dtype == np.int16
    assert result.tolist() == expected == sorted(expected)


@given(arrays(np.int16, array_shapes(min_dims=3, max_dims=3, max_side=6)), AIR, BLOOD, st.data())
def test_chunks_have_the_voxels_of_the_volume(hu, air, blood, data):
    slope, offset = linear_map(air, blood)
    axis = data.draw(st.integers(0, 2))
    cut = data.draw(st.integers(0, hu.shape[axis]))
    parts = [harmonise(part, slope, offset) for part in np.split(hu, [cut], axis)]
    np.testing.assert_array_equal(np.concatenate(parts, axis), harmonise(hu, slope, offset))
    np.testing.assert_array_equal(
        harmonise(hu.transpose(2, 0, 1), slope, offset), harmonise(hu, slope, offset).transpose(2, 0, 1)
    )


@given(arrays(np.int16, array_shapes(min_dims=3, max_dims=3, max_side=6)))
def test_identity_changes_no_voxel(hu):
    np.testing.assert_array_equal(harmonise(hu, 1.0, 0.0), hu)


def test_scan_with_air_and_blood_has_the_line_through_both():
    result = measured(-960, aorta_with(35.0))
    assert (result.air_hu, result.blood_hu, result.blood_voxels) == (-960, 35, 300)
    assert (result.slope, result.offset) == linear_map(-960, 35)
    assert result.is_harmonised
    assert result.blood_problem is None


def test_scan_without_usable_blood_has_the_line_through_water():
    result = measured(-960, aorta_with(180.0, NoBlood.ABOVE))
    assert (result.blood_hu, result.blood_voxels, result.blood_problem) == (None, 0, NoBlood.ABOVE)
    assert (result.slope, result.offset) == linear_map(-960)
    assert result.is_harmonised


@pytest.mark.parametrize(
    ("air", "blood", "problem"),
    [
        (-880, 40.0, NotHarmonised.AIR),
        (-1010, 40.0, None),
        (-905, None, NotHarmonised.SLOPE),
        (-915, 75.0, None),
        (-901, 20.0, NotHarmonised.SLOPE),
    ],
)
def test_implausible_air_or_slope_leaves_the_scan_as_it_is(air, blood, problem):
    result = measured(air, aorta_with(30.0, NoBlood.SHORT) if blood is None else aorta_with(blood))
    assert result.problem == problem
    if problem is not None:
        assert (result.slope, result.offset, result.is_harmonised) == (1, 0, False)


def test_clipped_noise_does_not_change_the_hu_of_air():
    assert measured(-990, aorta_with(45.0), noise=60).air_hu == pytest.approx(-990, abs=6)


def test_air_that_is_clipped_in_half_of_its_voxels_is_not_used():
    assert measured(-1040, aorta_with(45.0), noise=10).problem == NotHarmonised.CLIPPED


def test_few_noisy_voxels_of_air_are_not_used():
    hu = np.rint(np.random.default_rng(0).normal(-990, 60, (1, 5, 10))).astype(np.int16)
    result = measure_air_blood(hu, np.ones(hu.shape, np.bool_), aorta_with(45.0))
    assert result.problem == NotHarmonised.NOISE
    assert (result.slope, result.offset) == (1, 0)


def test_scan_without_voxels_of_air_is_left_as_it_is():
    hu = np.full((3, 3, 3), -1000, np.int16)
    result = measure_air_blood(hu, np.zeros(hu.shape, np.bool_), aorta_with(45.0))
    assert result.problem == NotHarmonised.NO_AIR
    assert (result.air_hu, result.slope, result.offset) == (None, 1, 0)
