import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from lungmix.errors import UsageError
from lungmix.kernels.median import median_labels
from support.examples import examples

volumes = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 75), st.integers(0, 2**32 - 1))


@given(volumes, st.integers(1, 7), st.integers(1, 6))
@examples(50)
def test_median_equals_scipy_for_every_window(volume, size, n_labels):
    *shape, seed = volume
    random = np.random.default_rng(seed)
    labels = random.integers(0, n_labels, shape).astype(np.uint8) * np.uint8(random.choice([1, 42]))
    labels[random.random(shape) < random.choice([0.0, 0.5, 0.99])] = 0
    assert np.array_equal(median_labels(labels, size), ndimage.median_filter(labels, size=size))


@given(volumes, st.integers(1, 7), st.tuples(st.booleans(), st.booleans(), st.booleans()))
@examples(50)
def test_median_of_flipped_axes_is_that_of_the_volume_flipped(volume, size, flipped):
    *shape, seed = volume
    random = np.random.default_rng(seed)
    labels = random.integers(0, 6, shape).astype(np.uint8) * (random.random(shape) < 0.5)
    axes = tuple(axis for axis in range(3) if flipped[axis])
    expected = np.flip(ndimage.median_filter(np.flip(labels, axes), size=size), axes)
    assert np.array_equal(median_labels(labels, size, flipped), expected)


def test_median_of_an_even_window_is_the_upper_one():
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[:2] = 5
    # 32 of the 64 voxels in the window of voxel (2, 2, 2) are 5, the others are lower.
    assert median_labels(labels)[2, 2, 2] == 5


@pytest.mark.parametrize("size", [0, 16])
def test_impossible_windows_are_rejected(size):
    with pytest.raises(UsageError, match="1 to 15"):
        median_labels(np.zeros((2, 2, 2), np.uint8), size)
