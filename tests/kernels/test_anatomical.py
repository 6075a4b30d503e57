"""The preset ``anatomical`` gives the masks of its slow definition, for any chunks and any order of axes."""

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lungmix
from lungmix.errors import UsageError
from lungmix.geometry import Geometry, axis_order
from lungmix.kernels.anatomical import find_zones, labels_of, lung_masks
from lungmix.kernels.packed_masks import pack_below
from lungmix.kernels.reduction import ReducedGrid, reduction_of
from lungmix.kernels.structuring_elements import ellipsoid
from lungmix.parameters import MaskParameters
from oracle.anatomical import lung_parts
from support.chests import GRIDS, chest


def zones(hu, spacing, first=(0, 0, 0)):
    """Zones of the reduced voxels."""
    grid = ReducedGrid(reduction_of(spacing), first)
    reduced = grid.reduction.apply(grid.complete(hu))
    return find_zones(reduced, threshold(spacing), grid.reduction.spacing(spacing), grid.first_reduced)


def threshold(spacing):
    return -400 if min(spacing[1:]) > 2 else -300


def parts(hu, spacing, codes, chunks=None, first=(0, 0, 0)):
    """Labels of all voxels, by slabs of `chunks` planes."""
    element, grid = ellipsoid(3.0, spacing), ReducedGrid(reduction_of(spacing), first)
    air, halo, slabs, start = pack_below(hu, threshold(spacing)), 2 * element.extent[0], [], 0
    for thick in chunks or (len(hu),):
        low, high = max(0, start - halo), min(len(hu), start + thick + halo)
        indices = grid.indices(codes.shape, [np.arange(low, high), *(np.arange(n) for n in hu.shape[1:])])
        masks = lung_masks(air[low:high], codes, indices, element, (start - low, start + thick - low))
        slabs.append(labels_of(masks, hu.shape[2]))
        start += thick
    return np.concatenate(slabs)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(sorted(GRIDS)), st.tuples(*(st.integers(-9, 9) for _ in range(3))))
def test_every_voxel_is_that_of_the_slow_definition(seed, shape, first):
    hu = chest(shape, GRIDS[shape], seed)
    actual = parts(hu, GRIDS[shape], zones(hu, GRIDS[shape], first), first=first)
    np.testing.assert_array_equal(actual, lung_parts(hu, GRIDS[shape], first))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "spacing", "factors", "first"),
    [
        ((40, 128, 150), (5.0, 2.0, 2.0), (1, 2, 2), (0, 0, 0)),
        ((110, 128, 150), (1.9, 1.9, 1.9), (2, 2, 2), (-3, 7, 1)),
    ],
)
def test_voxels_around_a_reduced_copy_are_those_of_the_slow_definition(shape, spacing, factors, first):
    assert reduction_of(spacing).factors == factors
    hu = chest(shape, spacing, 7)
    actual = parts(hu, spacing, zones(hu, spacing, first), first=first)
    np.testing.assert_array_equal(actual, lung_parts(hu, spacing, first))
    assert set(np.unique(actual)) >= {1, 2}


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.data())
def test_chunks_change_no_voxel(data):
    shape = (24, 30, 36)
    spacing = data.draw(st.sampled_from([(6.0, 6.0, 6.5), (3.0, 4.5, 4.5), (1.4, 4.0, 4.0)]))
    hu = chest(shape, (8.0, 9.0, 9.0), data.draw(st.integers(0, 10**6)))
    chunks = tuple(np.diff([0, *sorted(data.draw(st.sets(st.integers(1, 23), max_size=6))), 24]).tolist())
    codes = zones(hu, spacing)
    np.testing.assert_array_equal(parts(hu, spacing, codes, chunks), parts(hu, spacing, codes))


@pytest.mark.slow
@pytest.mark.parametrize(
    "direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), (-1, 0, 0, 0, 0, 1, 0, -1, 0), (0, 0, 1, 1, 0, 0, 0, 1, 0)]
)
def test_dask_arrays_of_any_chunks_and_axes_have_the_mask_of_arrays_in_memory(direction):
    order = axis_order(direction)
    shape = (40, 84, 100)
    hu = chest(shape, GRIDS[shape], 5)
    spacing = order.by_array(GRIDS[shape])[::-1]
    stored = np.ascontiguousarray(order.from_axial(hu))
    geometry = Geometry(stored.shape[::-1], spacing, (13.0, -31.5, 107.2), direction)
    expected = lung_parts(hu, GRIDS[shape], geometry.axial.first_index) > 0
    options = {"spacing": spacing, "direction": direction, "origin": geometry.origin}
    mask = lungmix.lung_mask(stored, "anatomical", **options)
    lazy = lungmix.lung_mask(da.from_array(stored, chunks=(17, 30, 33)), "anatomical", **options)
    np.testing.assert_array_equal(order.to_axial(mask) > 0, expected)
    np.testing.assert_array_equal(lazy.compute(), mask)
    assert lazy.chunks == da.from_array(stored, chunks=(17, 30, 33)).chunks


def test_volume_without_lung_has_an_empty_mask():
    for value in (-1000, 40):
        mask = lungmix.lung_mask(np.full((20, 30, 30), value, np.int16), "anatomical", spacing=(5.0, 5.0, 5.0))
        assert not mask.any()


def test_sizes_of_other_presets_are_rejected():
    with pytest.raises(UsageError, match="has no opening"):
        MaskParameters("anatomical", opening=2)
    assert MaskParameters("anatomical").to_dict()["threshold"] == -300
    assert MaskParameters("physical").to_dict()["threshold"] == -155


def test_a_small_piece_of_a_lung_is_not_shared_between_both():
    """A separate piece of the right lung extends so far that some of its voxels are nearer to the left lung."""
    hu = np.full((40, 60, 80), 40, np.int16)
    hu[:, :4], hu[:, -4:], hu[:, :, :4], hu[:, :, -4:] = -1000, -1000, -1000, -1000
    hu[4:24, 14:46, 12:34], hu[4:37, 14:46, 48:70] = -850, -850
    hu[29:36, 22:38, 16:44] = -850
    labels = parts(hu, (5.0, 5.0, 5.0), zones(hu, (5.0, 5.0, 5.0)))
    assert set(np.unique(labels[30:35, 24:36, 18:42])) == {1}


def test_gas_of_the_throat_is_not_a_piece_of_lung():
    """The trachea is connected to the lungs, but the throat above it is not, and its voxels mix gas with tissue."""
    hu = np.full((50, 60, 80), 40, np.int16)
    hu[:, :4], hu[:, -4:], hu[:, :, :4], hu[:, :, -4:] = -1000, -1000, -1000, -1000
    hu[4:30, 14:46, 10:34], hu[4:30, 14:46, 46:70] = -850, -850
    hu[20:23, 28:32, 30:50], hu[20:40, 28:32, 38:42] = -990, -990
    throat = (slice(42, 46), slice(27, 33), slice(37, 43))
    hu[throat] = -700
    labels = parts(hu, (5.0, 5.0, 5.0), zones(hu, (5.0, 5.0, 5.0)))
    assert not labels[throat].any()
    assert labels[25, 30, 20] == 1
    # The same gas just above a lung is the apex of this lung.
    apex = (slice(32, 36), slice(27, 33), slice(18, 24))
    hu[apex] = -700
    labels = parts(hu, (5.0, 5.0, 5.0), zones(hu, (5.0, 5.0, 5.0)))
    assert labels[apex].all()
    assert not labels[throat].any()
