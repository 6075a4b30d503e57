import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from lungmix.errors import UsageError
from lungmix.kernels import distance_morphology, morphology
from lungmix.kernels.packed_masks import pack, unpack
from lungmix.kernels.structuring_elements import ball, diamond, ellipsoid
from oracle import reference
from support.examples import examples
from support.generators import masks

spacings = st.tuples(*[st.floats(0.3, 8.0)] * 3)
elements = st.one_of(
    st.integers(0, 8).map(ball),
    st.tuples(*[st.integers(0, 4)] * 3).map(diamond),
    st.tuples(st.floats(0.5, 9.0), spacings).map(lambda chosen: ellipsoid(*chosen)),
)


def on_masks(operation):
    """Return an operation on masks of one byte per voxel, which packs them for `operation` and unpacks the result."""

    def run(mask, element, planes=None):
        return unpack(operation(pack(mask), mask.shape[2], element, planes), mask.shape[2])

    return run


dilate, erode, opening, closing = map(
    on_masks, (morphology.dilate, morphology.erode, morphology.opening, morphology.closing)
)


@given(masks(), elements)
@examples(50)
def test_dilation_and_erosion_equal_scipy_for_every_element(mask, element):
    offsets = element.offsets()
    assert np.array_equal(dilate(mask, element), ndimage.binary_dilation(mask, offsets))
    assert np.array_equal(erode(mask, element), ndimage.binary_erosion(mask, offsets))


@given(masks(), elements, st.data())
def test_answer_for_some_planes_is_that_part_of_the_whole_answer(mask, element, data):
    first = data.draw(st.integers(0, len(mask) - 1))
    stop = data.draw(st.integers(first + 1, len(mask)))
    assert np.array_equal(dilate(mask, element, (first, stop)), dilate(mask, element)[first:stop])
    assert np.array_equal(erode(mask, element, (first, stop)), erode(mask, element)[first:stop])


@given(masks(), elements)
@examples(50)
def test_closing_is_that_of_a_volume_in_infinite_background(mask, element):
    assert np.array_equal(closing(mask, element), reference.closing(mask, element.offsets()))


@given(masks(), elements, st.integers(1, 70))
@examples(50)
def test_closing_stays_in_the_bounding_box_at_any_position_in_its_words(mask, element, shift):
    moved = np.pad(mask, [(0, 0), (0, 0), (shift, 70 - shift)])
    expected = np.pad(closing(mask, element), [(0, 0), (0, 0), (shift, 70 - shift)])
    assert np.array_equal(closing(moved, element), expected)


@given(masks(), elements, st.data())
def test_halo_of_twice_the_extent_is_enough_for_a_closing(mask, element, data):
    first = data.draw(st.integers(0, len(mask) - 1))
    stop = data.draw(st.integers(first + 1, len(mask)))
    halo = 2 * element.extent[0]
    begin, end = max(0, first - halo), min(len(mask), stop + halo)
    window, planes = mask[begin:end], (first - begin, stop - begin)
    assert np.array_equal(closing(window, element, planes), closing(mask, element)[first:stop])
    assert np.array_equal(opening(window, element, planes), opening(mask, element)[first:stop])


@pytest.mark.parametrize("radius", [13, 20, 30])
@pytest.mark.parametrize("band", [1, 16 << 20])
def test_closing_by_a_large_ball_equals_itk_whatever_the_bands(radius, band, monkeypatch):
    monkeypatch.setattr(distance_morphology, "BAND_BYTES", band)
    field = ndimage.gaussian_filter(np.random.default_rng(radius).random((50, 90, 140)), 5)
    mask = (field > np.quantile(field, 0.93)).astype(np.uint8)
    assert np.array_equal(closing(mask, ball(radius)), reference.closing_itk(mask, radius))


def test_bands_of_a_large_window_need_no_machine_code_of_their_own(monkeypatch):
    mask = np.zeros((3, 70, 130), np.uint8)
    mask[1, [0, -1], [0, -1]] = 1
    closed = closing(mask, ball(3))
    compiled = list(distance_morphology._spread.signatures)
    monkeypatch.setattr(distance_morphology, "BAND_BYTES", 1)
    assert np.array_equal(closing(mask, ball(3)), closed)
    assert distance_morphology._spread.signatures == compiled


@given(masks(), st.integers(1, 4))
def test_opening_by_a_diamond_is_that_many_iterations_of_the_cross(mask, n):
    assert np.array_equal(opening(mask, diamond((n, n, n))), ndimage.binary_opening(mask, iterations=n))


@pytest.mark.parametrize("radius", [0, 1, 2, 20, 30])
def test_ball_is_the_ball_of_itk(radius):
    assert np.array_equal(ball(radius).offsets(), reference.ball(radius))


@given(st.floats(0.5, 12.0), spacings)
@examples(50)
def test_ellipsoid_holds_the_offsets_within_its_radius(millimetres, spacing):
    assert np.array_equal(ellipsoid(millimetres, spacing).offsets(), reference.ellipsoid(millimetres, spacing))


@pytest.mark.parametrize("spacing", [(5.0, 0.841796875, 0.841796875), (2.5, 0.898438, 0.898438), (0.3, 0.6, 0.6)])
def test_ellipsoid_of_a_scan_has_whole_costs(spacing):
    assert ellipsoid(10.0, spacing).costs[0].dtype == np.uint16


@given(masks(), spacings)
def test_costs_that_are_no_whole_numbers_give_the_same_dilation(mask, spacing):
    element = ellipsoid(4.0, spacing)
    squares = [(np.arange(n + 1) * s) ** 2 for n, s in zip(element.extent, spacing, strict=True)]
    real = type(element)(tuple(squares), (4.0 + 1e-6) ** 2)
    assert np.array_equal(dilate(mask, real), ndimage.binary_dilation(mask, real.offsets()))


@given(st.tuples(*[st.integers(0, 5)] * 3))
def test_diamond_is_flat_where_its_extent_is_zero(extent):
    assert np.array_equal(diamond(extent).offsets(), reference.diamond(*extent))


@pytest.mark.parametrize("make", [lambda: ball(-1), lambda: ball(200), lambda: ellipsoid(100.0, (0.3, 0.3, 0.3))])
def test_impossible_elements_are_rejected(make):
    with pytest.raises(UsageError, match="give a"):
        make()
