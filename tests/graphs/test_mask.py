import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lungmix
from lungmix.errors import UsageError
from lungmix.geometry import Geometry
from lungmix.kernels.mask import recipe_for
from lungmix.parameters import MaskParameters, voxels_of_ml
from lungmix.phantom import TRAPS, Phantom
from oracle import reference
from support.examples import examples
from support.generators import ORIENTATIONS, chests, chunkings, reoriented

SMALL = Phantom(shape=(40, 64, 64), spacing=(5.6, 5.6, 7.5), seed=4)


def check_every_way(hu, chunks, expected, **options):
    assert np.array_equal(lungmix.lung_mask(hu, **options), expected)
    with dask.config.set(scheduler="synchronous"):
        lazy = lungmix.lung_mask(da.from_array(hu, chunks=chunks), **options)
        assert lazy.dtype == np.uint8
        assert np.array_equal(lazy.compute(), expected)


@given(st.data(), chests(), st.integers(0, 3), st.integers(0, 80), st.lists(st.integers(0, 9), max_size=2))
@examples(50)
def test_mask_equals_the_oracle_whatever_the_chunks(data, hu, n_open, min_voxels, radii):
    expected = reference.lung_mask(hu, n_open=n_open, min_voxels=min_voxels, radii=radii)
    chunks = data.draw(chunkings(hu.shape))
    check_every_way(hu, chunks, expected, opening=n_open, min_voxels=min_voxels, radii=radii)


@given(st.data(), chests(), st.tuples(*[st.floats(0.4, 8.0)] * 3))
@examples(50)
def test_physical_mask_equals_the_oracle_whatever_the_chunks(data, hu, spacing):
    n = voxels_of_ml(1.0, spacing[::-1])
    recipe = recipe_for(MaskParameters("physical", min_voxels=n), spacing[::-1])
    from lungmix.graphs.mask import mask_graph
    from lungmix.kernels.mask import lung_mask

    air = hu < -155
    extent = recipe.opening.extent
    opened = reference.opening(air, reference.diamond(*extent)) if any(extent) else air
    expected = reference.closing(reference.islands(opened, n), reference.ellipsoid(10.0, spacing[::-1]))
    assert np.array_equal(lung_mask(hu, recipe), expected)
    with dask.config.set(scheduler="synchronous"):
        lazy, _ = mask_graph(da.from_array(hu, chunks=data.draw(chunkings(hu.shape))), recipe)
        assert np.array_equal(lazy.compute(), expected)


@given(st.data(), chests(), st.integers(0, 3), st.integers(0, 80), st.sampled_from(ORIENTATIONS))
@settings(max_examples=60)
def test_mask_of_another_storage_order_is_that_of_the_axial_array(data, hu, n_open, min_voxels, orientation):
    expected = reference.lung_mask(hu, n_open=n_open, min_voxels=min_voxels, radii=(2,))
    stored, geometry = reoriented(hu, Geometry(hu.shape[::-1]), orientation)
    options = {"opening": n_open, "min_voxels": min_voxels, "radii": (2,), "direction": geometry.direction}
    chunks = data.draw(chunkings(stored.shape))
    check_every_way(stored, chunks, geometry.axis_order.from_axial(expected), **options)


@given(st.tuples(*[st.floats(0.4, 8.0)] * 3), st.sampled_from(ORIENTATIONS))
@settings(max_examples=60)
def test_elements_of_the_physical_preset_hold_the_same_offsets_in_each_order(spacing, orientation):
    axial = Geometry((2, 2, 2), spacing)
    geometry = reoriented(np.zeros(axial.shape, np.int16), axial, orientation)[1]
    expected, actual = (recipe_for(MaskParameters("physical"), g.spacing_zyx, g.axis_order) for g in (axial, geometry))
    assert expected.min_voxels == actual.min_voxels
    pairs = zip((expected.opening, *expected.closings), (actual.opening, *actual.closings), strict=True)
    for axial_element, element in pairs:
        assert np.array_equal(geometry.axis_order.from_axial(axial_element.offsets()), element.offsets())


