"""Clean-up of label maps. tests/segmenters/test_lungmask.py compares it with the clean-up of lungmask itself."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lungmix.kernels.label_components import find_clean_up


def cleaned(labels, thickness=None):
    """Return the labels after the clean-up, computed in slabs of `thickness` slices."""
    thickness = thickness or len(labels)
    clean_up = find_clean_up(lambda start, stop: labels[start:stop], len(labels), thickness)
    starts = range(0, len(labels), thickness)
    return np.concatenate([clean_up.apply(start, labels[start : start + thickness]) for start in starts])


@st.composite
def label_maps(draw):
    """Draw a label map of three labels, in large blobs or as noise."""
    shape = tuple(draw(st.integers(1, 12)) for _ in range(3))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    fields = random.normal(size=(4, *shape))
    sigma = draw(st.sampled_from([0, 0.5, 1, 1.5]))
    labels = np.stack([ndimage.gaussian_filter(field, sigma) for field in fields]).argmax(axis=0).astype(np.uint8)
    labels[ndimage.gaussian_filter(random.normal(size=shape), 0.7) > draw(st.sampled_from([0.1, 0.3, 9]))] = 0
    return labels


@settings(max_examples=40)
@given(labels=label_maps(), thickness=st.integers(1, 12))
def test_slabs_never_change_the_result(labels, thickness):
    assert np.array_equal(cleaned(labels, thickness), cleaned(labels))


@settings(max_examples=40)
@given(labels=label_maps())
def test_each_label_is_one_component_and_none_is_new(labels):
    result = cleaned(labels)
    assert {*np.unique(result)} <= {0, *np.unique(labels)}
    # A higher label may cut a lower one into parts, where it fills its own holes.
    last = result.max()
    if last:
        assert ndimage.label(result == last, np.ones((3, 3, 3)))[1] == 1


def test_the_largest_component_stays_and_a_small_one_apart_goes():
    labels = np.zeros((6, 9, 9), np.uint8)
    labels[1:5, 1:5, 1:5] = 1
    labels[1:5, 7:, 7:] = 1
    expected = labels.copy()
    expected[:, 7:, 7:] = 0
    assert np.array_equal(cleaned(labels, 2), expected)


def test_a_small_component_goes_to_the_neighbour_with_most_voxels_at_its_faces():
    labels = np.zeros((7, 12, 12), np.uint8)
    labels[1:6, 1:6, 1:6] = 1
    labels[1:6, 6:11, 1:11] = 2
    labels[2:5, 6:8, 2:5] = 1  # a block beside label 2 that is joined to the rest of label 1 by faces
    assert np.array_equal(cleaned(labels, 3), labels)
    labels[2:5, 6:8, 2:5] = 2
    labels[2:5, 8:10, 6:9] = 1  # a separate component inside label 2
    expected = labels.copy()
    expected[2:5, 8:10, 6:9] = 2
    assert np.array_equal(cleaned(labels, 3), expected)


def test_a_component_of_two_voxels_is_removed_and_filled_where_it_is_a_hole():
    labels = np.zeros((7, 9, 9), np.uint8)
    labels[1:6, 1:8, 1:8] = 2
    labels[3, 4, 4:6] = 1
    labels[1:3, 8, 8] = 1
    expected = np.where(labels == 2, 2, 0).astype(np.uint8)
    expected[3, 4, 4:6] = 2
    # All components of label 1 have two voxels; the first of them keeps its label.
    result = cleaned(labels, 2)
    assert np.array_equal(result == 2, expected == 2)


def test_holes_are_filled_and_bays_are_not():
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[1:8, 1:8, 1:8] = 1
    labels[4, 4, 4] = 0
    bay = labels.copy()
    bay[4, 4, 4:] = 0
    expected = labels.copy()
    expected[4, 4, 4] = 1
    assert np.array_equal(cleaned(labels, 2), expected)
    assert np.array_equal(cleaned(bay, 2), bay)


def single_slice():
    """Return a single slice in which a label has a hole of 63 pixels and one of 64 pixels."""
    labels = np.zeros((1, 14, 24), np.uint8)
    labels[0, 1:13, 1:23] = 1
    labels[0, 2:10, 2:10] = labels[0, 2:10, 12:20] = 0
    labels[0, 2, 2] = 1
    return labels


def test_a_hole_of_a_single_slice_is_filled_below_64_pixels():
    expected = single_slice()
    expected[0, 2:10, 2:10] = 1
    assert np.array_equal(cleaned(single_slice()), expected)


def test_an_empty_map_stays_empty():
    assert not cleaned(np.zeros((5, 4, 3), np.uint8), 2).any()
