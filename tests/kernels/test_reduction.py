"""The reduced voxels of a crop of a scan are those of the scan."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lungmix.geometry import Geometry
from lungmix.kernels.reduction import ReducedGrid, Reduction

SPACING = (0.7, 0.7, 1.3)
REDUCTIONS = [
    Reduction(0, (1, 1, 1), (1, 1, 1)),
    Reduction(2, (2, 4, 4), (1, 1, 1)),
    Reduction(2, (1, 4, 4), (3, 1, 2)),
]


def first_index(origin, cut=(0, 0, 0), direction=(1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)):
    """Return the first index of a volume from which `cut` voxels along z, y, x are cut off."""
    columns = np.reshape(direction, (3, 3))
    moved = np.asarray(origin) + columns @ (np.multiply(SPACING, cut[::-1]))
    return Geometry((9, 9, 9), SPACING, tuple(moved), direction).first_index


@given(
    st.tuples(*(st.floats(-400, 400) for _ in range(3))),
    st.tuples(*(st.integers(0, 400) for _ in range(3))),
    st.floats(-0.5, 0.5),
)
def test_the_first_index_of_a_crop_exceeds_that_of_the_scan_by_what_was_cut(origin, cut, angle):
    """This also holds if a tilt of the gantry turns the axes, and for positions rounded to six decimals as in files."""
    origin = tuple(round(value * 2) / 2 * spacing for value, spacing in zip(origin, SPACING, strict=True))
    turned = (1.0, 0, 0, 0, np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle))
    of_scan = first_index(origin)
    rounded = np.round(np.asarray(origin) + np.multiply(SPACING, cut[::-1]), 6)
    crop = Geometry((9, 9, 9), SPACING, tuple(rounded)).first_index
    assert tuple(np.subtract(crop, of_scan)) == cut
    assert tuple(np.subtract(first_index(origin, cut, turned), first_index(origin, (0, 0, 0), turned))) == cut


@given(st.data())
def test_reduced_voxels_of_a_crop_are_those_of_the_scan_that_the_cut_does_not_divide(data):
    reduction = data.draw(st.sampled_from(REDUCTIONS))
    shape, first = (26, 30, 34), data.draw(st.tuples(*(st.integers(-50, 50) for _ in range(3))))
    cut = data.draw(st.tuples(*(st.integers(0, 12) for _ in range(3))))
    hu = np.random.default_rng(data.draw(st.integers(0, 99))).integers(-1000, 300, shape).astype(np.int16)
    crop = hu[tuple(slice(n, None) for n in cut)]
    grid = ReducedGrid(reduction, first)
    part = ReducedGrid(reduction, tuple(np.add(first, cut).tolist()))
    reduced, reduced_crop = (each.reduction.apply(each.complete(a)) for each, a in ((grid, hu), (part, crop)))
    skipped = np.subtract(part.first_reduced, grid.first_reduced)
    np.testing.assert_array_equal(reduced_crop[1:, 1:, 1:], reduced[tuple(slice(n + 1, None) for n in skipped)])
    # Each voxel of the crop is in the same reduced voxel as in the scan.
    indices = grid.indices(reduced.shape, [np.arange(n) for n in shape])
    of_crop = part.indices(reduced_crop.shape, [np.arange(n) for n in crop.shape])
    for a, b, n, k in zip(indices, of_crop, cut, skipped, strict=True):
        np.testing.assert_array_equal(b + k, a[n:])