@pytest.mark.parametrize("trap", ["none", *TRAPS])
@pytest.mark.parametrize("chunks", [(7, -1, -1), (64, 20, 33), (1, -1, -1)])
def test_every_trap_is_masked_as_by_the_oracle(trap, chunks):
    phantom = Phantom(SMALL.shape, SMALL.spacing, SMALL.seed, traps=set() if trap == "none" else {trap})
    hu = phantom.volume()
    expected = reference.lung_mask(hu, n_open=1, min_voxels=1200, radii=(4, 3))
    assert expected.any()
    check_every_way(hu, chunks, expected, opening=1, min_voxels=1200, radii=(4, 3))


def test_volume_thinner_than_the_halo_of_a_ball_of_thirty():
    hu = SMALL.volume()[14:24]
    expected = reference.lung_mask(hu, n_open=1, min_voxels=500, radii=(30, 20))
    assert expected.any()
    check_every_way(hu, (3, -1, -1), expected, opening=1, min_voxels=500, radii=(30, 20))


def test_lung_that_touches_the_first_and_last_slice_is_kept():
    hu = Phantom(SMALL.shape, SMALL.spacing, 1, traps={"cut"}).volume()
    mask = lungmix.lung_mask(hu, opening=1, min_voxels=1200, radii=(3,))
    assert mask[0].any()
    assert mask[-1].any()


def test_volume_without_lungs_is_all_zeros():
    hu = np.full((5, 40, 40), 40, np.int16)
    check_every_way(hu, 2, np.zeros(hu.shape, np.uint8))


def test_physical_needs_a_spacing():
    with pytest.raises(UsageError, match="spacing"):
        lungmix.lung_mask(np.zeros((2, 2, 2), np.int16), preset="physical")


def test_unknown_preset_names_the_valid_ones():
    with pytest.raises(UsageError, match="paper, physical"):
        lungmix.lung_mask(np.zeros((2, 2, 2), np.int16), preset="papier")


def test_paper_opening_is_the_physical_one_at_the_papers_spacing():
    physical = recipe_for(MaskParameters("physical"), (0.7, 0.7, 0.7))
    assert np.array_equal(physical.opening.offsets(), recipe_for(MaskParameters(), None).opening.offsets())


def test_graph_of_a_long_scan_stays_small():
    ct = da.zeros((827, 512, 512), chunks=(64, 512, 512), dtype=np.int16)
    graph = lungmix.lung_mask(ct).__dask_graph__()
    assert len(graph) < 14 * 60


def kept_components(air, min_voxels):
    return reference.islands(air, min_voxels).astype(np.uint8)


def check_components(air, chunks, min_voxels):
    hu = np.where(air, -1000, 0).astype(np.int16)
    expected = kept_components(air, min_voxels)
    check_every_way(hu, chunks, expected, opening=0, min_voxels=min_voxels, radii=())
    return expected


def test_spiral_that_crosses_every_chunk_face_is_one_component():
    n = 41
    air = np.zeros((n, n, n), bool)
    z = x = 1
    dz, dx = 0, 2
    plane = np.zeros((n, n), bool)
    for length in (length for k in range(n - 3, 0, -4) for length in ([k, k, k] if k == n - 3 else [k, k])):
        for _ in range(length // 2):
            for step in range(3):
                plane[min(z + dz * step // 2, n - 1), min(x + dx * step // 2, n - 1)] = True
            z, x = z + dz, x + dx
        dz, dx = dx, -dz
    air[:, 3:6, :] = plane[:, None, :] & (np.arange(n) > 0) & (np.arange(n) < n - 1)
    expected = check_components(air, (5, 7, 9), 500)
    assert expected.any()
    assert ndimage_label_count(expected) == 1


def ndimage_label_count(mask):
    from scipy import ndimage

    return ndimage.label(mask)[1]


@pytest.mark.parametrize("min_voxels", [1, 2])
def test_checkerboard_with_a_million_components(min_voxels):
    air = np.indices((64, 180, 180)).sum(axis=0) % 2 == 1
    expected = check_components(air, (9, 100, -1), min_voxels)
    assert expected.sum() == (np.count_nonzero(air[:, 1:-1, 1:-1]) if min_voxels == 1 else 0)


@pytest.mark.parametrize("density", [0.29, 0.3116, 0.34])
def test_noise_at_the_percolation_threshold(density):
    air = np.random.default_rng(2).random((90, 120, 120)) < density
    air[:, [0, -1], :] = air[:, :, [0, -1]] = False
    expected = check_components(air, (11, 50, 64), 200)
    assert expected.any()
